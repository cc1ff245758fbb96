"""Scores of clips, as a validation of BasicSR's loop has them here, for mmengine's evaluators."""
import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from mmengine.config import ConfigDict
from mmengine.evaluator import BaseMetric
from mmengine.logging import print_log

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


@METRICS.register_module()
class ClipMetrics(BaseMetric):
    """Scores what RecipeModel restores, frame by frame, and means of given frames, of new ones, and of all.

    In the log they are `<name>_vsr`, `<name>_vfi` (where the network makes new frames) and `<name>_all`. Of metrics
    that score but a part of the frames, such as those with a face, `<name>_all_coverage` and so on tell its share.

    Args:
        frame_metrics: `val.metrics` of an option file: name -> {type, arguments}; see docs/metrics.md.
        average: what the mean is over: clips (first within each, then over all) or frames.
        num_worker: processes that compute scores beside this one.
        collect_device: 'cpu' or 'gpu': where results of several processes meet.
        prefix: goes before the names, with a slash.

    Raises:
        ValueError: there is no such metric, or it has no such argument.
    """

    default_prefix = ''  # with None mmengine warns that there is none

    # Not `metrics`, by which mmengine's Runner knows a config of its Evaluator
    def __init__(self, frame_metrics: Mapping[str, Mapping[str, Any]], average: str = 'clips', num_worker: int = 0,
                 collect_device: str = 'cpu', prefix: str | None = None):
        super().__init__(collect_device=collect_device, prefix=prefix)
        options = ValOptions.read({'metrics': ConfigDict(frame_metrics).to_dict(), 'average': average}, 'ClipMetrics.')
        self.scorer, self.average = Scorer(usable_metrics(options.metrics), num_worker), options.average

    def process(self, data_batch: Mapping[str, Any], data_samples: Sequence[dict[str, Any]]) -> None:
        """Scores some clips.

        Args:
            data_batch: their ground truth, as the loader gives it.
            data_samples: what `RecipeModel` made of them.
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
        """Means over the whole set; of single scores that are not finite the log tells how many are left out."""
        if not results:
            return {}
        left_out = sum(not math.isfinite(value) for _, scores in results for name, values in scores.items()
                       for _, value in values if not has_coverage(self.scorer.metrics[name]['type']))
        if left_out:
            print_log(f'{left_out} scores of single frames are not finite and left out of the means', 'current')
        means, temporal_scale = {}, results[0][0]
        for name in results[0][1]:
            clips = [scores[name] for _, scores in results]
            groups = average_clips(clips, temporal_scale, self.average)
            means |= {f'{name}_{group}': value for group, value in groups.items()}
            if has_coverage(self.scorer.metrics[name]['type']):
                shares = coverage([value for values in clips for value in values], temporal_scale)
                means |= {f'{name}_{group}_coverage': share for group, share in shares.items()}
        return means


def metric_builder(name: str, _metric: Callable[..., float]) -> Callable[..., ClipMetrics]:
    """What builds an evaluator of a metric that is a function of two frames."""
    return partial(build_metric, name)


def build_metric(metric_type: str, *, average: str = 'clips', num_worker: int = 0, collect_device: str = 'cpu',
                 prefix: str | None = None, **arguments: Any) -> ClipMetrics:
    """Scores clips by one metric, whose name in the log is its type without 'calculate_'.

    Args:
        metric_type: its type.
        average, num_worker, collect_device, prefix: as `ClipMetrics` takes them.
        arguments: those of the metric.
    """
    name = metric_type.removeprefix('calculate_')
    return ClipMetrics({name: {'type': metric_type, **arguments}}, average, num_worker, collect_device, prefix)
