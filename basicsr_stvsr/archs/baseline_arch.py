"""What every network must beat: MATLAB-like bicubic for the given frames, their average for the one between."""
import torch
from basicsr.utils.matlab_functions import imresize
from basicsr.utils.registry import ARCH_REGISTRY
from torch import Tensor, nn


@ARCH_REGISTRY.register()
class BicubicAverage(nn.Module):
    """Upsamples a clip by bicubic interpolation; with temporal_scale 2, puts the mean of every two frames between them.

    Frames are rounded to 8 bits before they are averaged, as if they came from files.

    Args:
        scale, temporal_scale: how many times larger frames, and how many times more of them; see above.
        first_output: leave out so many frames at both ends, as a network does that it is compared with.
    """

    num_frames = None
    size_multiple = 1
    color = None  # any

    def __init__(self, *, scale: int = 4, temporal_scale: int = 2, first_output: int = 0):
        super().__init__()
        if temporal_scale not in (1, 2):
            raise ValueError(f'temporal_scale must be 1 or 2, but got {temporal_scale}')
        self.scale, self.temporal_scale, self.first_output = scale, temporal_scale, first_output

    def forward(self, lq: Tensor) -> Tensor:  # (B, T, C, H, W), 0-1 -> (B, U, C, sH, sW)
        frames = torch.stack([imresize(frame.float().cpu(), self.scale) for frame in lq.flatten(0, 1)])
        frames = frames.mul(255).round().clamp(0, 255).div(255).to(lq).unflatten(0, lq.shape[:2])
        clip = frames
        if self.temporal_scale == 2:
            clip = frames.new_empty(lq.shape[0], 2 * lq.shape[1] - 1, *frames.shape[2:])
            clip[:, ::2] = frames
            clip[:, 1::2] = (frames[:, :-1] + frames[:, 1:]) / 2
        return clip[:, self.first_output:clip.shape[1] - self.first_output]
