"""Restore and score whole clips, in validation and testing.

Shapes: T frames in, U frames out, H x W pixels of the LR grid, s = scale.
"""
import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from os import path as osp
from typing import TYPE_CHECKING, Any, Literal, TypedDict, cast

import numpy as np
import torch
from basicsr.models.sr_model import SRModel
from basicsr.utils import get_root_logger, imwrite
from basicsr.utils.dist_util import get_dist_info
from torch import Tensor, nn
from torch.utils.data import DataLoader

from ..archs.resize import upscale_bicubic
from ..archs.spec import check_color, spec_of
from ..data.items import Clip
from ..data.sample_order import BuiltDataset, SizedDataset
from ..evaluation.clip_scores import (
    FramePair,
    FrameScores,
    GroupMeans,
    Scorer,
    average_clips,
    average_groups,
    coverage,
    digits,
    has_coverage,
    needs_order,
    usable_metrics,
)
from ..evaluation.visuals import Sample, sample_numbers, write_images
from ..inference.precision import PRECISIONS
from ..inference.scene_cuts import find_cuts
from ..inference.tiles import Tiles, Tiling
from ..inference.windows import frames_of_clip, is_finite, restore_frames, restore_windows
from ..io.color_spaces import Color, convert_clip, to_image
from ..io.saved_frames import SavedFrames
from ..utils.atomic_files import replace_file
from ..utils.distributed import gather
from ..utils.json_files import finite_or_null
from ..utils.progress import progress_bar
from .batch import NonFiniteError

if TYPE_CHECKING:
    from ..data.clip_dataset import STVSRTestDataset

SHOWN_OF_STREAM = 5  # frame that tensorboard shows of a recurrent network: the fifth


class BestScore(TypedDict):
    """The best mean score of a metric in a training, and its iteration."""

    better: Literal['higher', 'lower']
    val: float
    iter: int | str


class Coverage(TypedDict):
    """Shares of the frames that have a score."""

    average: dict[str, GroupMeans]  # metric -> shares of the frames of all clips
    clips: dict[str, dict[str, GroupMeans]]  # clip -> the same for this clip


class ClipModel(SRModel):
    """The half of `STVSRModel` that restores and scores.

    Besides BasicSR's options in `val`, it reads `overlap` and `average`, see `config.options.ValOptions`. `overlap`
    selects the copy to score of a frame that two windows restore. `average` sets the order in which means are taken.

    Attributes:
        stop_requested: Called before every clip of a validation; if it returns True, the validation stops early.
        validation_results: data set -> metric -> group -> mean score, of the last validation of each; on rank 0.
        clip_results: data set -> clip -> the same for this clip.
        sample_frames: data set -> frames of its first clip, in training.
    """

    def __init__(self, opt: dict[str, Any]):
        self.stop_requested: Callable[[], bool] = lambda: False
        self.validation_results: dict[str, dict[str, GroupMeans]] = {}
        self.clip_results: dict[str, dict[str, dict[str, GroupMeans]]] = {}
        self.sample_frames: dict[str, list[Sample]] = {}
        self.best_metric_results: dict[str, dict[str, BestScore]] = {}
        self.saved: dict[str, SavedFrames] = {}  # by data set, with val.frames
        val_opt = opt.get('val') or {}
        self.metrics = usable_metrics(val_opt.get('metrics') or {})
        self.scorer = Scorer(self.metrics, val_opt.get('num_worker') or 0)
        if val_opt.get('frames') and opt.get('is_train'):
            raise ValueError('val.frames only works in tests; a training run validates its own network')
        ordered = [name for name, metric in self.metrics.items() if needs_order(metric['type'])]
        if ordered and val_opt.get('overlap') == 'all':
            raise ValueError(f'val.metrics.{ordered[0]} needs every frame once and in order, but val.overlap: all '
                             'scores every copy of a frame')
        super().__init__(opt)

    def validation(self, dataloader: DataLoader[Any], current_iter: int | str, tb_logger: Any,
                   save_img: bool = False) -> None:
        """Restore and score every clip of a data set; ranks share the clips.

        In testing, the scores are also written to `results/<name>/<data set>.json`. If a training is asked to stop
        meanwhile, the remaining clips and all scores are skipped.
        """
        dataset = cast(BuiltDataset, dataloader.dataset)
        rank, world_size = get_dist_info()
        net = self.net_g_ema if hasattr(self, 'net_g_ema') else self.get_bare_model(self.net_g)
        net.eval()
        for kept in (self.validation_results, self.clip_results, self.sample_frames):
            kept.pop(dataset.opt['name'], None)
        scores, is_complete = {}, True
        for index in progress_bar(range(rank, len(dataset), world_size), unit='clip', about=dataset.opt['name'],
                                  is_shown=rank == 0 and self.opt['val'].get('pbar', False)):
            if self.stop_requested():
                is_complete = False
                break
            item = dataset[index]
            clip = item.get('folder', item.get('key', str(index)))
            with torch.compiler.set_stance('force_eager'):  # compiling takes minutes for each frame size
                is_shown = self.is_train and index == 0
                samples = self.sample_frames.setdefault(dataset.opt['name'], []) if is_shown else None
                scores[clip] = self.validate_clip(net, clip, item, dataset, current_iter, save_img, samples)
                if index == 0:
                    tag = f'{dataset.opt["name"]}/{clip}'
                    self.show_clip(net, item, color_of(dataset), tag, current_iter, tb_logger)
        if net is not getattr(self, 'net_g_ema', None) and self.is_train:
            net.train()

        scores = {clip: score for of_rank in gather(scores) for clip, score in of_rank.items()}
        if not all(gather(is_complete)):
            get_root_logger().warning(f'Validation {dataset.opt["name"]} at iteration {current_iter} is skipped.')
        elif rank == 0 and any(scores.values()):
            self.report(dataset.opt['name'], dict(sorted(scores.items())), current_iter, tb_logger)

    def try_validation(self, dataset: BuiltDataset) -> tuple[str, dict[str, FrameScores]]:
        """Restore and score the first clip, as `validation` would; return its name and scores, and write nothing."""
        net = self.net_g_ema if hasattr(self, 'net_g_ema') else self.get_bare_model(self.net_g)
        was_training = net.training
        net.eval()
        item = dataset[0]
        clip = item.get('folder', item.get('key', '0'))
        with torch.compiler.set_stance('force_eager'):
            scores = self.validate_clip(net, clip, item, dataset, 0, save_img=False)
        net.train(was_training)
        return clip, scores

    def validate_clip(self, net: nn.Module, clip: str, item: Clip, dataset: BuiltDataset,
                      current_iter: int | str, save_img: bool, samples: list[Sample] | None = None) -> (
            dict[str, FrameScores]):
        """Restore one clip, save its frames if asked, and score them.

        Args:
            samples: takes one frame or two, see `sample_numbers`.

        Returns:
            metric name -> (number of the frame, score) for every scored frame.

        Raises:
            NonFiniteError: in testing, a frame of the network is not finite.
        """
        lq = self.given_frames(net, item)
        spec = spec_of(net)
        first, num_out = spec.first_of_clip, spec.length_of_clip(len(lq))
        names = item.get('frame_names') or [f'{i:08d}' for i in range(first + num_out)]
        gt = dict(enumerate(item.get('gt', ()), start=item.get('gt_start', 0)))

        saved = set()
        wanted = [] if samples is None else sample_numbers(first, num_out, spec.temporal_scale)
        if self.opt['val'].get('frames'):
            restored = self.saved_frames(clip, names, gt, output_numbers(net, len(lq), self.opt['val'].get('overlap')),
                                         dataset)
        else:
            restored = restore_frames(net, *self.network_inputs(lq, item), overlap=self.opt['val'].get('overlap'),
                                      cuts=self.cuts(net, lq, color_of(dataset)),
                                      dtype=PRECISIONS[self.opt['val'].get('precision', 'fp32')])
        with self.scorer.clip(has_truth=bool(gt)) as scorer:
            for number, (frame,) in restored:
                # A training that diverges has scores of nan, and continues or stops by train.max_nonfinite.
                if not self.is_train and not is_finite(frame):
                    raise NonFiniteError(f'{dataset.opt["name"]}, clip {clip!r}, frame {names[number]}: '
                                         f'{type(net).__name__} gives values that are not finite')
                pair = FramePair(frame, gt.get(number), color_of(dataset))
                if save_img and number not in saved:
                    saved.add(number)  # of several copies, save the first
                    suffix = current_iter if self.is_train else self.opt['val'].get('suffix') or self.opt['name']
                    folder = osp.join(self.opt['path']['visualization'], dataset.opt['name'], clip)
                    image = pair.image
                    if 'lq_chroma' in item:
                        image = add_chroma(frame, item['lq_chroma'][number // spec.temporal_scale], spec.scale)
                    imwrite(image, osp.join(folder, f'{names[number]}_{suffix}.png'))
                if samples is not None and number in wanted:
                    wanted.remove(number)
                    shown_lq = to_image(convert_clip(lq[number // spec.temporal_scale], color_of(dataset), 'rgb'))
                    samples.append(Sample('vfi' if number % spec.temporal_scale else 'vsr', clip, names[number],
                                          shown_lq, pair.image, pair.gt_image if number in gt else None))
                scorer.add(number, pair)
            return scorer.result()

    def saved_frames(self, clip: str, names: list[str], gt: Mapping[int, Tensor], outputs: Iterable[int],
                     dataset: BuiltDataset) -> Iterator[tuple[int, Tensor]]:
        """Yield frames from `val.frames` in place of restored ones; see `SavedFrames.clip`.

        Args:
            outputs: numbers of the frames that the network would restore; those with a ground truth are scored.
        """
        height, width = next(iter(gt.values())).shape[-2:]
        wanted = [number for number in outputs if number in gt]
        for number, frame in self.saved_of(dataset).clip(clip, names, wanted, (height, width)):
            yield number, frame.unsqueeze(0)

    def saved_of(self, dataset: BuiltDataset) -> SavedFrames:
        """Return the saved frames of a data set; its folders are listed only once."""
        name = dataset.opt['name']
        if name not in self.saved:
            self.saved[name] = SavedFrames(osp.join(self.opt['val']['frames'], name), color_of(dataset))
        return self.saved[name]

    def network_inputs(self, lq: Tensor, item: Clip) -> tuple[Tensor, Tensor | None, Tiling | None]:
        """Return the first LR frames of a clip, their flow, and `val.tile`, in the form that `inference` expects."""
        flow, tile = item.get('lq_flow'), self.opt['val'].get('tile')
        return (lq.unsqueeze(0), flow if flow is None else flow[:len(lq) - 1].unsqueeze(0),
                Tiling(tuple(tile['grid']), tile['overlap']) if tile else None)

    def cuts(self, net: nn.Module, lq: Tensor, color: Color) -> list[int]:
        """Return the frames that start a new scene, if the network is recurrent and `val.reset_at_cuts` is set."""
        if not (self.opt['val'].get('reset_at_cuts') and spec_of(net).recurrent):
            return []
        return find_cuts(to_image(convert_clip(frame, color, 'rgb')) for frame in lq)

    @staticmethod
    def given_frames(net: nn.Module, item: Clip) -> Tensor:  # (T, C, H, W)
        """Return the LR frames of a clip without those that the network interpolates."""
        # Data sets of this package give `gt_start`, and have already left these frames out.
        has_all = 'gt' in item and 'gt_start' not in item and len(item['lq']) == len(item['gt'])
        return item['lq'][::2] if spec_of(net).temporal_scale == 2 and has_all else item['lq']

    def show_clip(self, net: nn.Module, item: Clip, color: Color, tag: str, current_iter: int | str,
                  tb_logger: Any) -> None:
        """Write one frame of a clip to tensorboard.

        This is the first interpolated frame, or else the first output frame. For a recurrent network it is a later
        frame, which depends on earlier ones.
        """
        if tb_logger is None:
            return
        given, spec = self.given_frames(net, item), spec_of(net)
        window = given[:SHOWN_OF_STREAM if spec.recurrent else spec.num_frames]
        lq, flow, tiling = self.network_inputs(window, item)
        windows = restore_windows(Tiles(net, tiling), frames_of_clip(lq, flow))
        if spec.recurrent:
            *_, result = windows
            number, shown_lq = result.end, window[-1]
        else:
            result, first = next(windows), spec.first_of_clip
            number, shown_lq = max(first, int(spec.temporal_scale == 2)), window[first // spec.temporal_scale]
        shown = number - item.get('gt_start', 0)
        write_images(
            tb_logger, tag, current_iter, lq=convert_clip(shown_lq, color, 'rgb'),
            result=convert_clip(result.frames[0, number - result.start], color, 'rgb'),
            gt=convert_clip(item['gt'][shown], color, 'rgb') if 'gt' in item and shown >= 0 else None,
            flow=self.flow_to_show(net, window.unsqueeze(0), item))

    def flow_to_show(self, net: nn.Module, window: Tensor, item: Clip) -> Tensor | None:
        """Return the flow of a window for tensorboard, (2, H, W) in pixels, or None if there is none.

        Args:
            window: (1, T, C, H, W), 0-1, of any size, the first window of the clip.
            item: the clip, as the data set returns it.
        """
        return item['lq_flow'][0, 0] if 'lq_flow' in item else None

    def report(self, dataset_name: str, scores: dict[str, dict[str, FrameScores]],
               current_iter: int | str, tb_logger: Any) -> None:
        """Average the scores, log them as a table, and write them to tensorboard or to a file.

        Metrics that score only some of the frames are shown with their coverage, the share of scored frames.
        """
        temporal_scale = spec_of(self.get_bare_model(self.net_g)).temporal_scale
        clips = {
            clip: {name: average_groups(values, temporal_scale) for name, values in metrics.items()}
            for clip, metrics in scores.items()
        }
        rule = self.opt['val'].get('average', 'clips')
        average = {name: average_clips([metrics[name] for metrics in scores.values()], temporal_scale, rule)
                   for name in next(iter(scores.values()))}
        covered = self.coverage_of(scores)

        lines = [f'Validation {dataset_name}: {len(clips)} clips, iteration {current_iter}']
        unusable = sum(not math.isfinite(value) for metrics in scores.values() for name, values in metrics.items()
                       for _, value in values if not (name in covered['average'] and math.isnan(value)))
        if unusable:
            lines.append(f'\t {unusable} scores of single frames are not finite and are left out of the means')
        for name, groups in average.items():
            shares = {group: f' (coverage {share:.1%})' for group, share in covered['average'].get(name, {}).items()}
            line = f'\t # {name}: ' + '  '.join(
                f'{group} {digits(value)}{shares.get(group, "")}' for group, value in groups.items())
            if self.is_train:
                best = self.best_so_far(dataset_name, name, groups['all'], current_iter)
                if math.isfinite(best['val']):
                    line += f'\tBest all: {digits(best["val"])} @ {best["iter"]} iter'
            lines.append(line)
        get_root_logger().info('\n'.join(lines))
        self.validation_results[dataset_name], self.clip_results[dataset_name] = average, clips
        if tb_logger:
            for name, groups in average.items():
                for group, value in groups.items():
                    tb_logger.add_scalar(f'metrics/{dataset_name}/{name}_{group}', value, current_iter)
            for name, groups in covered['average'].items():
                for group, share in groups.items():
                    tb_logger.add_scalar(f'metrics/{dataset_name}/{name}_{group}_coverage', share, current_iter)
        if not self.is_train:
            path = osp.join(self.opt['path']['results_root'], f'{dataset_name}.json')
            replace_file(path, json.dumps(finite_or_null({
                'dataset': dataset_name, 'model': self.opt['name'], 'metrics': self.metrics, 'average': average,
                'clips': clips, 'frames': scores, **({'coverage': covered} if covered['average'] else {})}),
                indent=1).encode())
            get_root_logger().info(f'Scores of every clip and frame: {path}')

    def coverage_of(self, scores: Mapping[str, Mapping[str, FrameScores]]) -> Coverage:
        """Return the share of the frames that have a score, for metrics that report it (see `has_coverage`)."""
        temporal_scale = spec_of(self.get_bare_model(self.net_g)).temporal_scale
        names = [name for name in next(iter(scores.values())) if has_coverage(self.metrics[name]['type'])]
        return {
            'average': {name: coverage([value for metrics in scores.values() for value in metrics[name]],
                                       temporal_scale) for name in names},
            'clips': {clip: {name: coverage(metrics[name], temporal_scale) for name in names}
                      for clip, metrics in scores.items()},
        }

    def best_so_far(self, dataset_name: str, metric: str, value: float, current_iter: int | str) -> BestScore:
        # Keep the best results of every data set; BasicSR's video models keep those of the first one only. The state
        # from which a training resumes may lack a metric that was added since.
        better = self.metrics[metric].get('better', 'higher')
        sign = 1 if better == 'higher' else -1
        best = self.best_metric_results.setdefault(dataset_name, {}).setdefault(
            metric, {'better': better, 'val': -sign * math.inf, 'iter': -1})
        if sign * value >= sign * best['val']:
            best.update({'val': value, 'iter': current_iter})
        return best

    def check_clips(self, dataset: BuiltDataset) -> None:
        """Raise ValueError if a test set does not fit the network: wrong colour space, no flow, or short clips."""
        net = self.get_bare_model(self.net_g)
        spec, where = spec_of(net), f'datasets.{dataset.opt.get("key", dataset.opt["name"])}'
        try:
            check_color(net, color_of(dataset))
        except ValueError as error:
            raise ValueError(f'{where}: {error}') from None
        if spec.needs_flow and not getattr(dataset, 'has_flow', False):
            raise ValueError(f'{where}: {type(net).__name__} needs the flow between LR frames: set flow_opt, such as '
                             '{type: DISFlow}')
        temporal_scale = getattr(dataset, 'temporal_scale', 1)
        if temporal_scale > spec.temporal_scale:  # BasicSR's data sets give all frames
            raise ValueError(f'{where}: temporal_scale {temporal_scale} drops every second frame, but '
                             f'{type(net).__name__} does not interpolate frames; set temporal_scale: 1')
        if not hasattr(dataset, 'num_input_frames'):  # BasicSR's lack it
            return
        dataset = cast('STVSRTestDataset', dataset)
        val_opt = self.opt.get('val') or {}
        if val_opt.get('frames'):
            saved = self.saved_of(dataset)
            for index, clip in enumerate(dataset.clips):
                outputs = output_numbers(net, dataset.num_input_frames(index), val_opt.get('overlap'))
                saved.find(clip, dataset.frame_names(clip), set(outputs) & set(dataset.true_frames(clip)))
        if not spec.num_frames or spec.pads_ends:
            return
        for index, clip in enumerate(dataset.clips):
            given = dataset.num_input_frames(index)
            if spec.temporal_scale == 2 and dataset.temporal_scale == 1 and dataset.gt_reader is not None:
                given = (given + 1) // 2  # see `given_frames`
            if given < spec.num_frames:
                raise ValueError(f'datasets.{dataset.opt["key"]}: clip {clip!r} has {given} LR frames, but '
                                 f'{type(net).__name__} needs windows of {spec.num_frames}')


def add_chroma(luma: Tensor, chroma: Tensor, scale: int) -> np.ndarray:
    """Return a colour frame, uint8 (sH, sW, 3), BGR, with the LR frame's colours.

    The chroma is upscaled by MATLAB-like bicubic interpolation.

    Args:
        luma: (1, sH, sW), 0-1.
        chroma: (2, H, W), 0-1.
    """
    enlarged = upscale_bicubic(chroma, scale).to(luma)
    return to_image(convert_clip(torch.cat((luma, enlarged)), 'yuv', 'rgb'))


def output_numbers(net: nn.Module, num_lq: int, overlap: str | None) -> list[int]:
    """Return the numbers of the frames that `restore_frames` yields for a clip; overlap 'all' repeats some."""
    spec = spec_of(net)
    first = spec.first_of_clip
    if overlap != 'all':
        return list(range(first, first + spec.length_of_clip(num_lq)))
    assert spec.num_frames is not None  # a recurrent network has no windows that overlap
    of_window = range(first, first + spec.length_of_window(spec.num_frames))
    starts = range(num_lq - spec.num_frames + 1)
    return [number + spec.temporal_scale * start for start in starts for number in of_window]


def color_of(dataset: SizedDataset) -> Color:
    """Return the colour space of a data set's clips; BasicSR's own are all RGB."""
    return getattr(dataset, 'color', 'rgb')
