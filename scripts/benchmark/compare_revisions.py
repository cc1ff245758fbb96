"""Run a benchmark on two revisions in turns, and print the ratio of their results.

Each revision is checked out into a temporary git worktree, which is removed afterwards. The command runs in that
worktree, with the worktree first on PYTHONPATH. If a Python script of the command exists in the current folder, that
version is used, so that today's benchmark measures both revisions; `--own-script` uses the script of each revision.
The revision `.` is the current checkout, including uncommitted changes.

The result is the wall time of the command, unless an option selects a number in its output.

    python scripts/benchmark/compare_revisions.py HEAD~1 . -- python scripts/benchmark/benchmark_network.py
    python scripts/benchmark/compare_revisions.py v1 . --value 'train.py: +([0-9.]+) s' -- \\
        python scripts/benchmark/benchmark_loop.py --pairs 4
    python scripts/benchmark/compare_revisions.py v1 . --json seconds --turns 9 --at-most 0.85 -- ./bench --json
    python scripts/benchmark/compare_revisions.py v1 . --cpu -- python -m basicsr_stvsr --help
"""
import argparse
import compileall
import json
import os
import re
import resource
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple


class BenchmarkError(Exception):
    """The command failed, or its output lacks the expected number."""


class Run(NamedTuple):
    """Time in seconds that one run of the command used, and its stdout and stderr."""

    wall: float
    cpu: float
    output: str


def git(*words: str | Path) -> str:
    """Return the output of `git WORDS`; raise ValueError with its message if it fails."""
    process = subprocess.run(['git', *map(str, words)], capture_output=True, text=True)
    if process.returncode:
        raise ValueError(process.stderr.strip())
    return process.stdout.strip()


@contextmanager
def worktree(revision: str) -> Iterator[Path]:
    """Check out a revision into a temporary folder; `.` is the current checkout."""
    if revision == '.':
        yield Path(git('rev-parse', '--show-toplevel'))
        return
    with tempfile.TemporaryDirectory(prefix='compare_revisions_') as folder:
        path = Path(folder) / 'worktree'
        try:
            git('worktree', 'add', '--detach', path, revision)
            compileall.compile_dir(path, quiet=2)  # otherwise the first run in a new checkout would compile
            yield path
        finally:
            subprocess.run(['git', 'worktree', 'remove', '--force', path], stderr=subprocess.DEVNULL)


def command_in(folder: Path, command: Sequence[str], own_script: bool) -> list[str]:
    """Return the command to run in `folder`; its Python scripts come from the current folder, unless `own_script`."""
    if own_script:
        return list(command)
    return [str(Path(word).resolve()) if word.endswith('.py') and Path(word).is_file() else word for word in command]


def run_in(folder: Path, command: Sequence[str]) -> Run:
    """Run a command with the package of a checkout.

    Raises:
        BenchmarkError: it cannot be started or fails; the message has the end of its output.
    """
    path = os.pathsep.join(filter(None, (str(folder), os.environ.get('PYTHONPATH'))))
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    try:
        process = subprocess.run(command, cwd=folder, env=os.environ | {'PYTHONPATH': path}, stdin=subprocess.DEVNULL,
                                 stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    except OSError as error:
        raise BenchmarkError(f'cannot run {command[0]}: {error.strerror}') from None
    wall, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    if process.returncode:
        raise BenchmarkError(f'{" ".join(command)} ended with {process.returncode}:\n{process.stdout[-3000:]}')
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Run(wall, cpu, process.stdout)


def number_by_pattern(pattern: str, output: str) -> float:
    """Return the number in the (first group of the) last match of a regular expression."""
    matches = list(re.finditer(pattern, output, re.MULTILINE))
    if not matches:
        raise BenchmarkError(f'nothing matches {pattern!r} in the output:\n{output[-3000:]}')
    return float(matches[-1][1 if matches[-1].re.groups else 0])


def number_by_key(key: str, output: str) -> float:
    """Return the number at a key, such as `time.small`, of the last JSON line that has the key."""
    for line in reversed(output.splitlines()):
        try:
            value = json.loads(line)
            for name in key.split('.'):
                value = value[name]
            return float(value)
        except (ValueError, KeyError, TypeError):
            continue
    raise BenchmarkError(f'no JSON line with {key!r} in the output:\n{output[-3000:]}')


def measure(folders: Sequence[Path], command: Sequence[str], number: Callable[[Run], float], turns: int,
            own_script: bool = False) -> list[list[float]]:
    """Return the results of `turns` runs in each folder. The folders take turns, and the order changes each time."""
    numbers: list[list[float]] = [[] for _ in folders]
    for turn in range(turns):
        for i in range(len(folders)) if turn % 2 == 0 else reversed(range(len(folders))):
            numbers[i].append(number(run_in(folders[i], command_in(folders[i], command, own_script))))
        print(f'turn {turn + 1} of {turns}: {" ".join(f"{values[-1]:.4g}" for values in numbers)}', file=sys.stderr)
    return numbers


def spread(values: Sequence[float]) -> str:
    return f'{statistics.median(values):10.4g}   ({min(values):.4g} to {max(values):.4g})'


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('old', help='revision')
    parser.add_argument('new', help='revision')
    parser.add_argument('command', nargs='+', metavar='-- COMMAND', help='the benchmark')
    parser.add_argument('--turns', type=int, default=5, metavar='N', help='runs of each (default: %(default)s)')
    parser.add_argument('--own-script', action='store_true', help='run the script of each revision')
    number = parser.add_mutually_exclusive_group()
    number.add_argument('--value', metavar='REGEX', help='read the number from the output: first group, last match')
    number.add_argument('--json', metavar='KEY', help='read it from the last JSON line with this key; a.b goes deeper')
    number.add_argument('--cpu', action='store_true', help='measure CPU time instead of wall time')
    parser.add_argument('--at-most', type=float, metavar='RATIO', help='fail where new / old is above')
    args = parser.parse_args(arguments)
    if args.turns < 1:
        parser.error('--turns must be at least 1')

    def read(run: Run) -> float:
        if args.value:
            return number_by_pattern(args.value, run.output)
        if args.json:
            return number_by_key(args.json, run.output)
        return run.cpu if args.cpu else run.wall

    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the worktrees are removed
    try:
        with ExitStack() as stack:
            folders = [stack.enter_context(worktree(revision)) for revision in (args.old, args.new)]
            old, new = measure(folders, args.command, read, args.turns, args.own_script)
    except (BenchmarkError, ValueError) as error:
        print(f'error: {error}', file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    ratios = [b / a for a, b in zip(old, new, strict=True)]
    width = max(len(args.old), len(args.new), len('new / old'))
    for name, values in ((args.old, old), (args.new, new), ('new / old', ratios)):
        print(f'{name:{width}} {spread(values)}')
    ratio = statistics.median(ratios)
    if args.at_most is not None and ratio > args.at_most:
        print(f'FAILED: new / old is {ratio:.3f}, at most {args.at_most} is allowed', file=sys.stderr)
        return 1
    return 0


if __name__ == '__main__':
    sys.exit(main())
