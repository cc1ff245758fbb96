"""Write files atomically."""
import hashlib
import io
import os
import shutil
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch


class CheckpointError(RuntimeError):
    """A checkpoint could not be written; earlier ones are intact."""


def write_whole(path: str | Path, content: Mapping[str, Any]) -> str:
    """Save like `torch.save`, but atomically: after a failure at any moment, the old file is intact.

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
                              'The checkpoints before it are whole; --auto_resume goes on from the newest') from error
    return hashlib.sha256(data).hexdigest()


def replace_file(path: Path, data: bytes | memoryview) -> None:
    """Write a file atomically; on OSError, the old file is intact."""
    temporary = path.with_name(f'{path.name}.tmp')
    try:
        with open(temporary, 'wb') as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
        sync_folder(path.parent)
    except OSError:
        with suppress(OSError):
            temporary.unlink()
        raise


def sync_folder(folder: Path) -> None:
    """Make a rename survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def room(folder: Path, size: int) -> str:
    """Return a text with the needed and the free space; empty if the free space is unknown."""
    with suppress(OSError):
        return f' ({size / 2**20:,.1f} MiB needed, {shutil.disk_usage(folder).free / 2**20:,.1f} MiB free there)'
    return ''
