"""Crops of frames: rectangles in pixels."""
from collections.abc import Sequence

import numpy as np

Crop = tuple[int, int, int, int]  # top, left, bottom, right; the last two are exclusive


def crop_arrays(arrays: Sequence[np.ndarray], crop: Crop) -> list[np.ndarray]:
    """Return the same part of all arrays (h, w, ...), as views."""
    top, left, bottom, right = crop
    return [array[top:bottom, left:right] for array in arrays]


def scale_crop(crop: Crop, scale: int) -> Crop:
    """Convert a crop from LR to HR pixels."""
    top, left, bottom, right = crop
    return scale * top, scale * left, scale * bottom, scale * right


def add_margin(crop: Crop, margin: int, size: tuple[int, int]) -> Crop:
    """Add a margin to a crop, clipped to a frame of `size` (h, w)."""
    top, left, bottom, right = crop
    return max(0, top - margin), max(0, left - margin), min(size[0], bottom + margin), min(size[1], right + margin)


def relative_to(crop: Crop, padded: Crop) -> Crop:
    """Convert a crop to coordinates relative to a crop around it."""
    top, left, bottom, right = crop
    return top - padded[0], left - padded[1], bottom - padded[0], right - padded[1]
