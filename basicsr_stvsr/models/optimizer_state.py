"""Check an optimiser's saved state against its parameters, and match their memory layout."""
import math
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from ..config.block import shown

# What PyTorch's optimisers keep for a parameter is a number or has the parameter's shape. Adafactor uses other shapes.
SCALAR_MOMENTS = {'step', 'eta', 'mu', 'mu_product'}
ADAFACTOR_MOMENTS = {'row_var', 'col_var', 'variance'}


def check_moments(state: Mapping[str, Any], parameters: Mapping[str, Tensor], path: str) -> None:
    """Check what an optimiser has saved for each parameter, such as `exp_avg` of Adam.

    PyTorch loads tensors of any shape here. Its fused optimisers then read out of bounds, which kills the process.

    Args:
        state: `state_dict` of an optimiser.
        parameters: its parameters by name, in its order.
        path: the file, for the message.

    Raises:
        ValueError: an entry does not fit its parameter.
    """
    numbers = [number for group in state['param_groups'] for number in group['params']]
    names = dict(zip(numbers, parameters, strict=True))
    if unknown := state['state'].keys() - names.keys():
        raise ValueError(f'{path} is damaged: it holds moments of parameters {sorted(unknown)}, but its optimiser has '
                         f'only {len(names)} parameters')
    all_keys = set().union(*state['state'].values()) - ADAFACTOR_MOMENTS
    for number, moments in state['state'].items():
        name = names[number]
        if missing := all_keys - moments.keys():
            raise ValueError(f'{path} is damaged: it holds {", ".join(sorted(missing))} of other parameters, but not '
                             f'of {name}')
        for key, value in moments.items():
            check_moment(key, value, name, parameters[name], path)


def check_moment(key: str, value: Any, name: str, parameter: Tensor, path: str) -> None:
    """Raise ValueError if one entry of an optimiser's state has a wrong type or shape."""
    is_number = key in SCALAR_MOMENTS
    if not (torch.is_tensor(value) or is_number and isinstance(value, int | float) or value is None):
        raise ValueError(f'{path} is damaged: {key} of {name} is a {type(value).__name__} instead of a tensor')
    shape = () if is_number else tuple(parameter.shape)
    if torch.is_tensor(value) and tuple(value.shape) != shape and key not in ADAFACTOR_MOMENTS:
        raise ValueError(f'{path} does not fit the network: {key} of {name} has the shape {tuple(value.shape)}, but '
                         f'{shape} is needed')


def check_settings(optimizer: torch.optim.Optimizer, before: Iterable[Mapping[str, Any]], path: str) -> None:
    """Check the options of an optimiser, such as `lr` and `betas`, after loading those of a file.

    Raises:
        ValueError: an option is missing or of another type than before.
    """
    for own, loaded in zip(before, optimizer.param_groups, strict=True):
        for name, value in own.items():
            if name == 'params':
                continue
            if name not in loaded or not is_alike(loaded[name], value):
                seen = shown(loaded[name]) if name in loaded else 'missing'
                raise ValueError(f'{path} is damaged, or of another optimiser: {name} is {seen}, but {shown(value)} '
                                 'before')


def is_alike(value: Any, own: Any) -> bool:
    """Return whether an option can replace another: finite numbers for numbers, and as many; None for flags."""
    if isinstance(own, tuple | list):
        return isinstance(value, tuple | list) and len(value) == len(own) and all(map(is_alike, value, own))
    if isinstance(own, bool) or own is None:
        return isinstance(value, bool | None)
    if isinstance(own, int | float) or torch.is_tensor(own):
        is_number = isinstance(value, int | float) and not isinstance(value, bool) or torch.is_tensor(value)
        return is_number and math.isfinite(value)
    return type(value) is type(own)


def match_layout(optimizer: torch.optim.Optimizer) -> None:
    """Store the moments in the memory layout of their parameters, since the fused Adam reads both as flat arrays."""
    for parameter, state in optimizer.state.items():
        for name, value in state.items():
            if isinstance(value, Tensor) and value.shape == parameter.shape:
                state[name] = torch.empty_like(parameter, dtype=value.dtype).copy_(value)


def group_sizes(states: Iterable[Mapping[str, Any]]) -> list[list[int]]:
    """Return the number of parameters of each group of each optimiser."""
    return [[len(group['params']) for group in state['param_groups']] for state in states]
