"""Brings weights of FISR's TensorFlow code into the form of `FISRNet`."""
import re
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from .fisr_arch import FISRNet


def tensorflow_name(name: str) -> str:
    """'levels.0.encoder.1.2.3.weight' -> 'FISRnet/level_1/enc/level_1/res_block/1/conv/1/w'."""
    level, module, place, kind = re.fullmatch(
        r'levels\.(\d)\.(encoder\.\d|bottleneck|decoder\.\d|fi_sr|sr)\.(.+)\.(weight|bias)', name).groups()
    part, _, number = module.partition('.')
    scope = {
        'encoder': f'enc/level_{number}', 'bottleneck': 'bottleneck', 'fi_sr': 'FI-SR', 'sr': 'SR',
        'decoder': f'dec/level_{2 - int(number or 0)}'}[part]  # theirs counts sizes, from the largest on
    if place == 'resize':
        layer = 'resize'
    else:
        first, _, second = place.removeprefix('fuse.').partition('.')
        # Within a residual block the convolutions are 1 and 3; within a head, 0, 3 and 6.
        layer = f'res_block/{int(first) - 1}/conv/{int(second) // 2}' if second else f'conv/{int(first) // 3}'
    return f'FISRnet/level_{int(level) + 1}/{scope}/{layer}/{kind[0]}'


def from_tensorflow(arrays: Mapping[str, np.ndarray], net: FISRNet) -> dict[str, Tensor]:
    """The weights of a network, from TensorFlow's variables by name; others, as Adam's, are passed over.

    Raises:
        ValueError: a variable is missing, or of another shape.
    """
    missing = [name for name in map(tensorflow_name, net.state_dict()) if name not in arrays]
    if missing:
        raise ValueError(f'{len(missing)} of {len(net.state_dict())} variables of FISR are missing, the first is '
                         f'{missing[0]}')
    state = {}
    for name, own in net.state_dict().items():
        value = torch.from_numpy(np.asarray(arrays[tensorflow_name(name)], dtype=np.float32))
        if value.dim() == 4:
            value = value.permute(3, 2, 0, 1)  # height, width, in, out -> out, in, height, width
        if value.shape != own.shape:
            raise ValueError(f'{tensorflow_name(name)} is {tuple(value.shape)} (out, in, height, width), expected '
                             f'{tuple(own.shape)}')
        if re.search(r'\.(fi_sr|sr)\.3\.', name):  # in front of the pixel shuffle, which TensorFlow orders otherwise
            value = value.unflatten(0, (4, -1)).transpose(0, 1).flatten(0, 1)
        state[name] = value.contiguous()
    return state
