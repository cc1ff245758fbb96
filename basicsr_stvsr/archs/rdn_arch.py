"""RDN: residual dense network, here as MBNet's NET_SR, which super-resolves two frames at once.

Paper: Residual Dense Network for Image Super-Resolution (CVPR 2018).  Official code: github.com/yulunzhang/RDN.
Written from the paper; checked against numeric outputs of a public PyTorch port.
Shapes: B pairs, G features, H x W pixels of the LR grid, s = scale.
"""
from typing import Literal, cast

import torch
from basicsr.utils.registry import ARCH_REGISTRY
from torch import Tensor, nn
from torch.nn import functional as F

from .arch_util import fuse, last_conv, upsample
from .spec import PartSpec


class ResidualDenseBlock(nn.Module):
    """C convolutions on the outputs of all previous ones, fused by 1x1 and added to the input (paper 3.2).

    Relatives of RDN leave out the `bias`, or use a leaky ReLU with this `slope` for negative values.
    """

    def __init__(self, num_feat: int, num_grow: int, num_layers: int, *, bias: bool = True, slope: float = 0.0):
        super().__init__()
        self.slope = slope
        self.layers = nn.ModuleList(
            nn.Conv2d(num_feat + i * num_grow, num_grow, 3, padding=1, bias=bias) for i in range(num_layers))
        self.fuse = nn.Conv2d(num_feat + num_layers * num_grow, num_feat, 1, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        feats = [x]
        for layer in self.layers:
            given = torch.cat(feats, dim=1) if len(feats) > 1 else x
            feats.append(F.leaky_relu(layer(given), self.slope))
        return x + fuse(self.fuse, feats)


class ResidualDenseNet(nn.Module):
    """All of RDN at x4, (B, in, H, W) -> (B, out, 4H, 4W), with the feature that MBNet passes to its VFI net.

    Args:
        direct: compute the 16 pixels of each LR pixel at once, by one convolution on the LR grid, instead of doubling
            the size twice. On a CPU the two doublings take longer than a small trunk.
    """

    def __init__(self, in_channels: int, out_channels: int, num_feat: int, num_grow: int, num_blocks: int,
                 num_layers: int, *, direct: bool = False):
        super().__init__()
        self.shallow1 = nn.Conv2d(in_channels, num_feat, 3, padding=1)
        self.shallow2 = nn.Conv2d(num_feat, num_feat, 3, padding=1)
        self.blocks = nn.ModuleList(ResidualDenseBlock(num_feat, num_grow, num_layers) for _ in range(num_blocks))
        self.fuse = nn.Sequential(
            nn.Conv2d(num_blocks * num_feat, num_feat, 1), nn.Conv2d(num_feat, num_feat, 3, padding=1))
        self.upscale: nn.Module
        self.output: nn.Module
        if direct:
            self.upscale = nn.LeakyReLU(0.1)
            self.output = nn.Sequential(nn.Conv2d(num_feat, 16 * out_channels, 3, padding=1), nn.PixelShuffle(4))
        else:
            self.upscale = nn.Sequential(
                nn.Conv2d(num_feat, 4 * num_feat, 3, padding=1), nn.PixelShuffle(2),
                nn.Conv2d(num_feat, 4 * num_feat, 3, padding=1), nn.PixelShuffle(2))
            self.output = nn.Conv2d(num_feat, out_channels, 3, padding=1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return the output image and F_0, the output of the second convolution, (B, num_feat, H, W)."""
        skip = self.shallow1(x)
        feature = self.shallow2(skip)
        feats = [feature]
        for block in self.blocks:
            feats.append(block(feats[-1]))
        deep = skip + self.fuse[1](fuse(cast(nn.Conv2d, self.fuse[0]), feats[1:]))
        return self.output(self.upscale(deep)), feature


@ARCH_REGISTRY.register()
class RDN(nn.Module):
    """Super-resolve a pair of frames from all of MBNet's inputs (MBNet eq. 5).

    Both frames are processed together: 'two LR frames as input and two HR frames as output'. With the defaults D = 8, C
    = 8 it has 11,439,494 parameters; with D = 16, C = 8, 22,388,614.

    The paper's network has the default values of `joint`, `upscale` and `residual`; other values are ours, for small
    networks.

    Args:
        scale: only 4, as in the paper.
        num_feat, num_grow: G0 and G of RDN.
        num_blocks, num_layers: D and C of RDN (MBNet Table 2).
        joint: True: one pass for the pair (the paper). False: one pass for each frame and its warped neighbour, with
            the same weights.
        upscale: 'steps', x2 twice as in RDN, or 'direct', one pixel shuffle of x4.
        residual: image to which the output is added: none (False, as in RDN), the bilinearly upsampled frames (True),
            or 'last', the frames of the previous round; the first round starts from the upsampled frames.

    Raises:
        ValueError: an option has an unknown value.
    """

    def __init__(self, *, scale: int = 4, num_feat: int = 64, num_grow: int = 64, num_blocks: int = 8,
                 num_layers: int = 8, joint: bool = True, upscale: Literal['steps', 'direct'] = 'steps',
                 residual: bool | Literal['last'] = False):
        super().__init__()
        if scale != 4:
            raise ValueError(f'RDN is built for scale 4, but got {scale}')
        for name, value, known in (('upscale', upscale, ('steps', 'direct')),
                                   ('residual', residual, (False, True, 'last'))):
            if value not in known:
                raise ValueError(f'{name} must be one of {", ".join(map(str, known))}, but got {value!r}')
        self.scale, self.residual, self.joint = scale, residual, joint
        num_together = 2 if joint else 1
        self.part_spec = PartSpec(feature_channels=2 // num_together * num_feat, joint=joint)
        # for each frame: itself, its warped neighbour, and two HR frames, space to depth
        in_channels = num_together * (2 * 3 + 2 * 3 * scale**2)
        self.net = ResidualDenseNet(in_channels, num_together * 3, num_feat, num_grow, num_blocks, num_layers,
                                    direct=upscale == 'direct')
        if residual == 'last':  # a round starts from the frames of the previous one
            layer = last_conv(self.net.output)
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.get_parameter('bias'))

    def forward(self, lq_pair: Tensor, prev_sr: Tensor, warped_lq: Tensor, feedback: Tensor,
                flows: Tensor) -> tuple[Tensor, Tensor]:
        """Run one round of super-resolution.

        Pairs are stacked along channels, the earlier frame first. Without `joint`, a single frame may replace the pair.

        Args:
            lq_pair: (B, 6, H, W), the LR frames.
            prev_sr: (B, 6 s^2, H, W), the SR frames of the previous round, space to depth.
            warped_lq: (B, 6, H, W), each LR frame's neighbour warped onto it.
            feedback: (B, 6 s^2, H, W), the frames fed back by the VFI net, space to depth.
            flows: (B, 4, H, W), LR flows, flow_ba and flow_ab; RDN does not use them, other VSR nets do.

        Returns:
            The SR pair (B, 6, sH, sW) and the feature for the VFI net (B, feature_channels, H, W).
        """
        inputs = lq_pair, prev_sr, warped_lq, feedback
        if self.joint:
            sr_pair, feature = self.net(torch.cat(inputs, dim=1))
        else:
            num_frames = lq_pair.shape[1] // 3
            by_frame = zip(*(x.chunk(num_frames, dim=1) for x in inputs), strict=True)
            frames = [torch.cat(parts, dim=1) for parts in by_frame]
            sr_pair, feature = (torch.cat(x.chunk(num_frames), dim=1) for x in self.net(torch.cat(frames)))
        if self.residual == 'last':
            sr_pair = sr_pair + F.pixel_shuffle(prev_sr, self.scale)
        elif self.residual:
            sr_pair = sr_pair + upsample(lq_pair, self.scale)
        return sr_pair, feature
