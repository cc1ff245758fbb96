"""Score the frames of clips, and average the scores."""
import inspect
import math
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import suppress
from functools import cached_property
from queue import Full, Queue
from typing import Any, Literal, NamedTuple, TypedDict

import numpy as np
from basicsr.utils.logger import get_root_logger
from basicsr.utils.registry import METRIC_REGISTRY
from torch import Tensor

from ..io.color_spaces import Color, convert_clip, to_image
from ..metrics.basicsr_replacements import REPLACEMENTS
from ..utils.cpu_memory import keep_freed_memory
from ..utils.processes import prepare_worker, server_context

FrameScores = list[tuple[int, float]]  # (frame number, score)
GroupMeans = dict[str, float]  # 'vsr' (given frames), 'vfi' (interpolated frames), 'all' -> mean score


class MetricFrames(TypedDict, total=False):
    """The frames that a metric takes by name: a result frame, its ground truth, and those of the previous frame.

    Each is uint8 (H, W, 3), BGR; or float (H, W, C), 0-1, for a metric with `float_color`.
    """

    img: np.ndarray
    img2: np.ndarray
    last_img: np.ndarray
    last_img2: np.ndarray


FRAMES: tuple[Literal['img', 'img2'], ...] = 'img', 'img2'
LAST_FRAMES: tuple[Literal['last_img', 'last_img2'], ...] = 'last_img', 'last_img2'


def usable_metrics(metrics: Mapping[str, dict[str, Any] | None]) -> dict[str, dict[str, Any]]:
    """Return the metrics that can run here, by their names in logs and results; log why others cannot.

    A metric that depends on more than frames has two functions of its options as attributes. `unusable` returns the
    reason if something is missing, else None. `label` returns a suffix for its name that says what it depends on.
    """
    usable = {}
    for name, metric_opt in metrics.items():
        if metric_opt is None:  # an option file removed the metric of its base
            continue
        metric = METRIC_REGISTRY.get(metric_opt['type'])
        reason = metric.unusable(metric_opt) if hasattr(metric, 'unusable') else None
        if reason:
            get_root_logger().warning(f'val.metrics.{name} is skipped: {reason}')
        else:
            usable[f'{name} ({metric.label(metric_opt)})' if hasattr(metric, 'label') else name] = metric_opt
    return usable


def parameters_of(metric_type: str) -> set[str]:
    return set(inspect.signature(METRIC_REGISTRY.get(metric_type)).parameters)


def needs_reference(metric_type: str) -> bool:
    """Whether the parameters of a metric include ground truth."""
    return bool(parameters_of(metric_type) & {'img2', 'pairs'})


def needs_order(metric_type: str) -> bool:
    """Whether a metric uses more than one frame at once, so that frames must come in order and without repeats."""
    return bool(parameters_of(metric_type) & {'last_img', 'pairs'})


def has_coverage(metric_type: str) -> bool:
    """Whether a metric scores only frames with certain content, such as faces, and returns NaN for others.

    Such a metric has an attribute of this name. Results then include the share of scored frames.
    """
    return getattr(METRIC_REGISTRY.get(metric_type), 'has_coverage', False)


class FramePair:
    """A restored frame and its ground truth, converted to the formats that metrics take.

    Args:
        frame, gt: (C, H, W), 0-1; gt is None if there is no ground truth.
        color: their colour space.
    """

    def __init__(self, frame: Tensor, gt: Tensor | None, color: Color):
        self.frame, self.gt, self.color = frame, gt, color

    @cached_property
    def image(self) -> np.ndarray:
        """Return the frame in BasicSR's image format: uint8 (H, W, 3), BGR."""
        return to_image(convert_clip(self.frame, self.color, 'rgb'))

    @cached_property
    def gt_image(self) -> np.ndarray:
        assert self.gt is not None  # `data` looks first
        return to_image(convert_clip(self.gt, self.color, 'rgb'))

    def data(self, metric_type: str, last: 'FramePair | None' = None) -> MetricFrames | None:
        """Return the frames that a metric needs; None if its previous frame or ground truth is missing.

        A metric with an attribute `float_color` gets float frames in that colour space, (H, W, C), 0-1, without
        rounding.

        Args:
            last: the previous pair.
        """
        float_color = getattr(METRIC_REGISTRY.get(metric_type), 'float_color', None)
        wanted, data = parameters_of(metric_type), MetricFrames()
        for names, pair in ((FRAMES, self), (LAST_FRAMES, last)):
            for name in names:
                if name not in wanted:
                    continue
                is_truth = name.endswith('2')
                frame = None if pair is None else pair.gt if is_truth else pair.frame
                if pair is None or frame is None:
                    return None
                if float_color:
                    data[name] = pair.as_array(frame, float_color)
                else:
                    data[name] = pair.gt_image if is_truth else pair.image
        return data

    def as_array(self, image: Tensor, color: Color) -> np.ndarray:  # (C, H, W) -> (H, W, C')
        return convert_clip(image, self.color, color).float().cpu().permute(1, 2, 0).numpy()


class Task(NamedTuple):
    """A score of a frame to compute."""

    name: str  # of the metric in the log
    metric: Callable[..., float]
    data: MetricFrames
    options: Mapping[str, Any]


def arguments_of(metric_opt: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options that are passed to the metric."""
    return {name: value for name, value in metric_opt.items() if name not in ('type', 'better')}


def compute(tasks: Sequence[Task]) -> dict[str, float]:
    """Compute the scores of a frame; NaN where a metric has none."""
    return {name: float(metric(**data, **options)) for name, metric, data, options in tasks}


class Scorer:
    """Score clips frame by frame.

    Args:
        metrics: name -> options, as returned by `usable_metrics`.
        num_worker: additional processes that compute scores; 0: compute them in this process. They start with the first
            clip, and end with this process or with `close`.
    """

    def __init__(self, metrics: Mapping[str, Mapping[str, Any]], num_worker: int = 0):
        self.metrics, self.num_worker = dict(metrics), num_worker
        self._pool: ProcessPoolExecutor | None = None

    def clip(self, *, has_truth: bool) -> 'ClipScorer':
        """Start a clip.

        Args:
            has_truth: whether there is ground truth; otherwise only metrics that need none are computed.
        """
        if self.num_worker and self._pool is None:
            self._pool = ProcessPoolExecutor(
                self.num_worker, mp_context=server_context(__name__), initializer=_prepare_worker)
        metrics = {name: opt for name, opt in self.metrics.items() if has_truth or not needs_reference(opt['type'])}
        return ClipScorer(metrics, self._pool, 2 * self.num_worker)

    def close(self) -> None:
        """Shut down the processes."""
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)
            self._pool = None


def _prepare_worker() -> None:
    prepare_worker()
    keep_freed_memory()


class ClipScorer:
    """Score the frames of one clip, see `Scorer`; a context manager.

    Args:
        metrics: name -> options.
        pool: processes that compute the scores; None: this process.
        num_waiting: maximum number of queued frames; `add` blocks when the queue is full.
    """

    def __init__(self, metrics: Mapping[str, Mapping[str, Any]], pool: ProcessPoolExecutor | None, num_waiting: int):
        self._pool, self._num_waiting = pool, num_waiting
        self._of_frames = {name: opt for name, opt in metrics.items() if 'pairs' not in parameters_of(opt['type'])}
        self._of_clip = {name: _ClipThread(METRIC_REGISTRY.get(opt['type']), arguments_of(opt))
                         for name, opt in metrics.items() if name not in self._of_frames}
        self._scores: dict[str, FrameScores] = {name: [] for name in metrics}
        self._waiting: deque[tuple[int, Future[Any]]] = deque()
        self._numbers: list[int] = []  # of frames passed to clip metrics
        self._last: FramePair | None = None

    def add(self, number: int, pair: FramePair) -> None:
        """Add the next frame, with its number in the clip."""
        tasks = []
        for name, opt in self._of_frames.items():
            data = pair.data(opt['type'], self._last)
            if data is not None:
                metric = METRIC_REGISTRY.get(opt['type'])
                tasks.append(Task(name, REPLACEMENTS.get(metric, metric), data, arguments_of(opt)))
        if self._of_clip and pair.gt is not None:
            self._numbers.append(number)
            for thread in self._of_clip.values():
                thread.add((pair.image, pair.gt_image))
        self._last = pair
        if self._pool is None:
            self._keep(number, compute(tasks))
        else:
            self._waiting.append((number, self._pool.submit(compute, tasks)))
            while len(self._waiting) > self._num_waiting:
                self._keep_first()

    def result(self) -> dict[str, FrameScores]:
        """Return metric name -> (frame number, score) for every frame with a score."""
        while self._waiting:
            self._keep_first()
        for name, thread in self._of_clip.items():
            self._scores[name] = list(zip(self._numbers, thread.result(), strict=True))
        return self._scores

    def _keep_first(self) -> None:
        number, scores = self._waiting.popleft()
        self._keep(number, scores.result())

    def _keep(self, number: int, scores: Mapping[str, float]) -> None:
        for name, score in scores.items():
            self._scores[name].append((number, score))

    def __enter__(self) -> 'ClipScorer':
        return self

    def __exit__(self, *exc_info: object) -> None:
        for thread in self._of_clip.values():
            thread.end()


class _ClipThread:
    """Run a metric of whole clips in a thread, which receives frames as they arrive."""

    def __init__(self, metric: Callable[..., list[float]], options: Mapping[str, Any]):
        self._frames: Queue[tuple[np.ndarray, np.ndarray] | None] = Queue(2)
        self._pool = ThreadPoolExecutor(1)
        self._scores = self._pool.submit(lambda: metric(iter(self._frames.get, None), **options))

    def add(self, pair: tuple[np.ndarray, np.ndarray] | None) -> None:
        while not self._scores.done():  # the metric may have failed, and accept no more
            with suppress(Full):
                self._frames.put(pair, timeout=1)
                return

    def result(self) -> list[float]:
        self.add(None)
        return self._scores.result()

    def end(self) -> None:
        self.add(None)
        self._pool.shutdown()


def digits(score: float) -> str:
    """Format a score with four decimals, or small ones with three significant digits."""
    return f'{score:.4f}' if abs(score) >= 0.01 or not score else f'{score:.3g}'


def mean(values: list[float]) -> float:
    """Return the mean of finite values, or NaN without any. Equal frames have infinite PSNR, and flat ones no NIQE."""
    finite = [value for value in values if math.isfinite(value)]
    return sum(finite) / len(finite) if finite else math.nan


def average_groups(values: FrameScores, temporal_scale: int) -> GroupMeans:
    """Return mean scores of the given frames, the interpolated frames (odd numbers), and all frames."""
    if temporal_scale == 1:
        return {'vsr': mean([score for _, score in values]), 'all': mean([score for _, score in values])}
    return {
        'vsr': mean([score for number, score in values if number % 2 == 0]),
        'vfi': mean([score for number, score in values if number % 2 == 1]),
        'all': mean([score for _, score in values]),
    }


def average_clips(clips: Sequence[FrameScores], temporal_scale: int, rule: Literal['clips', 'frames']) -> (
        GroupMeans):
    """Return the mean score of a metric over a data set, by group as in `average_groups`.

    Args:
        clips: the scores of each clip.
        rule: 'clips': average over the frames of each clip, then over clips; 'frames': average over all frames.
    """
    if rule == 'frames':
        return average_groups([value for values in clips for value in values], temporal_scale)
    means = [average_groups(values, temporal_scale) for values in clips]
    return {group: mean([each[group] for each in means]) for group in means[0]}


def coverage(values: FrameScores, temporal_scale: int) -> GroupMeans:
    """Return the share of frames with a score, 0 to 1, by group as in `average_groups`; NaN for an empty group."""
    return average_groups([(number, float(not math.isnan(score))) for number, score in values], temporal_scale)
