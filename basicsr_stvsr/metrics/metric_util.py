"""Helpers of metrics that compare two frames: conversion to luminance, border cropping, and what they need."""
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from basicsr.metrics.metric_util import to_y_channel

from ..io.color_spaces import Color


def luma_pair(img: np.ndarray, img2: np.ndarray, metric: str) -> tuple[np.ndarray, np.ndarray]:
    """Check two frames, and convert them to luminance: Y of BT.601 in studio swing, divided by 255.

    Args:
        img: the result, (H, W, 1), float32 or float64, Y / 255; or (H, W, 3), uint8, B, G, R, whose Y is not rounded.
        img2: the ground truth, of the same shape and type.
        metric: name of the metric, for messages.

    Returns:
        Both as float64 (H, W). The result is not clipped, and may have NaN.

    Raises:
        ValueError: frames have wrong shapes or types, or the ground truth is outside 0-1.
    """
    is_bgr = img.dtype == img2.dtype == np.uint8
    is_luma = all(frame.dtype in (np.float32, np.float64) for frame in (img, img2))
    shape = ('H', 'W', 3 if is_bgr else 1)
    if img.shape != img2.shape or img.ndim != 3 or img.shape[2] != shape[2] or not (is_bgr or is_luma):
        raise ValueError(f'{metric} needs two frames of the same shape, both (H, W, 1) of float32 or float64 (Y / 255) '
                         f'or both (H, W, 3) of uint8 (BGR), but they are {img.shape} of {img.dtype} and {img2.shape} '
                         f'of {img2.dtype}')
    if is_bgr:
        img, img2 = (to_y_channel(frame) / 255 for frame in (img, img2))
    low, high = img2.min(), img2.max()
    if not (0 <= low and high <= 1):
        raise ValueError(f'{metric} needs luminance of 0-1, but the ground truth has {low:g} to {high:g}')
    return img[..., 0].astype(np.float64), img2[..., 0].astype(np.float64)


def declare(metric: Callable[..., Any], *, float_color: Color | None = None, has_coverage: bool = False,
            unusable: Callable[[Mapping[str, Any]], str | None] | None = None,
            label: Callable[[Mapping[str, Any]], str] | None = None) -> None:
    """Set the attributes of a metric that `evaluation.clip_scores` reads.

    Args:
        float_color: the metric takes float frames in this colour space.
        has_coverage: it scores only some frames, and returns NaN for others.
        unusable: returns the reason why it cannot run with its options, if any.
        label: returns a suffix for its name that says what it depends on.
    """
    traits = {'float_color': float_color, 'has_coverage': has_coverage, 'unusable': unusable, 'label': label}
    vars(metric).update({name: value for name, value in traits.items() if value})


def cropped(frame: np.ndarray, border: int, metric: str) -> np.ndarray:  # (H, W, ...) -> (H - 2b, W - 2b, ...)
    """Crop `border` pixels from every side.

    Raises:
        ValueError: nothing is left, or the border is negative.
    """
    height, width = frame.shape[:2]
    if not 0 <= 2 * border < min(height, width):
        raise ValueError(f'{metric} cannot crop a border of {border} pixels from frames of {height}x{width} (h x w)')
    return frame[border:height - border, border:width - border]
