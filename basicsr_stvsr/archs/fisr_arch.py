"""FISR: Deep Joint Frame Interpolation and Super-Resolution with a Multi-Scale Temporal Loss (AAAI 2020), x2 and x2.

The paper's flow a->b lies on a's grid, as our flow_ab does.
The authors' TensorFlow code resizes like TensorFlow 1; `legacy_subsample` and `legacy_bilinear` reproduce this exactly.
Shapes: B windows of three frames, F features, H x W pixels of the LR grid. Frames are YUV.
"""
import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from basicsr.utils.registry import ARCH_REGISTRY
from torch import Tensor, nn
from torch.nn import functional as F

from .arch_util import check_size_multiple, last_conv, run_part, warp
from .resize import legacy_bilinear
from .spec import NetSpec

# Three frames, four flows, four warped frames; see FISRNet.forward
INPUT_CHANNELS = 3 * 3 + 4 * 2 + 4 * 3
OUTPUT_CHANNELS = 3 * 3
NUM_LEVELS = 3
FLOW_UNIT = 192  # pixels; the width of the authors' HR crops, for frames of any size


def legacy_subsample(x: Tensor, factor: int) -> Tensor:  # (B, C, H, W) -> (B, C, H / factor, W / factor)
    """Downscale like TensorFlow 1's bicubic resize by an integer factor.

    Its samples fall on pixels, so it takes every factor-th pixel.
    """
    return x[..., ::factor, ::factor]


def conv(in_channels: int, out_channels: int) -> nn.Conv2d:
    """Return a 3x3 convolution with the official initialisation.

    Weights are normal up to two sigma, scaled by the mean of fan-in and fan-out; biases are 0.
    """
    layer = nn.Conv2d(in_channels, out_channels, 3, padding=1)
    sigma = math.sqrt(1.3 / (9 * (in_channels + out_channels) / 2))
    nn.init.trunc_normal_(layer.weight, std=sigma, a=-2 * sigma, b=2 * sigma)
    nn.init.zeros_(layer.get_parameter('bias'))
    return layer


class ResBlock(nn.Sequential):
    """Residual block with activations before convolutions and without normalisation."""

    def __init__(self, channels: int):
        super().__init__(nn.ReLU(), conv(channels, channels), nn.ReLU(), conv(channels, channels))

    def forward(self, x: Tensor) -> Tensor:
        return x + super().forward(x)


class DecoderStage(nn.Module):
    """Double the size, and fuse the result with the encoder's features of that size."""

    def __init__(self, in_channels: int, channels: int):
        super().__init__()
        self.resize = conv(in_channels, channels)
        self.fuse = nn.Sequential(
            conv(2 * channels, channels), ResBlock(channels), ResBlock(channels), nn.ReLU())

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        x = self.resize(legacy_bilinear(x, 2)).relu()
        return self.fuse(torch.cat((x, skip), dim=1))


class FISRLevel(nn.Module):
    """A U-Net with two heads at twice the size: one for the new frames (FI-SR), one for the given frame (SR).

    Args:
        in_channels: 29, and 9 more if there is a coarser level.
        num_feat: F, doubled at each of three smaller sizes.
        upscale: how the heads double the size, see `FISRNet`.
    """

    def __init__(self, in_channels: int, num_feat: int, upscale: str):
        super().__init__()
        widths = [num_feat, 2 * num_feat, 4 * num_feat]
        self.encoder = nn.ModuleList(
            nn.Sequential(conv(before, width), ResBlock(width), ResBlock(width), nn.ReLU())
            for before, width in zip([in_channels, *widths], widths, strict=False))
        self.pool = nn.MaxPool2d(2)
        self.bottleneck = nn.Sequential(conv(4 * num_feat, 8 * num_feat), ResBlock(8 * num_feat), nn.ReLU())
        self.decoder = nn.ModuleList(DecoderStage(2 * width, width) for width in reversed(widths))
        self.fi_sr, self.sr = self.head(num_feat, 6, upscale), self.head(num_feat, 3, upscale)

    @staticmethod
    def head(num_feat: int, out_channels: int, upscale: str) -> nn.Sequential:
        ends = {
            'features': (conv(num_feat, 4 * num_feat), nn.ReLU(), nn.PixelShuffle(2), conv(num_feat, out_channels)),
            'frames': (conv(num_feat, 4 * out_channels), nn.PixelShuffle(2))}
        return nn.Sequential(conv(num_feat, num_feat), ResBlock(num_feat), nn.ReLU(), *ends[upscale])

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


class FISRAux(NamedTuple):
    """Additional outputs for FISR's loss."""

    levels: list[Tensor]  # outputs of all levels, (B, 3, 3, ...) of H/2 x W/2, H x W, 2H x 2W; the last is the output


@ARCH_REGISTRY.register()
class FISRNet(nn.Module):
    """Three U-Nets from coarse to fine; each takes the output of the previous one as input.

    From three LR frames a, b, c the network restores b, and the frames halfway between a and b and between b and c. Its
    inputs include the flows between neighbours, from any estimator (see `basicsr_stvsr.flow`).

    48,316,251 parameters at the published width, as in the authors' log.

    Args:
        num_feat: F of all levels; or one F for each level, from coarse to fine (ours, for small networks).
        checkpoint: with gradients enabled, keep only the inputs of the levels for the backward pass, and run each level
            once more (gradient checkpointing). Not one of the paper's options; the results are the same.
        residual: add the output to plain estimates, see `plain_frames`; it starts at 0. Not one of the paper's options:
            with it, the hour of training of a small network goes into detail.
        upscale: output of a head's pixel shuffle: 'features', which a convolution turns into frames (the paper), or
            'frames' (ours, for small networks).

    Raises:
        ValueError: an option has an unknown value.
    """

    # The first output is the frame between a and b; a itself is not restored. The coarsest level has a quarter of the
    # size, and halves it three times. If two windows restore a frame, the later one is used, as in the authors' test
    # and videos.
    spec = NetSpec(scale=2, temporal_scale=2, num_frames=3, first_output=1, size_multiple=32, color='yuv',
                   needs_flow=True, overlap='last')

    def __init__(self, *, num_feat: int | Sequence[int] = 64, checkpoint: bool = False, residual: bool = False,
                 upscale: str = 'features'):
        super().__init__()
        if upscale not in ('features', 'frames'):
            raise ValueError(f'upscale must be features or frames, but got {upscale!r}')
        widths = [num_feat] * NUM_LEVELS if isinstance(num_feat, int) else list(num_feat)
        if len(widths) != NUM_LEVELS or min(widths) < 1:
            raise ValueError(f'num_feat must be one number from 1 on, or {NUM_LEVELS}, one a level, but is {num_feat}')
        self.checkpoint, self.residual = checkpoint, residual
        levels = [FISRLevel(INPUT_CHANNELS + OUTPUT_CHANNELS * (number > 0), width, upscale)
                  for number, width in enumerate(widths)]
        self.levels = nn.ModuleList(levels)
        if residual:
            for level in levels:
                for head in (level.fi_sr, level.sr):
                    nn.init.zeros_(last_conv(head).weight)

    def forward(self, lq: Tensor, flow: Tensor, warped: Tensor | None = None, return_aux: bool = False) -> (
            Tensor | tuple[Tensor, FISRAux]):
        """Restore one window of three frames.

        Args:
            lq: (B, 3, 3, H, W), YUV, 0-1; H and W divisible by 32.
            flow: (B, 2, 2, 2, H, W), LR pixels, x then y: flow_ab and flow_ba, flow_bc and flow_cb.
            warped: (B, 2, 2, 3, H, W), each flow's second frame halfway along it; default: `warp_halfway`.
            return_aux: also return additional outputs for the loss.

        Returns:
            (B, 3, 3, 2H, 2W), the frame between a and b, b, the frame between b and c; with `return_aux`, a pair of it
                and FISRAux.

        Raises:
            ValueError: the input has a wrong shape.
        """
        if lq.dim() != 5 or lq.shape[1:3] != (3, 3):
            raise ValueError(f'FISRNet takes three YUV frames, (B, 3, 3, H, W), but got {tuple(lq.shape)}')
        expected = (lq.shape[0], 2, 2, 2, *lq.shape[-2:])
        if flow.shape != expected:
            raise ValueError(f'FISRNet takes the flows of both pairs of neighbours in both directions, {expected}, '
                             f'but got {tuple(flow.shape)}')
        check_size_multiple(lq, self.spec.size_multiple, 'FISRNet')
        if warped is None:
            warped = self.warp_halfway(lq, flow)
        flow = flow.to(lq.dtype) / FLOW_UNIT
        if not self.training:  # as in the authors' code
            lq, flow, warped = lq.clamp(0, 1), flow.clamp(-1, 1), warped.clamp(0, 1)
        x = torch.cat((lq.flatten(1, 2), flow.flatten(1, 3), warped.flatten(1, 3)), dim=1)

        plain = self.plain_frames(lq, warped) if self.residual else None
        outputs: list[Tensor] = []
        for level, net in enumerate(self.levels):
            factor = 2**(NUM_LEVELS - 1 - level)
            output = run_part(
                net, torch.cat((legacy_subsample(x, factor), *outputs[-1:]), dim=1), recompute=self.checkpoint)
            outputs.append(output if plain is None else output + legacy_subsample(plain, factor))
        frames = [output.unflatten(1, (3, 3)) for output in outputs]
        return (frames[-1], FISRAux(frames)) if return_aux else frames[-1]

    @staticmethod
    def plain_frames(lq: Tensor, warped: Tensor) -> Tensor:  # -> (B, 9, 2H, 2W)
        """Upscale plain estimates of the output frames by bicubic interpolation.

        These are the middle frame, and for each frame beside it the mean of its two warped frames. The kernel is
        PyTorch's (a = -0.75), which is one fast operation, and which the shipped weights were trained with.
        """
        before, after = warped.mean(dim=2).unbind(1)
        frames = torch.cat((before, lq[:, 1], after), dim=1)
        return F.interpolate(frames.float(), scale_factor=2, mode='bicubic', align_corners=False).to(lq.dtype)

    @staticmethod
    def warp_halfway(lq: Tensor, flow: Tensor) -> Tensor:
        """Warp the second frame of each flow along half of it: two estimates of each frame in between.

        Colour conversion and bilinear sampling commute, so warping in RGB, as the authors do, gives the same.

        Args:
            lq, flow: see `forward`.

        Returns:
            (B, 2, 2, 3, H, W).
        """
        a, b, c = lq.unbind(1)
        seconds = torch.stack((b, a, c, b), dim=1)
        return warp(seconds.flatten(0, 1), flow.flatten(0, 2) / 2).view(lq.shape[0], 2, 2, *lq.shape[2:])

    def inputs(self, lq: Tensor, flow: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the inputs of `forward`, with whole frames warped, since large motion would leave a tile.

        Args:
            lq, flow: see `forward`.
        """
        return lq, flow, self.warp_halfway(lq, flow)
