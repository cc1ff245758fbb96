"""A U-Net of three levels, in place of GridNet in MBNet's ablation (Table 1, row 8).

Paper: How Video Super-Resolution and Frame Interpolation Mutually Benefit (ACM MM 2021), section 3.4. It names the
U-Net but not its layers: those are our choice, with GridNet's blocks, inputs and widths.
Shapes: B clips, h x w low resolution, s = scale.
"""
from collections.abc import Sequence

import torch
from basicsr.utils.registry import ARCH_REGISTRY
from torch import Tensor, nn
from torch.nn import functional as F

from .arch_util import check_size_multiple, upsample
from .gridnet_arch import ConvBlock, head
from .spec import PartSpec


@ARCH_REGISTRY.register()
class UNet(nn.Module):
    """Interpolate the middle frame from two frames warped to it and a feature of the VSR network.

    Args:
        scale: ratio s of the frames' size to the feature's.
        feature_channels: channels of the feature, a multiple of s^2 (depth to space brings it to the frames' size); 0
            for none.
        channels: width of the three levels, fine to coarse.
        residual: add the mean of the two warped frames to the output (our option; the paper's output is direct).
    """

    part_spec = PartSpec(size_multiple=4)  # of the HR frames: two halvings

    def __init__(
        self,
        *,
        scale: int = 4,
        feature_channels: int = 64,
        channels: Sequence[int] = (32, 96, 192),
        residual: bool = False,
    ):
        super().__init__()
        if feature_channels % scale**2:
            raise ValueError(f'feature_channels must be divisible by {scale**2}, but got {feature_channels}')
        if len(channels) != 3:
            raise ValueError(f'channels must name the widths of 3 levels, but got {list(channels)}')
        self.scale, self.feature_channels, self.residual = scale, feature_channels, residual
        fine, middle, coarse = channels
        self.encode_fine = ConvBlock(6 + feature_channels // scale**2, fine)
        self.encode_middle = ConvBlock(fine, middle, stride=2)
        self.encode_coarse = ConvBlock(middle, coarse, stride=2)
        self.decode_middle = ConvBlock(coarse + middle, middle)
        self.decode_fine = ConvBlock(middle + fine, fine)
        self.head = head(fine)

    def forward(self, warped_pair: Tensor, feature: Tensor | None) -> Tensor:
        """Interpolate the middle frame.

        Args:
            warped_pair: (B, 6, sh, sw) the two SR frames, warped to the middle, 0-1.
            feature: (B, feature_channels, h, w), ignored if feature_channels is 0.

        Returns:
            (B, 3, sh, sw).

        Raises:
            ValueError: sh or sw is not a multiple of 4, or the feature does not fit feature_channels.
        """
        check_size_multiple(warped_pair, self.part_spec.size_multiple, 'UNet')
        x = warped_pair
        if self.feature_channels:
            batch, _, height, width = warped_pair.shape
            expected = (batch, self.feature_channels, height // self.scale, width // self.scale)
            if feature is None or feature.shape != expected:
                seen = None if feature is None else tuple(feature.shape)
                raise ValueError(f'UNet x{self.scale} needs a feature of shape {expected}, but got {seen}')
            x = torch.cat([x, F.pixel_shuffle(feature, self.scale)], dim=1)
        fine = self.encode_fine(x)
        middle = self.encode_middle(fine)
        x = self.encode_coarse(middle)
        x = self.decode_middle(torch.cat([upsample(x, 2), middle], dim=1))
        x = self.decode_fine(torch.cat([upsample(x, 2), fine], dim=1))
        frame = self.head(x)
        if self.residual:
            frame = frame + (warped_pair[:, :3] + warped_pair[:, 3:]) / 2
        return frame
