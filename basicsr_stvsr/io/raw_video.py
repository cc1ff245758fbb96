"""Read raw video: `.yuv` files, which hold only the planes of all frames, without their size."""
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from basicsr.utils.logger import get_root_logger

from .frames import FrameReader, FrameReadError, clip_files
from .images import files_with, natural_key

RAW_SUFFIXES = frozenset({'.yuv'})
_NAMED_SIZES = {'qcif': (144, 176), 'cif': (288, 352), '4cif': (576, 704)}  # height, width


class RawVideoReader(FrameReader):
    """A `.yuv` file as one clip, named without its suffix, or a folder of such files as clips.

    The files are planar 4:2:0 of 8 bits (I420; ffmpeg's `-f rawvideo -pix_fmt yuv420p`). Each frame is Y, then U, then
    V; U and V have half the height and half the width. Frames are returned as V, U, Y in OpenCV's order; each value of
    U and V is repeated for 2 x 2 pixels.

    Args:
        path: the file or the folder.
        clips: names of the clips to use.
        frame_size: height and width of the frames. Default: from the name of each file, such as `foreman_176x144.yuv`
            (width first, as is usual) or `foreman_qcif.yuv` (or cif, 4cif).

    Raises:
        FrameReadError: no such file or clip, no `.yuv` file in the folder, a size that is unknown or odd, or a file
            that is empty or does not hold whole frames of this size.
    """

    color = 'yuv'

    def __init__(self, path: str | Path, *, clips: Sequence[str] | None = None,
                 frame_size: tuple[int, int] | None = None):
        super().__init__(path)
        files = files_with(RAW_SUFFIXES, self.path) if self.path.is_dir() else [self.path]
        if not files:
            raise FrameReadError(f'{self.path}: no .yuv files in this folder')
        self._paths = clip_files(self.path, files)
        self.clips = sorted(self._paths, key=natural_key)
        if clips is not None:
            unknown = [clip for clip in clips if clip not in self._paths]
            if unknown:
                raise self._unknown_clip(unknown[0])
            self.clips = sorted(clips, key=natural_key)
        self._num_frames: dict[str, int] = {}
        for clip in self.clips:
            size = frame_size or _size_in_name(self._paths[clip])
            _warn_of_other_size(self._paths[clip], size)
            self._num_frames[clip] = _count_frames(self._paths[clip], size)
            self._size_of[clip] = 0, size

    def num_frames(self, clip: str) -> int:
        if clip not in self._num_frames:
            raise self._unknown_clip(clip)
        return self._num_frames[clip]

    def frame_name(self, clip: str, index: int) -> str:
        return f'{index:08d}'

    def _read(self, clip: str, index: int) -> np.ndarray:
        height, width = self.frame_size(clip)
        num_bytes = _frame_bytes(height, width)
        # Open the file for each frame, so that threads and processes do not share its position
        data = np.fromfile(self._paths[clip], np.uint8, num_bytes, offset=index * num_bytes)
        if data.size < num_bytes:
            raise ValueError(f'{self._paths[clip]} ends before it; the file became shorter after it was opened')
        luma, chroma = data[:height * width].reshape(height, width), data[height * width:]
        u, v = chroma.reshape(2, height // 2, width // 2).repeat(2, axis=1).repeat(2, axis=2)
        return np.dstack([v, u, luma])


def _frame_bytes(height: int, width: int) -> int:
    return height * width + 2 * (height // 2) * (width // 2)


def _sizes_in_name(path: Path) -> set[tuple[int, int]]:
    words = re.split(r'[^a-z0-9]+', path.stem.lower())
    found = {_NAMED_SIZES[word] for word in words if word in _NAMED_SIZES}
    return found | {(int(match[2]), int(match[1])) for word in words if (match := re.fullmatch(r'(\d+)x(\d+)', word))}


def _warn_of_other_size(path: Path, size: tuple[int, int]) -> None:
    """Warn if the file's name states another size. Swapped height and width also fit the number of bytes."""
    height, width = size
    found = _sizes_in_name(path)
    if found and size not in found:
        found_sizes = ' and '.join(f'{w}x{h}' for h, w in sorted(found))
        get_root_logger().warning(f'{path}: the file name says {found_sizes} (width x height), but frame_size, which '
                                  f'applies, is [height, width] = {[height, width]}')


def _size_in_name(path: Path) -> tuple[int, int]:
    """Return height and width from a file name such as foreman_176x144.yuv or foreman_qcif.yuv."""
    found = _sizes_in_name(path)
    if len(found) != 1:
        sizes = ' and '.join(f'{width}x{height}' for height, width in sorted(found))
        problem = f'contains two sizes, {sizes} (width x height)' if found else 'does not contain the frame size'
        clip = re.split('[^A-Za-z0-9-]', path.stem)[0]
        raise FrameReadError(f'{path}: the file name {problem}; expected one such as {clip}_176x144.yuv or '
                             f'{clip}_qcif.yuv, or the option frame_size: [height, width] in the data set')
    return found.pop()


def _count_frames(path: Path, size: tuple[int, int]) -> int:
    height, width = size
    if height % 2 or width % 2 or not height * width:
        raise FrameReadError(f'{path}: frames of {height}x{width} (h x w) cannot be 4:2:0, where U and V have half the '
                             'height and half the width; both must be even')
    total, each = path.stat().st_size, _frame_bytes(height, width)
    if not total:
        raise FrameReadError(f'{path}: the file is empty')
    if total % each:
        raise FrameReadError(f'{path}: {total} bytes are not a whole number of frames of {height}x{width} (h x w) with '
                             f'{each} bytes each ({total / each:.2f} frames); the file is truncated, or its frames '
                             'have another size or format than 4:2:0 of 8 bits')
    return total // each
