"""FISR: Deep Joint Frame Interpolation and Super-Resolution with a Multi-Scale Temporal Loss (AAAI 2020), x2 and x2.

The authors' TensorFlow code resizes as TensorFlow 1 did, which `legacy_subsample` and `legacy_bilinear` do exactly.
Shapes: B windows of three frames, F features, H x W pixels of the LR grid. Frames are YUV.
"""
import math

import torch
from basicsr.utils.registry import ARCH_REGISTRY
from torch import Tensor, nn

from .arch_util import check_size_multiple

# Three frames, four flows, four frames warped by half of them; see FISRNet
INPUT_CHANNELS = 3 * 3 + 4 * 2 + 4 * 3
OUTPUT_CHANNELS = 3 * 3
NUM_LEVELS = 3


def legacy_subsample(x: Tensor, factor: int) -> Tensor:  # (B, C, H, W) -> (B, C, H / factor, W / factor)
    """TensorFlow 1's bicubic resize by a whole factor: its samples fall on pixels, so it takes every factor-th one."""
    return x[..., ::factor, ::factor]


def legacy_bilinear(x: Tensor) -> Tensor:  # (B, C, H, W) -> (B, C, 2H, 2W)
    """TensorFlow 1's bilinear resize to twice the size: pixels stay, means come between them, the last is doubled."""
    for dim in (2, 3):
        following = torch.cat((x.narrow(dim, 1, x.shape[dim] - 1), x.narrow(dim, x.shape[dim] - 1, 1)), dim)
        x = torch.stack((x, (x + following) / 2), dim + 1).flatten(dim, dim + 1)
    return x


def conv(in_channels: int, out_channels: int) -> nn.Conv2d:
    """3x3 with the official start: normal up to two sigma, by the mean of both fans, no bias."""
    layer = nn.Conv2d(in_channels, out_channels, 3, padding=1)
    sigma = math.sqrt(1.3 / (9 * (in_channels + out_channels) / 2))
    nn.init.trunc_normal_(layer.weight, std=sigma, a=-2 * sigma, b=2 * sigma)
    nn.init.zeros_(layer.bias)
    return layer


class ResBlock(nn.Sequential):
    """Activations before convolutions, no normalisation."""

    def __init__(self, channels: int):
        super().__init__(nn.ReLU(), conv(channels, channels), nn.ReLU(), conv(channels, channels))

    def forward(self, x: Tensor) -> Tensor:
        return x + super().forward(x)


class DecoderStage(nn.Module):
    """Doubles the size, and joins what the encoder had at that size."""

    def __init__(self, in_channels: int, channels: int):
        super().__init__()
        self.resize = conv(in_channels, channels)
        self.fuse = nn.Sequential(
            conv(2 * channels, channels), ResBlock(channels), ResBlock(channels), nn.ReLU())

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        x = self.resize(legacy_bilinear(x)).relu()
        return self.fuse(torch.cat((x, skip), dim=1))


class FISRLevel(nn.Module):
    """A U-Net with two heads at twice the size, one for the new frames (FI-SR) and one for the given one (SR).

    Args:
        in_channels: 29, and 9 more where a coarser level has been before.
        num_feat: F, doubled at each of three smaller sizes.
    """

    def __init__(self, in_channels: int, num_feat: int):
        super().__init__()
        widths = [num_feat, 2 * num_feat, 4 * num_feat]
        self.encoder = nn.ModuleList(
            nn.Sequential(conv(before, width), ResBlock(width), ResBlock(width), nn.ReLU())
            for before, width in zip([in_channels, *widths], widths, strict=False))
        self.pool = nn.MaxPool2d(2)
        self.bottleneck = nn.Sequential(conv(4 * num_feat, 8 * num_feat), ResBlock(8 * num_feat), nn.ReLU())
        self.decoder = nn.ModuleList(DecoderStage(2 * width, width) for width in reversed(widths))
        self.fi_sr, self.sr = self.head(num_feat, 6), self.head(num_feat, 3)

    @staticmethod
    def head(num_feat: int, out_channels: int) -> nn.Sequential:
        return nn.Sequential(
            conv(num_feat, num_feat), ResBlock(num_feat), nn.ReLU(),
            conv(num_feat, 4 * num_feat), nn.ReLU(), nn.PixelShuffle(2), conv(num_feat, out_channels))

    def forward(self, x: Tensor) -> Tensor:  # (B, in_channels, h, w) -> (B, 9, 2h, 2w)
        skips = []
        for stage in self.encoder:
            skips.append(stage(x))
            x = self.pool(skips[-1])
        x = self.bottleneck(x)
        for stage, skip in zip(self.decoder, reversed(skips), strict=True):
            x = stage(x, skip)
        before, after = self.fi_sr(x).chunk(2, dim=1)
        return torch.cat((before, self.sr(x), after), dim=1)


@ARCH_REGISTRY.register()
class FISRNet(nn.Module):
    """Three U-Nets from coarse to fine; each sees what the one before it has made.

    Input, 29 channels, YUV in 0-1: frames a, b, c; the flows a->b, b->a, b->c, c->b, x then y, in LR pixels / 192; and
    b sampled with half of the first, a with half of the second, c with half of the third, b with half of the fourth.
    Output: the frame between a and b, b itself, and the frame between b and c, at twice the size.

    48,316,251 parameters at the published width, as in the authors' log.

    Args:
        num_feat: F.
    """

    scale = 2
    size_multiple = 32  # the coarsest level has a quarter of the size, and halves it three times

    def __init__(self, *, num_feat: int = 64):
        super().__init__()
        self.levels = nn.ModuleList(
            FISRLevel(INPUT_CHANNELS + OUTPUT_CHANNELS * (level > 0), num_feat) for level in range(NUM_LEVELS))

    def forward(self, x: Tensor) -> list[Tensor]:  # (B, 29, H, W) -> (B, 9, ...) of H/2 x W/2, H x W, 2H x 2W
        """Returns what each level makes, from coarse to fine; the last is the result.

        Raises:
            ValueError: H or W is not divisible by 32.
        """
        check_size_multiple(x, self.size_multiple, 'FISRNet')
        outputs = []
        for level, net in enumerate(self.levels):
            small = legacy_subsample(x, 2**(NUM_LEVELS - 1 - level))
            outputs.append(net(torch.cat((small, *outputs[-1:]), dim=1)))
        return outputs
