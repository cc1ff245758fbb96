"""The flow between the LR frames of a sample, from an estimator or from files.

Shapes: T LR frames, P pairs of them, h x w pixels of theirs.
"""
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from ..flow import FlowEstimator, StoredFlow
from ..io.color import Color, convert_frame

KEYS = {1: 'lq_flow', 2: 'lq_flow_stride2'}  # by stride


def flow_pairs(num_frames: int, stride: int = 1) -> list[tuple[int, int]]:
    """Numbers of the frames between which there is flow: both directions of each pair `stride` apart, end to end."""
    starts = range(0, num_frames - stride, stride)
    return [pair for start in starts for pair in ((start, start + stride), (start + stride, start))]


class LQFlow:
    """What a data set's `flow_opt` gives for its samples.

    Args:
        source: an estimator or stored flows.
        color: colour space of the frames.
        strides: which pairs of frames are wanted, see `flow_pairs`.
    """

    def __init__(self, source: FlowEstimator | StoredFlow, color: Color, strides: Sequence[int] = (1,)):
        self.source, self.color, self.strides = source, color, strides
        self.is_stored = isinstance(source, StoredFlow)

    def pairs(self, num_frames: int) -> list[tuple[int, int]]:
        return [pair for stride in self.strides for pair in flow_pairs(num_frames, stride)]

    def read(self, clip: str, names: Sequence[str], size: tuple[int, int]) -> list[np.ndarray]:
        """The flows of whole frames, (h, w, 2) each, by the names of the frames.

        Raises:
            FrameReadError: a flow is missing, damaged, or not of the size of the frames.
        """
        return [self.source.read(clip, names[first], names[second], size) for first, second in self.pairs(len(names))]

    def estimate(self, frames: Sequence[np.ndarray]) -> list[np.ndarray]:
        """The flows of frames, or of crops of them, uint8 (h, w, 3) as OpenCV has them."""
        frames = [convert_frame(frame, self.color, 'rgb') for frame in frames]
        return [self.source(frames[first], frames[second]) for first, second in self.pairs(len(frames))]

    def to_sample(self, flows: Sequence[np.ndarray], num_frames: int) -> dict[str, Tensor]:
        """(P, 2, 2, h, w) for each stride by its key: of each pair the flow forward, then backward; x, then y."""
        sample, flows = {}, list(flows)
        for stride in self.strides:
            num = len(flow_pairs(num_frames, stride))
            sample[KEYS[stride]], flows = flow_tensor(flows[:num]), flows[num:]
        return sample


def flow_tensor(flows: Sequence[np.ndarray]) -> Tensor:
    """Flows two and two, (h, w, 2) each -> (P, 2, 2, h, w)."""
    clip = np.stack(flows).transpose(0, 3, 1, 2)
    return torch.from_numpy(np.ascontiguousarray(clip)).unflatten(0, (-1, 2))
