"""The interface of sources of frames with times."""
from collections.abc import Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Generic, NamedTuple, Protocol, Self, TypeVar

import numpy as np

from .video_info import VideoInfo

Image = TypeVar('Image')


class TimedFrame(NamedTuple, Generic[Image]):
    """A frame and the time at which it is shown.

    Attributes:
        image: (h, w, 3) RGB; uint8, 0-255, from sources of at most 8 bits, else uint16, 0-65535. Its memory may be
            planar. `restore` also takes tensors.
        time: seconds, exactly as in the time stamp.
    """
    image: Image
    time: Fraction


class Source(Protocol):
    """A source of frames with times.

    Attributes:
        info: properties of the video.
        files: the files to read.
        reading: settings of the reading that affect the frames.
    """
    info: VideoInfo
    reading: str

    @property
    def files(self) -> Sequence[Path]: ...

    def frames(self, start: Fraction | None = None) -> Iterator[TimedFrame[np.ndarray]]: ...

    def times(self, start: Fraction | None = None) -> Iterator[Fraction]: ...

    def close(self) -> None: ...

    def __enter__(self) -> Self: ...

    def __exit__(self, *exc_info: object) -> None: ...
