"""Check the container of weights before anything is read from it: size, checksums, and what else it may be.

torch.save writes a ZIP archive with a CRC-32 of every entry, but torch.load does not compare them.
"""
import hashlib
import zipfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

import torch
from torch import Tensor

from ..utils.expansion import contents, expanded_size
from ..utils.pickles import largest_tuple

MOST_VALUES = 10**7  # of a checkpoint: tensors, names and numbers beside them
MOST_IN_TUPLE = 10**4  # states of random generators have 625
_OLD_FORMAT = 4  # pickles of a file from before torch 1.6: magic number, version, system, content


class ArchiveError(ValueError):
    """The file is damaged, or would take more memory than its size. The message follows the path of the file."""


def check_archive(path: Path) -> bool:
    """Verify the checksums of a file of torch.save; return whether it has any. Files of old versions have none.

    Raises:
        ArchiveError: the file is damaged, or is compressed: a few bytes could then take all memory.
    """
    if not is_archive(path):
        with open(path, 'rb') as file:
            for _ in range(_OLD_FORMAT):
                check_pickle(file)
        return False
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
            unpacked, size = sum(entry.file_size for entry in entries), path.stat().st_size
            if unpacked > size:
                raise ArchiveError(f'unpacks to {unpacked:,} bytes, but has only {size:,}: torch.save never '
                                   'compresses, so the file is refused')
            has_checksums = any(entry.CRC for entry in entries)  # no: torch.serialization.set_crc32_options(False)
            # torch.load takes an entry that is marked as a folder for an empty one, and leaves its numbers undefined.
            folder = next((entry.filename for entry in entries if entry.is_dir() or entry.external_attr & 0x10), None)
            damaged = folder or (archive.testzip() if has_checksums else None)
    except ArchiveError:
        raise
    except Exception as error:  # of zipfile, depending on the byte where it fails
        raise ArchiveError(f'is damaged ({error})') from error
    if damaged is not None:
        raise ArchiveError(f'is damaged: its part {damaged} is not as it was saved')
    with suppress(RuntimeError):  # there is no such part, so torch.load refuses the file
        check_pickle(torch._C.PyTorchFileReader(str(path)).get_record('data.pkl'))  # the one that torch.load reads
    return has_checksums


def check_pickle(pickle: IO[bytes] | bytes) -> None:
    """Raise ArchiveError if a tuple of a pickle repeats its parts so often that hashing it would not end."""
    try:
        largest = largest_tuple(pickle)
    except (ValueError, LookupError):  # torch.load will refuse it
        return
    if largest > MOST_IN_TUPLE:
        raise ArchiveError(f'has a tuple of more than {MOST_IN_TUPLE:,} values, or that repeats its parts as often')


def check_content(content: Any) -> None:
    """Raise ArchiveError if the values of a pickle repeat their parts so often that nobody can go through them."""
    if expanded_size(content, contents) > MOST_VALUES:
        raise ArchiveError(f'holds more than {MOST_VALUES:,} values, or repeats its parts as often')


def is_archive(path: Path) -> bool:
    """Return whether a file ends like a ZIP archive, even a damaged one."""
    try:
        return zipfile.is_zipfile(path)
    except zipfile.BadZipFile:
        return True


def digest_of(tensors: Mapping[str, Tensor]) -> str:
    """Return the sha256 of named tensors, in hex: of names, types, shapes and values, in the order of the names."""
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        digest.update(f'{name} {tensor.dtype} {tuple(tensor.shape)}\n'.encode())
        digest.update(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def describe(path: Path) -> str:
    """Describe a file that torch.load rejects, based on its first bytes."""
    with open(path, 'rb') as file:
        head = file.read(200)
    size = path.stat().st_size
    if not size:
        return 'is empty'
    text = head.lstrip().lower()
    if text.startswith((b'<!doctype', b'<html', b'<?xml', b'<head')):
        return 'is a web page, as one gets by saving the page about a file instead of the file'
    if text.startswith(b'version https://git-lfs'):
        return 'is a pointer of Git LFS; `git lfs pull` fetches the file itself'
    if head.startswith(b'PK') and not is_archive(path):
        return f'is cut off after {size:,} bytes: its end is missing'
    if head.startswith((b'PK', b'\x80')):
        return 'is a PyTorch file that is damaged, or holds more than tensors and plain values, which is not loaded'
    return f'is no PyTorch file: it begins with {head[:16]!r}'
