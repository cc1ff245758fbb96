"""PWC-Net, the other optical flow network of MBNet (Table 1, row 5).

Paper: PWC-Net: CNNs for Optical Flow Using Pyramid, Warping, and Cost Volume (CVPR 2018),
https://arxiv.org/abs/1709.02371.  Official code: https://github.com/NVlabs/PWC-Net, CC BY-NC-SA 4.0, so not reused.
Written from the paper, in the widely used layout (dense decoders, context network at the finest level).
Shapes: B pairs, C features, h x w input, H x W the current grid, D the largest displacement of the cost volume.
"""
import math
from itertools import pairwise

import torch
from basicsr.utils.registry import ARCH_REGISTRY
from torch import Tensor, nn
from torch.nn import functional as F

from .arch_util import check_size_multiple, upsample_flow, warp
from .spec import PartSpec
from .weight_files import load_weights, read_state_dict

MAX_DISPLACEMENT = 4
PYRAMID_CHANNELS = (16, 32, 64, 96, 128, 196)  # at 1/2, 1/4, ... 1/64 of the input
DECODER_CHANNELS = (128, 128, 96, 64, 32)
CONTEXT_CHANNELS = (128, 128, 128, 96, 64, 32)
CONTEXT_DILATIONS = (1, 2, 4, 8, 16, 1)
FINEST_LEVEL = 2
# Flow values inside the network are in units of 20 pixels of the full-size image, at every level (paper, section 4).
FLOW_UNIT = 20


def cost_volume(first: Tensor, second: Tensor, max_displacement: int = MAX_DISPLACEMENT) -> Tensor:
    """Correlate every pixel of `first` with the square of pixels around the same position in `second` (paper, eq. 2).

    Args:
        first, second: (B, C, H, W).
        max_displacement: D; the square has 2D + 1 pixels per side.

    Returns:
        (B, (2D + 1)^2, H, W); channel (dy + D) * (2D + 1) + (dx + D) holds the mean over the features of first[y, x] *
            second[y + dy, x + dx], with zeros outside of `second`.
    """
    side = 2 * max_displacement + 1
    height, width = first.shape[-2:]
    padded = F.pad(second, [max_displacement] * 4)
    rows = []
    for dy in range(side):
        # One row of displacements at a time: the windows are views, so at most `side` products exist at once.
        row = padded[:, :, dy:dy + height]
        if torch.compiler.is_exporting():  # which would treat the width as a constant
            windows = torch.stack([row[..., dx:dx + width] for dx in range(side)], dim=3)
        else:
            windows = row.unfold(3, width, 1)  # (B, C, H, side, W)
        rows.append((first.unsqueeze(3) * windows).mean(dim=1).movedim(2, 1))
    return torch.cat(rows, dim=1)


def warp_or_zero(feat: Tensor, flow: Tensor) -> Tensor:
    """Warp, with zeros wherever the flow points (even partly) out of the image.

    Zeros favour no displacement, whereas repeated border features look like a match. The published weights were trained
    with zeros.
    """
    inside = warp(torch.ones_like(flow[:, :1], dtype=torch.float32), flow, padding_mode='zeros') > 0.999
    return warp(feat, flow, padding_mode='zeros') * inside


def conv_lrelu(in_channels: int, out_channels: int, stride: int = 1, dilation: int = 1) -> nn.Sequential:
    conv = nn.Conv2d(in_channels, out_channels, 3, stride, padding=dilation, dilation=dilation)
    return nn.Sequential(conv, nn.LeakyReLU(0.1))


def upsampler(in_channels: int) -> nn.ConvTranspose2d:
    """Return a layer (B, in, H, W) -> (B, 2, 2H, 2W)."""
    return nn.ConvTranspose2d(in_channels, 2, 4, stride=2, padding=1)


class FlowDecoder(nn.Module):
    """Decode the flow of one level; each layer sees the outputs of all previous ones (paper, section 3)."""

    def __init__(self, in_channels: int):
        super().__init__()
        self.convs = nn.ModuleList()
        for out_channels in DECODER_CHANNELS:
            self.convs.append(conv_lrelu(in_channels, out_channels))
            in_channels += out_channels
        self.predict = nn.Conv2d(in_channels, 2, 3, padding=1)
        self.out_channels = in_channels

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:  # -> flow (B, 2, H, W), features (B, out_channels, H, W)
        for conv in self.convs:
            x = torch.cat([conv(x), x], dim=1)
        return self.predict(x), x


@ARCH_REGISTRY.register()
class PWCNet(nn.Module):
    """PWC-Net with the interface of MBNet's flow networks: pairs in any multiple of 4, flows at 1/4, 1/2 and 1/1.

    Inputs are resized to the next multiples of 64 for the pyramid, and flows are scaled back. The flow is estimated at
    1/4; the two finer ones are its bilinear upsampling.

    Args:
        pretrained: file with initial weights, saved from this class or published by the authors (NVlabs/PWC-Net,
            PyTorch/pwc_net.pth.tar). The authors trained on images in 0-1 with channels in the order blue, green, red;
            `forward` takes RGB and reorders it.

    Raises:
        FileNotFoundError: `pretrained` does not exist.
        ValueError: `pretrained` holds something else.
    """

    part_spec = PartSpec(size_multiple=4)

    def __init__(self, *, pretrained: str | None = None):
        super().__init__()
        levels = range(len(PYRAMID_CHANNELS), FINEST_LEVEL - 1, -1)  # 6 (coarsest), 5, 4, 3, 2
        self.pyramid = nn.ModuleList(
            nn.Sequential(conv_lrelu(width_in, width, stride=2), conv_lrelu(width, width), conv_lrelu(width, width))
            for width_in, width in pairwise((3, *PYRAMID_CHANNELS))
        )
        costs = (2 * MAX_DISPLACEMENT + 1)**2
        # Below the coarsest level, a decoder also sees the features of its image, the upsampled flow, and two channels
        # that summarise the features of the level above.
        extra = [0] + [PYRAMID_CHANNELS[level - 1] + 4 for level in levels[1:]]
        decoders = [FlowDecoder(costs + channels) for channels in extra]
        self.decoders = nn.ModuleList(decoders)
        self.up_flow = nn.ModuleList(upsampler(2) for _ in levels[1:])
        self.up_feat = nn.ModuleList(upsampler(decoder.out_channels) for decoder in decoders[:-1])

        widths = (decoders[-1].out_channels, *CONTEXT_CHANNELS)
        self.context = nn.Sequential(
            *[
                conv_lrelu(width_in, width, dilation=dilation)
                for (width_in, width), dilation in zip(pairwise(widths), CONTEXT_DILATIONS, strict=True)
            ],
            nn.Conv2d(widths[-1], 2, 3, padding=1),
        )
        if pretrained is not None:
            self.load_pretrained(pretrained)

    def load_pretrained(self, path: str) -> None:
        what = 'PWC-Net (dense decoders, context network)'
        state = read_state_dict(path, what=what, published='PyTorch/pwc_net.pth.tar in NVlabs/PWC-Net on GitHub')
        if 'conv1a.0.weight' in state:
            names = published_names()
            # deconv2 would upsample the finest flow once more; the authors' network contains it but never uses it.
            state = {names.get(key, key): value for key, value in state.items() if not key.startswith('deconv2.')}
        load_weights(self, state, path=path, what=what)

    def forward(self, a: Tensor, b: Tensor) -> list[Tensor]:
        """Estimate flow_ab: `warp(b, flow_ab)` looks like a.

        Args:
            a, b: (B, 3, h, w) RGB, 0-1; h and w are multiples of 4.

        Returns:
            Flows (B, 2, h/4, w/4), (B, 2, h/2, w/2), (B, 2, h, w), each in pixels of its grid.

        Raises:
            ValueError: the images differ in shape, are not RGB, or not a multiple of 4 in size.
        """
        if a.shape != b.shape or a.shape[1] != 3:
            raise ValueError(f'PWCNet needs two equal batches of RGB images (B, 3, h, w), '
                             f'but got {tuple(a.shape)} and {tuple(b.shape)}')
        check_size_multiple(a, self.part_spec.size_multiple, 'PWCNet')
        height, width = a.shape[-2:]
        size = [math.ceil(length / 64) * 64 for length in (height, width)]
        images = [
            F.interpolate(image.flip(1), size=size, mode='bilinear', align_corners=False) for image in (a, b)
        ]
        flow = self.flow_between(*images)
        flow = F.interpolate(flow, size=(height // 4, width // 4), mode='bilinear', align_corners=False)
        # Not with a tensor of both ratios, which an export to ONNX would treat as constants
        flow = torch.stack((flow[:, 0] * (width / size[1]), flow[:, 1] * (height / size[0])), dim=1)
        half = upsample_flow(flow, 2)
        return [flow, half, upsample_flow(half, 2)]

    def flow_between(self, a: Tensor, b: Tensor) -> Tensor:
        """Run the network of the paper: estimate flow_ab.

        Args:
            a, b: (B, 3, H, W) BGR, 0-1; H and W are multiples of 64.

        Returns:
            (B, 2, H/4, W/4), in pixels of this grid.
        """
        features = list(zip(self.extract(a), self.extract(b), strict=True))[FINEST_LEVEL - 1:]
        flow = feat = None
        for stage, (feat_a, feat_b) in enumerate(reversed(features)):
            level = len(PYRAMID_CHANNELS) - stage
            if stage == 0:
                x = F.leaky_relu(cost_volume(feat_a, feat_b), 0.1)
            else:
                flow, feat = self.up_flow[stage - 1](flow), self.up_feat[stage - 1](feat)
                warped = warp_or_zero(feat_b, flow * (FLOW_UNIT / 2**level))
                x = torch.cat([F.leaky_relu(cost_volume(feat_a, warped), 0.1), feat_a, flow, feat], dim=1)
            flow, feat = self.decoders[stage](x)
        return (flow + self.context(feat)) * (FLOW_UNIT / 2**FINEST_LEVEL)

    def extract(self, image: Tensor) -> list[Tensor]:
        """Return the pyramid of an image (B, 3, H, W): (B, 16, H/2, W/2) to (B, 196, H/64, W/64)."""
        features = []
        for stage in self.pyramid:
            image = stage(image)
            features.append(image)
        return features


def published_names() -> dict[str, str]:
    """Map names of the weights in the authors' checkpoint to ours."""
    modules = {}
    for level in range(1, 7):
        # The coarsest stage has another order of names than the rest.
        for i, letters in enumerate(('aa', 'a', 'b') if level == 6 else ('a', 'aa', 'b')):
            modules[f'conv{level}{letters}.0'] = f'pyramid.{level - 1}.{i}.0'
    for level in range(6, 1, -1):
        stage = 6 - level
        for i in range(len(DECODER_CHANNELS)):
            modules[f'conv{level}_{i}.0'] = f'decoders.{stage}.convs.{i}.0'
        modules[f'predict_flow{level}'] = f'decoders.{stage}.predict'
        if level > FINEST_LEVEL:
            modules[f'deconv{level}'] = f'up_flow.{stage}'
            modules[f'upfeat{level}'] = f'up_feat.{stage}'
    for i in range(len(CONTEXT_CHANNELS)):
        modules[f'dc_conv{i + 1}.0'] = f'context.{i}.0'
    modules[f'dc_conv{len(CONTEXT_CHANNELS) + 1}'] = f'context.{len(CONTEXT_CHANNELS)}'
    return {f'{theirs}.{kind}': f'{ours}.{kind}' for theirs, ours in modules.items() for kind in ('weight', 'bias')}
