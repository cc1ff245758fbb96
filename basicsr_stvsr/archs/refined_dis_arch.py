"""A small network that corrects frames interpolated along OpenCV's optical flow. Our design, not that of a paper.

Shapes: B pairs of frames, H x W pixels. a and b are the two given frames, t the one halfway between.
"""
from collections.abc import Sequence

import torch
from basicsr.utils.registry import ARCH_REGISTRY
from torch import Tensor, nn
from torch.nn import functional as F

from .arch_util import at_least_float32, check_size_multiple, last_conv, upsample, warp
from .dis import Preset, check_preset
from .dis_interpolation_arch import Interpolated, interpolate, share_of_second
from .gridnet_arch import ConvBlock, UpBlock, head
from .spec import NetSpec

_GRID = 4  # of the finest level: pixels of the frames in each direction
_FLOW_GRID = 2  # of the corrections of the flows
# What the network sees and makes has similar ranges in these units, so that it learns faster.
_FLOW_UNIT = 8.0  # pixels
_GAP_UNIT = 0.1  # of differences between frames in 0-1
_SMALL_GAP = 0.02  # between a and b: half of the correction applies


@ARCH_REGISTRY.register()
class RefinedDIS(nn.Module):
    """Interpolate the frame between every two: along the flow of OpenCV's DIS, then corrected by a small network.

    `DISInterpolation` gives a first frame and the motion of each pixel. A U-Net corrects the flows from t to a and b,
    and both frames are warped again. From these, the network predicts which of the two to prefer, how much of DIS's
    choice between motions to undo, and a residual. The correction fades where a and b agree along DIS's motion. All
    layers work at a quarter of the size and below. The last ones start at zero, so that an untrained network returns
    the frame of `DISInterpolation`.

    Args:
        channels: widths at 1/4, 1/8 and 1/16 of the size.
        preset: of DIS, see `DISInterpolation`.

    Raises:
        ValueError: an argument has an invalid value.
    """

    def __init__(self, *, channels: Sequence[int] = (48, 64, 96), preset: Preset = 'fine'):
        super().__init__()
        check_preset(preset)
        if len(channels) != 3:
            raise ValueError(f'channels must name the widths of 3 levels, but got {list(channels)}')
        self.preset = preset
        fine, middle, coarse = channels
        # three images in detail; means of three gaps, and of six motions: DIS's three, the chosen one, and two strays
        self.encode_fine = ConvBlock(3 * 3 * _GRID**2 + 3 + 6 * 2, fine)
        self.encode_middle = ConvBlock(fine, middle, stride=2)
        self.encode_coarse = ConvBlock(middle, coarse, stride=2)
        self.coarse = ConvBlock(coarse, coarse)
        self.decode_middle = UpBlock(coarse, middle)
        self.decode_fine = UpBlock(middle, fine)
        self.flow_head = head(fine, 4 * (_GRID // _FLOW_GRID)**2)
        self.merge = ConvBlock(3 * 3 * _GRID**2 + fine, fine)
        self.merge_more = ConvBlock(fine, fine)
        self.frame_head = head(fine, 5 * _GRID**2)
        self.apply(initialise)
        for part in (self.flow_head, self.frame_head):
            nn.init.zeros_(last_conv(part).weight)
        self.spec = NetSpec(scale=1, temporal_scale=2, num_frames=2, size_multiple=4 * _GRID, color='rgb',
                            whole_frames=True)

    def forward(self, lq: Tensor) -> Tensor:
        """Interpolate the frame between two.

        Args:
            lq: (B, 2, 3, H, W), RGB, 0-1; H and W divisible by `spec.size_multiple`.

        Returns:
            (B, 3, 3, H, W): a, t and b.
        """
        check_size_multiple(lq, self.spec.size_multiple, 'RefinedDIS')
        a, b = lq.unbind(1)
        return torch.stack([a, self.frame_between(a, b), b], dim=1)

    def frame_between(self, a: Tensor, b: Tensor) -> Tensor:  # (B, 3, H, W) each
        a_wide, b_wide = at_least_float32(a), at_least_float32(b)
        start = interpolate(a_wide, b_wide, self.preset)
        motion = (start.motions * start.weights).sum(dim=0)
        flow_ta, flow_tb = -motion / 2, motion / 2
        plain = warp(a_wide, flow_ta, mode='bicubic'), warp(b_wide, flow_tb, mode='bicubic')
        # By how much a pixel in a, and one in b, moves differently from the pixel in t that it is taken for
        strays = warp(start.motions[0], flow_ta) - motion, warp(start.motions[1], flow_tb) - motion

        feature = self.feature(start, torch.cat([motion, *strays], dim=1), plain, a.dtype)
        change = at_least_float32(F.pixel_shuffle(self.flow_head(feature), _GRID // _FLOW_GRID))
        change_ta, change_tb = upsample(change, _FLOW_GRID).chunk(2, dim=1)
        warped = (warp(a_wide, flow_ta + change_ta, mode='bicubic'),
                  warp(b_wide, flow_tb + change_tb, mode='bicubic'))

        merged = self.merge(torch.cat([to_images(start.frame, warped).to(a.dtype), feature], dim=1))
        output = at_least_float32(F.pixel_shuffle(self.frame_head(merged + self.merge_more(merged)), _GRID))
        residual, preference, replaced = output.split([3, 1, 1], dim=1)
        share = share_of_second(motion)
        weight = torch.sigmoid(torch.logit(share) + preference)
        before = torch.lerp(*plain, share)
        correction = (torch.lerp(*warped, weight) - before - replaced * (start.frame - before)
                      + _GAP_UNIT * residual)
        gap = start.gaps.amin(dim=0)
        return (start.frame + gap / (gap + _SMALL_GAP) * correction).to(a.dtype)

    def feature(self, start: Interpolated, motions: Tensor, plain: tuple[Tensor, Tensor], dtype: torch.dtype) -> Tensor:
        """Return what the U-Net finds in the first frame, and in what it was made from.

        Args:
            start: the first frame.
            motions: (B, 6, H, W), the chosen motion and the strays of a and b.
            plain: a and b warped along the chosen motion, (B, 3, H, W) each.
            dtype: of the weights.

        Returns:
            (B, channels[0], H / 4, W / 4).
        """
        motions = torch.cat([*start.motions, motions], dim=1) / _FLOW_UNIT
        coarse = F.avg_pool2d(torch.cat([motions, *start.gaps / _GAP_UNIT], dim=1), _GRID)
        fine = self.encode_fine(torch.cat([to_images(start.frame, plain), coarse], dim=1).to(dtype))
        middle = self.encode_middle(fine)
        deep = self.encode_coarse(middle)
        middle = middle + self.decode_middle(deep + self.coarse(deep))
        return fine + self.decode_fine(middle)


def initialise(module: nn.Module) -> None:
    """Keep the range of features from layer to layer; PyTorch's own initial weights shrink it."""
    if isinstance(module, nn.Conv2d):
        nn.init.kaiming_normal_(module.weight)
        nn.init.zeros_(module.get_parameter('bias'))


def to_images(frame: Tensor, pair: tuple[Tensor, Tensor]) -> Tensor:
    """Return a frame, and how two others differ from it, as channels of the finest level.

    Args:
        frame, pair: (B, 3, H, W), 0-1.

    Returns:
        (B, 144, H / 4, W / 4).
    """
    differences = [(each - frame) / _GAP_UNIT for each in pair]
    return F.pixel_unshuffle(torch.cat([frame - 0.5, *differences], dim=1), _GRID)
