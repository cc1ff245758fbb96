"""MBNet's recipe: eq. 11 of How Video Super-Resolution and Frame Interpolation Mutually Benefit (ACM MM 2021)."""
from collections.abc import Mapping
from typing import Any, Literal, Self, cast

import torch
from basicsr.utils.logger import get_root_logger
from basicsr.utils.registry import DATASET_REGISTRY, MODEL_REGISTRY
from pydantic import model_validator
from torch import Tensor, nn
from torch.nn import functional as F

from ..archs.arch_util import total, train_alone
from ..archs.flow_teacher import RAFTTeacher
from ..archs.mbnet_arch import MBNet, MBNetAux
from ..archs.spec import spec_of
from ..config import Loss, TrainOptions
from ..config.block import refuse_field
from ..data.clip_options import TrainSampleOptions
from ..data.items import Batch, Clip
from ..inference.tiles import pad_to_multiple
from .stvsr_model import STVSRModel


class MBNetTrainOptions(TrainOptions):
    """`train` of MBNetModel: terms of the loss without a block are off."""

    pixel_opt: Loss
    """L^SR (eq. 7), mean over pixels, summed over the three frames."""
    iter_weights: list[float] | None = None
    """Weight of L^SR after each round; default: the last round only, as eq. 7 has it."""
    lq_flow_opt: Loss | None = None
    """The LR part of L^flow (eq. 8), loss_weight = lambda_a lambda_2."""
    hr_flow_opt: Loss | None = None
    """The HR part of L^flow (eq. 8), loss_weight = lambda_a lambda_1."""
    flow_loss_images: Literal['sr_detach', 'sr', 'gt'] = 'sr_detach'
    """Frames on which the HR part judges the flow: sr_detach (the output, which gets no gradient from it), sr, or gt,
    the safest early in a training."""
    flow_sup_opt: Loss | None = None
    """L^FLOW (eq. 10), loss_weight = lambda_b. Its target comes with the batch (dataroot_flow or stills of
    datasets.train) or from RAFT (raft_weights); without either it is off, and the log says so."""
    flow_only: bool = False
    """Train the flow net alone, as a first stage (ours). The flow losses are computed on the LR grid, in LR pixels,
    against ground truth of that size. A step then takes a fifth of the time of a full one."""
    vsr_only: bool = False
    """Train the VSR net alone, on the given frames, with pixel_opt; a stage before or after that of the whole network
    (ours). The other parts do not change. A step takes half the time of a full one in options/train_mbnet_small.yml."""
    vfi_only: bool = False
    """Train all parts but the VSR net, on the frames between the given ones; a stage after that of the whole network
    (ours)."""
    raft_weights: str | None = None
    """Weights file of torchvision's raft_large."""
    raft_direction: Literal['sampling', 'printed'] = 'sampling'
    """Which flows of RAFT are the target. sampling: those that warp both ends to the middle. printed: those of eq. 9 as
    printed, with the opposite sign and on the other grid, for comparison only."""

    @model_validator(mode='after')
    def check_stage(self) -> Self:
        if self.flow_only and not (self.lq_flow_opt or self.hr_flow_opt or self.flow_sup_opt):
            raise refuse_field('flow_only', 'needs a loss on the flow: lq_flow_opt, hr_flow_opt or flow_sup_opt')
        if self.flow_only and self.hr_flow_opt and self.flow_loss_images != 'gt':
            raise refuse_field('flow_loss_images', 'must be gt with flow_only, which restores no frames, but is '
                               f'{self.flow_loss_images}')
        stages = [stage for stage in ('vfi_only', 'vsr_only', 'flow_only') if getattr(self, stage)]
        if len(stages) > 1:
            raise refuse_field(stages[0], f'and {stages[1]} are two stages: set one of them')
        if self.vsr_only and (self.lq_flow_opt or self.hr_flow_opt or self.flow_sup_opt):
            raise refuse_field('vsr_only', 'trains no flow: remove lq_flow_opt, hr_flow_opt and flow_sup_opt')
        return self

    def check_network(self, net: nn.Module) -> None:
        super().check_network(net)
        if self.iter_weights and len(self.iter_weights) != net.num_iters:
            raise ValueError(f'train.iter_weights must hold {net.num_iters} numbers, one for each round, but is '
                             f'{self.iter_weights}')


@MODEL_REGISTRY.register()
class MBNetModel(STVSRModel):
    """L = L^SR + lambda_a L^flow + lambda_b L^FLOW, see `MBNetTrainOptions`."""

    train_options = MBNetTrainOptions
    train_opt: MBNetTrainOptions
    cri_pix: nn.Module

    def init_losses(self) -> None:
        super().init_losses()
        num_iters = cast(MBNet, self.get_bare_model(self.net_g)).num_iters
        self.iter_weights = self.train_opt.iter_weights or [0] * (num_iters - 1) + [1]
        self.flow_loss_images = self.train_opt.flow_loss_images
        self.cri_lq_flow = self.optional_loss(self.train_opt.lq_flow_opt)
        self.cri_hr_flow = self.optional_loss(self.train_opt.hr_flow_opt)
        self.init_supervision()

    def init_supervision(self) -> None:
        """Set up L^FLOW, or log why it is off."""
        self.cri_flow_sup = self.optional_loss(self.train_opt.flow_sup_opt)
        self.raft_direction = self.train_opt.raft_direction
        self.teacher = None
        if self.cri_flow_sup is None:
            return
        if self.train_opt.raft_weights:
            self.teacher = RAFTTeacher(self.train_opt.raft_weights).to(self.device)
        elif not has_flows(self.opt['datasets']['train']):
            self.cri_flow_sup = None
            get_root_logger().warning(
                "L^FLOW (train.flow_sup_opt) is off: it needs train.raft_weights (a weights file of torchvision's "
                'raft_large), datasets.train.dataroot_flow (precomputed flows) or stills (exact flow).')

    def prepare_batch(self, data: Batch) -> None:
        super().prepare_batch(data)
        # (B, N, 2, 2, sH, sW): one pair of flows for each of the N windows of a clip
        self.flow = data['flow'].to(self.device).flatten(0, 1) if 'flow' in data else None

    def model_to_device(self, net: nn.Module, *, broadcast_buffers: bool = True) -> nn.Module:
        if self.is_train and (self.train_opt.flow_only or self.train_opt.vsr_only):
            train_alone(net, 'flow_net' if self.train_opt.flow_only else 'vsr_net')
        elif self.is_train and self.train_opt.vfi_only:
            net.vsr_net.requires_grad_(False)
        return super().model_to_device(net, broadcast_buffers=broadcast_buffers)

    def compute_losses(self) -> dict[str, Tensor]:
        if self.train_opt.flow_only:
            return self.flow_losses(self.net_g(self.lq, flow_only=True))
        if self.train_opt.vsr_only:
            given = self.gt[:, ::2]
            return {'l_sr': given.shape[1] * self.cri_pix(self.net_g(self.lq, vsr_only=True), given)}
        output, aux = self.net_g(self.lq, return_aux=True, vfi_only=self.train_opt.vfi_only)
        judged = slice(1, None, 2) if self.train_opt.vfi_only else slice(None)
        gt = self.gt[:, judged]
        losses = {'l_sr': total(
            weight * gt.shape[1] * self.cri_pix(frames[:, judged], gt)
            for weight, frames in zip(self.iter_weights, aux.rounds, strict=True) if weight)}
        return losses | self.flow_losses(aux, output)

    def flow_losses(self, aux: MBNetAux, output: Tensor | None = None) -> dict[str, Tensor]:
        """Return the loss terms on the flow.

        `output`, the network's frames, is None with flow_only.
        """
        losses = {}
        factor = self.gt.shape[-1] // aux.hr_flow_ta.shape[-1]  # above 1 with flow_only, where flows have LR size
        if self.cri_lq_flow:
            losses['l_flow_lr'] = self.cri_lq_flow(self.lq[:, 0], self.lq[:, 1], aux.lq_flows_ab, aux.lq_flows_ba)
        if self.cri_hr_flow:
            frames = reduce(self.gt, factor) if self.flow_loss_images == 'gt' else output
            if self.flow_loss_images == 'sr_detach':
                assert frames is not None  # flow_only needs flow_loss_images: gt
                frames = frames.detach()
            losses['l_flow_hr'] = self.cri_hr_flow(frames, aux.hr_flow_ta, aux.hr_flow_tb)
        if self.cri_flow_sup:
            targets = (reduce(flow, factor) / factor for flow in self.target_flows())
            losses['l_flow_sup'] = self.cri_flow_sup(aux.hr_flow_ta, aux.hr_flow_tb, *targets)
        return losses

    def target_flows(self) -> tuple[Tensor, Tensor]:
        """Return the teacher's flow_ta and flow_tb on the ground truth, each (B, 2, sH, sW)."""
        if self.teacher is None:
            if self.flow is None:
                raise ValueError('train.flow_sup_opt needs flows with every batch, but this data set has none; set '
                                 'datasets.train.dataroot_flow or train.raft_weights')
            return self.flow[:, 0], self.flow[:, 1]
        a, t, b = self.gt.unbind(1)
        if self.raft_direction == 'printed':  # flow_at and flow_bt
            return self.teacher(a, t), self.teacher(b, t)
        return self.teacher(t, a), self.teacher(t, b)

    @torch.no_grad()
    def flow_to_show(self, net: nn.Module, window: Tensor, item: Clip) -> Tensor:
        """Return the HR flow from the middle frame to the earlier one."""
        spec = spec_of(net)
        lq = pad_to_multiple(window, spec.size_multiple).to(self.device)
        aux: MBNetAux
        _, aux = net(lq, return_aux=True)
        h, w = (side * spec.scale for side in window.shape[-2:])
        return aux.hr_flow_ta[0, :, :h, :w]


def has_flows(dataset_opt: Mapping[str, Any]) -> bool:
    """Return whether a data set with these options provides flows to the middle frames."""
    options = getattr(DATASET_REGISTRY.get(dataset_opt['type']), 'options', None)
    return (options is not None and issubclass(options, TrainSampleOptions)
            and 'flow' in options.read(dataset_opt).optional_keys)


def reduce(x: Tensor, factor: int) -> Tensor:  # (..., H, W) -> (..., H / factor, W / factor)
    """Average blocks of factor x factor pixels."""
    return F.avg_pool2d(x.flatten(0, -4), factor).unflatten(0, x.shape[:-3]) if factor > 1 else x
