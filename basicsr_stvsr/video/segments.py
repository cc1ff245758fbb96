"""A video in segments: each is restored and written by itself, here one after the other, or in several processes.

What a segment begins with depends on some frames before it (and for a recurrent network on all), so that one that is
begun alone gives what it would have given in a row.
"""
import multiprocessing
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import suppress
from fractions import Fraction
from itertools import chain, count, islice
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import NamedTuple

import torch
from torch import nn

from ..archs.spec import State
from ..inference.windows import Carry
from ..io.encoding import Encoding, OutputSpec, default_threads
from ..io.frame_source import Source, TimedFrame
from ..io.video_info import VideoError
from ..io.video_writer import FolderWriter, VideoWriter, image_path
from ..utils.background import Behind, ahead
from ..utils.processes import ignore_signals, server_context
from .restorer import RestoreOptions, Restorer

DECODED_AHEAD, ENCODED_BEHIND = 4, 8  # frames; the network goes on while the encoder ends a segment
PLANNED_AHEAD = 2  # segments
_REMEMBERED = 256  # times of frames; the restorer is never so far ahead
_SECONDS_TO_END = 60  # for a process that is asked to; a step of a network may take long


class Start(NamedTuple):
    """Where to begin: a segment, and the times of as many frames before it as tell what it begins with."""

    segment: int
    context: Sequence[Fraction] = ()


class Written(NamedTuple):
    """A frame of a segment was written."""

    segment: int
    frames: int  # of the segment, so far
    time: Fraction


class Whole(NamedTuple):
    """A segment is whole."""

    segment: int
    frames: int
    until: Fraction  # time of the last of them
    context: Sequence[Fraction]  # see `Start`, of the next one
    left: State | None = None  # by a recurrent network


class Segments:
    """Restores segments, and writes each to a file of its own, or its frames to a folder.

    Args:
        source: what is restored.
        folder: where the segments are to lie.
        spec: the frames that are written.
        encoding: how.
        temporal_scale: of the network.
        length: given frames of a segment.
    """

    def __init__(self, source: Source, folder: Path, spec: OutputSpec, encoding: Encoding, *, temporal_scale: int,
                 length: int):
        self.source, self.folder, self.spec, self.encoding = source, folder, spec, encoding
        self.num_frames, self.length = temporal_scale * length, length
        self.encoder_threads = default_threads()

    @property
    def frames_folder(self) -> Path:
        """Where images lie."""
        return self.folder / 'frames'

    def num_images(self) -> int:
        """How many images there are, up to the first one that is missing."""
        return next(number for number in count() if not image_path(self.frames_folder, number).exists())

    def file(self, segment: int) -> Path:
        return self.folder / f'{segment:06d}{self.encoding.segment_suffix}'

    def writer(self, segment: int) -> VideoWriter | FolderWriter:
        if self.encoding.codec == 'png':
            return FolderWriter(self.frames_folder, self.spec, first=self.num_frames * segment)
        return VideoWriter(self.file(segment), self.spec, self.encoding, threads=self.encoder_threads)

    def run(self, restorer: Restorer, start: Start, tell: Callable[[Written | Whole], None], end: int | None = None,
            carry: Carry | None = None) -> None:
        """Writes segments in a row.

        While the encoder ends one, the network is at the next one already.

        Args:
            restorer: of the network that restores them.
            start: the first one.
            tell: is called with what has been written.
            end: the first one that is no longer written; default: all to the end of the source.
            carry: for a recurrent network, what was left by the segments before.

        Raises:
            VideoError: the source is damaged, or the segment cannot be written. What was on its way is written before.
        """
        carry = carry or Carry()
        given = _Given(self.source, self.length * start.segment, start.context, restorer.context)
        rate = self.source.info.rate
        restored = restorer(given, carry=carry, skip=len(start.context),
                            last_duration=1 / rate if rate else Fraction(0))
        with _Encoder(self.writer, tell) as encoder:
            for segment in count(start.segment) if end is None else range(start.segment, end):
                first = next(restored, None)
                if first is None:
                    break
                encoder.begin(segment)
                for frames, frame in enumerate(chain([first], islice(restored, self.num_frames - 1)), 1):
                    encoder.write(frame)
                    tell(Written(segment, frames, frame.time))
                if given.failure is not None and frames < self.num_frames:
                    break
                context = given.times_before(self.length * (segment + 1))
                encoder.end(Whole(segment, frames, frame.time, context, carry.state))
            else:  # all whole; a failure behind them is met by who goes on there
                return
        if given.failure is not None:
            raise given.failure

    def plan(self, start: Start, num_context: int) -> Iterator[Start]:
        """Where each segment begins, from one on, as the source tells while it is decoded.

        Args:
            num_context: how many frames before a segment are needed for it.

        Raises:
            VideoError: the source is damaged.
        """
        context = deque(start.context, maxlen=num_context)
        times = self.source.times(next(iter(start.context), None))
        for number, time in enumerate(times, self.length * start.segment - len(start.context)):
            segment, place = divmod(number, self.length)
            if segment >= start.segment:
                if place == 0:
                    yield Start(segment, tuple(context))
                context.append(time)


class _Encoder:
    """Writes one segment after the other in a thread of its own; a context manager.

    Args:
        open_writer: opens the file of a segment.
        tell: is called when one is whole, in the thread of the caller.
    """

    def __init__(self, open_writer: Callable[[int], VideoWriter | FolderWriter], tell: Callable[[Whole], None]):
        self.open_writer, self.tell = open_writer, tell
        self._calls = Behind(ENCODED_BEHIND, at_end=self._keep)
        self._writer: VideoWriter | FolderWriter | None = None
        self._ended: deque[tuple[Future, Whole]] = deque()

    def begin(self, segment: int) -> None:
        self._calls(self._open, segment)

    def write(self, frame: TimedFrame) -> None:
        self._calls(self._write, frame)
        self._tell_ended()

    def end(self, whole: Whole) -> None:
        self._ended.append((self._calls(self._close), whole))

    def _open(self, segment: int) -> None:
        self._writer = self.open_writer(segment)

    def _write(self, frame: TimedFrame) -> None:
        self._writer.write(*frame)

    def _close(self) -> None:
        writer, self._writer = self._writer, None
        writer.close()

    def _keep(self) -> None:
        """Closes the file of a segment that is not whole; what was written stays in it."""
        if self._writer is not None:
            with suppress(VideoError):
                self._close()

    def _tell_ended(self) -> None:
        while self._ended and (call := self._ended[0][0]).done() and not call.exception() and call.result():
            self.tell(self._ended.popleft()[1])

    def __enter__(self) -> '_Encoder':
        return self

    def __exit__(self, *exc_info: object) -> None:
        try:
            self._calls.__exit__(*exc_info)
        finally:
            self._tell_ended()


class _Given:
    """The frames of a source, from those on that are needed to go on; iterable once.

    Where the source fails, they end, so that what is on its way still comes out.

    Args:
        source: whose frames they are.
        number: of the first frame that is not known yet.
        known: times of the ones before it that are given once more.
        context: how many of these are needed.

    Attributes:
        failure: what failed.
    """

    def __init__(self, source: Source, number: int, known: Sequence[Fraction], context: int):
        self.source, self.start, self.context = source, next(iter(known), None), context
        self.failure: VideoError | None = None
        self._next = number - len(known)  # number of the frame that comes next
        self._times: deque[Fraction] = deque(maxlen=_REMEMBERED)  # of the last ones

    def __iter__(self) -> Iterator[TimedFrame]:
        try:
            for frame in ahead(self.source.frames(self.start), DECODED_AHEAD):
                self._times.append(frame.time)
                self._next += 1
                yield frame
        except VideoError as error:
            self.failure = error

    def times_before(self, number: int) -> list[Fraction]:
        """Times of the last frames before one, as many as tell all that is needed for it."""
        end = len(self._times) - (self._next - number)
        return list(self._times)[max(0, end - self.context):max(0, end)]


# ---------------------------------------------------------------- several processes

def run_in_processes(segments: Segments, builders: Sequence[Callable[[], nn.Module]], options: RestoreOptions,
                     starts: Iterable[Start], tell: Callable[[Written | Whole], None]) -> None:
    """Writes segments in processes, each with a network of its own.

    Args:
        segments: what is written.
        builders: as many as there are processes; each makes a network there, and can be pickled.
        options: how frames are restored.
        starts: where each segment begins.
        tell: is called with what has been written, in any order.

    Raises:
        VideoError: as `Segments.run`, of the first segment that failed; those that were begun are ended before. Or a
            process was killed.
    """
    processes = _start(segments, builders, options)
    try:
        _share(processes, ahead(starts, PLANNED_AHEAD), tell)
    finally:
        for connection in processes:
            connection.close()  # which each notices at its next frame
        for process in processes.values():
            process.join(_SECONDS_TO_END)
            process.kill()


def _start(segments: Segments, builders: Sequence[Callable[[], nn.Module]], options: RestoreOptions) -> (
        dict[Connection, multiprocessing.Process]):
    context = server_context(__name__)
    threads = max(1, torch.get_num_threads() // len(builders))
    processes = {}
    for build in builders:
        connection, other = context.Pipe()
        process = context.Process(target=_work, args=(other, segments, build, options, threads), daemon=True)
        process.start()
        other.close()  # so that the end of the process is noticed
        processes[connection] = process
    return processes


def _share(processes: dict[Connection, multiprocessing.Process], starts: Iterator[Start],
           tell: Callable[[Written | Whole], None]) -> None:
    """Hands each segment to the next process that has nothing to do."""
    idle, failures = list(processes), {}
    last = -1

    def next_start() -> Start | None:
        nonlocal last
        try:
            start = None if failures else next(starts, None)
        except VideoError as error:
            failures[last + 1] = error
            return None
        last = start.segment if start else last
        return start

    busy: dict[Connection, int] = {}
    while True:
        while idle and (start := next_start()):
            connection = idle.pop()
            connection.send(start)
            busy[connection] = start.segment
        if not busy:
            break
        for connection in wait(list(busy)):
            try:
                event = connection.recv()
            except EOFError:
                process = processes[connection]
                process.join()
                event = VideoError(f'a process that restored frames ended, exit code {process.exitcode}')
            if isinstance(event, Written | Whole):
                tell(event)
                continue
            segment = busy.pop(connection)
            if event is None:
                idle.append(connection)
            else:
                failures[segment] = event
    if failures:
        raise failures[min(failures)]


def _work(connection: Connection, segments: Segments, build: Callable[[], nn.Module], options: RestoreOptions,
          threads: int) -> None:
    """Restores the segments that come through a connection, and tells through it what has been written."""
    ignore_signals()
    torch.set_num_threads(threads)
    segments.encoder_threads = min(threads, segments.encoder_threads)
    restorer = None
    with suppress(EOFError, ConnectionError):  # the other one has ended
        while True:
            start = connection.recv()
            try:
                restorer = restorer or Restorer(build(), options)
                segments.run(restorer, start, connection.send, start.segment + 1)
                outcome = None
            except ConnectionError:
                raise
            except VideoError as error:
                outcome = error
            except Exception as error:  # may hold what cannot be sent
                outcome = RuntimeError(f'{type(error).__name__}: {error}')
            connection.send(outcome)
