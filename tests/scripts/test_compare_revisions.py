"""scripts/benchmark/compare_revisions.py, on a repository of one module."""
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import ROOT

SCRIPT = ROOT / 'scripts' / 'benchmark' / 'compare_revisions.py'
SCRIPT_THERE = 'scripts/benchmark.py'
BENCHMARK = '''
import json, sys, pathlib
import measured

runs = pathlib.Path(sys.argv[1])
runs.write_text((runs.read_text() if runs.exists() else '') + str(measured.VALUE))
print('value: 7')
print('value: 0.%d s' % measured.VALUE)
print(json.dumps({'at': {'small': measured.VALUE}}))
print('done')
'''


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """Revision `one` says 1, HEAD says 2, and the working tree 4; only the working tree has the benchmark."""
    folder = tmp_path / 'repository'
    folder.mkdir()
    git(folder, 'init', '--quiet')
    for value, name in ((1, 'one'), (2, 'two')):
        (folder / 'measured.py').write_text(f'VALUE = {value}\n')
        git(folder, 'add', '.')
        git(folder, '-c', 'user.name=Ann', '-c', 'user.email=ann@example.com', 'commit', '--quiet', '-m', name)
        git(folder, 'tag', name)
    (folder / 'measured.py').write_text('VALUE = 4\n')
    (folder / SCRIPT_THERE).parent.mkdir()
    (folder / SCRIPT_THERE).write_text(BENCHMARK)
    return folder


def git(folder: Path, *words: str) -> str:
    return subprocess.run(['git', *words], cwd=folder, capture_output=True, text=True, check=True).stdout


def compare(repository: Path, *words: object) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, SCRIPT, *map(str, words)], cwd=repository, capture_output=True, text=True)


@pytest.mark.parametrize('number', [('--json', 'at.small'), ('--value', r'value: 0\.(\d) s'),
                                    ('--value', r'(?<=value: )[\d.]+')], ids=['json', 'group', 'match'])
def test_the_benchmark_measures_both_revisions_in_turns(repository, tmp_path, number):
    runs = tmp_path / 'runs'
    process = compare(repository, 'one', 'HEAD', *number, '--turns', 3, '--', sys.executable, SCRIPT_THERE, runs)
    assert process.returncode == 0, process.stderr
    assert runs.read_text() == '122112'
    assert process.stdout.splitlines()[-1].split() == ['new', '/', 'old', '2', '(2', 'to', '2)']
    assert git(repository, 'worktree', 'list').count('\n') == 1


def test_a_dot_is_the_working_tree(repository, tmp_path):
    process = compare(repository, 'HEAD', '.', '--json', 'at.small', '--turns', 1, '--at-most', 1.9, '--',
                      sys.executable, SCRIPT_THERE, tmp_path / 'runs')
    assert process.returncode == 1
    assert process.stderr.splitlines()[-1] == 'FAILED: new / old is 2.000, at most 1.9 is allowed'


def test_own_script_is_that_of_each_revision(repository, tmp_path):
    command = ('--json', 'at.small', '--turns', 1, '--own-script', '--', sys.executable, SCRIPT_THERE,
               tmp_path / 'runs')
    assert "benchmark.py': [Errno 2] No such file" in compare(repository, 'HEAD', '.', *command).stderr
    git(repository, 'add', SCRIPT_THERE)
    git(repository, '-c', 'user.name=Ann', '-c', 'user.email=ann@example.com', 'commit', '--quiet', '-m', 'benchmark')
    (repository / SCRIPT_THERE).write_text('raise SystemExit("the script of the working tree")')
    assert compare(repository, 'HEAD', 'HEAD', *command).returncode == 0
    assert 'the script of the working tree' in compare(repository, 'HEAD', '.', *command).stderr


@pytest.mark.parametrize(('words', 'message'), [
    (('one', 'three', '--', 'true'), 'invalid reference: three'),
    (('one', 'two', '--', 'no-such-command'), 'cannot run no-such-command'),
    (('one', 'two', '--', sys.executable, '-c', 'print("why"); raise SystemExit(3)'), 'ended with 3:\nwhy'),
    (('one', 'two', '--json', 'time', '--', 'echo', '{"time": "soon"}'), "no JSON line with 'time'"),
    (('one', 'two', '--value', 'x=(.)', '--', 'echo', 'y=3'), "nothing matches 'x=(.)'"),
], ids=['revision', 'command', 'failure', 'json', 'pattern'])
def test_errors_name_their_cause_and_leave_no_worktree(repository, words, message):
    process = compare(repository, *words)
    assert process.returncode == 1
    assert message in process.stderr
    assert 'Traceback' not in process.stderr
    assert git(repository, 'worktree', 'list').count('\n') == 1


@pytest.mark.parametrize('number', [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_removes_the_worktrees(repository, tmp_path, number):
    started = tmp_path / 'started'
    process = subprocess.Popen(
        [sys.executable, SCRIPT, 'one', 'two', '--', sys.executable, '-c',
         f'import pathlib, time; pathlib.Path({str(started)!r}).touch(); time.sleep(60)'],
        cwd=repository, stderr=subprocess.PIPE, text=True, start_new_session=True)
    while not started.exists():
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.05)
    assert git(repository, 'worktree', 'list').count('\n') == 3
    os.killpg(process.pid, number)  # as a terminal does
    process.communicate(timeout=30)
    assert process.returncode == 128 + number
    assert git(repository, 'worktree', 'list').count('\n') == 1
