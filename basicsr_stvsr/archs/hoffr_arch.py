"""HOFFR: high-resolution optical flow and frame-recurrent network for video super-resolution and deblurring.

Paper: Fang and Zhan, Neurocomputing 489 (2022), 128-138. There is no public code.
The parts and their connections are known; the layer counts are not, and are our choice. They follow the closest related
networks: SOF-VSR (ACCV) for the flow network, FRVSR for the recurrence, RCAN for the attention.
The flow that carries the last output to this frame lies on this frame's grid: it is the flow from this to the last.
Shapes: B clips, T frames, H x W pixels of the LR grid, s = scale.
"""
from typing import Any, NamedTuple

import torch
from basicsr.utils.registry import ARCH_REGISTRY
from torch import Tensor, nn
from torch.nn import functional as F

from .arch_util import (
    at_least_float32,
    check_counts,
    check_size_multiple,
    compile_parts,
    fuse,
    run_part,
    upsample,
    upsample_flow,
    warp,
)
from .rdn_arch import ResidualDenseBlock
from .resize import upscale_bicubic
from .spec import NetSpec

FUSIONS = ('attention', 'concat')
INIT_STATES = ('zeros', 'bicubic')


class HOFFRState(NamedTuple):
    """State that one frame passes to the next."""

    lq: Tensor  # (B, 3, H, W), the input frame
    hr: Tensor  # (B, 3, sH, sW), the restored frame


class FlowLevels(NamedTuple):
    """A flow at three sizes, each in pixels of its grid."""

    half: Tensor  # (B, 2, H/2, W/2)
    lq: Tensor  # (B, 2, H, W)
    hr: Tensor  # (B, 2, sH, sW)


class HOFFRFrame(NamedTuple):
    """Outputs of the network for one frame."""

    hr: Tensor  # (B, 3, sH, sW), the sharp frame
    deblurred: Tensor | None  # (B, 3, H, W), the sharp LR frame; None without the deblurring branch
    flow_to_last: FlowLevels  # from this frame to the last one


class HOFFRAux(NamedTuple):
    """Additional outputs for HOFFR's losses."""

    frames: list[HOFFRFrame]


# ---------------------------------------------------------------- parts

class FlowLevel(nn.Module):
    """One level of the flow network, (B, C, H, W) -> (B, out_channels, H, W)."""

    def __init__(self, in_channels: int, out_channels: int, num_feat: int):
        super().__init__()
        self.head = nn.Conv2d(in_channels, num_feat, 3, padding=1, bias=False)
        self.blocks = nn.ModuleList(
            ResidualDenseBlock(num_feat, num_feat, 4, bias=False, slope=0.1) for _ in range(2))
        self.tail = nn.Sequential(
            nn.Conv2d(2 * num_feat, out_channels, 3, padding=1, bias=False),
            nn.Conv2d(out_channels, out_channels, 3, padding=1))

    def forward(self, x: Tensor) -> Tensor:
        first = self.blocks[0](self.head(x))
        return self.tail(torch.cat((first, self.blocks[1](first)), dim=1))


class HRFlowNet(nn.Module):
    """POF: the flow between two LR frames at three sizes: half LR, LR and HR.

    623,532 parameters at scale 4 on RGB, 617,772 on luma.

    Args:
        in_channels: channels of a frame.
        num_feat: features of a level.
        scale: ratio of HR to LR size.
        to_hr: whether the third level adds detail to the HR flow; otherwise the LR flow is upsampled.
        flow_unit: pixels in one unit of the levels' raw output. SOF-VSR has 15.5, as it measures motion in halves of a
            patch of 32 pixels.
        rescale: whether to rescale a flow to pixels of the finer grid when upsampling it. SOF-VSR does not.
    """

    def __init__(self, in_channels: int = 3, num_feat: int = 32, scale: int = 4, *, to_hr: bool = True,
                 flow_unit: float = 1.0, rescale: bool = True):
        super().__init__()
        self.scale, self.flow_unit = scale, flow_unit
        self.bring_up = upsample_flow if rescale else upsample
        refined_channels = 4 * in_channels + 2  # both frames, b warped, its error, the flow so far
        self.coarse = FlowLevel(2 * in_channels, 2, num_feat)
        self.fine = FlowLevel(refined_channels, 2, num_feat)
        self.hr = FlowLevel(refined_channels, 2 * scale**2, num_feat) if to_hr else None

    def forward(self, a: Tensor, b: Tensor) -> FlowLevels:
        """Estimate flow_ab: `warp(b, flow_ab)` looks like a.

        Args:
            a, b: (B, C, H, W), 0-1, H and W even.

        Returns:
            flow_ab in float32, even if the images have half precision.
        """
        pair = torch.cat((b, a), dim=1)
        coarse = at_least_float32(self.coarse(F.avg_pool2d(pair, 2)))
        flow_ab = self.bring_up(coarse, 2)
        flow_ab = flow_ab + self.fine(self.refined(a, b, flow_ab))
        hr_flow_ab = self.bring_up(flow_ab, self.scale)
        if self.hr is not None:
            hr_flow_ab = hr_flow_ab + F.pixel_shuffle(self.hr(self.refined(a, b, flow_ab)), self.scale)
        return FlowLevels(coarse * self.flow_unit, flow_ab * self.flow_unit, hr_flow_ab * self.flow_unit)

    def refined(self, a: Tensor, b: Tensor, flow_ab: Tensor) -> Tensor:
        """Return the input of a level that corrects a flow."""
        warped = warp(b, flow_ab * self.flow_unit)
        return torch.cat((b, a, warped, a - warped, flow_ab.to(a.dtype)), dim=1)


class ChannelAttention(nn.Sequential):
    """Weight each channel by attention over the frame averages of all channels, as in RCAN."""

    def __init__(self, num_feat: int, reduction: int):
        super().__init__(
            nn.AdaptiveAvgPool2d(1), nn.Conv2d(num_feat, num_feat // reduction, 1), nn.ReLU(inplace=True),
            nn.Conv2d(num_feat // reduction, num_feat, 1), nn.Sigmoid())

    def forward(self, x: Tensor) -> Tensor:
        return x * super().forward(x)


class ChannelAttentionBlock(nn.Sequential):
    """RCAB: a residual block with channel attention, as in RCAN."""

    def __init__(self, num_feat: int, reduction: int = 16):
        super().__init__(
            nn.Conv2d(num_feat, num_feat, 3, padding=1), nn.ReLU(inplace=True),
            nn.Conv2d(num_feat, num_feat, 3, padding=1), ChannelAttention(num_feat, reduction))

    def forward(self, x: Tensor) -> Tensor:
        return x + super().forward(x)


class ResBlock(nn.Module):
    """Residual block of two convolutions without normalisation; it starts close to the identity."""

    def __init__(self, num_feat: int):
        super().__init__()
        self.conv1, self.conv2 = (nn.Conv2d(num_feat, num_feat, 3, padding=1) for _ in range(2))
        for conv in (self.conv1, self.conv2):  # as in BasicSR's ResidualBlockNoBN
            nn.init.kaiming_normal_(conv.weight)
            nn.init.zeros_(conv.get_parameter('bias'))
            conv.weight.data *= 0.1

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv2(F.relu(self.conv1(x)))


class Branch(nn.Module):
    """Residual blocks whose outputs are fused, (B, in_channels, H, W) -> (B, num_feat, H, W)."""

    def __init__(self, in_channels: int, num_feat: int, num_block: int):
        super().__init__()
        self.head = nn.Sequential(nn.Conv2d(in_channels, num_feat, 3, padding=1), nn.LeakyReLU(0.1, inplace=True))
        self.blocks = nn.ModuleList(ResBlock(num_feat) for _ in range(num_block))
        self.fuse = nn.Conv2d(num_block * num_feat, num_feat, 1)

    def forward(self, x: Tensor) -> Tensor:
        feats = [self.head(x)]
        for block in self.blocks:
            feats.append(block(feats[-1]))
        return fuse(self.fuse, feats[1:])


class Reconstruction(nn.Sequential):
    """Convert features of the LR grid to a frame four times as large."""

    def __init__(self, num_feat: int):
        super().__init__(
            nn.Conv2d(num_feat, 4 * num_feat, 3, padding=1), nn.PixelShuffle(2), nn.LeakyReLU(0.1, inplace=True),
            nn.Conv2d(num_feat, 4 * num_feat, 3, padding=1), nn.PixelShuffle(2), nn.LeakyReLU(0.1, inplace=True),
            nn.Conv2d(num_feat, num_feat, 3, padding=1), nn.LeakyReLU(0.1, inplace=True),
            nn.Conv2d(num_feat, 3, 3, padding=1))


class DirectReconstruction(nn.Sequential):
    """Like `Reconstruction`, but with all convolutions on the LR grid and one pixel shuffle of x4."""

    def __init__(self, num_feat: int):
        super().__init__(
            nn.Conv2d(num_feat, num_feat, 3, padding=1), nn.LeakyReLU(0.1, inplace=True),
            nn.Conv2d(num_feat, 3 * 16, 3, padding=1), nn.PixelShuffle(4))


RECONSTRUCTIONS = {'steps': Reconstruction, 'direct': DirectReconstruction}


# ---------------------------------------------------------------- the network

@ARCH_REGISTRY.register()
class HOFFR(nn.Module):
    """Restore sharp HR frames from blurred LR frames one by one, with the previous output warped along an HR flow.

    3,543,242 parameters, including 623,532 of the flow network.

    Args:
        scale: only 4, for which we chose the layers.
        num_feat: features of the branches.
        num_block: residual blocks of a branch.
        num_rcab: attention blocks that fuse the branches; unused if `fusion` is 'concat'.
        reduction: channel reduction between the two 1x1 convolutions of an attention block.
        num_flow_feat: features of the flow network.
        deblur_branch: whether to use the branch that is trained to deblur LR frames.
        fusion: 'attention', or 'concat', one convolution in place of the attention blocks and their convolution.
        hr_flow: whether to estimate flow at HR; otherwise the LR flow is upsampled.
        recurrent: whether to use the previous output; otherwise the previous LR frame is used, upsampled bilinearly.
        init_state: the previous output at the first frame: 'zeros', black (our choice), or 'bicubic', the first frame
            upscaled like MATLAB.
        upscale: 'steps', x2 twice, or 'direct', one pixel shuffle of x4, for small networks: on a CPU the two steps
            take longer than a small branch.
        checkpoint: with gradients enabled, keep only the state between frames for the backward pass, and run each frame
            once more (gradient checkpointing). The results are the same.

    Raises:
        ValueError: an option has an unknown value.
    """

    def __init__(self, *, scale: int = 4, num_feat: int = 64, num_block: int = 10, num_rcab: int = 3,
                 reduction: int = 16, num_flow_feat: int = 32, deblur_branch: bool = True, fusion: str = 'attention',
                 hr_flow: bool = True, recurrent: bool = True, init_state: str = 'zeros', upscale: str = 'steps',
                 checkpoint: bool = False):
        super().__init__()
        if scale != 4:
            raise ValueError(f'HOFFR is built for scale 4, but got {scale}')
        for name, value, known in (('fusion', fusion, FUSIONS), ('init_state', init_state, INIT_STATES),
                                   ('upscale', upscale, RECONSTRUCTIONS)):
            if value not in known:
                raise ValueError(f'{name} must be one of {", ".join(known)}, but got {value!r}')
        check_counts(num_feat=num_feat, num_block=num_block, num_flow_feat=num_flow_feat)
        if fusion == 'attention':
            check_counts(num_rcab=num_rcab)
            if reduction < 1 or num_feat < reduction:
                raise ValueError(f'reduction must be from 1 to num_feat {num_feat}, but got {reduction}')
        self.scale, self.recurrent, self.init_state, self.checkpoint = scale, recurrent, init_state, checkpoint
        # The coarse level of the flow network halves the size.
        self.spec = NetSpec(scale=scale, num_frames=None, size_multiple=2, color='rgb', state=HOFFRState)

        self.flow_net = HRFlowNet(3, num_flow_feat, scale, to_hr=hr_flow)
        in_channels = 3 + 3 * scale**2
        self.sr_branch = Branch(in_channels, num_feat, num_block)
        self.deblur_branch = Branch(in_channels, num_feat, num_block) if deblur_branch else None
        self.deblur_tail = nn.Conv2d(num_feat, 3, 3, padding=1) if deblur_branch else None
        width = 2 * num_feat if deblur_branch else num_feat
        num_attention = num_rcab if fusion == 'attention' else 0
        self.fusion = nn.Sequential(
            *(ChannelAttentionBlock(width, reduction) for _ in range(num_attention)),
            nn.Conv2d(width, num_feat, 3, padding=1))
        self.reconstruction = RECONSTRUCTIONS[upscale](num_feat)

    def forward(self, lq: Tensor, return_aux: bool = False, truncate: int | None = None, flow_only: bool = False) -> (
            Tensor | tuple[Tensor, HOFFRAux] | FlowLevels):
        """Restore a clip, frame by frame.

        Args:
            lq: (B, T, 3, H, W), RGB, 0-1; at least one frame, H and W even.
            return_aux: also return additional outputs for the losses.
            truncate: propagate gradients over at most this many frames (truncated back-propagation through time); None:
                over all.
            flow_only: estimate only the flow between neighbours, without restoring frames.

        Returns:
            (B, T, 3, sH, sW); with `return_aux`, a pair of it and HOFFRAux; with `flow_only`, the flows from each frame
                but the first to the last one, frame by frame: ((T - 1) B, 2, ...).

        Raises:
            ValueError: the input has a wrong shape.
        """
        if lq.dim() != 5 or lq.shape[1] < 1 + flow_only or lq.shape[2] != 3:
            raise ValueError(f'HOFFR takes clips of RGB frames, (B, T, 3, H, W) with T >= {1 + flow_only}, but got '
                             f'{tuple(lq.shape)}')
        if flow_only:
            check_size_multiple(lq, self.spec.size_multiple, 'HOFFR')
            flows: FlowLevels = self.flow_net(*neighbours(lq))
            return flows
        state, frames = None, []
        for number, frame in enumerate(lq.unbind(1)):
            if truncate and state and number % truncate == 0:
                state = HOFFRState(state.lq, state.hr.detach())
            frames.append(self.restore(frame, state))
            state = HOFFRState(frame, frames[-1].hr)
        hr = torch.stack([frame.hr for frame in frames], dim=1)
        return (hr, HOFFRAux(frames)) if return_aux else hr

    def step(self, frame: Tensor, state: HOFFRState | None = None) -> tuple[Tensor, HOFFRState]:
        """Restore the next frame of a stream of any length.

        Args:
            frame: (B, 3, H, W), RGB, 0-1; H and W even.
            state: state after the previous frame; None at the start of a scene.

        Returns:
            the frame, (B, 3, sH, sW), and the new state.

        Raises:
            TypeError: the state is no HOFFRState.
            ValueError: the frame has a wrong shape, or the state is of frames of another size.
        """
        hr = self.restore(frame, state).hr
        return hr, HOFFRState(frame, hr)

    def compile(self, **arguments: Any) -> None:
        """Compile each part instead of the whole, which would be unrolled over the frames of a clip.

        Args:
            arguments: those of torch.compile; by default, options that give correct gradients.
        """
        compile_parts(self, **arguments)

    def restore(self, frame: Tensor, state: HOFFRState | None) -> HOFFRFrame:
        if frame.dim() != 4 or frame.shape[1] != 3:
            raise ValueError(f'HOFFR takes RGB frames, (B, 3, H, W), but got {tuple(frame.shape)}')
        check_size_multiple(frame, self.spec.size_multiple, 'HOFFR')
        if state is None:
            state = self.first_state(frame)
        if not isinstance(state, HOFFRState):
            raise TypeError('state must be None or the HOFFRState that the last step returned, but is a '
                            f'{type(state).__name__}')
        b, _, h, w = frame.shape
        expected = frame.shape, (b, 3, self.scale * h, self.scale * w)
        if (state.lq.shape, state.hr.shape) != expected:
            raise ValueError(f'the state belongs to frames of {tuple(state.lq.shape)} with estimates of '
                             f'{tuple(state.hr.shape)}, but this frame is {tuple(frame.shape)}: start a new stream '
                             'with state None')
        return HOFFRFrame(*run_part(self.restore_parts, frame, *state, recompute=self.checkpoint))

    def restore_parts(self, frame: Tensor, last_lq: Tensor, last_hr: Tensor) -> (
            tuple[Tensor, Tensor | None, FlowLevels]):
        flow_to_last: FlowLevels = self.flow_net(frame, last_lq)
        # The previous output, warped to this frame: each of the s x s pixels of an LR pixel is a channel.
        last = last_hr if self.recurrent else upsample(last_lq, self.scale)
        carried = F.pixel_unshuffle(warp(last, flow_to_last.hr), self.scale)
        given = torch.cat((frame, carried), dim=1)
        feat, deblurred = self.sr_branch(given), None
        if self.deblur_branch is not None and self.deblur_tail is not None:
            deblur_feat = self.deblur_branch(given)
            deblurred = frame + self.deblur_tail(deblur_feat)
            feat = torch.cat((deblur_feat, feat), dim=1)
        hr = upsample(frame, self.scale) + self.reconstruction(self.fusion(feat))
        return hr, deblurred, flow_to_last

    def first_state(self, frame: Tensor) -> HOFFRState:
        """Return the state before the first frame: the frame itself, and an HR estimate as `init_state` says."""
        if self.init_state == 'bicubic':
            return HOFFRState(frame, upscale_bicubic(frame, self.scale))
        b, _, h, w = frame.shape
        return HOFFRState(frame, frame.new_zeros(b, 3, self.scale * h, self.scale * w))


def neighbours(clip: Tensor) -> tuple[Tensor, Tensor]:  # (B, T, ...) -> 2 x ((T - 1) B, ...)
    """Return all frames but the first, and the frame before each of them."""
    frames = clip.transpose(0, 1)
    return frames[1:].flatten(0, 1), frames[:-1].flatten(0, 1)
