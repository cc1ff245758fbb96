"""Flow between the LR frames of a sample, from an estimator or from files.

Shapes: T LR frames, P pairs of them, h x w pixels of LR frames.
"""
from collections.abc import Iterable, Sequence

import numpy as np
import torch
from torch import Tensor

from ..flow import FlowEstimator, StoredFlow
from ..io.color_spaces import Color, convert_frame
from .items import FlowKey

KEYS: dict[int, FlowKey] = {1: 'lq_flow', 2: 'lq_flow_stride2'}  # by stride


def flow_pairs(num_frames: int, stride: int = 1) -> list[tuple[int, int]]:
    """Return the frame numbers of each flow: both directions of every pair `stride` apart, end to end."""
    starts = range(0, num_frames - stride, stride)
    return [pair for start in starts for pair in ((start, start + stride), (start + stride, start))]


class LQFlow:
    """The flow that a data set's `flow_opt` provides.

    Args:
        source: an estimator or stored flows.
        color: colour space of the frames.
        strides: which pairs of frames to use, see `flow_pairs`.
    """

    def __init__(self, source: FlowEstimator | StoredFlow, color: Color, strides: Sequence[int] = (1,)):
        self.source, self.color, self.strides = source, color, strides
        self.is_stored = isinstance(source, StoredFlow)

    def pairs(self, num_frames: int) -> list[tuple[int, int]]:
        return [pair for stride in self.strides for pair in flow_pairs(num_frames, stride)]

    def read(self, clip: str, names: Sequence[str], size: tuple[int, int]) -> list[np.ndarray]:
        """Read the flows of whole frames, (h, w, 2) each, by the names of the frames.

        Raises:
            FrameReadError: a flow is missing, damaged, or of another size than the frames.
        """
        source = self.source
        assert isinstance(source, StoredFlow)  # see `is_stored`
        return [source.read(clip, names[first], names[second], size) for first, second in self.pairs(len(names))]

    def estimate(self, frames: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Estimate the flows of frames or crops, uint8 (h, w, 3) in OpenCV's layout."""
        source = self.source
        assert not isinstance(source, StoredFlow)
        frames = [convert_frame(frame, self.color, 'rgb') for frame in frames]
        return [source(frames[first], frames[second]) for first, second in self.pairs(len(frames))]

    def to_sample(self, flows: Sequence[np.ndarray], num_frames: int) -> dict[FlowKey, Tensor]:
        """Return (P, 2, 2, h, w) for each stride, by its key: flow_ab, then flow_ba of each pair; x, then y."""
        sample: dict[FlowKey, Tensor] = {}
        flows = list(flows)
        for stride in self.strides:
            num = len(flow_pairs(num_frames, stride))
            sample[KEYS[stride]], flows = flow_tensor(flows[:num]), flows[num:]
        return sample


def flow_tensor(flows: Iterable[np.ndarray]) -> Tensor:
    """Stack pairs of flows, (h, w, 2) each -> (P, 2, 2, h, w)."""
    clip = np.stack(list(flows)).transpose(0, 3, 1, 2)
    return torch.from_numpy(np.ascontiguousarray(clip)).unflatten(0, (-1, 2))
