"""Multiplications and parameters of networks, counted by mmengine.analysis.

    python -m basicsr_stvsr.openmmlab.complexity

prints a Markdown table of the zoo. What mmengine calls a FLOP is a multiplication with its addition. It counts
convolutions, matrix products, normalisation, bilinear resizing and sampling along a flow (four a value), and nothing
for activations, sums, products, bicubic resizing, pooling and operators of this package's own, such as MBNet's
pixel-adaptive convolution.
"""
from typing import NamedTuple

import torch
from basicsr.archs import build_network
from mmengine.analysis import FlopAnalyzer, parameter_count
from torch import Tensor, nn

from ..inference.windows import check_needs
from ..zoo.info import MEASURED_SIZE, facts_of_model, measured_frames
from ..zoo.table import ZOO


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
    check_needs(net)
    if any(side % net.size_multiple for side in size):
        raise ValueError(f'{type(net).__name__} takes sides divisible by {net.size_multiple}, but size is '
                         f'{size[0]}x{size[1]}')
    inputs = inputs_of(net, size)
    analyzer = FlopAnalyzer(net.eval(), inputs)
    analyzer.unsupported_ops_warnings(False).uncalled_modules_warnings(False).tracer_warnings('none')
    return Complexity(inputs[0].shape[1], parameter_count(net)[''], analyzer.total(), analyzer.by_operator()['conv'],
                      tuple(sorted(analyzer.unsupported_ops())))


def inputs_of(net: nn.Module, size: tuple[int, int]) -> tuple[Tensor, ...]:
    """What a network takes: one window of frames, with the flow between them where it needs that."""
    num_frames = measured_frames(net)
    lq = torch.zeros(1, num_frames, 1 if getattr(net, 'color', None) == 'y' else 3, *size)
    return net.inputs(lq, torch.zeros(1, num_frames - 1, 2, 2, *size)) if getattr(net, 'needs_flow', False) else (lq,)


def zoo_table() -> str:
    """The zoo as a Markdown table: counts of mmengine, and of `stvsr info` beside them."""
    rows = ['| model | network | given, LR frames | parameters | GFLOPs, mmengine | of these convolutions | '
            'GMACs, stvsr info |', '|---|---|---|---|---|---|---|']
    h, w = MEASURED_SIZE
    for name, entry in ZOO.items():
        net = build_network(dict(entry.network)).eval().requires_grad_(False)
        found, facts = complexity(net), facts_of_model(net, name, None)
        cells = [f'`{name}`', type(net).__name__, f'{found.frames} of {w}x{h}', f'{found.parameters:,}',
                 f'{found.flops / 1e9:.3f}', f'{found.flops_of_convolutions / 1e9:.3f}', f'{facts["gmacs"]:.3f}']
        rows.append(f'| {" | ".join(cells)} |')
    return '\n'.join(rows)


if __name__ == '__main__':
    print(zoo_table())
