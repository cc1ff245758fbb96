"""Readers that modify another reader's frames: cached, reduced in size, or in another colour space."""
from collections.abc import Callable

import cv2
import numpy as np

from .color_spaces import Color, convert_frame
from .frames import DerivedReader, FrameReader


class CachedReader(DerivedReader):
    """Cache another reader's frames in memory, separately in each process.

    Args:
        reader: reader of the frames.
        process: function applied to a frame before it is cached, such as making its LR frame; default: none.
    """

    def __init__(self, reader: FrameReader, process: Callable[[np.ndarray], np.ndarray] | None = None):
        super().__init__(reader)
        self._process = process
        self._frames: dict[tuple[str, int], np.ndarray] = {}

    def _read(self, clip: str, index: int) -> np.ndarray:
        if (clip, index) not in self._frames:
            frame = self._reader.frame(clip, index)
            self._frames[clip, index] = frame if self._process is None else self._process(frame)
        return self._frames[clip, index]


class ReducedReader(DerivedReader):
    """Reduce another reader's frames by `area_mean`.

    Args:
        reader: reader of the frames.
        factor: how many times smaller.
    """

    def __init__(self, reader: FrameReader, factor: int):
        super().__init__(reader)
        self.reader, self.factor = reader, factor

    def _read(self, clip: str, index: int) -> np.ndarray:
        return area_mean(self.reader.frame(clip, index), self.factor)

    def frame_size(self, clip: str) -> tuple[int, int]:
        height, width = self.reader.frame_size(clip)
        return height // self.factor, width // self.factor


def area_mean(image: np.ndarray, factor: int) -> np.ndarray:
    """Reduce an image by averaging factor x factor pixels.

    Remaining rows and columns at the bottom and the right are cropped.

    Args:
        image: uint8 or float32 (h, w, C).

    Returns:
        (h // factor, w // factor, C), of the same type; uint8 is rounded.

    Raises:
        ValueError: the image is smaller than factor x factor.
    """
    height, width = (side // factor for side in image.shape[:2])
    if not height * width:
        raise ValueError(f'a frame of {image.shape[0]}x{image.shape[1]} (h x w) cannot be made {factor} times smaller')
    small = cv2.resize(image[:factor * height, :factor * width], (width, height), interpolation=cv2.INTER_AREA)
    return small.reshape(height, width, -1)  # OpenCV drops a single channel


class ColorReader(DerivedReader):
    """Convert another reader's frames to another colour space.

    Args:
        reader: reader of the frames.
        stored, wanted: their colour space, and the one to convert to.
    """

    color: Color

    def __init__(self, reader: FrameReader, stored: Color, wanted: Color):
        super().__init__(reader)
        self._stored, self.color = stored, wanted

    def _read(self, clip: str, index: int) -> np.ndarray:
        return convert_frame(self._reader.frame(clip, index), self._stored, self.color)
