"""PSNR and SSIM of frames that are not rounded, as the paper FSTRN scores them: on luminance, by scikit-image.

Paper: Fast Spatio-Temporal Residual Network for Video Super-Resolution (CVPR 2019), https://arxiv.org/abs/1904.02870.
Code: https://github.com/lsmale/FSTRN, whose evaluation calls scikit-image's functions, with a data range of 1.

Both metrics take two frames, the result and the ground truth, either

* float32 or float64, (H, W, 1), Y of BT.601 in studio swing (MATLAB's rgb2ycbcr) divided by 255: the protocol; or
* uint8, (H, W, 3), B, G, R, as BasicSR hands frames to metrics: their Y is not rounded, but they have been.

Studio swing spans 219 of the 255 levels that the data range stands for; BasicSR's metrics with `test_y_channel` have it
so, too. Results beyond 0-1 are not clipped here; what a validation hands over has been.
"""
import numpy as np
from basicsr.utils.registry import METRIC_REGISTRY

from .metric_util import cropped, luma_pair

_WINDOW = 7  # pixels, the side of the windows that SSIM compares


@METRIC_REGISTRY.register()
def calculate_float_psnr(img: np.ndarray, img2: np.ndarray, *, crop_border: int = 0) -> float:
    """PSNR of luminance that is not rounded, by scikit-image.

    Args:
        img: the result, (H, W, 1), float, or (H, W, 3), uint8 BGR, see this file's head.
        img2: the ground truth, of the same shape and type.
        crop_border: pixels to leave out at every side; none in the protocol.

    Returns:
        In dB, higher is better; infinite for equal frames, NaN where the result holds NaN.

    Raises:
        ValueError: frames of other shapes or types, no larger than the border, or a ground truth beyond 0-1.
    """
    from skimage.metrics import peak_signal_noise_ratio  # here, because importing the package should not cost that

    img, img2 = (cropped(plane, crop_border, 'calculate_float_psnr')
                 for plane in luma_pair(img, img2, 'calculate_float_psnr'))
    with np.errstate(divide='ignore'):  # of equal frames
        return float(peak_signal_noise_ratio(img2, img, data_range=1))


@METRIC_REGISTRY.register()
def calculate_float_ssim(img: np.ndarray, img2: np.ndarray, *, crop_border: int = 0) -> float:
    """SSIM of luminance that is not rounded, by scikit-image.

    With scikit-image's defaults, as the protocol has it: uniform windows of 7x7 pixels, in which variances are those of
    samples, over every pixel that such a window fits around. BasicSR's SSIM has Gaussian windows of 11x11.

    Args:
        img: the result, (H, W, 1), float, or (H, W, 3), uint8 BGR, see this file's head.
        img2: the ground truth, of the same shape and type.
        crop_border: pixels to leave out at every side; none in the protocol.

    Returns:
        -1 to 1, higher is better; 1 for equal frames, NaN where the result holds NaN.

    Raises:
        ValueError: frames of other shapes or types, without the border smaller than a window, or a ground truth beyond
            0-1.
    """
    from skimage.metrics import structural_similarity  # as above

    img, img2 = (cropped(plane, crop_border, 'calculate_float_ssim')
                 for plane in luma_pair(img, img2, 'calculate_float_ssim'))
    if min(img.shape) < _WINDOW:
        raise ValueError(f'calculate_float_ssim needs frames of at least {_WINDOW}x{_WINDOW} pixels within the border, '
                         f'but they are {img.shape[0]}x{img.shape[1]} (h x w)')
    return float(structural_similarity(img2, img, data_range=1, win_size=_WINDOW))


calculate_float_psnr.float_color = 'y'
calculate_float_ssim.float_color = 'y'
