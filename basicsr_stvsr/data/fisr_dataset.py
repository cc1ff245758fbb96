"""The training files of FISR's authors: samples that are already cropped, with flows and warped frames.

Paper: https://arxiv.org/abs/1912.07213.  Files: https://github.com/JihyongOh/FISR, with a description of their content.

Shapes: N samples, h x w pixels of the LR grid. HDF5 reverses MATLAB's axes: an array of (h, w, 3, 5, N) there is read
as (N, 5, 3, w, h).
"""
import os
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

import numpy as np
import torch
from basicsr.utils.registry import DATASET_REGISTRY
from pydantic import Field, model_validator
from torch import Tensor
from torch.utils.data import Dataset

from ..config import DatasetOptions, Flow
from ..config.block import refuse_field
from ..flow import StoredFlow, build_flow, read_flow_archive, read_warp_archive
from ..io.color_spaces import Color, check_yuv
from ..io.frames import FrameReadError
from ..io.mat_files import open_mat
from .items import TrainSample
from .lq_flow import KEYS, LQFlow, flow_pairs, flow_tensor

if TYPE_CHECKING:
    import h5py

NUM_LQ, NUM_GT, SCALE = 5, 7, 2
_NUM_CHECKED = 8  # samples, spread over all, to check for YUV
_WARPED_KEYS: dict[int, Literal['lq_warped', 'lq_warped_stride2']] = {1: 'lq_warped', 2: 'lq_warped_stride2'}
_PATHS = ('dataroot_lq', 'dataroot_gt', 'dataroot_flow', 'dataroot_flow_stride2', 'dataroot_warp',
          'dataroot_warp_stride2')


class FISRMatOptions(DatasetOptions):
    """`datasets.<name>` of type FISRMatDataset: the training files of FISR's authors, for training and validation."""

    dataroot_lq: str | Path
    """MATLAB file (-v7.3) of LR frames: LR_data, (h, w, 3, 5, N), YUV of 0-255."""
    dataroot_gt: str | Path
    """MATLAB file (-v7.3) of frames 2 to 8 of 9; the LR frames are frames 1, 3, 5, 7 and 9: HR_data, (2h, 2w, 3, 7, N),
    YUV of 0-255."""
    samples: Annotated[list[int | None], Field(min_length=2, max_length=2)] = [0, None]
    """First sample and end of the range (exclusive), as a slice in Python. The authors train on [0, -320] and validate
    on [-320, ~]."""
    dataroot_flow: str | Path | None = None
    """.flo file with the flows of all samples between neighbouring LR frames, (N, 8, h, w, 2)."""
    dataroot_flow_stride2: str | Path | None = None
    """.flo file with the flows of all samples between the LR frames 1, 3 and 5, (N, 4, h, w, 2)."""
    dataroot_warp: str | Path | None = None
    """MATLAB file (-v7.3) of frames warped by half of dataroot_flow: pred, (N, 8, h, w, 3), YUV of 0-255. Default: the
    network warps frames itself."""
    dataroot_warp_stride2: str | Path | None = None
    """MATLAB file (-v7.3) of frames warped by half of dataroot_flow_stride2: pred, (N, 4, h, w, 3), YUV of 0-255."""
    flow_opt: Flow | None = None
    """Estimator of the flow, such as {type: DISFlow}, to use instead of dataroot_flow. It runs as samples are read."""

    @model_validator(mode='after')
    def check_files(self) -> Self:
        if self.scale != SCALE:
            raise refuse_field('scale', f'must be {SCALE} with FISRMatDataset, but is {self.scale}')
        for name in ('dataroot_flow', 'dataroot_warp'):
            if (getattr(self, name) is None) != (getattr(self, f'{name}_stride2') is None):
                there, missing = sorted((name, f'{name}_stride2'), key=lambda option: getattr(self, option) is None)
                raise refuse_field(missing, f'is missing, but {there} is set; set both or neither')
        if self.dataroot_warp and not self.dataroot_flow:
            raise refuse_field('dataroot_flow', 'is missing, but dataroot_warp is set; its frames were warped along '
                                                'this flow')
        if self.flow_opt and self.dataroot_flow:
            raise refuse_field('flow_opt', 'cannot be combined with dataroot_flow: the flow comes from one of them')
        return self


@DATASET_REGISTRY.register()
class FISRMatDataset(Dataset[Any]):
    """Samples of five LR and seven GT frames from the authors' files, without augmentation, as the authors train.

    Each process opens the files separately, and reads them sample by sample.

    Args:
        opt: see `FISRMatOptions`.

    Attributes:
        opt: the options, as passed in.
        settings: the options with defaults filled in.
        color: colour space of the samples.

    Raises:
        FileNotFoundError: a path of the options does not exist.
        FrameReadError: a file is damaged or of the wrong type.
        ValueError: an unknown or impossible option, files whose shapes do not match, or frames that are not YUV.
    """

    options = FISRMatOptions
    color: Color = 'yuv'
    scale = SCALE
    temporal_scale = 2

    def __init__(self, opt: dict[str, Any]):
        self.opt = opt
        key = opt.get('key', opt.get('phase', '?'))
        self.settings = self.options.read(opt, f'datasets.{key}.')
        self._where = f'data set {self.settings.name!r} (datasets.{key})'
        self._check_paths()

        self._lq_file = _SampleFile(self._path('dataroot_lq'), partial(_open_mat, name='LR_data'))
        self._gt_file = _SampleFile(self._path('dataroot_gt'), partial(_open_mat, name='HR_data'))
        num_samples, _, _, w, h = self._check_frames()
        # Numbers of the samples in the files
        self._samples = range(num_samples)[slice(*self.settings.samples)]
        if not self._samples:
            raise ValueError(f'{self._where}: samples {self.settings.samples} select none of the {num_samples} samples '
                             f'of {self._lq_file.path}')
        self._flows = self._open_pairs('dataroot_flow', read_flow_archive, (num_samples, h, w, 2))
        self._warped = self._open_pairs('dataroot_warp', read_warp_archive, (num_samples, h, w, 3))
        self._estimator = self._build_estimator()
        self._check_color()

    @property
    def has_flow(self) -> bool:
        return bool(self._flows or self._estimator)

    def __len__(self) -> int:
        return len(self._samples)

    def __getitem__(self, index: int) -> TrainSample:
        """Return a sample.

        Returns:
            five LR and seven GT frames, with `gt_start`; `lq_flow` and `lq_flow_stride2` only with flow files or an
                estimator; `lq_warped` and `lq_warped_stride2` only with dataroot_warp. The key is 'sample/' and the
                number of the sample in the files, from 0.

        Raises:
            FrameReadError: the sample cannot be read, or has invalid values.
        """
        number = self._samples[index]
        lq = self._read_frames(self._lq_file, number)
        sample: TrainSample = {
            'lq': _to_tensor(lq), 'gt': _to_tensor(self._read_frames(self._gt_file, number)), 'gt_start': 1,
            'key': f'sample/{number:08d}'}
        for stride, file in self._flows.items():
            flows = file.read(number)
            if not np.isfinite(flows).all():
                raise FrameReadError(f'{file.path}, sample {number}: a flow with values that are not finite')
            sample[KEYS[stride]] = flow_tensor(flows)
        if self._estimator:
            for name, flow in self._estimator.to_sample(self._estimator.estimate(_to_images(lq)), NUM_LQ).items():
                sample[name] = flow
        for stride, file in self._warped.items():
            frames = _check_range(file.read(number), f'{file.path}, sample {number}')
            # Frames come in pairs, as the flows that warped them do.
            sample[_WARPED_KEYS[stride]] = flow_tensor(frames.astype(np.float32)).div_(255)
        return sample

    def _path(self, option: str) -> Path:
        return Path(getattr(self.settings, option)).expanduser()

    def _check_paths(self) -> None:
        missing = [option for option in _PATHS if getattr(self.settings, option) and not self._path(option).is_file()]
        if missing:
            raise FileNotFoundError('\n'.join(
                f'{self._where}: {option} is not a file: {self._path(option)}' for option in missing))

    def _check_frames(self) -> tuple[int, ...]:
        """Check that LR and GT frames match, and return the shape of the LR frames, (N, 5, 3, w, h)."""
        for file, num_frames in ((self._lq_file, NUM_LQ), (self._gt_file, NUM_GT)):
            if file.shape[1:3] != (num_frames, 3):
                raise ValueError(f'{self._where}: {file.path} holds an array of {_in_matlab(file.shape)} in MATLAB, '
                                 f'expected (height, width, 3, {num_frames}, samples)')
        lq, gt = self._lq_file.shape, self._gt_file.shape
        if (lq[0], SCALE * lq[3], SCALE * lq[4]) != (gt[0], gt[3], gt[4]):
            raise ValueError(f'{self._where}: {lq[0]} samples of {lq[4]}x{lq[3]} (h x w) in {self._lq_file.path} and '
                             f'{gt[0]} of {gt[4]}x{gt[3]} in {self._gt_file.path}, expected the same number, {SCALE} '
                             'times as large')
        return lq

    def _open_pairs(self, option: str, opener: Callable[[Path], Any], shape: Sequence[int]) -> dict[int, '_SampleFile']:
        """Open the files that hold an array of `shape`, (N, h, w, C), for each flow, by stride.

        Empty if the options name none.
        """
        files = {}
        for stride, name in ((1, option), (2, f'{option}_stride2')):
            if getattr(self.settings, name):
                files[stride] = file = _SampleFile(self._path(name), opener)
                expected = (shape[0], len(flow_pairs(NUM_LQ, stride)), *shape[1:])
                if file.shape != expected:
                    raise ValueError(f'{self._where}: {name} {file.path} has the shape {file.shape}, expected '
                                     f'{expected} to match the LR frames in {self._lq_file.path}')
        return files

    def _build_estimator(self) -> LQFlow | None:
        if not self.settings.flow_opt:
            return None
        estimator = build_flow(self.settings.flow_opt)
        if isinstance(estimator, StoredFlow):
            raise ValueError(f'{self._where}: flow_opt must be an estimator, but is {self.settings.flow_opt["type"]}; '
                             'set dataroot_flow and dataroot_flow_stride2 to use files')
        return LQFlow(estimator, self.color, tuple(KEYS))

    def _check_color(self) -> None:
        """Check that frames are YUV. Several samples are checked together, as a single one may be grey."""
        numbers = self._samples[::-(-len(self._samples) // _NUM_CHECKED)]
        for file in (self._lq_file, self._gt_file):
            frames = np.concatenate([self._read_frames(file, number)[:1] for number in numbers])
            if frames.max() <= 1:
                raise ValueError(f'{self._where}: values of {file.path} are at most {frames.max():g}, expected YUV of '
                                 '0-255')
            try:
                check_yuv(_to_images(frames))
            except ValueError as error:
                raise ValueError(f'{self._where}: {file.path} {error}') from None
            file.close()

    @staticmethod
    def _read_frames(file: '_SampleFile', number: int) -> np.ndarray:  # (T, 3, h, w), 0-255
        return _check_range(file.read(number), f'{file.path}, sample {number}').swapaxes(2, 3)


class _SampleFile:
    """A file of samples; every process that reads from it opens it separately.

    HDF5 caches the structure and content of an open file. A forked worker must not continue with the file that its
    parent opened.

    Args:
        path: the file.
        opener: opens the file, and returns an array of samples or an array-like object.

    Attributes:
        shape: shape of the array.
    """

    def __init__(self, path: Path, opener: Callable[[Path], Any]):
        self.path, self._opener = path, opener
        self._opened: tuple[int, Any] | None = None
        self.shape = tuple(opener(path).shape)

    def read(self, number: int) -> np.ndarray:
        """Read a sample.

        Raises:
            FrameReadError: the sample cannot be read.
        """
        try:
            if self._opened is None or self._opened[0] != os.getpid():
                self.close()  # first: otherwise HDF5 would reuse the open file
                self._opened = os.getpid(), self._opener(self.path)
            return np.asarray(self._opened[1][number])
        except FrameReadError:
            raise
        except (OSError, RuntimeError, ValueError) as error:  # errors of the HDF5 library, as h5py raises them
            raise FrameReadError(f'{self.path}, sample {number}, cannot be read: {error}') from error

    def close(self) -> None:
        """Close the file until the next sample is read."""
        self._opened = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, '_opened': None}


def _open_mat(path: Path, name: str) -> 'h5py.Dataset':
    """Open a MATLAB file and return its array of this name, or else its only array with five axes."""
    arrays = open_mat(path)
    found = {key: array for key, array in arrays.items() if array.ndim == 5}
    array = found.get(name, next(iter(found.values())) if len(found) == 1 else None)
    if array is not None:
        if array.dtype != np.uint8 and not np.issubdtype(array.dtype, np.floating):
            raise ValueError(f'{path} holds {array.dtype}, expected uint8, single or double')
        return array
    held = ', '.join(f'{key} {_in_matlab(array.shape)}' for key, array in arrays.items()) or 'no array'
    raise ValueError(f'{path} must hold {name}, or only one array, with the axes (height, width, 3, frames, samples); '
                     f'it holds {held}')


def _in_matlab(shape: Sequence[int]) -> tuple[int, ...]:
    return tuple(shape[::-1])


def _check_range(frames: np.ndarray, what: str) -> np.ndarray:
    """Raise FrameReadError for floats outside 0-255."""
    if frames.dtype != np.uint8 and not (frames.min() >= 0 and frames.max() <= 255):  # also with NaN
        raise FrameReadError(f'{what}: values of {frames.min():g} to {frames.max():g}, expected 0 to 255')
    return frames


def _to_tensor(frames: np.ndarray) -> Tensor:
    """Convert (T, 3, h, w), 0-255, to float, 0-1."""
    return torch.from_numpy(np.ascontiguousarray(frames)).float().div_(255)


def _to_images(frames: np.ndarray) -> list[np.ndarray]:
    """Convert (T, 3, h, w), Y, U, V of 0-255, to frames in OpenCV's layout: uint8 (h, w, 3), V, U, Y."""
    images = np.rint(frames).astype(np.uint8)[:, ::-1].transpose(0, 2, 3, 1)
    return list(np.ascontiguousarray(images))
