"""Give BasicSR's own networks a `NetSpec`, and the input and output that it promises.

A network keeps its class, and the names of its weights.
"""
import math
from collections.abc import Callable
from typing import Any, cast

from torch import nn

from .spec import NetSpec, SpecColor


def single_image(net: nn.Module, scale: int, *, size_multiple: int = 1, color: SpecColor = 'rgb') -> NetSpec:
    """Let a network of images take a window of one frame: (B, 1, C, H, W) -> (B, 1, C, sH, sW)."""
    net.register_forward_pre_hook(lambda _, inputs: (inputs[0].squeeze(1), *inputs[1:]))
    add_time(net)
    return NetSpec(scale=scale, num_frames=1, size_multiple=size_multiple, color=color)


def middle_frame(net: nn.Module, scale: int, num_frames: int, *, size_multiple: int = 1) -> NetSpec:
    """Let a network that restores the middle frame of a window return (B, 1, C, sH, sW)."""
    add_time(net)
    return NetSpec(scale=scale, num_frames=num_frames, first_output=num_frames // 2, pads_ends=True,
                   size_multiple=size_multiple, color='rgb')


def add_time(net: nn.Module) -> None:
    """Return one frame as a clip, (B, C, H, W) -> (B, 1, C, H, W)."""
    net.register_forward_hook(lambda _, __, frame: frame.unsqueeze(1))


def whole_clip(scale: int, size_multiple: int = 1) -> NetSpec:
    return NetSpec(scale=scale, num_frames=None, size_multiple=size_multiple, color='rgb')


def color_of(num_channels: int) -> SpecColor:
    return 'y' if num_channels == 1 else 'rgb'


# Class name in BasicSR -> function that prepares a network and returns its spec
SPECS: dict[str, Callable[[Any], NetSpec]] = {
    'MSRResNet': lambda net: single_image(net, net.upscale, color=color_of(net.conv_first.in_channels)),
    'EDSR': lambda net: single_image(net, upscale_of(net.upsample), color=color_of(net.conv_first.in_channels)),
    'RCAN': lambda net: single_image(net, upscale_of(net.upsample), color=color_of(net.conv_first.in_channels)),
    'RRDBNet': lambda net: single_image(  # its first layer sees unshuffled pixels
        net, net.scale, size_multiple={1: 4, 2: 2}.get(net.scale, 1), color=color_of(net.conv_last.out_channels)),
    'SRVGGNetCompact': lambda net: single_image(net, net.upscale, color=color_of(net.body[0].in_channels)),
    'EDVR': lambda net: middle_frame(
        net, 1 if net.hr_in else 4, 2 * net.center_frame_idx + 1, size_multiple=16 if net.hr_in else 4),
    'DUF': lambda net: middle_frame(net, net.scale, 7),
    'TOFlow': lambda net: middle_frame(net, 1, 7, size_multiple=16),
    'BasicVSR': lambda _: whole_clip(4),
    'IconVSR': lambda _: whole_clip(4, size_multiple=4),
}


def upscale_of(upsample: nn.Sequential) -> int:
    """Return the factor of BasicSR's `Upsample`, a row of pixel shuffles."""
    return math.prod(layer.upscale_factor for layer in upsample if isinstance(layer, nn.PixelShuffle))


def adapt(net: nn.Module) -> nn.Module:
    """Give a network of BasicSR its `spec`; return others, and those that already have one, unchanged."""
    if type(net).__module__.startswith('basicsr.') and not hasattr(net, 'spec') and type(net).__name__ in SPECS:
        cast(Any, net).spec = SPECS[type(net).__name__](net)
    return net
