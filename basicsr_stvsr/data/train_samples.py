"""Base classes of the data sets: their options, and the making of a training sample from a window of frames.

Shapes: T GT frames in a window, T' LR frames in it, C channels of `color`, s = scale, P pairs of LR frames.
"""
import os
import random
from abc import abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import chain
from typing import Any

import numpy as np
import torch
from basicsr.data.transforms import augment
from torch import Tensor
from torch.utils.data import Dataset, get_worker_info

from ..flow import build_flow
from .clip_options import SampleOptions, TrainSampleOptions
from .crops import Crop, add_margin, crop_arrays, relative_to, scale_crop
from .items import TrainSample
from .lq_flow import LQFlow, flow_tensor
from .lq_frames import CropSource, Window

_seeded_process: int | None = None


def seed_worker() -> None:
    """Seed Python's `random` in every worker process, once, from the seed that torch gave the worker.

    BasicSR's `worker_init_fn` gives worker k the same seed in every epoch, so that all epochs repeat the same crops and
    flips. Torch's worker seed differs between epochs and workers, and follows from the seed of the main process.
    Without workers nothing changes. It also changes nothing in this package's own training loop: there both seeds are
    the seed of the sample.
    """
    global _seeded_process
    if get_worker_info() is not None and _seeded_process != os.getpid():
        _seeded_process = os.getpid()
        random.seed(torch.initial_seed())


def clip_tensor(frames: Sequence[np.ndarray]) -> Tensor:
    """Convert uint8 frames (h, w, C) in OpenCV's channel order to a float clip (T, C, h, w) in ours, 0-1."""
    clip = np.stack(frames)[..., ::-1].transpose(0, 3, 1, 2)
    # ascontiguousarray would keep the negative stride of a single channel
    return torch.from_numpy(clip.copy()).float().div_(255)


def regroup(items: Iterable[np.ndarray], groups: Sequence[Sequence[np.ndarray]]) -> list[list[np.ndarray]]:
    """Split items into groups as long as these."""
    items = iter(items)
    return [[next(items) for _ in group] for group in groups]


def physical_memory() -> int | None:
    """Return the bytes of main memory; None if the system does not report them."""
    if 'SC_PHYS_PAGES' not in getattr(os, 'sysconf_names', ()):
        return None
    return os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE')


def check_cache(needed: float, num_worker_per_gpu: int, where: str) -> None:
    """Raise ValueError if the caches of all workers, `needed` bytes each, exceed half of the main memory."""
    memory, num_workers = physical_memory(), max(1, num_worker_per_gpu)
    if memory and needed * num_workers > memory / 2:
        limit = memory / 2 / num_workers
        raise ValueError(
            f'{where}: cache: true would keep about {needed / 1e9:.1f} GB of frames in each of {num_workers} workers; '
            f'the limit is {limit / 1e9:.1f} GB each, together half of the main memory. Set cache: false, or use fewer '
            'clips or workers')


class SampleDataset(Dataset[Any]):
    """A data set whose options are `SampleOptions` or a subclass.

    Attributes:
        opt: the options, as passed in.
        settings: the options with defaults filled in, read by the class `options`.
        color: colour space of the samples.
        lq_flow: source of the flow between LR frames; None where the options name none.
    """

    options: type[SampleOptions]
    settings: SampleOptions

    def __init__(self, opt: dict[str, Any]):
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

    def _read_lq_flows(self, clip: str, indices: Sequence[int], size: tuple[int, int]) -> list[np.ndarray]:
        """Read stored flows between LR frames; only data sets of files have them."""
        raise NotImplementedError

    @contextmanager
    def _name_in_errors(self) -> Iterator[None]:
        """Prefix the message of a ValueError with the name of the data set."""
        try:
            yield
        except ValueError as error:
            raise ValueError(f'{self._where}: {error}') from None


class TrainSamples(SampleDataset):
    """Random crops of windows of frames, for training.

    A `TrainSample` has `lq_sharp` only with dataroot_lq_sharp or lq_sharp; `flow` only with dataroot_flow or
    exact_flow; `lq_flow` and `lq_flow_stride2` only with flow_opt, for the strides of flow_strides.
    """

    options: type[TrainSampleOptions]
    settings: TrainSampleOptions
    _lq_crops: CropSource
    _lq_sharp_crops: CropSource | None

    @abstractmethod
    def cache_bytes(self) -> float:
        """Return the bytes that cache: true keeps in memory, in each worker."""

    def _make_sample(self, window: Window, indices: range, crop: Crop, lq_size: tuple[int, int], *,
                     flows: list[np.ndarray], key: str) -> TrainSample:
        """Crop a sample from a window, and augment it.

        Args:
            indices: numbers of the frames of the window, in playing order.
            crop: in LR pixels.
            lq_size: height and width of whole LR frames.
            flows: flows of whole frames from the intermediate frames, (H, W, 2) each; may be empty.
            key: see above.
        """
        lq_indices = indices[::self.temporal_scale]
        gt_crop = scale_crop(crop, self.scale)
        padded = self._flow_crop(crop, lq_size)
        lq = self._lq_crops.read(window, lq_indices, padded)
        lq_flows = self._crop_flows(window.clip, lq_indices, lq, padded, crop, lq_size)
        lq = crop_arrays(lq, relative_to(crop, padded))
        sharp = self._lq_sharp_crops.read(window, lq_indices, crop) if self._lq_sharp_crops else []
        gt = crop_arrays([window.frames[i] for i in indices], gt_crop)
        flows = crop_arrays(flows, gt_crop)

        (lq, sharp, gt), (flows, lq_flows) = self._augment([lq, sharp, gt], [flows, lq_flows])
        sample: TrainSample = {'lq': clip_tensor(lq), 'gt': clip_tensor(gt), 'key': key}
        if sharp:
            sample['lq_sharp'] = clip_tensor(sharp)
        if flows:
            sample['flow'] = flow_tensor(flows)
        if self.lq_flow:
            for name, flow in self.lq_flow.to_sample(lq_flows, len(lq)).items():
                sample[name] = flow
        return sample

    def _augment(self, frames: Sequence[list[np.ndarray]], flows: Sequence[list[np.ndarray]]
                 ) -> tuple[list[list[np.ndarray]], list[list[np.ndarray]]]:
        """Flip and turn groups of frames and of flows, all alike."""
        # Copies, as BasicSR flips in place, and cached frames must not change
        turned, turned_flows = augment(
            [frame.copy() for frame in chain(*frames)], self.settings.use_hflip, self.settings.use_rot,
            flows=[flow.copy() for flow in chain(*flows)])
        return regroup(turned, frames), regroup(turned_flows, flows)

    def _flow_crop(self, crop: Crop, lq_size: tuple[int, int]) -> Crop:
        """Return the part of the LR frames for the flow estimator: the crop, widened by flow_margin."""
        if not self.lq_flow or self.lq_flow.is_stored:
            return crop
        return add_margin(crop, self.settings.flow_margin, lq_size)

    def _crop_flows(self, clip: str, indices: Sequence[int], lq: list[np.ndarray], padded: Crop, crop: Crop,
                    lq_size: tuple[int, int]) -> list[np.ndarray]:
        """Return the flows between LR frames in `crop`: stored ones, or estimated on `lq`, the area `padded`."""
        if not self.lq_flow:
            return []
        if self.lq_flow.is_stored:
            return crop_arrays(self._read_lq_flows(clip, indices, lq_size), crop)
        return crop_arrays(self.lq_flow.estimate(lq), relative_to(crop, padded))
