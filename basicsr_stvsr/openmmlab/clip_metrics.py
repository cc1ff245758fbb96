"""Score clips for mmengine's evaluators, as validation in this package's BasicSR loop does."""
import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, TypedDict

from mmengine.config import ConfigDict
from mmengine.evaluator import BaseMetric
from mmengine.logging import print_log
from torch import Tensor

from ..config.options import ValOptions
from ..evaluation.clip_scores import (
    FramePair,
    FrameScores,
    Scorer,
    average_clips,
    coverage,
    has_coverage,
    usable_metrics,
)
from ..registry import METRICS


class RestoredClip(TypedDict):
    """What RecipeModel returns for a clip."""

    frames: list[tuple[int, Tensor]]  # number and (C, H, W), 0-1, on the CPU
    temporal_scale: int


@METRICS.register_module()
class ClipMetrics(BaseMetric):
    """Score the output of RecipeModel frame by frame, and average over given frames, new frames, and all frames.

    The log has `<name>_vsr`, `<name>_vfi` (if the network makes new frames) and `<name>_all`. For metrics that score
    only some frames, such as those with a face, `<name>_all_coverage` and so on give their share.

    Args:
        frame_metrics: `val.metrics` of an option file: name -> {type, arguments}; see docs/metrics.md.
        average: 'clips' averages within each clip, then over clips; 'frames' averages over all frames.
        num_worker: additional processes that compute scores.
        collect_device: 'cpu' or 'gpu': where results of several processes are gathered.
        prefix: prepended to the names, with a slash.

    Raises:
        ValueError: an unknown metric or argument.
    """

    default_prefix = ''  # with None, mmengine warns that it is missing

    # Not `metrics`, which mmengine's Runner takes as the sign of an Evaluator config
    def __init__(self, frame_metrics: Mapping[str, Mapping[str, Any]], average: str = 'clips', num_worker: int = 0,
                 collect_device: str = 'cpu', prefix: str | None = None):
        super().__init__(collect_device=collect_device, prefix=prefix)
        options = ValOptions.read({'metrics': ConfigDict(frame_metrics).to_dict(), 'average': average}, 'ClipMetrics.')
        chosen = {name: metric for name, metric in options.metrics.items() if metric is not None}
        self.scorer, self.average = Scorer(usable_metrics(chosen), num_worker), options.average

    def process(self, data_batch: Mapping[str, Any], data_samples: Sequence[RestoredClip]) -> None:
        """Score some clips.

        Args:
            data_batch: their ground truth, from the loader.
            data_samples: output of `RecipeModel`.
        """
        color = (self.dataset_meta or {}).get('color', 'rgb')
        for i, sample in enumerate(data_samples):
            start = int(data_batch['gt_start'][i]) if 'gt_start' in data_batch else 0
            gt = dict(enumerate(data_batch['gt'][i], start=start)) if 'gt' in data_batch else {}
            with self.scorer.clip(has_truth=bool(gt)) as scorer:
                for number, frame in sample['frames']:
                    scorer.add(number, FramePair(frame, gt.get(number), color))
                self.results.append((sample['temporal_scale'], scorer.result()))

    def compute_metrics(self, results: list[tuple[int, dict[str, FrameScores]]]) -> dict[str, float]:
        """Return means over the whole set; log how many scores are left out because they are not finite."""
        if not results:
            return {}
        left_out = sum(not math.isfinite(value) for _, scores in results for name, values in scores.items()
                       for _, value in values if not has_coverage(self.scorer.metrics[name]['type']))
        if left_out:
            print_log(f'{left_out} scores of single frames are not finite and are left out of the means', 'current')
        means: dict[str, float] = {}
        temporal_scale = results[0][0]
        for name in results[0][1]:
            clips = [scores[name] for _, scores in results]
            groups = average_clips(clips, temporal_scale, self.average)
            means |= {f'{name}_{group}': value for group, value in groups.items()}
            if has_coverage(self.scorer.metrics[name]['type']):
                shares = coverage([value for values in clips for value in values], temporal_scale)
                means |= {f'{name}_{group}_coverage': share for group, share in shares.items()}
        return means


def metric_builder(name: str, _metric: Callable[..., float]) -> Callable[..., ClipMetrics]:
    """Return a function that builds an evaluator for a metric of two frames."""
    return partial(build_metric, name)


def build_metric(metric_type: str, *, average: str = 'clips', num_worker: int = 0, collect_device: str = 'cpu',
                 prefix: str | None = None, **arguments: Any) -> ClipMetrics:
    """Build an evaluator for one metric; its name in the log is its type without 'calculate_'.

    Args:
        metric_type: type of the metric.
        average, num_worker, collect_device, prefix: see `ClipMetrics`.
        arguments: of the metric.
    """
    name = metric_type.removeprefix('calculate_')
    return ClipMetrics({name: {'type': metric_type, **arguments}}, average, num_worker, collect_device, prefix)
