"""The systems of this package under mmengine's Runner: a paper's losses on its data, steps and logs by mmengine.

Shapes: B clips, T frames in, U frames out, H x W pixels of the LR grid, s = scale.
"""
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

import torch
from basicsr.utils.registry import MODEL_REGISTRY
from mmengine.config import ConfigDict
from mmengine.device import get_device
from mmengine.logging import MessageHub
from mmengine.model import BaseModel
from mmengine.optim import OptimWrapper, OptimWrapperDict
from torch import Tensor

from ..archs.spec import spec_of
from ..config.check import has_schema, misfits
from ..config.loading import complete_paths
from ..config.options import Options
from ..inference.windows import restore_frames
from ..models.stvsr_model import STVSRModel
from ..registry import MODELS

# Options of `train` that are not the model's here -> where a config of mmengine has them
OF_RUNNER = {
    'optim_g': 'optim_wrapper', 'optim_d': 'optim_wrapper.net_d', 'lr_mul': 'optim_wrapper.paramwise_cfg',
    'grad_clip': 'optim_wrapper.clip_grad', 'accumulate': 'optim_wrapper.accumulative_counts',
    'amp': "optim_wrapper.type='AmpOptimWrapper'", 'scheduler': "param_scheduler, type='RecipeLR'",
    'warmup_iter': "param_scheduler, type='RecipeLR'",
    'total_iter': 'train_cfg.max_iters', 'unit': 'train_cfg', 'ema_decay': "custom_hooks, type='EMAHook'",
    'compile': 'compile', 'max_nonfinite': 'the loop of BasicSR alone'}
# What the check of options asks for nevertheless; nothing is done by it
UNUSED = {
    'optim_g': {'type': 'SGD', 'lr': 1.0}, 'scheduler': {'type': 'MultiStepLR', 'milestones': []}, 'total_iter': 1}
OF_PREDICTION = {'overlap', 'tile', 'reset_at_cuts'}  # the options of `val` that are not the evaluator's or the loop's
OF_CLIP = 'lq', 'gt', 'gt_start', 'lq_flow'  # parts of a sample by which a clip is restored


class LossesOnly:
    """Mixin for a model of BasicSR of which mmengine takes the steps."""

    def setup_optimizers(self) -> None:
        pass

    def setup_schedulers(self) -> None:
        pass


@MODELS.register_module()
class RecipeModel(BaseModel):
    """Trains and restores as a paper's model does, whose `prepare_batch` and `compute_losses` it calls.

    Its arguments are blocks of an option file. What mmengine has elsewhere in a config, such as optimisers, is refused
    here. An adversarial training has an optimiser for each network, see `NetworkOptimWrapperConstructor`.

    Args:
        model_type: the paper's model, such as HOFFRModel.
        scale: how many times higher and wider frames become.
        network_g: the network: {type, arguments}.
        network_d: the discriminator of an adversarial training.
        train: the losses, and what else is the paper's own; None: it is only tested.
        val: overlap, tile and reset_at_cuts, for clips that are validated or tested.
        path: pretrain_network_g and pretrain_network_d, files of weights of BasicSR, and how they are read.
        data_preprocessor, init_cfg: as BaseModel takes them.

    Attributes:
        recipe: the paper's model.
        net_g, net_d: its networks; net_d is None without an adversarial training.

    Raises:
        ValueError: an option is unknown or does not fit; a line for each, which begins with `model.`.
        FileNotFoundError: a file of `path` is missing.
    """

    def __init__(self, *, model_type: str, scale: int, network_g: dict[str, Any],
                 network_d: dict[str, Any] | None = None, train: dict[str, Any] | None = None,
                 val: dict[str, Any] | None = None, path: dict[str, Any] | None = None,
                 data_preprocessor: dict[str, Any] | None = None, init_cfg: dict[str, Any] | None = None):
        super().__init__(data_preprocessor, init_cfg)
        self.recipe = build_recipe({
            'model_type': model_type, 'scale': scale, 'network_g': network_g, 'network_d': network_d, 'train': train,
            'val': val, 'path': path})
        self.net_g = self.recipe.net_g
        self.net_d = getattr(self.recipe, 'net_d', None)

    def forward(self, lq: Tensor | list[Tensor], mode: str = 'tensor', **others: Any) -> (
            Tensor | dict[str, Tensor] | list[dict[str, Any]]):
        """The three things that mmengine asks a model for.

        Args:
            lq: (B, T, C, H, W), or a list of clips, 0-1.
            mode: 'tensor': the network's output, (B, U, C, sH, sW); 'loss': weighted loss terms by name; 'predict': of
                each clip a dict of `frames`, pairs of number and (C, sH, sW), 0-1, on the CPU, and `temporal_scale`.
            others: the rest of the batch, as a data set of this package gives it.
        """
        if mode == 'tensor':
            flow = others.get('lq_flow')
            return self.net_g(lq) if flow is None else self.net_g(*self.bare_net.inputs(lq, flow))
        batch = {'lq': lq, **others}
        if mode == 'loss':
            return self.fed_with(batch).compute_losses()
        if mode == 'predict':
            return [self.restore({name: batch[name][i] for name in OF_CLIP if name in batch}) for i in range(len(lq))]
        raise ValueError(f"mode must be 'tensor', 'loss' or 'predict', but is {mode!r}")

    @property
    def bare_net(self) -> torch.nn.Module:
        return self.recipe.get_bare_model(self.net_g)

    # ---------------------------------------------------------------- training

    def fed_with(self, batch: Mapping[str, Any]) -> STVSRModel:
        """The paper's model, ready to compute the losses of a batch.

        Raises:
            ValueError: it has no losses, or the batch does not fit the network.
        """
        if not self.recipe.is_train:
            raise ValueError('model.train is missing: the losses to train on')
        # mmengine may have put them into DistributedDataParallel.
        self.recipe.net_g, self.recipe.net_d = self.net_g, self.net_d
        self.recipe.feed_data({name: stacked(values) for name, values in batch.items()})
        return self.recipe

    def train_step(self, data: Mapping[str, Any], optim_wrapper: OptimWrapper | OptimWrapperDict) -> dict[str, Tensor]:
        """A step of the network; of an adversarial training first of the generator, then of the discriminator.

        Returns:
            loss terms and their sum, for the log.

        Raises:
            ValueError: the batch does not fit the network, or two networks have one optimiser.
        """
        if self.net_d is None:
            return super().train_step(data, optim_wrapper)
        if not isinstance(optim_wrapper, OptimWrapperDict):
            raise ValueError("an adversarial training needs optim_wrapper=dict(constructor='NetworkOptimWrapper"
                             "Constructor', net_g=dict(optimizer=...), net_d=dict(optimizer=...))")
        recipe = self.fed_with(self.data_preprocessor(data, True))
        recipe.made.clear()
        log = self.step_generator(optim_wrapper['net_g'])
        recipe.statistics = {f'{name}_d_{kind}': torch.zeros((), device=recipe.device)
                             for name in ('score', 'accuracy') for kind in ('real', 'fake')}
        with optim_wrapper['net_d'].optim_context(self.net_d):
            losses = recipe.compute_discriminator_losses()
        optim_wrapper['net_d'].update_params(sum(losses.values()))
        return log | losses | recipe.statistics

    def step_generator(self, optim_wrapper: OptimWrapper) -> dict[str, Tensor]:
        """Makes the frames, and takes a step where it is the generator's turn; see AdaptiveGANModel."""
        recipe, number = self.recipe, MessageHub.get_current_instance().get_info('iter', 0) + 1
        if not recipe.is_turn_of_generator(number):
            with torch.no_grad(), optim_wrapper.optim_context(self.net_g):
                recipe.make_frames()
            return {}
        self.net_d.requires_grad_(False)
        with optim_wrapper.optim_context(self.net_g):
            loss, log = self.parse_losses(recipe.compute_losses())
        optim_wrapper.update_params(loss)
        self.net_d.requires_grad_(True)
        return log

    # mmengine's adds up only those terms whose name has 'loss' in it.
    def parse_losses(self, losses: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        """The sum of all terms, and what the log tells."""
        loss = sum(losses.values())
        return loss, OrderedDict(loss=loss, **losses)

    # ---------------------------------------------------------------- clips

    def restore(self, clip: Mapping[str, Any]) -> dict[str, Any]:
        """Restores a whole clip, as a validation of BasicSR's loop does here.

        Args:
            clip: `lq` (T, C, H, W), and what else of OF_CLIP there is.
        """
        recipe, net = self.recipe, self.bare_net
        lq = recipe.given_frames(net, clip)
        spec = spec_of(net)
        cuts = recipe.cuts(net, lq, spec.color or 'rgb')
        frames = restore_frames(
            net, *recipe.network_inputs(lq, clip), overlap=recipe.opt['val'].get('overlap'), cuts=cuts)
        return {'frames': [(number, frame.cpu()) for number, (frame,) in frames], 'temporal_scale': spec.temporal_scale}


def stacked(values: Any) -> Any:
    """A batch of samples of which mmengine's pseudo_collate, its default, has made a list."""
    is_list = isinstance(values, list) and bool(values) and torch.is_tensor(values[0])
    return torch.stack(values) if is_list else values


# ---------------------------------------------------------------- options

def build_recipe(blocks: Mapping[str, Any]) -> STVSRModel:
    """A paper's model without optimisers, from blocks of options of which some may be None.

    Raises:
        ValueError: an option is unknown or does not fit; a line for each.
    """
    blocks = ConfigDict({name: block for name, block in blocks.items() if block is not None}).to_dict()
    if not has_schema(blocks):
        raise ValueError(f'model.model_type must be a model of this package, such as HOFFRModel, but is '
                         f'{blocks["model_type"]!r}')
    is_train = 'train' in blocks
    refuse_options_of_runner(blocks)
    if is_train:
        blocks['train'] |= UNUSED | ({'optim_d': UNUSED['optim_g']} if blocks['train'].get('gan_opt') else {})
    opt = checked({'name': blocks['model_type'], 'datasets': {}, **blocks})
    # Device by device, which mmengine chooses; it also wraps the model where there are several processes.
    opt |= {'num_gpu': int(get_device() == 'cuda'), 'dist': False, 'rank': 0, 'world_size': 1, 'is_train': is_train,
            # Of flows that the losses ask for, the batches tell
            'datasets': {'train': {'dataroot_flow': 'batch'}}}
    opt.setdefault('val', {})
    complete_paths(opt, root_path='')
    model_class = MODEL_REGISTRY.get(opt['model_type'])
    return type(model_class.__name__, (LossesOnly, model_class), {})(opt)


def refuse_options_of_runner(blocks: Mapping[str, Any]) -> None:
    """Raises ValueError where options stand in the model that mmengine has elsewhere."""
    problems = [f'model.train.{name} is not for the model, but for {OF_RUNNER[name]}'
                for name in blocks.get('train', {}) if name in OF_RUNNER]
    problems += [f'model.val.{name} is not for the model, whose are {", ".join(sorted(OF_PREDICTION))}; metrics and '
                 'average are ClipMetrics\'' for name in blocks.get('val', {}) if name not in OF_PREDICTION]
    if problems:
        raise ValueError('\n'.join(problems))


def checked(opt: dict[str, Any]) -> dict[str, Any]:
    """The options with defaults filled in, checked as those of a file are."""
    options = Options.read(opt, 'model.')
    problems = [f'model.{problem}' for problem in misfits(opt, options)]
    if problems:
        raise ValueError('\n'.join(problems))
    return options.complete()
