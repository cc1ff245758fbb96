"""Scores of the frames of a clip, and their means."""
import inspect
import math
from typing import Any

import numpy as np
from basicsr.metrics import calculate_metric
from basicsr.utils.registry import METRIC_REGISTRY

FrameScores = list[tuple[int, float]]  # (number of the frame, score)


def needs_reference(metric_type: str) -> bool:
    """Whether a metric compares with ground truth, as its parameters say."""
    return 'img2' in inspect.signature(METRIC_REGISTRY.get(metric_type)).parameters


def score(data: dict[str, np.ndarray], metric_opt: dict[str, Any]) -> float:
    """One metric of one frame; NaN where it has no value, as NIQE of a flat frame, whose statistics are singular."""
    try:
        return float(calculate_metric(data, metric_opt))
    except np.linalg.LinAlgError:
        return math.nan


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
