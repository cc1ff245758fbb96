"""Write JSON without NaN and infinity, and read files with one JSON object per line."""
import json
import math
from collections.abc import Mapping
from typing import Any

from .atomic_files import replace_file


def finite_or_null(value: Any) -> Any:
    """Replace infinity and NaN by None at any depth, because JSON lacks them."""
    if isinstance(value, Mapping):
        return {key: finite_or_null(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite_or_null(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def read_rows(path: str) -> list[dict[str, Any]]:
    """Read the objects with a number 'iter'; skip invalid lines, such as those left by a killed run."""
    with open(path, 'rb') as file:
        return [row for row in map(parse_row, file) if row is not None]


def drop_later_rows(path: str, last_iter: int) -> None:
    """Keep the rows up to an iteration; the file is replaced atomically."""
    rows = [row for row in read_rows(path) if row['iter'] <= last_iter]
    replace_file(path, b''.join(row_to_line(row) for row in rows))


def row_to_line(row: Mapping[str, Any]) -> bytes:
    return (json.dumps(finite_or_null(row), allow_nan=False) + '\n').encode()


def parse_row(line: bytes) -> dict[str, Any] | None:
    try:
        row = json.loads(line)
    except ValueError:
        return None
    return row if isinstance(row, dict) and isinstance(row.get('iter'), int) else None
