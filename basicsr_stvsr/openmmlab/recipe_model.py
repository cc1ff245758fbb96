"""Systems of this package under mmengine's Runner: losses and data of a paper, with mmengine's steps and logs.

Shapes: B clips, T input frames, U output frames, H x W pixels of the LR grid, s = scale.
"""
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any, cast

import torch
from basicsr.utils.registry import MODEL_REGISTRY
from mmengine.config import ConfigDict
from mmengine.device import get_device
from mmengine.logging import MessageHub
from mmengine.model import BaseModel
from mmengine.optim import OptimWrapper, OptimWrapperDict
from torch import Tensor

from ..archs.arch_util import total
from ..archs.spec import spec_of
from ..config.check import has_schema, misfits
from ..config.loading import complete_paths
from ..config.options import Options
from ..data.items import Batch, Clip
from ..inference.windows import restore_frames
from ..models.adaptive_gan_model import AdaptiveGANModel
from ..models.stvsr_model import STVSRModel
from ..registry import MODELS
from .clip_metrics import RestoredClip

# Options of `train` that are not the model's here -> where they are in an mmengine config
OF_RUNNER = {
    'optim_g': 'optim_wrapper', 'optim_d': 'optim_wrapper.net_d', 'lr_mul': 'optim_wrapper.paramwise_cfg',
    'grad_clip': 'optim_wrapper.clip_grad', 'accumulate': 'optim_wrapper.accumulative_counts',
    'amp': "optim_wrapper.type='AmpOptimWrapper'", 'scheduler': "param_scheduler, type='RecipeLR'",
    'warmup_iter': "param_scheduler, type='RecipeLR'",
    'total_iter': 'train_cfg.max_iters', 'unit': 'train_cfg', 'ema_decay': "custom_hooks, type='EMAHook'",
    'compile': 'compile', 'max_nonfinite': 'the loop of BasicSR alone'}
# Placeholders for options that the check requires but that have no effect here
UNUSED = {
    'optim_g': {'type': 'SGD', 'lr': 1.0}, 'scheduler': {'type': 'MultiStepLR', 'milestones': []}, 'total_iter': 1}
OF_PREDICTION = {'overlap', 'tile', 'reset_at_cuts'}  # options of `val` for the model; others are for evaluator or loop
OF_CLIP = 'lq', 'gt', 'gt_start', 'lq_flow'  # parts of a sample needed to restore a clip


class LossesOnly:
    """Mixin for a BasicSR model whose optimiser steps are run by mmengine."""

    def setup_optimizers(self) -> None:
        pass

    def setup_schedulers(self) -> None:
        pass


@MODELS.register_module()
class RecipeModel(BaseModel):
    """Train and restore with the model of a paper, by calling its `prepare_batch` and `compute_losses`.

    The arguments are blocks of an option file. Options that belong elsewhere in an mmengine config, such as optimisers,
    are refused. Adversarial training needs an optimiser for each network, see `NetworkOptimWrapperConstructor`.

    Args:
        model_type: the paper's model, such as HOFFRModel.
        scale: upscaling factor.
        network_g: the network: {type, arguments}.
        network_d: the discriminator for adversarial training.
        train: losses and other options of the paper; None: test only.
        val: overlap, tile and reset_at_cuts, for validation and test clips.
        path: pretrain_network_g and pretrain_network_d, BasicSR weight files, and how to read them.
        data_preprocessor, init_cfg: see BaseModel.

    Attributes:
        recipe: the paper's model.
        net_g, net_d: its networks; net_d is None without adversarial training.

    Raises:
        ValueError: an option is unknown or does not fit; one line each, starting with `model.`.
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
            Tensor | dict[str, Tensor] | list[RestoredClip]):
        """Run one of mmengine's three forward modes.

        Args:
            lq: (B, T, C, H, W), or a list of clips, 0-1.
            mode: 'tensor': return the network's output, (B, U, C, sH, sW); 'loss': return weighted loss terms by name;
                'predict': return a `RestoredClip` for each clip.
            others: the rest of the batch, from a data set of this package.
        """
        if mode == 'tensor':
            flow = others.get('lq_flow')
            inputs = (lq,) if flow is None else cast(Any, self.bare_net).inputs(lq, flow)
            return cast(Tensor, self.net_g(*inputs))
        batch = {'lq': lq, **others}
        if mode == 'loss':
            return self.fed_with(batch).compute_losses()
        if mode == 'predict':
            clips = ({name: batch[name][i] for name in OF_CLIP if name in batch} for i in range(len(lq)))
            return [self.restore(cast(Clip, clip)) for clip in clips]
        raise ValueError(f"mode must be 'tensor', 'loss' or 'predict', but is {mode!r}")

    @property
    def bare_net(self) -> torch.nn.Module:
        return self.recipe.get_bare_model(self.net_g)

    # ---------------------------------------------------------------- training

    def fed_with(self, batch: Mapping[str, Any]) -> STVSRModel:
        """Feed a batch to the paper's model, and return the model.

        Raises:
            ValueError: the model has no losses, or the batch does not fit the network.
        """
        if not self.recipe.is_train:
            raise ValueError('model.train is missing: the losses to train on')
        # mmengine may have wrapped them in DistributedDataParallel.
        self.recipe.net_g = self.net_g
        if isinstance(self.recipe, AdaptiveGANModel):
            self.recipe.net_d = self.net_d
        self.recipe.feed_data(cast(Batch, {name: stacked(values) for name, values in batch.items()}))
        return self.recipe

    def train_step(self, data: Mapping[str, Any], optim_wrapper: OptimWrapper | OptimWrapperDict) -> dict[str, Tensor]:
        """Run a training step; for adversarial training, first of the generator, then of the discriminator.

        Returns:
            loss terms and their sum, for the log.

        Raises:
            ValueError: the batch does not fit the network, or two networks share one optimiser.
        """
        if self.net_d is None:
            return cast(dict[str, Tensor], super().train_step(data, optim_wrapper))
        if not isinstance(optim_wrapper, OptimWrapperDict):
            raise ValueError('adversarial training needs '
                             "optim_wrapper=dict(constructor='NetworkOptimWrapperConstructor', "
                             'net_g=dict(optimizer=...), net_d=dict(optimizer=...))')
        recipe = cast(AdaptiveGANModel, self.fed_with(self.data_preprocessor(data, True)))
        recipe.made.clear()
        log = self.step_generator(optim_wrapper['net_g'])
        recipe.statistics = {f'{name}_d_{kind}': torch.zeros((), device=recipe.device)
                             for name in ('score', 'accuracy') for kind in ('real', 'fake')}
        with optim_wrapper['net_d'].optim_context(self.net_d):
            losses = recipe.compute_discriminator_losses()
        optim_wrapper['net_d'].update_params(sum(losses.values()))
        return log | losses | recipe.statistics

    def step_generator(self, optim_wrapper: OptimWrapper) -> dict[str, Tensor]:
        """Make the frames, and run a generator step if it is the generator's turn; see AdaptiveGANModel."""
        recipe, number = cast(AdaptiveGANModel, self.recipe), MessageHub.get_current_instance().get_info('iter', 0) + 1
        if not recipe.is_turn_of_generator(number):
            with torch.no_grad(), optim_wrapper.optim_context(self.net_g):
                recipe.make_frames()
            return {}
        assert self.net_d is not None
        self.net_d.requires_grad_(False)
        with optim_wrapper.optim_context(self.net_g):
            loss, log = self.parse_losses(recipe.compute_losses())
        optim_wrapper.update_params(loss)
        self.net_d.requires_grad_(True)
        return log

    # mmengine's version adds up only terms with 'loss' in their names.
    def parse_losses(self, losses: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the sum of all terms, and the values for the log."""
        loss = total(losses.values())
        return loss, OrderedDict(loss=loss, **losses)

    # ---------------------------------------------------------------- clips

    def restore(self, clip: Clip) -> RestoredClip:
        """Restore a whole clip, as validation in this package's BasicSR loop does.

        Args:
            clip: of a data set, with the keys of OF_CLIP.
        """
        recipe, net = self.recipe, self.bare_net
        lq = recipe.given_frames(net, clip)
        spec = spec_of(net)
        cuts = recipe.cuts(net, lq, spec.color or 'rgb')
        frames = restore_frames(
            net, *recipe.network_inputs(lq, clip), overlap=recipe.opt['val'].get('overlap'), cuts=cuts)
        return {'frames': [(number, frame.cpu()) for number, (frame,) in frames], 'temporal_scale': spec.temporal_scale}


def stacked(values: Any) -> Any:
    """Stack samples that mmengine's default, pseudo_collate, has put into a list."""
    is_list = isinstance(values, list) and bool(values) and torch.is_tensor(values[0])
    return torch.stack(values) if is_list else values


# ---------------------------------------------------------------- options

def build_recipe(blocks: dict[str, Any]) -> STVSRModel:
    """Build a paper's model without optimisers from blocks of options; blocks may be None.

    Raises:
        ValueError: an option is unknown or does not fit; one line each.
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
    # mmengine chooses the device, and wraps the model if there are several processes.
    opt |= {'num_gpu': int(get_device() == 'cuda'), 'dist': False, 'rank': 0, 'world_size': 1, 'is_train': is_train,
            # For the check: batches contain the flows that losses need
            'datasets': {'train': {'dataroot_flow': 'batch'}}}
    opt.setdefault('val', {})
    complete_paths(opt, root_path='')
    model_class = MODEL_REGISTRY.get(opt['model_type'])
    return cast(STVSRModel, type(model_class.__name__, (LossesOnly, model_class), {})(opt))


def refuse_options_of_runner(blocks: Mapping[str, Any]) -> None:
    """Raise ValueError for options in the model that belong elsewhere in an mmengine config."""
    problems = [f'model.train.{name} is not an option of the model; use {OF_RUNNER[name]}'
                for name in blocks.get('train', {}) if name in OF_RUNNER]
    problems += [f'model.val.{name} is not an option of the model, which has {", ".join(sorted(OF_PREDICTION))}; '
                 'metrics and average are options of '
                 'ClipMetrics' for name in blocks.get('val', {}) if name not in OF_PREDICTION]
    if problems:
        raise ValueError('\n'.join(problems))


def checked(opt: dict[str, Any]) -> dict[str, Any]:
    """Check the options like those of a file, and fill in defaults."""
    options = Options.read(opt, 'model.')
    problems = [f'model.{problem}' for problem in misfits(opt, options)]
    if problems:
        raise ValueError('\n'.join(problems))
    return options.complete()
