"""Evaluation protocols: data sets, frames, channels, borders, averaging, and the scores published with them.

The file of a protocol holds the options `scale`, `datasets` and `val`; files in `options/` build on it too.
published.yaml lists the protocols, with the scores printed in papers. `stvsr test --protocol NAME --model MODEL` runs
one; see docs/evaluation.md.
"""
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import yaml

FOLDER = Path(__file__).parent


@dataclass(frozen=True, kw_only=True)
class Published:
    """A row of a table in a paper.

    Attributes:
        method: name in the paper.
        scores: 'data set/metric/group' -> score, with the names in the protocol's file; groups are 'all', 'vsr' (given
            frames) and 'vfi' (interpolated frames).
        note: remark on the row.
    """
    method: str
    scores: Mapping[str, float]
    note: str = ''


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """An evaluation protocol.

    Attributes:
        file: its options.
        about: description in one line.
        source: of the published rows.
        published: rows printed in papers.
    """
    file: Path
    about: str
    source: str = ''
    published: tuple[Published, ...] = ()

    @classmethod
    def parse(cls, file: str, about: str, source: str = '', columns: tuple[str, ...] = (),
              rows: Mapping[str, list[float | None]] = MappingProxyType({}),
              notes: Mapping[str, str] = MappingProxyType({})) -> 'Protocol':
        """Build a protocol from an entry of published.yaml; a score of None was not published."""
        published = tuple(Published(method=method, note=notes.get(method, ''), scores=MappingProxyType({
            column: score for column, score in zip(columns, scores, strict=True) if score is not None}))
            for method, scores in rows.items())
        return cls(file=FOLDER / file, about=about, source=source, published=published)


def _read_all() -> dict[str, Protocol]:
    entries: dict[str, Any] = yaml.safe_load((FOLDER / 'published.yaml').read_text(encoding='utf-8'))
    return {name: Protocol.parse(**entry) for name, entry in entries.items()}


PROTOCOLS = _read_all()


def protocol_of(name: str) -> Protocol:
    """Return the protocol of a name; raise ValueError if it is unknown."""
    if name not in PROTOCOLS:
        raise ValueError(f'no protocol {name!r}, expected one of {", ".join(PROTOCOLS)}')
    return PROTOCOLS[name]
