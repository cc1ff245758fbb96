"""Write and verify LMDBs in BasicSR's format: PNG bytes by key, and `meta_info.txt` with a line for each frame.

The same frames can be written to a folder of PNGs. Memory holds only a few frames at a time, for any size of the data
set. A target gets its name only when it is complete.
"""
import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import NamedTuple

import cv2
import lmdb
import numpy as np

from ..utils.atomic_files import move_whole
from ..utils.background import bounded_map
from ..utils.file_lock import FileLock
from ..utils.progress import progress_bar
from .frames import FrameReader, FrameReadError
from .images import decode_image
from .lmdb_reader import LmdbReader
from .video_clips import VideoReader

META_INFO = 'meta_info.txt'
_SOURCES = 'sources.txt'  # exists only while the LMDB is being written
_COMPRESS_LEVEL = 1  # BasicSR's choice: larger files, fast to read
LOSSLESS = {'.png': [cv2.IMWRITE_PNG_COMPRESSION, _COMPRESS_LEVEL], '.webp': [cv2.IMWRITE_WEBP_QUALITY, 101]}
_MAP_SIZE = 2**30
_BATCH_BYTES = 16 * 2**20


class FrameSource(NamedTuple):
    """A frame that is not loaded yet.

    Attributes:
        key: its name in the LMDB, `<clip>/<frame>`.
        source: where it comes from, for messages.
        load: returns the frame, uint8 `(H, W, C)` BGR.
        in_threads: whether several frames may be loaded concurrently and in any order.
    """
    key: str
    source: str
    load: Callable[[], np.ndarray]
    in_threads: bool = True


def file_frame(key: str, path: Path) -> FrameSource:
    """Return the frame of an image file. Loading raises FrameReadError if the file is missing or damaged."""
    return FrameSource(key, str(path), partial(_read_image, path))


def _read_image(path: Path) -> np.ndarray:
    try:
        return decode_image(path.read_bytes())
    except ValueError as error:
        raise FrameReadError(f'{path}: {error}') from error


def clip_frames(reader: FrameReader, clip: str) -> Iterator[FrameSource]:
    """Yield the frames of a reader's clip, in order, with keys `<clip>/<frame name>`."""
    in_threads = not isinstance(reader, VideoReader)  # a video is decoded from front to back
    for index in range(reader.num_frames(clip)):
        key = f'{clip}/{reader.frame_name(clip, index)}'
        source = f'{reader.path}, clip {clip!r}, frame {index}'
        yield FrameSource(key, source, partial(reader.frame, clip, index), in_threads)


class _Writer:
    """Context manager that writes `<path>.part` and renames it to `path` when the `with` block succeeds.

    A `.part` left by a killed run is removed first; an error inside the block also removes it. A lock on
    `<path>.part.lock` shows whether another run is still writing the `.part`. The lock ends with its process.
    """

    def __init__(self, path: str | os.PathLike[str], *, overwrite: bool = False):
        """Prepare to write; nothing is created before the `with` block.

        Args:
            path: the target.
            overwrite: replace a file or folder of this name, once the new one is complete.

        Raises:
            FileExistsError: the target exists, and `overwrite` is off.
        """
        self.path, self.overwrite = Path(path), overwrite
        self._check_target()
        self.part = self.path.with_name(self.path.name + '.part')
        self.num_written = 0

    def __enter__(self) -> '_Writer':
        """Raise FileExistsError if another run is writing the same target, or has written it since."""
        self._take_lock()
        try:
            self._check_target()
            if self.part.exists():
                print(f'Removing {self.part}, left by an unfinished run.')
                shutil.rmtree(self.part)
            self.part.mkdir()
            self._open()
        except BaseException:
            self._lock.release()
            raise
        return self

    def __exit__(self, exception_type: type[BaseException] | None, *_: object) -> None:
        try:
            if exception_type is None:
                if not self.num_written:
                    raise ValueError(f'no frames to write to {self.path}')
                self._finish()
                move_whole(self.part, self.path)
        finally:
            self._close()
            shutil.rmtree(self.part, ignore_errors=True)  # exists only after an error
            self._lock.release()

    def _take_lock(self) -> None:
        self.part.parent.mkdir(parents=True, exist_ok=True)
        self._lock = FileLock(self.part.with_name(self.part.name + '.lock'))
        if not self._lock.acquire():
            raise FileExistsError(f'another run is writing {self.part}; wait until it ends, or stop it')

    def _check_target(self) -> None:
        if self.path.exists() and not self.overwrite:
            raise FileExistsError(f'{self.path} exists already')

    def encode(self, frame: np.ndarray) -> bytes:
        """Encode a frame for the target; may be called from several threads."""
        raise NotImplementedError

    def put(self, key: str, data: bytes, shape: tuple[int, int, int], source: str) -> None:
        """Add a frame.

        Args:
            key: `<clip>/<frame>`.
            data: the encoded frame.
            shape: its height, width and channels.
            source: where it comes from, for messages.

        Raises:
            ValueError: the key cannot be stored, or already exists.
        """
        raise NotImplementedError

    def _open(self) -> None:
        """Prepare to write into the empty folder `self.part`."""

    def _finish(self) -> None:
        """Flush everything to disk."""

    def _close(self) -> None:
        """Close all files. Called after `_finish`, or without it after an error."""


class LmdbWriter(_Writer):
    """Context manager that writes an LMDB. The LMDB gets its name only when it is complete.

    `meta_info.txt` and the stored bytes equal those of BasicSR's `make_lmdb_from_imgs`. The memory map grows as needed.
    """

    def __init__(self, path: str | os.PathLike[str], *, overwrite: bool = False, map_size: int = _MAP_SIZE):
        """Prepare to write; nothing is created before the `with` block.

        Args:
            path: `<name>.lmdb`.
            overwrite: replace a file or folder of this name, once the new one is complete.
            map_size: initial size of LMDB's memory map in bytes; it doubles when it is full.

        Raises:
            ValueError: the name does not end in '.lmdb', as BasicSR requires.
            FileExistsError: the target exists, and `overwrite` is off.
        """
        if Path(path).suffix != '.lmdb':
            raise ValueError(f"the name of an LMDB must end in '.lmdb', got {path}")
        super().__init__(path, overwrite=overwrite)
        self._map_size = map_size
        self._batch: list[tuple[bytes, bytes]] = []
        self._batch_bytes = 0

    def encode(self, frame: np.ndarray) -> bytes:
        return _encode_image('.png', frame)

    def put(self, key: str, data: bytes, shape: tuple[int, int, int], source: str) -> None:
        if not key.isascii() or key.split() != [key]:
            raise ValueError(f'{source}: the key {key!r} is not allowed in LMDBs of BasicSR, which only take ASCII '
                             'without white space; rename the clip')
        if len(key) > self._env.max_key_size():
            raise ValueError(f'{source}: the key {key!r} is longer than the {self._env.max_key_size()} bytes that LMDB '
                             'allows; rename the clip')
        self._batch.append((key.encode('ascii'), data))
        self._batch_bytes += len(data)
        height, width, channels = shape
        self._meta_info.write(f'{key}.png ({height},{width},{channels}) {_COMPRESS_LEVEL}\n')
        self._sources.write(f'{key} {source}\n')
        self.num_written += 1
        if self._batch_bytes >= _BATCH_BYTES:
            self._commit()

    def _open(self) -> None:
        # Nothing needs to survive a crash before _finish(), so LMDB need not sync at each commit.
        self._env = lmdb.open(str(self.part), map_size=self._map_size, sync=False)
        self._meta_info = open(self.part / META_INFO, 'w', encoding='ascii', newline='\n')  # noqa: SIM115  (until _finish)
        self._sources = open(self.part / _SOURCES, 'w+', encoding='utf-8', errors='backslashreplace')  # noqa: SIM115

    def _commit(self) -> None:
        while True:
            try:
                with self._env.begin(write=True) as txn:
                    for key, data in self._batch:
                        if not txn.put(key, data, overwrite=False):
                            raise self._duplicate(key.decode('ascii'))
                break
            except lmdb.MapFullError:
                self._env.set_mapsize(2 * self._env.info()['map_size'])
        self._batch.clear()
        self._batch_bytes = 0

    def _duplicate(self, key: str) -> ValueError:
        # The sources are in a file, as a table of them would grow with the data set.
        self._sources.seek(0)
        sources = [line.rstrip('\n').partition(' ')[2] for line in self._sources if line.startswith(f'{key} ')]
        return ValueError(f'two frames have the key {key!r}: {" and ".join(sources[:2])}')

    def _finish(self) -> None:
        self._commit()
        self._env.sync(True)
        self._meta_info.flush()
        os.fsync(self._meta_info.fileno())
        self._close()
        (self.part / _SOURCES).unlink()

    def _close(self) -> None:
        self._env.close()
        self._meta_info.close()
        self._sources.close()


class FolderWriter(_Writer):
    """Context manager that writes a folder of images, `<clip>/<frame><suffix>`, and names it when it is complete."""

    def __init__(self, path: str | os.PathLike[str], *, overwrite: bool = False, suffix: str = '.png'):
        """Prepare to write; nothing is created before the `with` block.

        Args:
            path: the folder.
            overwrite: replace a file or folder of this name, once the new one is complete.
            suffix: '.png' or '.webp'; both are lossless.

        Raises:
            ValueError: another suffix.
            FileExistsError: the target exists, and `overwrite` is off.
        """
        if suffix not in LOSSLESS:
            raise ValueError(f'the suffix of the images must be one of {list(LOSSLESS)}, got {suffix!r}')
        super().__init__(path, overwrite=overwrite)
        self.suffix = suffix

    def encode(self, frame: np.ndarray) -> bytes:
        return _encode_image(self.suffix, frame)

    def put(self, key: str, data: bytes, shape: tuple[int, int, int], source: str) -> None:
        file = self.part / f'{key}{self.suffix}'
        if file.exists():
            raise ValueError(f'two frames have the key {key!r}; the second is {source}')
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(data)
        self.num_written += 1


def _encode_image(suffix: str, frame: np.ndarray) -> bytes:
    return cv2.imencode(suffix, frame, LOSSLESS[suffix])[1].tobytes()


def write_frames(writer: LmdbWriter | FolderWriter, frames: Iterable[FrameSource], *, num_frames: int | None = None,
                 num_workers: int = 1) -> int:
    """Load and encode frames in threads, and write them in order.

    Args:
        writer: the target, not yet entered.
        frames: the frames to write; consumed during writing.
        num_frames: number of frames, for the progress bar.
        num_workers: threads that decode and encode.

    Returns:
        The number of frames written.

    Raises:
        ValueError: a key cannot be stored or occurs twice (both sources are named), or there are no frames.
        Exception: any exception of a frame's `load`.
    """
    def in_order(frame: FrameSource) -> FrameSource:
        if frame.in_threads:
            return frame
        image = frame.load()
        return frame._replace(load=lambda: image)

    def encode(frame: FrameSource) -> tuple[str, bytes, tuple[int, int, int], str]:
        image = frame.load()
        return frame.key, writer.encode(image), _shape(image), frame.source

    with writer:
        encoded = bounded_map(encode, map(in_order, frames), num_workers)
        for arguments in progress_bar(encoded, unit='frame', about=f'Writing {writer.path}', total=num_frames):
            writer.put(*arguments)
    return writer.num_written


def _shape(image: np.ndarray) -> tuple[int, int, int]:
    return (*image.shape[:2], 1 if image.ndim == 2 else image.shape[2])


def write_lmdb(path: str | os.PathLike[str], frames: Iterable[FrameSource], *, num_frames: int | None = None,
               num_workers: int = 1, overwrite: bool = False, map_size: int = _MAP_SIZE) -> int:
    """Write an LMDB with `LmdbWriter` and `write_frames`; see there."""
    writer = LmdbWriter(path, overwrite=overwrite, map_size=map_size)
    return write_frames(writer, frames, num_frames=num_frames, num_workers=num_workers)


def verify_lmdb(path: str | os.PathLike[str], *, num_workers: int = 1) -> list[str]:
    """Read every frame of an LMDB. Each must decode and have the shape that `meta_info.txt` states.

    Returns:
        One line for each faulty frame.

    Raises:
        FrameReadError: there is no LMDB at `path`, it is incomplete or truncated, or holds other frames than listed.
    """
    path = Path(path)
    LmdbReader(path).close()
    lines = (path / META_INFO).read_text(encoding='utf-8').splitlines()
    with lmdb.open(str(path), readonly=True, lock=False, readahead=False) as env:
        checked = bounded_map(partial(_check_frame, env), lines, num_workers)
        shown = progress_bar(checked, unit='frame', about=f'Verifying {path}', total=len(lines))
        problems = list(filter(None, shown))
    return [f'{path}: {problem}' for problem in problems]


def _check_frame(env: lmdb.Environment, line: str) -> str | None:
    """Return what is wrong with the frame of a line of meta_info.txt, or None; LmdbReader has checked its form."""
    name, listed, _ = line.rsplit(' ', 2)
    key = name.rpartition('.')[0]
    with env.begin() as txn:
        png = txn.get(key.encode('utf-8'))
    if png is None:
        return f'key {key!r} is listed in {META_INFO} but not stored'
    try:
        image = decode_image(png, cv2.IMREAD_UNCHANGED)
    except ValueError as error:
        return f'key {key!r}: {error}'
    stored = '({},{},{})'.format(*_shape(image))
    if stored != listed:
        return f'key {key!r} holds an image of shape {stored}, {META_INFO} says {listed}'
    return None
