"""The multi-scale temporal loss of FISR (AAAI 2020), with the formulas and weights of the authors' code.

Shapes: B samples, C channels, H x W pixels of a level's output. Three windows of stride 1, P_0, P_1, P_2, output frames
2w, 2w + 1, 2w + 2 of the seven true ones; the window of stride 2, Q, outputs frames 1, 3, 5.
"""
from collections.abc import Sequence

import torch
from basicsr.utils.registry import LOSS_REGISTRY
from torch import Tensor, nn
from torch.nn import functional as F

from ..archs.arch_util import total

TD_MODES = ('official', 'paper')
NUM_LEVELS = 3


def temporal_terms(windows: Tensor, strided: Tensor | None, gt: Tensor, td_mode: str = 'official') -> dict[
        str, Tensor]:
    """Return the seven unweighted terms for one level.

    Args:
        windows: (B, 3, 3, C, H, W), P_w's frame k at [:, w, k].
        strided: (B, 3, C, H, W), Q; None leaves out its terms.
        gt: (B, 7, C, H, W).
        td_mode: input of the first temporal difference: 'official', the sequence of seven frames, with the average of
            the two frames that are restored twice; 'paper', each window separately.

    Returns:
        recn, tm1, tmm, td1 of the windows; recn2, td2, tm2 of the strided one; each a sum of means over pixels.
    """
    p, y = windows.unbind(1), gt.unbind(1)
    twice = [(p[w][:, 2], p[w + 1][:, 0]) for w in (0, 1)]  # frames restored by two windows
    sequence = torch.stack((p[0][:, 0], p[0][:, 1], total(twice[0]) / 2, p[1][:, 1], total(twice[1]) / 2, p[2][:, 1],
                            p[2][:, 2]), dim=1)
    if td_mode == 'official':
        differences = sequence.diff(dim=1)
    else:
        differences = torch.cat([window.diff(dim=1) for window in p], dim=1)
    terms = {
        'recn': total(F.mse_loss(p[w], gt[:, 2 * w:2 * w + 3]) for w in range(3)),
        'tm1': total(F.mse_loss(one, other) for one, other in twice),
        'tmm': total(F.mse_loss((one + other) / 2, true)
                     for (one, other), true in zip(twice, (y[2], y[4]), strict=True)),
        'td1': 6 * F.mse_loss(differences, gt.diff(dim=1)),  # six differences
    }
    if strided is None:
        return terms
    middle = torch.stack([window[:, 1] for window in p], dim=1)
    return terms | {
        'recn2': F.mse_loss(strided, gt[:, 1::2]),
        'td2': 2 * F.mse_loss(strided.diff(dim=1), gt[:, 1::2].diff(dim=1)),
        'tm2': F.mse_loss(strided, middle),
    }


@LOSS_REGISTRY.register()
class MultiScaleTemporalLoss(nn.Module):
    """Compute `temporal_terms` on all levels, and sum them with weights.

    Args:
        lambda_r, lambda_tm1, lambda_tmm, lambda_td: weights of recn, tm1, tmm, td1.
        lambda_tm2: weight of tm2.
        lambda_stride2: weight of all terms with the strided window, times lambda_r, lambda_td, lambda_tm2.
        level_weights: weights of the levels, from coarse to fine.
        td_mode: see `temporal_terms`.

    Attributes:
        needs_strided: whether a term of the strided window has a weight.
    """

    def __init__(self, *, lambda_r: float = 1.0, lambda_tm1: float = 1.0, lambda_tmm: float = 1.0,
                 lambda_td: float = 0.1, lambda_tm2: float = 0.1, lambda_stride2: float = 1.0,
                 level_weights: Sequence[float] = (4.0, 2.0, 1.0), td_mode: str = 'official'):
        super().__init__()
        if td_mode not in TD_MODES:
            raise ValueError(f'td_mode must be one of {", ".join(TD_MODES)}, but got {td_mode!r}')
        negative = [weight for weight in (lambda_r, lambda_tm1, lambda_tmm, lambda_td, lambda_tm2, lambda_stride2,
                                          *level_weights) if weight < 0]
        if negative:
            raise ValueError(f'lambdas and level_weights must not be negative, but one is {negative[0]}')
        if len(level_weights) != NUM_LEVELS:
            raise ValueError(f'level_weights must hold {NUM_LEVELS} numbers, one for each level, but is '
                             f'{list(level_weights)}')
        self.weights = {
            'recn': lambda_r, 'tm1': lambda_tm1, 'tmm': lambda_tmm, 'td1': lambda_td,
            'recn2': lambda_stride2 * lambda_r, 'td2': lambda_stride2 * lambda_td, 'tm2': lambda_stride2 * lambda_tm2}
        if not any(self.weights.values()) or not any(level_weights):
            raise ValueError('all terms have the weight 0, so there is no loss')
        self.level_weights, self.td_mode = tuple(level_weights), td_mode
        self.needs_strided = any(self.weights[name] for name in ('recn2', 'td2', 'tm2'))

    def forward(self, windows: Sequence[Tensor], strided: Sequence[Tensor | None], gt: Tensor) -> dict[str, Tensor]:
        """Return the weighted terms by name, without those of weight 0.

        Args:
            windows, strided: one entry for each level, from coarse to fine, see `temporal_terms`.
            gt: (B, 7, C, H, W), of the size of the finest level; each coarser level takes every second pixel.
        """
        totals: dict[str, Tensor] = {}
        for level, weight in enumerate(self.level_weights):
            factor = 2**(len(self.level_weights) - 1 - level)
            terms = temporal_terms(windows[level], strided[level], gt[..., ::factor, ::factor], self.td_mode)
            for name, term in terms.items():
                if self.weights[name]:
                    totals[name] = totals.get(name, 0) + weight * self.weights[name] * term
        return totals
