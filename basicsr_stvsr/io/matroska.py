"""Matroska and WebM files: find damage, and state the shape of pixels.

FFmpeg skips damaged elements, and the frames in them. It writes the shape of pixels only from a field that PyAV does
not set.

EBML (RFC 8794, 9559): a file is a sequence of elements. Each is an identifier, the size of its content, and the
content.
"""
import io
import zlib
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import BinaryIO, NamedTuple

from .video_info import DamageError

# Appended to the title of a video track, it leaves room in the header for the size at which the video is shown
ROOM = ' ' * 64
_CHECKSUM = 0xbf


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
            size, unknown = _size(field)
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


def _size(field: bytes) -> tuple[int, int]:
    """Return the size that a field states, and the one that means unknown, as in recordings that were never closed."""
    unknown = 2**(7 * len(field)) - 1
    return int.from_bytes(field) & unknown, unknown


class _Element(NamedTuple):
    identifier: bytes
    content: bytes
    whole: bytes


def _elements(data: bytes) -> Iterator[_Element]:
    file = io.BytesIO(data)
    while identifier := _read_number(file):
        start = file.tell() - len(identifier)
        size, _ = _size(_read_number(file))
        yield _Element(identifier, file.read(size), data[start:file.tell()])


def _element(name: str, content: bytes) -> bytes:
    return bytes.fromhex(name) + (len(content) | 1 << 28).to_bytes(4) + content


def display_size(width: int, height: int, sample_aspect_ratio: Fraction) -> tuple[int, int]:
    """Return whole numbers with the proportions in which a video is shown, close to its size in pixels."""
    sizes = (max(1, round(width * sample_aspect_ratio)), height), (width, max(1, round(height / sample_aspect_ratio)))
    return min(sizes, key=lambda size: abs(Fraction(size[0] * height, size[1] * width) - sample_aspect_ratio))


def set_display_size(path: Path, width: int, height: int) -> None:
    """State the size at which a video is shown, in place. Other sizes than that in pixels change its proportions.

    Args:
        path: a file as FFmpeg writes it, in which the title of the video track ends in `ROOM`.

    Raises:
        OSError: the file cannot be written.
        ValueError: there is no such track.
    """
    with open(path, 'r+b') as file:
        place, tracks = _read_tracks(file)
        first, *others = [_with_display_size(element, width, height) for element in _elements(tracks)]
        if first + b''.join(others) == tracks:
            raise ValueError('its header has no room for the shape of the pixels')
        if first[0] == _CHECKSUM:  # of what follows; WebM has none
            first = first[:2] + zlib.crc32(b''.join(others)).to_bytes(4, 'little')
        file.seek(place)
        file.write(first + b''.join(others))


def _read_tracks(file: BinaryIO) -> tuple[int, bytes]:
    """Return the content of the element of tracks, and where it begins."""
    segment, tracks = bytes.fromhex('18538067'), bytes.fromhex('1654ae6b')
    while identifier := _read_number(file):
        size, _ = _size(_read_number(file))
        if identifier == tracks:
            return file.tell(), file.read(size)
        if identifier != segment:
            file.seek(size, io.SEEK_CUR)
    raise ValueError('its header lists no tracks')


def _with_display_size(entry: _Element, width: int, height: int) -> bytes:
    """Return the description of a track in as many bytes; the same element if it is none, or has no room."""
    if entry.identifier != b'\xae':
        return entry.whole
    name, video, room = bytes.fromhex('536e'), bytes.fromhex('e0'), ROOM.encode()
    parts = {element.identifier: element for element in _elements(entry.content)}
    if video not in parts or name not in parts or not parts[name].content.endswith(room):
        return entry.whole
    title = parts[name].content.removesuffix(room)
    unit = bytes.fromhex('54b2')  # FFmpeg states that it is unknown; the default is pixels
    numbers = b''.join(element.whole for element in _elements(parts[video].content) if element.identifier != unit)
    numbers += _element('54b0', width.to_bytes(4)) + _element('54ba', height.to_bytes(4))
    new = {name: _element('536e', title) if title else b'', video: _element('e0', numbers)}
    changed = b''.join(new.get(element.identifier, element.whole) for element in _elements(entry.content))
    void = len(entry.content) - len(changed) - len(_element('ec', b''))
    return entry.whole.removesuffix(entry.content) + changed + _element('ec', bytes(void))
