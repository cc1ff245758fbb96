"""The training and validation loop of all systems; a paper's model only overrides what differs.

Shapes: B clips, T frames in, U frames out, H x W pixels of the LR grid, s = scale.
"""
from collections import OrderedDict
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, cast, overload

import torch
from basicsr.archs import build_network
from basicsr.losses import build_loss
from basicsr.utils.logger import get_root_logger
from basicsr.utils.registry import MODEL_REGISTRY
from torch import Tensor, nn
from torch.nn.parallel import DataParallel, DistributedDataParallel
from torch.nn.utils import clip_grads_with_norm_, get_total_norm
from torch.utils.data import default_collate

from ..archs.arch_util import compile_network, to_channels_last, total
from ..archs.basicsr_networks import adapt
from ..archs.spec import check_color, spec_of
from ..config import TrainOptions
from ..data.items import Batch
from ..data.sample_order import BuiltDataset, SeededDataset, SeededIndex
from ..inference.precision import computes_bf16, prefers_channels_last
from ..utils.distributed import any_rank, gather
from .batch import BatchLosses, NonFiniteError, all_finite, name_nonfinite, sample_keys, split_batch
from .clip_model import color_of
from .model_files import SavedModel

AMP_DTYPES = {'none': None, 'bf16': torch.bfloat16, 'fp16': torch.float16}


@MODEL_REGISTRY.register()
class STVSRModel(SavedModel):
    """Train `network_g` on clips with `train.pixel_opt`, and score it clip by clip.

    Batches come from this package's data sets or from BasicSR's recurrent ones: `lq` (B, T, C, H, W) and `gt` (B, U, C,
    sH, sW). If the network doubles the frame rate and `lq` has all frames, every second one is dropped.

    A paper's model overrides `compute_losses`, `init_losses`, and `train_options`, the class of its options.

    Attributes:
        losses: Weighted loss terms of the last step, by their names in the log.
        statistics: Further values of the last step for the log.
    """

    train_options: type[TrainOptions] = TrainOptions
    train_opt: TrainOptions
    cri_pix: nn.Module | None

    def __init__(self, opt: dict[str, Any]):
        if opt['is_train']:
            self.train_opt = self.train_options.read(opt['train'], 'train.')
        self.samples, self.batch_size = 0, 1
        self.part: Batch | None = None
        self.skipped, self.skipped_in_a_row = 0, 0
        self.has_unscaled = False  # since the last update of GradScaler
        self.losses: dict[str, Tensor] = {}
        self.statistics: dict[str, Tensor] = {}
        super().__init__(opt)

    # ---------------------------------------------------------------- setting up

    # BasicSR's version passes a GPU number to DistributedDataParallel even without a GPU.
    def model_to_device(self, net: nn.Module, *, broadcast_buffers: bool = True) -> nn.Module:
        net = self.lay_out(net.to(self.device))
        if not self.is_train:  # ranks share clips, not batches
            return net
        if self.train_opt.compile:
            self.compile(net)
        if self.opt['dist']:
            devices = [torch.cuda.current_device()] if self.device.type == 'cuda' else None
            return DistributedDataParallel(
                net, device_ids=devices, broadcast_buffers=broadcast_buffers,
                find_unused_parameters=self.opt.get('find_unused_parameters', False))
        return DataParallel(net) if self.opt['num_gpu'] > 1 else net

    def lay_out(self, net: nn.Module) -> nn.Module:
        """Store weights as `train.channels_last` says; in testing, use the faster layout. Adapt BasicSR's networks.

        Raises:
            ValueError: network_g has no spec, and the file has no arch_spec for it.
        """
        if type(net) is type(self.get_bare_model(self.net_g)):
            spec_of(adapt(net, self.opt.get('arch_spec')))
        wanted = self.train_opt.channels_last if self.is_train else 'auto'
        if wanted == 'auto':
            wanted = prefers_channels_last(self.device)
        return to_channels_last(net) if wanted else net

    @property
    def amp(self) -> str:
        """`train.amp`: 'none', 'bf16' or 'fp16'; 'auto' resolves to 'none' or 'bf16'."""
        if self.train_opt.amp == 'auto':
            return 'bf16' if computes_bf16(self.device) else 'none'
        return self.train_opt.amp

    def compile(self, net: nn.Module) -> None:
        """Compile the network's forward pass, or log why that is not possible."""
        if not self.opt['dist'] and self.opt['num_gpu'] > 1:
            problem: str | None = 'it needs one process for each GPU, as torchrun starts them'
        else:
            problem = compile_network(net, self.device)
        if problem:
            get_root_logger().warning(f'train.compile is off: {problem}')

    def init_training_settings(self) -> None:
        self.net_g.train()
        self.ema_decay = self.train_opt.ema_decay
        if self.ema_decay > 0:
            self.net_g_ema = self.lay_out(build_network(self.opt['network_g']).to(self.device)).eval()
            load_path = self.opt['path'].get('pretrain_network_g')
            if load_path is None:
                self.model_ema(0)  # copies net_g
            else:
                self.load_network(
                    self.net_g_ema, load_path, self.opt['path'].get('strict_load_g', True), 'params_ema')
        self.train_opt.check_network(self.get_bare_model(self.net_g))
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=self.amp == 'fp16')
        self.init_losses()
        self.setup_optimizers()
        self.setup_schedulers()

    def init_losses(self) -> None:
        """Build the losses that `compute_losses` uses."""
        if not self.train_opt.pixel_opt:
            raise ValueError('train.pixel_opt is missing: the loss on the frames, such as {type: L1Loss}')
        self.cri_pix = self.optional_loss(self.train_opt.pixel_opt)

    @overload
    def optional_loss(self, loss_opt: dict[str, Any]) -> nn.Module: ...

    @overload
    def optional_loss(self, loss_opt: dict[str, Any] | None) -> nn.Module | None: ...

    def optional_loss(self, loss_opt: dict[str, Any] | None) -> nn.Module | None:
        """Build the loss that the options describe, or return None without options."""
        return build_loss(loss_opt).to(self.device) if loss_opt else None

    # BasicSR pops 'type' from the options here and in setup_schedulers.
    def setup_optimizers(self) -> None:
        arguments = dict(self.train_opt.optim_g)
        groups = self.parameter_groups(self.net_g, arguments['lr'])
        self.optimizer_g = self.get_optimizer(arguments.pop('type'), groups, **arguments)
        self.optimizers.append(self.optimizer_g)

    def parameter_groups(self, net: nn.Module, lr: float) -> list[dict[str, Any]]:
        """Group the parameters to train; each key of `train.lr_mul` gets a separate group and learning rate."""
        factors: dict[str | None, float] = {None: 1}
        factors.update(self.train_opt.lr_mul.items())
        groups: dict[str | None, list[nn.Parameter]] = {pattern: [] for pattern in factors}
        for name, parameter in self.get_bare_model(net).named_parameters():
            if parameter.requires_grad:
                groups[self.train_opt.lr_pattern(name)].append(parameter)
        return [{'params': parameters, 'lr': lr * factors[pattern]}
                for pattern, parameters in groups.items() if parameters]

    # BasicSR's version knows only some of torch's optimisers, and no fused ones.
    def get_optimizer(self, optim_type: str, params: Iterable[Any], lr: float, **kwargs: Any) -> torch.optim.Optimizer:
        if optim_type in ('Adam', 'AdamW') and not kwargs.keys() & {'foreach', 'differentiable', 'capturable'}:
            kwargs.setdefault('fused', True)  # torch has it for CPUs and GPUs
        optimizer: type[Any] = getattr(torch.optim, optim_type)
        return cast(torch.optim.Optimizer, optimizer(params, lr, **kwargs))

    def setup_schedulers(self) -> None:
        scheduler_opt = self.opt['train']['scheduler']
        self.opt['train']['scheduler'] = dict(scheduler_opt)
        super().setup_schedulers()
        self.opt['train']['scheduler'] = scheduler_opt

    def check_data(self, train_set: BuiltDataset, val_sets: Iterable[BuiltDataset]) -> None:
        """Check before a training that its data fit the network, instead of failing in the first validation.

        Raises:
            ValueError: they do not; the message says what to change.
        """
        sample = SeededDataset(train_set)[SeededIndex(0, seed=0)]
        try:
            check_color(self.get_bare_model(self.net_g), color_of(train_set))
            self.feed_data(default_collate([sample] * self.train_opt.accumulate))
        except ValueError as error:
            raise ValueError(f'datasets.train: {error}') from error
        for dataset in val_sets:
            self.check_clips(dataset)

    # ---------------------------------------------------------------- training

    def feed_data(self, data: Batch) -> None:
        """Take a batch and split it into `train.accumulate` parts.

        Raises:
            ValueError: lq and gt do not fit the network or each other, or the batch cannot be divided.
        """
        self.batch_size = len(data['gt'])
        self.parts = split_batch(data, self.train_opt.accumulate if self.is_train else 1)
        self.part = None
        self.use_part(self.parts[0])

    def use_part(self, part: Batch) -> None:
        """Let `compute_losses` read this part of the batch; a step prepares each part once."""
        if part is not self.part:
            self.prepare_batch(part)
            self.part = part

    def prepare_batch(self, data: Batch) -> None:
        """Read the clips of a part of the batch, and split them into the network's windows."""
        spec = spec_of(self.get_bare_model(self.net_g))
        self.lq, self.gt = self.read_clips(data)
        if spec.num_frames:
            self.lq = self.split_windows(self.lq, spec.num_frames, 1)
            self.gt = self.split_windows(self.gt, spec.length_of_window(spec.num_frames), spec.temporal_scale)

    def read_clips(self, data: Batch) -> tuple[Tensor, Tensor]:
        """Return the network's input frames from `lq`, and the output frames from `gt`.

        Every second frame of `lq` is dropped if it has all frames.

        Raises:
            ValueError: they do not fit the network or each other.
        """
        net = self.get_bare_model(self.net_g)
        spec = spec_of(net)
        lq, gt = (clips.to(self.device, non_blocking=True) for clips in (data['lq'], data['gt']))
        if lq.dim() != 5 or gt.dim() != 5:
            raise ValueError(f'lq and gt must be clips, (B, T, C, H, W), but are {tuple(lq.shape)}, {tuple(gt.shape)}')
        if spec.temporal_scale == 2 and lq.shape[1] == gt.shape[1]:
            lq = lq[:, ::2]
        if lq.shape[1] < (least := spec.num_frames or spec.min_frames):
            raise ValueError(f'{type(net).__name__} needs windows of {least} LR frames, but a sample has '
                             f'{lq.shape[1]}; see num_frame in the data set')
        num_out, first = spec.length_of_window(lq.shape[1]), spec.first_output
        num_all = num_out + 2 * first
        # With an even number of frames, the last one comes after the last input frame.
        if gt.shape[1] == num_all or spec.temporal_scale == 2 and gt.shape[1] == num_all + 1:
            gt = gt[:, first:first + num_out]
        if gt.shape[1] != num_out:
            raise ValueError(f'{type(net).__name__} makes {num_out} frames from {lq.shape[1]} LR frames, but gt has '
                             f'{gt.shape[1]} frames (lq in the data set: {data["lq"].shape[1]}); see temporal_scale in '
                             'the data set')
        h, w = lq.shape[-2:]
        if h % spec.size_multiple or w % spec.size_multiple:
            raise ValueError(f'{type(net).__name__} trains on LR frames with sides divisible by {spec.size_multiple}, '
                             f'but these are {h}x{w}: set gt_size in the data set to a multiple of '
                             f'{spec.size_multiple * spec.scale}')
        if min(h, w) < spec.min_size:
            raise ValueError(f'{type(net).__name__} needs LR frames of at least {spec.min_size}x{spec.min_size}, but '
                             f'these are {h}x{w}: set gt_size in the data set to at least {spec.min_size * spec.scale}')
        expected = h * spec.scale, w * spec.scale
        if gt.shape[-2:] != expected:
            raise ValueError(f'{type(net).__name__} makes {expected[0]}x{expected[1]} from LR frames of {h}x{w}, but '
                             f'gt is {gt.shape[-2]}x{gt.shape[-1]}')
        return lq, gt

    @staticmethod
    def split_windows(clip: Tensor, window: int, stride: int) -> Tensor:  # (B, T, ...) -> (B N, window, ...)
        starts = range(0, clip.shape[1] - window + 1, stride)
        return torch.stack([clip[:, start:start + window] for start in starts], dim=1).flatten(0, 1)

    def compute_losses(self) -> dict[str, Tensor]:
        """Run the forward pass and return the weighted loss terms by their names in the log."""
        assert self.cri_pix is not None  # `init_losses` needs it
        return {'l_pix': self.cri_pix(self.net_g(self.lq), self.gt)}

    def optimize_parameters(self, current_iter: int) -> None:
        """Take one step on the batch.

        Raises:
            NonFiniteError: the loss or its gradient was not finite `train.max_nonfinite` times in a row; the weights
                are those from before.
        """
        self.samples += self.batch_size * self.opt['world_size']
        self.optimizer_g.zero_grad(set_to_none=True)
        losses = self.backward(self.net_g, self.compute_losses)
        if self.step(self.optimizer_g, losses, current_iter):
            self.skipped_in_a_row = 0
            self.average_weights(current_iter)
        self.update_scaler()

    def average_weights(self, current_iter: int) -> None:
        """Update the moving average of the weights, if there is one."""
        if self.ema_decay > 0:
            highest = (1 + current_iter) / (10 + current_iter) if self.train_opt.ema_warmup else 1
            self.model_ema(decay=min(self.ema_decay, highest))

    def backward(self, net: nn.Module, compute_losses: Callable[[], dict[str, Tensor]], *,
                 reads_batch: bool = True) -> BatchLosses:
        """Accumulate the gradients of all parts of the batch, as if it had gone through the network at once.

        If a loss is not finite on any rank, the loop ends. Then no rank runs the backward pass of the last part, which
        shares the gradients between ranks. So all ranks skip the step, and none waits for the others.

        Args:
            reads_batch: whether `compute_losses` reads the current part of the batch.

        Returns:
            the loss terms of each part; their means are added to `losses`.
        """
        losses_of_parts, is_finite = [], True
        for number, part in enumerate(self.parts, start=1):
            is_last = number == len(self.parts)
            if reads_batch:
                self.use_part(part)
            with self.without_sync(net, not is_last):
                with self.autocast():
                    losses = compute_losses()
                losses_of_parts.append({name: value.detach() for name, value in losses.items()})
                # Reading the losses waits for the GPU, as does reading the norm of the gradients in `step`.
                is_finite = is_finite and all_finite(losses.values())
                if is_last:
                    is_finite = not any_rank(not is_finite, self.device)
                if is_finite:
                    self.scaler.scale(total(losses.values()) / len(self.parts)).backward()
        self.losses |= {
            name: total(losses[name] for losses in losses_of_parts) / len(self.parts) for name in losses_of_parts[0]}
        return BatchLosses(losses_of_parts, is_finite)

    def autocast(self) -> AbstractContextManager[Any]:
        return torch.autocast(self.device.type, AMP_DTYPES[self.amp], self.amp != 'none')

    @staticmethod
    def without_sync(net: nn.Module, wanted: bool) -> AbstractContextManager[Any]:
        """Return a context without gradient synchronisation: processes share gradients once a step, not once a part."""
        return net.no_sync() if wanted and isinstance(net, DistributedDataParallel) else nullcontext()

    def step(self, optimizer: torch.optim.Optimizer, losses: BatchLosses, current_iter: int, *,
             net_name: str = 'net_g') -> bool:
        """Clip the gradients and update the weights, unless a value is not finite; return whether the weights changed.

        Args:
            net_name: the network to update, net_g or net_d.
        """
        norm_name = 'grad_norm' if net_name == 'net_g' else f'grad_norm_{net_name[-1]}'
        if not losses.is_finite:
            self.statistics[norm_name] = torch.tensor(torch.nan, device=self.device)
            self.skip(losses.of_parts, None, current_iter, net_name)
            return False
        self.scaler.unscale_(optimizer)
        self.has_unscaled = True
        parameters = [p for group in optimizer.param_groups for p in group['params'] if p.grad is not None]
        norm = get_total_norm([p.grad for p in parameters])
        self.statistics[norm_name] = norm.float()
        # Reading the norm waits for the GPU, as does every GradScaler. The next batch is loaded meanwhile.
        if any_rank(not all_finite([norm]), self.device):
            self.skip(losses.of_parts, norm, current_iter, net_name)
            return False
        if self.train_opt.grad_clip:
            clip_grads_with_norm_(parameters, self.train_opt.grad_clip, norm)
        self.scaler.step(optimizer)
        return True

    def update_scaler(self) -> None:
        """Let GradScaler choose its next scale, after the steps of all networks.

        GradScaler fails if it has seen no gradients, because the losses were not finite; the update is then skipped.
        """
        if self.has_unscaled:
            self.scaler.update()
            self.has_unscaled = False

    def skip(self, losses_of_parts: list[dict[str, Tensor]], grad_norm: Tensor | None, current_iter: int,
             net_name: str) -> None:
        """Count a skipped step and log the reason; call it on all ranks.

        Args:
            grad_norm: None if the losses are the reason.
        """
        reasons = [name_nonfinite(losses, part) for losses, part in zip(losses_of_parts, self.parts, strict=True)]
        reasons = [reason for of_rank in gather(reasons) for reason in of_rank if reason]
        if grad_norm is not None and self.scaler.get_scale() > 1:
            return  # expected: float16 overflows until GradScaler has found its scale
        self.skipped += 1
        self.skipped_in_a_row += 1
        if grad_norm is not None:
            samples = ', '.join(str(key) for keys in gather(sample_keys(self.parts)) for key in keys)
            reasons = [f'all losses are finite, but the norm of the gradient is {float(grad_norm)}: {samples}']
        what = '' if net_name == 'net_g' else f'The step of {net_name} in '
        message = (f'{what}{"i" if what else "I"}teration {current_iter} is skipped ({self.skipped_in_a_row} in a row, '
                   f'{self.skipped} in all): ' + '; '.join(reasons))
        if self.skipped_in_a_row >= self.train_opt.max_nonfinite:
            self.skipped_in_a_row = 0  # for a training that resumes from here
            raise NonFiniteError(f'{message}. train.max_nonfinite is {self.train_opt.max_nonfinite}: a smaller '
                                 f'train.optim_{net_name[-1]}.lr, train.grad_clip, or amp: bf16 may help; also check '
                                 'these samples')
        get_root_logger().warning(message)

    def update_learning_rate(self, current_iter: int, warmup_iter: int = -1) -> None:
        """Set the learning rate of the next step; `warmup_iter` and the schedule are in `train.unit`s.

        The warm-up reaches the full rate; BasicSR's ends one step below it.
        """
        counts_samples = self.train_opt.unit == 'samples'
        done = self.samples if counts_samples else current_iter - 1
        after = done + (self.batch_size * self.opt['world_size'] if counts_samples else 1)
        for scheduler in self.schedulers:
            while scheduler.last_epoch < done:
                scheduler.step()
        if done < warmup_iter:
            factor = min(after / warmup_iter, 1)
            self._set_lr([[rate * factor for rate in rates] for rates in self._get_init_lr()])

    def get_current_log(self) -> OrderedDict[str, float]:
        # Reduced here and not in every step as in BasicSR, because reading a number from a GPU waits for all its work.
        log = OrderedDict(self.losses | self.statistics)
        if self.skipped:
            log['skipped'] = torch.tensor(self.skipped, dtype=torch.float32, device=self.device)
        return self.reduce_loss_dict(log)
