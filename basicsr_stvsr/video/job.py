"""Restores a video file, or a folder of frames: in segments, each of which is whole once it is written.

Segments and `state.json`, which tells how far the work has come, lie in `<output>.parts` until the output is complete.
Work that was interrupted goes on behind the last whole segment, and comes to the same result.
"""
import json
import shutil
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from fractions import Fraction
from itertools import chain, islice
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..inference import Carry, device_of, is_recurrent
from .pipeline import Behind, ahead
from .restorer import RestoreOptions, Restorer
from .sink import Encoding, FolderWriter, OutputSpec, VideoWriter, check_output, join
from .source import FolderSource, Source, TimedFrame, VideoError, VideoInfo

SEGMENT_LENGTH = 250  # given frames of a segment
DECODED_AHEAD, ENCODED_BEHIND = 4, 4  # frames
_STATE, _FRAMES = 'state.json', 'frames'
_REMEMBERED = 256  # times of frames; the restorer is never so far ahead


class RestoreError(VideoError):
    """Work that could not be ended. What was done is kept, and the message says where, and up to which time."""


@dataclass(frozen=True)
class Progress:
    """How far the work has come.

    Attributes:
        frames: frames that came out, those of an earlier run included.
        total: how many there will be, which is an estimate where the source does not tell; 0: unknown.
        time: of the last of them, seconds.
    """
    frames: int
    total: int
    time: Fraction


class Job:
    """The restoring of one video or folder.

    Args:
        source: what is restored.
        output: a video file, whose suffix tells the container; or a folder, with the codec 'png'.
        net: the network, in evaluation mode, where it is to run.
        model: what the network and its weights are called, by which work that goes on tells that it is the same.
        options: how frames are restored.
        encoding: how they are encoded.
        segment_length: given frames of a segment.

    Raises:
        VideoError: the output cannot be written: a codec or a size that the container does not take, or a place that
            may not be written to. A file that is there is replaced.
    """

    def __init__(self, source: Source, output: str | Path, net: nn.Module, *, model: str,
                 options: RestoreOptions | None = None, encoding: Encoding | None = None,
                 segment_length: int = SEGMENT_LENGTH):
        self.source, self.output, self.net = source, Path(output), net
        self.options, self.encoding = options or RestoreOptions(), encoding or Encoding()
        self.segment_length = segment_length
        self.parts = self.output.with_name(f'{self.output.name}.parts')
        self.spec = OutputSpec.of(source.info, scale=net.scale, temporal_scale=net.temporal_scale)
        self.warnings = check_output(self.output, source.info, self.encoding, self.spec)
        self.restorer = Restorer(net, self.options)
        self._identity = {'source': identity_of(source.info), 'model': model, 'options': asdict(self.options),
                          'encoding': asdict(self.encoding), 'segment_length': segment_length}

    @property
    def is_begun(self) -> bool:
        """Whether there is work that `run` with `resume` would go on with."""
        return (self.parts / _STATE).is_file()

    def run(self, *, resume: bool = False, on_progress: Callable[[Progress], None] | None = None) -> None:
        """Does the work.

        Args:
            resume: go on behind the last whole segment of an interrupted run, if there was one.
            on_progress: called after each frame.

        Raises:
            VideoError: there are parts of another run, and `resume` is not set, or its source or settings were others.
            RestoreError: something failed in the middle, such as a damaged source or a full disk.
            KeyboardInterrupt: it was interrupted; says what is kept.
        """
        state = self._begin(resume)
        try:
            self._restore(state, on_progress or (lambda progress: None))
            self._finish(state)
        except VideoError as error:
            raise RestoreError(f'{error}; {self._kept(state)}') from error
        except KeyboardInterrupt:
            raise KeyboardInterrupt(self._kept(state)) from None
        except Exception:
            self._kept(state)
            raise

    def _begin(self, resume: bool) -> '_State':
        """What is done already; makes the folder of the parts where there is none."""
        if not self.is_begun:
            if self.parts.exists() and any(self.parts.iterdir()):
                raise VideoError(f'{self.parts}: is in the way, and not the parts of such work')
            self.parts.mkdir(exist_ok=True)
            state = _State(self._identity)
            state.write(self.parts / _STATE)
            return state
        if not resume:
            raise VideoError(f'{self.parts}: holds the parts of work that was interrupted; go on with it (--resume), '
                             'or remove the folder')
        state = _State.read(self.parts / _STATE)
        if state.identity != self._identity:
            changed = [name for name in self._identity if state.identity.get(name) != self._identity[name]]
            raise VideoError(f'{self.parts}: holds the parts of other work: {", ".join(changed)} differ; go on as it '
                             'was begun, or remove the folder')
        return state

    def _restore(self, state: '_State', on_progress: Callable[[Progress], None]) -> None:
        info, step = self.source.info, self.net.temporal_scale
        total = step * info.about_frames - (step == 2 and not self.options.even) if info.about_frames else 0
        carry = Carry()
        if state.given and is_recurrent(self.net):
            carry.state = load_carry(self._carry(state), self.net)
        given = _Given(self.source, state, self.restorer.context)
        restored = self.restorer(given, carry=carry, skip=len(state.context),
                                 last_duration=1 / info.rate if info.rate else Fraction(0))
        whole = step * self.segment_length
        while (first := next(restored, None)) is not None:
            with self._writer(state) as writer, Behind(writer.write, ENCODED_BEHIND) as write:
                for count, frame in enumerate(chain([first], islice(restored, whole - 1)), 1):
                    write(*frame)
                    state.reached = frame.time
                    frames = state.frames + count
                    on_progress(Progress(frames, max(total, frames) if total else 0, frame.time))
            if given.failure is None or count == whole:
                self._add_segment(state, count, given, carry)
        if given.failure:
            raise given.failure

    def _add_segment(self, state: '_State', count: int, given: '_Given', carry: Carry) -> None:
        """Notes that a segment of so many frames is whole; killed at any moment, this leaves what fits together."""
        before = self._carry(state)
        state.add_segment(count, self.segment_length, given)
        if is_recurrent(self.net):
            save_carry(carry, self._carry(state))
        state.write(self.parts / _STATE)
        before.unlink(missing_ok=True)

    def _carry(self, state: '_State') -> Path:
        """What a recurrent network has left of the segments that are whole."""
        return self.parts / f'{state.segments:06d}.pt'

    def _writer(self, state: '_State') -> VideoWriter | FolderWriter:
        if self.encoding.codec == 'png':
            return FolderWriter(self.parts / _FRAMES, self.spec, first=state.frames)
        return VideoWriter(self.parts / f'{state.segments:06d}{self.encoding.segment_suffix}', self.spec, self.encoding)

    def _finish(self, state: '_State') -> None:
        if self.encoding.codec == 'png':
            (self.parts / _FRAMES).replace(self.output)
        else:
            self._join(self.output, self._segments()[:state.segments])
        shutil.rmtree(self.parts)

    def _segments(self) -> list[Path]:
        return sorted(self.parts.glob(f'[0-9]*{self.encoding.segment_suffix}'))

    def _join(self, output: Path, segments: list[Path], until: Fraction | None = None) -> None:
        info = self.source.info
        source = None if isinstance(self.source, FolderSource) else info.path
        self.warnings += join(segments, source, output, rate=Fraction(0) if info.is_variable else self.spec.rate,
                              until=until)

    def _kept(self, state: '_State') -> str:
        """Makes one video of what there is, segments that are not whole included; says what is where."""
        if state.reached is None:
            return 'not one frame was written'
        until = f'frames up to {clock(state.reached)} are kept in'
        if self.encoding.codec == 'png':
            return f'{until} {self.parts / _FRAMES}'
        kept = self.parts / f'until_now{self.output.suffix}'
        try:
            self._join(kept, self._segments(), state.reached + (1 / self.spec.rate if self.spec.rate else 0))
        except VideoError:  # such as a full disk
            kept = self.parts
        return f'{until} {kept}'


class _State:
    """How far the work has come, as `state.json` has it.

    Attributes:
        identity: what the work is, see `Job`.
        segments: number of whole segments.
        frames: number of frames in them.
        given: number of frames of the source that they were made of.
        context: times of the last ones of these, which tell what is needed to go on.
        reached: time of the last frame that was written, or None.
    """

    def __init__(self, identity: dict[str, Any]):
        self.identity = identity
        self.segments = self.frames = self.given = 0
        self.context: list[Fraction] = []
        self.reached: Fraction | None = None

    def add_segment(self, frames: int, segment_length: int, given: '_Given') -> None:
        self.segments += 1
        self.frames += frames
        self.given += segment_length
        self.context = given.times_before(self.given)

    @classmethod
    def read(cls, path: Path) -> '_State':
        """Raises VideoError where the file is damaged."""
        try:
            fields = json.loads(path.read_text(encoding='utf-8'))
            state = cls(fields['identity'])
            state.segments, state.frames, state.given = (int(fields[name]) for name in ('segments', 'frames', 'given'))
            state.context = [Fraction(time) for time in fields['context']]
            state.reached = fields['reached'] and Fraction(fields['reached'])
        except (ValueError, KeyError, TypeError) as error:
            raise VideoError(f'{path}: is damaged ({error}); remove {path.parent} and begin anew') from error
        return state

    def write(self, path: Path) -> None:
        fields = vars(self) | {'context': [str(time) for time in self.context],
                               'reached': None if self.reached is None else str(self.reached)}
        part = path.with_name(f'{path.name}.part')
        part.write_text(json.dumps(fields, indent=1), encoding='utf-8')
        part.replace(path)


class _Given:
    """The frames of a source, from those on that are needed to go on; iterable once.

    Where the source fails, they end, so that what is on its way still comes out.

    Attributes:
        failure: what failed.
    """

    def __init__(self, source: Source, state: _State, context: int):
        self.source, self.start, self.context = source, next(iter(state.context), None), context
        self.failure: VideoError | None = None
        self._next = state.given - len(state.context)  # number of the frame that comes next
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


def identity_of(info: VideoInfo) -> dict[str, Any]:
    """What tells one source from another, and from what it was before it was changed."""
    files = sorted(info.path.iterdir()) if info.path.is_dir() else [info.path]
    stats = [file.stat() for file in files]
    return {'path': str(info.path.resolve()), 'files': len(files), 'size': sum(stat.st_size for stat in stats),
            'changed': max(stat.st_mtime_ns for stat in stats)}


def save_carry(carry: Carry, path: Path) -> None:
    part = path.with_name(f'{path.name}.part')
    torch.save([tensor.cpu() for tensor in carry.state], part)
    part.replace(path)


def load_carry(path: Path, net: nn.Module) -> tuple[torch.Tensor, ...]:
    return net.State(*torch.load(path, map_location=device_of(net), weights_only=True))


def clock(time: Fraction) -> str:
    """Seconds as h:mm:ss.mmm."""
    milliseconds = round(time * 1000)
    minutes, milliseconds = divmod(milliseconds, 60_000)
    return f'{minutes // 60}:{minutes % 60:02d}:{milliseconds / 1000:06.3f}'
