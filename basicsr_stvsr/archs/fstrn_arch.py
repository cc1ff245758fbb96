"""FSTRN: Fast Spatio-Temporal Residual Network for Video Super-Resolution (CVPR 2019), five LR frames, centre one x4.

Equations are numbered as in the paper, https://arxiv.org/abs/1904.02870. Details that it leaves open come from 'the
release', https://github.com/lsmale/FSTRN: TensorFlow code, probably an author's, which does not run unmodified. If the
two differ, the paper's version is the default and the release's is an option.
Shapes: B clips, T = 5 frames, C channels, H x W pixels of the LR grid, s = scale.
"""
from collections.abc import Callable

import torch
from basicsr.utils.registry import ARCH_REGISTRY
from torch import Tensor, nn
from torch.nn import functional as F

from .arch_util import COLORS, SCALES, check_counts, run_part, upsample
from .resize import legacy_bilinear, upscale_bicubic
from .spec import NetSpec

NUM_FRAMES = 5
ACTIVATIONS: dict[str, Callable[[int], nn.Module]] = {
    'prelu': lambda num_feat: nn.PReLU(num_feat, init=0.0), 'relu': lambda num_feat: nn.ReLU()}
END_ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {'none': nn.Identity, 'lrelu': lambda: nn.LeakyReLU(0.2)}
DECONV_SIZES = {'deconv3': 3, 'deconv8': 8}
UP_KERNELS = (*DECONV_SIZES, 'pixelshuffle')
ENLARGE: dict[str, Callable[[Tensor, int], Tensor]] = {
    'bilinear': upsample, 'bicubic': upscale_bicubic, 'legacy_bilinear': legacy_bilinear}
OUTPUTS = ('center', 'all')


def enlarge(frames: Tensor, scale: int, mode: str = 'bilinear') -> Tensor:  # (N, C, H, W) -> (N, C, sH, sW)
    """SRmapping: upscale frames by interpolation.

    Args:
        mode: 'bilinear' or 'bicubic' (MATLAB's), which keep pixel centres in place, or 'legacy_bilinear', TensorFlow
            1's, which does not.
    """
    return ENLARGE[mode](frames, scale)


def as_frames(x: Tensor) -> Tensor:
    """Flatten clips into a batch of frames, (B, C, T, H, W) -> (B T, C, H, W); channels_last_3d is not copied."""
    return x.permute(0, 2, 3, 4, 1).flatten(0, 1).permute(0, 3, 1, 2)


def as_clips(frames: Tensor, num_clip: int) -> Tensor:
    """Invert `as_frames`: (B T, C, H, W) -> (B, C, T, H, W), in channels_last_3d."""
    frames = frames.contiguous(memory_format=torch.channels_last)
    return frames.unflatten(0, (num_clip, -1)).transpose(1, 2)


def stack_neighbours(x: Tensor, size: int, padding: int) -> Tensor:
    """Stack every `size` consecutive frames along channels, the earliest first.

    Args:
        x: (B, C, T, H, W).
        padding: zero frames before and after each clip.

    Returns:
        (B U, size C, H, W) in channels_last, with U = T + 2 padding - size + 1.
    """
    clips = x.permute(0, 2, 3, 4, 1)
    if padding:
        b, _, h, w, c = clips.shape
        zeros = clips.new_zeros(b, padding, h, w, c)
        clips = torch.cat((zeros, clips, zeros), dim=1)
    num_output = clips.shape[1] - size + 1
    stacked = torch.cat([clips[:, start:start + num_output] for start in range(size)], dim=-1)
    return stacked.flatten(0, 1).permute(0, 3, 1, 2)


# PyTorch's 3D convolutions reach a seventh of a CPU's speed in single precision. The layers below have the same weights
# and results, but compute 2D convolutions in channels_last. Between them, clips are (B, C, T, H, W) in
# channels_last_3d. This is the memory order of their frames in channels_last, so nothing is copied.
class FrameConv(nn.Conv3d):
    """A Conv3d computed as a 2D convolution of frames, with neighbouring frames as additional channels."""

    padding: tuple[int, ...]  # never the name of a mode

    def forward(self, x: Tensor) -> Tensor:  # (B, C, T, H, W) -> (B, O, U, H, W)
        size, padding = self.kernel_size[0], self.padding[0]
        frames = as_frames(x) if size == 1 else stack_neighbours(x, size, padding)
        weight = self.weight.transpose(1, 2).flatten(1, 2).contiguous(memory_format=torch.channels_last)
        return as_clips(F.conv2d(frames, weight, self.bias, padding=self.padding[1:]), x.shape[0])


class FrameDeconv(nn.ConvTranspose3d):
    """A ConvTranspose3d of stride 1 in time, computed as a 2D one of frames with their neighbours as channels."""

    padding: tuple[int, ...]  # never the name of a mode

    def forward(self, x: Tensor) -> Tensor:  # type: ignore[override]  # without output_size
        # (B, C, T, H, W) -> (B, O, U, sH, sW)
        size = self.kernel_size[0]
        frames = stack_neighbours(x, size, size - 1 - self.padding[0])
        weight = self.weight.flip(2).permute(2, 0, 1, 3, 4).flatten(0, 1)  # a transposed convolution flips its kernel
        return as_clips(F.conv_transpose2d(frames, weight, self.bias, self.stride[1:], self.padding[1:],
                                           self.output_padding[1:]), x.shape[0])


class TemporalConv(nn.Conv2d):
    """Convolve along time, kx1x1, (B, C, T, H, W); the pixels of a frame become one row of an image."""

    def __init__(self, num_feat: int, kernel: int):
        super().__init__(num_feat, num_feat, (kernel, 1), padding=(kernel // 2, 0))

    def forward(self, x: Tensor) -> Tensor:
        rows = x.permute(0, 2, 3, 4, 1).flatten(2, 3).permute(0, 3, 1, 2)  # (B, C, T, H W)
        weight = self.weight.contiguous(memory_format=torch.channels_last)
        return F.conv2d(rows, weight, self.bias, padding=self.padding).unflatten(3, x.shape[3:])


class FastResBlock(nn.Sequential):
    """FRB: a space-time convolution split into one in space, 1xkxk, and one in time, kx1x1 (eq. 3.6).

    There is no activation between the two, so together they are a kxkxk convolution with fewer weights.
    """

    def __init__(self, num_feat: int, kernel: int, act: str):
        super().__init__(
            ACTIVATIONS[act](num_feat),
            FrameConv(num_feat, num_feat, (1, kernel, kernel), padding=(0, kernel // 2, kernel // 2)),
            TemporalConv(num_feat, kernel))

    def forward(self, x: Tensor) -> Tensor:
        return x + super().forward(x)


class C3DResBlock(nn.Sequential):
    """The block that the FRB replaces, with one kxkxk convolution.

    With `act` relu it is the block of the paper's Fig. 1b.
    """

    def __init__(self, num_feat: int, kernel: int, act: str):
        super().__init__(
            ACTIVATIONS[act](num_feat), FrameConv(num_feat, num_feat, kernel, padding=kernel // 2))

    def forward(self, x: Tensor) -> Tensor:
        return x + super().forward(x)


BLOCKS = {'frb': FastResBlock, 'c3d': C3DResBlock}


class PixelShuffle3d(nn.Module):
    """Apply pixel shuffle to every frame: (B, s^2 C, T, H, W) -> (B, C, T, sH, sW)."""

    def __init__(self, scale: int):
        super().__init__()
        self.scale = scale

    def forward(self, x: Tensor) -> Tensor:
        return as_clips(F.pixel_shuffle(as_frames(x), self.scale), x.shape[0])


def deconv(in_channels: int, out_channels: int, size: int, scale: int, time_padding: int) -> FrameDeconv:
    """Return a transposed convolution of 3 x size x size that upscales frames by `scale`.

    Args:
        time_padding: zero frames at both ends. Without them, a transposed convolution of three drops two frames.
    """
    padding = max(0, -((scale - size) // 2))
    rest = scale - size + 2 * padding
    return FrameDeconv(
        in_channels, out_channels, (3, size, size), stride=(1, scale, scale),
        padding=(2 - time_padding, padding, padding), output_padding=(0, rest, rest))


def init_weights(module: nn.Module) -> None:
    """Initialise as in the release: Xavier, or normal up to two sigma for transposed convolutions; biases are 0."""
    if isinstance(module, nn.ConvTranspose3d):
        nn.init.trunc_normal_(module.weight, std=0.02, a=-0.04, b=0.04)
    elif isinstance(module, (nn.Conv2d, nn.Conv3d)):
        nn.init.xavier_uniform_(module.weight)
    else:
        return
    nn.init.zeros_(module.get_parameter('bias'))


@ARCH_REGISTRY.register()
class FSTRN(nn.Module):
    """A trunk of factorised 3D blocks on LR frames; its output is added to frames upscaled by interpolation.

    802,241 parameters on Y, 806,563 on RGB.

    Args:
        num_in_ch: 1, Y (the release), or 3, RGB.
        num_feat: features of the trunk, a multiple of 4; they are fused into four times as many, and upscaled to a
            quarter as many.
        num_frb: D, number of blocks.
        kernel: k of the blocks, odd.
        block: 'frb', or 'c3d' with full kxkxk convolutions.
        scale: 4 (the paper), or 2 or 3.
        use_lrl: LR-space residual learning: add the first features to the output of the last block (eq. 3.7). Without
            it, its activation and dropout remain.
        use_crl: cross-space residual learning: add the output to upscaled frames (eq. 3.5).
        crl_mode: how these frames are upscaled, see `enlarge`; the release has 'legacy_bilinear'.
        dropout: share of features set to 0 in training. The release has 0.7, as its `keep=0.3` says.
        act: 'prelu', with one slope for each channel, starting at 0, or 'relu'.
        lfe_act, tail_act: activation after the first and the last convolution: 'none', or the release's 'lrelu', with
            0.2.
        up_kernel: 'deconv3', a transposed convolution of 3x3x3; at scale 4 it leaves 7 of 16 pixels to the next
            convolution. 'deconv8', 3x8x8, fills all pixels. 'pixelshuffle' has no weights.
        output: 'center', the centre frame, or 'all', all five; the weights are the same. Both restore whole clips
            equally: of several copies of a frame, the one with the most frames around it is used.
        checkpoint: with gradients enabled, keep only the inputs of the blocks and of the upscaling part for the
            backward pass, and run each once more (gradient checkpointing). The results are the same.

    Raises:
        ValueError: an option has an unknown value, or the channels cannot be divided as the options require.
    """

    def __init__(self, *, num_in_ch: int = 1, num_feat: int = 64, num_frb: int = 5, kernel: int = 3,
                 block: str = 'frb', scale: int = 4, use_lrl: bool = True, use_crl: bool = True,
                 crl_mode: str = 'bilinear', dropout: float = 0.3, act: str = 'prelu', lfe_act: str = 'none',
                 tail_act: str = 'none', up_kernel: str = 'deconv3', output: str = 'center', checkpoint: bool = False):
        super().__init__()
        for name, value, known in (
                ('num_in_ch', num_in_ch, COLORS), ('block', block, BLOCKS), ('scale', scale, SCALES),
                ('crl_mode', crl_mode, ENLARGE), ('act', act, ACTIVATIONS), ('lfe_act', lfe_act, END_ACTIVATIONS),
                ('tail_act', tail_act, END_ACTIVATIONS), ('up_kernel', up_kernel, UP_KERNELS),
                ('output', output, OUTPUTS)):
            if value not in known:
                raise ValueError(f'{name} must be one of {", ".join(map(str, known))}, but got {value!r}')
        check_counts(num_frb=num_frb)
        if num_feat < 4 or num_feat % 4:
            raise ValueError(f'num_feat must be a multiple of 4, but got {num_feat}')
        if kernel < 1 or kernel % 2 == 0:
            raise ValueError(f'kernel must be odd, but got {kernel}')
        if not 0 <= dropout < 1:
            raise ValueError(f'dropout must be at least 0 and below 1, but got {dropout}')
        if up_kernel == 'pixelshuffle' and 4 * num_feat % scale**2:
            raise ValueError(f'up_kernel pixelshuffle needs 4 num_feat to be divisible by {scale**2}, but 4 num_feat '
                             f'is {4 * num_feat}')
        self.num_in_ch, self.scale = num_in_ch, scale
        self.use_lrl, self.use_crl, self.crl_mode, self.checkpoint = use_lrl, use_crl, crl_mode, checkpoint
        # The release repeats the first and the last frame of a clip.
        first_output = NUM_FRAMES // 2 if output == 'center' else 0
        self.spec = NetSpec(scale=scale, num_frames=NUM_FRAMES, first_output=first_output, pads_ends=True,
                            overlap='middle', color=COLORS[num_in_ch])

        # The centre frame depends on only three frames before the last convolution of three, and on five before the
        # last but one. Without padding in time, these two compute nothing else: five frames become three, then one.
        time_padding = 0 if output == 'center' else 1
        self.lfe = nn.Sequential(FrameConv(num_in_ch, num_feat, 3, padding=1), END_ACTIVATIONS[lfe_act]())
        self.blocks = nn.ModuleList(BLOCKS[block](num_feat, kernel, act) for _ in range(num_frb))
        self.lrl_act = nn.Sequential(ACTIVATIONS[act](num_feat), nn.Dropout(dropout))
        self.up: nn.Module
        if up_kernel == 'pixelshuffle':
            self.fuse = FrameConv(num_feat, 4 * num_feat, 3, padding=(time_padding, 1, 1))
            self.up, tail_channels = PixelShuffle3d(scale), 4 * num_feat // scale**2
        else:
            self.fuse = FrameConv(num_feat, 4 * num_feat, 3, padding=1)
            tail_channels = num_feat // 4
            self.up = deconv(4 * num_feat, tail_channels, DECONV_SIZES[up_kernel], scale, time_padding)
        self.tail = nn.Sequential(
            FrameConv(tail_channels, num_in_ch, 3, padding=(time_padding, 1, 1)), END_ACTIVATIONS[tail_act]())
        self.apply(init_weights)

    def forward(self, lq: Tensor) -> Tensor:
        """Upscale one window.

        Args:
            lq: (B, 5, C, H, W), Y or RGB, 0-1.

        Returns:
            (B, 1, C, sH, sW), the centre frame, or (B, 5, C, sH, sW).

        Raises:
            ValueError: the input has another number of frames or channels.
        """
        if lq.dim() != 5 or lq.shape[1:3] != (NUM_FRAMES, self.num_in_ch):
            raise ValueError(f'FSTRN with num_in_ch {self.num_in_ch} takes windows of (B, {NUM_FRAMES}, '
                             f'{self.num_in_ch}, H, W), but got {tuple(lq.shape)}')
        first = feat = self.lfe(lq.transpose(1, 2))  # F_0, (B, num_feat, 5, H, W)
        for block in self.blocks:
            feat = run_part(block, feat, recompute=self.checkpoint)
        feat = self.lrl_act(feat + first if self.use_lrl else feat)
        residual = run_part(self.to_frames, feat, recompute=self.checkpoint)
        if not self.use_crl:
            return residual
        first = self.spec.first_output
        given = lq[:, first:NUM_FRAMES - first]
        return residual + enlarge(given.flatten(0, 1), self.scale, self.crl_mode).unflatten(0, given.shape[:2])

    def to_frames(self, feat: Tensor) -> Tensor:  # (B, num_feat, 5, H, W) -> (B, U, C, sH, sW)
        return self.tail(self.up(self.fuse(feat))).transpose(1, 2)
