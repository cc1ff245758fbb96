"""Scores of the frames of a clip, and their means."""
import inspect
import math
from collections.abc import Mapping
from functools import cached_property
from typing import Any

import numpy as np
from basicsr.metrics import calculate_metric
from basicsr.utils import get_root_logger, tensor2img
from basicsr.utils.registry import METRIC_REGISTRY
from torch import Tensor

from ..color import Color, convert_clip

FrameScores = list[tuple[int, float]]  # (number of the frame, score)


def usable_metrics(metrics: Mapping[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """The metrics that can be computed here, by their names in logs and results; of others the log says why not.

    A metric that rests on more than frames has two functions of its options as attributes: `unusable`, which gives the
    reason where something is missing, else None; and `label`, which names what it rests on, for its name.
    """
    usable = {}
    for name, metric_opt in metrics.items():
        metric = METRIC_REGISTRY.get(metric_opt['type'])
        reason = metric.unusable(metric_opt) if hasattr(metric, 'unusable') else None
        if reason:
            get_root_logger().warning(f'val.metrics.{name} is left out: {reason}')
        else:
            usable[f'{name} ({metric.label(metric_opt)})' if hasattr(metric, 'label') else name] = metric_opt
    return usable


def needs_reference(metric_type: str) -> bool:
    """Whether a metric compares with ground truth, as its parameters say."""
    return 'img2' in inspect.signature(METRIC_REGISTRY.get(metric_type)).parameters


class FramePair:
    """A frame that was made, and the true one, in the forms that metrics take.

    Args:
        frame, gt: (C, H, W), 0-1; gt is None where there is no truth.
        color: their colour space.
    """

    def __init__(self, frame: Tensor, gt: Tensor | None, color: Color):
        self.frame, self.gt, self.color = frame, gt, color

    @cached_property
    def image(self) -> np.ndarray:
        """The frame as BasicSR has images: uint8 (H, W, 3), BGR."""
        return tensor2img(convert_clip(self.frame, self.color, 'rgb'))

    @cached_property
    def gt_image(self) -> np.ndarray:
        return tensor2img(convert_clip(self.gt, self.color, 'rgb'))

    def score(self, metric_opt: dict[str, Any]) -> float:
        """One metric; NaN where it has no value, as NIQE of a flat frame, whose statistics are singular.

        A metric that has an attribute `float_color` gets frames in that colour space as they are: float (H, W, C), 0-1.
        """
        float_color = getattr(METRIC_REGISTRY.get(metric_opt['type']), 'float_color', None)
        has_gt = needs_reference(metric_opt['type'])
        if float_color:
            data = {'img': self.as_array(self.frame, float_color)}
            if has_gt:
                data['img2'] = self.as_array(self.gt, float_color)
        else:
            data = {'img': self.image, 'img2': self.gt_image} if has_gt else {'img': self.image}
        arguments = {name: value for name, value in metric_opt.items() if name != 'better'}
        try:
            return float(calculate_metric(data, arguments))
        except np.linalg.LinAlgError:
            return math.nan

    def as_array(self, image: Tensor, color: Color) -> np.ndarray:  # (C, H, W) -> (H, W, C')
        return convert_clip(image, self.color, color).float().cpu().permute(1, 2, 0).numpy()


def mean(values: list[float]) -> float:
    """Mean of the finite values: equal frames have an infinite PSNR, flat ones no NIQE; NaN where nothing is left."""
    finite = [value for value in values if math.isfinite(value)]
    return sum(finite) / len(finite) if finite else math.nan


def average_groups(values: FrameScores, temporal_scale: int) -> dict[str, float]:
    """Mean score of the given frames, of the frames made between them (odd numbers), and of all."""
    if temporal_scale == 1:
        return {'vsr': mean([score for _, score in values]), 'all': mean([score for _, score in values])}
    return {
        'vsr': mean([score for number, score in values if number % 2 == 0]),
        'vfi': mean([score for number, score in values if number % 2 == 1]),
        'all': mean([score for _, score in values]),
    }
