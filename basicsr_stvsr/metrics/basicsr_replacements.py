"""Replacements of BasicSR's metric functions: faster, or defined where BasicSR's fail, with the same numbers."""
import math
from collections.abc import Callable
from typing import Any

import numpy as np
from basicsr.metrics import niqe as basicsr_niqe
from basicsr.metrics import psnr_ssim as basicsr_metrics

from .psnr_ssim import calculate_psnr, calculate_ssim

_NIQE_BLOCK = 96  # pixels


def calculate_niqe(img: np.ndarray, crop_border: int, input_order: str = 'HWC', convert_to: str = 'y') -> float:
    """Return BasicSR's NIQE, or NaN for flat frames and for frames smaller than its block of 96x96 pixels.

    Args:
        img: the result, uint8, BGR, in `input_order`: 'HWC', 'CHW' or 'HW'.
        crop_border: pixels to leave out at every side.
        convert_to: 'y' or 'gray'.

    Returns:
        lower is better.
    """
    sides = img.shape[1:] if input_order == 'CHW' else img.shape[:2]
    if min(sides) - 2 * crop_border < _NIQE_BLOCK:
        return math.nan
    try:
        return float(basicsr_niqe.calculate_niqe(img, crop_border, input_order, convert_to))
    except np.linalg.LinAlgError:  # its statistics are singular
        return math.nan


REPLACEMENTS: dict[Callable[..., Any], Callable[..., float]] = {
    basicsr_metrics.calculate_psnr: calculate_psnr,
    basicsr_metrics.calculate_ssim: calculate_ssim,
    basicsr_niqe.calculate_niqe: calculate_niqe,
}
