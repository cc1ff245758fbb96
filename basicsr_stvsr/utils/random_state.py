"""Save and restore the state of all random number generators of a process."""
import random
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from basicsr.utils import get_root_logger
from torch import distributed as dist


def rng_state() -> dict[str, Any]:
    """Return the state of all random number generators, in types that load with `weights_only=True`."""
    numpy_state = np.random.get_state(legacy=False)
    keys = torch.from_numpy(numpy_state['state']['key'].astype(np.int64))
    return {
        'python': random.getstate(),
        'numpy': {**numpy_state, 'state': {**numpy_state['state'], 'key': keys}},
        'torch': torch.get_rng_state(),
        'cuda': [torch.cuda.get_rng_state(device) for device in own_gpus()],
    }


def restore_rng(state: Mapping[str, Any]) -> None:
    """Restore the generators to a state from `rng_state`. GPUs that it does not cover keep their state."""
    random.setstate(state['python'])
    keys = state['numpy']['state']['key'].numpy().astype(np.uint32)
    np.random.set_state({**state['numpy'], 'state': {**state['numpy']['state'], 'key': keys}})
    torch.set_rng_state(state['torch'])
    for device, gpu_state in zip(own_gpus(), state['cuda'], strict=False):
        torch.cuda.set_rng_state(gpu_state, device)


def check_rng(state: Mapping[str, Any]) -> None:
    """Raise an error of any type if `restore_rng` would not accept a state. Nothing is changed."""
    random.Random().setstate(state['python'])
    keys = state['numpy']['state']['key'].numpy().astype(np.uint32)
    np.random.RandomState().set_state({**state['numpy'], 'state': {**state['numpy']['state'], 'key': keys}})
    torch.Generator().set_state(state['torch'])
    if any(gpu.dtype != torch.uint8 or gpu.dim() != 1 for gpu in state['cuda']):
        raise TypeError('cuda')


def own_gpus() -> list[int]:
    """Return the GPUs that this process uses: one in a distributed job, otherwise all."""
    if not torch.cuda.is_available():
        return []
    return [torch.cuda.current_device()] if dist.is_initialized() else list(range(torch.cuda.device_count()))


def restore_rng_of_rank(states: Sequence[Mapping[str, Any]]) -> None:
    """Restore this rank's generators, if the number of ranks has not changed."""
    rank, world_size = (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)
    if len(states) == world_size:
        restore_rng(states[rank])
    else:
        get_root_logger().warning(
            f'The state was saved by {len(states)} processes, but the run now has {world_size}: the samples stay the '
            'same, but random numbers that the network draws, such as for dropout, start anew.')
