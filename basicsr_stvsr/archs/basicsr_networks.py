"""Give BasicSR's own networks, and others that are called like them, a `NetSpec`, and the input and output it promises.

A network keeps its class, and the names of its weights.
"""
import math
from collections.abc import Callable, Mapping
from typing import Any, cast

import torch
from torch import nn

from ..config.options import ArchSpecOptions
from .spec import NetSpec, SpecColor

SMALLEST_OF_SPYNET = 33  # it resizes frames to multiples of 32, and halves them five times


def single_image(net: nn.Module, scale: int, *, size_multiple: int = 1, min_size: int = 1,
                 color: SpecColor = 'rgb') -> NetSpec:
    """Let a network of images take a window of one frame: (B, 1, C, H, W) -> (B, 1, C, sH, sW)."""
    net.register_forward_pre_hook(lambda _, inputs: (inputs[0].squeeze(1), *inputs[1:]))
    add_time(net)
    return NetSpec(scale=scale, num_frames=1, size_multiple=size_multiple, min_size=min_size, color=color)


def middle_frame(net: nn.Module, scale: int, num_frames: int, *, size_multiple: int = 1, min_size: int = 1,
                 color: SpecColor = 'rgb') -> NetSpec:
    """Let a network that restores the middle frame of a window return (B, 1, C, sH, sW)."""
    take_any_layout(net)
    add_time(net)
    return NetSpec(scale=scale, num_frames=num_frames, first_output=num_frames // 2, pads_ends=True,
                   size_multiple=size_multiple, min_size=min_size, color=color)


def add_time(net: nn.Module) -> None:
    """Return one frame as a clip, (B, C, H, W) -> (B, 1, C, H, W)."""
    net.register_forward_hook(lambda _, __, frame: frame.unsqueeze(1))


def take_any_layout(net: nn.Module) -> None:
    """Make clips contiguous, as BasicSR's networks view them in other shapes."""
    net.register_forward_pre_hook(lambda _, inputs: (inputs[0].contiguous(), *inputs[1:]))


def whole_clip(net: nn.Module, scale: int, *, size_multiple: int = 1, min_size: int = 1, min_frames: int = 1,
               color: SpecColor = 'rgb') -> NetSpec:
    """Describe a network that restores all frames of a scene at once."""
    take_any_layout(net)
    return NetSpec(scale=scale, num_frames=None, size_multiple=size_multiple, min_size=min_size, min_frames=min_frames,
                   color=color)


def color_of(num_channels: int) -> SpecColor:
    return 'y' if num_channels == 1 else 'rgb'


def upscale_of(upsample: nn.Sequential) -> int:
    """Return the factor of BasicSR's `Upsample`, a row of pixel shuffles."""
    return math.prod(layer.upscale_factor for layer in upsample if isinstance(layer, nn.PixelShuffle))


def spec_of_edvr(net: Any) -> NetSpec:
    fusion = net.fusion.feat_fusion if net.with_tsa else net.fusion
    num_frames = fusion.in_channels // fusion.out_channels
    if net.center_frame_idx != num_frames // 2:
        raise ValueError(f'EDVR: center_frame_idx must be the middle of num_frame {num_frames}, but is '
                         f'{net.center_frame_idx}')
    return middle_frame(net, 1 if net.hr_in else 4, num_frames, size_multiple=16 if net.hr_in else 4)


def spec_of_plus_plus(net: Any) -> NetSpec:
    # It keeps on taking clips for mirrored ones after the first such clip, also one of equal frames ...
    net.register_forward_pre_hook(lambda net, _: setattr(net, 'is_mirror_extended', False))
    if not torch.cuda.is_available():  # ... and moves long clips from a GPU to main memory, also without a GPU.
        net.cpu_cache_length = math.inf
    scale, reduction = (4, 1) if net.is_low_res_input else (1, 4)
    return whole_clip(net, scale, size_multiple=reduction, min_size=64 * reduction, min_frames=2)


# Class name in BasicSR -> function that prepares a network and returns its spec
SPECS: dict[str, Callable[[Any], NetSpec]] = {
    'MSRResNet': lambda net: single_image(net, net.upscale, color=color_of(net.conv_first.in_channels)),
    'EDSR': lambda net: single_image(net, upscale_of(net.upsample), color=color_of(net.conv_first.in_channels)),
    'RCAN': lambda net: single_image(net, upscale_of(net.upsample), color=color_of(net.conv_first.in_channels)),
    'RIDNet': lambda net: single_image(net, 1, color=color_of(net.head.in_channels)),
    'ECBSR': lambda net: single_image(net, net.scale, color=color_of(net.num_in_ch)),
    'SwinIR': lambda net: single_image(
        net, net.upscale if net.upsampler else 1, color=color_of(net.conv_first.in_channels),
        size_multiple=net.layers[0].residual_group.blocks[0].window_size),
    'RRDBNet': lambda net: single_image(  # its first layer sees unshuffled pixels
        net, net.scale, size_multiple={1: 4, 2: 2}.get(net.scale, 1), color=color_of(net.conv_last.out_channels)),
    'SRVGGNetCompact': lambda net: single_image(net, net.upscale, color=color_of(net.body[0].in_channels)),
    'EDVR': spec_of_edvr,
    'DUF': lambda net: middle_frame(net, net.scale, 7),
    'TOFlow': lambda net: middle_frame(net, 1, 7, size_multiple=16),
    'BasicVSR': lambda net: whole_clip(net, 4, min_size=SMALLEST_OF_SPYNET, min_frames=2),
    'IconVSR': lambda net: whole_clip(net, 4, size_multiple=4, min_size=SMALLEST_OF_SPYNET,
                                      min_frames=2 * net.temporal_padding + 1),
    'BasicVSRPlusPlus': spec_of_plus_plus,
}


def is_basicsr(kind: Callable[..., Any]) -> bool:
    """Return whether a class comes from BasicSR."""
    return kind.__module__.startswith('basicsr.')


def adapt(net: nn.Module, arch_spec: Mapping[str, Any] | None = None) -> nn.Module:
    """Give a network of BasicSR, or one that `arch_spec` describes, its `spec`.

    Others, and those that already have one, stay unchanged.

    Args:
        arch_spec: the block of this name of an option file, see `ArchSpecOptions`.

    Raises:
        ValueError: the block is wrong, or the network states its needs itself.
    """
    if arch_spec is not None:
        options = ArchSpecOptions.read(dict(arch_spec), 'arch_spec.')
        if hasattr(net, 'spec'):
            raise ValueError(f'arch_spec: {type(net).__name__} states what it needs itself; remove the block')
        cast(Any, net).spec = described(net, options)
    elif is_basicsr(type(net)) and not hasattr(net, 'spec') and type(net).__name__ in SPECS:
        cast(Any, net).spec = SPECS[type(net).__name__](net)
    return net


def described(net: nn.Module, options: ArchSpecOptions) -> NetSpec:
    """Prepare a network that an option file describes, and return its spec."""
    common: dict[str, Any] = {'size_multiple': options.size_multiple, 'min_size': options.min_size,
                              'color': options.color}
    if options.input == 'image':
        return single_image(net, options.scale, **common)
    if options.input == 'window':
        assert options.num_frame is not None  # ArchSpecOptions requires it
        return middle_frame(net, options.scale, options.num_frame, **common)
    return whole_clip(net, options.scale, min_frames=options.min_frames, **common)
