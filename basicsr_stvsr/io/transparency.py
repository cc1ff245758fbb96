"""Transparent pixels: fill in the colours below them, or lay them over a background."""
from collections.abc import Iterator, Sequence
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from .frame_source import Notes, Source, TimedFrame
from .video_info import VideoInfo

Background = tuple[int, int, int]  # RGB, 0-255
BLACK: Background = (0, 0, 0)
NUM_CHECKED = 500  # frames of a source, at most, to find out whether some are transparent


def finished(image: np.ndarray, alpha: np.ndarray | None, time: Fraction, info: VideoInfo, notes: Notes) -> np.ndarray:
    """Return the frame of a source: RGBA (h, w, 4) if its `info` has alpha, else RGB (h, w, 3).

    Files hold any colours below transparent pixels, often black. Enlarging would mix these into visible pixels, so they
    become like the visible ones nearby.

    Args:
        image: (h, w, 3) RGB, uint8 or uint16.
        alpha: (h, w), of the same type; None: the frame is opaque.
    """
    if not info.has_alpha and alpha is None:
        return image
    if alpha is None:
        alpha = np.full(image.shape[:2], np.iinfo(image.dtype).max, image.dtype)
    frame = np.stack([*cv2.split(_filled(image, alpha)), alpha]).transpose(1, 2, 0)  # planar, see `TimedFrame`
    if info.has_alpha:
        return frame
    if not notes.has('alpha'):
        notes.add('alpha', f'the frame at {float(time):.3f} s is the first with transparent pixels; they are laid '
                  'over black')
    return laid_over(BLACK, frame)


def _filled(image: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """Return the image with other colours where alpha is 0: means of visible pixels, at the finest scale with some."""
    if alpha.all() or not alpha.any():
        return image
    weight = alpha.astype(np.float32)
    levels: list[Any] = [(image * weight[..., None], weight)]  # from fine to coarse
    while not levels[-1][1].all():
        size = tuple((side + 1) // 2 for side in levels[-1][1].shape[::-1])
        levels.append([cv2.resize(plane, size, interpolation=cv2.INTER_AREA) for plane in levels[-1]])
    filled: Any = levels[-1][0] / levels[-1][1][..., None]
    for colour, weight in reversed(levels[:-1]):
        filled = cv2.resize(filled, weight.shape[::-1], interpolation=cv2.INTER_LINEAR)
        is_visible = weight > 0
        filled[is_visible] = colour[is_visible] / weight[is_visible, None]
    return np.where(alpha[..., None] > 0, image, filled.round().astype(image.dtype))


def laid_over(background: Background, image: np.ndarray) -> np.ndarray:
    """Lay an RGBA image (h, w, 4), uint8 or uint16, over a colour; return RGB (h, w, 3)."""
    white = np.iinfo(image.dtype).max
    ground = np.array(background, np.float32) * (white / 255)
    alpha = image[..., 3:] / np.float32(white)
    blended: np.ndarray = ground + (image[..., :3] - ground) * alpha
    return blended.round().astype(image.dtype)


class Opaque:
    """The frames of a source with transparent pixels, laid over a colour. Closing it closes the source."""

    def __init__(self, source: Source, background: Background):
        self._source, self._background = source, background
        self.info, self.notes = replace(source.info, has_alpha=False), source.notes
        self.reading = f'{source.reading}, over {background}'

    @property
    def files(self) -> Sequence[Path]:
        return self._source.files

    def frames(self, start: Fraction | None = None) -> Iterator[TimedFrame[np.ndarray]]:
        for image, time in self._source.frames(start):
            yield TimedFrame(laid_over(self._background, image), time)

    def times(self, start: Fraction | None = None) -> Iterator[Fraction]:
        return self._source.times(start)

    def close(self) -> None:
        self._source.close()

    def __enter__(self) -> 'Opaque':
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()


def opaque(source: Source, background: Background) -> Source:
    """Return a source whose frames are RGB, with transparent pixels, if any, laid over a colour."""
    return Opaque(source, background) if source.info.has_alpha else source
