"""How much the changes from frame to frame of a restored clip differ from the true ones."""
import numpy as np


def flicker(clip: np.ndarray, gt: np.ndarray) -> float:
    """Mean squared difference of frame differences, the mean over frames, pixels and channels of

        ((clip[t + 1] - clip[t]) - (gt[t + 1] - gt[t]))^2

    It is what FISR's temporal difference loss (eq. 4) makes small. An error that stays the same does not count, one
    that comes and goes, such as new frames that are softer than those between them, counts twice.

    Args:
        clip, gt: (T, ...), of one shape and value range.

    Raises:
        ValueError: the shapes differ, or there are less than two frames.
    """
    if clip.shape != gt.shape or len(clip) < 2:
        raise ValueError(f'flicker needs two clips of one shape with two frames or more, but got {clip.shape} and '
                         f'{gt.shape}')
    error = np.subtract(clip, gt, dtype=np.float64)
    return float(np.square(np.diff(error, axis=0)).mean())
