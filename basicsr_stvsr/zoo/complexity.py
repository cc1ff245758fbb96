"""Multiplications and parameters of networks, counted by mmengine.analysis.

What mmengine calls a FLOP is a multiplication with its addition. It counts convolutions, matrix products,
normalisation, bilinear resizing and sampling along a flow (four a value), and nothing for activations, sums, products,
bicubic resizing, pooling and operators of this package's own, such as MBNet's pixel-adaptive convolution.
"""
from typing import NamedTuple

import torch
from mmengine.analysis import FlopAnalyzer, parameter_count
from torch import Tensor, nn

from ..archs.spec import spec_of
from .info import MEASURED_SIZE, measured_frames


class Complexity(NamedTuple):
    """What mmengine finds of one pass of a network."""

    frames: int  # that it is given
    parameters: int
    flops: float
    flops_of_convolutions: float
    uncounted: tuple[str, ...]  # operators of torch that count nothing


def complexity(net: nn.Module, size: tuple[int, int] = MEASURED_SIZE) -> Complexity:
    """Counts one window of a network, or the first frame of a recurrent one.

    Args:
        net: a network that states its needs.
        size: height and width of the frames given to it, divisible by its size_multiple.

    Raises:
        ValueError: it does not state its needs, or the size does not fit.
    """
    multiple = spec_of(net).size_multiple
    if any(side % multiple for side in size):
        raise ValueError(f'{type(net).__name__} takes sides divisible by {multiple}, but size is '
                         f'{size[0]}x{size[1]}')
    inputs = inputs_of(net, size)
    analyzer = FlopAnalyzer(net.eval(), inputs)
    analyzer.unsupported_ops_warnings(False).uncalled_modules_warnings(False).tracer_warnings('none')
    return Complexity(inputs[0].shape[1], parameter_count(net)[''], analyzer.total(), analyzer.by_operator()['conv'],
                      tuple(sorted(analyzer.unsupported_ops())))


def inputs_of(net: nn.Module, size: tuple[int, int]) -> tuple[Tensor, ...]:
    """What a network takes: one window of frames, with the flow between them where it needs that."""
    spec = spec_of(net)
    num_frames = measured_frames(spec)
    lq = torch.zeros(1, num_frames, spec.num_channels, *size)
    return net.inputs(lq, torch.zeros(1, num_frames - 1, 2, 2, *size)) if spec.needs_flow else (lq,)
