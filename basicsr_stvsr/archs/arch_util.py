"""Helpers shared by several networks.

Shapes: B images, C channels, H x W pixels, s = scale.
"""
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import cache
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from .spec import SpecColor

SCALES = (2, 3, 4)
COLORS: dict[int, SpecColor] = {1: 'y', 3: 'rgb'}  # by the number of channels

# For torch.compile. With its default layouts for convolutions, PyTorch 2.13 silently computes wrong gradients of
# networks that refine from coarse to fine and output every level; seen on OFRNet, on a CPU.
COMPILE_OPTIONS: dict[str, str | int | bool | Callable[..., Any]] = {'layout_optimization': False}


def warp(image: Tensor, flow: Tensor, padding_mode: str = 'border', mode: str = 'bilinear') -> Tensor:
    """Warp `image` along `flow`, with align_corners=True.

    This package has one convention, that of RAFT and PWC-Net. `flow_ab`, the flow from a to b, lies on a's pixel grid
    and gives the motion of each pixel of a to its place in b: `warp(b, flow_ab)` looks like a.

    Args:
        image: (B, C, H, W), such as b.
        flow: (B, 2, H, W), such as `flow_ab`; x then y, in pixels of this grid.
        padding_mode: values outside the image: 'border' (its nearest pixel) or 'zeros'.
        mode: 'bilinear', or 'bicubic' (PyTorch's, a = -0.75), which is sharper and may exceed the range of the image.

    Returns:
        (B, C, H, W) in the image's dtype. Pixels whose flow is NaN or infinite are NaN. Positions are computed in
            float32 at least, since bfloat16 cannot separate neighbouring pixels of a large frame.

    Raises:
        ValueError: the flow is not on the image's grid.
    """
    b, _, h, w = image.shape
    if flow.shape != (b, 2, h, w):
        raise ValueError(f'warp needs a flow of shape {(b, 2, h, w)} for an image of shape {tuple(image.shape)}, but '
                         f'got {tuple(flow.shape)}')
    dtype = torch.promote_types(torch.promote_types(image.dtype, flow.dtype), torch.float32)
    image_dtype, image, flow = image.dtype, image.to(dtype), flow.to(dtype)
    x = torch.arange(w, device=image.device, dtype=dtype)
    y = torch.arange(h, device=image.device, dtype=dtype).unsqueeze(1)
    grid = torch.stack((
        (x + flow[:, 0]) * (2 / max(w - 1, 1)) - 1,
        (y + flow[:, 1]) * (2 / max(h - 1, 1)) - 1,
    ), dim=3)
    # On a CPU, the backward pass of PyTorch's grid_sample writes out of bounds at NaN positions and crashes the
    # process. This replacement in place, without a gradient, costs the backward pass nothing.
    with torch.no_grad():
        grid.nan_to_num_()
    warped = F.grid_sample(image, grid, mode=mode, padding_mode=padding_mode, align_corners=True)
    # 0 times a finite flow changes nothing; 0 times any other is NaN.
    x_flow, y_flow = flow.detach().split(1, dim=1)
    return warped.add_(x_flow + y_flow, alpha=0).to(image_dtype)


def at_least_float32(x: Tensor) -> Tensor:
    """Convert half precision to float32, and keep wider types."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def total(tensors: Iterable[Tensor]) -> Tensor:
    """Add one or more tensors."""
    return cast(Tensor, sum(tensors))  # of none, `sum` would return 0


def without_autocast(device: torch.device) -> AbstractContextManager[Any]:
    """Return a context without autocast.

    The meta device, used to count parameters and operations, has no autocast.
    """
    is_known = torch.amp.is_autocast_available(device.type)
    return torch.autocast(device.type, enabled=False) if is_known else nullcontext()


def upsample(image: Tensor, factor: int) -> Tensor:
    """Upsample bilinearly with align_corners=False: (B, C, H, W) -> (B, C, fH, fW); pixel centres stay in place."""
    return F.interpolate(image, scale_factor=factor, mode='bilinear', align_corners=False)


def upsample_flow(flow: Tensor, factor: int) -> Tensor:
    """Upsample a flow to a grid `factor` times finer, with values in pixels of that grid."""
    return upsample(flow, factor) * factor


def to_channels_last(net: nn.Module) -> nn.Module:
    """Store the weights of convolutions, 2D and 3D, in channels_last; their outputs then have the same layout.

    PyTorch's `net.to(memory_format=...)` rejects networks with both. It also keeps the strides of weights with one
    input channel, and their convolutions would return contiguous features.
    """
    formats = {4: torch.channels_last, 5: torch.channels_last_3d}
    for parameter in net.parameters():
        if parameter.dim() in formats:
            empty = torch.empty_like(parameter.data, memory_format=formats[parameter.dim()])
            parameter.data = empty.copy_(parameter.data)
    return net


@cache
def compiler_problem(device: torch.device) -> str | None:
    """Return why torch.compile does not work here, or None if it does."""
    try:
        torch.compile(torch.sin, options=COMPILE_OPTIONS)(torch.zeros(8, device=device))
    except Exception as error:  # of the compiler, of Triton, of the system: anything
        text = ' '.join(str(error).split())
        return f'torch.compile does not work here: {type(error).__name__}: {text[:300]}'
    return None


def compile_network(net: nn.Module, device: torch.device) -> str | None:
    """Compile a network's forward pass, or return the reason why it cannot be compiled on this machine."""
    if problem := compiler_problem(device):
        return problem
    torch._dynamo.config.suppress_errors = True  # parts that cannot be compiled run uncompiled, with a warning
    net.compile(options=COMPILE_OPTIONS)
    return None


def compile_parts(net: nn.Module, **arguments: Any) -> None:
    """Compile each child of a network that runs its children several times, instead of the unrolled whole.

    Args:
        arguments: those of torch.compile; by default, options that give correct gradients.
    """
    for part in net.children():
        part.compile(**(arguments or {'options': COMPILE_OPTIONS}))


def fuse(conv: nn.Conv2d, feats: Sequence[Tensor]) -> Tensor:
    """Apply a 1x1 convolution to concatenated features: `conv(torch.cat(feats, dim=1))`.

    On a CPU in channels_last, it is computed as a sum of matrix products without copies. On one thread, ten features of
    48 channels take half the time of concatenation and convolution.

    Args:
        conv: 1x1.
        feats: (B, C_i, H, W) each.
    """
    is_last = all(feat.is_contiguous(memory_format=torch.channels_last) for feat in feats)
    if not is_last or feats[0].device.type != 'cpu':
        return conv(torch.cat(tuple(feats), dim=1))
    weights = conv.weight.flatten(1).split([feat.shape[1] for feat in feats], dim=1)
    pixels = [feat.permute(0, 2, 3, 1).flatten(0, 2) for feat in feats]  # (B H W, C_i), views
    out = F.linear(pixels[0], weights[0], conv.bias)
    for x, weight in zip(pixels[1:], weights[1:], strict=True):
        out = torch.addmm(out, x, weight.t())
    b, _, h, w = feats[0].shape
    return out.view(b, h, w, -1).permute(0, 3, 1, 2)


def last_conv(net: nn.Module) -> nn.Conv2d:
    """Return the last convolution of a network, in the order of its modules."""
    return [module for module in net.modules() if isinstance(module, nn.Conv2d)][-1]


def train_alone(net: nn.Module, part: str) -> None:
    """Restrict gradients to one part of a network, such as 'flow_net'."""
    net.requires_grad_(False)
    getattr(net, part).requires_grad_(True)


def check_counts(**counts: int) -> None:
    """Raise ValueError unless each of these arguments is at least 1."""
    for name, count in counts.items():
        if count < 1:
            raise ValueError(f'{name} must be at least 1, but got {count}')


def check_size_multiple(lq: Tensor, multiple: int, name: str) -> None:
    """Raise ValueError unless height and width of (..., H, W) are divisible by `multiple`."""
    h, w = lq.shape[-2:]
    if h % multiple or w % multiple:
        raise ValueError(f'{name} needs a height and width divisible by {multiple}, but got {h}x{w}; '
                         'basicsr_stvsr.inference.windows.restore_clip pads and crops')


def run_part(part: Callable[..., Any], *inputs: Any, recompute: bool) -> Any:
    """Call `part(*inputs)`, with gradient checkpointing if `recompute` is True.

    Gradient checkpointing keeps no intermediate results of the part for the backward pass. The backward pass runs the
    part once more, with the same random numbers and autocast. Outputs and gradients stay the same if the part's outputs
    depend only on its inputs and weights. Without gradients, `recompute` has no effect.
    """
    return run_twice(part, *inputs) if recompute and torch.is_grad_enabled() else part(*inputs)


# Hidden from torch.compile: within one compiled graph the second run uses other kernels than the first, and with
# PyTorch 2.13 the gradients of OFRNet came out wrong. A part that is compiled separately stays compiled.
# torch.compiler.disable does the same, but imports the compiler at once, which takes as long as importing torch.
@torch._disable_dynamo  # type: ignore[attr-defined]  # torch has it, but does not list it
def run_twice(part: Callable[..., Any], *inputs: Any) -> Any:
    # The reentrant form fails for inputs without a gradient, such as LR frames, and for weights that are used in two
    # rounds of distributed training.
    return checkpoint(part, *inputs, use_reentrant=False)
