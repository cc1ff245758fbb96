"""PSNR and SSIM over all three planes of YUV, as in the FISR paper.

Paper: Deep Joint Frame Interpolation and Super-Resolution with a Multi-Scale Temporal Loss (AAAI 2020),
https://arxiv.org/abs/1912.07213.  Official code: https://github.com/JihyongOh/FISR; its SSIM is that of the library
SSIM-PIL.

Both metrics take two frames (H, W, 3), the result and the ground truth, either

* float32 or float64, Y, U, V, 0-1: the paper's protocol, which does not round the network's output; or
* uint8, B, G, R, as BasicSR passes frames to metrics: they are converted to YUV and rounded once more, so scores differ
slightly from the protocol.

The attribute `float_color` names the colour space of float frames. A validation passes such a metric the network's
float output in that space, in place of uint8 frames.
"""
import math

import numpy as np
from basicsr.utils.registry import METRIC_REGISTRY

from ..io.color_spaces import convert_frame
from .metric_util import declare

_TILE = 7  # pixels, side of the tiles for SSIM
_C1, _C2 = (0.01 * 255)**2, (0.03 * 255)**2


@METRIC_REGISTRY.register()
def calculate_fisr_psnr(img: np.ndarray, img2: np.ndarray) -> float:
    """Return the PSNR from one mean squared error over Y, U and V.

    The chroma planes of video are smooth, so values are well above those of RGB or Y alone.

    Args:
        img: the result, (H, W, 3), float YUV or uint8 BGR, see the module docstring. Float values are clipped to 0-1.
        img2: the ground truth, of the same shape and type.

    Returns:
        In dB, higher is better; infinite for equal frames, NaN if the result has NaN.

    Raises:
        ValueError: frames have wrong shapes or types, or the ground truth is outside 0-1.
    """
    img, img2 = _to_yuv(img, img2)
    mse = np.square(np.subtract(img, img2, dtype=np.float64)).mean()
    return math.inf if mse == 0 else float(-10 * np.log10(mse))


@METRIC_REGISTRY.register()
def calculate_fisr_ssim(img: np.ndarray, img2: np.ndarray) -> float:
    """Return the SSIM over non-overlapping tiles of 7x7 pixels, averaged over Y, U and V.

    This differs from the usual SSIM, which slides a Gaussian window of 11x11 over every pixel. Float frames are first
    quantised to 256 levels, by truncation. Variances are population variances. Remaining pixels at the right and bottom
    are ignored.

    Args:
        img: the result, (H, W, 3), float YUV or uint8 BGR, see the module docstring. Float values are clipped to 0-1.
        img2: the ground truth, of the same shape and type.

    Returns:
        -1 to 1, higher is better; 1 for equal frames, NaN if the result has NaN.

    Raises:
        ValueError: frames have wrong shapes or types or are smaller than a tile, or the ground truth is outside 0-1.
    """
    img, img2 = _to_yuv(img, img2)
    if min(img.shape[:2]) < _TILE:
        raise ValueError(f'calculate_fisr_ssim needs frames of at least {_TILE}x{_TILE} pixels, but they are '
                         f'{img.shape[0]}x{img.shape[1]} (h x w)')
    # Integers, and their squares and sums, are exact in float, so the differences below lose no digits.
    x, y = _tiles(np.floor(255 * img)), _tiles(np.floor(255 * img2))
    mean_x, mean_y = _mean(x), _mean(y)
    variances = _mean(x * x) - mean_x**2 + _mean(y * y) - mean_y**2
    covariance = _mean(x * y) - mean_x * mean_y
    ssim = ((2 * mean_x * mean_y + _C1) * (2 * covariance + _C2)
            / ((mean_x**2 + mean_y**2 + _C1) * (variances + _C2)))
    return float(ssim.mean())


declare(calculate_fisr_psnr, float_color='yuv')
declare(calculate_fisr_ssim, float_color='yuv')


def _tiles(plane: np.ndarray) -> np.ndarray:  # (H, W, 3) -> (rows, 7, columns, 7, 3), from the top left
    rows, columns = plane.shape[0] // _TILE, plane.shape[1] // _TILE
    return plane[:_TILE * rows, :_TILE * columns].reshape(rows, _TILE, columns, _TILE, 3)


def _mean(tiles: np.ndarray) -> np.ndarray:  # (rows, 7, columns, 7, 3) -> (rows, columns, 3)
    return tiles.mean(axis=(1, 3), dtype=np.float64)


def _to_yuv(img: np.ndarray, img2: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Check both frames, and convert them to float YUV, 0-1 (in any order of the planes)."""
    if img.shape != img2.shape or img.ndim != 3 or img.shape[2] != 3:
        raise ValueError(f'the metrics of FISR need two frames of the same shape (H, W, 3), but they are {img.shape} '
                         f'and {img2.shape}')
    if img.dtype == img2.dtype == np.uint8:
        # Divide here, in float32: then the levels k / 255 times 255 are exactly k.
        yuv, yuv2 = (convert_frame(frame, 'rgb', 'yuv').astype(np.float32) / 255 for frame in (img, img2))
        return yuv, yuv2
    if not all(frame.dtype in (np.float32, np.float64) for frame in (img, img2)):
        raise ValueError('the metrics of FISR need two frames that are both uint8 (BGR) or both float32 or float64 '
                         f'(YUV, 0-1), but they are {img.dtype} and {img2.dtype}')
    low, high = img2.min(), img2.max()
    if not (0 <= low and high <= 1):
        raise ValueError(f'the metrics of FISR need float frames of 0-1, but the ground truth has {low:g} to {high:g}')
    return np.clip(img, 0, 1), img2
