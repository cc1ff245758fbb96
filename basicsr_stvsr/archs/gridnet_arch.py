"""GridNet: MBNet's NET_FI, which interpolates the middle frame from two warped frames and a feature of the VSR net.

Papers: MBNet (ACM MM 2021) section 3.4; the grid is from Fourure et al., Residual Conv-Deconv Grid Network (BMVC 2017).
Shapes: B pairs, H x W pixels of the LR grid, s = scale = 4; row r of the grid has (4, 2, 1)[r] times H x W pixels.
"""
from collections.abc import Iterable, Sequence
from typing import cast

import torch
from basicsr.utils.registry import ARCH_REGISTRY
from torch import Tensor, nn
from torch.nn import functional as F

from .arch_util import upsample
from .spec import PartSpec


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


def head(num_feat: int, out_channels: int = 3) -> nn.Sequential:
    """Return layers that convert features to a frame."""
    return nn.Sequential(
        nn.Conv2d(num_feat, num_feat, 3, padding=1), nn.ReLU(inplace=True),
        nn.Conv2d(num_feat, out_channels, 3, padding=1))


def resize_feature(feature: Tensor, ratio: float) -> Tensor:  # (B, C, H, W) -> (B, C / ratio^2 or C, ratio H, ratio W)
    """Resize the LR feature to the grid of a row: depth to space to enlarge it, averages to reduce it."""
    return F.pixel_shuffle(feature, int(ratio)) if ratio >= 1 else F.avg_pool2d(feature, int(1 / ratio))


def grid(columns: Iterable[Iterable[nn.Module]]) -> Sequence[nn.ModuleList]:
    """Return a ModuleList of the layers of each column, by row."""
    return cast('Sequence[nn.ModuleList]', nn.ModuleList(nn.ModuleList(rows) for rows in columns))


@ARCH_REGISTRY.register()
class GridNet(nn.Module):
    """A grid of three rows: information flows down in the first half of the columns and up in the second half.

    The paper's network has six columns and the default values of `unshuffle`, `residual` and `blend`; other values are
    ours, for small networks.

    Args:
        scale: only 4, as in the paper: without `unshuffle` the rows have 4, 2 and 1 times the LR resolution.
        feature_channels: channels of the LR feature, divisible by (4 / unshuffle)^2, since depth to space brings it to
            the rows; 0: none.
        channels: width of each row. Not published; (32, 96, 192) with RDN D16C8 gives the printed 30.8 M (our choice).
        num_columns: even; 6 in the paper.
        unshuffle: 1, 2 or 4: apply pixel unshuffle by this factor before the grid, and pixel shuffle after it. With 4
            the first row has the LR resolution.
        residual: add the mean of the two warped frames to the output (the paper's output is direct).
        blend: with `residual`, blend the two warped frames with weights for each pixel instead of averaging them. So
            the network can ignore a frame where something is occluded.

    Raises:
        ValueError: an option has an unknown value, or the channels cannot be divided as the options require.
    """

    part_spec = PartSpec()

    def __init__(self, *, scale: int = 4, feature_channels: int = 64, channels: Sequence[int] = (32, 96, 192),
                 num_columns: int = 6, unshuffle: int = 1, residual: bool = False, blend: bool = False):
        super().__init__()
        if scale != 4:
            raise ValueError(f'GridNet is built for scale 4, but got {scale}')
        if unshuffle not in (1, 2, 4):
            raise ValueError(f'unshuffle must be 1, 2 or 4, but got {unshuffle}')
        # Resolution of each row relative to LR; at least 1/4, which MBNet's size_multiple of 4 allows
        self.ratios = [scale / unshuffle / 2**row for row in range(3)]
        if feature_channels % int(self.ratios[0])**2:
            raise ValueError(f'feature_channels must be divisible by {int(self.ratios[0])**2}, but got '
                             f'{feature_channels}')
        if len(channels) != 3:
            raise ValueError(f'channels must name the widths of 3 rows, but got {list(channels)}')
        if num_columns < 2 or num_columns % 2:
            raise ValueError(f'num_columns must be even, but got {num_columns}')
        if blend and not residual:
            raise ValueError('blend needs residual: it weights the frames that residual adds')
        self.scale, self.unshuffle, self.residual, self.blend = scale, unshuffle, residual, blend
        in_channels = [2 * 3 * unshuffle**2 + feature_channels // int(max(ratio, 1))**2 for ratio in self.ratios]
        half = num_columns // 2
        self.stems = nn.ModuleList(ConvBlock(i, c) for i, c in zip(in_channels, channels, strict=True))
        # laterals[column - 1][row]; downs[column][row]: row -> row + 1; ups[column - half][row]: row + 1 -> row
        self.laterals = grid((ConvBlock(c, c) for c in channels) for _ in range(num_columns - 1))
        self.downs = grid(
            (ConvBlock(channels[r], channels[r + 1], stride=2) for r in range(2)) for _ in range(half))
        self.ups = grid((UpBlock(channels[r + 1], channels[r]) for r in range(2)) for _ in range(half))
        self.head = head(channels[0], (4 if blend else 3) * unshuffle**2)

    def forward(self, warped_pair: Tensor, feature: Tensor | None) -> Tensor:
        """Interpolate the middle frame.

        Args:
            warped_pair: (B, 6, sH, sW), the two SR frames warped to the middle, 0-1, the earlier one first.
            feature: (B, feature_channels, H, W), or None if feature_channels is 0.

        Returns:
            (B, 3, sH, sW).
        """
        rows = [stem(x) for stem, x in zip(self.stems, self.row_inputs(warped_pair, feature), strict=True)]
        half = len(self.downs)
        for column in range(half):
            if column:
                rows = self.move_right(rows, column)
            for row in (1, 2):
                rows[row] = rows[row] + self.downs[column][row - 1](rows[row - 1])
        for column in range(half, 2 * half):
            rows = self.move_right(rows, column)
            for row in (1, 0):
                rows[row] = rows[row] + self.ups[column - half][row](rows[row + 1])
        output = self.head(rows[0])
        if self.unshuffle > 1:
            output = F.pixel_shuffle(output, self.unshuffle)
        if not self.residual:
            return output
        before, after = warped_pair.chunk(2, dim=1)
        if not self.blend:
            return output + (before + after) / 2
        weight = torch.sigmoid(output[:, 3:])
        return output[:, :3] + torch.lerp(after, before, weight.to(before.dtype))

    def move_right(self, rows: list[Tensor], column: int) -> list[Tensor]:
        return [x + lateral(x) for lateral, x in zip(self.laterals[column - 1], rows, strict=True)]

    def row_inputs(self, warped_pair: Tensor, feature: Tensor | None) -> list[Tensor]:
        """Return the inputs of the rows, which 'are multi-scale from LR to HR' (paper).

        How the feature is split is our choice.
        """
        images = [warped_pair, F.avg_pool2d(warped_pair, 2), F.avg_pool2d(warped_pair, 4)]
        if self.unshuffle > 1:
            images = [F.pixel_unshuffle(image, self.unshuffle) for image in images]
        if feature is None:
            return images
        features = [resize_feature(feature, ratio) for ratio in self.ratios]
        return [torch.cat(pair, dim=1) for pair in zip(images, features, strict=True)]
