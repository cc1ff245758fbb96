"""HOFFR's recipe: sharp HR frames, sharp LR frames and the flow between them, over whole sequences."""
from collections.abc import Sequence
from typing import Any, cast

import torch
from basicsr.utils.registry import LOSS_REGISTRY, MODEL_REGISTRY
from pydantic import field_validator
from torch import Tensor, nn

from ..archs.arch_util import train_alone
from ..archs.hoffr_arch import HOFFR, FlowLevels, neighbours
from ..archs.spec import spec_of
from ..config import Loss, Positive, TrainOptions
from ..config.block import refuse_field
from ..data.items import Batch, Clip
from ..inference.tiles import pad_to_multiple
from ..losses.flow_loss import PyramidWarpLoss
from .stvsr_model import STVSRModel


class HOFFRTrainOptions(TrainOptions):
    """`train` of HOFFRModel: the terms of HOFFR's loss."""

    pixel_opt: Loss
    """L_SR, on the frames."""
    deblur_opt: Loss | None = None
    """L_DB, on the LR frames of the deblurring branch; needed where the network has that branch."""
    flow_opt: Loss | None = None
    """L_OF, on the flow between neighbours: {type: PyramidWarpLoss, loss_weight, level_weights, distance,
    smooth_weight, smooth_unit}."""
    flow_only: bool = False
    """Train the flow network alone, with flow_opt, in a stage before the whole network. A step takes a tenth of the
    time, and the recurrence starts with useful flow."""
    truncate: Positive | None = None
    """Largest number of frames that gradients go back (truncated back-propagation through time); default: all frames of
    a sample."""

    @field_validator('flow_opt')
    @classmethod
    def check_loss(cls, loss: dict[str, Any] | None) -> dict[str, Any] | None:
        if loss and not issubclass(LOSS_REGISTRY.get(loss['type']), PyramidWarpLoss):
            raise refuse_field('type', f'must be PyramidWarpLoss, but is {loss["type"]}')
        return loss

    def check_network(self, net: nn.Module) -> None:
        super().check_network(net)
        has_branch = isinstance(net, HOFFR) and net.deblur_branch is not None
        if has_branch and not self.deblur_opt:
            raise ValueError('train.deblur_opt is missing, but the network has a deblurring branch, which only this '
                             'loss trains; set network_g.deblur_branch: false for a network without it')
        if self.deblur_opt and not has_branch:
            raise ValueError(f'train.deblur_opt is set, but {type(net).__name__} has no deblurring branch')
        if self.flow_only and not self.flow_opt:
            raise ValueError('train.flow_opt is missing: it is the loss of train.flow_only')


@MODEL_REGISTRY.register()
class HOFFRModel(STVSRModel):
    """L = L_SR + L_DB + L_OF, each averaged over the frames of a sequence.

    Samples hold blurred frames `lq` (B, T, 3, H, W), with even H and W, and `gt`. They also hold `lq_sharp`, which the
    losses on LR frames need; see `dataroot_lq_sharp` and `lq_sharp` of the data set.
    """

    train_options = HOFFRTrainOptions
    train_opt: HOFFRTrainOptions
    cri_pix: nn.Module

    def model_to_device(self, net: nn.Module, *, broadcast_buffers: bool = True) -> nn.Module:
        if self.is_train and self.train_opt.flow_only:
            train_alone(net, 'flow_net')
        return super().model_to_device(net, broadcast_buffers=broadcast_buffers)

    def init_losses(self) -> None:
        super().init_losses()
        self.cri_deblur = self.optional_loss(self.train_opt.deblur_opt)
        self.cri_flow = self.optional_loss(self.train_opt.flow_opt)

    def prepare_batch(self, data: Batch) -> None:
        self.lq, self.gt = self.read_clips(data)
        if self.lq.shape[1] < 2:
            raise ValueError('HOFFR trains on sequences, but a sample has one frame; set num_frame in the data set (8 '
                             'in the paper)')
        self.lq_sharp: Tensor | None = None
        if self.cri_deblur or self.cri_flow:
            if 'lq_sharp' not in data:
                raise ValueError('samples have no lq_sharp: set lq_sharp: true or dataroot_lq_sharp in the data set')
            self.lq_sharp = data['lq_sharp'].to(self.device, non_blocking=True)
            if self.lq_sharp.shape != self.lq.shape:
                raise ValueError('lq_sharp must have the shape of lq, but they are '
                                 f'{tuple(self.lq_sharp.shape)} and {tuple(self.lq.shape)}')

    def compute_losses(self) -> dict[str, Tensor]:
        if self.train_opt.flow_only:
            return self.flow_losses(self.net_g(self.lq, flow_only=True))
        hr, (frames,) = self.net_g(self.lq, return_aux=True, truncate=self.train_opt.truncate)
        losses = {'l_sr': self.cri_pix(hr, self.gt)}
        if self.cri_deblur:
            losses['l_db'] = self.cri_deblur(torch.stack([frame.deblurred for frame in frames], dim=1), self.lq_sharp)
        if self.cri_flow:
            # The first frame has no previous frame: skip its flow.
            losses |= self.flow_losses(
                [torch.cat(level) for level in zip(*(frame.flow_to_last for frame in frames[1:]), strict=True)])
        return losses

    def flow_losses(self, flows_to_last: Sequence[Tensor]) -> dict[str, Tensor]:
        """Compute L_OF for the flows of each frame but the first, ((T - 1) B, 2, ...), at three levels."""
        assert self.cri_flow is not None and self.lq_sharp is not None  # see `check_network` and `prepare_batch`
        terms = self.cri_flow(neighbours(self.lq_sharp), neighbours(self.gt), flows_to_last)
        return {f'l_of_{level}': term for level, term in terms.items()}

    @torch.no_grad()
    def flow_to_show(self, net: nn.Module, window: Tensor, item: Clip) -> Tensor | None:
        """Return the HR flow from the second frame to the first."""
        if window.shape[1] < 2:
            return None
        spec, flow_net = spec_of(net), cast(nn.Module, net.flow_net)
        lq = pad_to_multiple(window[:, :2], spec.size_multiple).to(self.device)
        h, w = (side * spec.scale for side in window.shape[-2:])
        a, b = lq.unbind(1)
        flow_ba: FlowLevels = flow_net(b, a)
        return flow_ba.hr[0, :, :h, :w]
