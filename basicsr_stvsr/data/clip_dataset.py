"""Windows of clips for training and whole clips for testing, from folders, LMDBs or videos.

Shapes: T GT frames in a window, T' LR frames in it, U output frames of a test clip, C channels of `color`, s = scale.
With temporal_scale 2 the LR clip holds every second frame: T = 2T' - 1.
"""
import random
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from fnmatch import fnmatchcase
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from basicsr.utils.logger import get_root_logger
from basicsr.utils.registry import DATASET_REGISTRY
from torch import Tensor

from ..io.color import NUM_CHANNELS, Color, convert_frame
from ..io.derived_frames import CachedReader, ReducedReader, area_mean
from ..io.frames import FrameReader
from ..io.opening import open_color_reader
from .boxes import Box, cut
from .clip_areas import AreaReader
from .clip_options import ClipOptions, ClipTestOptions, ClipTrainOptions
from .degradations import Degradation, bicubic, build_degradation
from .flows import MiddleFlows
from .hints import hint
from .items import Clip, TrainSample
from .lq_frames import (
    CropSource,
    GroundTruth,
    MotionBlurred,
    PairedReader,
    Stored,
    Window,
    degrade_whole,
    degraded,
)
from .samples import SampleDataset, TrainSamples, check_cache, clip_tensor, seed_worker
from .video_degradation import VideoDegradation

_NUM_SAMPLED = 16  # clips of which a frame is read, to estimate the size of all
# Check that each path must pass.
_PATHS: dict[str, Callable[[Path], bool]] = {
    'dataroot_gt': Path.exists, 'dataroot_lq': Path.exists, 'dataroot_blurred': Path.exists,
    'dataroot_lq_sharp': Path.exists, 'meta_info_file': Path.is_file, 'dataroot_flow': Path.is_dir
}


def _first_match(clip: str, patterns: Iterable[str]) -> str | None:
    """Return the clip's own name, brackets included, or else the first pattern that it matches."""
    return clip if clip in patterns else next((pattern for pattern in patterns if fnmatchcase(clip, pattern)), None)


def _unmatched(option: str, patterns: Iterable[str], clips: Sequence[str]) -> ValueError:
    some = ', '.join(map(repr, clips[:3])) + (', ...' if len(clips) > 3 else '')
    return ValueError(f'{option}: no clip matches {sorted(patterns)}; clips are {some}')


class _ClipDataset(SampleDataset):
    """Base of both data sets: opens readers, and pairs GT and LR clips.

    Attributes:
        gt, lq, lq_sharp, blurred: readers; None where the options name no such data.
        clips: names of the clips, those of the ground truth where there is one.
    """

    options: type[ClipOptions]
    settings: ClipOptions
    degradation: Degradation | VideoDegradation | None  # None where LR frames are stored
    _frames: 'dict[str, ClipFrames]'  # of a test set
    gt: FrameReader | None = None
    lq: FrameReader | None = None
    lq_sharp: PairedReader | None = None
    blurred: PairedReader | None = None

    def __init__(self, opt: dict[str, Any]):
        super().__init__(opt)
        self._check_paths()
        names = self._names_in_meta_info()
        if self.settings.dataroot_gt:
            reader = self.gt = self._open('dataroot_gt', names, self.settings.frame_size)
        else:
            reader = self.lq = self._open('dataroot_lq', names, self.settings.frame_size)
        self.clips = self._filtered(reader.clips)
        if self.gt:
            self.lq = self._open_paired('dataroot_lq', self.gt, names, self.scale)
            self.lq_sharp = self._open_paired('dataroot_lq_sharp', self.gt, names, self.scale)
            self.blurred = self._open_paired('dataroot_blurred', self.gt, names, 1)
        self._paired = [reader for reader in (self.lq, self.lq_sharp, self.blurred) if isinstance(reader, PairedReader)]

    def frame_names(self, clip: str) -> list[str]:
        """Return the names of a clip's output frames, see `__getitem__`."""
        frames = self._frames[clip]
        if self.gt is None and self.temporal_scale == 1:
            return self._lq_names(clip, frames.lq)
        names = [f'{i:08d}' for i in range(frames.num_out)]
        if self.gt is not None:
            for i, number in enumerate(frames.gt):
                names[number] = self.gt.frame_name(clip, i)
        return names

    def true_frames(self, clip: str) -> range:
        """Return the numbers of a clip's output frames that have ground truth."""
        return self._frames[clip].gt

    @property
    def _read_color(self) -> Color:
        """Colour space in which frames are read and degraded."""
        return self.color

    def _open(self, option: str, clips: Sequence[str] | None, frame_size: Sequence[int] | None) -> FrameReader:
        try:
            return open_color_reader(
                self._path(option), self.settings.stored_color, self._read_color, clips=clips,
                frame_size=(frame_size[0], frame_size[1]) if frame_size else None)
        except ValueError as error:
            raise ValueError(f'{self._where}: stored_color: {error}') from None

    def _path(self, option: str) -> Path:
        return Path(getattr(self.settings, option)).expanduser()

    def _check_paths(self) -> None:
        """Raise one FileNotFoundError for all missing paths."""
        missing = [option for option, is_there in _PATHS.items()
                   if getattr(self.settings, option, None) and not is_there(self._path(option))]
        if missing:
            gt = self._path('dataroot_gt') if self.settings.dataroot_gt else None
            raise FileNotFoundError('\n'.join(
                f'{self._where}: {option} does not exist: {self._path(option)}'
                f'{hint(option, self._path(option), gt, self.scale)}'
                for option in missing))

    def _names_in_meta_info(self) -> list[str] | None:
        if not self.settings.meta_info_file:
            return None
        path = self._path('meta_info_file')
        # Lines in BasicSR's format: clip name, number of frames, shape.
        names = [line.split()[0] for line in path.read_text().splitlines() if line.strip()]
        if len(set(names)) < len(names):
            twice = Counter(names).most_common(1)[0][0]
            raise ValueError(f'{self._where}: meta_info_file {path} lists the clip {twice!r} more than once')
        return self._filtered(names)

    def _filtered(self, names: Sequence[str]) -> list[str]:
        pattern = self.settings.clips
        kept = [name for name in names if not pattern or fnmatchcase(name, pattern)]
        if not kept:
            raise ValueError(f'{self._where}: none of {len(names)} clips matches clips: {pattern!r} '
                             f'(the first is {names[0]!r})' if names else f'{self._where}: no clips')
        return kept

    def _open_paired(self, option: str, gt: FrameReader, clips: Sequence[str] | None, ratio: int
                     ) -> PairedReader | None:
        """Open another version of the ground truth, `ratio` times smaller; return None where the options name none."""
        if not getattr(self.settings, option, None):
            return None
        reader = self._open(option, clips, None)
        with self._told_where():
            return PairedReader(reader, gt, self.clips, ratio=ratio, option=option)

    def _lq_source(self, blur_margin: int) -> CropSource:
        """Return the source of LR frames."""
        if self.settings.motion_blur:
            assert self.degradation is not None  # motion_blur excludes dataroot_lq
            return degraded(MotionBlurred(self.settings.motion_blur, blur_margin), self.degradation)
        return self._source(self.blurred or self._lq_reader, self.degradation)

    @property
    def _lq_reader(self) -> FrameReader:
        """Stored LR frames, or else the ground truth that they are made from."""
        reader = self.lq or self.gt
        assert reader is not None  # the options name one of them
        return reader

    def _source(self, reader: FrameReader, degradation: Degradation | VideoDegradation | None) -> CropSource:
        """Return a source of LR frames: stored in a reader, or made from its HR frames."""
        if degradation is None:
            return Stored(reader)
        return degraded(GroundTruth() if reader is self.gt else Stored(reader), degradation)

    def _read_gt(self, clip: str, numbers: range) -> dict[int, np.ndarray]:
        """Read ground truth by number. With motion_blur, also read the previous and the next frame where the clip has
        them.
        """
        if self.gt is None:
            return {}
        numbers = numbers[::-1] if numbers.step < 0 else numbers  # videos are decoded forward
        wanted: Sequence[int] = numbers
        if self.settings.motion_blur:
            around = (numbers[0] - numbers.step, *numbers, numbers[-1] + numbers.step)
            wanted = [number for number in around if 0 <= number < self.gt.num_frames(clip)]
        return {number: self.gt.frame(clip, number) for number in wanted}

    def _lq_size(self, clip: str) -> tuple[int, int]:
        """Return height and width of a clip's LR frames."""
        if self.gt is None:
            return self._lq_reader.frame_size(clip)
        height, width = self.gt.frame_size(clip)
        return height // self.scale, width // self.scale

    def _lq_names(self, clip: str, indices: Sequence[int]) -> list[str]:
        """Return the names of LR frames. Frames that are not stored have the names of their GT frames."""
        return [self._lq_reader.frame_name(clip, i) for i in indices]

    def _read_lq_flows(self, clip: str, indices: Sequence[int], size: tuple[int, int]) -> list[np.ndarray]:
        """Read stored flows between LR frames, by the names of these in their files."""
        assert self.lq_flow is not None
        stored_name = self.lq.stored_name[clip] if isinstance(self.lq, PairedReader) else clip
        return self.lq_flow.read(stored_name, self._lq_names(clip, indices), size)

    def _check_sizes(self, clip: str) -> None:
        with self._told_where():
            for reader in self._paired:
                reader.check_size(clip)


@DATASET_REGISTRY.register()
class STVSRClipDataset(TrainSamples, _ClipDataset):
    """Random crops of windows of consecutive frames, for training.

    Every window of every clip is one index. Clips shorter than a window are skipped; the log says how many.

    Args:
        opt: see `ClipTrainOptions`.

    Raises:
        FileNotFoundError: a path of the options does not exist; the message says how to create it.
        FrameReadError: damaged data, see `frames`.
        ValueError: an unknown or impossible option, no window, or GT and LR clips that do not match.
    """

    options = ClipTrainOptions
    settings: ClipTrainOptions
    gt: FrameReader

    def __init__(self, opt: dict[str, Any]):
        super().__init__(opt)
        self.num_frame, self.gt_size = self.settings.num_frame, self.settings.gt_size
        self.middle_flows = MiddleFlows(self._path('dataroot_flow')) if self.settings.dataroot_flow else None
        self._files = self.gt.reader if isinstance(self.gt, ReducedReader) else self.gt
        with self._told_where():
            for reader in self._paired:
                reader.check_frame_counts()
        self._windows = self._list_windows()  # rows of (number of the clip, first frame, interval)

        self.degradation = None if self.lq else build_degradation(self.settings.degradation, self.scale)
        if self.settings.cache:
            check_cache(self.cache_bytes(), self.settings.num_worker_per_gpu, self._where)
            self.gt = CachedReader(self.gt)
        self._lq = self._lq_source(self.settings.blur_margin)
        self._lq_sharp = self._lq_sharp_source()

    def __len__(self) -> int:
        return len(self._windows)

    def __getitem__(self, index: int) -> TrainSample:
        """Return a training sample, see `TrainSamples`. Its key is 'clip/frame', with the first frame of the window."""
        seed_worker()
        number, start, interval = self._windows[index].tolist()
        clip = self.clips[number]
        indices = range(start, start + self.num_frame * interval, interval)
        if self.settings.random_reverse and random.random() < 0.5:
            indices = indices[::-1]

        window = Window(clip, self._read_gt(clip, indices), random.uniform)
        self._check_sizes(clip)
        lq_size = self._lq_size(clip)
        return self._make_sample(
            window, indices, self._random_crop(clip, *lq_size), lq_size, flows=self._read_flows(clip, indices),
            key=f'{clip}/{self.gt.frame_name(clip, start)}')

    def _open(self, option: str, clips: Sequence[str] | None, frame_size: Sequence[int] | None) -> FrameReader:
        reader = super()._open(option, clips, frame_size)
        return ReducedReader(reader, self.settings.reduce) if self.settings.reduce > 1 else reader

    def _lq_sharp_source(self) -> CropSource | None:
        if self.lq_sharp:
            return self._source(self.lq_sharp, None)
        return self._source(self.gt, bicubic(self.scale)) if self.settings.lq_sharp else None

    def _source(self, reader: FrameReader, degradation: Degradation | VideoDegradation | None) -> CropSource:
        if not self.settings.cache:
            return super()._source(reader, degradation)
        if isinstance(degradation, VideoDegradation):  # random: cache only HR frames
            return super()._source(reader if reader is self.gt else CachedReader(reader), degradation)
        return Stored(CachedReader(reader, degradation and partial(degrade_whole, degradation=degradation)))

    def _read_flows(self, clip: str, indices: Sequence[int]) -> list[np.ndarray]:
        """Read the flows from each intermediate frame to both neighbours, in playing order of the window."""
        if not self.middle_flows:
            return []
        size, name = self._files.frame_size(clip), partial(self.gt.frame_name, clip)
        flows = [self.middle_flows.read(clip, name(i), name(neighbour), 'prev' if neighbour < i else 'next', size)
                 for before, i, after in zip(indices[::2], indices[1::2], indices[2::2], strict=False)
                 for neighbour in (before, after)]
        factor = self.settings.reduce
        return [area_mean(flow, factor) / factor for flow in flows] if factor > 1 else flows

    def _random_crop(self, clip: str, lq_h: int, lq_w: int) -> Box:
        """Draw a crop: top, left, bottom and right in LR pixels."""
        if self.gt_size is None:
            return 0, 0, lq_h, lq_w
        size = self.gt_size // self.scale
        if min(lq_h, lq_w) < size:
            raise ValueError(f'{self._where}: clip {clip!r} is {self.scale * lq_h}x{self.scale * lq_w} (h x w), '
                             f'smaller than gt_size {self.gt_size}')
        stride = (self.settings.crop_stride or self.scale) // self.scale
        top, left = (random.randrange(0, side - size + 1, stride) for side in (lq_h, lq_w))
        return top, left, top + size, left + size

    def cache_bytes(self) -> float:
        clips = [self.clips[number] for number in np.unique(self._windows[:, 0])]
        # Decode a frame of a few clips only: one frame of every clip would take minutes for a large set.
        sizes = [self.gt.frame_size(clip) for clip in clips[::-(-len(clips) // _NUM_SAMPLED)]]
        num_pixels = float(np.mean([height * width for height, width in sizes]))
        has_sharp = self.settings.lq_sharp or self.lq_sharp is not None
        is_random = isinstance(self.degradation, VideoDegradation)
        # Versions of HR and LR frames in the cache
        num_hr = 1 + (is_random and self.blurred is not None)
        num_lq = (self.settings.motion_blur is None and not is_random) + has_sharp
        frame_bytes = NUM_CHANNELS[self.color] * num_pixels * (num_hr + num_lq / self.scale**2)
        return frame_bytes * sum(map(self.gt.num_frames, clips))

    def _list_windows(self) -> np.ndarray:
        """Return rows of (number of the clip, first frame, interval), as an array that forked workers share."""
        intervals, weights = self.settings.interval_list, self.settings.clip_weights
        stride = self.settings.frame_stride
        unused = set(weights)
        windows, num_short = [], 0
        for number, clip in enumerate(self.clips):
            num_frames = self.gt.num_frames(clip)
            rows = [(number, start, interval) for interval in intervals
                    for start in range(0, num_frames - (self.num_frame - 1) * interval, stride)]
            num_short += not rows
            pattern = _first_match(clip, weights)
            if pattern is not None:
                unused.discard(pattern)
                # Row k occurs weight times, rounded so that the sum over the clip is right.
                rows = [rows[int(k / weights[pattern])] for k in range(round(weights[pattern] * len(rows)))]
            windows += rows
        if unused:
            raise _unmatched(f'{self._where}: clip_weights', unused, self.clips)
        if not windows:
            raise ValueError(f'{self._where}: none of {len(self.clips)} clips has a window of {self.num_frame} frames '
                             f'with intervals {intervals} (the first clip, {self.clips[0]!r}, has '
                             f'{self.gt.num_frames(self.clips[0])} frames)')
        if num_short:
            get_root_logger().warning(f'{self._where}: {num_short} of {len(self.clips)} clips are shorter than a '
                                      f'window of {self.num_frame} frames and are left out.')
        return np.array(windows, np.int32)


@DATASET_REGISTRY.register()
class STVSRTestDataset(_ClipDataset):
    """Whole clips in the order of their names, with or without ground truth.

    With ground truth and temporal_scale 2, the LR clip is every second frame, starting with the first. A last GT frame
    without a matching output is dropped: U = 2T' - 1. LR clips stored with every second frame are recognised by their
    number of frames. The ground truth may lack the first and the last of the LR frames, as that of FISR does: U = 2T' -
    3. Without ground truth, samples hold all frames of dataroot_lq.

    With color 'y', samples include the chroma of the LR frames, so that results can be shown in colour.

    Args:
        opt: see `ClipTestOptions`.

    Raises:
        FileNotFoundError: a path of the options does not exist; the message says how to create it.
        FrameReadError: damaged data, see `frames`.
        ValueError: an unknown or impossible option, a clip that is too short, or GT and LR clips that do not match.
    """

    options = ClipTestOptions
    settings: ClipTestOptions
    _lq: CropSource

    def __init__(self, opt: dict[str, Any]):
        super().__init__(opt)
        if self.gt and self.settings.clip_areas:
            self.gt = self._open_areas(self.gt)
        self.degradation = None if self.lq else build_degradation(self.settings.degradation, self.scale)
        # Flow is estimated on whole frames; their last rows and columns may not be scored.
        self._lq = self._lq_source(blur_margin=self.scale)
        # Check the numbers of frames now, before an evaluation that takes hours.
        if self.blurred:
            with self._told_where():
                self.blurred.check_frame_counts()
        self._frames = {clip: self._plan(clip) for clip in self.clips}

    def __len__(self) -> int:
        return len(self.clips)

    def num_input_frames(self, index: int) -> int:
        """Return T' of a clip without reading it."""
        return len(self._frames[self.clips[index]].lq)

    def __getitem__(self, index: int) -> Clip:
        """Return a clip.

        It has `lq_chroma` only with color 'y', `gt` and `gt_start` only with ground truth, and `lq_flow` only with
        flow_opt. Of the names of output frames, 2T' - 1 or T', those without a file are numbered, from '00000000'.
        """
        clip = self.clips[index]
        frames = self._frames[clip]
        window = Window(clip, self._read_gt(clip, range(len(frames.gt))), random.Random(clip).uniform)
        self._check_sizes(clip)
        lq = self._lq.crop(window, frames.lq, (0, 0, *self._lq_size(clip)))

        h, w = (side - side % self.settings.lq_size_multiple for side in lq[0].shape[:2])
        if not h * w:
            raise ValueError(f'{self._where}: the LR frames of clip {clip!r} are {lq[0].shape[0]}x{lq[0].shape[1]} '
                             f'(h x w), smaller than lq_size_multiple {self.settings.lq_size_multiple}')
        item: Clip = {'key': clip, 'folder': clip, 'frame_names': self.frame_names(clip),
                      'lq': self._to_clip([frame[:h, :w] for frame in lq])}
        if self.lq_flow:  # on whole frames, before they are cropped
            flows = (self._read_lq_flows(clip, frames.lq, lq[0].shape[:2]) if self.lq_flow.is_stored
                     else self.lq_flow.estimate(lq))
            item['lq_flow'] = self.lq_flow.to_sample(flows, len(lq))['lq_flow'][..., :h, :w]
        if self.color == 'y':
            item['lq_chroma'] = clip_tensor([frame[:h, :w, :2] for frame in lq])
        if self.gt is not None:
            gt = cut([window.frames[i] for i in range(len(frames.gt))], (0, 0, self.scale * h, self.scale * w))
            item['gt'] = self._to_clip(gt)
            item['gt_start'] = frames.gt.start
        return item

    @property
    def _read_color(self) -> Color:
        return 'yuv' if self.color == 'y' else self.color

    def _to_clip(self, frames: Sequence[np.ndarray]) -> Tensor:
        """Convert frames from the colour space they are read in to that of the sample."""
        return clip_tensor([convert_frame(frame, self._read_color, self.color) for frame in frames])

    def _open_areas(self, gt: FrameReader) -> FrameReader:
        """Crop the ground truth as clip_areas says.

        Raises:
            ValueError: a pattern matches no clip, or an area reaches beyond its clip.
        """
        areas = self.settings.clip_areas
        pattern_of = {clip: _first_match(clip, areas) for clip in gt.clips}
        if unused := set(areas) - set(pattern_of.values()):
            raise _unmatched(f'{self._where}: clip_areas', unused, gt.clips)
        chosen = {clip: areas[pattern] for clip in self.clips if (pattern := pattern_of[clip]) is not None}
        try:
            return AreaReader(gt, chosen)
        except ValueError as error:
            raise ValueError(f'{self._where}: clip_areas: {error}') from None

    def _plan(self, clip: str) -> 'ClipFrames':
        """Decide which frames of a clip to read, from the numbers of frames."""
        step = self.temporal_scale
        num_lq = self.lq.num_frames(clip) if self.lq else None
        num_gt = self.gt.num_frames(clip) if self.gt else 0
        start, stride = 0, 1
        wanted = self.settings.gt_start
        lacks_ends = step == 2 and num_lq is not None and num_gt == 2 * num_lq - 3
        if self.gt is None:
            assert num_lq is not None  # the options name one of them
            num_out = step * (num_lq - 1) + 1
        elif wanted != 1 and num_lq in (None, num_gt):
            num_out, stride = num_gt, step
        elif wanted != 1 and step == 2 and num_lq == (num_gt + 1) // 2:
            num_out = num_gt
        elif wanted != 0 and lacks_ends:
            num_out, start = num_gt + 2, 1
        else:
            fitting = {0: [f'{num_gt}', f'{(num_gt + 1) // 2} (every second frame)'] if step == 2 else [f'{num_gt}'],
                       1: [f'{(num_gt + 3) // 2} (every second frame, and one more at both ends)']
                       if step == 2 and num_gt % 2 else []}
            expected = [text for kind, texts in fitting.items() if wanted in (None, kind) for text in texts]
            raise ValueError(f'{self._where}: clip {clip!r} has {num_gt} frames in {self.gt.path} and {num_lq} in '
                             f'{self.lq.path if self.lq else "dataroot_lq, which is not given"}, expected '
                             f'{" or ".join(expected) or "an odd number of true frames"}')
        num_out = min(num_out, self.settings.num_frame or num_out)
        num_in = (num_out - 1) // step + 1
        if num_in < step:  # one frame has nothing to interpolate
            raise ValueError(f'{self._where}: clip {clip!r} gives {num_in} LR frame, temporal_scale 2 needs two')
        num_out = step * (num_in - 1) + 1
        gt = range(start, min(num_out, start + num_gt)) if num_gt else range(0)
        return ClipFrames(num_out, range(0, num_in * stride, stride), gt)


class ClipFrames(NamedTuple):
    """Frames of a test clip."""

    num_out: int  # output frames, numbered from the first LR frame
    lq: range  # LR frames to read
    gt: range  # output frames that have ground truth; the GT files start with the first of them
