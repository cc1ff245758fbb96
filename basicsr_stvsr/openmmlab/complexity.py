"""Print a Markdown table of multiplications and parameters of the zoo, counted by mmengine; see `zoo.complexity`.

    python -m basicsr_stvsr.openmmlab.complexity
"""
from basicsr.archs import build_network

from ..zoo.complexity import complexity
from ..zoo.info import MEASURED_SIZE, facts_of_model
from ..zoo.table import ZOO


def zoo_table() -> str:
    """Return the zoo as a Markdown table, with the counts of mmengine and of `stvsr info`."""
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
