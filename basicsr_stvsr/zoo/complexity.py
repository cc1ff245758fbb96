"""Count multiplications and parameters of networks with mmengine.analysis.

mmengine counts a multiplication with its addition as one FLOP. It counts convolutions, matrix products, normalisation,
bilinear resizing and sampling along a flow (four per value). It ignores activations, sums, products, bicubic resizing,
pooling and custom operators of this package, such as MBNet's pixel-adaptive convolution.
"""
from typing import NamedTuple, cast

import torch
from mmengine.analysis import FlopAnalyzer, parameter_count
from torch import Tensor, nn

from ..archs.spec import Network, spec_of
from .info import MEASURED_SIZE, measured_frames


class Complexity(NamedTuple):
    """Complexity of one forward pass, as counted by mmengine."""

    frames: int  # input frames
    parameters: int
    flops: float
    flops_of_convolutions: float
    uncounted: tuple[str, ...]  # torch operators that mmengine does not count


def complexity(net: nn.Module, size: tuple[int, int] = MEASURED_SIZE) -> Complexity:
    """Count one window of a network, or the first frame for a recurrent one.

    Args:
        net: a network with a `spec`.
        size: height and width of the input frames, divisible by its size_multiple.

    Raises:
        ValueError: the network has no `spec`, or the size does not fit.
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
    """Return zero inputs for a network: one window of frames, with the flow between them if needed."""
    spec = spec_of(net)
    num_frames = measured_frames(spec)
    lq = torch.zeros(1, num_frames, spec.num_channels, *size)
    if not spec.needs_flow:
        return (lq,)
    return cast(Network, net).inputs(lq, torch.zeros(1, num_frames - 1, 2, 2, *size))
