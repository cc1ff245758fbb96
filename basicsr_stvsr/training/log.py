"""Log a training while it runs.

`TrainingLog` writes a progress line or log lines, tensorboard scalars, and `metrics.jsonl` in the experiment's folder.
`curves.png` and `report.html` show metrics.jsonl, which has one JSON object per line, of two kinds:

    {"iter": 100, "epoch": 0, "lr": 0.0001, "time": 0.31, "data_time": 0.002, "l_sr": 0.0123, "grad_norm": 1.5}
    {"iter": 5000, "validation": {"vid4": {"psnr": {"vsr": 26.1, "vfi": 25.2, "all": 25.7}}}, "validation_time": 30.5}

`time` and `data_time` are means in seconds per iteration since the previous line. The learning rates of further
parameter groups are lr_1, lr_2, ...; NaN and infinity are null. If two lines report the same thing at one iteration,
the later counts.
"""
import datetime
import logging
import math
import os
import sys
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import accumulate
from os import path as osp
from typing import Any, TextIO

from basicsr.utils.logger import get_root_logger
from tqdm import tqdm

from ..evaluation.clip_scores import GroupMeans
from ..evaluation.visuals import Sample
from ..utils.json_files import drop_later_rows, row_to_line
from .report_files import ClipMeans, keep_validation, start_files

REDRAW_SECONDS = 0.5  # between updates of the progress line
RECENT_ITERATIONS = 200  # for the estimate of the remaining time; as many as BasicSR's timers use

Scores = Mapping[str, Mapping[str, GroupMeans]]  # data set -> metric -> means


class TrainingLog:
    """Log of a training on rank 0; on other ranks every method does nothing.

    On a terminal (stderr), a single progress line is shown with the messages of BasicSR's logger above it. Log lines in
    BasicSR's format then go to its log files only; otherwise they also go to stderr.

    The remaining time is that of the remaining iterations, from the mean of recent ones in this run, plus that of the
    remaining validations, from the last one. BasicSR averages over all time since the start: its estimate jumps with
    each validation, and counts one iteration too few in resumed runs.

    Args:
        opt: Options of the training. Uses `name`, `rank`, `path.experiments_root` (an existing folder) and
            `val.val_freq`.
        start_iter: Iterations done before. 0 starts a new metrics.jsonl; otherwise later lines, left by a killed run,
            are removed from it.
        total_iter: The last iteration.
        tb_logger: SummaryWriter, which stays open; None: no tensorboard.
        summary: what the training printed about itself, for the report.

    Raises:
        OSError: metrics.jsonl cannot be written. During the training, this is only a warning.
    """

    def __init__(self, opt: Mapping[str, Any], *, start_iter: int, total_iter: int, tb_logger: Any = None,
                 summary: str = ''):
        self.is_open = opt['rank'] == 0
        if not self.is_open:
            return
        self.name, self.total_iter, self.tb_logger = opt['name'], total_iter, tb_logger
        self.val_freq = (opt.get('val') or {}).get('val_freq')
        self.logger = get_root_logger()

        self.iteration, self.start_iter = start_iter, start_iter
        self.recent: deque[tuple[float, float]] = deque(maxlen=RECENT_ITERATIONS)
        self.num_since_log, self.time_since_log, self.data_time_since_log = 0, 0.0, 0.0
        self.validation_time = 0.0
        self.last_step = self.last_redraw = time.perf_counter()
        self.last_lr: dict[str, float] = {}
        self.last_values: dict[str, float] = {}

        self.folder, self.is_drawn = opt['path']['experiments_root'], False
        path = osp.join(self.folder, 'metrics.jsonl')
        if start_iter and osp.exists(path):
            drop_later_rows(path, start_iter)
        # Unbuffered: each line reaches the file at once, and a failed write is not repeated later.
        self.metrics_file = open(path, 'ab' if start_iter else 'wb', buffering=0)  # noqa: SIM115  (until close)
        self.attempt('report', lambda: start_files(self.folder, start_iter, summary))
        self.progress_line = ProgressLine(start_iter, total_iter, self.logger) if sys.stderr.isatty() else None

    def __enter__(self) -> 'TrainingLog':
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()

    def count_iteration(self, iteration: int, *, data_time: float, iter_time: float) -> None:
        """Count an iteration. Call this for every one; it takes a microsecond.

        Args:
            data_time: Seconds spent waiting for the batch.
            iter_time: Seconds of the whole iteration, waiting included, without validation and checkpoints.
        """
        if not self.is_open:
            return
        if iteration == self.start_iter + 2:
            self.recent.clear()  # skip the first iteration, which started workers and selected kernels
        self.iteration = iteration
        self.recent.append((iter_time, data_time))
        self.num_since_log += 1
        self.time_since_log += iter_time
        self.data_time_since_log += data_time
        self.last_step = time.perf_counter()
        if self.progress_line and self.last_step - self.last_redraw >= REDRAW_SECONDS:
            self.redraw()

    def log(self, iteration: int, *, epoch: int, lrs: Sequence[float], values: Mapping[str, float]) -> None:
        """Write a log step: log line, tensorboard, metrics.jsonl.

        Args:
            lrs: Learning rates of the parameter groups.
            values: Loss terms `l_*`, weighted, so that their sum is the loss; and others, such as 'grad_norm'.
        """
        if not self.is_open:
            return
        count = self.num_since_log or math.nan
        times = {'time': self.time_since_log / count, 'data_time': self.data_time_since_log / count}
        self.num_since_log, self.time_since_log, self.data_time_since_log = 0, 0.0, 0.0
        rates = {f'lr_{i}' if i else 'lr': float(rate) for i, rate in enumerate(lrs)}
        values = {name: float(value) for name, value in values.items()}

        # Existing tools parse this line: every character is as in BasicSR.
        seconds = self.remaining_seconds()
        eta = 'unknown' if seconds is None else str(datetime.timedelta(seconds=int(seconds)))
        message = (f'[{self.name[:5]}..][epoch:{epoch:3d}, iter:{iteration:8,d}, lr:('
                   + ''.join(f'{rate:.3e},' for rate in rates.values())
                   + f')] [eta: {eta}, time (data): {times["time"]:.3f} ({times["data_time"]:.3f})] '
                   + ''.join(f'{name}: {value:.4e} ' for name, value in values.items()))
        self.logger.info(message, extra={'on_progress_line': True})
        if self.progress_line:
            self.last_lr, self.last_values = {'lr': rates['lr']}, values
            self.redraw()
        if self.tb_logger:
            for name, value in (rates | values).items():
                self.tb_logger.add_scalar(f'losses/{name}' if name.startswith('l_') else name, value, iteration)
        self.write_row({'iter': iteration, 'epoch': epoch} | rates | times | values)

    def validation(self, iteration: int, results: Scores, *, clips: Mapping[str, ClipMeans] | None = None,
                   samples: Mapping[str, Sequence[Sample]] | None = None) -> None:
        """Write the scores of one or several data sets to metrics.jsonl, and redraw curves.png and report.html.

        Args:
            results: data set -> metric -> group ('vsr', 'vfi', 'all') -> mean score; empty: nothing was scored.
            clips: data set -> scores of its clips.
            samples: data set -> frames that the report shows.
        """
        if not self.is_open:
            return
        self.validation_time = time.perf_counter() - self.last_step
        if results:
            self.write_row({'iter': iteration, 'validation': results, 'validation_time': self.validation_time})
            self.attempt('report', lambda: keep_validation(self.folder, iteration, clips or {}, samples or {}))
        self.draw()

    def close(self) -> None:
        """Write the last curves.png and report.html, and release the terminal and files. Further calls do nothing."""
        if not self.is_open:
            return
        self.is_open = False
        if self.progress_line:
            self.redraw()
            self.progress_line.close()
        self.metrics_file.close()
        self.draw()
        report = osp.abspath(osp.join(self.folder, 'report.html'))
        if osp.isfile(report):
            self.logger.info(f'Report: {report}')

    def remaining_seconds(self) -> float | None:
        """Return the time until the end of the training; None before the first iteration."""
        if not self.recent:
            return None
        seconds = (self.total_iter - self.iteration) * self.recent_means()[0]
        if self.val_freq:  # a validation due at this iteration is still to come; one more ends the training
            validations = (self.total_iter - 1) // self.val_freq - (self.iteration - 1) // self.val_freq + 1
            seconds += validations * self.validation_time
        return seconds

    def recent_means(self) -> tuple[float, float]:
        """Return the mean seconds per iteration, and the part spent waiting for data."""
        times, data_times = zip(*self.recent, strict=True)
        return sum(times) / len(times), sum(data_times) / len(times)

    def redraw(self) -> None:
        self.last_redraw = time.perf_counter()
        assert self.progress_line is not None
        self.progress_line.redraw(self.iteration, self.progress_words())

    def progress_words(self) -> Iterator[str]:
        """Yield the items of the progress line, most important first; a narrow terminal shows only the first ones."""
        losses = {name: value for name, value in self.last_values.items() if name.startswith('l_')}
        first = {'loss': sum(losses.values())} if len(losses) > 1 else losses
        if self.recent:
            yield f'eta {tqdm.format_interval(self.remaining_seconds())}'
        for name, value in (first | self.last_lr).items():
            yield f'{name} {value:.2e}'
        if self.recent:
            iter_time, data_time = self.recent_means()
            yield f'data {data_time:.3f} s'
            yield f'iter {iter_time:.3f} s'
        for name, value in self.last_values.items():
            if name not in first:
                yield f'{name} {value:.2e}'

    def write_row(self, row: Mapping[str, Any]) -> None:
        self.is_drawn = False
        try:
            self.metrics_file.write(row_to_line(row))
        except OSError as error:
            self.logger.warning(f'{self.metrics_file.name}: cannot write iteration {row["iter"]}: {error}')

    def draw(self) -> None:
        if not self.is_drawn:
            # The second even if the first fails
            self.is_drawn = all([self.attempt('curves.png', self.draw_curves),
                                 self.attempt('report.html', self.write_report)])

    def draw_curves(self) -> None:
        from .curves import draw_curves  # here, as matplotlib takes half a second, and may be missing or broken
        draw_curves(self.folder)

    def write_report(self) -> None:
        from .report import write_report
        write_report(self.folder)

    def attempt(self, name: str, write: Callable[[], None]) -> bool:
        """Write a file for people; whether it succeeded. It must not stop the training."""
        try:
            write()
        except Exception as error:
            self.logger.warning(f'cannot write {self.folder}/{name}: {type(error).__name__}: {error}')
            return False
        return True


class ProgressLine:
    """A line at the bottom of the terminal (stderr), with the messages of BasicSR's logger above it."""

    def __init__(self, iteration: int, total_iter: int, logger: logging.Logger):
        self.logger = logger
        self.bar = tqdm(total=total_iter, initial=iteration, dynamic_ncols=True,
                        bar_format='{percentage:3.0f}%|{bar}| {n:,}/{total:,}{postfix}')
        self.terminal = sys.stderr
        self.consoles = {}  # our handler -> the one that it replaces
        for original in [handler for handler in logger.handlers if type(handler) is logging.StreamHandler]:
            handler = AboveTheLine(original.stream)
            handler.setFormatter(original.formatter)
            handler.setLevel(original.level)
            logger.removeHandler(original)
            logger.addHandler(handler)
            self.consoles[handler] = original

    def redraw(self, iteration: int, words: Iterable[str]) -> None:
        """Show the iteration, as many items as fit, and a bar in the remaining width."""
        if self.bar.disable:
            return
        self.bar.n = iteration
        try:
            width = os.get_terminal_size(self.terminal.fileno()).columns or 80  # 0: unknown width
            # tqdm leaves the last column empty
            room = width - 1 - len(f'100%|#| {iteration:,}/{self.bar.total:,}, ')
            fitting = [line for line in accumulate(words, '{}, {}'.format) if len(line) <= room]
            self.bar.set_postfix_str(fitting[-1] if fitting else '')
        except OSError:  # the terminal is gone; continue without it
            self.bar.disable = True

    def close(self) -> None:
        self.bar.close()
        for handler, original in self.consoles.items():
            self.logger.removeHandler(handler)
            self.logger.addHandler(original)


class AboveTheLine(logging.StreamHandler[TextIO]):
    """Write messages above tqdm's line; omit those that repeat the progress line."""

    def emit(self, record: logging.LogRecord) -> None:
        if getattr(record, 'on_progress_line', False):
            return
        try:
            tqdm.write(self.format(record), file=self.stream)
            self.flush()
        except Exception:  # logging requires that handlers never raise
            self.handleError(record)
