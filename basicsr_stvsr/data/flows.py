"""Precomputed flow to the frames between the given ones, as MBNet's training takes it."""
from pathlib import Path

import numpy as np

from ..flow.stored_flow import checked_flow, read_flow_file


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
        FrameReadError: there is no such file, it is damaged, has another size, or values that are no motion.
    """
    what = f'flow for frame {frame_name!r} of clip {clip!r}'
    flow = read_flow_file(Path(root) / clip / f'{frame_name}_{neighbour}', what)
    return checked_flow(flow, size, f'{root}: the {what} ({neighbour})')
