"""What hands out frames with their times."""
from collections.abc import Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np

from .video_info import VideoInfo


class TimedFrame(NamedTuple):
    """A frame and when it is shown.

    Attributes:
        image: (h, w, 3) RGB; uint8, 0-255, from sources of at most 8 bits, else uint16, 0-65535. In memory its planes
            may lie behind each other.
        time: seconds, exactly as the time stamp says.
    """
    image: np.ndarray
    time: Fraction


class Source(Protocol):
    """What frames come from.

    Attributes:
        info: what is known of it.
        files: what is read.
        reading: how, as far as that changes the frames.
    """
    info: VideoInfo
    files: Sequence[Path]
    reading: str

    def frames(self, start: Fraction | None = None) -> Iterator[TimedFrame]: ...

    def times(self, start: Fraction | None = None) -> Iterator[Fraction]: ...

    def close(self) -> None: ...

    def __enter__(self) -> 'Source': ...

    def __exit__(self, *exc_info: object) -> None: ...
