"""Windows of clips for training and whole clips for testing, from folders, LMDBs or videos.

Shapes: T GT frames in a window, T' LR frames in it, U output frames of a test clip, C channels of `color`, s = scale.
With temporal_scale 2 the LR clip holds every second frame: T = 2T' - 1.
"""
import random
from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from basicsr.utils.logger import get_root_logger
from basicsr.utils.registry import DATASET_REGISTRY
from torch import Tensor

from ..io.color_spaces import NUM_CHANNELS, Color, convert_frame
from ..io.derived_frames import CachedReader, ReducedReader, area_mean
from ..io.frames import FrameReader
from .clip_areas import AreaReader
from .clip_files import ClipFiles, first_match, unmatched
from .clip_options import ClipTestOptions, ClipTrainOptions
from .crops import Crop, crop_arrays
from .degradations import Degradation, bicubic, build_degradation
from .items import Clip, TrainSample
from .lq_frames import CropSource, Stored, Window, degrade_whole
from .middle_flows import MiddleFlows
from .train_samples import TrainSamples, check_cache, clip_tensor, seed_worker
from .video_degradation import VideoDegradation

_NUM_SAMPLED = 16  # clips of which a frame is read, to estimate the size of all


@DATASET_REGISTRY.register()
class STVSRClipDataset(TrainSamples, ClipFiles):
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
    gt_reader: FrameReader

    def __init__(self, opt: dict[str, Any]):
        super().__init__(opt)
        self.num_frame, self.gt_size = self.settings.num_frame, self.settings.gt_size
        self.middle_flows = MiddleFlows(self._path('dataroot_flow')) if self.settings.dataroot_flow else None
        self._files = self.gt_reader.reader if isinstance(self.gt_reader, ReducedReader) else self.gt_reader
        with self._name_in_errors():
            for reader in self._paired:
                reader.check_frame_counts()
        self._windows = self._list_windows()  # rows of (number of the clip, first frame, interval)

        self.degradation = None if self.lq_reader else build_degradation(self.settings.degradation, self.scale)
        if self.settings.cache:
            check_cache(self.cache_bytes(), self.settings.num_worker_per_gpu, self._where)
            self.gt_reader = CachedReader(self.gt_reader)
        self._lq_crops = self._open_lq_crops(self.settings.blur_margin)
        self._lq_sharp_crops = self._open_lq_sharp_crops()

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
            key=f'{clip}/{self.gt_reader.frame_name(clip, start)}')

    def _open(self, option: str, clips: Sequence[str] | None, frame_size: Sequence[int] | None) -> FrameReader:
        reader = super()._open(option, clips, frame_size)
        return ReducedReader(reader, self.settings.reduce) if self.settings.reduce > 1 else reader

    def _open_lq_sharp_crops(self) -> CropSource | None:
        if self.lq_sharp_reader:
            return self._crops_of(self.lq_sharp_reader, None)
        return self._crops_of(self.gt_reader, bicubic(self.scale)) if self.settings.lq_sharp else None

    def _crops_of(self, reader: FrameReader, degradation: Degradation | VideoDegradation | None) -> CropSource:
        if not self.settings.cache:
            return super()._crops_of(reader, degradation)
        if isinstance(degradation, VideoDegradation):  # random: cache only HR frames
            return super()._crops_of(reader if reader is self.gt_reader else CachedReader(reader), degradation)
        return Stored(CachedReader(reader, degradation and partial(degrade_whole, degradation=degradation)))

    def _read_flows(self, clip: str, indices: Sequence[int]) -> list[np.ndarray]:
        """Read the flows from each intermediate frame to both neighbours, in playing order of the window."""
        if not self.middle_flows:
            return []
        size, name = self._files.frame_size(clip), partial(self.gt_reader.frame_name, clip)
        flows = [self.middle_flows.read(clip, name(i), name(neighbour), 'prev' if neighbour < i else 'next', size)
                 for before, i, after in zip(indices[::2], indices[1::2], indices[2::2], strict=False)
                 for neighbour in (before, after)]
        factor = self.settings.reduce
        return [area_mean(flow, factor) / factor for flow in flows] if factor > 1 else flows

    def _random_crop(self, clip: str, lq_h: int, lq_w: int) -> Crop:
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
        sizes = [self.gt_reader.frame_size(clip) for clip in clips[::-(-len(clips) // _NUM_SAMPLED)]]
        num_pixels = float(np.mean([height * width for height, width in sizes]))
        has_sharp = self.settings.lq_sharp or self.lq_sharp_reader is not None
        is_random = isinstance(self.degradation, VideoDegradation)
        # Versions of HR and LR frames in the cache
        num_hr = 1 + (is_random and self.blurred_reader is not None)
        num_lq = (self.settings.motion_blur is None and not is_random) + has_sharp
        frame_bytes = NUM_CHANNELS[self.color] * num_pixels * (num_hr + num_lq / self.scale**2)
        return frame_bytes * sum(map(self.gt_reader.num_frames, clips))

    def _list_windows(self) -> np.ndarray:
        """Return rows of (number of the clip, first frame, interval), as an array that forked workers share."""
        intervals, weights = self.settings.interval_list, self.settings.clip_weights
        stride = self.settings.frame_stride
        unused = set(weights)
        windows, num_short = [], 0
        for number, clip in enumerate(self.clips):
            num_frames = self.gt_reader.num_frames(clip)
            rows = [(number, start, interval) for interval in intervals
                    for start in range(0, num_frames - (self.num_frame - 1) * interval, stride)]
            num_short += not rows
            pattern = first_match(clip, weights)
            if pattern is not None:
                unused.discard(pattern)
                # Row k occurs weight times, rounded so that the sum over the clip is right.
                rows = [rows[int(k / weights[pattern])] for k in range(round(weights[pattern] * len(rows)))]
            windows += rows
        if unused:
            raise unmatched(f'{self._where}: clip_weights', unused, self.clips)
        if not windows:
            raise ValueError(f'{self._where}: none of {len(self.clips)} clips has a window of {self.num_frame} frames '
                             f'with intervals {intervals} (the first clip, {self.clips[0]!r}, has '
                             f'{self.gt_reader.num_frames(self.clips[0])} frames)')
        if num_short:
            get_root_logger().warning(f'{self._where}: {num_short} of {len(self.clips)} clips are shorter than a '
                                      f'window of {self.num_frame} frames and are left out.')
        return np.array(windows, np.int32)


@DATASET_REGISTRY.register()
class STVSRTestDataset(ClipFiles):
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
    _lq_crops: CropSource

    def __init__(self, opt: dict[str, Any]):
        super().__init__(opt)
        if self.gt_reader and self.settings.clip_areas:
            self.gt_reader = self._open_areas(self.gt_reader)
        self.degradation = None if self.lq_reader else build_degradation(self.settings.degradation, self.scale)
        # Flow is estimated on whole frames; their last rows and columns may not be scored.
        self._lq_crops = self._open_lq_crops(blur_margin=self.scale)
        # Check the numbers of frames now, before an evaluation that takes hours.
        if self.blurred_reader:
            with self._name_in_errors():
                self.blurred_reader.check_frame_counts()
        self._frames = {clip: self._plan(clip) for clip in self.clips}

    def __len__(self) -> int:
        return len(self.clips)

    def frame_names(self, clip: str) -> list[str]:
        """Return the names of a clip's output frames, see `__getitem__`."""
        frames = self._frames[clip]
        if self.gt_reader is None and self.temporal_scale == 1:
            return self._lq_names(clip, frames.lq)
        names = [f'{i:08d}' for i in range(frames.num_out)]
        if self.gt_reader is not None:
            for i, number in enumerate(frames.gt):
                names[number] = self.gt_reader.frame_name(clip, i)
        return names

    def true_frames(self, clip: str) -> range:
        """Return the numbers of a clip's output frames that have ground truth."""
        return self._frames[clip].gt

    @property
    def data_info(self) -> dict[str, list[str]]:
        """The clip of each frame to score, as BasicSR's VideoRecurrentModel reads it: {'folder': names}."""
        return {'folder': [clip for clip in self.clips for _ in self.true_frames(clip)]}

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
        lq = self._lq_crops.read(window, frames.lq, (0, 0, *self._lq_size(clip)))

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
        if self.gt_reader is not None:
            gt = crop_arrays([window.frames[i] for i in range(len(frames.gt))], (0, 0, self.scale * h, self.scale * w))
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
        pattern_of = {clip: first_match(clip, areas) for clip in gt.clips}
        if unused := set(areas) - set(pattern_of.values()):
            raise unmatched(f'{self._where}: clip_areas', unused, gt.clips)
        chosen = {clip: areas[pattern] for clip in self.clips if (pattern := pattern_of[clip]) is not None}
        try:
            return AreaReader(gt, chosen)
        except ValueError as error:
            raise ValueError(f'{self._where}: clip_areas: {error}') from None

    def _plan(self, clip: str) -> 'ClipFrames':
        """Decide which frames of a clip to read, from the numbers of frames."""
        factor = self.temporal_scale
        num_lq = self.lq_reader.num_frames(clip) if self.lq_reader else None
        num_gt = self.gt_reader.num_frames(clip) if self.gt_reader else 0
        start, lq_stride = 0, 1
        wanted_start = self.settings.gt_start
        lacks_ends = factor == 2 and num_lq is not None and num_gt == 2 * num_lq - 3
        if self.gt_reader is None:
            assert num_lq is not None  # the options name one of them
            num_out = factor * (num_lq - 1) + 1
        elif wanted_start != 1 and num_lq in (None, num_gt):
            num_out, lq_stride = num_gt, factor
        elif wanted_start != 1 and factor == 2 and num_lq == (num_gt + 1) // 2:
            num_out = num_gt
        elif wanted_start != 0 and lacks_ends:
            num_out, start = num_gt + 2, 1
        else:
            fitting = {0: [f'{num_gt}', f'{(num_gt + 1) // 2} (every second frame)'] if factor == 2 else [f'{num_gt}'],
                       1: [f'{(num_gt + 3) // 2} (every second frame, and one more at both ends)']
                       if factor == 2 and num_gt % 2 else []}
            expected = [text for kind, texts in fitting.items() if wanted_start in (None, kind) for text in texts]
            raise ValueError(f'{self._where}: clip {clip!r} has {num_gt} frames in {self.gt_reader.path} and {num_lq} '
                             f'in {self.lq_reader.path if self.lq_reader else "dataroot_lq (not set)"}, expected '
                             f'{" or ".join(expected) or "an odd number of GT frames"}')
        num_out = min(num_out, self.settings.num_frame or num_out)
        num_in = (num_out - 1) // factor + 1
        if num_in < factor:  # one frame has nothing to interpolate
            raise ValueError(f'{self._where}: clip {clip!r} has only {num_in} LR frame, but temporal_scale 2 needs two')
        num_out = factor * (num_in - 1) + 1
        gt = range(start, min(num_out, start + num_gt)) if num_gt else range(0)
        return ClipFrames(num_out, range(0, num_in * lq_stride, lq_stride), gt)


class ClipFrames(NamedTuple):
    """Frames of a test clip."""

    num_out: int  # output frames, numbered from the first LR frame
    lq: range  # LR frames to read
    gt: range  # output frames that have ground truth; the GT files start with the first of them
