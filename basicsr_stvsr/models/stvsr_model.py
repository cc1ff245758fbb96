"""The one training and validation loop of all systems; a paper's model says only how it differs.

Shapes: B clips, T frames in, U frames out, H x W pixels of the LR grid, s = scale.
"""
import inspect
import json
import math
from collections import OrderedDict
from os import path as osp
from typing import Any

import numpy as np
import torch
from basicsr.archs import build_network
from basicsr.losses import build_loss
from basicsr.metrics import calculate_metric
from basicsr.models.sr_model import SRModel
from basicsr.utils import get_root_logger, imwrite, tensor2img
from basicsr.utils.dist_util import get_dist_info
from basicsr.utils.registry import METRIC_REGISTRY, MODEL_REGISTRY
from torch import Tensor, nn
from torch.nn.parallel import DataParallel, DistributedDataParallel
from tqdm import tqdm

from ..archs.checkpoint import check_hash
from ..inference import OVERLAP_RULES, join_windows, output_length, restore_windows, window_frames


@MODEL_REGISTRY.register()
class STVSRModel(SRModel):
    """Trains `network_g` on clips with `train.pixel_opt`, and scores it clip by clip.

    Batches come from this package's data sets or from BasicSR's recurrent ones: `lq` (B, T, C, H, W) and `gt`
    (B, U, C, sH, sW). Where the network doubles the frame rate and `lq` has all frames, every second one is dropped.

    Options it reads besides BasicSR's (`val`): `overlap`, which copy of a frame that two windows made is scored
    ('first'; 'last', 'mean'; 'all' scores every copy, that is by triplets); `average`, over 'clips' (first within each,
    then over all; the default) or over 'frames'.
    """

    # BasicSR's model_to_device passes a GPU's number to DistributedDataParallel also where there is none.
    def model_to_device(self, net: nn.Module) -> nn.Module:
        net = net.to(self.device)
        if self.opt['dist']:
            devices = [torch.cuda.current_device()] if self.device.type == 'cuda' else None
            return DistributedDataParallel(
                net, device_ids=devices, find_unused_parameters=self.opt.get('find_unused_parameters', False))
        return DataParallel(net) if self.opt['num_gpu'] > 1 else net

    def load_network(self, net: nn.Module, load_path: str, strict: bool = True, param_key: str = 'params') -> None:
        check_hash(load_path)
        super().load_network(net, load_path, strict, param_key)

    def init_training_settings(self) -> None:
        self.net_g.train()
        train_opt = self.opt['train']
        self.ema_decay = train_opt.get('ema_decay', 0)
        if self.ema_decay > 0:
            self.net_g_ema = build_network(self.opt['network_g']).to(self.device).eval()
            load_path = self.opt['path'].get('pretrain_network_g')
            if load_path is None:
                self.model_ema(0)  # a copy of net_g
            else:
                self.load_network(
                    self.net_g_ema, load_path, self.opt['path'].get('strict_load_g', True), 'params_ema')
        self.init_losses()
        self.setup_optimizers()
        self.setup_schedulers()

    def init_losses(self) -> None:
        """Builds what `compute_losses` uses."""
        if not self.opt['train'].get('pixel_opt'):
            raise ValueError('train.pixel_opt is missing: the loss on the frames, such as {type: L1Loss}')
        self.cri_pix = build_loss(self.opt['train']['pixel_opt']).to(self.device)

    # BasicSR pops 'type' out of the options here and in setup_schedulers.
    def setup_optimizers(self) -> None:
        arguments = dict(self.opt['train']['optim_g'])
        parameters = [p for p in self.net_g.parameters() if p.requires_grad]
        self.optimizer_g = self.get_optimizer(arguments.pop('type'), parameters, **arguments)
        self.optimizers.append(self.optimizer_g)

    def setup_schedulers(self) -> None:
        scheduler_opt = self.opt['train']['scheduler']
        self.opt['train']['scheduler'] = dict(scheduler_opt)
        super().setup_schedulers()
        self.opt['train']['scheduler'] = scheduler_opt

    # ---------------------------------------------------------------- training

    def feed_data(self, data: dict[str, Any]) -> None:
        """Takes a batch: drops every second LR frame where `lq` has all, and cuts clips into the network's windows.

        Raises:
            ValueError: lq and gt do not fit the network or each other.
        """
        net = self.get_bare_model(self.net_g)
        lq, gt = (data[name].to(self.device, non_blocking=True) for name in ('lq', 'gt'))
        if lq.dim() != 5 or gt.dim() != 5:
            raise ValueError(f'lq and gt must be clips, (B, T, C, H, W), but are {tuple(lq.shape)}, {tuple(gt.shape)}')
        if net.temporal_scale == 2 and lq.shape[1] == gt.shape[1]:
            lq = lq[:, ::2]
        num_out = output_length(net, lq.shape[1])
        if gt.shape[1] == num_out + 1:  # an even number of frames: the last lies behind the last given one
            gt = gt[:, :-1]
        if gt.shape[1] != num_out:
            raise ValueError(f'{type(net).__name__} makes {num_out} frames of the {lq.shape[1]} given to it, but gt '
                             f'has {gt.shape[1]} frames (lq in the data set: {data["lq"].shape[1]})')
        if net.num_frames:
            lq = self.cut_windows(lq, net.num_frames, 1)
            gt = self.cut_windows(gt, output_length(net, net.num_frames), net.temporal_scale)
        self.lq, self.gt = lq, gt

    @staticmethod
    def cut_windows(clip: Tensor, window: int, step: int) -> Tensor:  # (B, T, ...) -> (B N, window, ...)
        starts = range(0, clip.shape[1] - window + 1, step)
        return torch.stack([clip[:, start:start + window] for start in starts], dim=1).flatten(0, 1)

    def compute_losses(self) -> dict[str, Tensor]:
        """The paper's recipe: forward pass and weighted loss terms, by their names in the log."""
        return {'l_pix': self.cri_pix(self.net_g(self.lq), self.gt)}

    def optimize_parameters(self, current_iter: int) -> None:
        self.optimizer_g.zero_grad(set_to_none=True)
        losses = self.compute_losses()
        sum(losses.values()).backward()
        self.optimizer_g.step()
        if self.ema_decay > 0:
            self.model_ema(decay=self.ema_decay)
        self.losses = {name: value.detach() for name, value in losses.items()}

    def get_current_log(self) -> OrderedDict:
        # Reduced here, not in every step as in BasicSR: reading a number from a GPU waits until all its work is done.
        return self.reduce_loss_dict(OrderedDict(self.losses))

    # ---------------------------------------------------------------- validation

    def validation(self, dataloader: torch.utils.data.DataLoader, current_iter: int | str, tb_logger: Any,
                   save_img: bool = False) -> None:
        """Restores and scores every clip of a data set; ranks share the clips.

        When testing, the scores are also written to `results/<name>/<data set>.json`.
        """
        dataset = dataloader.dataset
        rank, world_size = get_dist_info()
        net = self.net_g_ema if hasattr(self, 'net_g_ema') else self.get_bare_model(self.net_g)
        net.eval()
        scores = {}
        progress = tqdm(range(rank, len(dataset), world_size), unit='clip', desc=dataset.opt['name'],
                        disable=rank != 0 or not self.opt['val'].get('pbar', False))
        for index in progress:
            item = dataset[index]
            clip = item.get('folder', item.get('key', str(index)))
            scores[clip] = self.validate_clip(net, clip, item, dataset.opt['name'], current_iter, save_img)
        if net is not getattr(self, 'net_g_ema', None) and self.is_train:
            net.train()

        if world_size > 1:
            parts = [None] * world_size
            torch.distributed.all_gather_object(parts, scores)
            scores = {clip: score for part in parts for clip, score in part.items()}
        if rank == 0 and any(scores.values()):
            self.report(dataset.opt['name'], dict(sorted(scores.items())), current_iter, tb_logger)

    def validate_clip(self, net: nn.Module, clip: str, item: dict[str, Any], dataset_name: str,
                      current_iter: int | str, save_img: bool) -> dict[str, list[tuple[int, float]]]:
        """Restores one clip, saves its frames if asked, and scores them.

        Returns:
            metric name -> (number of the frame, score) for every scored frame.
        """
        overlap = self.opt['val'].get('overlap', 'first')
        if overlap not in OVERLAP_RULES:
            raise ValueError(f'val.overlap must be one of {", ".join(OVERLAP_RULES)}, but is {overlap!r}')
        lq, gt = item['lq'], item.get('gt')
        if net.temporal_scale == 2 and gt is not None and lq.shape[0] == gt.shape[0]:
            lq = lq[::2]
        windows = restore_windows(net, lq.unsqueeze(0))
        frames = join_windows(windows, net.temporal_scale, overlap)[0]
        numbers = window_frames(windows.shape[1], windows.shape[2], net.temporal_scale, overlap)
        names = item.get('frame_names') or [f'{i:08d}' for i in range(max(numbers) + 1)]

        metrics = self.usable_metrics(has_gt=gt is not None)
        scores, saved = {name: [] for name in metrics}, set()
        for frame, number in zip(frames, numbers, strict=True):
            data = {'img': tensor2img(frame)}
            if gt is not None:
                data['img2'] = tensor2img(gt[number])
            if save_img and number not in saved:
                saved.add(number)  # of several copies the first
                suffix = current_iter if self.is_train else self.opt['val'].get('suffix') or self.opt['name']
                imwrite(data['img'], osp.join(
                    self.opt['path']['visualization'], dataset_name, clip, f'{names[number]}_{suffix}.png'))
            for name, metric_opt in metrics.items():
                wanted = data if needs_reference(metric_opt['type']) else {'img': data['img']}
                scores[name].append((number, score(wanted, metric_opt)))
        return scores

    def usable_metrics(self, has_gt: bool) -> dict[str, dict[str, Any]]:
        """The metrics of `val.metrics` that can be computed: without ground truth, those that need none."""
        metrics = self.opt['val'].get('metrics') or {}
        return {name: opt for name, opt in metrics.items() if has_gt or not needs_reference(opt['type'])}

    def report(self, dataset_name: str, scores: dict[str, dict[str, list[tuple[int, float]]]],
               current_iter: int | str, tb_logger: Any) -> None:
        """Averages the scores, logs them as a table, and writes them to tensorboard or to a file."""
        temporal_scale = self.get_bare_model(self.net_g).temporal_scale
        clips = {
            clip: {name: average_groups(values, temporal_scale) for name, values in metrics.items()}
            for clip, metrics in scores.items()
        }
        average = {name: self.average(scores, clips, name) for name in next(iter(scores.values()))}

        lines = [f'Validation {dataset_name}: {len(clips)} clips, iteration {current_iter}']
        unusable = sum(not math.isfinite(value) for metrics in scores.values() for values in metrics.values()
                       for _, value in values)
        if unusable:
            lines.append(f'\t {unusable} scores of single frames are not finite and left out of the means')
        for name, groups in average.items():
            line = f'\t # {name}: ' + '  '.join(f'{group} {value:.4f}' for group, value in groups.items())
            if self.is_train:
                best = self.best_so_far(dataset_name, name, groups['all'], current_iter)
                line += f'\tBest all: {best["val"]:.4f} @ {best["iter"]} iter'
            lines.append(line)
        get_root_logger().info('\n'.join(lines))
        if tb_logger:
            for name, groups in average.items():
                for group, value in groups.items():
                    tb_logger.add_scalar(f'metrics/{dataset_name}/{name}_{group}', value, current_iter)
        if not self.is_train:
            path = osp.join(self.opt['path']['results_root'], f'{dataset_name}.json')
            with open(path, 'w', encoding='utf-8') as file:
                json.dump(finite_or_null({'dataset': dataset_name, 'model': self.opt['name'], 'average': average,
                                          'clips': clips, 'frames': scores}), file, indent=1)
            get_root_logger().info(f'Scores of every clip and frame: {path}')

    def average(self, scores: dict, clips: dict, name: str) -> dict[str, float]:
        """The data set's score by group, averaged as `val.average` says."""
        rule = self.opt['val'].get('average', 'clips')
        if rule == 'frames':
            values = [value for metrics in scores.values() for value in metrics[name]]
            return average_groups(values, self.get_bare_model(self.net_g).temporal_scale)
        if rule != 'clips':
            raise ValueError(f"val.average must be 'clips' or 'frames', but is {rule!r}")
        groups = next(iter(clips.values()))[name]
        return {group: mean([metrics[name][group] for metrics in clips.values()]) for group in groups}

    def best_so_far(self, dataset_name: str, metric: str, value: float, current_iter: int | str) -> dict[str, Any]:
        # For every data set; BasicSR's video models keep the results of the first one only.
        self._initialize_best_metric_results(dataset_name)
        self._update_best_metric_result(dataset_name, metric, value, current_iter)
        return self.best_metric_results[dataset_name][metric]


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


def finite_or_null(value: Any) -> Any:
    """Replaces what JSON has no word for, infinity and NaN, by None, however deep."""
    if isinstance(value, dict):
        return {key: finite_or_null(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite_or_null(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def average_groups(values: list[tuple[int, float]], temporal_scale: int) -> dict[str, float]:
    """Mean score of the given frames, of the frames made between them (odd numbers), and of all."""
    if temporal_scale == 1:
        return {'vsr': mean([score for _, score in values]), 'all': mean([score for _, score in values])}
    return {
        'vsr': mean([score for number, score in values if number % 2 == 0]),
        'vfi': mean([score for number, score in values if number % 2 == 1]),
        'all': mean([score for _, score in values]),
    }
