"""Files that are written whole or not at all."""
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
    """A checkpoint could not be written; those written before are as they were."""


def write_whole(path: str | Path, content: Mapping[str, Any]) -> str:
    """`torch.save` that leaves either the whole new file or what was there before, whatever happens meanwhile.

    BasicSR writes in place, and after three errors gives up with a warning.

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
    """Writes a file whole, or leaves what was there and raises OSError."""
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
    """Makes the renaming itself last through a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def room(folder: Path, size: int) -> str:
    """What was needed and what is free, in words; empty where the folder does not tell."""
    with suppress(OSError):
        return f' ({size / 2**20:,.1f} MiB needed, {shutil.disk_usage(folder).free / 2**20:,.1f} MiB free there)'
    return ''
