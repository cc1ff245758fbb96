"""Faster versions of BasicSR's PSNR and SSIM, equal to 1e-6; scoring uses them in place of BasicSR's.

BasicSR filters each channel five times by a window of 11x11 pixels, in double precision. Here the window is split into
two filters of 11 pixels, and all channels are filtered at once. Only the sum of the variances is computed. An image is
processed in strips that fit into the processor's cache.
"""
import math

import cv2
import numpy as np
from basicsr.metrics.metric_util import reorder_image, to_y_channel

_WINDOW, _SIGMA = 11, 1.5  # pixels
_STRIP = 64  # rows
_C1, _C2 = (0.01 * 255)**2, (0.03 * 255)**2


def calculate_psnr(img: np.ndarray, img2: np.ndarray, crop_border: int, input_order: str = 'HWC',
                   test_y_channel: bool = False) -> float:
    """Return the PSNR of images of 0-255.

    Args:
        img: the result, (H, W, 3), BGR, or (H, W).
        img2: the ground truth, of the same shape.
        crop_border: pixels to leave out at every side.
        input_order: 'HWC' or 'CHW'.
        test_y_channel: use Y of BT.601 in studio swing, without rounding.

    Returns:
        In dB, higher is better; infinite for equal images.

    Raises:
        ValueError: images have wrong shapes, or are no larger than the border.
    """
    img, img2 = _prepared(img, img2, crop_border, input_order, test_y_channel)
    if img.dtype == img2.dtype == np.uint8:
        error = cv2.norm(_flat(img), _flat(img2), cv2.NORM_L2SQR) / img.size
    else:
        error = float(np.mean(np.square(np.subtract(img, img2, dtype=np.float64))))
    return 10 * math.log10(255**2 / error) if error else math.inf


def calculate_ssim(img: np.ndarray, img2: np.ndarray, crop_border: int, input_order: str = 'HWC',
                   test_y_channel: bool = False) -> float:
    """Return the SSIM of images of 0-255, by Gaussian windows of 11x11 pixels that are entirely within the image.

    Paper: Image Quality Assessment: From Error Visibility to Structural Similarity (IEEE TIP 2004).

    Args:
        img, img2, crop_border, input_order, test_y_channel: see `calculate_psnr`.

    Returns:
        -1 to 1, the mean over channels; higher is better.

    Raises:
        ValueError: images have wrong shapes, or without the border are smaller than a window.
    """
    img, img2 = _prepared(img, img2, crop_border, input_order, test_y_channel)
    if min(img.shape[:2]) < _WINDOW:
        raise ValueError(f'calculate_ssim needs images of at least {_WINDOW}x{_WINDOW} pixels within the border, but '
                         f'they are {img.shape[0]}x{img.shape[1]} (h x w)')
    strips = [_ssim(img[top:top + _STRIP + _WINDOW - 1], img2[top:top + _STRIP + _WINDOW - 1])
              for top in range(0, img.shape[0] - _WINDOW + 1, _STRIP)]
    return float(np.concatenate(strips).mean())


def _prepared(img: np.ndarray, img2: np.ndarray, border: int, order: str, luma: bool) -> tuple[np.ndarray, np.ndarray]:
    """Return both images as (H, W, C), cropped, and converted to Y if asked."""
    if img.shape != img2.shape:
        raise ValueError(f'Image shapes are different: {img.shape}, {img2.shape}.')
    images = []
    for image in (img, img2):
        image = reorder_image(image, input_order=order)
        if not 0 <= 2 * border < min(image.shape[:2]):
            raise ValueError(f'cannot crop a border of {border} pixels from images of {image.shape[0]}x'
                             f'{image.shape[1]} (h x w)')
        image = image[border:image.shape[0] - border, border:image.shape[1] - border]
        images.append(to_y_channel(image) if luma else image)
    first, second = images
    return first, second


def _ssim(img: np.ndarray, img2: np.ndarray) -> np.ndarray:  # (H, W, C) -> (H - 10, W - 10[, C])
    """Return the SSIM of every window."""
    first, second = _flat(img).astype(np.float64), _flat(img2).astype(np.float64)
    mean1, mean2 = _smoothed(first), _smoothed(second)
    product, squares = mean1 * mean2, mean1 * mean1 + mean2 * mean2
    covariance = _smoothed(first * second) - product
    variances = _smoothed(first * first + second * second) - squares
    return (2 * product + _C1) * (2 * covariance + _C2) / ((squares + _C1) * (variances + _C2))


def _flat(image: np.ndarray) -> np.ndarray:  # OpenCV drops the last axis of (H, W, 1)
    return image[..., 0] if image.shape[2] == 1 else image


def _smoothed(image: np.ndarray) -> np.ndarray:  # (H, W, ...) -> (H - 10, W - 10, ...)
    window, half = cv2.getGaussianKernel(_WINDOW, _SIGMA), _WINDOW // 2
    return cv2.sepFilter2D(image, -1, window, window)[half:-half, half:-half]
