"""Restore a video file or a folder of frames, in segments that can be resumed.

Segments and their progress file `state.json` stay in `<output>.parts` until the output is complete. Interrupted work
resumes after the last complete segment, with the same result.
"""
import json
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from fractions import Fraction
from functools import partial
from itertools import chain, count, zip_longest
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn

from ..archs.spec import State, spec_of
from ..archs.weight_files import is_dense_floats, load_file
from ..inference.precision import Precision, fastest_precision
from ..inference.tiles import device_of
from ..inference.windows import Carry
from ..io.animations import write_animation
from ..io.captions import Caption, read_captions
from ..io.encoding import ANIMATIONS, Encoding
from ..io.frame_source import Source
from ..io.images import is_image
from ..io.joining import join, stored_frames
from ..io.output_checks import check_output
from ..io.video_info import VideoError
from ..io.video_writer import image_path, write_as
from ..utils.atomic_files import move_whole, replace_file, whole_file
from ..utils.file_lock import locked
from .excerpt import Excerpt
from .pipeline import Pipeline, Shape
from .restorer import RestoreOptions, clock
from .segments import Segments, Start, Whole, Written, run_in_processes

SEGMENT_LENGTH = 250  # input frames per segment
_STATE, _LOCK = 'state.json', 'lock'
NOTHING_KEPT = 'no frame was written'


class RestoreError(VideoError):
    """Restoring failed midway. The message says where the finished part is kept, and up to which time."""


@dataclass(frozen=True)
class Progress:
    """Progress of a job.

    Attributes:
        frames: number of output frames so far, including those of earlier runs.
        total: expected number of output frames, estimated if the source does not state it; 0: unknown.
        time: of the last output frame, in seconds.
    """
    frames: int
    total: int
    time: Fraction


class Job:
    """Restore one video or folder.

    Args:
        source: the video to restore.
        output: a video file, whose suffix selects the container; or a folder, with the codec 'png'.
        net: the network, in evaluation mode, on its device.
        model: identifies the network and its weights; resuming requires the same value.
        options: how to restore frames. With precision 'auto', resumed work keeps its previous precision.
        encoding: how to encode frames.
        segment_length: input frames per segment.
        shape: size and rate of the output.
        interpolator: network that doubles the frame rate; default: `net`, if it does.
        builders: one function per worker process that builds the network there, for example one per GPU. With builders,
            `net` only serves as a description.
        devices: where these networks run.
        overwrite: whether to replace an existing output once the new one is complete.

    Raises:
        VideoError: the output cannot be written: the container does not support the codec or frame size, the location
            is not writable, or the output exists.
        ValueError: the networks cannot make an output of this shape; or several processes for a recurrent network,
            where each frame needs the one before, or for two networks.
    """

    def __init__(self, source: Source, output: str | Path, net: nn.Module, *, model: str,
                 options: RestoreOptions | None = None, encoding: Encoding | None = None, shape: Shape | None = None,
                 interpolator: nn.Module | None = None, segment_length: int = SEGMENT_LENGTH,
                 builders: Sequence[Callable[[], nn.Module]] = (),
                 devices: Sequence[str | torch.device] = (), overwrite: bool = False):
        self.source, self.output, self.net, self.builders = source, Path(output), net, builders
        self.encoding = encoding or Encoding()
        self.parts = self.output.parent / f'{self.output.name}.parts'
        self.options = options or RestoreOptions()
        if self.options.precision == 'auto':
            precision = self._begun_precision() or fastest_precision(net, devices or [device_of(net) or 'cpu'])
            self.options = replace(self.options, precision=precision)
        if builders and spec_of(net).recurrent:
            raise ValueError(f'{type(net).__name__} is recurrent, so several devices cannot share its work')
        if builders and interpolator is not None:
            raise ValueError('several devices share one network; give one device, or interpolate in a second run')
        shape = shape or Shape()
        self.make = partial(Pipeline, options=self.options, info=source.info, shape=shape)  # picklable
        self.pipeline = self.make(net, interpolator=interpolator)
        spec, temporal_scale = self.pipeline.spec, self.pipeline.temporal_scale
        self.warnings = check_output(self.output, source.info, self.encoding, spec, overwrite=overwrite)
        self.warnings += source.notes.warnings()
        self.segments = Segments(source, self.parts, spec, self.encoding, temporal_scale=temporal_scale,
                                 length=segment_length)
        self._identity = {'source': identity_of(source), 'model': model, 'options': asdict(self.options),
                          'encoding': asdict(self.encoding), 'segment_length': segment_length, 'shape': str(shape)}

    @property
    def is_begun(self) -> bool:
        """Whether there is interrupted work for `run` to resume."""
        return (self.parts / _STATE).is_file()

    def _begun_precision(self) -> Precision | None:
        """Return the precision of interrupted work; None if there is none or it is unreadable, which `run` reports."""
        if not self.is_begun:
            return None
        try:
            return cast(Precision, _State.read(self.parts / _STATE).identity['options']['precision'])
        except (VideoError, KeyError, TypeError):
            return None

    def run(self, *, resume: bool = False, on_progress: Callable[[Progress], None] | None = None) -> None:
        """Restore the video and write the output.

        Args:
            resume: continue an interrupted run after its last complete segment, if there is one.
            on_progress: called after each frame.

        Raises:
            VideoError: parts of another run exist and `resume` is not set, or its source or settings differ.
            RestoreError: restoring failed midway, such as on a damaged source or a full disk.
            KeyboardInterrupt: the run was interrupted; the message says what is kept.
        """
        try:
            self.parts.mkdir(exist_ok=True)
        except OSError as error:
            raise VideoError(f'{self.parts}: the folder cannot be created ({error})') from error
        with locked(self.parts / _LOCK, VideoError(f'{self.parts}: another process is working in this folder')):
            self._run(self._begin(resume), on_progress)

    def _run(self, state: '_State', on_progress: Callable[[Progress], None] | None) -> None:
        def report(event: Written | Whole) -> None:
            if isinstance(event, Whole):
                self._add(state, event)
            else:
                state.under_way[event.segment] = event
                if on_progress:
                    on_progress(Progress(state.frames, max(self._total, state.frames) if self._total else 0,
                                         event.time))

        try:
            (self._in_processes if self.builders else self._in_one_process)(state, report)
            self._finish(state)
        except OSError as error:  # includes VideoError
            raise RestoreError(f'{error}; {self._kept(state)}') from error
        except KeyboardInterrupt:
            raise KeyboardInterrupt(self._kept(state)) from None
        except Exception as error:  # of the network, such as out of memory
            raise RestoreError(f'{type(error).__name__}: {error}; {self._kept(state)}') from error
        finally:
            self.warnings += [text for text in self.source.notes.warnings() if text not in self.warnings]

    @property
    def _total(self) -> int:
        """Return the expected number of output frames; 0: unknown."""
        return self.pipeline.num_frames(self.source.info)

    def _begin(self, resume: bool) -> '_State':
        """Return the state to start from: a new one, or that of interrupted work."""
        if not self.is_begun:
            if any(path.name != _LOCK for path in self.parts.iterdir()):
                raise VideoError(f'{self.parts}: exists and is not an stvsr work folder')
            state = _State(self._identity)
            state.write(self.parts / _STATE)
            return state
        if not resume:
            raise VideoError(f'{self.parts}: holds interrupted work; continue it with --resume, or remove the folder')
        state = _State.read(self.parts / _STATE)
        if state.identity != self._identity:
            changed = [name for name in self._identity if state.identity.get(name) != self._identity[name]]
            raise VideoError(f'{self.parts}: holds work with other settings: {", ".join(changed)} differ; resume with '
                             'the same settings, or remove the folder')
        if self.encoding.codec != 'png':  # restore segments again whose files are gone
            state.whole = {number: segment for number, segment in state.whole.items()
                           if self.segments.file(number).is_file()}
        return state

    def _in_one_process(self, state: '_State', report: Callable[[Written | Whole], None]) -> None:
        """Restore missing segments in this process. There may be several gaps if several processes were interrupted."""
        for start, end in list(state.missing()):
            carry = Carry()
            if start.segment and spec_of(self.net).recurrent:
                carry.state = load_state(self._carry(start.segment), self.net)
            self.segments.run(self.pipeline, start, report, end, carry)

    def _in_processes(self, state: '_State', report: Callable[[Written | Whole], None]) -> None:
        first, _ = next(state.missing())
        starts = (start for start in self.segments.plan(first, self.pipeline.context)
                  if start.segment not in state.whole)
        run_in_processes(self.segments, self.builders, self.make, starts, report)

    def _add(self, state: '_State', whole: Whole) -> None:
        """Record that a segment is complete. The files stay consistent even if the process is killed at any moment."""
        state.add(whole)
        if whole.left is not None:
            save_state(whole.left, self._carry(whole.segment + 1))
        state.write(self.parts / _STATE)
        self._carry(whole.segment).unlink(missing_ok=True)

    def _carry(self, segment: int) -> Path:
        """Return the file with the recurrent state before a segment."""
        return self.parts / f'{segment:06d}.pt'

    def _finish(self, state: '_State') -> None:
        if self.encoding.codec == 'png' and is_image(self.output) and not self.output.is_dir():
            write_as(image_path(self.segments.frames_folder, 0), self.output)
        elif self.encoding.codec == 'png':
            move_whole(self._named_images(), self.output)  # an older one holds only such frames
        elif self.encoding.codec in ANIMATIONS:
            write_animation([self.segments.file(segment) for segment in range(len(state.whole))], self.output)
        else:
            self._join(self.output, len(state.whole), captions=self._captions())
        shutil.rmtree(self.parts)

    def _named_images(self) -> Path:
        """Return the folder of images, named like those of the input if each of these became one of them."""
        info, folder = self.source.info, self.segments.frames_folder
        first = round(info.start * info.rate)
        names = [file.stem for file in self.source.files[first:first + info.num_frames]]
        count = self.segments.num_images()
        if (info.format != 'images' or self.pipeline.temporal_scale != 1 or len(names) != count
                or len(set(names)) != count):
            return folder
        named = self.parts / 'named'
        named.mkdir(exist_ok=True)
        for number, name in enumerate(names):
            image_path(folder, number).replace(named / f'{name}.png')
        return named

    def _captions(self) -> list[Caption]:
        """Return the closed captions in the picture."""
        if not self.source.info.has_captions:
            return []
        since, until = (self.source.since, self.source.end) if isinstance(self.source, Excerpt) else (None, None)
        captions = read_captions(self.source.info, since, until)
        if not captions:
            self.warnings.append('the closed captions have no text in their first channel (CC1)')
        return captions

    def _join(self, output: Path, num_segments: int, until: Fraction | None = None, *,
              captions: Sequence[Caption] = ()) -> None:
        """Join the first segments into one video."""
        info, source, since = self.source.info, self.source, None
        if isinstance(source, Excerpt):
            since, until = info.start, source.end if until is None or source.end is None else min(until, source.end)
        is_variable = info.is_variable and self.pipeline.retimer is None
        self.warnings += join([self.segments.file(segment) for segment in range(num_segments)],
                              None if info.format in ('images', 'webp') else info.path, output,
                              rate=Fraction(0) if is_variable else self.segments.spec.rate, picture=info.stream,
                              audio=self.encoding.audio, captions=captions, since=since, until=until,
                              sample_aspect_ratio=self.segments.spec.sample_aspect_ratio)

    def _kept(self, state: '_State') -> str:
        """Join all leading frames, even of incomplete segments, into one video; return a message that says where."""
        if self.encoding.codec == 'png':
            images = self.segments.num_images()
            return f'the first {images} frames are kept in {self.segments.frames_folder}' if images else NOTHING_KEPT
        segments = state.num_whole
        reached = state.whole[segments - 1].until if segments else None
        while segments in state.under_way:  # some of its frames may be missing in the file
            stored, last = stored_frames(self.segments.file(segments))
            reached, segments = last if stored else reached, segments + (stored > 0)
            if self.segments.output_length is None or stored < self.segments.output_length:
                break
        if reached is None:
            return NOTHING_KEPT
        suffix = '.mkv' if self.encoding.codec in ANIMATIONS else self.output.suffix
        kept, rate = self.parts / f'until_now{suffix}', self.segments.spec.rate
        try:
            self._join(kept, segments, reached + (1 / rate if rate else 0))
        except VideoError:  # such as a full disk
            kept = self.parts
        return f'frames up to {clock(reached)} are kept in {kept}'


class _State:
    """Progress of the work, stored in `state.json`.

    Attributes:
        identity: source, model and settings of the work, see `Job`.
        whole: complete segments by number.
        under_way: the last written frame of incomplete segments.
    """

    def __init__(self, identity: dict[str, Any]):
        self.identity = identity
        self.whole: dict[int, Whole] = {}
        self.under_way: dict[int, Written] = {}

    @property
    def frames(self) -> int:
        """Return the number of written frames."""
        segments: Iterable[Whole | Written] = chain(self.whole.values(), self.under_way.values())
        return sum(segment.frames for segment in segments)

    def add(self, segment: Whole) -> None:
        self.whole[segment.segment] = segment._replace(left=None)
        self.under_way.pop(segment.segment, None)

    def missing(self) -> Iterator[tuple[Start, int | None]]:
        """Yield the start and end of each run of missing segments; an end of None means the end of the source."""
        behind = [-1, *sorted(self.whole)]
        for before, end in zip_longest(behind, behind[1:]):
            if before + 1 != end:
                yield Start(before + 1, self.whole[before].context if before >= 0 else ()), end

    @property
    def num_whole(self) -> int:
        """Return the number of complete segments before the first gap."""
        return next(number for number in count() if number not in self.whole)

    @classmethod
    def read(cls, path: Path) -> '_State':
        """Read the state; raise VideoError if the file is damaged."""
        try:
            fields = json.loads(path.read_text(encoding='utf-8'))
            state = cls(fields['identity'])
            for number, frames, until, context in fields['whole']:
                state.add(Whole(int(number), int(frames), Fraction(until), [Fraction(time) for time in context]))
        except (ValueError, KeyError, TypeError) as error:
            raise VideoError(f'{path}: is damaged ({error}); remove {path.parent} and start again') from error
        return state

    def write(self, path: Path) -> None:
        whole = [(segment.segment, segment.frames, str(segment.until), [str(time) for time in segment.context])
                 for segment in self.whole.values()]
        try:
            replace_file(path, json.dumps({'identity': self.identity, 'whole': whole}).encode())
        except OSError as error:
            raise VideoError(f'{path}: cannot be written ({error})') from error


def identity_of(source: Source) -> dict[str, Any]:
    """Return values that identify a source and change when its files change."""
    stats = [file.stat() for file in source.files]
    return {'path': str(source.info.path.resolve()), 'files': len(stats), 'size': sum(stat.st_size for stat in stats),
            'changed': max(stat.st_mtime_ns for stat in stats), 'reading': source.reading}


def save_state(state: State, path: Path) -> None:
    """Save a recurrent state; raise VideoError if the file cannot be written."""
    try:
        with whole_file(path) as part:
            torch.save([tensor.cpu() for tensor in state], part)
    except (OSError, RuntimeError) as error:  # RuntimeError if the disk is full
        raise VideoError(f'{path}: cannot be written ({error})') from error


def load_state(path: Path, net: nn.Module) -> State:
    """Load a recurrent state; raise VideoError if the file is missing, damaged, or of another network."""
    try:
        state = load_file(path, 'the state of a recurrent network')
        if not isinstance(state, list) or not state or not all(is_dense_floats(value) for value in state):
            raise ValueError(f'{path} holds no state of a recurrent network')
        return spec_of(net).state_of([value.to(device_of(net)) for value in state])
    except (OSError, ValueError, TypeError) as error:
        raise VideoError(f'{error}; remove {path.parent} and begin anew') from error
