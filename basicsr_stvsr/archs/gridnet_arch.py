"""GridNet: MBNet's NET_FI, which makes the middle frame from two warped frames and a feature of the VSR net.

Papers: MBNet (ACM MM 2021) section 3.4; the grid is of Fourure et al., Residual Conv-Deconv Grid Network (BMVC 2017).
Shapes: B pairs, H x W pixels of the LR grid, s = scale = 4; row r of the grid has (4, 2, 1)[r] times H x W pixels.
"""
from collections.abc import Sequence

import torch
from basicsr.utils.registry import ARCH_REGISTRY
from torch import Tensor, nn
from torch.nn import functional as F

from .arch_util import upsample


class ConvBlock(nn.Sequential):
    """Two convolutions, each followed by a ReLU; the first may stride (MBNet 3.4)."""

    def __init__(self, in_channels: int, out_channels: int, stride: int = 1):
        super().__init__(
            nn.Conv2d(in_channels, out_channels, 3, stride, 1), nn.ReLU(inplace=True),
            nn.Conv2d(out_channels, out_channels, 3, padding=1), nn.ReLU(inplace=True))


class UpBlock(nn.Module):
    """Bilinear x2, then a ConvBlock."""

    def __init__(self, in_channels: int, out_channels: int):
        super().__init__()
        self.block = ConvBlock(in_channels, out_channels)

    def forward(self, x: Tensor) -> Tensor:
        return self.block(upsample(x, 2))


def head(num_feat: int) -> nn.Sequential:
    """Features to an RGB frame."""
    return nn.Sequential(
        nn.Conv2d(num_feat, num_feat, 3, padding=1), nn.ReLU(inplace=True), nn.Conv2d(num_feat, 3, 3, padding=1))


@ARCH_REGISTRY.register()
class GridNet(nn.Module):
    """Three rows, six columns: information flows down in the first three columns and up in the last three.

    Args:
        scale: only 4, as in the paper: the rows have 4, 2 and 1 times the LR resolution.
        feature_channels: channels of the LR feature, divisible by 16 (it enters the rows by depth to space); 0: none.
        channels: width of each row. Not published; (32, 96, 192) with RDN D16C8 gives the printed 30.8 M (our choice).
        residual: adds the mean of the two warped frames to the output (our option; the paper's output is direct).
    """

    def __init__(self, *, scale: int = 4, feature_channels: int = 64, channels: Sequence[int] = (32, 96, 192),
                 residual: bool = False):
        super().__init__()
        if scale != 4:
            raise ValueError(f'GridNet is built for scale 4, but got {scale}')
        if feature_channels % scale**2:
            raise ValueError(f'feature_channels must be divisible by {scale**2}, but got {feature_channels}')
        if len(channels) != 3:
            raise ValueError(f'channels must name the widths of 3 rows, but got {list(channels)}')
        self.scale, self.residual = scale, residual
        in_channels = [2 * 3 + feature_channels // 16, 2 * 3 + feature_channels // 4, 2 * 3 + feature_channels]
        self.stems = nn.ModuleList(ConvBlock(i, c) for i, c in zip(in_channels, channels, strict=True))
        # laterals[column - 1][row]; downs[column][row]: row -> row + 1; ups[column - 3][row]: row + 1 -> row
        self.laterals = nn.ModuleList(nn.ModuleList(ConvBlock(c, c) for c in channels) for _ in range(5))
        self.downs = nn.ModuleList(
            nn.ModuleList(ConvBlock(channels[r], channels[r + 1], stride=2) for r in range(2)) for _ in range(3))
        self.ups = nn.ModuleList(
            nn.ModuleList(UpBlock(channels[r + 1], channels[r]) for r in range(2)) for _ in range(3))
        self.head = head(channels[0])

    def forward(self, warped_pair: Tensor, feature: Tensor | None) -> Tensor:
        """Makes the middle frame.

        Args:
            warped_pair: (B, 6, sH, sW), the two SR frames warped to the middle, 0-1, the earlier one first.
            feature: (B, feature_channels, H, W), or None where the net was built with feature_channels = 0.

        Returns:
            (B, 3, sH, sW).
        """
        rows = [stem(x) for stem, x in zip(self.stems, self.row_inputs(warped_pair, feature), strict=True)]
        for row in (1, 2):
            rows[row] = rows[row] + self.downs[0][row - 1](rows[row - 1])
        for column in (1, 2):
            lateral, down = self.laterals[column - 1], self.downs[column]
            rows = [x + lateral[row](x) for row, x in enumerate(rows)]
            for row in (1, 2):
                rows[row] = rows[row] + down[row - 1](rows[row - 1])
        for column in (3, 4, 5):
            lateral, up = self.laterals[column - 1], self.ups[column - 3]
            rows = [x + lateral[row](x) for row, x in enumerate(rows)]
            for row in (1, 0):
                rows[row] = rows[row] + up[row](rows[row + 1])
        frame = self.head(rows[0])
        if self.residual:
            frame = frame + (warped_pair[:, :3] + warped_pair[:, 3:]) / 2
        return frame

    @staticmethod
    def row_inputs(warped_pair: Tensor, feature: Tensor | None) -> list[Tensor]:
        """The inputs of the rows 'are multi-scale from LR to HR' (paper); how the feature is split is our choice."""
        images = [warped_pair, F.avg_pool2d(warped_pair, 2), F.avg_pool2d(warped_pair, 4)]
        if feature is None:
            return images
        features = [F.pixel_shuffle(feature, 4), F.pixel_shuffle(feature, 2), feature]
        return [torch.cat(pair, dim=1) for pair in zip(images, features, strict=True)]
