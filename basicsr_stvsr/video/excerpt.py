"""A part of a video, as a source."""
from collections.abc import Iterator, Sequence
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np

from ..io.frame_source import Source, TimedFrame
from ..io.video_info import VideoError


class Excerpt:
    """The frames of a source from `start` seconds after its first frame on, for `duration` seconds.

    Times stay those of the source. Closing it closes the source.

    Args:
        source: the whole video.
        start: seconds.
        duration: seconds; None: up to the end.

    Raises:
        VideoError: no frame is in that part.
    """

    def __init__(self, source: Source, start: Fraction, duration: Fraction | None = None):
        whole = source.info
        self.source, self.since = source, whole.start + start
        self.end = None if duration is None else self.since + duration
        first = next(self.times(), None)
        if first is None:
            end = 'on' if duration is None else f'to {float(start + duration):g} s'
            raise VideoError(f'{whole.path}: no frame from {float(start):g} s {end}'
                             + (f'; the video is {float(whole.duration):g} s long' if whole.duration else ''))
        left = max(whole.duration - start, Fraction(0))  # 0 if the duration is unknown, too
        seconds = min(duration, left) if duration is not None and left else duration or left
        self.info = replace(whole, start=first, duration=seconds, num_frames=round(seconds * whole.rate))
        self.notes = source.notes
        self.reading = f'{source.reading}, {start} s + {duration} s'

    @property
    def files(self) -> Sequence[Path]:
        return self.source.files

    def frames(self, start: Fraction | None = None) -> Iterator[TimedFrame[np.ndarray]]:
        for frame in self.source.frames(self.since if start is None else max(start, self.since)):
            if self.end is not None and frame.time >= self.end:
                return
            yield frame

    def times(self, start: Fraction | None = None) -> Iterator[Fraction]:
        for time in self.source.times(self.since if start is None else max(start, self.since)):
            if self.end is not None and time >= self.end:
                return
            yield time

    def close(self) -> None:
        self.source.close()

    def __enter__(self) -> 'Excerpt':
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()
