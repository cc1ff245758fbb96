"""What every network must beat: MATLAB-like bicubic for the given frames; between them the mean or one of them."""
from collections.abc import Sequence
from itertools import chain, pairwise

import torch
from basicsr.utils.matlab_functions import imresize
from basicsr.utils.registry import ARCH_REGISTRY
from torch import Tensor, nn

BETWEEN = ('mean', 'repeat')


@ARCH_REGISTRY.register()
class BicubicAverage(nn.Module):
    """Upsamples a clip by bicubic interpolation; with temporal_scale 2, also gives the frame between every two.

    Frames are rounded to 8 bits before they are averaged, as if they came from files.

    Args:
        scale, temporal_scale: how many times larger frames, and how many times more of them; see above.
        first_output: leave out so many frames at both ends, as a network does that it is compared with.
        between: what stands between two frames: their 'mean', or the first one once more, 'repeat'.
    """

    size_multiple = 1
    color = None  # any

    def __init__(self, *, scale: int = 4, temporal_scale: int = 2, first_output: int = 0,
                 between: str = 'mean'):
        super().__init__()
        if between not in BETWEEN:
            raise ValueError(f'between must be one of {", ".join(BETWEEN)}, but got {between!r}')
        if temporal_scale not in (1, 2):
            raise ValueError(f'temporal_scale must be 1 or 2, but got {temporal_scale}')
        self.scale, self.temporal_scale, self.first_output = scale, temporal_scale, first_output
        self.between = between
        # the shortest windows that leave out no other frame when each starts one frame after the last one
        self.num_frames = 2 * first_output + 1 if temporal_scale == 1 else first_output + 2

    def forward(self, lq: Tensor | Sequence[Tensor]) -> Tensor:
        """Enlarges a clip.

        Args:
            lq: (B, T, C, H, W), 0-1, of any length; or what `features` made of each frame.

        Returns:
            (B, U, C, sH, sW).
        """
        frames = [self.features(frame) for frame in lq.unbind(1)] if isinstance(lq, Tensor) else list(lq)
        if self.temporal_scale == 2:
            between = [(a + b) / 2 if self.between == 'mean' else a for a, b in pairwise(frames)]
            frames[1:] = chain.from_iterable(zip(between, frames[1:], strict=True))
        return torch.stack(frames[self.first_output:len(frames) - self.first_output], dim=1)

    def features(self, frame: Tensor) -> Tensor:
        """The enlarged frame, which neighbouring windows share; (B, C, H, W) -> (B, C, sH, sW)."""
        frames = torch.stack([imresize(each.float().cpu(), self.scale) for each in frame])
        return frames.mul(255).round().clamp(0, 255).div(255).to(frame)
