"""What data sets return, and what models take.

Shapes: B samples, T' LR frames, T GT frames, C channels, h x w pixels of LR frames, s = scale, P pairs of LR frames.
"""
from typing import Literal, NotRequired, TypedDict

from torch import Tensor

FlowKey = Literal['lq_flow', 'lq_flow_stride2']


class LQFlows(TypedDict, total=False):
    """Flow between LR frames, (P, 2, 2, h, w), pixels: flow_ab, then flow_ba of each pair a, b; see `LQFlow`."""

    lq_flow: Tensor
    lq_flow_stride2: Tensor


class TrainSample(LQFlows):
    """A sample of a training set; in a batch, tensors have a first dimension B, and other values are lists.

    Attributes:
        lq: (T', C, h, w) float, 0-1.
        gt: (T, C, sh, sw) float, 0-1.
        key: where the sample comes from.
        gt_start: number of the first GT frame, counted from the first LR frame.
        lq_sharp: (T', C, h, w) float, 0-1.
        flow: (T' - 1, 2, 2, sh, sw) float, pixels. For each frame t between two LR frames a and b: flow_ta and flow_tb.
        lq_warped, lq_warped_stride2: (P, 2, 3, h, w) float, 0-1: b and a of each pair, warped along half of its flows.
    """

    lq: Tensor
    gt: Tensor
    key: str
    gt_start: NotRequired[int]
    lq_sharp: NotRequired[Tensor]
    flow: NotRequired[Tensor]
    lq_warped: NotRequired[Tensor]
    lq_warped_stride2: NotRequired[Tensor]


class Batch(LQFlows):
    """Collated samples, see `TrainSample`."""

    lq: Tensor
    gt: Tensor
    key: NotRequired[list[str]]  # BasicSR's data sets may lack it
    lq_sharp: NotRequired[Tensor]
    flow: NotRequired[Tensor]
    lq_warped: NotRequired[Tensor]
    lq_warped_stride2: NotRequired[Tensor]


class Clip(TypedDict):
    """A whole clip of a validation or test set, ours or BasicSR's.

    Attributes:
        lq: (T', C, h, w) float, 0-1.
        lq_chroma: (T', 2, h, w) float, 0-1: U and V of the LR frames, if the clip is luma.
        gt: (U, C, sh, sw) float, 0-1.
        gt_start: number of the first GT frame, counted from the first LR frame.
        lq_flow: (T' - 1, 2, 2, h, w) float, pixels, see `LQFlow`.
        key, folder: the name of the clip.
        frame_names: names of the output frames.
    """

    lq: Tensor
    lq_chroma: NotRequired[Tensor]
    gt: NotRequired[Tensor]
    gt_start: NotRequired[int]
    lq_flow: NotRequired[Tensor]
    key: NotRequired[str]
    folder: NotRequired[str]
    frame_names: NotRequired[list[str]]
