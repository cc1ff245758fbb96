"""RBPN, recurrent back-projection, as the video super-resolution part of MBNet (Table 1, rows 6 and 7).

Paper: Recurrent Back-Projection Network for Video Super-Resolution (CVPR 2019), https://arxiv.org/abs/1903.10128.
Official code: https://github.com/alterzero/RBPN-PyTorch, MIT; we follow it where the paper gives less detail.
Shapes: B clips, h x w low resolution, s = scale, D = base_filter (LR features), F = num_feat (HR features).
"""
import torch
from basicsr.utils.registry import ARCH_REGISTRY
from torch import Tensor, nn

from .spec import PartSpec


def conv_prelu(in_channels: int, out_channels: int, kernel_size: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(in_channels, out_channels, kernel_size, padding=kernel_size // 2), nn.PReLU())


def up_prelu(in_channels: int, out_channels: int, scale: int) -> nn.Sequential:
    """(B, in, h, w) -> (B, out, sh, sw); the kernel overlaps its neighbours by two pixels on each side."""
    return nn.Sequential(nn.ConvTranspose2d(in_channels, out_channels, scale + 4, scale, padding=2), nn.PReLU())


def down_prelu(in_channels: int, out_channels: int, scale: int) -> nn.Sequential:
    """(B, in, sh, sw) -> (B, out, h, w); the mirror image of `up_prelu`."""
    return nn.Sequential(nn.Conv2d(in_channels, out_channels, scale + 4, scale, padding=2), nn.PReLU())


class UpBlock(nn.Module):
    """Up-projection: upsample, then correct by the error of projecting back to low resolution (DBPN, eqs. 1 to 5)."""

    def __init__(self, num_feat: int, scale: int):
        super().__init__()
        self.up = up_prelu(num_feat, num_feat, scale)
        self.back = down_prelu(num_feat, num_feat, scale)
        self.up_error = up_prelu(num_feat, num_feat, scale)

    def forward(self, low: Tensor) -> Tensor:  # (B, F, h, w) -> (B, F, sh, sw)
        high = self.up(low)
        return self.up_error(self.back(high) - low) + high


class DownBlock(nn.Module):
    """Down-projection, the mirror image of `UpBlock` (DBPN, eqs. 6 to 10)."""

    def __init__(self, num_feat: int, scale: int):
        super().__init__()
        self.down = down_prelu(num_feat, num_feat, scale)
        self.back = up_prelu(num_feat, num_feat, scale)
        self.down_error = down_prelu(num_feat, num_feat, scale)

    def forward(self, high: Tensor) -> Tensor:  # (B, F, sh, sw) -> (B, F, h, w)
        low = self.down(high)
        return self.down_error(self.back(low) - high) + low


class ResnetBlock(nn.Module):
    """conv, PReLU, conv, sum, PReLU; the official code has one slope for both activations."""

    def __init__(self, num_feat: int):
        super().__init__()
        self.conv1 = nn.Conv2d(num_feat, num_feat, 3, padding=1)
        self.conv2 = nn.Conv2d(num_feat, num_feat, 3, padding=1)
        self.act = nn.PReLU()

    def forward(self, x: Tensor) -> Tensor:
        return self.act(x + self.conv2(self.act(self.conv1(x))))


class DBPNS(nn.Module):
    """DBPN-S, the single-image branch: three up-projections, two down-projections (RBPN, section 3.1)."""

    def __init__(self, in_channels: int, num_feat: int, scale: int):
        super().__init__()
        self.squeeze = conv_prelu(in_channels, num_feat, 1)
        self.up1 = UpBlock(num_feat, scale)
        self.down1 = DownBlock(num_feat, scale)
        self.up2 = UpBlock(num_feat, scale)
        self.down2 = DownBlock(num_feat, scale)
        self.up3 = UpBlock(num_feat, scale)
        self.fuse = nn.Conv2d(3 * num_feat, num_feat, 1)

    def forward(self, x: Tensor) -> Tensor:  # (B, in, h, w) -> (B, F, sh, sw)
        high1 = self.up1(self.squeeze(x))
        high2 = self.up2(self.down1(high1))
        high3 = self.up3(self.down2(high2))
        return self.fuse(torch.cat([high3, high2, high1], dim=1))


class RecurrentBackProjection(nn.Module):
    """The recurrence of RBPN: a single-image estimate, corrected by one neighbour per step (section 3, Figs. 2 to 4).

    Args:
        base_filter: D, channels of the LR features.
        num_feat: F, channels of the HR features.
        num_resblock: residual blocks in each of the three residual branches.
        num_step: number of recurrence steps; the projection back to LR features exists only if another step follows.
        scale: upscaling factor.
    """

    def __init__(self, *, base_filter: int, num_feat: int, num_resblock: int, num_step: int, scale: int):
        super().__init__()
        if num_step < 1:
            raise ValueError(f'RBPN needs at least one recurrence, but got {num_step}')
        self.num_step = num_step

        def residual(channels: int) -> list[nn.Module]:
            return [ResnetBlock(channels) for _ in range(num_resblock)]

        self.single_image = DBPNS(base_filter, num_feat, scale)
        self.multi_image = nn.Sequential(*residual(base_filter), up_prelu(base_filter, num_feat, scale))
        self.error = nn.Sequential(*residual(num_feat), conv_prelu(num_feat, num_feat, 3))
        if num_step > 1:
            self.back = nn.Sequential(*residual(num_feat), down_prelu(num_feat, base_filter, scale))

    def forward(self, feat: Tensor, neighbours: list[Tensor]) -> Tensor:
        """Return the concatenated HR features of all steps.

        Args:
            feat: (B, D, h, w) features of the frame to restore.
            neighbours: one (B, D, h, w) per step: features of the frame together with a neighbour.

        Returns:
            (B, num_step * F, sh, sw).
        """
        if len(neighbours) != self.num_step:
            raise ValueError(f'RBPN was built for {self.num_step} recurrences, but got {len(neighbours)} neighbours')
        highs: list[Tensor] = []
        for neighbour in neighbours:
            if highs:
                feat = self.back(highs[-1])
            single = self.single_image(feat)
            highs.append(single + self.error(single - self.multi_image(neighbour)))
        return torch.cat(highs, dim=1)


@ARCH_REGISTRY.register()
class RBPN(nn.Module):
    """RBPN with MBNet's inputs: both LR frames are super-resolved together, helped by warped and fed-back frames.

    MBNet does not describe the inputs of RBPN. Here the LR pair and its previous super-resolved estimate form the frame
    to restore. The warped LR frames, the warped interpolated frames and the LR flows form the neighbour. Every
    recurrence uses the same neighbour. Weights are initialised like PyTorch's layers and not by He's rule as in RBPN:
    with that rule the output starts near 100 instead of 1, and MBNet feeds it back.

    Args:
        scale: upscaling factor s.
        base_filter: D, channels of the LR features.
        num_feat: F, channels of the HR features and of the feature for the interpolation network.
        num_resblock: residual blocks in each residual branch.
        num_recurrence: back-projection steps.
    """

    def __init__(
        self,
        *,
        scale: int = 4,
        base_filter: int = 256,
        num_feat: int = 64,
        num_resblock: int = 5,
        num_recurrence: int = 2,
    ):
        super().__init__()
        self.scale = scale
        self.part_spec = PartSpec(feature_channels=num_feat)
        self.num_recurrence = num_recurrence
        pair, folded_pair, flows = 6, 6 * scale**2, 4
        self.in_channels = {
            'lq_pair': pair, 'prev_sr': folded_pair, 'warped_lq': pair, 'feedback': folded_pair, 'flows': flows
        }
        self.feat0 = conv_prelu(pair + folded_pair, base_filter, 3)
        self.feat1 = conv_prelu(pair + pair + flows + folded_pair, base_filter, 3)
        self.core = RecurrentBackProjection(
            base_filter=base_filter, num_feat=num_feat, num_resblock=num_resblock, num_step=num_recurrence, scale=scale
        )
        self.output = nn.Conv2d(num_recurrence * num_feat, pair, 3, padding=1)
        # MBNet's feature is 'the output of the second convolution layer', which has width D in RBPN.
        self.to_feature = nn.Conv2d(base_filter, num_feat, 1)

    def forward(
        self, lq_pair: Tensor, prev_sr: Tensor, warped_lq: Tensor, feedback: Tensor, flows: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Super-resolve both frames of a pair.

        Args:
            lq_pair: (B, 6, h, w) the frames at t-1 and t+1, RGB, 0-1.
            prev_sr: (B, 6 s^2, h, w) their previous estimate, space to depth.
            warped_lq: (B, 6, h, w) the frames at t+1 and t-1, warped to t-1 and t+1.
            feedback: (B, 6 s^2, h, w) the interpolated frame, warped to t-1 and t+1, space to depth.
            flows: (B, 4, h, w) the two LR flows, flow_ba and flow_ab, in pixels.

        Returns:
            The super-resolved pair (B, 6, sh, sw) and a feature (B, F, h, w).

        Raises:
            ValueError: an input has a wrong number of channels, or the sizes differ.
        """
        inputs = {
            'lq_pair': lq_pair, 'prev_sr': prev_sr, 'warped_lq': warped_lq, 'feedback': feedback, 'flows': flows
        }
        batch, _, height, width = lq_pair.shape
        for name, tensor in inputs.items():
            expected = (batch, self.in_channels[name], height, width)
            if tensor.shape != expected:
                raise ValueError(f'RBPN x{self.scale}: {name} should be {expected}, but got {tuple(tensor.shape)}')

        feat = self.feat0(torch.cat([lq_pair, prev_sr], dim=1))
        neighbour = self.feat1(torch.cat([lq_pair, warped_lq, flows, feedback], dim=1))
        highs = self.core(feat, [neighbour] * self.num_recurrence)
        return self.output(highs), self.to_feature(neighbour)
