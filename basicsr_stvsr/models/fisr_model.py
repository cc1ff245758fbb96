"""FISR's recipe: Deep Joint Frame Interpolation and Super-Resolution with a Multi-Scale Temporal Loss (AAAI 2020)."""
from typing import Any, Literal, cast

import torch
from basicsr.utils.registry import LOSS_REGISTRY, MODEL_REGISTRY
from pydantic import field_validator
from torch import Tensor

from ..config import Loss, TrainOptions
from ..config.block import refuse_field
from ..data.items import Batch
from ..losses.temporal_loss import MultiScaleTemporalLoss
from .stvsr_model import STVSRModel

FISRKey = Literal['lq_flow', 'lq_flow_stride2', 'lq_warped', 'lq_warped_stride2']
NUM_FRAMES = 5  # LR frames of a sample
NUM_WINDOWS = 3  # windows of stride 1


class FISRTrainOptions(TrainOptions):
    """`train` of FISRModel: the temporal loss, which contains that on the frames themselves."""

    gives_flow = True

    temporal_opt: Loss
    """The multi-scale temporal loss: {type: MultiScaleTemporalLoss, lambda_r, lambda_tm1, ...}."""
    pixel_opt: Loss | None = None  # type: ignore[assignment]  # only here it may be absent
    """Another loss, on the frames of the windows of stride 1 at full size; the paper has none."""

    @field_validator('temporal_opt')
    @classmethod
    def check_loss(cls, loss: dict[str, Any]) -> dict[str, Any]:
        if not issubclass(LOSS_REGISTRY.get(loss['type']), MultiScaleTemporalLoss):
            raise refuse_field('type', f'must be MultiScaleTemporalLoss, but is {loss["type"]}')
        return loss


@MODEL_REGISTRY.register()
class FISRModel(STVSRModel):
    """Train on four windows of five LR frames, as one batch of 4B.

    Three windows have neighbouring frames; the fourth has every second frame.

    Samples hold `lq` (B, 5, 3, H, W), `gt`, and `lq_flow` (B, 4, 2, 2, H, W) between neighbours. They also hold
    `lq_flow_stride2` (B, 2, 2, 2, H, W), unless the loss leaves out the window of stride 2; see `data.lq_flow`.
    Optionally they hold the frames warped along these flows, `lq_warped` (B, 4, 2, 3, H, W) and `lq_warped_stride2`, as
    the authors' samples do. In validation the network warps the frames itself.
    """

    train_options = FISRTrainOptions
    train_opt: FISRTrainOptions

    def init_losses(self) -> None:
        self.cri_temporal = cast(MultiScaleTemporalLoss, self.optional_loss(self.train_opt.temporal_opt))
        self.cri_pix = self.optional_loss(self.train_opt.pixel_opt)

    def prepare_batch(self, data: Batch) -> None:
        lq, self.gt = self.read_clips(data)
        if lq.shape[1] != NUM_FRAMES:
            raise ValueError(f'FISR trains on samples of {NUM_FRAMES} LR frames, but these have {lq.shape[1]}; set '
                             'num_frame: 9 in the data set')
        self.lq = self.stack_windows(lq, lq[:, ::2], 3)
        self.flow = self.stack_windows(self.take(data, 'lq_flow'), self.take_strided(data, 'lq_flow_stride2'), 2)
        self.warped = None
        if 'lq_warped' in data:
            self.warped = self.stack_windows(
                self.take(data, 'lq_warped'), self.take_strided(data, 'lq_warped_stride2'), 2)

    def take_strided(self, data: Batch, name: FISRKey) -> Tensor | None:
        """Return an entry for the window of stride 2, or None if the loss leaves out that window."""
        return self.take(data, name) if self.cri_temporal.needs_strided else None

    def take(self, data: Batch, name: FISRKey) -> Tensor:
        """Return an entry of the batch."""
        if name not in data:
            strides = [1, 2] if self.cri_temporal.needs_strided else [1]
            raise ValueError(f'samples have no {name}: set flow_opt, such as {{type: DISFlow}}, and flow_strides '
                             f'{strides} in the data set')
        return data[name].to(self.device, non_blocking=True)

    def stack_windows(self, neighbours: Tensor, strided: Tensor | None, length: int) -> Tensor:
        """Put the windows of each sample one after another, (B, T, ...) -> (B N, length, ...); N is 4 or 3."""
        windows = [neighbours[:, start:start + length] for start in range(NUM_WINDOWS)]
        if strided is not None and self.cri_temporal.needs_strided:
            windows.append(strided)
        return torch.stack(windows, dim=1).flatten(0, 1)

    def compute_losses(self) -> dict[str, Tensor]:
        _, aux = self.net_g(self.lq, self.flow, self.warped, return_aux=True)
        levels = [frames.unflatten(0, (len(self.gt), -1)) for frames in aux.levels]
        windows = [level[:, :NUM_WINDOWS] for level in levels]
        strided = [level[:, NUM_WINDOWS] if self.cri_temporal.needs_strided else None for level in levels]
        losses = {f'l_{name}': term for name, term in self.cri_temporal(windows, strided, self.gt).items()}
        if self.cri_pix:
            target = self.split_windows(self.gt, 3, 2).view_as(windows[-1])
            losses['l_pix'] = self.cri_pix(windows[-1], target)
        return losses
