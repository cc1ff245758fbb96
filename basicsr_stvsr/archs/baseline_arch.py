"""Baselines: MATLAB-like bicubic upscaling, with the mean, a repeated frame or optical flow in between."""
from collections.abc import Sequence
from dataclasses import replace
from itertools import chain, pairwise
from typing import get_args

import numpy as np
import torch
from basicsr.utils.registry import ARCH_REGISTRY
from torch import Tensor, nn

from ..io.color_spaces import Color, convert_clip, to_image
from .arch_util import warp
from .dis import Preset, check_preset, dis_flow
from .mbnet_arch import interpolate_flow
from .resize import upscale_bicubic
from .spec import NetSpec

BETWEEN = ('mean', 'repeat')


@ARCH_REGISTRY.register()
class BicubicAverage(nn.Module):
    """Upscale a clip by bicubic interpolation; with temporal_scale 2, also interpolate the frame between every two.

    Frames are rounded to 8 bits before they are averaged, as if they came from files.

    Args:
        scale, temporal_scale: factors by which frame size and frame rate grow.
        first_output: number of frames to leave out at both ends, to match a network in a comparison.
        between: the frame between two others: their 'mean', or 'repeat', the first one again.
    """

    def __init__(self, *, scale: int = 4, temporal_scale: int = 2, first_output: int = 0,
                 between: str = 'mean'):
        super().__init__()
        if between not in BETWEEN:
            raise ValueError(f'between must be one of {", ".join(BETWEEN)}, but got {between!r}')
        if temporal_scale not in (1, 2):
            raise ValueError(f'temporal_scale must be 1 or 2, but got {temporal_scale}')
        self.scale, self.between = scale, between
        # the shortest windows that leave out no other frames if each starts one frame after the previous one
        num_frames = 2 * first_output + 1 if temporal_scale == 1 else first_output + 2
        self.spec = NetSpec(scale=scale, temporal_scale=temporal_scale, num_frames=num_frames,
                            first_output=first_output, sharing='features')

    def forward(self, lq: Tensor | Sequence[Tensor]) -> Tensor:
        """Upscale a clip.

        Args:
            lq: (B, T, C, H, W), 0-1, of any length; or a list of the `features` of each frame.

        Returns:
            (B, U, C, sH, sW).
        """
        frames = [self.features(frame) for frame in lq.unbind(1)] if isinstance(lq, Tensor) else list(lq)
        if self.spec.temporal_scale == 2:
            between = [self.frame_between(a, b) for a, b in pairwise(frames)]
            frames[1:] = chain.from_iterable(zip(between, frames[1:], strict=True))
        first = self.spec.first_output
        return torch.stack(frames[first:len(frames) - first], dim=1)

    def features(self, frame: Tensor) -> Tensor:
        """Return the upscaled frame, which neighbouring windows share; (B, C, H, W) -> (B, C, sH, sW)."""
        frames = upscale_bicubic(frame.float(), self.scale)
        return frames.mul(255).round().clamp(0, 255).div(255).to(frame)

    def frame_between(self, a: Tensor, b: Tensor) -> Tensor:
        """Interpolate the frame halfway between two upscaled ones, all (B, C, sH, sW)."""
        return (a + b) / 2 if self.between == 'mean' else a


@ARCH_REGISTRY.register()
class BicubicDIS(BicubicAverage):
    """Upscale a clip by bicubic interpolation; with temporal_scale 2, interpolate frames by optical flow.

    OpenCV's DIS estimates the flow between the upscaled frames in both directions. Both frames are warped halfway along
    flows interpolated as in Super SloMo (CVPR 2018, eq. 4), and averaged.

    Args:
        scale, temporal_scale, first_output: see `BicubicAverage`.
        color: colour space of the clips, 'rgb', 'yuv' or 'y'; DIS converts them to grey.
        preset: of `DISFlow`. 'medium' takes a third of the time of 'fine' and loses up to 0.01 dB.

    Raises:
        ValueError: an argument has an invalid value.
    """

    def __init__(self, *, scale: int = 4, temporal_scale: int = 2, first_output: int = 0, color: Color = 'rgb',
                 preset: Preset = 'fine'):
        super().__init__(scale=scale, temporal_scale=temporal_scale, first_output=first_output)
        if color not in get_args(Color):
            raise ValueError(f'color must be one of {", ".join(get_args(Color))}, but got {color!r}')
        check_preset(preset)
        self.color, self.spec = color, replace(self.spec, color=color)
        self.preset = preset

    def frame_between(self, a: Tensor, b: Tensor) -> Tensor:
        flow_ba, flow_ab = self.estimate(b, a), self.estimate(a, b)
        flow_ta, flow_tb = interpolate_flow(flow_ab, flow_ba)
        # Bilinear sampling blurs: it loses 0.05 dB
        warped_a, warped_b = (warp(frame, flow, mode='bicubic') for frame, flow in ((a, flow_ta), (b, flow_tb)))
        return (warped_a + warped_b).div(2).clamp(0, 1)

    def estimate(self, a: Tensor, b: Tensor) -> Tensor:
        """Estimate flow_ab of frames (B, C, H, W) -> (B, 2, H, W), pixels."""
        images = (map(to_image, convert_clip(frames.float(), self.color, 'rgb')) for frames in (a, b))
        flows = np.stack([dis_flow(one, other, self.preset) for one, other in zip(*images, strict=True)])
        return torch.from_numpy(flows).permute(0, 3, 1, 2).to(a.device)
