"""Read TensorFlow checkpoints (V2 bundles, written by TensorFlow 1 and 2) without TensorFlow.

A checkpoint NAME is a table of its variables, NAME.index, and their values, NAME.data-00000-of-00001 and more shards.

    index   blocks, and a footer of 48 bytes: the position of the block with the list of blocks, and a magic number
    block   entries in the order of their keys, each without the prefix it shares with the previous key; then the
            positions of the entries that share nothing, for faster search; a byte for the compression; a checksum
    entry   key: a variable's name. Value: its type, shape, position, size and checksum, as a protobuf message.
            The entry with the empty key describes the checkpoint as a whole.

Sources: LevelDB's doc/table_format.md; TensorFlow's tensor_bundle.proto; Protobuf's page on its encoding.
"""
import math
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

FOOTER_SIZE = 48
MAGIC = 0xdb4775248b80fb57
TRAILER_SIZE = 5  # at the end of a block: a byte for the compression, and the checksum
COMPRESSIONS = {1: 'snappy', 2: 'zlib'}
DT_FLOAT = 1
# Protobuf's codes for the type of a value
VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5


def masked_crc32c(data: bytes) -> int:
    """Return CRC-32C, rotated and shifted as LevelDB and TensorFlow store it.

    Raises:
        ImportError: the package google-crc32c is missing; a checksum in pure Python would take minutes.
    """
    try:
        import google_crc32c
    except ImportError as error:
        raise ImportError("google-crc32c is missing, which TensorFlow's checksums need; install it with `pip install "
                          'google-crc32c`') from error
    crc = google_crc32c.value(data)
    return int(((crc >> 15 | crc << 17) + 0xa282ead8) % 2**32)


class Cursor:
    """Read numbers and pieces from the start of some bytes; raise ValueError if they end too early."""

    def __init__(self, data: bytes):
        self.data, self.position = data, 0

    def __bool__(self) -> bool:
        return self.position < len(self.data)

    def take(self, count: int) -> bytes:
        piece = self.data[self.position:self.position + count]
        if len(piece) < count:
            raise ValueError(f'expected {count} bytes, but only {len(piece)} are left')
        self.position += count
        return piece

    def varint(self) -> int:
        """Read a number in groups of seven bits, the lowest first; every byte but the last has its highest bit set."""
        value = shift = 0
        while True:
            byte, = self.take(1)
            value |= (byte & 0x7f) << shift
            if byte < 0x80:
                return value
            shift += 7


# ---------------------------------------------------------------- the table

def read_block(table: bytes, offset: int, size: int) -> Iterator[tuple[bytes, bytes]]:
    """Yield the keys and values of a block; raise ValueError if it is damaged."""
    where = f'the block at byte {offset:,}'
    end = offset + size
    if end + TRAILER_SIZE > len(table):
        raise ValueError(f'{where} should end at byte {end + TRAILER_SIZE:,} of {len(table):,}')
    compression = table[end]
    if masked_crc32c(table[offset:end + 1]) != int.from_bytes(table[end + 1:end + TRAILER_SIZE], 'little'):
        raise ValueError(f'the checksum of {where} is wrong')
    if compression:
        kind = COMPRESSIONS.get(compression, f'kind {compression}')
        raise ValueError(f'{where} is compressed ({kind}), which TensorFlow does not do to checkpoints')
    num_restarts = int.from_bytes(table[max(offset, end - 4):end], 'little')
    size_of_restarts = 4 * (num_restarts + 1)
    if size_of_restarts > size:
        raise ValueError(f'{where} is too short for {num_restarts} restart points')
    entries = Cursor(table[offset:end - size_of_restarts])
    key = b''
    while entries:
        shared, size_of_rest, size_of_value = entries.varint(), entries.varint(), entries.varint()
        key = key[:shared] + entries.take(size_of_rest)
        yield key, entries.take(size_of_value)


def read_table(table: bytes) -> dict[bytes, bytes]:
    """Return all keys and values of a table; raise ValueError if it is damaged."""
    footer = table[-FOOTER_SIZE:]
    if len(table) < FOOTER_SIZE or int.from_bytes(footer[-8:], 'little') != MAGIC:
        raise ValueError(f'not an index of a TensorFlow checkpoint, or truncated: its {len(table):,} bytes end in '
                         f'{footer[-8:].hex() or "nothing"}, expected {MAGIC.to_bytes(8, "little").hex()}')
    handles = Cursor(footer)
    handles.varint(), handles.varint()  # skip the block about the table, which is empty
    entries: dict[bytes, bytes] = {}
    for _, handle in read_block(table, handles.varint(), handles.varint()):
        place = Cursor(handle)
        entries.update(read_block(table, place.varint(), place.varint()))
    return entries


# ---------------------------------------------------------------- the messages

Message = dict[int, list[Any]]  # by field number: numbers or bytes, as the message defines


def read_message(data: bytes) -> Message:
    """Return the values of a Protobuf message by field number; a field may be repeated."""
    fields: Message = {}
    cursor = Cursor(data)
    while cursor:
        number, kind = divmod(cursor.varint(), 8)
        value: int | bytes
        if kind == VARINT:
            value = cursor.varint()
        elif kind == BYTES:
            value = cursor.take(cursor.varint())
        elif kind in (FIXED32, FIXED64):
            value = int.from_bytes(cursor.take(4 if kind == FIXED32 else 8), 'little')
        else:
            raise ValueError(f'a message holds a value of the unknown kind {kind}')
        fields.setdefault(number, []).append(value)
    return fields


class Header(NamedTuple):
    """BundleHeaderProto."""

    num_shards: int
    is_big_endian: bool

    @classmethod
    def parse(cls, data: bytes) -> 'Header':
        fields = read_message(data)
        return cls(fields.get(1, [0])[-1], bool(fields.get(2, [0])[-1]))


class Entry(NamedTuple):
    """BundleEntryProto: a variable's type, shape and position in the data files."""

    dtype: int
    shape: tuple[int, ...]
    shard: int
    offset: int
    size: int
    checksum: int
    is_partitioned: bool

    @classmethod
    def parse(cls, data: bytes) -> 'Entry':
        fields = read_message(data)
        dtype, shard, offset, size, checksum = (fields.get(number, [0])[-1] for number in (1, 3, 4, 5, 6))
        shape = read_message(fields.get(2, [b''])[-1])
        sizes = tuple(read_message(dim).get(1, [0])[-1] for dim in shape.get(2, []))
        return cls(dtype, sizes, shard, offset, size, checksum, is_partitioned=7 in fields)


# ---------------------------------------------------------------- the checkpoint

class TensorFlowBundle(Mapping[str, np.ndarray]):
    """A checkpoint as a mapping from names to variables, float32. Values are read on access.

    The mapping includes all variables, but accessing one that is not float32 is an error.

    Args:
        path: NAME, NAME.index, NAME.meta or one of NAME.data-00000-of-00001, ...

    Raises:
        FileNotFoundError: the index is missing; on access, the data file is missing.
        ImportError: the package google-crc32c is missing.
        ValueError: the index is truncated, damaged or not an index. On access: the data are truncated or damaged, or
            the variable is not float32, or was saved in parts (a partitioned variable). One line names the file, the
            variable and the problem.
    """

    def __init__(self, path: str | Path):
        self.prefix = find_prefix(path)
        self.index = Path(f'{self.prefix}.index')
        try:
            table = read_table(self.index.read_bytes())
            if b'' not in table:
                raise ValueError('it has no entry about the checkpoint as a whole, whose key is empty')
            self.header = Header.parse(table.pop(b''))
            # Keys that begin with a zero byte are parts of partitioned variables.
            self.entries = {
                key.decode(errors='backslashreplace'): Entry.parse(value)
                for key, value in table.items() if not key.startswith(b'\0')}
        except ValueError as error:
            raise ValueError(f'{self.index}: {error}') from error
        if self.header.is_big_endian:
            raise ValueError(f'{self.index}: the values are big-endian, expected little-endian')

    def __iter__(self) -> Iterator[str]:
        return iter(self.entries)

    def __len__(self) -> int:
        return len(self.entries)

    def __getitem__(self, name: str) -> np.ndarray:
        entry = self.entries[name]
        if entry.is_partitioned:
            raise ValueError(f'{self.index}: {name} was saved in parts, expected a whole variable')
        if entry.dtype != DT_FLOAT:
            raise ValueError(f"{self.index}: {name} is of TensorFlow's type {entry.dtype}, expected float32 "
                             f'({DT_FLOAT})')
        if entry.size != 4 * math.prod(entry.shape):
            raise ValueError(f'{self.index}: {name}, {entry.shape}, should have {4 * math.prod(entry.shape):,} bytes, '
                             f'but has {entry.size:,}')
        path = Path(f'{self.prefix}.data-{entry.shard:05d}-of-{self.header.num_shards:05d}')
        if not path.is_file():
            raise FileNotFoundError(f'{path} does not exist, but {self.index} says that it holds {name}')
        end, length = entry.offset + entry.size, path.stat().st_size
        if end > length:
            raise ValueError(f'{path} is truncated: {name} should end at byte {end:,} of {length:,}')
        with open(path, 'rb') as file:
            file.seek(entry.offset)
            data = file.read(entry.size)
        if masked_crc32c(data) != entry.checksum:
            raise ValueError(f'{path} is damaged: the checksum of {name}, bytes {entry.offset:,} to {end:,}, is wrong')
        return np.frombuffer(data, '<f4').reshape(entry.shape).astype(np.float32)


def find_prefix(path: str | Path) -> str:
    """Return 'x' for 'x', 'x.index', 'x.meta' or 'x.data-00000-of-00001'; FileNotFoundError without 'x.index'."""
    path = str(Path(path).expanduser())
    prefix = re.sub(r'\.(index|meta|data-\d{5}-of-\d{5})$', '', path)
    for candidate in (path, prefix):
        if Path(f'{candidate}.index').is_file():
            return candidate
    raise FileNotFoundError(f'{prefix}.index does not exist; expected a checkpoint of TensorFlow, {prefix}.index and '
                            f'{prefix}.data-00000-of-00001')
