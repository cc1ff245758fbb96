"""Optical flow by OpenCV's DIS, which needs no weights.

Paper: Fast Optical Flow using Dense Inverse Search (ECCV 2016), https://arxiv.org/abs/1603.03590.
"""
import math
from typing import Literal

import cv2
import numpy as np

from ..utils.threads import limit_opencv_in_workers
from .base import FLOW_REGISTRY, FlowEstimator

_PRESETS = {
    'ultrafast': cv2.DISOPTICAL_FLOW_PRESET_ULTRAFAST,
    'fast': cv2.DISOPTICAL_FLOW_PRESET_FAST,
    'medium': cv2.DISOPTICAL_FLOW_PRESET_MEDIUM,
    'fine': cv2.DISOPTICAL_FLOW_PRESET_MEDIUM,  # ours: down to the frame's own pixels, where the others stop at half
}
_PATCH_SIZE = 8  # of all presets
_SMALLEST_SIDE = 12  # OpenCV refuses frames whose sides are both shorter


@FLOW_REGISTRY.register()
class DISFlow(FlowEstimator):
    """OpenCV's dense inverse search, on grey frames of any size.

    In DataLoader workers OpenCV is kept to one thread, as torch is there.

    Args:
        preset: 'medium'; with less detail and faster 'fast' and 'ultrafast', with more detail and slower 'fine'.
        upscale: see `FlowEstimator`.

    Raises:
        ValueError: another preset, or an `upscale` less than 1.
    """

    def __init__(self, *, preset: Literal['medium', 'fast', 'ultrafast', 'fine'] = 'medium', upscale: int = 1):
        super().__init__(upscale)
        if preset not in _PRESETS:
            raise ValueError(f'preset must be one of {", ".join(_PRESETS)}, got {preset!r}')
        self.preset = preset

    def estimate(self, first: np.ndarray, second: np.ndarray) -> np.ndarray:
        limit_opencv_in_workers()
        height, width = first.shape[:2]
        padding = max(0, _SMALLEST_SIDE - height), max(0, _SMALLEST_SIDE - width)
        grey = [_to_grey(frame, padding) for frame in (first, second)]
        # A new one each time, as one that has seen a small frame keeps the scales that it chose for it.
        search = cv2.DISOpticalFlow_create(_PRESETS[self.preset])
        if self.preset == 'fine' or _coarsest_scale(*grey[0].shape) < search.getFinestScale():
            # In the second case OpenCV chooses the scales by the width alone, and reads beyond the memory of low, wide
            # frames.
            search.setFinestScale(0)
        return search.calc(*grey, None)[:height, :width]


def _to_grey(frame: np.ndarray, padding: tuple[int, int]) -> np.ndarray:
    grey = cv2.cvtColor(frame, cv2.COLOR_BGR2GRAY)
    return cv2.copyMakeBorder(grey, 0, padding[0], 0, padding[1], cv2.BORDER_REPLICATE) if any(padding) else grey


def _coarsest_scale(height: int, width: int) -> int:
    """The level of the pyramid, with sides halved so often, at which OpenCV begins (calc in dis_flow.cpp)."""
    by_motion = int(math.log2(max(height, width) / (4 * _PATCH_SIZE)) + 0.5)  # motion of up to a quarter of the frame
    by_patch = int(math.log2(min(height, width) / _PATCH_SIZE))  # a patch must fit in
    return min(by_motion, by_patch)
