"""Precomputed optical flow on disk."""
from pathlib import Path

import numpy as np
from basicsr.utils.flow_util import flowread

from .frames import FrameReadError

SUFFIXES = ('.flo', '.npy')


def read_flow(root: str | Path, clip: str, frame_name: str, neighbour: str, size: tuple[int, int]) -> np.ndarray:
    """Reads the flow by which a neighbour of a frame is sampled to look like that frame.

    It lies at `<root>/<clip>/<frame_name>_<neighbour>.flo` (Middlebury's format) or `.npy` ((H, W, 2) of any float
    type), on the frame's own grid: what a textbook estimator gives for (frame, neighbour).

    Args:
        root: folder of the flows.
        clip, frame_name: as the reader of the frames calls them.
        neighbour: 'prev' or 'next'.
        size: expected height and width.

    Returns:
        (H, W, 2) float32, x then y, pixels.

    Raises:
        FrameReadError: there is no such file, it is damaged, or has another size.
    """
    stem = Path(root) / clip / f'{frame_name}_{neighbour}'
    # The name may hold dots, so with_suffix is of no use.
    path = next((path for suffix in SUFFIXES if (path := Path(f'{stem}{suffix}')).is_file()), None)
    if path is None:
        raise FrameReadError(f'no flow for frame {frame_name!r} of clip {clip!r}: neither {stem}.flo nor {stem}.npy')
    try:
        flow = flowread(str(path)) if path.suffix == '.flo' else np.load(path).astype(np.float32)
    except (OSError, ValueError, TypeError) as error:  # BasicSR reads a short header as numbers that are none
        raise FrameReadError(f'{path} cannot be read as a flow: {error}') from error
    if flow.shape != (*size, 2):
        raise FrameReadError(f'{path} has shape {flow.shape}, expected {(*size, 2)}, as the frames of clip {clip!r}')
    return flow
