"""Convert weights of FISR's TensorFlow code for `FISRNet`."""
import re
from collections.abc import Iterable, Mapping

import numpy as np
import torch
from torch import Tensor

from basicsr_stvsr.archs.fisr_arch import FISRNet

# Number of names of each kind in an error message
LISTED = 5


def tensorflow_name(name: str) -> str:
    """Return TensorFlow's name of a weight.

    For example, 'levels.0.encoder.1.2.3.weight' becomes 'FISRnet/level_1/enc/level_1/res_block/1/conv/1/w'.
    """
    parts = re.fullmatch(
        r'levels\.(\d)\.(encoder\.\d|bottleneck|decoder\.\d|fi_sr|sr)\.(.+)\.(weight|bias)', name)
    assert parts is not None, name
    level, module, place, kind = parts.groups()
    part, _, number = module.partition('.')
    scope = {
        'encoder': f'enc/level_{number}', 'bottleneck': 'bottleneck', 'fi_sr': 'FI-SR', 'sr': 'SR',
        'decoder': f'dec/level_{2 - int(number or 0)}'}[part]  # TensorFlow's code counts sizes from the largest
    if place == 'resize':
        layer = 'resize'
    else:
        first, _, second = place.removeprefix('fuse.').partition('.')
        # In a residual block the convolutions have the indices 1 and 3; in a head, 0, 3 and 6.
        layer = f'res_block/{int(first) - 1}/conv/{int(second) // 2}' if second else f'conv/{int(first) // 3}'
    return f'FISRnet/level_{int(level) + 1}/{scope}/{layer}/{kind[0]}'


def tensorflow_shape(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Convert the shape of a kernel from (out, in, height, width) to (height, width, in, out); keep that of a bias."""
    return (*shape[2:], shape[1], shape[0]) if len(shape) == 4 else tuple(shape)


def is_weight(name: str) -> bool:
    """Return whether a variable is a weight of the network, and not the step counter or a moment of Adam."""
    return name.startswith('FISRnet/') and name.rpartition('/')[2] in ('w', 'b')


def from_tensorflow(arrays: Mapping[str, np.ndarray], net: FISRNet) -> dict[str, Tensor]:
    """Return the weights of a network from TensorFlow's variables by name; other variables are ignored.

    Args:
        arrays: float32; kernels are (height, width, in, out).
        net: for names and shapes; it may be on `torch.device('meta')`.

    Raises:
        ValueError: a weight is missing, unknown, or has a wrong shape or type; the message names it.
    """
    expected = {tensorflow_name(name): tensorflow_shape(own.shape) for name, own in net.state_dict().items()}
    weights = {name: np.asarray(arrays[name]) for name in arrays if is_weight(name)}
    misfits = {name for name in expected.keys() & weights.keys()
               if weights[name].shape != expected[name] or weights[name].dtype != np.float32}
    problems = {
        'missing': [name for name in expected if name not in weights],
        'unknown': [name for name in weights if name not in expected],
        'of another shape or type': [
            f'{name} is {weights[name].dtype} {weights[name].shape}, expected float32 {expected[name]}'
            for name in expected if name in misfits],
    }
    found = [f'{len(names)} {kind}: {shortened(names)}' for kind, names in problems.items() if names]
    if found:
        raise ValueError('\n  '.join((f'these are not the {len(expected)} weights of FISR', *found)))

    state = {}
    for name in net.state_dict():
        value = torch.from_numpy(weights[tensorflow_name(name)])
        if value.dim() == 4:
            value = value.permute(3, 2, 0, 1)  # height, width, in, out -> out, in, height, width
        if re.search(r'\.(fi_sr|sr)\.3\.', name):  # before the pixel shuffle, whose channel order differs in TensorFlow
            value = value.unflatten(0, (4, -1)).transpose(0, 1).flatten(0, 1)
        state[name] = value.contiguous()
    return state


def shortened(names: Iterable[str]) -> str:
    """Join the first few names of a list that may have hundreds."""
    names = list(names)
    more = f', and {len(names) - LISTED} more' if len(names) > LISTED else ''
    return ', '.join(names[:LISTED]) + more
