"""Rectangles of frames."""
from collections.abc import Sequence

import numpy as np

Box = tuple[int, int, int, int]  # top, left, bottom, right; the last two are the first pixels outside


def cut(arrays: Sequence[np.ndarray], box: Box) -> list[np.ndarray]:
    """The same part of all (h, w, ...), as views."""
    top, left, bottom, right = box
    return [array[top:bottom, left:right] for array in arrays]


def enlarge(box: Box, scale: int) -> Box:
    """A box of LR pixels in HR ones."""
    top, left, bottom, right = box
    return scale * top, scale * left, scale * bottom, scale * right


def widen(box: Box, margin: int, size: tuple[int, int]) -> Box:
    """A box with a margin around it, as far as a frame of `size` (h, w) has one."""
    top, left, bottom, right = box
    return max(0, top - margin), max(0, left - margin), min(size[0], bottom + margin), min(size[1], right + margin)


def within(box: Box, outer: Box) -> Box:
    """A box in the coordinates of one around it."""
    top, left, bottom, right = box
    return top - outer[0], left - outer[1], bottom - outer[0], right - outer[1]
