"""Load published weights from local files, with one error message for anything wrong with a file.

No code from a file is ever run: torch.load reads only tensors and plain values from pickles, and safetensors contains
nothing else. Checksums in a file are verified, see `archive`, and only finite numbers of the network's types load.
"""
import hashlib
import re
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from basicsr.utils.logger import get_root_logger
from torch import Tensor, nn

from ..config.block import shortened
from .archive import ArchiveError, check_archive, check_content, describe, digest_of

# Keys of the weights in training checkpoints, in order of preference
LAYOUTS = 'params_ema', 'params', 'state_dict'
# DataParallel's prefix of every name
WRAPPER = 'module.'
FLOATS = torch.float16, torch.bfloat16, torch.float32, torch.float64
INTEGERS = torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64
NAMED_BY_HASH = re.compile(r'_x\d+-([0-9a-f]{8})\.(pth|safetensors)$')


def sha256_of(path: str | Path) -> str:
    with open(path, 'rb') as file:
        return hashlib.file_digest(file, 'sha256').hexdigest()


def check_sha256_option(sha256: str) -> None:
    """Raise ValueError unless `sha256` has the format that options expect."""
    if not re.fullmatch('[0-9a-f]{8,64}', sha256):
        raise ValueError(f'sha256 must be the first 8 to 64 hex digits, in lower case, but is {sha256!r}')


def check_sha256(path: str | Path, sha256: str, expected: str) -> None:
    """Compare a file with the first digits of its sha256.

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
    """Compare a published file, `<Method>_<train set>_x<scale>-<8 hex digits>.pth` or .safetensors, with its sha256.

    The digits are the first ones of the sha256, as in BasicSR's zoo. Files with other names pass.

    Raises:
        ValueError: the file is not the one that was published under this name.
    """
    match = NAMED_BY_HASH.search(str(path))
    if match is None or not Path(path).is_file():  # the code that reads the file reports a missing one
        return
    digest = sha256_of(path)
    if not digest.startswith(match[1]):
        raise ValueError(f'{path} is damaged or was changed: its sha256 begins with {digest[:8]}, not {match[1]}')


def load_file(path: str | Path, expected: str) -> Any:
    """Load tensors and plain values by `torch.load`, without running code from the file; reads .safetensors as well.

    Args:
        path: local file.
        expected: what the file should hold, for messages.

    Raises:
        FileNotFoundError: the file does not exist.
        ValueError: the file has another format; the message describes it in one line. Or safetensors is not installed.
    """
    path = Path(path).expanduser()
    if not path.is_file():
        seen = 'is a folder' if path.is_dir() else 'does not exist'
        raise FileNotFoundError(f'{path} {seen}; expected {expected}')
    if path.suffix == '.safetensors':
        return load_safetensors(path, expected)
    try:
        has_checksum = check_archive(path)
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')  # about sparse and nested tensors, which `tensors_by_name` refuses
            content = torch.load(path, map_location='cpu', weights_only=True)
        check_content(content)
    except ArchiveError as error:
        raise ValueError(f'{path} {error}; expected {expected}') from error
    except Exception as error:  # the error of torch.load depends on the byte where it fails
        raise ValueError(f'{path} {describe(path)}; expected {expected}') from error
    if not has_checksum:
        note_missing_checksum(path)
    return content


def load_safetensors(path: Path, expected: str) -> dict[str, Tensor]:
    """Load the tensors of a .safetensors file, by name.

    Raises:
        ValueError: it is not such a file, or is damaged; or safetensors is not installed.
    """
    safetensors, _ = import_safetensors()
    try:
        with safetensors.safe_open(path, 'pt') as file:
            checksum = (file.metadata() or {}).get('sha256')
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  (not iterable itself)
    except safetensors.SafetensorError as error:
        raise ValueError(f'{path} is no safetensors file, or is damaged ({error}); expected {expected}') from error
    if checksum is None:
        note_missing_checksum(path)
    elif checksum != digest_of(tensors):
        raise ValueError(f'{path} is damaged: its tensors differ from its checksum; expected {expected}')
    return tensors


def note_missing_checksum(path: Path) -> None:
    if NAMED_BY_HASH.search(path.name) is None:  # `check_hash` verifies it
        get_root_logger().info(f'{path} has no checksum, so damaged values in it would go unnoticed')


def import_safetensors() -> tuple[Any, Any]:
    """Return safetensors, and its part that writes PyTorch's tensors.

    Raises:
        ValueError: it is not installed.
    """
    try:
        import safetensors
        import safetensors.torch
    except ImportError as error:
        raise ValueError('.safetensors is read and written by the package safetensors, which is not installed: '
                         "pip install 'basicsr_stvsr[safetensors]', or pip install safetensors") from error
    return safetensors, safetensors.torch


def read_state_dict(path: str | Path, *, what: str, published: str | None = None,
                    keys: Sequence[str] = LAYOUTS) -> dict[str, Tensor]:
    """Read the weights in a checkpoint: the first of the blocks `keys` or `LAYOUTS` that it has, or the whole file.

    If the layout differs from BasicSR's, a line in the log explains what was read.

    Args:
        path: local file.
        what: the network whose weights they are, for messages.
        published: where the file is published, for messages; its layout is known, so nothing is logged.
        keys: the blocks to look for first; () expects the weights alone.

    Raises:
        FileNotFoundError: the file does not exist.
        ValueError: the file is not a checkpoint of tensors by name.
    """
    return read_block(path, what=what, published=published, keys=keys)[0]


def read_block(path: str | Path, *, what: str, published: str | None = None,
               keys: Sequence[str] = LAYOUTS) -> tuple[dict[str, Tensor], str | None]:
    """Like `read_state_dict`, and return the name of the block, or None for the whole file."""
    expected = f'the weights of {what}' + (f', published as {published}' if published else '')
    return block_of(load_file(path, expected), path, expected, keys, is_known=bool(published))


def block_of(content: Any, path: str | Path, expected: str, keys: Sequence[str] = LAYOUTS, *,
             is_known: bool = False) -> tuple[dict[str, Tensor], str | None]:
    """Return what `read_block` does from the content of a file; log its layout unless that is known."""
    key = next((key for key in (*keys, *LAYOUTS) if has_block(content, key)), None)
    state, done = tensors_by_name(content if key is None else content[key], path, expected)
    if key is None and keys and Path(path).suffix != '.safetensors':
        done.insert(0, 'took all of the file for weights, as it has no block of them')
    elif key == 'state_dict':
        done.insert(0, 'took the weights from its block state_dict')
    if done and not is_known:
        get_root_logger().warning(f'{path} is no checkpoint of BasicSR: {", and ".join(done)}')
    return state, key


def read_params(path: str | Path, *, what: str) -> dict[str, dict[str, Tensor]]:
    """Read `params` and `params_ema` of a checkpoint, if present; other layouts are read as `params`.

    Raises:
        FileNotFoundError, ValueError: see `read_state_dict`.
    """
    expected = f'the weights of {what}'
    content = load_file(path, expected)
    keys = [key for key in ('params', 'params_ema') if has_block(content, key)]
    if not keys:
        return {'params': block_of(content, path, expected)[0]}
    return {key: tensors_by_name(content[key], path, expected)[0] for key in keys}


def has_block(content: Any, key: str) -> bool:
    return isinstance(content, Mapping) and isinstance(content.get(key), Mapping)


def tensors_by_name(state: Any, path: str | Path, expected: str) -> tuple[dict[str, Tensor], list[str]]:
    """Return the tensors of a block without DataParallel's prefix, and a description of the changes.

    Raises:
        ValueError: it holds none, or something else, such as a sparse tensor.
    """
    is_block = isinstance(state, Mapping)
    if not is_block or not state or not all(
            isinstance(name, str) and isinstance(value, Tensor) for name, value in state.items()):
        names = [shortened(name) if isinstance(name, str | int) else type(name).__name__ for name in list(state)[:6]
                 ] if is_block else []
        holds = f'a block of {", ".join(names)}' if is_block else type(state).__name__
        raise ValueError(f'{path} holds no tensors by name, but {holds}; expected {expected}')
    for name, value in state.items():
        if kind := unusual_kind(value):
            raise ValueError(f'{path}: {shortened(name)} is {kind}, but weights are dense arrays of numbers; '
                             f'expected {expected}')
    wrapped = sum(name.startswith(WRAPPER) for name in state)
    done = [f"left out '{WRAPPER}' before {wrapped} of {len(state)} names"] if wrapped else []
    return {name.removeprefix(WRAPPER): value for name, value in state.items()}, done


def unusual_kind(value: Tensor) -> str | None:
    """Return what kind of tensor it is, unless it is a dense one in main memory."""
    if value.is_nested:
        return 'a nested tensor'
    if value.is_quantized:
        return 'a quantised tensor'
    if value.layout != torch.strided:
        return f'a tensor of the layout {value.layout}'.replace('torch.', '')
    return None if value.device.type == 'cpu' else f'on the device {value.device.type}, which holds no numbers'


def is_dense_floats(value: Any) -> bool:
    return isinstance(value, Tensor) and unusual_kind(value) is None and value.dtype in FLOATS


def is_of_type(value: Tensor, own: Tensor) -> bool:
    """Return whether numbers can become those of a network: only floats become floats, and only integers integers."""
    return value.dtype in (FLOATS if own.is_floating_point() else INTEGERS)


def check_finite(name: str, value: Tensor, path: str | Path) -> None:
    """Raise ValueError if a value is NaN or infinite."""
    if value.is_floating_point() and not (finite := value.isfinite()).all():
        raise ValueError(f'{path} is damaged, or of a training that diverged: {int(finite.numel() - finite.sum())} of '
                         f'{finite.numel()} values of {shortened(name)} are not finite')


def load_weights(module: nn.Module, state: dict[str, Tensor], *, path: str | Path, what: str,
                 strict: bool = True) -> None:
    """Load the tensors of `state` (read from `path`) whose name, shape and type match.

    Args:
        strict: False: skip weights that do not fit, with a warning.

    Raises:
        ValueError: a weight is missing, unknown, or has a wrong shape or type; the message names the first of each
            kind. If not strict, only if nothing fits. Or a value is not finite.
    """
    own = module.state_dict()
    shared = own.keys() & state.keys()
    misshapen = {name for name in shared if state[name].shape != own[name].shape}
    mistyped = {name for name in shared - misshapen if not is_of_type(state[name], own[name])}
    problems = {
        'missing': sorted(own.keys() - state.keys()),
        'unknown': sorted(state.keys() - own.keys()),
        'of another shape': [
            f'{name} {tuple(state[name].shape)}, expected {tuple(own[name].shape)}' for name in sorted(misshapen)],
        'of another type': [f'{name} {state[name].dtype}, expected {own[name].dtype}'.replace('torch.', '')
                            for name in sorted(mistyped)],
    }
    found = '; '.join(
        f'{len(names)} {kind} (first: {shortened(names[0], 160)})' for kind, names in problems.items() if names)
    fitting = {name: state[name].to(own[name].dtype) for name in shared - misshapen - mistyped}
    for name, value in fitting.items():
        check_finite(name, value, path)
    if found and (strict or not fitting):
        raise ValueError(f'{path} does not hold the weights of {what}, {len(own)} tensors: {found}')
    if found:
        get_root_logger().warning(f'{path} fits {what} in {len(fitting)} of {len(own)} tensors: {found}')
    module.load_state_dict(fitting, strict=strict)
