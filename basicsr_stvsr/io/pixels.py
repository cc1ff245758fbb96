"""Convert decoded frames to RGB arrays, and arrays to planes."""
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from .video_info import FULL, LIMITED, SWSCALE_MATRICES, ColorSpec

if TYPE_CHECKING:
    import av

# When swscale widens to 16 bits, it maps white of limited range to 255 * 256. It maps white of full range to as many
# ones as the source has bits, followed by zeros. x + (x >> shift) maps both to 65535.
_LIMITED_SHIFT = 8
_WIDE_RGB = frozenset({'gbrp9le', 'gbrp10le', 'gbrp12le', 'gbrp14le'})  # swscale drops bits of these


class RGBConverter:
    """Convert decoded frames to RGB arrays.

    Args:
        color: meaning of the frames' numbers.
        bits: bits of a component of the frames; selects uint8 or uint16.
        orientation: see `VideoInfo`.
    """

    def __init__(self, color: ColorSpec, bits: int, orientation: tuple[int, int, int, int] = (1, 0, 0, 1)):
        from av.video.reformatter import Interpolation, VideoReformatter

        self._reformatter, self._to_alpha = VideoReformatter(), VideoReformatter()
        # Full-resolution chroma with all bits; swscale's default is off by up to two levels
        self._interpolation = Interpolation.BICUBIC | Interpolation.FULL_CHR_H_INT | Interpolation.ACCURATE_RND
        self._color, self._orientation = color, orientation
        self._dtype: type[np.uint8 | np.uint16]
        self._dtype, self._planar = (np.uint8, 'gbrp') if bits <= 8 else (np.uint16, 'gbrp16le')
        self._bits, self._shift = bits, bits if color.full_range else _LIMITED_SHIFT

    def __call__(self, frame: 'av.VideoFrame') -> np.ndarray:
        """Return (h, w, 3) RGB as shown: a view of contiguous planes (3, h, w), as networks and encoders use it."""
        is_wide_rgb = frame.format.name in _WIDE_RGB
        if not is_wide_rgb:
            # Planes, as packed RGB with full chroma takes swscale four times as long
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
            cv2.add(rows, rows >> self._shift, rows)  # saturates, as values above white may occur
        return self._turned(planes).transpose(1, 2, 0)

    def alpha(self, frame: 'av.VideoFrame') -> np.ndarray:
        """Return the alpha of a frame as shown: (h, w), of the type of its RGB."""
        is_wide = self._dtype == np.uint16
        frame = self._to_alpha.reformat(frame, format='gbrap16le' if is_wide else 'gbrap', threads=1)
        alpha = plane_arrays(frame, self._dtype)[3]
        if is_wide and self._bits < 16:  # swscale widens ones to ones with zeros behind them
            alpha = alpha + (alpha >> self._bits)
        turned: np.ndarray = self._turned(alpha[None])[0]
        return turned

    def _turned(self, planes: np.ndarray) -> np.ndarray:
        a, b, c, d = self._orientation
        if not a:
            planes = planes.swapaxes(1, 2)
        # A row of the turned image now holds pixels of one y (or one x, if swapped), perhaps in reverse order
        planes = planes[:, ::d or b, ::a or c]
        return np.ascontiguousarray(planes)


def plane_arrays(frame: 'av.VideoFrame', dtype: type) -> list[np.ndarray]:
    """Return the planes of a frame as (h, w) arrays of its memory."""
    size = np.dtype(dtype).itemsize
    planes: Any = frame.planes  # buffers, but not in the stubs of PyAV
    return [np.frombuffer(plane, dtype).reshape(-1, plane.line_size // size)[:plane.height, :plane.width]
            for plane in planes]


def planes_of(image: np.ndarray) -> np.ndarray:
    """Return the channels (3, h, w) of an image (h, w, 3), contiguous; not a copy if its memory is already planar."""
    return np.stack(cv2.split(image)) if image.flags.c_contiguous else np.ascontiguousarray(image.transpose(2, 0, 1))


def packed(image: np.ndarray) -> np.ndarray:
    """Return an image (h, w, 3) packed pixel by pixel, contiguous; not a copy if it is already packed."""
    return image if image.flags.c_contiguous else cv2.merge(tuple(planes_of(image)))
