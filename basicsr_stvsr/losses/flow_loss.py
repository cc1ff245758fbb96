"""Losses on optical flow, for MBNet's flow and refinement nets and HOFFR's flow net.

Papers: How Video Super-Resolution and Frame Interpolation Mutually Benefit (ACM MM 2021), section 3.6; its unsupervised
term is that of SOF-VSR (TIP 2020). High-resolution optical flow and frame-recurrent network for video super-resolution
and deblurring (Neurocomputing 2022); its flow net is that of SOF-VSR's first version (ACCV 2018).
The papers' flow p->q lies on q's grid: it is our flow_qp. Flows are (B, 2, H, W), in pixels of their grid.
"""
from collections.abc import Callable, Sequence

from basicsr.utils.registry import LOSS_REGISTRY
from torch import Tensor, nn
from torch.nn import functional as F

from ..archs.arch_util import total, warp


def total_variation(flow: Tensor) -> Tensor:
    """Return the total variation of a flow.

    It is the sum over both components of |difference to the right| + |difference downwards|, averaged over B (H-1)
    (W-1).
    """
    right = flow[:, :, :-1, 1:] - flow[:, :, :-1, :-1]
    down = flow[:, :, 1:, :-1] - flow[:, :, :-1, :-1]
    return (right.abs() + down.abs()).sum(dim=1).mean()


def warp_loss(a: Tensor, b: Tensor, flow_ab: Tensor, smooth_weight: float = 0.1, smooth_unit: float = 15.5,
              distance: Callable[[Tensor, Tensor], Tensor] = F.l1_loss) -> Tensor:
    """Return the distance of b, warped along flow_ab, to a, plus the flow's weighted total variation.

    Args:
        a, b: (B, C, H, W).
        smooth_weight: weight of the total variation (SOF-VSR: 0.1).
        smooth_unit: unit of the total variation, in pixels (SOF-VSR: 15.5).
        distance: distance of the warped image to the target.
    """
    return distance(warp(b, flow_ab), a) + smooth_weight * total_variation(flow_ab) / smooth_unit


@LOSS_REGISTRY.register()
class MultiScaleWarpLoss(nn.Module):
    """The LR part of L^flow (eq. 8): `warp_loss` at every level of a coarse-to-fine flow.

    The loss is averaged over both directions.

    Args:
        loss_weight: lambda_2 of eq. 8, times lambda_a of eq. 11.
        level_weights: from coarse to fine. MBNet gives none; these are SOF-VSR's (our choice).
        smooth_weight, smooth_unit: see `warp_loss`.
    """

    def __init__(self, loss_weight: float = 1.0, level_weights: Sequence[float] = (0.1, 0.2, 1.0),
                 smooth_weight: float = 0.1, smooth_unit: float = 15.5):
        super().__init__()
        self.loss_weight, self.level_weights = loss_weight, tuple(level_weights)
        self.smooth_weight, self.smooth_unit = smooth_weight, smooth_unit

    def forward(self, a: Tensor, b: Tensor, flows_ab: Sequence[Tensor], flows_ba: Sequence[Tensor]) -> Tensor:
        """Evaluate both flows on frames `a` and `b`, (B, C, H, W).

        `flows_ab` and `flows_ba` go from coarse to fine, each at H / 2^k x W / 2^k.

        Raises:
            ValueError: there are not as many flows as level weights.
        """
        if not len(flows_ab) == len(flows_ba) == len(self.level_weights):
            raise ValueError(f'got {len(self.level_weights)} level weights for {len(flows_ab)} and {len(flows_ba)} '
                             'levels of flow')
        losses = []
        for weight, flow_ab, flow_ba in zip(self.level_weights, flows_ab, flows_ba, strict=True):
            factor = a.shape[-1] // flow_ab.shape[-1]
            small_a, small_b = F.avg_pool2d(a, factor), F.avg_pool2d(b, factor)
            losses.append(weight * (
                warp_loss(small_b, small_a, flow_ba, self.smooth_weight, self.smooth_unit)
                + warp_loss(small_a, small_b, flow_ab, self.smooth_weight, self.smooth_unit)) / 2)
        return self.loss_weight * total(losses)


@LOSS_REGISTRY.register()
class MiddleFlowLoss(nn.Module):
    """The HR part of L^flow (eq. 8): the flows from the middle frame, evaluated on the frames.

    The paper's formula needs a flow from end to end, but its network never computes one. Two readings (both ours):
    'adjacent' warps each end to the middle frame. 'compose' uses the difference of the two half flows as the flow from
    end to end; this keeps the printed frames, but is exact only for uniform motion.

    Args:
        loss_weight: lambda_1 of eq. 8, times lambda_a of eq. 11.
        mode: 'adjacent' or 'compose'.
        smooth_weight, smooth_unit: see `warp_loss`.
    """

    def __init__(self, loss_weight: float = 1.0, mode: str = 'adjacent', smooth_weight: float = 0.1,
                 smooth_unit: float = 15.5):
        super().__init__()
        if mode not in ('adjacent', 'compose'):
            raise ValueError(f"mode must be 'adjacent' or 'compose', but got {mode!r}")
        self.loss_weight, self.mode = loss_weight, mode
        self.smooth_weight, self.smooth_unit = smooth_weight, smooth_unit

    def forward(self, frames: Tensor, flow_ta: Tensor, flow_tb: Tensor) -> Tensor:
        """Evaluate the flows, (B, 2, H, W), on `frames` (B, 3, C, H, W): a, t, b."""
        a, t, b = frames.unbind(1)
        if self.mode == 'adjacent':
            terms = [(t, a, flow_ta), (t, b, flow_tb)]
        else:
            terms = [(b, a, flow_ta - flow_tb), (a, b, flow_tb - flow_ta)]
        return self.loss_weight * total(warp_loss(*term, self.smooth_weight, self.smooth_unit) for term in terms) / 2


@LOSS_REGISTRY.register()
class FlowSupervisionLoss(nn.Module):
    """L^FLOW (eq. 10): L1 distance of the two HR flows to those of a teacher, summed over the two.

    Args:
        loss_weight: lambda_b of eq. 11.
    """

    def __init__(self, loss_weight: float = 1.0):
        super().__init__()
        self.loss_weight = loss_weight

    def forward(self, flow_ta: Tensor, flow_tb: Tensor, target_ta: Tensor, target_tb: Tensor) -> Tensor:
        """Compare the flows with the teacher's; all are (B, 2, H, W)."""
        return self.loss_weight * (F.l1_loss(flow_ta, target_ta) + F.l1_loss(flow_tb, target_tb))


@LOSS_REGISTRY.register()
class PyramidWarpLoss(nn.Module):
    """L_OF of HOFFR: squared error of the previous sharp frame, warped onto the current one, at three sizes.

    The sizes are half LR size, LR and HR. The paper has the term for sharp LR frames at several scales; that HR frames
    are among them is our reading.

    Args:
        loss_weight: weight of the sum. HOFFR's is not known; SOF-VSR's is 0.01.
        level_weights: weights of half size, LR and HR; SOF-VSR's (ACCV).
        distance: 'l2' (the paper), or 'l1', which finds the motion in far fewer steps.
        smooth_weight: weight of the total variation of each flow; SOF-VSR's. 0 leaves it out. Squared errors of frames
            are small: a much larger weight keeps flows far too short.
        smooth_unit: unit of the total variation, in pixels (SOF-VSR: 15.5).
    """

    LEVELS = ('half', 'lr', 'hr')
    DISTANCES = {'l2': F.mse_loss, 'l1': F.l1_loss}

    def __init__(self, loss_weight: float = 1.0, level_weights: Sequence[float] = (0.125, 0.25, 1.0),
                 distance: str = 'l2', smooth_weight: float = 0.01, smooth_unit: float = 15.5):
        super().__init__()
        if distance not in self.DISTANCES:
            raise ValueError(f'distance must be one of {", ".join(self.DISTANCES)}, but got {distance!r}')
        if len(level_weights) != len(self.LEVELS):
            raise ValueError(f'level_weights must hold {len(self.LEVELS)} numbers, one for each of '
                             f'{", ".join(self.LEVELS)}, but is {list(level_weights)}')
        self.loss_weight, self.level_weights, self.distance = loss_weight, tuple(level_weights), distance
        self.smooth_weight, self.smooth_unit = smooth_weight, smooth_unit

    def forward(self, lq: tuple[Tensor, Tensor], gt: tuple[Tensor, Tensor], flows_ab: Sequence[Tensor]) -> (
            dict[str, Tensor]):
        """Evaluate flows on sharp frames; a is the current frame, and b the previous one.

        Args:
            lq: a and b at LR, (B, C, H, W).
            gt: a and b at HR, (B, C, sH, sW).
            flows_ab: (B, 2, H/2, W/2), (B, 2, H, W) and (B, 2, sH, sW).

        Returns:
            the weighted terms 'half', 'lr' and 'hr'; their sum is the loss.
        """
        frames = (tuple(F.avg_pool2d(frame, 2) for frame in lq), lq, gt)
        options = self.smooth_weight, self.smooth_unit, self.DISTANCES[self.distance]
        return {
            level: self.loss_weight * weight * warp_loss(a, b, flow_ab, *options)
            for level, weight, (a, b), flow_ab in zip(
                self.LEVELS, self.level_weights, frames, flows_ab, strict=True)}
