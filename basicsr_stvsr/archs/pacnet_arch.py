"""Pixel-adaptive convolution, and MBNet's NET_re built from it: LR flows -> HR flows, guided by the SR frames.

Papers: Pixel-Adaptive Convolutional Neural Networks (CVPR 2019), https://arxiv.org/abs/1904.05373; MBNet (ACM MM 2021)
section 3.3.  Derived from the formulas of the paper; checked against numeric outputs of the official operators.

    K_ij = exp(-1/2 |g_j - g_i|^2),    out_i = sum_{j in window(i)} K_ij W_{j-i} x_j + b

The usual implementation unfolds guide and x into k*k shifted copies each, and autograd keeps them. Here both passes
unfold a few rows at a time, which fit into the cache, and keep none of them.
Shapes: B clips, C channels in, O channels out, G guide channels, k kernel size, H x W pixels, s = stride; R x S of the
k x k taps.
"""
import math
from collections.abc import Callable, Iterator, Sequence
from itertools import product
from types import EllipsisType
from typing import Any, NamedTuple

import torch
from basicsr.utils.registry import ARCH_REGISTRY
from torch import Tensor, nn
from torch._library.custom_ops import CustomOpDef
from torch.nn import functional as F
from torch.utils.flop_counter import register_flop_formula

from .arch_util import at_least_float32, upsample_flow, without_autocast
from .spec import PartSpec

# Numbers in one unfolded strip: few enough for the cache of a CPU, enough to keep a GPU busy.
STRIP_NUMEL = {'cpu': 2**21, 'cuda': 2**24}


def _strips(padded: Tensor, kernel: Tensor) -> Iterator[tuple[slice, Tensor, Tensor]]:
    """Split a plain convolution into strips of rows that are small enough to unfold.

    Args:
        padded: (B, C, H + R - 1, W + S - 1).
        kernel: (B, R, S, H, W).

    Yields:
        The rows of a strip; the pixels under each tap, (B, C, R, S, rows, W), and the kernel there, (B, 1, R, S, rows,
            W), both as views.
    """
    b, r, s, h, w = kernel.shape
    limit = STRIP_NUMEL.get(padded.device.type, STRIP_NUMEL['cuda'])
    num_row = max(1, limit // (b * padded.shape[1] * r * s * w))
    for y in range(0, h, num_row):
        rows = slice(y, min(y + num_row, h))
        windows = padded[:, :, y:rows.stop + r - 1].unfold(2, rows.stop - y, 1).unfold(3, w, 1)
        yield rows, windows, kernel[..., rows, :].unsqueeze(1)


def _columns(windows: Tensor) -> Tensor:
    """Reshape windows to a matrix for each clip, (B, C, R, S, rows, W) -> (B, C R S, rows W)."""
    return windows.flatten(4).flatten(1, 3)


def _add_windows(padded: Tensor, rows: slice, windows: Tensor) -> None:
    """Apply the adjoint of unfolding a strip: add the values of all windows to their pixels in `padded`."""
    r, s = windows.shape[2:4]
    strip = padded[:, :, rows.start:rows.stop + r - 1]
    strip += F.fold(_columns(windows), strip.shape[2:], (r, s))


def _dense(op: Callable[..., Tensor], windows: Tensor, other: Tensor) -> Tensor:
    """Compute op(windows, other) with a contiguous result; by default PyTorch keeps the slow layout of the views."""
    return op(windows, other, out=windows.new_empty(windows.shape))


# Forward and backward passes of both functions are custom PyTorch operators. So torch.compile takes each as one step of
# its graph, and does not unroll the strips into thousands.
def _operator(name: str) -> Callable[[Callable[..., Any]], CustomOpDef]:
    return torch.library.custom_op(name, mutates_args=())


def _needs_operator(x: Tensor) -> bool:
    """Return whether gradients, a compiler or a tracer need the operators.

    If not, their functions are called directly. An operator imports the compiler, which takes as long as torch itself.
    """
    return torch.is_grad_enabled() or torch.compiler.is_compiling() or torch._C._is_tracing() or x.is_meta


def _compute_pac_kernel(guide: Tensor, kernel_size: int) -> Tensor:
    """Compute K of the formula above, (B, G, H, W) -> (B, k*k, H, W)."""
    b, _, h, w = guide.shape
    padded = F.pad(guide, [kernel_size // 2] * 4)
    kernel = guide.new_empty(b, kernel_size, kernel_size, h, w)
    for rows, windows, _ in _strips(padded, kernel):
        difference = _dense(torch.sub, windows, guide[:, :, None, None, rows])
        kernel[..., rows, :] = difference.square_().sum(1).mul_(-0.5).exp_()
    return kernel.flatten(1, 2)


_pac_kernel = _operator('basicsr_stvsr::pac_kernel')(_compute_pac_kernel)


@_operator('basicsr_stvsr::pac_kernel_backward')
def _pac_kernel_backward(guide: Tensor, kernel: Tensor, grad_kernel: Tensor) -> Tensor:
    (h, w), k = guide.shape[2:], math.isqrt(kernel.shape[1])
    pad = k // 2
    padded, kernel, grad_kernel = F.pad(guide, [pad] * 4), *(x.unflatten(1, (k, k)) for x in (kernel, grad_kernel))
    grad_guide, grad_padded = torch.empty_like(guide), torch.zeros_like(padded)
    for rows, windows, factor in _strips(padded, kernel):
        grad = _dense(torch.sub, windows, guide[:, :, None, None, rows])
        grad *= factor * grad_kernel[..., rows, :].unsqueeze(1)
        grad_guide[:, :, rows] = grad.sum((2, 3))
        _add_windows(grad_padded, rows, grad.neg_())
    return grad_guide.add_(grad_padded[:, :, pad:pad + h, pad:pad + w])


@_pac_kernel.register_fake
def _(guide: Tensor, kernel_size: int) -> Tensor:
    b, _, h, w = guide.shape
    return guide.new_empty(b, kernel_size**2, h, w)


@_pac_kernel_backward.register_fake
def _(guide: Tensor, kernel: Tensor, grad_kernel: Tensor) -> Tensor:
    return torch.empty_like(guide)


_pac_kernel.register_autograd(
    lambda ctx, grad_kernel: (_pac_kernel_backward(*ctx.saved_tensors, grad_kernel), None),
    setup_context=lambda ctx, inputs, output: ctx.save_for_backward(inputs[0], output))


Index = tuple[slice | EllipsisType, ...]


class _Phase(NamedTuple):
    """Indices of one phase of the output grid, see `_phases`."""

    output: Index  # of (B, O, sH, sW) -> (B, O, H, W)
    weight: Index  # of (O, C, k, k) -> (O, C, R, S), the taps that meet input pixels
    kernel: Index  # of (B, k, k, sH, sW) -> (B, R, S, H, W)
    padded: Index  # of the input padded by k // 2 -> (B, C, H + R - 1, W + S - 1), its pixels under these taps


def _phases(kernel_size: int, stride: int, height: int, width: int) -> Iterator[_Phase]:
    """Split a transposed convolution into stride^2 plain ones.

    The transposed convolution sees its input on every `stride`-th pixel of the output grid, and zeros in between. All
    output pixels of one phase have the same remainders of y and x by `stride`, and see input pixels under the same
    taps. The other taps see only zeros and are left out. At stride 1 there is one phase with all taps.
    """
    pad = kernel_size // 2

    def along(phase: int, size: int) -> tuple[slice, slice, slice]:
        first_tap = (pad - phase) % stride
        num_tap = len(range(first_tap, kernel_size, stride))
        start = (phase + first_tap - pad) // stride + pad
        return slice(phase, None, stride), slice(first_tap, None, stride), slice(start, start + size + num_tap - 1)

    for phase_y, phase_x in product(range(stride), repeat=2):
        (out_y, tap_y, in_y), (out_x, tap_x, in_x) = along(phase_y, height), along(phase_x, width)
        yield _Phase((..., out_y, out_x), (..., tap_y, tap_x), (slice(None), tap_y, tap_x, out_y, out_x),
                     (..., in_y, in_x))


def _compute_pac_conv(x: Tensor, kernel: Tensor, weight: Tensor, stride: int) -> Tensor:
    """Compute sum_j K_ij W_{j-i} x_j without unfolding all of x; the weight is (O, C, k, k) and never flipped."""
    (b, _, h, w), (o, _, k, _) = x.shape, weight.shape
    padded, kernel = F.pad(x, [k // 2] * 4), kernel.unflatten(1, (k, k))
    out = x.new_empty(b, o, stride * h, stride * w)
    for phase in _phases(k, stride, h, w):
        phase_out = out[phase.output]
        matrix = weight[phase.weight].flatten(1).expand(b, -1, -1)
        for rows, windows, factor in _strips(padded[phase.padded], kernel[phase.kernel]):
            weighted = _dense(torch.mul, windows, factor)
            phase_out[:, :, rows] = torch.bmm(matrix, _columns(weighted)).unflatten(2, (-1, w))
    return out


_pac_conv = _operator('basicsr_stvsr::pac_conv')(_compute_pac_conv)


@_operator('basicsr_stvsr::pac_conv_backward')
def _pac_conv_backward(x: Tensor, kernel: Tensor, weight: Tensor, stride: int,
                       grad_out: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    (b, _, h, w), k = x.shape, weight.shape[2]
    pad = k // 2
    padded, kernel = F.pad(x, [pad] * 4), kernel.unflatten(1, (k, k))
    grad_padded, grad_kernel = torch.zeros_like(padded), torch.zeros_like(kernel)
    # Many strips are summed here, for which bfloat16 is too coarse.
    grad_weight = torch.zeros_like(weight, dtype=torch.promote_types(weight.dtype, torch.float32))
    for phase in _phases(k, stride, h, w):
        taps = weight[phase.weight]
        matrix = taps.flatten(1).t().expand(b, -1, -1)
        phase_grad_padded, phase_grad_kernel = grad_padded[phase.padded], grad_kernel[phase.kernel]
        for rows, windows, factor in _strips(padded[phase.padded], kernel[phase.kernel]):
            grad = grad_out[phase.output][:, :, rows].flatten(2)
            weighted = _dense(torch.mul, windows, factor)
            grad_weight[phase.weight] += torch.bmm(grad, _columns(weighted).transpose(1, 2)).sum(0).view(taps.shape)
            grad_weighted = torch.bmm(matrix, grad).view(windows.shape)
            phase_grad_kernel[..., rows, :] = torch.mul(grad_weighted, windows, out=weighted).sum(1)
            _add_windows(phase_grad_padded, rows, grad_weighted.mul_(factor))
    # Contiguous for inputs in any layout, as the fake operator below promises.
    grad_x = grad_padded[:, :, pad:pad + h, pad:pad + w]
    return (grad_x.contiguous(), grad_kernel.flatten(1, 2).contiguous(), grad_weight.to(weight.dtype).contiguous())


@_pac_conv.register_fake
def _(x: Tensor, kernel: Tensor, weight: Tensor, stride: int) -> Tensor:
    b, _, h, w = x.shape
    return x.new_empty(b, weight.shape[0], stride * h, stride * w)


@_pac_conv_backward.register_fake
def _(x: Tensor, kernel: Tensor, weight: Tensor, stride: int, grad_out: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    return x.new_empty(x.shape), kernel.new_empty(kernel.shape), weight.new_empty(weight.shape)


@register_flop_formula(torch.ops.basicsr_stvsr.pac_conv)
def _(x: Sequence[int], kernel: Sequence[int], weight: Sequence[int], stride: int, *, out_shape: Sequence[int]) -> int:
    """Return the operations of the operator's matrix products, from shapes, for torch's FlopCounterMode."""
    b, _, h, w = x
    return 2 * b * h * w * math.prod(weight)


def _save_pac_conv(ctx: Any, inputs: tuple[Tensor, Tensor, Tensor, int], output: Tensor) -> None:
    *tensors, ctx.stride = inputs
    ctx.save_for_backward(*tensors)


_pac_conv.register_autograd(
    lambda ctx, grad_out: (*_pac_conv_backward(*ctx.saved_tensors, ctx.stride, grad_out), None),
    setup_context=_save_pac_conv)


def pac_kernel(guide: Tensor, kernel_size: int) -> Tensor:
    """Return the adaptive kernel K, not normalised; pixels outside the image have a guide of zeros.

    Args:
        guide: (B, G, H, W).
        kernel_size: odd.

    Returns:
        (B, k*k, H, W), row by row of the window; 1 at its centre.
    """
    with without_autocast(guide.device):
        compute: Callable[..., Tensor] = _pac_kernel if _needs_operator(guide) else _compute_pac_kernel
        return compute(guide, kernel_size)


def pac_conv2d(x: Tensor, kernel: Tensor, weight: Tensor, bias: Tensor | None = None, stride: int = 1) -> Tensor:
    """Apply a pixel-adaptive convolution (stride 1) or transposed convolution (stride > 1) with 'same' geometry.

    Args:
        x: (B, C, H, W).
        kernel: (B, k*k, sH, sW), K at OUTPUT resolution, see `pac_kernel`.
        weight: (O, C, k, k), applied as a correlation, also for stride > 1 (on the zero-stuffed input).
        bias: (O,).
        stride: ratio of output to input size.

    Returns:
        (B, O, sH, sW).

    Raises:
        ValueError: the kernel does not fit the input, the stride or the weight; or the stride exceeds the kernel size,
            so that some output pixels would see no input at all.
    """
    b, _, h, w = x.shape
    expected = (b, weight.shape[2] * weight.shape[3], stride * h, stride * w)
    if kernel.shape != expected:
        raise ValueError(f'the kernel must have the shape {expected}, but has {tuple(kernel.shape)}')
    if stride > min(weight.shape[2:]):
        raise ValueError(f'the stride must not exceed the kernel size, but is {stride} with a weight of shape '
                         f'{tuple(weight.shape)}')
    # One dtype for both passes, also under autocast, whose state does not reach the backward pass.
    with without_autocast(x.device):
        compute: Callable[..., Tensor] = _pac_conv if _needs_operator(x) else _compute_pac_conv
        out = compute(x, kernel.to(x.dtype), weight.to(x.dtype), stride)
    return out if bias is None else out + bias.to(x.dtype).view(1, -1, 1, 1)


class PACConvTranspose2d(nn.Module):
    """Upsample by `stride` under a guide at output resolution. The weight is (C, O, k, k), as in the source."""

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int = 5, stride: int = 2):
        super().__init__()
        self.kernel_size, self.stride = kernel_size, stride
        self.weight = nn.Parameter(torch.empty(in_channels, out_channels, kernel_size, kernel_size))
        self.bias = nn.Parameter(torch.empty(out_channels))
        bound = (out_channels * kernel_size**2)**-0.5
        nn.init.uniform_(self.weight, -bound, bound)
        nn.init.uniform_(self.bias, -bound, bound)

    def forward(self, x: Tensor, guide: Tensor) -> Tensor:  # (B, C, H, W), (B, G, sH, sW) -> (B, O, sH, sW)
        kernel = pac_kernel(guide, self.kernel_size)
        return pac_conv2d(x, kernel, self.weight.transpose(0, 1), self.bias, self.stride)


@ARCH_REGISTRY.register()
class PACFlowNet(nn.Module):
    """NET_re: refine the two LR flows from the middle to HR, guided by the two SR frames (MBNet eq. 4, Fig. 4).

    This is PAC's joint upsampling network, with its target branch as the paper's encoder and its PAC layers as the
    decoder. We could not obtain the figure, so the layer table is our reconstruction; 190,692 parameters by default.

    Args:
        scale: only 4: two PAC layers of x2.
        num_feat: width of encoder, guide branch and decoder.
        guide_channels: channels by which one PAC layer compares pixels.
        kernel_size: of the convolutions that are not pixel-adaptive, odd.
        unshuffle: 1, or 2 (ours, for small networks): apply pixel unshuffle by 2 to the guide, use one PAC layer of x2,
            and interpolate for the last step to HR.
        residual: add the bilinearly upsampled flows; training starts from them, as the last layer is then zero.

    Raises:
        ValueError: an option has an unknown value.
    """

    part_spec = PartSpec()

    def __init__(self, *, scale: int = 4, num_feat: int = 32, guide_channels: int = 16, kernel_size: int = 5,
                 unshuffle: int = 1, residual: bool = True):
        super().__init__()
        if scale != 4:
            raise ValueError(f'PACFlowNet is built for scale 4, but got {scale}')
        if unshuffle not in (1, 2):
            raise ValueError(f'unshuffle must be 1 or 2, but got {unshuffle}')
        if kernel_size < 1 or kernel_size % 2 == 0:
            raise ValueError(f'kernel_size must be odd, but got {kernel_size}')
        self.scale, self.guide_channels, self.residual, self.unshuffle = scale, guide_channels, residual, unshuffle
        num_steps = 2 if unshuffle == 1 else 1  # of x2

        def convs(*channels: int) -> nn.Sequential:
            layers = []
            for i, o in zip(channels[:-1], channels[1:], strict=True):
                layers += [nn.Conv2d(i, o, kernel_size, padding=kernel_size // 2), nn.ReLU(inplace=True)]
            return nn.Sequential(*layers[:-1])

        self.encoder = convs(4, num_feat, num_feat, num_feat)
        self.guide = convs(6 * unshuffle**2, num_feat, num_feat, num_steps * guide_channels)
        self.up1 = PACConvTranspose2d(num_feat, num_feat)
        self.up2 = PACConvTranspose2d(num_feat, num_feat) if num_steps == 2 else None
        self.tail = convs(num_feat, num_feat, 4)
        if residual:
            for parameter in self.tail[-1].parameters():
                nn.init.zeros_(parameter)

    def forward(self, flows: Tensor, sr_pair: Tensor) -> Tensor:
        """Refine the flows.

        Args:
            flows: (B, 4, H, W), flow_ta and flow_tb from the middle frame, in LR pixels. With float32, as used even
                for frames of half precision, the result is float32 too.
            sr_pair: (B, 6, sH, sW), the guide.

        Returns:
            (B, 4, sH, sW), in HR pixels.
        """
        guide = F.pixel_unshuffle(sr_pair, self.unshuffle) if self.unshuffle > 1 else sr_pair
        guides = self.guide(guide).split(self.guide_channels, dim=1)
        feat = self.encoder(flows.to(sr_pair.dtype))
        if self.up2 is None:
            feat = F.relu(self.up1(feat, guides[0]))
        else:
            small = F.interpolate(guides[0], scale_factor=0.5, mode='bilinear', align_corners=False)
            feat = F.relu(self.up1(feat, small))
            feat = F.relu(self.up2(feat, guides[1]))
        refined = self.tail(feat)
        if self.unshuffle > 1:
            refined = upsample_flow(at_least_float32(refined), self.unshuffle)
        if self.residual:
            refined = refined + upsample_flow(flows, self.scale)
        return refined
