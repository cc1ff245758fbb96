"""Modulated deformable convolution in plain PyTorch, for installations whose torchvision has no compiled operators."""
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.nn.modules.utils import _pair


def deform_conv2d(input: Tensor, offset: Tensor, weight: Tensor, bias: Tensor | None = None,
                  stride: int | tuple[int, int] = 1, padding: int | tuple[int, int] = 0,
                  dilation: int | tuple[int, int] = 1, mask: Tensor | None = None) -> Tensor:
    """Convolve with taps that are moved by offsets, like `torchvision.ops.deform_conv2d`.

    Shapes: G groups of offsets, K = kh kw taps.

    Args:
        input: (B, C, H, W); zero outside.
        offset: (B, 2 G K, h, w), pixels: y, then x, for each tap.
        weight: (O, C / groups, kh, kw).
        bias: (O).
        stride, padding, dilation: as in a convolution, before the offsets are added.
        mask: (B, G K, h, w), a factor for each tap.

    Returns:
        (B, O, h, w).
    """
    (batch, channels, height, width), taps = input.shape, weight.shape[2:]
    num_taps, (h, w) = taps.numel(), offset.shape[-2:]
    groups = offset.shape[1] // (2 * num_taps)
    ys, xs = (
        torch.arange(size, device=input.device)[:, None] * step - pad + torch.arange(tap, device=input.device) * gap
        for size, tap, step, pad, gap in zip((h, w), taps, _pair(stride), _pair(padding), _pair(dilation), strict=True))
    moved = offset.reshape(batch * groups, *taps, 2, h, w)
    y = moved[:, :, :, 0] + ys.T[:, None, :, None]
    x = moved[:, :, :, 1] + xs.T[None, :, None, :]
    # In grid_sample's coordinates, -1 and 1 are the centres of the first and the last pixel.
    grid = torch.stack((2 * x / max(width - 1, 1) - 1, 2 * y / max(height - 1, 1) - 1), dim=-1)
    sampled = F.grid_sample(input.reshape(batch * groups, -1, height, width), grid.flatten(1, 3).to(input),
                            align_corners=True)
    columns = sampled.view(batch, groups, -1, num_taps, h, w)
    if mask is not None:
        columns = columns * mask.view(batch, groups, 1, num_taps, h, w)
    columns = columns.reshape(batch, channels * num_taps, h, w).to(weight.dtype)
    return F.conv2d(columns, weight.flatten(1)[..., None, None], bias, groups=channels // weight.shape[1])
