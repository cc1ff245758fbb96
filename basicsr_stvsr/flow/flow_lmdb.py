"""Writes the LMDB of flows that `FlowFiles` reads; a run that was stopped goes on where it was."""
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
from .stored_flow import SETTINGS_FILE, encode_flow, flow_shape

_COMMIT_BYTES = 16 * 2**20
_COMMIT_SECONDS = 10  # a slow network makes few bytes


class FlowLmdbWriter(LmdbWriter):
    """Context manager that writes an LMDB of flows in half precision, which appears under its name when it is complete.

    Until then it is `<path>.part`, which stays when the run ends early. What was committed to it is whole at any
    moment, and a writer with the same settings adds what is missing.

    Args:
        path: `<name>.lmdb`.
        settings: what the flows depend on, in words of JSON; lies beside them as `flow_settings.json`.
        overwrite: begin from the start, and replace an LMDB of this name once the new one is complete.

    Raises:
        ValueError: the name does not end in '.lmdb'.
        FileExistsError: the target exists, and `overwrite` is off.
    """

    def __init__(self, path: str | os.PathLike, settings: Mapping[str, Any], *, overwrite: bool = False):
        super().__init__(path, overwrite=overwrite)
        self.settings = json.loads(json.dumps(settings))  # tuples become lists, as they will be when read again

    def __enter__(self) -> 'FlowLmdbWriter':
        """Opens what an earlier run has left, or begins.

        Raises:
            FileExistsError: another run is writing the same target; or what was left is of other settings, or damaged.
        """
        self._take_lock()
        try:
            self._check_target()
            if self.overwrite and self.part.exists():
                shutil.rmtree(self.part)
            self._check_part()
            self.part.mkdir(exist_ok=True)
            self._write_text(SETTINGS_FILE, json.dumps(self.settings, indent=2) + '\n')
            self._env = lmdb.open(str(self.part), map_size=self._map_size)
            self._committed = time.monotonic()
        except BaseException:
            self._lock.release()
            raise
        return self

    def __exit__(self, exception_type: type[BaseException] | None, *_: object) -> None:
        """Makes the LMDB complete, or keeps the flows that there are when the `with` block ended by an error."""
        try:
            self._commit()
            is_empty = not len(self)
            if exception_type is None:
                if is_empty:
                    raise ValueError(f'no flows to write to {self.path}')
                self._write_text(META_INFO, self._meta_info())
                self._env.close()
                self._rename()
            elif is_empty:
                shutil.rmtree(self.part)
        finally:
            self._env.close()
            self._lock.release()

    def __contains__(self, key: str) -> bool:
        """Whether a flow has been committed already."""
        with self._env.begin() as transaction:
            return transaction.get(key.encode()) is not None

    def __len__(self) -> int:
        """Number of flows that have been committed."""
        return self._env.stat()['entries']

    def put(self, key: str, flow: np.ndarray) -> None:
        """Adds a flow, (h, w, 2).

        Raises:
            ValueError: the key is too long, or the flow has values that half precision cannot hold.
        """
        data = key.encode()
        if len(data) > self._env.max_key_size():
            raise ValueError(f'the key {key!r} is longer than the {self._env.max_key_size()} bytes that LMDB takes; '
                             'rename the clip')
        if not (np.abs(flow) <= np.finfo(np.float16).max).all():
            raise ValueError(f'the flow {key!r} has values that are no motion: NaN, or too large')
        self._batch.append((data, encode_flow(flow)))
        self._batch_bytes += len(self._batch[-1][1])
        if self._batch_bytes >= _COMMIT_BYTES or time.monotonic() > self._committed + _COMMIT_SECONDS:
            self._commit()
            self._committed = time.monotonic()

    def _duplicate(self, key: str) -> ValueError:
        return ValueError(f'two flows have the key {key!r}; rename the clips')

    def _check_part(self) -> None:
        """Raises FileExistsError where something is in the way that cannot be gone on with."""
        data = self.part / 'data.mdb'
        if not data.exists():
            return
        if not (self.part / SETTINGS_FILE).is_file():
            raise FileExistsError(f'{self.part} is no unfinished LMDB of flows: it has no {SETTINGS_FILE}')
        begun = json.loads((self.part / SETTINGS_FILE).read_text(encoding='utf-8'))
        for name in begun.keys() | self.settings.keys():
            old, new = begun.get(name), self.settings.get(name)
            if old != new:
                raise FileExistsError(f'{self.part} was begun with {name} {old}, not {new}')
        with lmdb.open(str(self.part), readonly=True, lock=False) as env:
            expected = (env.info()['last_pgno'] + 1) * env.stat()['psize']
        if data.stat().st_size < expected:  # to read what is missing would kill the process
            raise FileExistsError(f'{data} is truncated, it has {data.stat().st_size} of {expected} bytes')

    def _meta_info(self) -> str:
        """A line for each flow as BasicSR has it for images, by which readers see that the LMDB is whole."""
        with self._env.begin(buffers=True) as transaction:
            return ''.join('{}.npy ({},{},{}) 0\n'.format(bytes(key).decode(), *flow_shape(data))
                           for key, data in transaction.cursor())

    def _write_text(self, name: str, text: str) -> None:
        """Writes a file of the folder, whole or not at all."""
        temporary = self.part / f'{name}.tmp'
        with open(temporary, 'w', encoding='utf-8', newline='\n') as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(self.part / name)


def read_settings(path: Path) -> Any:
    """The settings of a complete LMDB of flows; None where there is none."""
    file = path / SETTINGS_FILE
    return json.loads(file.read_text(encoding='utf-8')) if file.is_file() else None
