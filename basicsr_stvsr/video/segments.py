"""Restore a video in segments, sequentially or in several processes.

The start of a segment depends on some frames before it, or on all of them for a recurrent network. A segment restored
separately therefore equals the same segment of a continuous run.
"""
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import suppress
from fractions import Fraction
from functools import partial
from itertools import chain, count, islice
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from torch import nn

from ..archs.spec import State
from ..inference.windows import Carry
from ..io.encoding import Encoding, OutputSpec, default_threads
from ..io.frame_source import Source, TimedFrame
from ..io.video_info import VideoError
from ..io.video_writer import FolderWriter, VideoWriter, image_path
from ..utils.background import Behind, ahead
from ..utils.processes import prepare_worker, server_context
from .pipeline import Pipeline
from .restorer import Restorer

DECODED_AHEAD, ENCODED_BEHIND = 4, 8  # frames; the network continues while the encoder finishes a segment
PLANNED_AHEAD = 2  # segments
_REMEMBERED = 256  # frame times; the restorer never reads further ahead
_SECONDS_TO_END = 60  # to stop a process; a step of the network may take long


class Start(NamedTuple):
    """Start of a segment, with the times of the frames before it that it depends on."""

    segment: int
    context: Sequence[Fraction] = ()


class Written(NamedTuple):
    """A frame of a segment was written."""

    segment: int
    frames: int  # of the segment, so far
    time: Fraction


class Whole(NamedTuple):
    """A segment is complete."""

    segment: int
    frames: int
    until: Fraction  # time of its last frame
    context: Sequence[Fraction]  # see `Start`; for the next segment
    left: State | None = None  # state of a recurrent network


class Segments:
    """Restore segments, and write each to a separate file, or its frames to a folder.

    Args:
        source: the video to restore.
        folder: the folder for the segments.
        spec: describes the output frames.
        encoding: how to encode them.
        temporal_scale: output frames per input frame; None: they come at `spec.rate`, whatever the input's times are.
        length: input frames per segment.

    Attributes:
        output_length: output frames per segment; None: it varies.
    """

    def __init__(self, source: Source, folder: Path, spec: OutputSpec, encoding: Encoding, *,
                 temporal_scale: int | None, length: int):
        self.source, self.folder, self.spec, self.encoding = source, folder, spec, encoding
        self.output_length, self.length = temporal_scale * length if temporal_scale else None, length
        self.encoder_threads = default_threads()

    @property
    def frames_folder(self) -> Path:
        """Return the folder of images."""
        return self.folder / 'frames'

    def num_images(self) -> int:
        """Return the number of images before the first missing one."""
        return next(number for number in count() if not image_path(self.frames_folder, number).exists())

    def file(self, segment: int) -> Path:
        return self.folder / f'{segment:06d}{self.encoding.segment_suffix}'

    def writer(self, segment: int, time: Fraction) -> VideoWriter | FolderWriter:
        """Open the file of a segment whose first frame is shown at `time`."""
        if self.encoding.codec == 'png':
            number = (round((time - self.source.info.start) * self.spec.rate) if self.output_length is None else
                      self.output_length * segment)
            return FolderWriter(self.frames_folder, self.spec, first=number)
        return VideoWriter(self.file(segment), self.spec, self.encoding, threads=self.encoder_threads)

    def run(self, restorer: Pipeline | Restorer, start: Start, report: Callable[[Written | Whole], None],
            end: int | None = None, carry: Carry | None = None) -> None:
        """Write consecutive segments.

        The network starts the next segment while the encoder finishes the previous one.

        Args:
            restorer: restores the frames.
            start: the first segment.
            report: called with each written frame and each complete segment.
            end: stop before this segment; default: continue to the end of the source.
            carry: state of a recurrent network after the previous segments.

        Raises:
            VideoError: the source is damaged, or a segment cannot be written. Frames in flight are written first.
        """
        carry = carry or Carry()
        given = _Given(self.source, self.length, start, restorer.context)
        rate = self.source.info.rate
        restored = restorer(given, carry=carry, skip=len(start.context),
                            last_duration=1 / rate if rate else Fraction(0))
        held: list[_Held] = []
        with _Encoder(self.writer, report) as encoder:
            for segment in count(start.segment) if end is None else range(start.segment, end):
                coming = (_until(partial(given.is_after, segment), restored, held, carry)
                          if self.output_length is None else islice(restored, self.output_length))
                first = next(coming, None)
                if first is None:
                    if held:
                        raise VideoError(f'{self.source.info.path}: {self.length} of its frames are shorter than '
                                         'one frame of the output; set a higher rate')
                    break
                encoder.begin(segment, first.time)
                for frames, frame in enumerate(chain([first], coming), 1):
                    encoder.write(frame)
                    report(Written(segment, frames, frame.time))
                is_partial = not held if self.output_length is None else frames < self.output_length
                if given.failure is not None and is_partial:
                    break
                context = given.times_before(self.length * (segment + 1))
                left = held[0].left if held else carry.state
                encoder.end(Whole(segment, frames, frame.time, context, left))
            else:  # all complete; the process that restores later segments meets any failure after them
                return
        if given.failure is not None:
            raise given.failure

    def plan(self, start: Start, num_context: int) -> Iterator[Start]:
        """Yield the start of each segment while decoding the source.

        Args:
            num_context: number of frames that a segment needs before it.

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


class _Held(NamedTuple):
    """The first frame of the next segment, and the state of a recurrent network before it."""

    frame: TimedFrame[np.ndarray]
    left: State | None


def _until(is_after: Callable[[Fraction], bool], frames: Iterator[TimedFrame[np.ndarray]], held: list[_Held],
           carry: Carry) -> Iterator[TimedFrame[np.ndarray]]:
    """Yield frames up to the first one whose time `is_after`, and hold that one for the next call."""
    while True:
        left = held[-1].left if held else carry.state
        frame = held.pop().frame if held else next(frames, None)
        if frame is None:
            return
        if is_after(frame.time):
            held.append(_Held(frame, left))
            return
        yield frame


class _Encoder:
    """Write segments one after another in a background thread; a context manager.

    Args:
        open_writer: opens the file of a segment, given the time of its first frame.
        report: called in the caller's thread when a segment is complete.
    """

    def __init__(self, open_writer: Callable[[int, Fraction], VideoWriter | FolderWriter],
                 report: Callable[[Whole], None]):
        self.open_writer, self.report = open_writer, report
        self._calls = Behind(ENCODED_BEHIND, at_end=self._keep)
        self._writer: VideoWriter | FolderWriter | None = None
        self._ended: deque[tuple[Future[Any], Whole]] = deque()

    def begin(self, segment: int, time: Fraction) -> None:
        self._calls(self._open, segment, time)

    def write(self, frame: TimedFrame[np.ndarray]) -> None:
        self._calls(self._write, frame)
        self._report_ended()

    def end(self, whole: Whole) -> None:
        self._ended.append((self._calls(self._close), whole))

    def _open(self, segment: int, time: Fraction) -> None:
        self._writer = self.open_writer(segment, time)

    def _write(self, frame: TimedFrame[np.ndarray]) -> None:
        assert self._writer is not None
        self._writer.write(*frame)

    def _close(self) -> None:
        writer, self._writer = self._writer, None
        assert writer is not None
        writer.close()

    def _keep(self) -> None:
        """Close the file of an incomplete segment, and keep its frames."""
        if self._writer is not None:
            with suppress(VideoError):
                self._close()

    def _report_ended(self) -> None:
        while self._ended and (call := self._ended[0][0]).done() and not call.exception() and call.result():
            self.report(self._ended.popleft()[1])

    def __enter__(self) -> '_Encoder':
        return self

    def __exit__(self, exc_type: type[BaseException] | None, *exc_info: object) -> None:
        try:
            self._calls.__exit__(exc_type, *exc_info)
        finally:
            self._report_ended()


class _Given:
    """Frames of a source from the first one needed to continue; iterable once.

    If the source fails, iteration stops, so that frames in flight still come out.

    Args:
        source: the video.
        length: input frames per segment.
        start: where to start.
        context: how many frames before it are needed; they are read again.

    Attributes:
        failure: the error of the source, if any.
    """

    def __init__(self, source: Source, length: int, start: Start, context: int):
        self.source, self.start, self.context, self.length = source, next(iter(start.context), None), context, length
        self.failure: VideoError | None = None
        self._next = length * start.segment - len(start.context)  # number of the next frame
        self._times: deque[Fraction] = deque(maxlen=_REMEMBERED)  # of the last frames
        self._begins: dict[int, Fraction] = {}  # segment -> time of its first frame

    def __iter__(self) -> Iterator[TimedFrame[np.ndarray]]:
        try:
            for frame in ahead(self.source.frames(self.start), DECODED_AHEAD):
                if self._next % self.length == 0:
                    self._begins[self._next // self.length] = frame.time
                self._times.append(frame.time)
                self._next += 1
                yield frame
        except VideoError as error:
            self.failure = error

    def is_after(self, segment: int, time: Fraction) -> bool:
        """Return whether a time is after a segment, for frames whose successors were read."""
        return segment + 1 in self._begins and time >= self._begins[segment + 1]

    def times_before(self, number: int) -> list[Fraction]:
        """Return the times of the last frames before frame `number`, as many as its context needs."""
        end = len(self._times) - (self._next - number)
        return list(self._times)[max(0, end - self.context):max(0, end)]


# ---------------------------------------------------------------- several processes

def run_in_processes(segments: Segments, builders: Sequence[Callable[[], nn.Module]],
                     make: Callable[[nn.Module], Pipeline], starts: Iterable[Start],
                     report: Callable[[Written | Whole], None]) -> None:
    """Write segments in several processes, each with a copy of the network.

    Args:
        segments: what to write.
        builders: one picklable function per process that builds the network there.
        make: makes what restores frames from a network; picklable.
        starts: the start of each segment.
        report: called with each written frame and each complete segment, in any order.

    Raises:
        VideoError: as in `Segments.run`, for the first segment that failed, after finishing segments in progress; or a
            process was killed.
    """
    processes = _start(segments, builders, make)
    try:
        _share(processes, ahead(starts, PLANNED_AHEAD), report)
    finally:
        for connection in processes:
            connection.close()  # each process notices this at its next frame
        for process in processes.values():
            process.join(_SECONDS_TO_END)
            process.kill()


def _start(segments: Segments, builders: Sequence[Callable[[], nn.Module]], make: Callable[[nn.Module], Pipeline]) -> (
        dict[Connection, BaseProcess]):
    context = server_context(__name__)
    threads = max(1, torch.get_num_threads() // len(builders))
    processes: dict[Connection, BaseProcess] = {}
    for build in builders:
        connection, other = context.Pipe()
        process = context.Process(target=_work, args=(other, segments, build, make, threads), daemon=True)
        process.start()
        other.close()  # so that this process notices when the other ends
        processes[connection] = process
    return processes


def _share(processes: dict[Connection, BaseProcess], starts: Iterator[Start],
           report: Callable[[Written | Whole], None]) -> None:
    """Give each segment to the next idle process."""
    idle = list(processes)
    failures: dict[int, Exception] = {}
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
        for connection in cast(list[Connection], wait(list(busy))):
            try:
                event = connection.recv()
            except EOFError:
                process = processes[connection]
                process.join()
                event = VideoError(f'a process that restores frames ended with exit code {process.exitcode}')
            if isinstance(event, Written | Whole):
                report(event)
                continue
            segment = busy.pop(connection)
            if event is None:
                idle.append(connection)
            else:
                failures[segment] = event
    if failures:
        raise failures[min(failures)]


def _work(connection: Connection, segments: Segments, build: Callable[[], nn.Module],
          make: Callable[[nn.Module], Pipeline], threads: int) -> None:
    """Restore the segments received through a connection, and send back what was written."""
    prepare_worker(threads)
    segments.encoder_threads = min(threads, segments.encoder_threads)
    restorer = None
    with suppress(EOFError, ConnectionError):  # the other side has ended
        while True:
            start = connection.recv()
            outcome: Exception | None = None
            try:
                restorer = restorer or make(build())
                segments.run(restorer, start, connection.send, start.segment + 1)
            except ConnectionError:
                raise
            except VideoError as error:
                outcome = error
            except Exception as error:  # may hold objects that cannot be sent
                outcome = RuntimeError(f'{type(error).__name__}: {error}')
            connection.send(outcome)
