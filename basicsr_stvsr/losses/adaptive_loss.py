"""Losses that weight pixels by the local activity.

They follow 'Spatially Adaptive Losses for Video Super-resolution with GANs' (Wang, Lucas, Lopez-Tapia, Wu, Molina,
Katsaggelos). Its eq. 13 is

    alpha_1 L_gen + gamma_w(x, G, alpha_2 + beta_2 W(x)) + gamma_w(VGG(x), VGG(G), alpha_3 + beta_3 VGG(W(x)))

with the true frame x and the generated frame G. The second term is SpatiallyAdaptiveCharbonnierLoss, the third
SpatiallyAdaptiveFeatureLoss, and L_gen is BasicSR's GANLoss of type vanilla. With both betas at zero it is the loss of
the baseline, VSRResFeatGAN.
Shapes: B clips, T frames, C channels (1: luma, 3: RGB), H x W pixels.
"""
from typing import Any, Literal

import torch
from basicsr.utils.registry import LOSS_REGISTRY
from torch import Tensor, nn
from torch.nn import functional as F

from ..archs.arch_util import at_least_float32, total
from ..archs.vgg_features import VGGFeatures
from ..io.color_spaces import TO_YUV

MODES = ('activity', 'visibility')
REDUCTIONS = ('mean', 'sum')
ACTIVITY_OPTIONS = ('mode', 'window', 'theta')


# ---------------------------------------------------------------- formulas

@torch.no_grad()
def local_activity(x: Tensor, mode: str = 'activity', window: int = 5, theta: float = 500) -> Tensor:
    """Return the pixel weight W(x): near 0 where x is flat, near 1 on edges and texture.

    With v the variance of luma in the window around a pixel, W = theta v / (1 + theta v). We could not obtain the
    paper's own formula. We know only its name, 'visibility function', and that edges weigh a hundred times as much as
    flat pixels. In the older literature that name stands for 1 - W = 1 / (1 + theta v), which is high where x is flat;
    this is the mode 'visibility'. W depends only on x and has no gradient.

    Args:
        x: (..., C, H, W), 0-1; luma, or RGB, which is converted to luma (BT.601, studio swing, as in luma clips).
        mode: 'activity' or 'visibility'.
        window: side of the window, odd; frames are reflected at the border.
        theta: W is one half at a variance of 1 / theta.

    Returns:
        (..., 1, H, W), 0-1, float32 at least.

    Raises:
        ValueError: an argument has an invalid value, or the frames are no larger than half the window.
    """
    check_activity(mode, window, theta)
    if x.dim() < 3 or x.shape[-3] not in (1, 3):
        raise ValueError(f'local_activity takes luma or RGB frames, (..., 1 or 3, H, W), but got {tuple(x.shape)}')
    radius = window // 2
    if min(x.shape[-2:]) <= radius:
        raise ValueError(f'local_activity with a window of {window} takes frames larger than {radius} x {radius}, but '
                         f'got {tuple(x.shape)}')
    x = at_least_float32(x)
    if x.shape[-3] == 3:
        x = (x * x.new_tensor(TO_YUV[0]).view(3, 1, 1)).sum(dim=-3, keepdim=True)  # without the offset of 16 levels
    padded = F.pad(x.flatten(0, -4) if x.dim() > 3 else x[None], 4 * [radius], mode='reflect')
    mean = F.avg_pool2d(padded, window, stride=1)
    # Not E[x^2] - E[x]^2: in bright flat frames its rounding errors, times theta, would dominate.
    h, w = x.shape[-2:]
    variance = total((padded[..., top:top + h, left:left + w] - mean).square()
                     for top in range(window) for left in range(window)).view(x.shape) / window**2
    activity = theta * variance / (1 + theta * variance)
    return activity if mode == 'activity' else 1 - activity


def check_activity(mode: str, window: int, theta: float) -> None:
    """Raise ValueError unless these are valid arguments of `local_activity`."""
    if mode not in MODES:
        raise ValueError(f'mode must be one of {", ".join(MODES)}, but is {mode!r}')
    if not isinstance(window, int) or window < 3 or window % 2 == 0:
        raise ValueError(f'window must be an odd number of pixels from 3 on, but is {window!r}')
    if not isinstance(theta, int | float) or theta <= 0:
        raise ValueError(f'theta must be a number above 0, but is {theta!r}')


def weighted_charbonnier(pred: Tensor, target: Tensor, weight: Tensor | float = 1.0, *, eps: float = 1e-3,
                         reduction: str = 'mean') -> Tensor:
    """Return gamma_w: weight * sqrt((pred - target)^2 + eps^2), summed, or averaged over all values.

    The paper sums; a mean does not depend on the patch size. The mean divides by the number of values, not by the sum
    of the weights, so doubled weights double the loss.

    Args:
        pred, target: of one shape.
        weight: a number, or weights that broadcast to that shape.
        eps: as in the formula; BasicSR's CharbonnierLoss takes its square.
        reduction: 'mean' or 'sum'.
    """
    difference = at_least_float32(pred) - at_least_float32(target)
    distance = weight * torch.sqrt(difference.square() + eps**2)
    return distance.mean() if reduction == 'mean' else distance.sum()


# ---------------------------------------------------------------- the terms of eq. 13

class SpatiallyAdaptiveLoss(nn.Module):
    """Base class of the two terms: the weight alpha + beta W, and the reduction of distances."""

    def __init__(self, loss_weight: float, alpha: float, beta: float, eps: float, reduction: str,
                 activity: dict[str, Any] | None):
        super().__init__()
        if alpha < 0 or beta < 0 or not alpha + beta:
            raise ValueError(f'alpha and beta must be >= 0 and not both 0, but are {alpha} and {beta}')
        if eps <= 0:
            raise ValueError(f'eps must be above 0, but is {eps}')
        if reduction not in REDUCTIONS:
            raise ValueError(f'reduction must be one of {", ".join(REDUCTIONS)}, but is {reduction!r}')
        defaults: dict[str, Any] = {'mode': 'activity', 'window': 5, 'theta': 500}
        self.activity = defaults | (activity or {})
        unknown = [name for name in self.activity if name not in ACTIVITY_OPTIONS]
        if unknown:
            raise ValueError(f'activity has no option {unknown[0]}; its options are {", ".join(ACTIVITY_OPTIONS)}')
        check_activity(**self.activity)
        self.loss_weight, self.alpha, self.beta, self.eps, self.reduction = loss_weight, alpha, beta, eps, reduction

    def distance(self, pred: Tensor, target: Tensor, weight: Tensor | float) -> Tensor:
        return self.loss_weight * weighted_charbonnier(pred, target, weight, eps=self.eps, reduction=self.reduction)


@LOSS_REGISTRY.register()
class SpatiallyAdaptiveCharbonnierLoss(SpatiallyAdaptiveLoss):
    """The pixel term: gamma_w(x, G, alpha + beta W(x)).

    The paper's weights are not known. With these defaults (our choice), an edge weighs 100 times as much as a flat
    pixel, as on the slide that motivates the paper.

    Args:
        loss_weight: weight of the whole term.
        alpha, beta: weight of every pixel, and additional weight on edges; beta 0: the pixel term of the baseline.
        eps: of the Charbonnier distance.
        reduction: 'mean' or 'sum', see `weighted_charbonnier`.
        activity: {mode, window, theta} of `local_activity`.

    Raises:
        ValueError: an argument has an invalid value.
    """

    def __init__(self, loss_weight: float = 1.0, alpha: float = 0.001, beta: float = 0.099, eps: float = 1e-3,
                 reduction: Literal['mean', 'sum'] = 'mean', activity: dict[str, Any] | None = None):
        super().__init__(loss_weight, alpha, beta, eps, reduction, activity)

    def forward(self, pred: Tensor, target: Tensor) -> Tensor:
        """Compare `pred` with `target`: frames or clips, (..., C, H, W), 0-1.

        Raises:
            ValueError: their shapes differ.
        """
        check_shapes(pred, target)
        weight = self.alpha + self.beta * local_activity(target, **self.activity) if self.beta else self.alpha
        return self.distance(pred, target.detach(), weight)


@LOSS_REGISTRY.register()
class SpatiallyAdaptiveFeatureLoss(SpatiallyAdaptiveLoss):
    """The feature term: gamma_w(VGG(x), VGG(G), alpha + beta VGG(W(x))), on relu3_3 of VGG-16.

    Neither the layer nor the weights of the paper are known; these are our choice. The layer must follow a ReLU, since
    VGG(W) is a weight.

    Args:
        feature_net: path to torchvision's weights of VGG-16 (vgg16-397923af.pth), or 'random', see `VGGFeatures`.
        sha256: sha256 of that file, or its first digits; None: it is not checked.
        loss_weight: weight of the whole term.
        alpha, beta: weight of every feature, and additional weight where VGG(W) is high; beta 0: the feature term of
            the baseline.
        eps: of the Charbonnier distance.
        reduction: 'mean' or 'sum', see `weighted_charbonnier`.
        weights_from: source of the feature weights: 'vgg', VGG(W), one weight for each feature; 'resize', W itself,
            averaged down to the grid of the features.
        normalize: divide these weights by their mean over the batch. The scale of VGG(W) is that of VGG's weights; the
            division makes beta a mean weight too.
        activity: {mode, window, theta} of `local_activity`.

    Raises:
        FileNotFoundError: the file does not exist.
        ValueError: the file holds something else, or an argument has an invalid value.
    """

    def __init__(self, feature_net: str, sha256: str | None = None, loss_weight: float = 1.0, alpha: float = 0.998,
                 beta: float = 0.998, eps: float = 1e-3, reduction: Literal['mean', 'sum'] = 'mean',
                 weights_from: Literal['vgg', 'resize'] = 'vgg', normalize: bool = True,
                 activity: dict[str, Any] | None = None):
        super().__init__(loss_weight, alpha, beta, eps, reduction, activity)
        if weights_from not in ('vgg', 'resize'):
            raise ValueError(f'weights_from must be one of vgg, resize, but is {weights_from!r}')
        self.weights_from, self.normalize = weights_from, normalize
        self.vgg = VGGFeatures(feature_net, sha256)

    def forward(self, pred: Tensor, target: Tensor) -> Tensor:
        """Compare `pred` with `target`: frames or clips, (..., C, H, W), 0-1.

        Luma is repeated for the three channels of VGG.

        Raises:
            ValueError: their shapes differ, or they are smaller than VGG's minimum.
        """
        check_shapes(pred, target)
        pred, target = pred.flatten(0, -4), target.flatten(0, -4)
        with torch.no_grad():
            true_features = self.vgg(target)
            weight = self.alpha + self.beta * self.feature_weight(target) if self.beta else self.alpha
        return self.distance(self.vgg(pred), true_features, weight)

    def feature_weight(self, target: Tensor) -> Tensor:  # (N, C, H, W) -> (N, 256 or 1, H // 4, W // 4)
        activity = local_activity(target, **self.activity)
        if self.weights_from == 'vgg':
            weight = at_least_float32(self.vgg(activity, normalize=False))
        else:
            height, width = target.shape[-2:]
            weight = F.adaptive_avg_pool2d(activity, (height // 4, width // 4))
        if self.normalize:  # without any activity, the mean of a batch is 0
            weight = weight / weight.mean().clamp(min=torch.finfo(weight.dtype).tiny)
        return weight


def check_shapes(pred: Tensor, target: Tensor) -> None:
    """Raise ValueError unless both are frames or clips of one shape; otherwise one would be broadcast to the other."""
    if pred.shape != target.shape or pred.dim() < 4:
        raise ValueError('spatially adaptive losses compare frames or clips of the same shape, (..., C, H, W), but got '
                         f'{tuple(pred.shape)} and {tuple(target.shape)}')
