"""OpenCV's dense inverse search (DIS), optical flow without weights.

Paper: Fast Optical Flow using Dense Inverse Search (ECCV 2016), https://arxiv.org/abs/1603.03590.
"""
import math
from typing import Literal

import cv2
import numpy as np

from ..utils.threads import limit_opencv_in_workers

Preset = Literal['medium', 'fast', 'ultrafast', 'fine']
_PRESETS = {
    'ultrafast': cv2.DISOPTICAL_FLOW_PRESET_ULTRAFAST,
    'fast': cv2.DISOPTICAL_FLOW_PRESET_FAST,
    'medium': cv2.DISOPTICAL_FLOW_PRESET_MEDIUM,
    'fine': cv2.DISOPTICAL_FLOW_PRESET_MEDIUM,  # ours: refines down to full resolution; the others stop at half
}
_PATCH_SIZE = 8  # of all presets
_SMALLEST_SIDE = 12  # OpenCV fails if both sides are shorter


def check_preset(preset: str) -> None:
    """Raise ValueError if the preset is unknown."""
    if preset not in _PRESETS:
        raise ValueError(f'preset must be one of {", ".join(_PRESETS)}, got {preset!r}')


def dis_flow(first: np.ndarray, second: np.ndarray, preset: Preset = 'medium') -> np.ndarray:
    """Estimate the flow from `first` to `second`.

    In DataLoader workers OpenCV uses one thread, like torch.

    Args:
        first, second: uint8 (h, w, 3), BGR, of any size.
        preset: from fast to detailed: 'ultrafast', 'fast', 'medium', 'fine'.

    Returns:
        float32 (h, w, 2), x then y, pixels.
    """
    limit_opencv_in_workers()
    height, width = first.shape[:2]
    padding = max(0, _SMALLEST_SIDE - height), max(0, _SMALLEST_SIDE - width)
    grey = [_to_grey(frame, padding) for frame in (first, second)]
    # Create a new object each time: after a small frame, it keeps the scales chosen for that frame.
    search = cv2.DISOpticalFlow_create(_PRESETS[preset])  # type: ignore[attr-defined]  # missing in OpenCV's stubs
    if preset == 'fine' or _coarsest_scale(*grey[0].shape) < search.getFinestScale():
        # In the second case OpenCV chooses the scales by the width alone, and reads out of bounds for low, wide frames.
        search.setFinestScale(0)
    return search.calc(*grey, None)[:height, :width]


def _to_grey(frame: np.ndarray, padding: tuple[int, int]) -> np.ndarray:
    grey = cv2.cvtColor(frame, cv2.COLOR_BGR2GRAY)
    return cv2.copyMakeBorder(grey, 0, padding[0], 0, padding[1], cv2.BORDER_REPLICATE) if any(padding) else grey


def _coarsest_scale(height: int, width: int) -> int:
    """Return the pyramid level, as the number of halvings, where OpenCV begins (calc in dis_flow.cpp)."""
    by_motion = int(math.log2(max(height, width) / (4 * _PATCH_SIZE)) + 0.5)  # motion of up to a quarter of the frame
    by_patch = int(math.log2(min(height, width) / _PATCH_SIZE))  # a patch must fit
    return min(by_motion, by_patch)
