"""What the data sets of this package share: their options, and how a training sample is made of a window of frames.

Shapes: T GT frames of a window, T' LR frames of it, C channels of `color`, s = scale, P pairs of LR frames.
"""
import os
import random
from abc import abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import chain

import numpy as np
import torch
from basicsr.data.transforms import augment
from torch import Tensor
from torch.utils.data import Dataset, get_worker_info

from ..flow import build_flow
from .boxes import Box, cut, enlarge, widen, within
from .clip_options import SampleOptions, TrainSampleOptions
from .lq_flow import LQFlow, flow_tensor
from .lq_frames import CropSource, Window

_seeded_process: int | None = None


def seed_worker() -> None:
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


def clip_tensor(frames: Sequence[np.ndarray]) -> Tensor:
    """uint8 frames (h, w, C) in OpenCV's order of channels -> float clip (T, C, h, w) in ours, 0-1."""
    clip = np.stack(frames)[..., ::-1].transpose(0, 3, 1, 2)
    # ascontiguousarray would keep the negative stride of a single channel
    return torch.from_numpy(clip.copy()).float().div_(255)


def regroup(items: Iterable[np.ndarray], groups: Sequence[Sequence[np.ndarray]]) -> list[list[np.ndarray]]:
    """Items in a row, in groups as long as these."""
    items = iter(items)
    return [[next(items) for _ in group] for group in groups]


def physical_memory() -> int | None:
    """Bytes of main memory; None if the system does not say."""
    if 'SC_PHYS_PAGES' not in getattr(os, 'sysconf_names', ()):
        return None
    return os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE')


def check_cache(needed: float, num_worker_per_gpu: int, where: str) -> None:
    """Raises ValueError if the caches of all workers, `needed` bytes each, take more than half of the main memory."""
    memory, num_workers = physical_memory(), max(1, num_worker_per_gpu)
    if memory and needed * num_workers > memory / 2:
        limit = memory / 2 / num_workers
        raise ValueError(
            f'{where}: cache: true would keep about {needed / 1e9:.1f} GB of frames in each of {num_workers} workers; '
            f'the limit is {limit / 1e9:.1f} GB each, together half of the main memory. Set cache: false, or use fewer '
            'clips or workers')


class SampleDataset(Dataset):
    """A data set whose options are `SampleOptions` or more.

    Attributes:
        opt: the options, as given.
        settings: the same with defaults filled in, read by `options`, the class of the block.
        color: colour space of the samples.
        lq_flow: where the flow between LR frames comes from; None where the options name nothing.
    """

    options: type[SampleOptions]

    def __init__(self, opt: dict):
        self.opt = opt
        key = opt.get('key', opt.get('phase', '?'))
        self.settings = self.options.read(opt, f'datasets.{key}.')
        self.scale, self.temporal_scale, self.color = (
            self.settings.scale, self.settings.temporal_scale, self.settings.color)
        self._where = f'data set {self.settings.name!r} (datasets.{key})'
        self.lq_flow: LQFlow | None = None
        if self.settings.flow_opt:
            strides = self.settings.flow_strides if isinstance(self.settings, TrainSampleOptions) else (1,)
            self.lq_flow = LQFlow(build_flow(self.settings.flow_opt), self.color, strides)

    @property
    def has_flow(self) -> bool:
        return self.lq_flow is not None

    @contextmanager
    def _told_where(self) -> Iterator[None]:
        """Puts the name of the data set in front of the message of a ValueError."""
        try:
            yield
        except ValueError as error:
            raise ValueError(f'{self._where}: {error}') from None


class TrainSamples(SampleDataset):
    """Random crops of windows of frames, for training.

    A sample is a dict:
        lq: (T', C, h, w) float, 0-1, of `color`.
        gt: (T, C, sh, sw) float, 0-1, of `color`.
        lq_sharp: (T', C, h, w) float, 0-1, of `color`; only with dataroot_lq_sharp or lq_sharp.
        flow: (T' - 1, 2, 2, sh, sw) float, pixels; only with dataroot_flow or exact_flow: for every frame between two
            given ones, the fields by which the one before and the one after are sampled to look like it.
        lq_flow, lq_flow_stride2: (P, 2, 2, h, w) float, pixels; only with flow_opt, for the strides of flow_strides:
            see `LQFlow`.
        key: where the sample comes from.
    """

    options: type[TrainSampleOptions]
    _lq: CropSource
    _lq_sharp: CropSource | None

    @abstractmethod
    def cache_bytes(self) -> float:
        """Bytes that cache: true keeps in memory, in each worker."""

    def _make_sample(self, window: Window, indices: range, box: Box, lq_size: tuple[int, int], *,
                     flows: list[np.ndarray], key: str) -> dict[str, Tensor | str]:
        """Cut a sample out of a window, and augment it.

        Args:
            indices: numbers of the frames of the window, in the order in which they are played.
            box: the crop, in LR pixels.
            lq_size: height and width of whole LR frames.
            flows: to the frames between, (H, W, 2) each, of whole frames; may be empty.
            key: see above.
        """
        lq_indices = indices[::self.temporal_scale]
        gt_box = enlarge(box, self.scale)
        outer = self._flow_box(box, lq_size)
        lq = self._lq.crop(window, lq_indices, outer)
        lq_flows = self._crop_flows(window.clip, lq_indices, lq, outer, box, lq_size)
        lq = cut(lq, within(box, outer))
        sharp = self._lq_sharp.crop(window, lq_indices, box) if self._lq_sharp else []
        gt = cut([window.frames[i] for i in indices], gt_box)
        flows = cut(flows, gt_box)

        (lq, sharp, gt), (flows, lq_flows) = self._augment([lq, sharp, gt], [flows, lq_flows])
        sample = {'lq': clip_tensor(lq), 'gt': clip_tensor(gt), 'key': key}
        if sharp:
            sample['lq_sharp'] = clip_tensor(sharp)
        if flows:
            sample['flow'] = flow_tensor(flows)
        if self.lq_flow:
            sample |= self.lq_flow.to_sample(lq_flows, len(lq))
        return sample

    def _augment(self, frames: Sequence[list[np.ndarray]], flows: Sequence[list[np.ndarray]]
                 ) -> tuple[list[list[np.ndarray]], list[list[np.ndarray]]]:
        """Groups of frames and of flows, all mirrored and turned alike."""
        # Copies, as BasicSR flips in place, and what a cache holds must not change
        turned, turned_flows = augment(
            [frame.copy() for frame in chain(*frames)], self.settings.use_hflip, self.settings.use_rot,
            flows=[flow.copy() for flow in chain(*flows)])
        return regroup(turned, frames), regroup(turned_flows, flows)

    def _flow_box(self, box: Box, lq_size: tuple[int, int]) -> Box:
        """What an estimator of flow sees of the LR frames: the crop, and flow_margin more where the frame has it."""
        if not self.lq_flow or self.lq_flow.is_stored:
            return box
        return widen(box, self.settings.flow_margin, lq_size)

    def _crop_flows(self, clip: str, indices: Sequence[int], lq: list[np.ndarray], outer: Box, box: Box,
                    lq_size: tuple[int, int]) -> list[np.ndarray]:
        """The flows between LR frames on the crop `box`: stored ones, or estimated on `lq`, which is `outer`."""
        if not self.lq_flow:
            return []
        if self.lq_flow.is_stored:
            return cut(self._read_lq_flows(clip, indices, lq_size), box)
        return cut(self.lq_flow.estimate(lq), within(box, outer))
