"""Windows of clips for training and whole clips for testing, from folders, LMDBs or videos alike.

Shapes: T GT frames of a window, T' LR frames of it, U output frames of a test clip, s = scale. With temporal_scale 2
the LR clip has every second frame: T = 2T' - 1.
"""
import os
import random
import re
import shlex
from collections import Counter
from collections.abc import Callable, Sequence
from fnmatch import fnmatchcase
from functools import partial
from pathlib import Path
from typing import Annotated, Literal, Self

import numpy as np
import torch
from basicsr.data.transforms import augment, mod_crop
from basicsr.utils import get_root_logger
from basicsr.utils.registry import DATASET_REGISTRY
from pydantic import Field, model_validator
from torch import Tensor
from torch.utils.data import Dataset, get_worker_info

from ..schema import DatasetOptions, Positive
from ..schema.block import refuse_field
from .degradations import DegradationBlock, build_degradation
from .flows import read_flow
from .frames import VIDEO_SUFFIXES, CachedReader, FrameReader, open_reader

_NUM_SAMPLED = 16  # clips whose frames are looked at, to guess the size of all
# What each path must be.
_PATHS: dict[str, Callable[[Path], bool]] = {
    'dataroot_gt': Path.exists, 'dataroot_lq': Path.exists, 'meta_info_file': Path.is_file, 'dataroot_flow': Path.is_dir
}
# Pattern of the name of an LMDB -> data set of create_lmdb.py, and those of its splits that such a name may hold.
_DATASETS = {
    'vimeo.*triplet': ('vimeo90k_triplet', ('test',)), 'vimeo': ('vimeo90k', ('test',)),
    'reds': ('reds', ('reds4', 'val')), 'dvd': ('dvd', ('test',)), 'vid4': ('vid4', ()), 'ucf': ('ucf101', ()),
    'middlebury': ('middlebury', ())
}

_seeded_process: int | None = None


def _seed_worker() -> None:
    """Seeds Python's `random`, once in every worker process, from the seed that torch gave the worker.

    BasicSR's `worker_init_fn` seeds worker k with the same number at the start of every epoch, so that every epoch
    would repeat the crops and flips of the one before. Torch's seed of a worker is another one in each epoch and each
    worker, and follows from the seed of the main process. Without workers `random` simply goes on. Under this package's
    own loop it changes nothing: there torch's seed, as that of `random`, is the seed of the sample.
    """
    global _seeded_process
    if get_worker_info() is not None and _seeded_process != os.getpid():
        _seeded_process = os.getpid()
        random.seed(torch.initial_seed())


def _to_tensor(frames: Sequence[np.ndarray]) -> Tensor:
    """uint8 BGR frames (h, w, 3) -> float RGB clip (T, 3, h, w), 0-1."""
    clip = np.stack(frames)[..., ::-1].transpose(0, 3, 1, 2)
    return torch.from_numpy(np.ascontiguousarray(clip)).float().div_(255)


def _crop(arrays: Sequence[np.ndarray], box: tuple[int, int, int, int]) -> list[np.ndarray]:
    """The same crop of all, as copies: BasicSR's `augment` flips in place, and what a cache holds must not change."""
    top, left, bottom, right = box
    return [array[top:bottom, left:right].copy() for array in arrays]


def _guess_dataset(path: Path) -> str:
    """Arguments of create_lmdb.py by which a data set of this name is made."""
    def is_named(pattern: str) -> bool:
        return re.search(f'(?<![a-z]){pattern}', path.name.lower()) is not None

    dataset, splits = next((row for pattern, row in _DATASETS.items() if is_named(pattern)), ('folder', ()))
    return ' '.join([dataset, *(f'--split {split}' for split in splits if is_named(split))])


def _physical_memory() -> int | None:
    """Bytes of main memory, where the system tells."""
    if 'SC_PHYS_PAGES' not in getattr(os, 'sysconf_names', ()):
        return None
    return os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE')


class ClipOptions(DatasetOptions):
    """`datasets.<name>` of this package: what both data sets share."""

    dataroot_gt: str | Path | None = None
    """Clips as a folder, an LMDB, a video file or a folder of videos."""
    dataroot_lq: str | Path | None = None
    """The same for the LR clips; default: LR frames are made from dataroot_gt, cut to a multiple of scale."""
    degradation: DegradationBlock | None = None
    """How they are made: {type: bicubic}, MATLAB's, or {type: gaussian, sigma, kernel_size, border, rounding}; default:
    bicubic."""
    meta_info_file: str | Path | None = None
    """A text file with a clip name at the start of each line; default: every clip."""
    clips: str | None = None
    """A pattern such as '00001/*' that the names of the clips must match; default: every clip."""
    temporal_scale: Literal[1, 2] = 2
    """2 gives every second LR frame, 1 gives all of them."""


class ClipTrainOptions(ClipOptions):
    """`datasets.<name>` of type STVSRClipDataset: random crops of windows of consecutive frames, for training."""

    dataroot_gt: str | Path
    """Clips as a folder, an LMDB, a video file or a folder of videos."""
    dataroot_lq: str | Path | None = None
    """The same for the LR clips, at the full frame rate; default: LR frames are made from dataroot_gt."""
    num_frame: Positive = 3
    """Frames of a window, T; odd where temporal_scale is 2."""
    interval_list: list[Positive] = Field([1], min_length=1)
    """Steps between the frames of a window; each gives its own windows."""
    gt_size: Positive | None = None
    """Side of the GT crop, a multiple of scale; default: the whole frame."""
    random_reverse: bool = False
    """Whether half of the windows are played backwards."""
    use_hflip: bool = False
    """Whether half of the windows are mirrored, as BasicSR's `augment` does."""
    use_rot: bool = False
    """Whether windows are also flipped upside down and turned by 90 degrees, each half of the time."""
    clip_weights: dict[str, Annotated[float, Field(ge=0)]] = {}
    """Pattern of clip names -> how often their windows come, relative to 1; the first pattern that matches counts."""
    cache: bool = False
    """Whether decoded frames, and LR frames made of them, stay in memory, in each worker by itself; for small sets. All
    workers of a process may take half of the main memory."""
    dataroot_flow: str | Path | None = None
    """Folder of precomputed flows to the frames between the LR frames, as docs/datasets.md tells; needs interval_list
    [1] and temporal_scale 2."""

    @model_validator(mode='after')
    def check_window(self) -> Self:
        if (self.num_frame - 1) % self.temporal_scale:
            raise refuse_field('num_frame', f'must be odd with temporal_scale 2, but is {self.num_frame}')
        if self.gt_size and self.gt_size % self.scale:
            raise refuse_field('gt_size', f'must be a multiple of scale {self.scale}, but is {self.gt_size}')
        if self.dataroot_flow and (self.interval_list != [1] or self.temporal_scale != 2):
            raise refuse_field('dataroot_flow', 'needs interval_list [1] and temporal_scale 2, but they are '
                               f'{self.interval_list} and {self.temporal_scale}')
        return self


class ClipTestOptions(ClipOptions):
    """`datasets.<name>` of type STVSRTestDataset: whole clips, for validation and testing."""

    num_frame: Positive | None = None
    """Use the first frames only, as many as give at most this many output frames; default: all."""

    @model_validator(mode='after')
    def check_data(self) -> Self:
        if self.dataroot_gt is None and self.dataroot_lq is None:
            raise refuse_field('dataroot_gt', 'is missing, and dataroot_lq too; one of them is needed')
        return self


class _ClipDataset(Dataset):
    """What both data sets share: their options, readers, and the pairing of GT and LR clips.

    Attributes:
        opt: the options, as given.
        settings: the same with defaults filled in, read by `options`, the class of the block.
        gt, lq: readers; None where the options name no such data.
        clips: names of the clips, those of the ground truth where there is one.
    """

    options: type[ClipOptions]
    gt: FrameReader | None = None
    lq: FrameReader | None = None

    def __init__(self, opt: dict):
        self.opt = opt
        key = opt.get('key', opt.get('phase', '?'))
        self.settings = self.options.read(opt, f'datasets.{key}.')
        self.scale, self.temporal_scale = self.settings.scale, self.settings.temporal_scale
        self._where = f'data set {self.settings.name!r} (datasets.{key})'

        self._check_paths()
        names = self._names_in_meta_info()
        if self.settings.dataroot_gt:
            self.gt = open_reader(self._path('dataroot_gt'), clips=names)
        if self.settings.dataroot_lq:
            self.lq = open_reader(self._path('dataroot_lq'), clips=names)
        self.clips = self._filtered((self.gt or self.lq).clips)
        self._lq_clip = self._pair_clips() if self.gt and self.lq else dict(zip(self.clips, self.clips, strict=True))

    def _path(self, option: str) -> Path:
        return Path(getattr(self.settings, option)).expanduser()

    def _check_paths(self) -> None:
        """One FileNotFoundError for all paths that are missing."""
        missing = [option for option, is_there in _PATHS.items()
                   if getattr(self.settings, option, None) and not is_there(self._path(option))]
        if missing:
            raise FileNotFoundError('\n'.join(
                f'{self._where}: {option} does not exist: {self._path(option)}{self._advice(option)}'
                for option in missing))

    def _advice(self, option: str) -> str:
        """How to make the clips that are missing; empty where they are a video, a list or flows."""
        path = self._path(option)
        if option not in ('dataroot_gt', 'dataroot_lq') or path.suffix.lower() in VIDEO_SUFFIXES:
            return ''
        script, output = 'python scripts/data_preparation', shlex.quote(str(path))
        if option == 'dataroot_lq' and self.settings.dataroot_gt:
            gt = shlex.quote(str(self._path('dataroot_gt')))
            return ('\nMake it with\n  '
                    f"{script}/make_lr.py --scale {self.scale} --input {gt} --output {output}\n"
                    'or leave the option out, and LR frames are made from dataroot_gt as they are read.')
        place = 'Make it'
        if path.suffix != '.lmdb':
            output = shlex.quote(f'{path}.lmdb')
            place = f'Put the clips there, a folder of images each; or name {output} in the option and make it'
        return (f'\n{place} with\n  {script}/create_lmdb.py --dataset {_guess_dataset(path)} --input FOLDER '
                f'--output {output}\n(--help lists the data sets; docs/datasets.md shows the folders that each has)')

    def _names_in_meta_info(self) -> list[str] | None:
        if not self.settings.meta_info_file:
            return None
        path = self._path('meta_info_file')
        # BasicSR's format: clip name, number of frames, shape.
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

    def _pair_clips(self) -> dict[str, str]:
        """GT clip -> LR clip: the one of the same name; a single clip (two video files) needs no equal names."""
        if len(self.clips) == len(self.lq.clips) == 1:
            return {self.clips[0]: self.lq.clips[0]}
        there = set(self.lq.clips)
        missing = [clip for clip in self.clips if clip not in there]
        if missing:
            raise ValueError(f'{self._where}: {len(missing)} clips of dataroot_gt are not in dataroot_lq '
                             f'({self.lq.path}), the first is {missing[0]!r}')
        return {clip: clip for clip in self.clips}

    def _check_sizes(self, clip: str, gt: np.ndarray, lq: np.ndarray) -> None:
        scale = self.scale
        if (gt.shape[0] // scale, gt.shape[1] // scale) != lq.shape[:2]:  # what is over, mod_crop cuts off
            raise ValueError(f'{self._where}: clip {clip!r} is {gt.shape[0]}x{gt.shape[1]} (h x w) in {self.gt.path} '
                             f'and {lq.shape[0]}x{lq.shape[1]} in {self.lq.path}, expected {scale} times the size')


@DATASET_REGISTRY.register()
class STVSRClipDataset(_ClipDataset):
    """Random crops of windows of consecutive frames, for training.

    Every window of every clip is one index. Clips shorter than a window are left out, and counted in the log.

    Args:
        opt: see `ClipTrainOptions`.

    Raises:
        FileNotFoundError: a path of the options does not exist; the message says how to make it.
        FrameReadError: damaged data, see `frames`.
        ValueError: an unknown or impossible option, no window, or GT and LR clips that do not fit.
    """

    options = ClipTrainOptions

    def __init__(self, opt: dict):
        super().__init__(opt)
        self.num_frame, self.gt_size = self.settings.num_frame, self.settings.gt_size
        self.flow_root = self._path('dataroot_flow') if self.settings.dataroot_flow else None
        self._check_frame_counts()
        self._windows = self._list_windows()  # rows of (number of the clip, first frame, interval)

        self.degradation = None if self.lq else build_degradation(self.settings.degradation, self.scale)
        if self.settings.cache:
            self._check_memory()
            if self.lq:
                self.gt, self.lq = CachedReader(self.gt), CachedReader(self.lq)
            else:
                self.gt = CachedReader(self.gt, partial(mod_crop, scale=self.scale))
                self.lq = CachedReader(self.gt, self.degradation)

    def __len__(self) -> int:
        return len(self._windows)

    def __getitem__(self, index: int) -> dict[str, Tensor | str]:
        """A training sample.

        Returns:
            lq: (T', 3, h, w) float RGB, 0-1.
            gt: (T, 3, sh, sw) float RGB, 0-1.
            flow: (T' - 1, 2, 2, sh, sw) float, pixels; only with dataroot_flow: for every frame between two given ones,
                the fields by which the one before and the one after are sampled to look like it.
            key: clip and first frame of the window, 'clip/frame'.
        """
        _seed_worker()
        number, start, interval = self._windows[index].tolist()
        clip = self.clips[number]
        indices = range(start, start + self.num_frame * interval, interval)
        if self.settings.random_reverse and random.random() < 0.5:
            indices = indices[::-1]

        gt = [self.gt.frame(clip, i) for i in indices]
        flows = self._read_flows(clip, indices, gt[0].shape[:2])
        if self.lq is None:
            box = self._random_crop(clip, gt[0].shape[0] // self.scale, gt[0].shape[1] // self.scale)
            lq = self._degrade_crop(gt[::self.temporal_scale], box)
        else:
            lq = [self.lq.frame(self._lq_clip[clip], i) for i in indices[::self.temporal_scale]]
            self._check_sizes(clip, gt[0], lq[0])
            box = self._random_crop(clip, *lq[0].shape[:2])
            lq = _crop(lq, box)
        gt_box = tuple(self.scale * edge for edge in box)

        frames, flows = augment(
            lq + _crop(gt, gt_box), self.settings.use_hflip, self.settings.use_rot,
            flows=_crop(flows, gt_box))
        sample = {
            'lq': _to_tensor(frames[:len(lq)]),
            'gt': _to_tensor(frames[len(lq):]),
            'key': f'{clip}/{self.gt.frame_name(clip, start)}',
        }
        if self.flow_root:
            pairs = np.stack(flows).transpose(0, 3, 1, 2)
            sample['flow'] = torch.from_numpy(np.ascontiguousarray(pairs)).unflatten(0, (-1, 2))
        return sample

    def _read_flows(self, clip: str, indices: Sequence[int], size: tuple[int, int]) -> list[np.ndarray]:
        """The flows from both neighbours to every frame between, in the order of time of the window."""
        if not self.flow_root:
            return []
        order = ('prev', 'next') if indices[0] < indices[1] else ('next', 'prev')
        return [read_flow(self.flow_root, clip, self.gt.frame_name(clip, i), neighbour, size)
                for i in indices[1::2] for neighbour in order]

    def _degrade_crop(self, gt: list[np.ndarray], box: tuple[int, int, int, int]) -> list[np.ndarray]:
        """What a crop of the LR frames of `gt` would be; `box` is in LR pixels."""
        s, margin = self.scale, self.degradation.margin // self.scale
        top, left, bottom, right = box
        # The filter sees what lies around the crop, and the border of the frame only where it really is.
        lq_h, lq_w = gt[0].shape[0] // s, gt[0].shape[1] // s
        y0, y1 = max(0, top - margin), min(lq_h, bottom + margin)
        x0, x1 = max(0, left - margin), min(lq_w, right + margin)
        inner = (top - y0, left - x0, bottom - y0, right - x0)
        return _crop([self.degradation(frame[s * y0:s * y1, s * x0:s * x1]) for frame in gt], inner)

    def _random_crop(self, clip: str, lq_h: int, lq_w: int) -> tuple[int, int, int, int]:
        """Top, left, bottom and right of a crop, in LR pixels."""
        if self.gt_size is None:
            return 0, 0, lq_h, lq_w
        size = self.gt_size // self.scale
        if min(lq_h, lq_w) < size:
            raise ValueError(f'{self._where}: clip {clip!r} is {self.scale * lq_h}x{self.scale * lq_w} (h x w), '
                             f'smaller than gt_size {self.gt_size}')
        top, left = random.randint(0, lq_h - size), random.randint(0, lq_w - size)
        return top, left, top + size, left + size

    def _check_frame_counts(self) -> None:
        for clip in self.clips if self.lq else []:
            gt, lq = self.gt.num_frames(clip), self.lq.num_frames(self._lq_clip[clip])
            if gt != lq:
                raise ValueError(f'{self._where}: clip {clip!r} has {gt} frames in {self.gt.path} and {lq} in '
                                 f'{self.lq.path}')

    def _check_memory(self) -> None:
        """Raises ValueError if the caches of all workers would take more than half of the main memory."""
        memory = _physical_memory()
        clips = [self.clips[number] for number in np.unique(self._windows[:, 0])]
        # A frame of a few clips tells enough: decoding one of each would take minutes for a large set.
        sizes = [self.gt.frame_size(clip) for clip in clips[::-(-len(clips) // _NUM_SAMPLED)]]
        frame_bytes = 3 * np.mean([height * width for height, width in sizes]) * (1 + 1 / self.scale**2)
        needed = frame_bytes * sum(map(self.gt.num_frames, clips))
        num_workers = max(1, self.settings.num_worker_per_gpu)
        if memory and needed * num_workers > memory / 2:
            limit = memory / 2 / num_workers
            raise ValueError(
                f'{self._where}: cache: true would keep about {needed / 1e9:.1f} GB of frames in each of {num_workers} '
                f'workers; the limit is {limit / 1e9:.1f} GB each, together half of the main memory. '
                'Set cache: false, or use fewer clips or workers')

    def _list_windows(self) -> np.ndarray:
        """Rows of (number of the clip, first frame, interval); an array, which forked workers share."""
        intervals, weights = self.settings.interval_list, self.settings.clip_weights
        unused = set(weights)
        windows, num_short = [], 0
        for number, clip in enumerate(self.clips):
            num_frames = self.gt.num_frames(clip)
            rows = [(number, start, interval) for interval in intervals
                    for start in range(num_frames - (self.num_frame - 1) * interval)]
            num_short += not rows
            pattern = next((pattern for pattern in weights if fnmatchcase(clip, pattern)), None)
            if pattern is not None:
                unused.discard(pattern)
                # Row k comes weight times, rounded so that the sum over the clip is right.
                rows = [rows[int(k / weights[pattern])] for k in range(round(weights[pattern] * len(rows)))]
            windows += rows
        if unused:
            raise ValueError(f'{self._where}: clip_weights: no clip matches {sorted(unused)}')
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

    With ground truth and temporal_scale 2, the LR clip is every second frame from the first on, and a last GT frame
    that no output belongs to is dropped: U = 2T' - 1. LR clips that were written with every second frame are
    recognised by their number of frames. Without ground truth all frames of dataroot_lq are given.

    Args:
        opt: see `ClipTestOptions`.

    Raises:
        FileNotFoundError: a path of the options does not exist; the message says how to make it.
        FrameReadError: damaged data, see `frames`.
        ValueError: an unknown or impossible option, a clip that is too short, or GT and LR clips that do not fit.
    """

    options = ClipTestOptions

    def __init__(self, opt: dict):
        super().__init__(opt)
        self.degradation = None if self.lq else build_degradation(self.settings.degradation, self.scale)
        for clip in self.clips:
            self._lq_indices(clip)  # whether the numbers of frames fit, before an evaluation that takes hours

    def __len__(self) -> int:
        return len(self.clips)

    def num_input_frames(self, index: int) -> int:
        """T' of a clip, without reading it."""
        return len(self._lq_indices(self.clips[index])[1])

    def __getitem__(self, index: int) -> dict[str, Tensor | str | list[str]]:
        """A clip.

        Returns:
            lq: (T', 3, h, w) float RGB, 0-1.
            gt: (U, 3, sh, sw) float RGB, 0-1; only with ground truth.
            key, folder: the name of the clip.
            frame_names: names of the U output frames; where frames without ground truth are to be interpolated, their
                numbers as '00000000'.
        """
        clip = self.clips[index]
        num_out, lq_indices = self._lq_indices(clip)
        item = {'key': clip, 'folder': clip}
        if self.gt is not None:
            gt = [mod_crop(self.gt.frame(clip, i), self.scale) for i in range(num_out)]
            item['frame_names'] = [self.gt.frame_name(clip, i) for i in range(num_out)]
        elif self.temporal_scale == 1:
            item['frame_names'] = [self.lq.frame_name(clip, i) for i in lq_indices]
        else:
            item['frame_names'] = [f'{i:08d}' for i in range(num_out)]

        if self.lq is not None:
            lq = [self.lq.frame(self._lq_clip[clip], i) for i in lq_indices]
            if self.gt is not None:
                self._check_sizes(clip, gt[0], lq[0])
        else:
            lq = [self.degradation(gt[i]) for i in lq_indices]
        item['lq'] = _to_tensor(lq)
        if self.gt is not None:
            item['gt'] = _to_tensor(gt)
        return item

    def _lq_indices(self, clip: str) -> tuple[int, range]:
        """U, and the numbers of the LR frames to read."""
        step = self.temporal_scale
        num_lq = self.lq.num_frames(self._lq_clip[clip]) if self.lq else None
        if self.gt is None:
            num_out, stride = step * (num_lq - 1) + 1, 1
        else:
            num_gt = self.gt.num_frames(clip)
            if num_lq is None or num_lq == num_gt:
                stride = step
            elif step == 2 and num_lq == (num_gt + 1) // 2:
                stride = 1
            else:
                half = f' or {(num_gt + 1) // 2} (every second frame)' if step == 2 else ''
                raise ValueError(f'{self._where}: clip {clip!r} has {num_gt} frames in {self.gt.path} and {num_lq} in '
                                 f'{self.lq.path}, expected {num_gt}{half}')
            num_out = num_gt
        num_out = min(num_out, self.settings.num_frame or num_out)
        num_in = (num_out - 1) // step + 1
        if num_in < step:  # between one frame and nothing there is nothing to interpolate
            raise ValueError(f'{self._where}: clip {clip!r} gives {num_in} LR frame, temporal_scale 2 needs two')
        return step * (num_in - 1) + 1, range(0, num_in * stride, stride)
