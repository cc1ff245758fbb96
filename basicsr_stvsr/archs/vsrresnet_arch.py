"""VSRResNet and its discriminator, x2, x3 or x4, five LR frames to the middle HR one.

They come from 'Generative Adversarial Networks and Perceptual Losses for Video Super-Resolution' (Lucas, Lopez-Tapia,
Molina, Katsaggelos; TIP 28(7), 2019, https://doi.org/10.1109/TIP.2019.2895768). 'Spatially Adaptive Losses for Video
Super-resolution with GANs' (Wang, Lucas, Lopez-Tapia, Wu, Molina, Katsaggelos) trains the same network with other
losses. There is no official code, and we could not obtain the full text. The layers are those that a survey of the
field names: five bicubically upscaled frames, a convolution of each, their fusion, residual blocks of two convolutions,
and a last convolution. The abstract gives the 15 blocks. Details that these sources leave open are options, or are
marked as our choice.
Shapes: B clips or frames, C channels of a frame, F features, H x W pixels of the LR grid, s = scale.
"""
from collections.abc import Sequence
from typing import Literal, NamedTuple

import torch
from basicsr.utils.registry import ARCH_REGISTRY
from torch import Tensor, nn
from torch.nn import functional as F

from .arch_util import COLORS, SCALES, check_counts, run_part
from .resize import upscale_bicubic
from .spec import NetSpec

NUM_FRAMES = 5


def conv(in_channels: int, out_channels: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(in_channels, out_channels, 3, stride, padding=1)


class ResBlock(nn.Module):
    """Residual block of two convolutions, each followed by ReLU.

    Args:
        num_feat: F.
        relu: position of the second ReLU, which the sources do not give: 'after_sum', as in the first ResNet, or
            'before_sum', with which a block can only add.
    """

    def __init__(self, num_feat: int, relu: Literal['after_sum', 'before_sum']):
        super().__init__()
        self.conv1, self.conv2 = conv(num_feat, num_feat), conv(num_feat, num_feat)
        self.relu_after_sum = relu == 'after_sum'

    def forward(self, x: Tensor) -> Tensor:
        change = self.conv2(F.relu(self.conv1(x)))
        return F.relu(x + change) if self.relu_after_sum else x + F.relu(change)


class FrameFeatures(NamedTuple):
    """Results that depend on one frame only, and are shared by all its windows."""

    enlarged: Tensor  # (B, C, sH, sW)
    found: Tensor  # (B, F, sH, sW) if frames share the first convolution, else the upscaled frame


class SharedFirstConv(nn.Module):
    """Apply the same convolution to every frame, then fuse the results."""

    def __init__(self, num_in_ch: int, num_feat: int):
        super().__init__()
        self.conv = conv(num_in_ch, num_feat)
        self.fusion = conv(NUM_FRAMES * num_feat, num_feat)

    def of_frame(self, enlarged: Tensor) -> Tensor:  # (B, C, sH, sW) -> (B, F, sH, sW)
        return F.relu(self.conv(enlarged))

    def forward(self, found: list[Tensor]) -> Tensor:  # 5 x (B, F, sH, sW) -> (B, F, sH, sW)
        return F.relu(self.fusion(torch.cat(found, dim=1)))


class SeparateFirstConvs(nn.Module):
    """Apply a separate convolution to each of the five frames, then fuse the results."""

    def __init__(self, num_in_ch: int, num_feat: int):
        super().__init__()
        self.convs = nn.ModuleList(conv(num_in_ch, num_feat) for _ in range(NUM_FRAMES))
        self.fusion = conv(NUM_FRAMES * num_feat, num_feat)

    def of_frame(self, enlarged: Tensor) -> Tensor:
        return enlarged

    def forward(self, frames: list[Tensor]) -> Tensor:  # 5 x (B, C, sH, sW) -> (B, F, sH, sW)
        found = [F.relu(layer(frame)) for layer, frame in zip(self.convs, frames, strict=True)]
        return F.relu(self.fusion(torch.cat(found, dim=1)))


class EarlyConcatenation(nn.Module):
    """Apply one convolution to all frames at once."""

    def __init__(self, num_in_ch: int, num_feat: int):
        super().__init__()
        self.fusion = conv(NUM_FRAMES * num_in_ch, num_feat)

    def of_frame(self, enlarged: Tensor) -> Tensor:
        return enlarged

    def forward(self, frames: list[Tensor]) -> Tensor:  # 5 x (B, C, sH, sW) -> (B, F, sH, sW)
        return F.relu(self.fusion(torch.cat(frames, dim=1)))


FIRST_CONVS: dict[str, type[SharedFirstConv | SeparateFirstConvs | EarlyConcatenation]] = {
    'shared': SharedFirstConv, 'separate': SeparateFirstConvs, 'early': EarlyConcatenation}


@ARCH_REGISTRY.register()
class VSRResNet(nn.Module):
    """Upscale five LR frames by bicubic interpolation, and restore the HR frame of the middle one.

    1,293,441 parameters on luma, 1,295,747 on RGB. For the first and last two frames of a clip, missing neighbours are
    repeated frames (`pads_ends`; our choice).

    Args:
        scale: 2, 3 or 4; the weights do not depend on it, but the published networks are trained for one scale each.
        num_in_ch: C; 1: luma, 3: RGB. The source does not say which.
        num_feat: F; 64, as in a figure.
        num_block: residual blocks.
        first_conv: how the frames are combined: 'shared', the same convolution for each, then fusion; 'separate', five
            convolutions; 'early', one convolution of all frames.
        block_relu: 'after_sum' or 'before_sum', see `ResBlock`.
        add_center: add the output to the upscaled middle frame; it starts at 0. Not one of the paper's options: for
            short trainings, which then need not learn to copy that frame.
        checkpoint: with gradients enabled, keep only the inputs of the blocks for the backward pass, and run each block
            once more (gradient checkpointing). Not one of the paper's options; the results are the same.

    Raises:
        ValueError: an argument has an invalid value.
    """

    def __init__(self, *, scale: int = 4, num_in_ch: int = 1, num_feat: int = 64, num_block: int = 15,
                 first_conv: Literal['shared', 'separate', 'early'] = 'shared',
                 block_relu: Literal['after_sum', 'before_sum'] = 'after_sum', add_center: bool = False,
                 checkpoint: bool = False):
        super().__init__()
        for name, value, known in (('scale', scale, SCALES), ('num_in_ch', num_in_ch, COLORS),
                                   ('first_conv', first_conv, FIRST_CONVS),
                                   ('block_relu', block_relu, ('after_sum', 'before_sum'))):
            if value not in known:
                raise ValueError(f'{name} must be one of {", ".join(map(str, known))}, but is {value!r}')
        check_counts(num_feat=num_feat, num_block=num_block)
        self.scale, self.num_in_ch = scale, num_in_ch
        self.spec = NetSpec(scale=scale, num_frames=NUM_FRAMES, first_output=NUM_FRAMES // 2, pads_ends=True,
                            color=COLORS[num_in_ch], sharing='features')
        self.add_center, self.checkpoint = add_center, checkpoint
        self.first = FIRST_CONVS[first_conv](num_in_ch, num_feat)
        self.blocks = nn.ModuleList(ResBlock(num_feat, block_relu) for _ in range(num_block))
        self.last = conv(num_feat, num_in_ch)
        if add_center:
            nn.init.zeros_(self.last.weight)
            nn.init.zeros_(self.last.get_parameter('bias'))

    def forward(self, lq: Tensor | Sequence[FrameFeatures]) -> Tensor:
        """Restore the middle one of five frames.

        Args:
            lq: (B, 5, C, H, W), 0-1, of any size; or a list of the `features` of each frame.

        Returns:
            (B, 1, C, sH, sW).

        Raises:
            ValueError: the input has a wrong shape.
        """
        if isinstance(lq, Tensor):
            if lq.dim() != 5 or lq.shape[1:3] != (NUM_FRAMES, self.num_in_ch):
                raise ValueError(f'VSRResNet takes five frames of {self.num_in_ch} channels ({self.spec.color}), '
                                 f'(B, {NUM_FRAMES}, {self.num_in_ch}, H, W), but got {tuple(lq.shape)}')
            frames: Sequence[FrameFeatures] = [self.features(frame) for frame in lq.unbind(1)]
        else:
            frames = lq
        feat = self.first([frame.found for frame in frames])  # (B, F, sH, sW)
        for block in self.blocks:
            feat = run_part(block, feat, recompute=self.checkpoint)
        output = self.last(feat)
        if self.add_center:
            output = output + frames[self.spec.first_output].enlarged
        return output.unsqueeze(1)

    def features(self, frame: Tensor) -> FrameFeatures:
        """Return the results for a frame, (B, C, H, W), 0-1, that neighbouring windows share."""
        enlarged = upscale_bicubic(frame, self.scale)
        return FrameFeatures(enlarged, self.first.of_frame(enlarged))


@ARCH_REGISTRY.register()
class VSRResDiscriminator(nn.Module):
    """Distinguish true frames from generated ones.

    The layers are three times convolution, batch normalisation and leaky ReLU, then one linear layer. The survey gives
    this order; widths, strides and slope are our choice. 386,945 parameters for a patch of 64 x 64 of luma; 376,961 for
    one of 36 x 36, the size of the group's earlier work. These numbers include the biases of the convolutions, which
    the normalisation makes redundant.

    Args:
        num_in_ch: C; 1: luma, 3: RGB.
        num_feat: channels of the first convolution; the next two double them.
        patch_size: height and width of the input frames, `gt_size` of the data set.

    Raises:
        ValueError: `num_in_ch` is neither 1 nor 3, or `patch_size` is too small for three halvings.
    """

    def __init__(self, *, num_in_ch: int = 1, num_feat: int = 64, patch_size: int = 64):
        super().__init__()
        if num_in_ch not in COLORS:
            raise ValueError(f'num_in_ch must be one of {", ".join(map(str, COLORS))}, but is {num_in_ch!r}')
        check_counts(num_feat=num_feat)
        if patch_size < 8:
            raise ValueError(f'patch_size must be at least 8, but is {patch_size}')
        self.num_in_ch, self.patch_size = num_in_ch, patch_size
        widths = [num_feat, 2 * num_feat, 4 * num_feat]
        self.body = nn.Sequential(*[
            nn.Sequential(conv(before, width, stride=2), nn.BatchNorm2d(width), nn.LeakyReLU(0.2))
            for before, width in zip([num_in_ch, *widths], widths, strict=False)])
        side = -(-patch_size // 8)  # each convolution halves it, rounding up
        self.score = nn.Linear(widths[-1] * side**2, 1)

    def forward(self, frames: Tensor) -> Tensor:
        """Score frames; the sigmoid of a score is the probability that the frame is a true one.

        Args:
            frames: (B, C, patch_size, patch_size), 0-1.

        Returns:
            (B, 1).

        Raises:
            ValueError: the frames have a wrong shape.
        """
        expected = (self.num_in_ch, self.patch_size, self.patch_size)
        if frames.dim() != 4 or frames.shape[1:] != expected:
            raise ValueError(f'VSRResDiscriminator judges frames of (B, {", ".join(map(str, expected))}), but got '
                             f'{tuple(frames.shape)}: num_in_ch are the channels of a frame, patch_size is its side')
        return self.score(self.body(frames).flatten(1))
