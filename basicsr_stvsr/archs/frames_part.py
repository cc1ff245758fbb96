"""Networks of frames, such as BasicSR's, as the VSR net of MBNet.

Shapes: B clips, k frames (two, or one), H x W pixels of the LR grid, s = scale.
"""
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .spec import PartSpec, spec_of

FEATURE_CHANNELS = 32  # of each frame


class FramesPart(nn.Module):
    """Let a network that maps frames to frames take part in MBNet's interaction.

    Such a network has no input for the VFI net's result. A convolution of that result is added to the LR frames.
    Its weights start at zero, so that a trained network first gives the same output as alone. Another convolution makes
    the feature for the VFI net from the restored frames. Both are ours; the paper has no such networks.

    Args:
        net: the network, with a `spec`.
        scale: upscaling factor of MBNet.

    Raises:
        ValueError: the network has no spec, or does not suit MBNet.
    """

    def __init__(self, net: nn.Module, scale: int):
        super().__init__()
        spec, name = spec_of(net), type(net).__name__
        if spec.scale != scale:
            raise ValueError(f'the VSR net {name} enlarges frames by {spec.scale}, but MBNet by {scale}')
        if spec.color not in (None, 'rgb') or spec.temporal_scale != 1 or spec.needs_flow or spec.recurrent:
            raise ValueError(f'{name} cannot be the VSR net of MBNet: it must take RGB frames alone, without flow or '
                             'state, and return one frame for each')
        self.net, self.scale, self.frames = net, scale, spec
        self.part_spec = PartSpec(size_multiple=spec.size_multiple, min_size=spec.min_size,
                                  feature_channels=2 * FEATURE_CHANNELS, joint=spec.num_frames != 1)
        self.correct = nn.Conv2d(6 + 6 * scale**2, 3, 3, padding=1)
        nn.init.zeros_(self.correct.weight)
        nn.init.zeros_(self.correct.bias)  # type: ignore[arg-type]  # there is a bias
        self.to_feature = nn.Conv2d(3 * scale**2, FEATURE_CHANNELS, 3, padding=1)

    def forward(self, lq_pair: Tensor, prev_sr: Tensor, warped_lq: Tensor, feedback: Tensor,
                flows: Tensor) -> tuple[Tensor, Tensor]:
        """Restore k frames, stacked along the channels; see docs/own_network.md for the inputs.

        Returns:
            (B, 3 k, sH, sW) and a feature, (B, 32 k, H, W).
        """
        num = lq_pair.shape[1] // 3
        lq, *context = (pair.unflatten(1, (num, -1)).flatten(0, 1) for pair in (lq_pair, prev_sr, warped_lq, feedback))
        corrected = lq + self.correct(torch.cat((lq, *context), dim=1))
        sr = self.restore(corrected.unflatten(0, (-1, num)))
        feature = self.to_feature(F.pixel_unshuffle(sr.flatten(0, 1), self.scale))
        return sr.flatten(1, 2), feature.unflatten(0, (-1, num)).flatten(1, 2)

    def restore(self, frames: Tensor) -> Tensor:  # (B, k, 3, H, W) -> (B, k, 3, sH, sW)
        num, window = frames.shape[1], self.frames.num_frames
        if window is None:
            return self.net(frames[:, within(range(max(num, self.frames.min_frames)), num)])[:, :num]
        reach = window // 2
        windows = [frames[:, within(range(middle - reach, middle + reach + 1), num)] for middle in range(num)]
        return self.net(torch.cat(windows)).unflatten(0, (num, -1)).squeeze(2).transpose(0, 1)


def within(numbers: range, length: int) -> list[int]:
    """Replace numbers before the first frame by it, and those after the last."""
    return [min(max(number, 0), length - 1) for number in numbers]
