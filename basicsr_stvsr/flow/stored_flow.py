"""Flows in files: a folder of them, or the LMDB that scripts/data_preparation/precompute_flow.py writes."""
import io
from pathlib import Path
from typing import Any

import numpy as np
from basicsr.utils.flow_util import flowread

from ..io.frames import FrameReadError
from ..io.lmdb_reader import LmdbEnvironments, LmdbReader
from .base import FLOW_REGISTRY, StoredFlow

SUFFIXES = ('.flo', '.npy')
SETTINGS_FILE = 'flow_settings.json'  # tells an LMDB of flows from one of frames
MAGIC, _HEADER_BYTES = b'PIEH', 12
_UNKNOWN = 1e9  # Middlebury's files mark pixels whose motion is not known by larger numbers


@FLOW_REGISTRY.register()
class FlowFiles(StoredFlow):
    """Flows of a folder or an LMDB, `<clip>/<first>_to_<second>`.

    Args:
        root: the folder, of `.flo` files (Middlebury's format) or `.npy` files (any float type), or the LMDB as
            precompute_flow.py writes it.

    Raises:
        FrameReadError: there is no such folder, or an LMDB that is unfinished, truncated, or not one of flows.
    """

    def __init__(self, root: str | Path):
        self.root = Path(root).expanduser()
        if not self.root.is_dir():
            raise FrameReadError(f'{self.root}: no such folder of flows')
        self._is_lmdb = (self.root / 'data.mdb').is_file()
        if self._is_lmdb:
            if not (self.root / SETTINGS_FILE).is_file():
                raise FrameReadError(f'{self.root}: no {SETTINGS_FILE}, so this is no LMDB of flows as '
                                     'scripts/data_preparation/precompute_flow.py writes it')
            LmdbReader(self.root).close()  # which looks whether it is whole

    def read(self, clip: str, first: str, second: str, size: tuple[int, int]) -> np.ndarray:
        what = f'flow from frame {first!r} to {second!r} of clip {clip!r}'
        key = flow_key(clip, first, second)
        flow = self._read_lmdb(key, what) if self._is_lmdb else read_flow_file(self.root / key, what)
        return checked_flow(flow, size, f'{self.root}: the {what}')

    def _read_lmdb(self, key: str, what: str) -> np.ndarray:
        with LmdbEnvironments.get(self.root.resolve()).begin() as transaction:
            data = transaction.get(key.encode())
        if data is None:
            raise FrameReadError(f'no {what} in {self.root}; {SETTINGS_FILE} there tells of which frames it was made, '
                                 'and how far apart')
        try:
            return decode_flow(data)
        except ValueError as error:
            raise FrameReadError(f'{self.root}: the {what} is damaged: {error}') from error


def flow_key(clip: str, first: str, second: str) -> str:
    """Where a flow lies in an LMDB, and without suffix in a folder."""
    return f'{clip}/{first}_to_{second}'


def encode_flow(flow: np.ndarray) -> bytes:
    """A flow in half precision as the bytes of an .npy file, as they lie in the LMDB."""
    file = io.BytesIO()
    np.save(file, flow.astype(np.float16))
    return file.getvalue()


def decode_flow(data: bytes) -> np.ndarray:
    """Raises ValueError if these are not the bytes of an .npy file."""
    try:
        return np.load(io.BytesIO(data), allow_pickle=False)
    except (ValueError, EOFError, OSError) as error:
        raise ValueError(f'{len(data)} bytes are no .npy file ({error})') from error


def flow_shape(data: bytes | memoryview) -> tuple[int, ...]:
    """Shape of an encoded flow, from its first bytes."""
    header = io.BytesIO(data[:128])
    np.lib.format.read_magic(header)
    return np.lib.format.read_array_header_1_0(header)[0]


def read_flow_file(stem: Path, what: str) -> np.ndarray:
    """Reads `<stem>.flo` or `<stem>.npy`.

    Args:
        stem: path without suffix.
        what: which flow it is, for messages.

    Raises:
        FrameReadError: neither is there, or it cannot be read.
    """
    # The name may hold dots, so with_suffix is of no use.
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
    """Raises ValueError where a file is not of Middlebury's format, or not as long as it should be."""
    with open(path, 'rb') as file:
        header = file.read(_HEADER_BYTES)
    if header[:4] != MAGIC:
        raise ValueError(f'{describe_magic(header)}, as Middlebury\'s .flo files do')
    width, height = np.frombuffer(header[4:].ljust(8, b'\0'), '<i4').tolist()
    expected, actual = _HEADER_BYTES + 8 * width * height, path.stat().st_size
    if len(header) < _HEADER_BYTES or min(width, height) < 1 or actual != expected:
        raise ValueError(f'it has {actual} bytes and should have {expected}, as its header says {width}x{height} '
                         '(w x h); it is truncated or holds something else')


def describe_magic(header: bytes) -> str:
    """What a .flo file begins with in place of its magic number, in bytes and as the number that it is."""
    start = header[:4]
    number = f' (the number {np.frombuffer(start, "<f4")[0]:g})' if len(start) == 4 else ''
    return f'it begins with {start!r}{number}, not with {MAGIC!r} (the number 202021.25)'


def checked_flow(flow: Any, size: tuple[int, int], where: str) -> np.ndarray:
    """A flow as float32.

    Args:
        flow: what was read.
        size: height and width that it should have.
        where: what begins the message of an error.

    Raises:
        FrameReadError: it is none, of another size than the frames, or has values that are no motion.
    """
    if not isinstance(flow, np.ndarray) or not np.issubdtype(flow.dtype, np.floating):
        raise FrameReadError(f'{where} holds {getattr(flow, "dtype", type(flow).__name__)}, expected floats')
    if flow.shape != (*size, 2):
        raise FrameReadError(f'{where} has shape {flow.shape}, expected {(*size, 2)}, as the frames have it')
    flow = flow.astype(np.float32, copy=False)
    if not (np.abs(flow) < _UNKNOWN).all():
        raise FrameReadError(f'{where} has values that are no motion: NaN, infinite or marked as unknown')
    return flow
