"""Difference between the temporal changes of a restored clip and the true ones."""
import numpy as np


def flicker(clip: np.ndarray, gt: np.ndarray) -> float:
    """Return the mean squared difference of frame differences, over frames, pixels and channels.

        ((clip[t + 1] - clip[t]) - (gt[t + 1] - gt[t]))^2

    FISR's temporal difference loss (eq. 4) minimises it. A constant error does not count. An error that alternates
    counts twice, such as interpolated frames that are softer than their neighbours.

    Args:
        clip, gt: (T, ...), of one shape and value range.

    Raises:
        ValueError: the shapes differ, or there are fewer than two frames.
    """
    if clip.shape != gt.shape or len(clip) < 2:
        raise ValueError(f'flicker needs two clips of the same shape with at least two frames, but got {clip.shape} '
                         f'and {gt.shape}')
    error = np.subtract(clip, gt, dtype=np.float64)
    return float(np.square(np.diff(error, axis=0)).mean())
