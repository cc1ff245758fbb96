"""Rectangles in frames."""
from collections.abc import Sequence

import numpy as np

Box = tuple[int, int, int, int]  # top, left, bottom, right; the last two are exclusive


def cut(arrays: Sequence[np.ndarray], box: Box) -> list[np.ndarray]:
    """Return the same part of all arrays (h, w, ...), as views."""
    top, left, bottom, right = box
    return [array[top:bottom, left:right] for array in arrays]


def enlarge(box: Box, scale: int) -> Box:
    """Convert a box from LR to HR pixels."""
    top, left, bottom, right = box
    return scale * top, scale * left, scale * bottom, scale * right


def widen(box: Box, margin: int, size: tuple[int, int]) -> Box:
    """Add a margin to a box, clipped to a frame of `size` (h, w)."""
    top, left, bottom, right = box
    return max(0, top - margin), max(0, left - margin), min(size[0], bottom + margin), min(size[1], right + margin)


def within(box: Box, outer: Box) -> Box:
    """Convert a box to coordinates relative to a box around it."""
    top, left, bottom, right = box
    return top - outer[0], left - outer[1], bottom - outer[0], right - outer[1]
