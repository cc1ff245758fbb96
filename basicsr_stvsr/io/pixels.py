"""Frames of a decoder as RGB arrays, and arrays as planes."""
from typing import TYPE_CHECKING

import cv2
import numpy as np

from .video_info import FULL, LIMITED, SWSCALE_MATRICES, ColorSpec

if TYPE_CHECKING:
    import av

# swscale takes white of limited range to 255 * 256 when it widens to 16 bits, and that of full range to as many ones as
# the source has bits, followed by zeros. x + (x >> shift) takes both to 65535.
_LIMITED_SHIFT = 8
_WIDE_RGB = frozenset({'gbrp9le', 'gbrp10le', 'gbrp12le', 'gbrp14le'})  # of which swscale loses bits


class RGBConverter:
    """Makes RGB arrays of decoded frames.

    Args:
        color: what the frames' numbers mean.
        bits: of a component of the frames; decides between uint8 and uint16.
        orientation: see `VideoInfo`.
    """

    def __init__(self, color: ColorSpec, bits: int, orientation: tuple[int, int, int, int] = (1, 0, 0, 1)):
        from av.video.reformatter import Interpolation, VideoReformatter

        self._reformatter = VideoReformatter()
        # Chroma of each pixel, with all bits; the default of swscale is off by up to two levels
        self._interpolation = Interpolation.BICUBIC | Interpolation.FULL_CHR_H_INT | Interpolation.ACCURATE_RND
        self._color, self._orientation = color, orientation
        self._dtype, self._planar = (np.uint8, 'gbrp') if bits <= 8 else (np.uint16, 'gbrp16le')
        self._shift = bits if color.full_range else _LIMITED_SHIFT

    def __call__(self, frame: 'av.VideoFrame') -> np.ndarray:
        """(h, w, 3) RGB as shown; a view of contiguous planes (3, h, w), which networks and encoders take."""
        is_wide_rgb = frame.format.name in _WIDE_RGB
        if not is_wide_rgb:
            # Planes, as swscale makes packed RGB with full chroma four times slower
            frame = self._reformatter.reformat(
                frame, format=self._planar, src_colorspace=SWSCALE_MATRICES.get(self._color.matrix),
                src_color_range=FULL if self._color.full_range else LIMITED, dst_color_range=FULL,
                interpolation=self._interpolation, threads=1)
        green, blue, red = plane_arrays(frame, self._dtype)
        planes = np.stack((red, green, blue))
        if is_wide_rgb:
            planes <<= 16 - self._shift
        if self._dtype == np.uint16 and self._shift < 16:
            rows = planes.reshape(-1, frame.width)
            cv2.add(rows, rows >> self._shift, rows)  # saturates, as whiter than white may come
        return self._turned(planes).transpose(1, 2, 0)

    def _turned(self, planes: np.ndarray) -> np.ndarray:
        a, b, c, d = self._orientation
        if not a:
            planes = planes.swapaxes(1, 2)
        # A row of the turned image now holds what had one y (or one x, if swapped), and may lie in reverse order
        planes = planes[:, ::d or b, ::a or c]
        return np.ascontiguousarray(planes)


def plane_arrays(frame: 'av.VideoFrame', dtype: type) -> list[np.ndarray]:
    """The planes of a frame as (h, w) arrays of its memory."""
    size = np.dtype(dtype).itemsize
    return [np.frombuffer(plane, dtype).reshape(-1, plane.line_size // size)[:plane.height, :plane.width]
            for plane in frame.planes]


def planes_of(image: np.ndarray) -> np.ndarray:
    """The channels (3, h, w) of an image (h, w, 3), contiguous; not a copy where that is how it lies in memory."""
    return np.stack(cv2.split(image)) if image.flags.c_contiguous else np.ascontiguousarray(image.transpose(2, 0, 1))


def packed(image: np.ndarray) -> np.ndarray:
    """An image (h, w, 3), contiguous, pixel by pixel; not a copy where that is how it lies in memory."""
    return image if image.flags.c_contiguous else cv2.merge(tuple(planes_of(image)))
