"""Precomputed flow to the frames between the LR frames, for MBNet's training."""
from pathlib import Path

import numpy as np

from ..flow.stored_flow import FlowFiles, checked_flow, read_flow_file


class MiddleFlows:
    """Flows from frames to their neighbours, from files or from an LMDB: `warp(neighbour, flow)` looks like the frame.

    Args:
        root: a folder with `<clip>/<frame>_prev.flo` and `<clip>/<frame>_next.flo` (Middlebury's format) or `.npy` ((H,
            W, 2) of any float type); or an LMDB written by scripts/data_preparation/precompute_flow.py.

    Raises:
        FrameReadError: the LMDB is incomplete or truncated, or does not hold flows.
    """

    def __init__(self, root: str | Path):
        self.root = Path(root)
        self.lmdb = FlowFiles(self.root) if (self.root / 'data.mdb').is_file() else None

    def read(self, clip: str, frame: str, neighbour: str, where: str, size: tuple[int, int]) -> np.ndarray:
        """Read one flow.

        Args:
            clip, frame, neighbour: their names in the reader of the frames.
            where: 'prev' or 'next', the side of the neighbour.
            size: expected height and width.

        Returns:
            (H, W, 2) float32, x then y, pixels.

        Raises:
            FrameReadError: the flow is missing, damaged, of another size, or has values that are no motion.
        """
        if self.lmdb:
            return self.lmdb.read(clip, frame, neighbour, size)
        what = f'flow for frame {frame!r} of clip {clip!r}'
        flow = read_flow_file(self.root / clip / f'{frame}_{where}', what)
        return checked_flow(flow, size, f'{self.root}: the {what} ({where})')
