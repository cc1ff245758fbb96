"""Find damage in Matroska and WebM files. FFmpeg skips damaged elements, and the frames in them.

EBML (RFC 8794, 9559): a file is a sequence of elements. Each is an identifier, the size of its content, and the
content.
"""
from typing import BinaryIO

from .video_info import DamageError


class MatroskaElements:
    """Walk through the elements of a file.

    Args:
        file: open for reading.
        size: size of the file, bytes.
    """
    _SEGMENT, _CLUSTER = bytes.fromhex('18538067'), bytes.fromhex('1f43b675')
    _PASSED = frozenset(bytes.fromhex(name) for name in (
        '1a45dfa3', 'ec', 'bf',  # EBML header; anywhere: void, checksum
        '114d9b74', '1549a966', '1654ae6b', '1c53bb6b', '1941a469', '1043a770', '1254c367',  # of the segment
        'e7', 'a7', 'ab', 'a3', 'a0', '5854'))  # of clusters: times and blocks

    def __init__(self, file: BinaryIO, size: int):
        self._file, self._size = file, size
        self._next, self._end = 0, size

    def advance(self, position: int | None = None) -> None:
        """Raise DamageError if an element that starts before `position` is damaged or cut off.

        Args:
            position: default: the end of the file.
        """
        while self._next < (self._end if position is None else min(position, self._end)):
            if self._next >= self._size:
                raise DamageError(f'the video is truncated, it has {self._size} of {self._end} bytes')
            self._file.seek(self._next)
            identifier = _read_number(self._file)
            field = _read_number(self._file)
            content = self._file.tell()
            unknown = 2**(7 * len(field)) - 1  # the size in a recording that was never closed
            size = int.from_bytes(field) & unknown
            if identifier == self._SEGMENT and size != unknown:
                self._end = content + size
            if identifier in (self._SEGMENT, self._CLUSTER):
                self._next = content
            elif field and (identifier in self._PASSED or self._is_known(content + size)):
                self._next = content + size
            else:
                raise DamageError(f'the Matroska file is damaged at byte {self._next}')

    def _is_known(self, position: int) -> bool:
        """Return whether an element of a known kind starts there, or the file ends.

        If so, the element before it may be of a new kind.
        """
        self._file.seek(position)
        return position == self._end or _read_number(self._file) in self._PASSED | {self._CLUSTER}


def _read_number(file: BinaryIO) -> bytes:
    """Read an identifier or a size: the leading zero bits of the first byte count the further bytes."""
    first = file.read(1)
    return first + file.read(8 - first[0].bit_length()) if first and first[0] else b''
