"""Interpolation of frames by OpenCV's optical flow: fast, without weights."""
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from basicsr.utils.registry import ARCH_REGISTRY
from torch import Tensor, nn
from torch.nn import functional as F

from ..io.color_spaces import to_image
from .arch_util import warp
from .dis import Preset, check_preset, dis_flow
from .spec import NetSpec

_WINDOW = 5  # pixels; where both frames are compared
_SHARPNESS = 60.0  # of the choice; differences are in 0-1. The result hardly depends on it from 20 to 200
_LEAST = 0.1  # weight of a frame that does not show a pixel, for pixels that neither shows


@ARCH_REGISTRY.register()
class DISInterpolation(nn.Module):
    """Interpolate the frame between every two along the flow of OpenCV's DIS, with occlusions.

    The motion of a pixel halfway is that of the first frame, that of the second, or their mean. These differ at the
    border of a moving object, where one frame hides the background. There the pixel takes the motion by which both
    frames agree around it. A pixel that has left the picture in one frame is taken from the other.

    Args:
        preset: of DIS, from fast to detailed: 'ultrafast', 'fast', 'medium', 'fine'.

    Raises:
        ValueError: the preset is unknown.
    """

    def __init__(self, *, preset: Preset = 'fine'):
        super().__init__()
        check_preset(preset)
        self.preset = preset
        self.spec = NetSpec(scale=1, temporal_scale=2, num_frames=2, color='rgb', whole_frames=True)

    def forward(self, lq: Tensor) -> Tensor:  # (B, 2, 3, H, W) -> (B, 3, 3, H, W)
        first, second = lq.unbind(1)
        return torch.stack([first, self.frame_between(first, second), second], dim=1)

    def frame_between(self, first: Tensor, second: Tensor) -> Tensor:
        return interpolate(first.float(), second.float(), self.preset).frame.to(first.dtype)


class Interpolated(NamedTuple):
    """A frame interpolated along the flow of DIS, and how; float32. The first dimension of the last two is the motion.

    Attributes:
        frame: (B, 3, H, W), 0-1.
        motions: (3, B, 2, H, W), from the first frame to the second, in pixels: that of the first frame, that of the
            second, and their mean.
        gaps: (3, B, 1, H, W), by how much the two frames differ along each motion.
        weights: (3, B, 1, H, W), share of each motion in the frame.
    """
    frame: Tensor
    motions: Tensor
    gaps: Tensor
    weights: Tensor


@torch.no_grad()
def interpolate(first: Tensor, second: Tensor, preset: Preset) -> Interpolated:
    """Interpolate the frame halfway between two of (B, 3, H, W), 0-1, float32."""
    there, back = flows(first, second, preset)
    motions = torch.stack([there, -back, (there - back) / 2])
    frames, gaps = (torch.stack(parts) for parts in zip(*(between(first, second, motion) for motion in motions),
                                                        strict=True))
    weights = torch.softmax(-_SHARPNESS * gaps, dim=0)
    return Interpolated((frames * weights).sum(dim=0).clamp(0, 1), motions, gaps, weights)


def flows(first: Tensor, second: Tensor, preset: Preset) -> tuple[Tensor, Tensor]:
    """Estimate the flow between frames (B, 3, H, W) in both directions, (B, 2, H, W) each."""
    if first.is_meta:  # frames without values, to count operations
        zeros = first.new_zeros(len(first), 2, *first.shape[-2:])
        return zeros, zeros
    one, other = (list(map(to_image, frames)) for frames in (first, second))
    return estimate(one, other, preset).to(first), estimate(other, one, preset).to(first)


def estimate(first: Sequence[np.ndarray], second: Sequence[np.ndarray], preset: Preset) -> Tensor:
    """Estimate the flow from `first` to `second`, images (H, W, 3) each -> (B, 2, H, W)."""
    flows = [torch.from_numpy(dis_flow(one, other, preset)) for one, other in zip(first, second, strict=True)]
    return torch.stack(flows).permute(0, 3, 1, 2)


def between(first: Tensor, second: Tensor, motion: Tensor) -> tuple[Tensor, Tensor]:
    """Return the frame halfway for a motion (B, 2, H, W) from `first` to `second`; and their gap, (B, 1, H, W)."""
    first, second = warp(first, -motion / 2, mode='bicubic'), warp(second, motion / 2, mode='bicubic')
    frame = torch.lerp(first, second, share_of_second(motion))
    gap = (first - second).abs().mean(dim=1, keepdim=True)
    return frame, F.avg_pool2d(gap, _WINDOW, stride=1, padding=_WINDOW // 2, count_include_pad=False)


def share_of_second(motion: Tensor) -> Tensor:
    """Return the weight of the second frame, (B, 1, H, W): one half, except where only one frame shows the pixel."""
    first, second = (visible(flow) + _LEAST for flow in (-motion / 2, motion / 2))
    return second / (first + second)


def visible(flow: Tensor) -> Tensor:
    """Return 1 where a flow (B, 2, H, W) points into the picture, else 0: (B, 1, H, W)."""
    h, w = flow.shape[-2:]
    x = torch.arange(w, device=flow.device) + flow[:, :1]
    y = torch.arange(h, device=flow.device).unsqueeze(1) + flow[:, 1:]
    return ((x >= 0) & (x <= w - 1) & (y >= 0) & (y <= h - 1)).float()
