"""Spatially Adaptive Losses for Video Super-Resolution with GANs, and its baseline VSRResFeatGAN: both stages."""
from collections.abc import Iterable
from typing import Self, cast

import torch
from basicsr.archs import build_network
from basicsr.utils.registry import MODEL_REGISTRY
from pydantic import model_validator
from torch import Tensor, nn

from ..archs.vsrresnet_arch import VSRResDiscriminator
from ..config import Count, Loss, Optimizer, Positive, TrainOptions
from ..config.block import refuse_field
from ..data.sample_order import BuiltDataset
from .clip_model import color_of
from .stvsr_model import STVSRModel

# Discriminator output at which a frame is as likely true as generated
DECISION = {'vanilla': 0.0, 'hinge': 0.0, 'lsgan': 0.5}


class AdaptiveGANTrainOptions(TrainOptions):
    """`train` of AdaptiveGANModel: eq. 13; each term is optional."""

    has_discriminator = True

    pixel_opt: Loss | None = None  # type: ignore[assignment]  # only here it may be absent
    """Loss on the frames: {type: MSELoss} in stage 1, {type: SpatiallyAdaptiveCharbonnierLoss, ...} in stage 2."""
    feature_opt: Loss | None = None
    """Loss on features of VGG: {type: SpatiallyAdaptiveFeatureLoss, alpha, beta, feature_net}."""
    gan_opt: Loss | None = None
    """Adversarial loss: {type: GANLoss, gan_type: vanilla, loss_weight}; needs network_d and optim_d."""
    optim_d: Optimizer | None = None
    """Optimiser of the discriminator: {type, lr, ...}."""
    net_d_iters: Positive = 1
    """Iterations between two steps of the generator; the discriminator takes a step in every iteration."""
    net_d_init_iters: Count = 0
    """Iterations at the start in which the discriminator learns alone."""

    @model_validator(mode='after')
    def check_losses(self) -> Self:
        if not (self.pixel_opt or self.feature_opt or self.gan_opt):
            raise refuse_field('pixel_opt', 'is missing, and so are feature_opt and gan_opt; set at least one of them')
        if (self.gan_opt is None) != (self.optim_d is None):
            given, missing = ('gan_opt', 'optim_d') if self.gan_opt else ('optim_d', 'gan_opt')
            raise refuse_field(missing, f'is missing, but {given} is set')
        if self.gan_opt and self.gan_opt.get('gan_type') not in DECISION:
            raise refuse_field('gan_opt.gan_type', f'must be one of {", ".join(DECISION)}, but is '
                               f'{self.gan_opt.get("gan_type")}')
        return self


@MODEL_REGISTRY.register()
class AdaptiveGANModel(STVSRModel):
    """Stage 1 uses a loss on the frames only; stage 2 adds a feature loss and a discriminator (eq. 13).

    The baseline VSRResFeatGAN is the same with the weights `beta` at zero. In each iteration the generator takes a step
    first. Then the discriminator takes one, on the frames that the generator made before its step.
    """

    train_options = AdaptiveGANTrainOptions
    train_opt: AdaptiveGANTrainOptions

    # ---------------------------------------------------------------- setting up

    def init_training_settings(self) -> None:
        self.net_d: nn.Module | None = None
        if self.train_opt.gan_opt:
            # Between the discriminator's two batches and their backward pass, running means from another process must
            # not change what that pass needs. The running means are never used, since nothing is scored with the
            # discriminator.
            self.net_d = self.model_to_device(build_network(self.opt['network_d']), broadcast_buffers=False)
            self.print_network(self.net_d)
            path = self.opt['path'].get('pretrain_network_d')
            if path:
                self.load_network(self.net_d, path, self.opt['path'].get('strict_load_d', True))
            self.net_d.train()
        super().init_training_settings()

    def init_losses(self) -> None:
        self.cri_pix = self.optional_loss(self.train_opt.pixel_opt)
        self.cri_feature = self.optional_loss(self.train_opt.feature_opt)
        self.cri_gan = self.optional_loss(self.train_opt.gan_opt)
        self.made: list[tuple[Tensor, Tensor]] = []  # generated and true frames, for each part of the batch

    def setup_optimizers(self) -> None:
        super().setup_optimizers()
        if self.net_d and self.train_opt.optim_d:
            arguments = dict(self.train_opt.optim_d)
            self.optimizer_d = self.get_optimizer(arguments.pop('type'), self.net_d.parameters(), **arguments)
            self.optimizers.append(self.optimizer_d)

    def check_data(self, train_set: BuiltDataset, val_sets: Iterable[BuiltDataset]) -> None:
        super().check_data(train_set, val_sets)
        net_d = self.get_bare_model(self.net_d) if self.net_d else None
        num_channels, h, w = self.gt.shape[-3:]
        if not isinstance(net_d, VSRResDiscriminator):  # BasicSR's do not state what they take
            return
        if net_d.num_in_ch != num_channels:
            raise ValueError(f'network_d.num_in_ch is {net_d.num_in_ch}, but frames of datasets.train have '
                             f'{num_channels} channels (color: {color_of(train_set)})')
        if (h, w) != (net_d.patch_size, net_d.patch_size):
            raise ValueError(f'network_d.patch_size is {net_d.patch_size}, but frames of datasets.train are {h}x{w}: '
                             'both must equal gt_size')

    # ---------------------------------------------------------------- training

    @property
    def discriminator(self) -> nn.Module:
        """`net_d`, in a training that has one."""
        assert self.net_d is not None
        return self.net_d

    def compute_losses(self) -> dict[str, Tensor]:
        frames = self.make_frames()
        losses = {}
        if self.cri_pix:
            losses['l_pix'] = self.cri_pix(frames, self.gt)
        if self.cri_feature:
            losses['l_feature'] = self.cri_feature(frames, self.gt)
        if self.cri_gan:
            # The bare network: its gradients here are not for its own step, so processes need not share them.
            scores = self.get_bare_model(self.discriminator)(frames.flatten(0, 1))
            losses['l_gan'] = self.cri_gan(scores, True, is_disc=False)
        return losses

    def make_frames(self) -> Tensor:  # (B, U, C, sH, sW)
        frames: Tensor = self.net_g(self.lq)
        self.made.append((frames.detach().flatten(0, 1), self.gt.flatten(0, 1)))
        return frames

    def compute_discriminator_losses(self) -> dict[str, Tensor]:
        fake, real = self.made.pop(0)
        scores = {'real': self.discriminator(real), 'fake': self.discriminator(fake)}
        assert self.cri_gan is not None  # it trains the discriminator
        middle = DECISION[cast(str, self.cri_gan.gan_type)]
        right = {'real': scores['real'] > middle, 'fake': scores['fake'] < middle}
        for kind, score in scores.items():
            for name, values in (('score', score.detach()), ('accuracy', right[kind])):
                self.statistics[f'{name}_d_{kind}'] += values.float().mean() / len(self.parts)
        return {f'loss_d_{kind}': self.cri_gan(score, kind == 'real', is_disc=True) for kind, score in scores.items()}

    def optimize_parameters(self, current_iter: int) -> None:
        """Take one step of both networks on the batch, the generator first.

        Raises:
            NonFiniteError: see STVSRModel; if the discriminator's step fails, the generator has already taken its step.
        """
        self.made.clear()
        if not self.net_d:
            super().optimize_parameters(current_iter)
            return
        self.samples += self.batch_size * self.opt['world_size']
        is_taken = self.step_generator(current_iter) and self.step_discriminator(current_iter)
        if is_taken:
            self.skipped_in_a_row = 0
        self.update_scaler()

    def is_turn_of_generator(self, current_iter: int) -> bool:
        return (current_iter > self.train_opt.net_d_init_iters
                and current_iter % self.train_opt.net_d_iters == 0)

    def step_generator(self, current_iter: int) -> bool:
        """Generate the frames, and take a step if it is the generator's turn; return whether all values were finite."""
        if not self.is_turn_of_generator(current_iter):
            for part in self.parts:
                self.use_part(part)
                with torch.no_grad(), self.autocast():
                    self.make_frames()
            return True
        self.discriminator.requires_grad_(False)
        self.optimizer_g.zero_grad(set_to_none=True)
        losses = self.backward(self.net_g, self.compute_losses)
        self.discriminator.requires_grad_(True)
        is_taken = self.step(self.optimizer_g, losses, current_iter)
        if is_taken:
            self.average_weights(current_iter)
        return is_taken

    def step_discriminator(self, current_iter: int) -> bool:
        """Take the discriminator's step; return whether all values were finite."""
        self.statistics |= {f'{name}_d_{kind}': torch.zeros((), device=self.device)
                            for name in ('score', 'accuracy') for kind in ('real', 'fake')}
        self.optimizer_d.zero_grad(set_to_none=True)
        losses = self.backward(self.discriminator, self.compute_discriminator_losses, reads_batch=False)
        return self.step(self.optimizer_d, losses, current_iter, net_name='net_d')

    # ---------------------------------------------------------------- checkpoints

    def save(self, epoch: int, current_iter: int) -> None:
        if self.net_d:
            self.save_network(self.net_d, 'net_d', current_iter)
        super().save(epoch, current_iter)  # save the training state last
