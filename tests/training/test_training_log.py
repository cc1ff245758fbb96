"""Output of a training run: progress line, log lines, metrics.jsonl, curves.png, scalars in tensorboard and wandb."""
import fcntl
import json
import logging
import math
import os
import pty
import re
import struct
import sys
import termios
import threading
import time
import timeit
from collections.abc import Callable, Iterator
from importlib.machinery import ModuleSpec
from types import ModuleType, SimpleNamespace

import cv2
import pytest
from basicsr.utils import MessageLogger, get_root_logger
from matplotlib.figure import Figure
from run_util import train_opt
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch.utils.tensorboard import SummaryWriter

from basicsr_stvsr.training import curves
from basicsr_stvsr.training import log as training_log
from basicsr_stvsr.training.log import TrainingLog
from basicsr_stvsr.training.log_file import log_to_file
from basicsr_stvsr.utils.json_files import read_rows


def test_escape_sequences_do_not_reach_the_terminal(log):
    logger, memory = log_to_file({'rank': 0}, logging.INFO)
    logger.removeHandler(memory)
    logger.info('clip \x1b]0;title\x07 %s', 'of\x1b[2J\na set')
    assert log.messages == ['clip \\x1b]0;title\\x07 of\\x1b[2J\na set']


SCORES = {'vid4': {'psnr': {'vsr': 26.0, 'vfi': 25.0, 'all': 25.5}, 'ssim': {'vsr': 0.8, 'vfi': 0.6, 'all': 0.7}}}


@pytest.fixture
def opt(tmp_path) -> dict:
    return {'name': 'MBNet_x4', 'rank': 0, 'path': {'experiments_root': str(tmp_path)}, 'val': {'val_freq': 200},
            'logger': {'print_freq': 100, 'use_tb_logger': False}, 'train': {'total_iter': 1000}}


@pytest.fixture
def logger(tmp_path) -> Iterator[logging.Logger]:
    """BasicSR's logger as a training sets it up: console and a file."""
    logger = get_root_logger()
    handlers, level = list(logger.handlers), logger.level
    logger.handlers = [logging.StreamHandler(sys.stderr), logging.FileHandler(tmp_path / 'train.log')]
    logger.setLevel(logging.INFO)
    yield logger
    logger.handlers[-1].close()
    logger.handlers, logger.level = handlers, level


@pytest.fixture(autouse=True)
def simple_curves(monkeypatch) -> None:
    """Drawing takes seconds; that it draws the right thing is in test_curves.py."""
    monkeypatch.setattr(curves, 'plot_metrics', lambda rows, name: Figure())


def train(log: TrainingLog, first: int, last: int, every: int = 100) -> None:
    """Iterations of 0.3 s, of which 0.1 s are spent waiting."""
    for iteration in range(first, last + 1):
        log.count_iteration(iteration, data_time=0.1, iter_time=0.3)
        if iteration % every == 0:
            log.log(iteration, epoch=0, lrs=[1e-4], values={'l_sr': 1 / iteration})


# ---------------------------------------------------------------- log lines

def test_a_log_line_is_basicsrs(opt, logger, tmp_path):
    values = {'l_sr': 0.0123456, 'l_flow_hr': 4.2e-5, 'grad_norm': 1.5}
    with TrainingLog(opt, start_iter=0, total_iter=1000) as log:
        for iteration in range(1, 101):
            log.count_iteration(iteration, data_time=0.002, iter_time=0.31)
        log.log(100, epoch=3, lrs=[1e-4, 2.5e-5], values=values)
    basicsrs = MessageLogger(opt, 0)
    basicsrs({'epoch': 3, 'iter': 100, 'lrs': [1e-4, 2.5e-5], 'time': 0.31, 'data_time': 0.002, **values})
    ours, _report, theirs = (tmp_path / 'train.log').read_text().splitlines()
    ours, theirs = (re.sub('eta: [^,]*', 'eta', line) for line in (ours, theirs))
    assert ours == theirs


def test_without_a_terminal_log_lines_go_to_stderr(opt, logger, capsys):
    logger.handlers[0].setStream(sys.stderr)
    with TrainingLog(opt, start_iter=0, total_iter=1000) as log:
        train(log, 1, 300)
    err = capsys.readouterr().err
    logged = re.findall(r'^\[MBNet\.\.\]\[epoch:  0, iter: +(\d+), lr:\(1\.000e-04,\)\]', err, re.M)
    assert logged == ['100', '200', '300']
    assert '\r' not in err


def test_remaining_time(opt, monkeypatch):
    """After a resume only this run's iterations count, without the first; validations count by themselves."""
    now = 0.0
    monkeypatch.setattr(time, 'perf_counter', lambda: now)
    log = TrainingLog(opt, start_iter=100, total_iter=1000)
    assert log.remaining_seconds() is None
    log.count_iteration(101, data_time=0.0, iter_time=50.0)
    assert log.remaining_seconds() == 899 * 50  # all there is to go by
    for iteration in range(102, 111):
        log.count_iteration(iteration, data_time=0.0, iter_time=0.5)
    assert log.remaining_seconds() == pytest.approx(890 * 0.5)
    for iteration in range(111, 201):
        log.count_iteration(iteration, data_time=0.0, iter_time=0.5)
    now += 30
    log.validation(200, SCORES)
    for iteration in range(201, 211):
        log.count_iteration(iteration, data_time=0.0, iter_time=0.5)
    assert log.remaining_seconds() == pytest.approx(790 * 0.5 + 4 * 30)  # at 400, 600, 800 and at the end
    for iteration in range(211, 1001):
        log.count_iteration(iteration, data_time=0.0, iter_time=0.5)
    assert log.remaining_seconds() == pytest.approx(30)
    log.close()


def test_a_step_costs_next_to_nothing(opt):
    with TrainingLog(opt, start_iter=0, total_iter=10**6) as log:
        seconds = timeit.repeat(lambda: log.count_iteration(7, data_time=0.1, iter_time=0.3), number=1000, repeat=5)
    assert min(seconds) / 1000 < 20e-6


def test_other_ranks_are_silent(opt, logger, tmp_path):
    opt |= {'rank': 1, 'path': {'experiments_root': '/does/not/exist'}}
    with TrainingLog(opt, start_iter=0, total_iter=1000) as log:
        train(log, 1, 100)
        log.validation(100, SCORES)
    assert (tmp_path / 'train.log').read_text() == ''


# ---------------------------------------------------------------- terminal

class Terminal:
    """A pseudo-terminal in the place of stderr, and the screen that it makes of what is written there."""

    def __init__(self, columns: int):
        self.main, line = pty.openpty()
        fcntl.ioctl(line, termios.TIOCSWINSZ, struct.pack('HHHH', 50, columns, 0, 0))
        self.stream = os.fdopen(line, 'w')
        self.written = b''
        self.reader = threading.Thread(target=self.read, daemon=True)  # a failed test does not end it
        self.reader.start()

    def read(self) -> None:
        try:
            while chunk := os.read(self.main, 4096):
                self.written += chunk
        except OSError:  # Linux says so when the other side is closed
            pass

    def hang_up(self) -> None:
        """Closes the window; writing fails from now on."""
        self.stream.write('\n')
        self.stream.flush()
        os.close(self.main)

    def screen(self) -> list[str]:
        """Closes the terminal; the lines that a person sees at the end."""
        self.stream.close()
        self.reader.join(timeout=10)
        os.close(self.main)
        lines, row, column = [''], 0, 0
        for sign in re.findall(r'\x1b\[A|[^\x1b]', self.written.decode()):
            if sign == '\x1b[A':
                row -= 1
            elif sign == '\r':
                column = 0
            elif sign == '\n':
                row += 1
                lines += [''] * (row + 1 - len(lines))
            else:
                lines[row] = lines[row][:column].ljust(column) + sign + lines[row][column + 1:]
                column += 1
        return [line.rstrip() for line in lines if line.rstrip()]


@pytest.fixture
def open_terminal(monkeypatch, logger) -> Callable[[int], Terminal]:
    """To be called in the test: between fixtures and test, pytest sets its own stderr again."""

    def open_one(columns: int = 130) -> Terminal:
        terminal = Terminal(columns)
        monkeypatch.setattr(sys, 'stderr', terminal.stream)
        logger.handlers[0].setStream(terminal.stream)
        return terminal

    return open_one


def test_a_terminal_shows_one_line_below_the_messages(opt, logger, open_terminal, tmp_path, monkeypatch):
    monkeypatch.setattr(training_log, 'REDRAW_SECONDS', 0)
    terminal = open_terminal()
    handlers = set(logger.handlers)
    with TrainingLog(opt, start_iter=100, total_iter=1000) as log:
        train(log, 101, 200)
        logger.info('Saving models and training states.')
        logger.warning('Validation vid4: 4 clips\n\t # psnr: all 25.5')
        train(log, 201, 456)
    assert set(logger.handlers) == handlers
    *screen, report = terminal.screen()
    assert report == f'Report: {tmp_path}/report.html'
    assert screen[:-1] == ['Saving models and training states.', 'Validation vid4: 4 clips', '\t # psnr: all 25.5']
    percentage, _, words = screen[-1].split('|')
    assert percentage == ' 46%'
    assert words == ' 456/1,000, eta 02:43, l_sr 2.50e-03, lr 1.00e-04, data 0.100 s, iter 0.300 s'
    in_file = (tmp_path / 'train.log').read_text()
    assert re.findall(r'iter: +(\d+), .*l_sr: ', in_file) == ['200', '300', '400']
    assert 'Saving models and training states.' in in_file


WORDS = ('loss 7.50e-01', 'lr 1.00e-04', 'data 0.125 s', 'iter 0.301 s', 'l_sr 5.00e-01',
         'l_flow 2.50e-01', 'grad_norm 1.50e+00')


# 80 columns show iteration, remaining time, loss, learning rate and data time, also of a long training. No word is cut
# in two.
@pytest.mark.parametrize('columns, total_iter, eta, num_words', [
    (20, 500, '01:15', 0), (36, 500, '01:15', 1), (80, 500, '01:15', 4), (80, 300_250, '25:05:00', 4),
    (200, 500, '01:15', 8), *[(columns, 500, '01:15', None) for columns in range(100, 120)],
])
def test_a_narrow_terminal_shows_the_most_important(
        opt, open_terminal, columns, total_iter, eta, num_words):
    terminal = open_terminal(columns)
    opt['val'] = None
    with TrainingLog(opt, start_iter=0, total_iter=total_iter) as log:
        for iteration in range(1, 251):
            log.count_iteration(iteration, data_time=0.125, iter_time=0.301)
        log.log(250, epoch=0, lrs=[1e-4, 2e-5], values={'l_sr': 0.5, 'l_flow': 0.25, 'grad_norm': 1.5})
    line, _report = terminal.screen()
    assert len(line) < columns
    shown = line.split(', ')[1:]
    assert shown == [f'eta {eta}', *WORDS][:len(shown)]
    assert num_words is None or len(shown) == num_words


def test_an_exception_ends_the_line_first(opt, open_terminal):
    terminal = open_terminal()
    with pytest.raises(RuntimeError), TrainingLog(opt, start_iter=0, total_iter=1000) as log:
        train(log, 1, 100)
        raise RuntimeError('CUDA out of memory')
    print('Traceback', file=terminal.stream)
    screen = terminal.screen()
    assert screen[-1] == 'Traceback' and '100/1,000' in screen[-3]


def test_training_outlives_its_terminal(opt, open_terminal, tmp_path, monkeypatch):
    terminal = open_terminal()
    monkeypatch.setattr(training_log, 'REDRAW_SECONDS', 0)
    with TrainingLog(opt, start_iter=0, total_iter=1000) as log:
        train(log, 1, 100)
        terminal.hang_up()
        train(log, 101, 200)
    assert [row['iter'] for row in read_rows(tmp_path / 'metrics.jsonl')] == [100, 200]


# ---------------------------------------------------------------- metrics.jsonl

def test_metrics(opt, tmp_path):
    log = TrainingLog(opt, start_iter=0, total_iter=1000)
    log.count_iteration(1, data_time=0.1, iter_time=0.2)
    log.count_iteration(2, data_time=0.3, iter_time=0.4)
    log.log(2, epoch=0, lrs=[1e-4, 2.5e-5], values={'l_sr': 0.5, 'l_flow': math.nan, 'grad_norm': math.inf})
    log.count_iteration(3, data_time=0.5, iter_time=0.6)
    log.log(3, epoch=1, lrs=[1e-4, 2.5e-5], values={'l_sr': 0.25})
    log.validation(3, {'vid4': {'niqe': {'all': math.nan}}})
    lines = (tmp_path / 'metrics.jsonl').read_text().splitlines()  # before it is closed

    def parse(line: str) -> dict:
        return json.loads(line, parse_constant=pytest.fail)  # NaN and Infinity are no JSON

    assert parse(lines[0]) == {
        'iter': 2, 'epoch': 0, 'lr': 1e-4, 'lr_1': 2.5e-5, 'time': pytest.approx(0.3), 'data_time': pytest.approx(0.2),
        'l_sr': 0.5, 'l_flow': None, 'grad_norm': None}
    assert parse(lines[1])['time'] == 0.6  # since the line before
    row = parse(lines[2])
    assert 0 <= row.pop('validation_time') < 60
    assert row == {'iter': 3, 'validation': {'vid4': {'niqe': {'all': None}}}}
    log.close()
    log.close()


@pytest.mark.parametrize('end', ['', '{"iter": 400, "ep', '\0\0\0\0\n', '{"iter": 100, "epoch": 0}'])
def test_a_resumed_run_drops_what_the_killed_one_wrote_later(opt, tmp_path, end):
    with TrainingLog(opt, start_iter=0, total_iter=1000) as log:
        train(log, 1, 200)
        log.validation(200, SCORES)
        train(log, 201, 300)
    path = tmp_path / 'metrics.jsonl'
    kept = path.read_text().splitlines()[:3]
    with path.open('a') as file:
        file.write(end)
    with TrainingLog(opt, start_iter=200, total_iter=1000) as log:
        train(log, 201, 300)
    lines = path.read_text().splitlines()
    assert lines[:3] == kept
    assert [json.loads(line)['iter'] for line in lines[3:]] == ([100] if end.endswith('}') else []) + [300]
    assert sorted(os.listdir(tmp_path)) == ['curves.png', 'metrics.jsonl', 'report', 'report.html']
    with TrainingLog(opt, start_iter=0, total_iter=1000):
        assert path.read_text() == ''


def test_history_is_replaced_whole_or_not_at_all(opt, tmp_path, monkeypatch):
    path = tmp_path / 'metrics.jsonl'
    path.write_text('{"iter": 100}\n{"iter": 200}\n')

    def fail(*_):
        raise OSError('no space left on device')

    monkeypatch.setattr(os, 'replace', fail)
    with pytest.raises(OSError, match='no space'):
        TrainingLog(opt, start_iter=100, total_iter=1000)
    assert path.read_text() == '{"iter": 100}\n{"iter": 200}\n'


# ---------------------------------------------------------------- curves.png, tensorboard

def test_curves_png_shows_the_runs_before(opt, tmp_path):
    with TrainingLog(opt, start_iter=0, total_iter=1000) as log:
        train(log, 1, 100)
        log.validation(100, SCORES)
        assert cv2.imread(str(tmp_path / 'curves.png')) is not None  # while it runs
    with TrainingLog(opt, start_iter=100, total_iter=1000) as log:
        train(log, 101, 200)
    assert [row['iter'] for row in read_rows(tmp_path / 'metrics.jsonl')] == [100, 100, 200]


def test_nothing_is_drawn_twice(opt, tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr(curves, 'draw_curves', drawn.append)
    with TrainingLog(opt, start_iter=0, total_iter=200) as log:
        train(log, 1, 100)
        log.validation(100, {})  # it was cut short
        train(log, 101, 200)
        log.validation(200, SCORES)
    assert drawn == [str(tmp_path)] * 2
    assert [row['iter'] for row in read_rows(tmp_path / 'metrics.jsonl')] == [100, 200, 200]


def test_a_failing_picture_does_not_end_the_training(opt, logger, tmp_path, monkeypatch):
    with TrainingLog(opt, start_iter=0, total_iter=1000) as log:
        train(log, 1, 100)
        log.validation(100, SCORES)
        drawn = (tmp_path / 'curves.png').read_bytes()
        monkeypatch.setattr(os, 'replace', lambda *_: (_ for _ in ()).throw(OSError('no space left on device')))
        log.validation(200, SCORES)
        train(log, 101, 200)
    assert 'curves.png: OSError: no space left on device' in (tmp_path / 'train.log').read_text()
    assert (tmp_path / 'curves.png').read_bytes() == drawn
    assert 'report.html: OSError: no space left on device' in (tmp_path / 'train.log').read_text()
    assert sorted(path.suffix for path in tmp_path.iterdir()) == ['', '.html', '.jsonl', '.log', '.png']
    assert [row['iter'] for row in read_rows(tmp_path / 'metrics.jsonl')] == [100, 100, 200, 200]


def test_scalars_in_tensorboard(opt, tmp_path):
    tb_logger = SummaryWriter(str(tmp_path / 'tb'))
    with TrainingLog(opt, start_iter=0, total_iter=1000, tb_logger=tb_logger) as log:
        log.log(1, epoch=0, lrs=[1e-4, 2e-5], values={'l_sr': 0.5, 'grad_norm': 2.0})
    tb_logger.close()
    events = EventAccumulator(str(tmp_path / 'tb'))
    events.Reload()
    assert {tag: events.Scalars(tag)[0].value for tag in events.Tags()['scalars']} == pytest.approx(
        {'losses/l_sr': 0.5, 'grad_norm': 2.0, 'lr': 1e-4, 'lr_1': 2e-5})


def test_a_training_in_tensorboard_and_wandb(train_here, clips, tmp_path, monkeypatch):
    """As in BasicSR, wandb copies what tensorboard gets, so it has to be there first."""
    wandb, started = ModuleType('wandb'), []
    wandb.__spec__ = ModuleSpec('wandb', None)
    wandb.util = SimpleNamespace()  # as of wandb 0.31, whose ids come from elsewhere
    monkeypatch.setitem(sys.modules, 'wandb.sdk.lib.runid', SimpleNamespace(generate_id=lambda: 'new id'))
    wandb.init = lambda **options: started.append((options, [*(tmp_path / 'tb_logger' / 'tiny').iterdir()]))
    monkeypatch.setitem(sys.modules, 'wandb', wandb)
    opt = train_opt(clips)
    opt['train']['total_iter'] = 1
    opt['logger'] |= {'use_tb_logger': True, 'wandb': {'project': 'restoration', 'resume_id': None}}
    train_here(opt)

    (options, events_before), = started
    assert not events_before and options.pop('config')['network_g']['type'] == 'MBNet'
    assert options == {'id': 'new id', 'resume': 'never', 'name': 'tiny', 'project': 'restoration',
                       'sync_tensorboard': True}
    events = EventAccumulator(str(tmp_path / 'tb_logger' / 'tiny'))
    events.Reload()
    rows = read_rows(str(tmp_path / 'experiments' / 'tiny' / 'metrics.jsonl'))
    sets = rows[-1]['validation']
    assert len(sets) == 2
    for name, metrics in sets.items():
        for group, value in metrics['psnr'].items():
            assert events.Scalars(f'metrics/{name}/psnr_{group}')[0].value == pytest.approx(value)
        clip = 'first' if name == 'both' else 'second'
        assert {f'{name}/{clip}/{kind}' for kind in ('input', 'result', 'ground_truth')} <= {*events.Tags()['images']}
    assert events.Scalars('losses/l_sr')[0].value == pytest.approx(rows[0]['l_sr'])

    opt['logger']['wandb']['resume_id'] = 'old id'
    train_here(opt, '--auto_resume')
    assert started[1][0] | {'config': None} == options | {'id': 'old id', 'resume': 'allow', 'config': None}
