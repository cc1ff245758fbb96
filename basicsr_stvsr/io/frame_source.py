"""The interface of sources of frames with times."""
from collections.abc import Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Generic, NamedTuple, Protocol, Self, TypeVar

import numpy as np

from .video_info import VideoError, VideoInfo

Image = TypeVar('Image')


class TimedFrame(NamedTuple, Generic[Image]):
    """A frame and the time at which it is shown.

    Attributes:
        image: (h, w, 3) RGB, or (h, w, 4) with alpha, not premultiplied, if the `info` of the source has it. uint8,
            0-255, from sources of at most 8 bits, else uint16, 0-65535. Its memory may be planar. `restore` also takes
            tensors.
        time: seconds, exactly as in the time stamp.
    """
    image: Image
    time: Fraction


class Notes:
    """Warnings of a reader: the first of each kind, and how many more there are.

    Args:
        path: what is read.
        strict: whether a warning is an error instead.
    """

    def __init__(self, path: Path, *, strict: bool = False):
        self.path, self.strict = path, strict
        self._found: dict[str, list[str]] = {}

    def add(self, kind: str, text: str) -> None:
        """Add a warning; raise VideoError if strict. The same text counts once."""
        if self.strict:
            raise VideoError(f'{self.path}: {text}; without --strict, this is a warning')
        texts = self._found.setdefault(kind, [])
        if text not in texts:
            texts.append(text)

    def has(self, kind: str) -> bool:
        return kind in self._found

    def warnings(self) -> list[str]:
        return [f'{self.path}: {texts[0]}' + (f' ({len(texts) - 1} more of these)' if texts[1:] else '')
                for texts in self._found.values()]


class Source(Protocol):
    """A source of frames with times.

    Attributes:
        info: properties of the video.
        files: the files to read.
        reading: settings of the reading that affect the frames.
        notes: warnings so far.
    """
    info: VideoInfo
    reading: str
    notes: Notes

    @property
    def files(self) -> Sequence[Path]: ...

    def frames(self, start: Fraction | None = None) -> Iterator[TimedFrame[np.ndarray]]: ...

    def times(self, start: Fraction | None = None) -> Iterator[Fraction]: ...

    def close(self) -> None: ...

    def __enter__(self) -> Self: ...

    def __exit__(self, *exc_info: object) -> None: ...
