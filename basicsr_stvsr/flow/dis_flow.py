"""Optical flow by OpenCV's DIS, which needs no weights; see `archs.dis`."""
import numpy as np

from ..archs.dis import Preset, check_preset, dis_flow
from ..config.registered import FLOW_REGISTRY
from .base import FlowEstimator


@FLOW_REGISTRY.register()
class DISFlow(FlowEstimator):
    """Estimate flow by OpenCV's dense inverse search on grey frames of any size.

    In DataLoader workers OpenCV uses one thread, like torch.

    Args:
        preset: from fast to detailed: 'ultrafast', 'fast', 'medium', 'fine'.
        upscale: see `FlowEstimator`.

    Raises:
        ValueError: the preset is unknown, or `upscale` is less than 1.
    """

    def __init__(self, *, preset: Preset = 'medium', upscale: int = 1):
        super().__init__(upscale)
        check_preset(preset)
        self.preset = preset

    def estimate(self, first: np.ndarray, second: np.ndarray) -> np.ndarray:
        return dis_flow(first, second, self.preset)
