"""Write files atomically: at any moment, a name holds the complete old content, or the complete new one."""
import hashlib
import io
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import torch


class CheckpointError(RuntimeError):
    """A checkpoint could not be written; earlier ones are intact."""


def write_whole(path: str | Path, content: Mapping[str, Any]) -> str:
    """Save a checkpoint like `torch.save`, but atomically.

    BasicSR writes in place, and gives up with a warning after three errors.

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
                              'Earlier checkpoints are complete; --auto_resume continues from the newest') from error
    return hashlib.sha256(data).hexdigest()


def replace_file(path: str | Path, data: bytes | memoryview) -> None:
    """Write a file atomically."""
    with whole_file(path) as part:
        part.write_bytes(data)


@contextmanager
def whole_file(path: str | Path) -> Iterator[Path]:
    """Yield the name of a file to write, `<path>.part`; the file becomes `path` at the end of the block.

    An error or interrupt in the block removes the temporary file.
    """
    path = Path(path)
    part = path.with_name(f'{path.name}.part')
    try:
        yield part
        move_whole(part, path)
    except BaseException:
        with suppress(OSError):
            part.unlink()
        raise


def move_whole(part: Path, path: Path) -> None:
    """Rename a complete file or folder to `path`, and replace what has that name; this survives a power cut."""
    sync(part)
    if part.is_dir():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
    os.replace(part, path)
    sync(path.parent)


def sync(path: Path) -> None:
    """Make a file's content, or the names in a folder, survive a power cut."""
    if os.name != 'posix':  # Windows opens no folder, and syncs only files that are open for writing
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def room(folder: Path, size: int) -> str:
    """Return a text with the needed and the free space; empty if the free space is unknown."""
    with suppress(OSError):
        return f' ({size / 2**20:,.1f} MiB needed, {shutil.disk_usage(folder).free / 2**20:,.1f} MiB free there)'
    return ''
