"""Read frames from an LMDB in BasicSR's format."""
import os
import re
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from .frames import FrameReader, FrameReadError
from .images import decode_image, natural_key


class LmdbReader(FrameReader):
    """Clips of an LMDB in BasicSR's format: a folder `<name>.lmdb` with data.mdb and meta_info.txt.

    meta_info.txt has a line `<key>.png (h,w,c) <compression level>` for each image. The clip is the key without its
    last component. Keys without a slash form one clip, named by the LMDB.

    Args:
        path: the LMDB folder.
        clips: names of the clips to use.

    Raises:
        FrameReadError: no such LMDB, an incomplete or truncated one, or one without a clip of `clips`.
    """

    def __init__(self, path: str | Path, *, clips: Sequence[str] | None = None):
        super().__init__(path)
        self._resolved = self.path.resolve()
        for needed in ('data.mdb', 'meta_info.txt'):
            if not (self.path / needed).is_file():
                raise FrameReadError(f"{self.path}: {needed} is missing, so this is not a complete LMDB in BasicSR's "
                                     'format')
        sizes = self._read_meta_info()
        self._check_whole(num_keys=len(sizes))

        self._keys: dict[str, list[str]] = {}
        for key in sizes:
            self._keys.setdefault(key.rpartition('/')[0] or self.path.stem, []).append(key)
        if clips is None:
            self.clips = sorted(self._keys, key=natural_key)
        else:
            self.clips = sorted(clips, key=natural_key)
            for clip in self.clips:
                if clip not in self._keys:
                    raise FrameReadError(f'{self.path}: no clip {clip!r} in meta_info.txt')
            self._keys = {clip: self._keys[clip] for clip in self.clips}
        for clip, keys in self._keys.items():
            keys.sort(key=lambda key: natural_key(key.rpartition('/')[2]))
            self._size_of[clip] = 0, sizes[keys[0]]

    def num_frames(self, clip: str) -> int:
        if clip not in self._keys:
            raise self._unknown_clip(clip)
        return len(self._keys[clip])

    def frame_name(self, clip: str, index: int) -> str:
        return self._keys[clip][index].rpartition('/')[2]

    def close(self) -> None:
        LmdbEnvironments.close(self._resolved)

    def _read(self, clip: str, index: int) -> np.ndarray:
        key = self._keys[clip][index]
        data = LmdbEnvironments.read(self._resolved, key)
        if data is None:
            raise ValueError(f'meta_info.txt lists the key {key!r}, data.mdb does not have it')
        return decode_image(data)

    def _read_meta_info(self) -> dict[str, tuple[int, int]]:
        """Return key -> (h, w)."""
        sizes = {}
        try:
            lines = (self.path / 'meta_info.txt').read_text(encoding='utf-8').splitlines()
        except UnicodeDecodeError as error:
            raise FrameReadError(f'{self.path}: meta_info.txt is not UTF-8 text (byte {error.start + 1})') from error
        for number, line in enumerate(lines, 1):
            match = re.fullmatch(r'(.+)\.\w+ \((\d+), ?(\d+), ?\d+\) \d+', line)
            if match is None:
                raise FrameReadError(f'{self.path}: line {number} of meta_info.txt is {line[:99]!r}, '
                                     'expected "<key>.png (h,w,c) <level>"')
            if match[1] in sizes:
                raise FrameReadError(f'{self.path}: line {number} of meta_info.txt lists the key {match[1]!r} again')
            sizes[match[1]] = int(match[2]), int(match[3])
        return sizes

    def _check_whole(self, *, num_keys: int) -> None:
        # LMDB does not detect a truncated file: reading a page after its end kills the process (SIGBUS). The counts
        # used here are all on the first two pages.
        LmdbEnvironments.close(self._resolved)  # it may show an older file that was replaced since
        environment = LmdbEnvironments.get(self._resolved)
        stat = environment.stat()
        expected = (environment.info()['last_pgno'] + 1) * stat['psize']
        self.close()
        actual = (self.path / 'data.mdb').stat().st_size
        if actual < expected:
            raise FrameReadError(f'{self.path}: data.mdb is truncated, it has {actual} of {expected} bytes')
        if stat['entries'] != num_keys:
            raise FrameReadError(f'{self.path}: data.mdb holds {stat["entries"]} images and meta_info.txt lists '
                                 f'{num_keys}; writing was interrupted, or the file was changed')


class LmdbEnvironments:
    """The LMDB environments of this process: one per path, as the library allows, shared by all readers."""

    _opened: dict[Path, Any] = {}  # by resolved path
    _lock = threading.Lock()

    @classmethod
    def get(cls, path: Path) -> Any:
        with cls._lock:
            if path not in cls._opened:
                cls._opened[path] = cls._open(path)
            return cls._opened[path]

    @classmethod
    def read(cls, path: Path, key: str) -> bytes | None:
        """Return what is stored under a key; None if there is no such key.

        Raises:
            ValueError: data.mdb is damaged.
        """
        import lmdb

        try:
            with cls.get(path).begin() as transaction:
                data: bytes | None = transaction.get(key.encode())
                return data
        except lmdb.Error as error:
            raise ValueError(f'data.mdb is damaged: LMDB cannot read the key {key!r} ({error})') from error

    @classmethod
    def close(cls, path: Path) -> None:
        with cls._lock:
            environment = cls._opened.pop(path, None)
            if environment is not None:
                environment.close()

    @classmethod
    def forget_parent(cls) -> None:
        """Reset in a forked process: environments do not survive a fork, and a thread may have held the lock."""
        cls._lock = threading.Lock()
        while cls._opened:
            cls._opened.popitem()[1].close()

    @staticmethod
    def _open(path: Path) -> Any:
        import lmdb  # here, so that importing the package stays cheap; only its readers need it

        try:
            return lmdb.open(str(path), readonly=True, create=False, lock=False, readahead=False, meminit=False)
        except lmdb.Error as error:
            if 'already open in this process' in str(error):
                raise FrameReadError(
                    f'{path}: LMDB opens a path only once in a process, and code outside this package has it open. If '
                    'that is a data set of BasicSR with num_worker_per_gpu: 0, set that to 1 or more to read in worker '
                    'processes, or use STVSRClipDataset instead') from error
            raise FrameReadError(f'{path}: LMDB cannot open it ({error}); data.mdb has '
                                 f'{(path / "data.mdb").stat().st_size} bytes') from error


if hasattr(os, 'register_at_fork'):
    os.register_at_fork(after_in_child=LmdbEnvironments.forget_parent)
