"""Write the LMDB of flows that `FlowFiles` reads; an interrupted run can be continued."""
import json
import os
import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import lmdb
import numpy as np

from ..io.lmdb_files import META_INFO, LmdbWriter
from ..utils.atomic_files import move_whole, replace_file
from .stored_flow import SETTINGS_FILE, encode_flow, flow_shape

_COMMIT_BYTES = 16 * 2**20
_COMMIT_SECONDS = 10  # a slow network writes few bytes


class FlowLmdbWriter(LmdbWriter):
    """Context manager that writes an LMDB of flows in half precision.

    The LMDB gets its final name when it is complete. Until then it is `<path>.part`, which stays if the run ends early.
    Committed flows are intact at any moment, and a writer with the same settings adds the missing ones.

    Args:
        path: `<name>.lmdb`.
        settings: JSON-serialisable description of what the flows depend on; saved inside as `flow_settings.json`.
        overwrite: start over, and replace an LMDB of this name once the new one is complete.

    Raises:
        ValueError: the name does not end in '.lmdb'.
        FileExistsError: the target exists, and `overwrite` is off.
    """

    def __init__(self, path: str | os.PathLike[str], settings: Mapping[str, Any], *, overwrite: bool = False):
        super().__init__(path, overwrite=overwrite)
        self.settings = json.loads(json.dumps(settings))  # turn tuples into lists, as reading the file would

    def __enter__(self) -> 'FlowLmdbWriter':
        """Continue an earlier run, or start a new LMDB.

        Raises:
            FileExistsError: another run is writing the same target; or the partial LMDB has other settings, or is
                damaged.
        """
        self._take_lock()
        try:
            self._check_target()
            if self.overwrite and self.part.exists():
                shutil.rmtree(self.part)
            self._check_part()
            self.part.mkdir(exist_ok=True)
            replace_file(self.part / SETTINGS_FILE, (json.dumps(self.settings, indent=2) + '\n').encode())
            self._env = lmdb.open(str(self.part), map_size=self._map_size)
            self._committed = time.monotonic()
        except BaseException:
            self._lock.release()
            raise
        return self

    def __exit__(self, exception_type: type[BaseException] | None, *_: object) -> None:
        """Complete the LMDB; after an error in the `with` block, keep the partial LMDB."""
        try:
            self._commit()
            is_empty = not len(self)
            if exception_type is None:
                if is_empty:
                    raise ValueError(f'no flows to write to {self.path}')
                replace_file(self.part / META_INFO, self._meta_lines().encode())
                self._env.close()
                move_whole(self.part, self.path)
            elif is_empty:
                shutil.rmtree(self.part)
        finally:
            self._env.close()
            self._lock.release()

    def __contains__(self, key: str) -> bool:
        """Return whether a flow has been committed."""
        with self._env.begin() as transaction:
            return transaction.get(key.encode()) is not None

    def __len__(self) -> int:
        """Return the number of committed flows."""
        return self._env.stat()['entries']

    def put(self, key: str, flow: np.ndarray) -> None:  # type: ignore[override]  # encodes the flow, unlike frames
        """Add a flow, (h, w, 2).

        Raises:
            ValueError: the key is too long, or the flow has values that half precision cannot hold.
        """
        data = key.encode()
        if len(data) > self._env.max_key_size():
            raise ValueError(f'the key {key!r} is longer than the {self._env.max_key_size()} bytes that LMDB allows; '
                             'rename the clip')
        if not (np.abs(flow) <= np.finfo(np.float16).max).all():
            raise ValueError(f'the flow {key!r} has values that are not a motion: NaN, or too large')
        self._batch.append((data, encode_flow(flow)))
        self._batch_bytes += len(self._batch[-1][1])
        if self._batch_bytes >= _COMMIT_BYTES or time.monotonic() > self._committed + _COMMIT_SECONDS:
            self._commit()
            self._committed = time.monotonic()

    def _duplicate(self, key: str) -> ValueError:
        return ValueError(f'two flows have the key {key!r}; rename the clips')

    def _check_part(self) -> None:
        """Raise FileExistsError if the partial target exists and cannot be continued."""
        data = self.part / 'data.mdb'
        if not data.exists():
            return
        if not (self.part / SETTINGS_FILE).is_file():
            raise FileExistsError(f'{self.part} is not an unfinished LMDB of flows: it has no {SETTINGS_FILE}')
        begun = json.loads((self.part / SETTINGS_FILE).read_text(encoding='utf-8'))
        for name in begun.keys() | self.settings.keys():
            old, new = begun.get(name), self.settings.get(name)
            if old != new:
                raise FileExistsError(f'{self.part} was begun with {name} {old}, not {new}')
        with lmdb.open(str(self.part), readonly=True, lock=False) as env:
            expected = (env.info()['last_pgno'] + 1) * env.stat()['psize']
        if data.stat().st_size < expected:  # reading the missing part would kill the process
            raise FileExistsError(f'{data} is truncated, it has {data.stat().st_size} of {expected} bytes')

    def _meta_lines(self) -> str:
        """Return one line for each flow, like BasicSR's for images.

        Readers use it to check that the LMDB is complete.
        """
        with self._env.begin(buffers=True) as transaction:
            return ''.join('{}.npy ({},{},{}) 0\n'.format(bytes(key).decode(), *flow_shape(data))
                           for key, data in transaction.cursor())


def read_settings(path: Path) -> Any:
    """Return the settings of a complete LMDB of flows, or None if there is none."""
    file = path / SETTINGS_FILE
    return json.loads(file.read_text(encoding='utf-8')) if file.is_file() else None
