"""Loads published weights from a local file; whatever is wrong with the file is told in one error."""
import hashlib
import re
from pathlib import Path

import torch
from torch import Tensor, nn


def check_hash(path: str | Path) -> None:
    """Compares a published file, `<Method>_<train set>_x<scale>-<8 hex digits>.pth`, with its sha256.

    The digits are the first ones of the sha256, as in BasicSR's zoo; a file that is not named so passes.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is not the one that was given this name.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f'weights {path} do not exist')
    match = re.search(r'_x\d+-([0-9a-f]{8})\.pth$', str(path))
    if match is None:
        return
    with open(path, 'rb') as file:
        digest = hashlib.file_digest(file, 'sha256').hexdigest()
    if not digest.startswith(match[1]):
        raise ValueError(f'{path} is damaged or was changed: its sha256 begins with {digest[:8]}, not {match[1]}')


def read_state_dict(path: str, *, what: str, published: str) -> dict[str, Tensor]:
    """Reads the weights in a checkpoint: the file itself, or what it holds as 'params_ema', 'params' or 'state_dict'.

    Args:
        path: local file.
        what: whose weights they are, for messages.
        published: where the file can be had, for messages.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is not a PyTorch checkpoint of tensors by name.
    """
    hint = f'expected are the weights of {what}, published as {published}'
    if not Path(path).is_file():
        raise FileNotFoundError(f'{path} does not exist; {hint}')
    try:
        state = torch.load(path, map_location='cpu', weights_only=True)
    except Exception as error:  # what torch.load raises depends on the byte at which it stumbles
        raise ValueError(f'{path} cannot be read as a PyTorch checkpoint ({type(error).__name__}); {hint}') from error
    for key in ('params_ema', 'params', 'state_dict'):
        if isinstance(state, dict) and isinstance(state.get(key), dict):
            state = state[key]
            break
    if not isinstance(state, dict) or not state or not all(isinstance(value, Tensor) for value in state.values()):
        raise ValueError(f'{path} holds no tensors by name; {hint}')
    # DataParallel prefixes every name.
    return {name.removeprefix('module.'): value for name, value in state.items()}


def load_weights(module: nn.Module, state: dict[str, Tensor], *, path: str, what: str) -> None:
    """Loads `state`, read from `path`, where it fits to the name and to the shape.

    Raises:
        ValueError: a weight is missing, unknown, or of another shape; tells the first of each kind.
    """
    own = module.state_dict()
    shared = own.keys() & state.keys()
    problems = {
        'missing': sorted(own.keys() - state.keys()),
        'unknown': sorted(state.keys() - own.keys()),
        'of another shape': sorted(
            f'{name} {tuple(state[name].shape)}, expected {tuple(own[name].shape)}'
            for name in shared if state[name].shape != own[name].shape
        ),
    }
    found = [f'{len(names)} {kind} (first: {names[0]})' for kind, names in problems.items() if names]
    if found:
        raise ValueError(f'{path} does not hold the weights of {what}: ' + '; '.join(found))
    module.load_state_dict(state)
