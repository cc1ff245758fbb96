"""PSNR and SSIM of unrounded luminance by scikit-image, as in the FSTRN paper.

Paper: Fast Spatio-Temporal Residual Network for Video Super-Resolution (CVPR 2019), https://arxiv.org/abs/1904.02870.
Code: https://github.com/lsmale/FSTRN; its evaluation calls scikit-image's functions with a data range of 1.

Both metrics take two frames, the result and the ground truth, either

* float32 or float64, (H, W, 1), Y of BT.601 in studio swing (MATLAB's rgb2ycbcr) divided by 255: the protocol; or
* uint8, (H, W, 3), B, G, R, as BasicSR passes frames to metrics: already rounded, but their Y is not rounded again.

Studio swing spans 219 of the 255 levels of the data range, as in BasicSR's metrics with `test_y_channel`. Results
outside 0-1 are not clipped here; a validation clips them before.
"""
import numpy as np
from basicsr.utils.registry import METRIC_REGISTRY

from .metric_util import cropped, declare, luma_pair

_WINDOW = 7  # pixels, side of the windows for SSIM


@METRIC_REGISTRY.register()
def calculate_float_psnr(img: np.ndarray, img2: np.ndarray, *, crop_border: int = 0) -> float:
    """Return the PSNR of unrounded luminance, by scikit-image.

    Args:
        img: the result, (H, W, 1), float, or (H, W, 3), uint8 BGR, see the module docstring.
        img2: the ground truth, of the same shape and type.
        crop_border: pixels to leave out at every side; none in the protocol.

    Returns:
        In dB, higher is better; infinite for equal frames, NaN if the result has NaN.

    Raises:
        ValueError: frames have wrong shapes or types or are no larger than the border, or the ground truth is outside
            0-1.
    """
    from skimage.metrics import peak_signal_noise_ratio  # here, to keep the import of the package fast

    img, img2 = (cropped(plane, crop_border, 'calculate_float_psnr')
                 for plane in luma_pair(img, img2, 'calculate_float_psnr'))
    with np.errstate(divide='ignore'):  # for equal frames
        return float(peak_signal_noise_ratio(img2, img, data_range=1))


@METRIC_REGISTRY.register()
def calculate_float_ssim(img: np.ndarray, img2: np.ndarray, *, crop_border: int = 0) -> float:
    """Return the SSIM of unrounded luminance, by scikit-image.

    As in the protocol, it uses scikit-image's defaults: uniform windows of 7x7 pixels with sample variances, around
    every pixel where such a window fits. BasicSR's SSIM has Gaussian windows of 11x11.

    Args:
        img: the result, (H, W, 1), float, or (H, W, 3), uint8 BGR, see the module docstring.
        img2: the ground truth, of the same shape and type.
        crop_border: pixels to leave out at every side; none in the protocol.

    Returns:
        -1 to 1, higher is better; 1 for equal frames, NaN if the result has NaN.

    Raises:
        ValueError: frames have wrong shapes or types, or without the border are smaller than a window; or the ground
            truth is outside 0-1.
    """
    from skimage.metrics import structural_similarity  # as above

    img, img2 = (cropped(plane, crop_border, 'calculate_float_ssim')
                 for plane in luma_pair(img, img2, 'calculate_float_ssim'))
    if min(img.shape) < _WINDOW:
        raise ValueError(f'calculate_float_ssim needs frames of at least {_WINDOW}x{_WINDOW} pixels within the border, '
                         f'but they are {img.shape[0]}x{img.shape[1]} (h x w)')
    return float(structural_similarity(img2, img, data_range=1, win_size=_WINDOW))


declare(calculate_float_psnr, float_color='y')
declare(calculate_float_ssim, float_color='y')
