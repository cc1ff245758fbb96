"""How a training leaves itself on disk, and finds itself there again.

Every file is written whole or not at all, and the training state last: where it is, the weights that belong to it are
too, and it holds their sha256.
"""
import hashlib
import io
import os
import random
import re
import shutil
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch
from basicsr.utils import check_resume, get_root_logger
from torch import Tensor
from torch import distributed as dist

from .archs.checkpoint import load_file, sha256_of
from .utils.distributed import on_first_rank

# Of every training state, BasicSR's included
NEEDED_KEYS = {'epoch', 'iter', 'optimizers', 'schedulers'}

# What PyTorch's optimisers keep of a parameter is a number, or has the parameter's shape; Adafactor has its own shapes.
SCALAR_MOMENTS = {'step', 'eta', 'mu', 'mu_product'}
ADAFACTOR_MOMENTS = {'row_var', 'col_var', 'variance'}


class CheckpointError(RuntimeError):
    """A checkpoint could not be written; those written before are as they were."""


# ---------------------------------------------------------------- writing

def write_whole(path: str | Path, content: Mapping[str, Any]) -> str:
    """`torch.save` that leaves either the whole new file or what was there before, whatever happens meanwhile.

    BasicSR writes in place, and after three errors gives up with a warning.

    Returns:
        sha256 of the file, in hex.

    Raises:
        CheckpointError: the disk is full, the folder cannot be written, ...
    """
    path = Path(path)
    buffer = io.BytesIO()
    torch.save(content, buffer)
    data = buffer.getbuffer()
    try:
        replace_file(path, data)
    except OSError as error:
        raise CheckpointError(f'{path} cannot be written: {error.strerror or error}{room(path.parent, len(data))}. '
                              'The checkpoints before it are whole; --auto_resume goes on from the newest') from error
    return hashlib.sha256(data).hexdigest()


def replace_file(path: Path, data: bytes | memoryview) -> None:
    """Writes a file whole, or leaves what was there and raises OSError."""
    temporary = path.with_name(f'{path.name}.tmp')
    try:
        with open(temporary, 'wb') as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
        sync_folder(path.parent)
    except OSError:
        with suppress(OSError):
            temporary.unlink()
        raise


def sync_folder(folder: Path) -> None:
    """Makes the renaming itself last through a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def room(folder: Path, size: int) -> str:
    """What was needed and what is free, in words; empty where the folder does not tell."""
    with suppress(OSError):
        return f' ({size / 2**20:,.1f} MiB needed, {shutil.disk_usage(folder).free / 2**20:,.1f} MiB free there)'
    return ''


# ---------------------------------------------------------------- random numbers

def rng_state() -> dict[str, Any]:
    """State of all random number generators of this process, in types that load with `weights_only=True`."""
    numpy_state = np.random.get_state(legacy=False)
    keys = torch.from_numpy(numpy_state['state']['key'].astype(np.int64))
    return {
        'python': random.getstate(),
        'numpy': {**numpy_state, 'state': {**numpy_state['state'], 'key': keys}},
        'torch': torch.get_rng_state(),
        'cuda': [torch.cuda.get_rng_state(device) for device in own_gpus()],
    }


def restore_rng(state: Mapping[str, Any]) -> None:
    """Undoes all drawing since `rng_state`; GPUs that were not there then go on as they are."""
    random.setstate(state['python'])
    keys = state['numpy']['state']['key'].numpy().astype(np.uint32)
    np.random.set_state({**state['numpy'], 'state': {**state['numpy']['state'], 'key': keys}})
    torch.set_rng_state(state['torch'])
    for device, gpu_state in zip(own_gpus(), state['cuda'], strict=False):
        torch.cuda.set_rng_state(gpu_state, device)


def own_gpus() -> list[int]:
    """The GPUs that this process works on: one in a distributed job, else all."""
    if not torch.cuda.is_available():
        return []
    return [torch.cuda.current_device()] if dist.is_initialized() else list(range(torch.cuda.device_count()))


def restore_rng_of_rank(states: list[Mapping[str, Any]]) -> None:
    """Restores this rank's generators, if there are as many ranks as when the states were taken."""
    rank, world_size = (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)
    if len(states) == world_size:
        restore_rng(states[rank])
    else:
        get_root_logger().warning(
            f'The state was saved by {len(states)} processes and goes on with {world_size}: the samples are the same, '
            'but what the network itself draws, such as dropout, starts anew.')


# ---------------------------------------------------------------- finding it again

def find_resume_state(opt: dict[str, Any]) -> dict[str, Any] | None:
    """Loads the training state to go on from, and points `opt` to the weights that belong to it.

    With --auto_resume it is the newest one of the experiment that is whole and has its weights; others are named in a
    warning. Where there is none, or without the flag, it is `path.resume_state`, if any. To be called on all ranks: the
    first one chooses.

    Raises:
        FileNotFoundError, ValueError: `path.resume_state` cannot be gone on from; one line says why.
    """
    path = on_first_rank(lambda: choose_state(opt))
    if path is None:
        return None
    opt['path']['resume_state'] = path
    state = load_file(path, 'a training state')
    check_resume(opt, state['iter'])
    return state


def choose_state(opt: Mapping[str, Any]) -> str | None:
    if opt['auto_resume']:
        for path in saved_states(Path(opt['path']['training_states'])):
            try:
                check_state(path, opt)
                return str(path)
            except (OSError, ValueError) as error:
                get_root_logger().warning(f'--auto_resume passes over {path}: {error}')
    path = opt['path'].get('resume_state')
    if path:
        try:
            check_state(Path(path), opt)
        except (OSError, ValueError) as error:
            raise type(error)(f'path.resume_state: {error}') from error
    return path or None


def saved_states(folder: Path) -> list[Path]:
    """The training states of a folder, newest first."""
    if not folder.is_dir():
        return []
    states = [path for path in folder.iterdir() if re.fullmatch(r'\d+\.state', path.name)]
    return sorted(states, key=lambda path: int(path.stem), reverse=True)


def check_state(path: Path, opt: Mapping[str, Any]) -> None:
    """Raises ValueError or FileNotFoundError where a training cannot go on from this state."""
    state = load_file(path, 'a training state')
    if not isinstance(state, dict) or not NEEDED_KEYS <= state.keys():
        raise ValueError(f'{path} holds no training state: expected a block of {", ".join(sorted(NEEDED_KEYS))}')
    ignored = opt['path'].get('ignore_resume_networks') or []
    for network in [key for key in opt if key.startswith('network_') and key not in ignored]:
        label = network.replace('network_', 'net_')
        weights = Path(opt['path']['models']) / f'{label}_{state["iter"]}.pth'
        if not weights.is_file():
            raise FileNotFoundError(f'{path} belongs to {weights}, which does not exist{advice(path, opt)}')
        saved = state.get('networks', {}).get(label)  # BasicSR's own states have none
        if saved and sha256_of(weights) != saved:
            raise ValueError(f'{weights} is damaged, or not the file that was saved with {path}{advice(path, opt)}')


def check_moments(state: Mapping[str, Any], parameters: Mapping[str, Tensor], path: str) -> None:
    """Check what an optimiser has kept of each parameter, such as `exp_avg` of Adam.

    PyTorch loads tensors of any shape here, and its fused optimisers then read out of bounds, which ends the process.

    Args:
        state: `state_dict` of an optimiser.
        parameters: the parameters that it is for, by name, in its order.
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
    """Raise ValueError where one entry of an optimiser's state has a wrong type or shape."""
    is_number = key in SCALAR_MOMENTS
    if not (torch.is_tensor(value) or is_number and isinstance(value, int | float) or value is None):
        raise ValueError(f'{path} is damaged: {key} of {name} is a {type(value).__name__} instead of a tensor')
    shape = () if is_number else tuple(parameter.shape)
    if torch.is_tensor(value) and tuple(value.shape) != shape and key not in ADAFACTOR_MOMENTS:
        raise ValueError(f'{path} does not fit the network: {key} of {name} has the shape {tuple(value.shape)}, but '
                         f'{shape} is needed')


def advice(path: Path, opt: Mapping[str, Any]) -> str:
    if path.parent.resolve() == Path(opt['path']['training_states']).resolve():
        return ''
    return (f'. The state lies outside of this experiment, {opt["path"]["experiments_root"]}: to go on with another '
            'one, set `name` or path.experiments_root to it; to begin anew with its weights, use '
            'path.pretrain_network_g')
