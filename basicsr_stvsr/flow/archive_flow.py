"""Read the files in which FISR's authors publish the flows and warped frames of many samples.

Official code: https://github.com/JihyongOh/FISR.  Shapes: N samples, S flows of each, h x w pixels of the LR frames.
"""
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from ..config.registered import FLOW_REGISTRY
from ..io.frames import FrameReader, FrameReadError
from ..io.mat_files import open_mat
from ..io.opening import open_reader
from .base import StoredFlow
from .stored_flow import MAGIC, checked_flow, describe_magic

_HEADER = np.dtype([('magic', 'S4'), ('shape', '<i4', 4)])


def read_flow_archive(path: str | Path) -> np.memmap:
    """Open a .flo file of many samples.

    The file holds Middlebury's magic number, N, S, h and w as int32, then the flows as float32.

    Returns:
        (N, S, h, w, 2) float32, x then y, pixels; memory-mapped, so only the parts accessed are read.

    Raises:
        FrameReadError: the file does not exist, or it has another magic number, or a size that does not fit its header.
    """
    path = Path(path)
    if not path.is_file():
        raise FrameReadError(f'{path}: no such flow file')
    with open(path, 'rb') as file:
        start = file.read(_HEADER.itemsize)
    if start[:4] != MAGIC:
        raise FrameReadError(f'{path} is not a flow file of FISR: {describe_magic(start)}')
    header = np.frombuffer(start.ljust(_HEADER.itemsize, b'\0'), _HEADER)[0]
    shape = (*header['shape'].tolist(), 2)
    actual, expected = path.stat().st_size, _HEADER.itemsize + 4 * int(np.prod(shape, dtype=np.float64))
    if min(shape) < 1 or actual != expected:
        width, height = shape[:2]  # Middlebury's files have width and height at this position
        reason = 'it holds a single flow; read it with FlowFiles' if actual == 12 + 8 * width * height else (
            'it is truncated or holds something else')
        raise FrameReadError(f'{path} has {actual} bytes instead of {expected}, by the shape in its header, '
                             f'{shape[:4]} (samples, flows of each, height, width); {reason}')
    return np.memmap(path, np.float32, 'r', _HEADER.itemsize, shape)


class WarpArchive:
    """Frames warped along half of a flow, from an hdf5storage file, with the axes of arrays in reverse order.

    Args:
        path: a MATLAB file (-v7.3).

    Attributes:
        shape: (N, S, h, w, 3).
        dtype: of the numbers, YUV of 0-255.

    Raises:
        FrameReadError: it is not such a file, or holds neither 'pred' nor a single other array of that shape.
    """

    def __init__(self, path: str | Path):
        self.path = Path(path)
        arrays = open_mat(self.path)
        found = {name: array for name, array in arrays.items() if array.ndim == 5 and array.shape[0] == 3}
        if 'pred' not in found and len(found) != 1:
            held = ', '.join(f'{name} {array.shape[::-1]}' for name, array in arrays.items()) or 'no array'
            raise FrameReadError(f'{self.path} holds {held}; expected pred (samples, warped frames of each, height, '
                                 'width, 3)')
        self._array = found['pred'] if 'pred' in found else found.popitem()[1]
        self.shape, self.dtype = self._array.shape[::-1], self._array.dtype

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, number: int) -> np.ndarray:
        """Return the frames of a sample, (S, h, w, 3), as stored."""
        return self._array[..., number].T


def read_warp_archive(path: str | Path) -> WarpArchive:
    """Open a file of warped frames without reading them; see `WarpArchive`."""
    return WarpArchive(path)


@FLOW_REGISTRY.register()
class FlowArchive(StoredFlow):
    """Flows from a .flo file of many samples.

    The samples are clips of one length, in the natural order of their names. A clip of T LR frames has S = 2 * (T - 1)
    flows: from each frame to the next, and back. The authors' test set has ten clips of five frames: (10, 8, 1080,
    1920, 2).

    Args:
        path: the file.
        frames: the LR frames (folder, LMDB or videos), for the names of clips and frames.

    Raises:
        FrameReadError: a path is missing or damaged, or the number or length of the clips does not match the file.
    """

    def __init__(self, path: str | Path, frames: str | Path):
        self.path = Path(path).expanduser()
        with open_reader(Path(frames).expanduser()) as reader:
            self._numbers = {clip: number for number, clip in enumerate(reader.clips)}
            self._names = {clip: _frame_numbers(reader, clip) for clip in reader.clips}
        num_clips, num_flows = read_flow_archive(self.path).shape[:2]
        if num_clips != len(self._numbers):
            raise FrameReadError(f'{self.path} holds the flows of {num_clips} clips, but {frames} has '
                                 f'{len(self._numbers)}')
        for clip, names in self._names.items():
            if 2 * (len(names) - 1) != num_flows:
                raise FrameReadError(f'{self.path} holds {num_flows} flows of each clip, for {num_flows // 2 + 1} '
                                     f'frames, but clip {clip!r} of {frames} has {len(names)} frames')

    def read(self, clip: str, first: str, second: str, size: tuple[int, int]) -> np.ndarray:
        what = f'flow from frame {first!r} to {second!r} of clip {clip!r}'
        names = self._names.get(clip, {})
        if first not in names or second not in names or abs(names[second] - names[first]) != 1:
            raise FrameReadError(f'no {what} in {self.path}; it holds the flows between neighbouring frames of '
                                 f'{len(self._names)} clips')
        pair, is_backward = min(names[first], names[second]), names[second] < names[first]
        flow = self._flows[self._numbers[clip], 2 * pair + is_backward]
        return checked_flow(np.asarray(flow), size, f'{self.path}: the {what}')

    @cached_property
    def _flows(self) -> np.memmap:
        return read_flow_archive(self.path)

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != '_flows'}  # copies the map


def _frame_numbers(reader: FrameReader, clip: str) -> dict[str, int]:
    return {reader.frame_name(clip, index): index for index in range(reader.num_frames(clip))}
