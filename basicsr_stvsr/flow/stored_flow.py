"""Flows in files: a folder, or the LMDB that scripts/data_preparation/precompute_flow.py writes."""
import io
from pathlib import Path
from typing import Any

import numpy as np
from basicsr.utils.flow_util import flowread

from ..config.registered import FLOW_REGISTRY
from ..io.frames import FrameReadError
from ..io.lmdb_reader import LmdbEnvironments, LmdbReader
from .base import StoredFlow

SUFFIXES = ('.flo', '.npy')
SETTINGS_FILE = 'flow_settings.json'  # distinguishes an LMDB of flows from one of frames
MAGIC, _HEADER_BYTES = b'PIEH', 12
_UNKNOWN = 1e9  # Middlebury's files mark unknown motion by larger numbers


@FLOW_REGISTRY.register()
class FlowFiles(StoredFlow):
    """Flows from a folder or an LMDB, `<clip>/<first>_to_<second>`.

    Args:
        root: a folder of `.flo` files (Middlebury's format) or `.npy` files (any float type), or an LMDB written by
            precompute_flow.py.

    Raises:
        FrameReadError: the folder does not exist, or the LMDB is unfinished, truncated, or not one of flows.
    """

    def __init__(self, root: str | Path):
        self.root = Path(root).expanduser()
        if not self.root.is_dir():
            raise FrameReadError(f'{self.root}: no such flow folder')
        self._is_lmdb = (self.root / 'data.mdb').is_file()
        if self._is_lmdb:
            if not (self.root / SETTINGS_FILE).is_file():
                raise FrameReadError(f'{self.root}: {SETTINGS_FILE} is missing, so this is not a flow LMDB of '
                                     'scripts/data_preparation/precompute_flow.py')
            LmdbReader(self.root).close()  # checks that it is complete

    def read(self, clip: str, first: str, second: str, size: tuple[int, int]) -> np.ndarray:
        what = f'flow from frame {first!r} to {second!r} of clip {clip!r}'
        key = flow_key(clip, first, second)
        flow = self._read_lmdb(key, what) if self._is_lmdb else read_flow_file(self.root / key, what)
        return checked_flow(flow, size, f'{self.root}: the {what}')

    def _read_lmdb(self, key: str, what: str) -> np.ndarray:
        data = LmdbEnvironments.read(self.root.resolve(), key)
        if data is None:
            raise FrameReadError(f'no {what} in {self.root}; {SETTINGS_FILE} there states the frames that have flow, '
                                 'and how far apart they are')
        try:
            return decode_flow(data)
        except ValueError as error:
            raise FrameReadError(f'{self.root}: the {what} is damaged: {error}') from error


def flow_key(clip: str, first: str, second: str) -> str:
    """Return the key of a flow in an LMDB, which is also its path without suffix in a folder."""
    return f'{clip}/{first}_to_{second}'


def encode_flow(flow: np.ndarray) -> bytes:
    """Encode a flow in half precision as the bytes of an .npy file, for the LMDB."""
    file = io.BytesIO()
    np.save(file, flow.astype(np.float16))
    return file.getvalue()


def decode_flow(data: bytes) -> np.ndarray:
    """Decode the bytes of an .npy file; raise ValueError if they are not such."""
    try:
        return np.load(io.BytesIO(data), allow_pickle=False)
    except (ValueError, EOFError, OSError) as error:
        raise ValueError(f'{len(data)} bytes are not a .npy file ({error})') from error


def flow_shape(data: bytes | memoryview) -> tuple[int, ...]:
    """Return the shape of an encoded flow from its first bytes."""
    header = io.BytesIO(data[:128])
    np.lib.format.read_magic(header)
    return np.lib.format.read_array_header_1_0(header)[0]


def read_flow_file(stem: Path, what: str) -> np.ndarray:
    """Read `<stem>.flo` or `<stem>.npy`.

    Args:
        stem: path without suffix.
        what: name of the flow for error messages.

    Raises:
        FrameReadError: neither file exists, or it cannot be read.
    """
    # The name may contain dots, so with_suffix does not work.
    path = next((path for suffix in SUFFIXES if (path := Path(f'{stem}{suffix}')).is_file()), None)
    if path is None:
        raise FrameReadError(f'no {what}: neither {stem}.flo nor {stem}.npy')
    try:
        if path.suffix == '.npy':
            return np.load(path, allow_pickle=False)
        _check_middlebury(path)
        return flowread(str(path))
    except (OSError, ValueError, EOFError) as error:
        raise FrameReadError(f'{path} cannot be read as a flow: {error}') from error


def _check_middlebury(path: Path) -> None:
    """Raise ValueError if a file is not in Middlebury's format or has the wrong length."""
    with open(path, 'rb') as file:
        header = file.read(_HEADER_BYTES)
    if header[:4] != MAGIC:
        raise ValueError(describe_magic(header))
    width, height = np.frombuffer(header[4:].ljust(8, b'\0'), '<i4').tolist()
    expected, actual = _HEADER_BYTES + 8 * width * height, path.stat().st_size
    if len(header) < _HEADER_BYTES or min(width, height) < 1 or actual != expected:
        raise ValueError(f'it has {actual} bytes instead of {expected}, by the size in its header, {width}x{height} (w '
                         'x h); it is truncated or holds something else')


def describe_magic(header: bytes) -> str:
    """Describe the number at the start of a .flo file that lacks the magic number, as bytes and as a value."""
    start = header[:4]
    number = f' (the number {np.frombuffer(start, "<f4")[0]:g})' if len(start) == 4 else ''
    return f'it begins with {start!r}{number}, expected {MAGIC!r} (the number 202021.25)'


def checked_flow(flow: Any, size: tuple[int, int], where: str) -> np.ndarray:
    """Return a flow as float32.

    Args:
        flow: the array read from a file.
        size: expected height and width.
        where: prefix of the error message.

    Raises:
        FrameReadError: it is not a flow, has another size than the frames, or has values that are no motion.
    """
    if not isinstance(flow, np.ndarray) or not np.issubdtype(flow.dtype, np.floating):
        raise FrameReadError(f'{where} holds {getattr(flow, "dtype", type(flow).__name__)}, expected floats')
    if flow.shape != (*size, 2):
        raise FrameReadError(f'{where} has shape {flow.shape}, expected {(*size, 2)} to match the frames')
    flow = flow.astype(np.float32, copy=False)
    if not (np.abs(flow) < _UNKNOWN).all():
        raise FrameReadError(f'{where} has values that are not a motion: NaN, infinite or marked as unknown')
    return flow
