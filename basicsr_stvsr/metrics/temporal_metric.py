"""Metrics that compare changes between frames with the true ones: tOF, warping error, temporal difference error.

Each scores a frame together with the previous one, of the result and of the ground truth. Scoring passes both, frame by
frame. The score of a clip is the mean over all its frames except the first.

Papers: Learning Temporal Coherence via Self-Supervision for GAN-based Video Generation (TecoGAN, TOG 2020),
https://arxiv.org/abs/1811.09393, for tOF. Learning Blind Video Temporal Consistency (ECCV 2018),
https://arxiv.org/abs/1808.00449, for the warping error. Artistic Style Transfer for Videos (GCPR 2016),
https://arxiv.org/abs/1604.08610, for occlusions. FISR (AAAI 2020), https://arxiv.org/abs/1912.07213, for the last.
"""
import math

import cv2
import numpy as np
from basicsr.utils.registry import METRIC_REGISTRY

from ..flow.dis_flow import DISFlow
from .flicker import flicker
from .metric_util import cropped

# Farneback's method with the settings of TecoGAN's evaluation: a pyramid of 3 levels, each half the size, windows of 15
# pixels, 3 iterations, polynomials over 5 pixels with a Gaussian of 1.2
_FARNEBACK = {'pyr_scale': 0.5, 'levels': 3, 'winsize': 15, 'iterations': 3, 'poly_n': 5, 'poly_sigma': 1.2, 'flags': 0}


@METRIC_REGISTRY.register()
def calculate_tof(img: np.ndarray, img2: np.ndarray, last_img: np.ndarray, last_img2: np.ndarray, *,
                  crop_border: int = 0) -> float:
    """Return tOF: the difference of the motion in the result and in the ground truth, by OpenCV's Farneback method.

    Args:
        img, img2: a frame of the result and of the ground truth, (H, W, 3), uint8, BGR.
        last_img, last_img2: the previous frames.
        crop_border: pixels to leave out at every side, before motion is estimated.

    Returns:
        Mean length of the difference of both flows, pixels; lower is better.

    Raises:
        ValueError: frames have wrong shapes or types, or are no larger than the border.
    """
    frames = _checked('calculate_tof', crop_border, last_img, img, last_img2, img2)
    first, second, first2, second2 = (cv2.cvtColor(frame, cv2.COLOR_BGR2GRAY) for frame in frames)
    flow, flow2 = (
        cv2.calcOpticalFlowFarneback(*pair, None, **_FARNEBACK)  # type: ignore[call-overload]  # the stubs lack None
        for pair in ((first, second), (first2, second2)))
    return float(np.linalg.norm(flow - flow2, axis=-1).mean())


@METRIC_REGISTRY.register()
def calculate_warp_error(img: np.ndarray, img2: np.ndarray, last_img: np.ndarray, last_img2: np.ndarray, *,
                         crop_border: int = 0) -> float:
    """Return the warping error: the difference of a result frame and the previous one, warped along the true motion.

    OpenCV's DIS estimates the motion in the ground truth. Occluded pixels and those at motion boundaries do not count.
    A still or blurred result also has small errors, so read this metric together with PSNR.

    Args:
        img, img2, last_img, last_img2: see `calculate_tof`.
        crop_border: pixels to leave out at every side, after motion is estimated.

    Returns:
        Mean squared difference, of levels of 0-1, over the pixels that count and all channels; lower is better; NaN if
            none counts.

    Raises:
        ValueError: frames have wrong shapes or types, or are no larger than the border.
    """
    img, last_img, img2, last_img2 = _checked('calculate_warp_error', 0, img, last_img, img2, last_img2)
    estimate = DISFlow()
    flow_to_last = estimate(img2, last_img2)
    seen = visible(flow_to_last, estimate(last_img2, img2))
    error = np.square((img.astype(np.float64) - warped(last_img, flow_to_last)) / 255).mean(axis=-1)
    seen, error = (cropped(plane, crop_border, 'calculate_warp_error') for plane in (seen, error))
    return float(error[seen].mean()) if seen.any() else math.nan


@METRIC_REGISTRY.register()
def calculate_temporal_difference(img: np.ndarray, img2: np.ndarray, last_img: np.ndarray, last_img2: np.ndarray, *,
                                  crop_border: int = 0) -> float:
    """Return the temporal difference error of two frames, see `flicker`; FISR's loss minimises it.

    Args:
        img, img2, last_img, last_img2: see `calculate_tof`; or float (H, W, C).
        crop_border: pixels to leave out at every side.

    Returns:
        Mean squared difference of frame differences, in squared levels of the frames (0-255 for uint8); lower is
            better.

    Raises:
        ValueError: frames have wrong shapes, or are no larger than the border.
    """
    clip, gt = (np.stack([cropped(frame, crop_border, 'calculate_temporal_difference') for frame in frames])
                for frames in ((last_img, img), (last_img2, img2)))
    return flicker(clip, gt)


def warped(image: np.ndarray, flow: np.ndarray) -> np.ndarray:
    """Warp an image, (H, W, ...), along a flow, (H, W, 2) pixels: bilinear, as float32; border pixels are repeated."""
    height, width = flow.shape[:2]
    columns, rows = np.meshgrid(np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32))
    return cv2.remap(image.astype(np.float32), columns + flow[..., 0], rows + flow[..., 1], cv2.INTER_LINEAR,
                     borderMode=cv2.BORDER_REPLICATE)


def visible(flow_ab: np.ndarray, flow_ba: np.ndarray) -> np.ndarray:
    """Return the pixels of a that are visible in b and not at a motion boundary (GCPR 2016, eq. 4, 5).

    Args:
        flow_ab, flow_ba: (H, W, 2), pixels.

    Returns:
        (H, W), bool. False for pixels that come from outside b.
    """
    height, width = flow_ab.shape[:2]
    back = warped(flow_ba, flow_ab)
    lengths = np.square(flow_ab).sum(axis=-1)
    consistent = np.square(flow_ab + back).sum(axis=-1) <= 0.01 * (lengths + np.square(back).sum(axis=-1)) + 0.5
    changes = sum(np.square(np.gradient(flow_ab, axis=axis)).sum(axis=-1) for axis in (0, 1))
    smooth = changes <= 0.01 * lengths + 0.002
    columns, rows = np.meshgrid(np.arange(width), np.arange(height))
    x, y = columns + flow_ab[..., 0], rows + flow_ab[..., 1]
    inside = (x >= 0) & (x <= width - 1) & (y >= 0) & (y <= height - 1)
    return consistent & smooth & inside


def _checked(metric: str, border: int, *frames: np.ndarray) -> list[np.ndarray]:
    """Return frames without their borders.

    Raises:
        ValueError: they are not uint8 images of one shape.
    """
    shapes = {frame.shape for frame in frames}
    if len(shapes) > 1 or frames[0].ndim != 3 or any(frame.dtype != np.uint8 for frame in frames):
        found = ', '.join(f'{frame.shape} of {frame.dtype}' for frame in frames)
        raise ValueError(f'{metric} needs frames of the same shape (H, W, 3), uint8 (BGR), but they are {found}')
    return [cropped(frame, border, metric) for frame in frames]
