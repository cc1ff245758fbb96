"""Separate errors for flat and textured pixels, by the local activity W of the ground truth."""
import math
from typing import Literal

import numpy as np
import torch
from basicsr.utils.registry import METRIC_REGISTRY

from ..losses.adaptive_loss import local_activity
from .metric_util import cropped, declare, luma_pair

_NO_SUCH_PIXEL = 1e-9  # mean weight; rounding leaves a frame of one colour a small edge weight


@METRIC_REGISTRY.register()
def calculate_region_error(img: np.ndarray, img2: np.ndarray, *, region: Literal['flat', 'edge'],
                           crop_border: int = 0, theta: float = 500, window: int = 5) -> float:
    """Return the mean squared error of luminance over the flat or the edge pixels of the ground truth.

    The split is soft. With the local activity W, 0 to 1, which also weights the spatially adaptive losses, and e = 255
    (img - img2), the error is

        flat: sum((1 - W) e^2) / sum(1 - W)        edge: sum(W e^2) / sum(W)

    Args:
        img: the result, (H, W, 1), float32 or float64, Y of BT.601 in studio swing divided by 255; or (H, W, 3), uint8
            BGR.
        img2: the ground truth, of the same shape and type; W is computed from its Y.
        region: which pixels count.
        crop_border: pixels to leave out at every side, after W is computed.
        theta, window: of `local_activity`.

    Returns:
        In squared levels of 0-255, lower is better; NaN if the ground truth has no such pixel (a frame of one colour
            has no edge), or the result has NaN.

    Raises:
        ValueError: an argument has an invalid value; frames have wrong shapes or types, or are no larger than the
            border or half the window; or the ground truth is outside 0-1.
    """
    if region not in ('flat', 'edge'):
        raise ValueError(f"calculate_region_error: region must be 'flat' or 'edge', but is {region!r}")
    img, img2 = luma_pair(img, img2, 'calculate_region_error')
    weight = local_activity(torch.from_numpy(img2)[None], mode='activity', window=window, theta=theta)[0].numpy()
    if region == 'flat':
        weight = 1 - weight
    error = np.square(255 * (img - img2))
    weight, error = (cropped(plane, crop_border, 'calculate_region_error') for plane in (weight, error))
    if weight.mean() < _NO_SUCH_PIXEL:
        return math.nan
    return float(np.average(error, weights=weight))


declare(calculate_region_error, float_color='y')
