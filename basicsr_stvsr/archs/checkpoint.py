"""Loads published weights from a local file; whatever is wrong with the file is told in one error."""
import hashlib
import re
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from basicsr.utils import get_root_logger
from torch import Tensor, nn


def sha256_of(path: str | Path) -> str:
    with open(path, 'rb') as file:
        return hashlib.file_digest(file, 'sha256').hexdigest()


def check_sha256_option(sha256: str) -> None:
    """Raises ValueError where it is not what options call a sha256."""
    if not re.fullmatch('[0-9a-f]{8,64}', sha256):
        raise ValueError(f'sha256 must be the first 8 to 64 hex digits, in lower case, but is {sha256!r}')


def check_sha256(path: str | Path, sha256: str, expected: str) -> None:
    """Compares a file with the first digits of its sha256.

    Args:
        path: local file, which exists.
        sha256: the digits.
        expected: what the file should hold, for messages.

    Raises:
        ValueError: the file has another sha256.
    """
    digest = sha256_of(path)
    if not digest.startswith(sha256):
        raise ValueError(
            f'{path} is damaged or another file: its sha256 is {digest}, not {sha256}; expected {expected}')


def check_hash(path: str | Path) -> None:
    """Compares a published file, `<Method>_<train set>_x<scale>-<8 hex digits>.pth`, with its sha256.

    The digits are the first ones of the sha256, as in BasicSR's zoo; a file that is not named so passes.

    Raises:
        ValueError: the file is not the one that was given this name.
    """
    match = re.search(r'_x\d+-([0-9a-f]{8})\.pth$', str(path))
    if match is None or not Path(path).is_file():  # whoever reads a missing file says so, and what was expected
        return
    digest = sha256_of(path)
    if not digest.startswith(match[1]):
        raise ValueError(f'{path} is damaged or was changed: its sha256 begins with {digest[:8]}, not {match[1]}')


def load_file(path: str | Path, expected: str) -> Any:
    """`torch.load` of tensors and plain values, without running code from the file.

    Args:
        path: local file.
        expected: what the file should hold, for messages.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is no such PyTorch file; one line says what it is instead.
    """
    path = Path(path).expanduser()
    if not path.is_file():
        seen = 'is a folder' if path.is_dir() else 'does not exist'
        raise FileNotFoundError(f'{path} {seen}; expected {expected}')
    try:
        return torch.load(path, map_location='cpu', weights_only=True)
    except Exception as error:  # what torch.load raises depends on the byte at which it stumbles
        raise ValueError(f'{path} {describe(path)}; expected {expected}') from error


def describe(path: Path) -> str:
    """What a file is that torch.load refuses, as far as its first bytes tell."""
    with open(path, 'rb') as file:
        head = file.read(200)
    size = path.stat().st_size
    if not size:
        return 'is empty'
    text = head.lstrip().lower()
    if text.startswith((b'<!doctype', b'<html', b'<?xml', b'<head')):
        return 'is a web page, as one gets by saving the page about a file instead of the file'
    if text.startswith(b'version https://git-lfs'):
        return 'is a pointer of Git LFS; `git lfs pull` fetches the file itself'
    if head.startswith(b'PK') and not zipfile.is_zipfile(path):
        return f'is cut off after {size:,} bytes: its end is missing'
    if head.startswith((b'PK', b'\x80')):
        return 'is a PyTorch file that is damaged, or holds more than tensors and plain values, which is not loaded'
    return f'is no PyTorch file: it begins with {head[:16]!r}'


def read_state_dict(path: str | Path, *, what: str, published: str | None = None,
                    keys: Sequence[str] = ('params_ema', 'params', 'state_dict')) -> dict[str, Tensor]:
    """Reads the weights in a checkpoint: the file itself, or what it holds under the first of `keys` that it has.

    Args:
        path: local file.
        what: whose weights they are, for messages.
        published: where the file can be had, for messages.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is not a PyTorch checkpoint of tensors by name.
    """
    expected = f'the weights of {what}' + (f', published as {published}' if published else '')
    state = load_file(path, expected)
    for key in keys:
        if isinstance(state, dict) and isinstance(state.get(key), dict):
            state = state[key]
            break
    if not isinstance(state, dict) or not state or not all(isinstance(value, Tensor) for value in state.values()):
        is_block = isinstance(state, dict)
        holds = f'a block of {", ".join(map(str, list(state)[:6]))}' if is_block else type(state).__name__
        raise ValueError(f'{path} holds no tensors by name, but {holds}; expected {expected}')
    # DataParallel prefixes every name.
    return {name.removeprefix('module.'): value for name, value in state.items()}


def load_weights(module: nn.Module, state: dict[str, Tensor], *, path: str | Path, what: str,
                 strict: bool = True) -> None:
    """Loads `state`, read from `path`, where it fits to the name and to the shape.

    Args:
        strict: False: weights that do not fit are left as they are, with a warning.

    Raises:
        ValueError: a weight is missing, unknown, or of another shape; tells the first of each kind. If not strict, only
            where nothing fits.
    """
    own = module.state_dict()
    shared = own.keys() & state.keys()
    misshapen = {name for name in shared if state[name].shape != own[name].shape}
    problems = {
        'missing': sorted(own.keys() - state.keys()),
        'unknown': sorted(state.keys() - own.keys()),
        'of another shape': [
            f'{name} {tuple(state[name].shape)}, expected {tuple(own[name].shape)}' for name in sorted(misshapen)],
    }
    found = '; '.join(f'{len(names)} {kind} (first: {names[0]})' for kind, names in problems.items() if names)
    fitting = {name: state[name] for name in shared - misshapen}
    if found and (strict or not fitting):
        raise ValueError(f'{path} does not hold the weights of {what}, {len(own)} tensors: {found}')
    if found:
        get_root_logger().warning(f'{path} fits {what} in {len(fitting)} of {len(own)} tensors: {found}')
    module.load_state_dict(fitting, strict=strict)
