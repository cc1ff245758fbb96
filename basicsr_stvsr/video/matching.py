"""Match the frames of several videos by time."""
import math
from collections.abc import Iterator, Sequence
from fractions import Fraction
from typing import NamedTuple

import numpy as np

from ..io.frame_source import Source
from ..io.video_info import VideoError, VideoInfo

# Matroska rounds times to milliseconds. Both a frame and the first frame, which sets time zero, may be off by 0.5 ms.
TOLERANCE = Fraction(1, 400)  # seconds


class Shown(NamedTuple):
    """The frame that a video shows at some time; `is_held` if it repeats an earlier frame."""

    number: int
    image: np.ndarray  # (h, w, 3), RGB, uint8 or uint16
    is_held: bool


class Row(NamedTuple):
    """The frame of every video at `time`, in seconds from its first frame."""

    time: Fraction
    shown: list[Shown]


class Matcher:
    """Match frames of several videos at the times of the fastest; see `rows`.

    Args:
        sources: the videos.
        labels: their names in notes.
        num_compared: how many of them may be the fastest; the others may have frames between, which are skipped.
        any_rate: accept times that do not match; a video then holds its previous frame.

    Attributes:
        about_frames: frames of the fastest video, as stated by the file; 0 if unknown, or before the first row.
        notes: why the rows ended before a video did; complete after the last row.
    """

    def __init__(self, sources: Sequence[Source], labels: Sequence[str], *, num_compared: int, any_rate: bool = False):
        self._sources, self._labels, self._num_compared, self._any_rate = sources, labels, num_compared, any_rate
        self.about_frames = 0
        self.notes: list[str] = []

    def rows(self) -> Iterator[Row]:
        """Read all videos in step and yield one row per time.

        Raises:
            VideoError: a video cannot be read, or its times do not match.
        """
        tracks = [_Track(source) for source in self._sources]
        # Compare frame intervals, because the stated rate of a file with variable frame rate is unreliable
        fast = 0
        for i in range(1, self._num_compared):
            if tracks[i].first_interval() + TOLERANCE < tracks[fast].first_interval():
                fast = i
        clock = tracks[fast]
        self.about_frames = clock.info.about_frames
        followers = {i: _Follower(track, clock, may_be_faster=i >= self._num_compared, any_rate=self._any_rate)
                     for i, track in enumerate(tracks) if i != fast}
        while True:
            found = {i: follower.at(clock.time) for i, follower in followers.items()}
            shown = {i: frame for i, frame in found.items() if frame is not None}
            ended = [i for i in found if i not in shown]
            if not ended:
                shown[fast] = Shown(clock.number, clock.image, False)
                yield Row(clock.time, [shown[i] for i in range(len(tracks))])
                if clock.advance():
                    continue
                ended = [fast] if any(tracks[i].goes_beyond(clock) for i in followers) else []
            self.notes += [f'{self._labels[i]} ends before the others; their later frames are left out.'
                           for i in ended]
            return


class _Track:
    """A video read frame by frame. The current frame is `image`, number `number`, `time` seconds after the first."""

    def __init__(self, source: Source):
        self.info = source.info
        self._frames = source.frames()
        first = next(self._frames, None)
        if first is None:
            raise VideoError(f'{self.info.path}: has no frames')
        self._start = first.time
        self.number, self.image, self.time = 0, first.image, Fraction(0)
        self._next = next(self._frames, None)
        self._interval = 1 / Fraction(self.info.rate) if self.info.rate else Fraction(0)  # since the previous frame

    def first_interval(self) -> Fraction | float:
        return math.inf if self._next is None else self._next.time - self._start

    def has_next(self, until: Fraction) -> bool:
        """Whether there is a next frame at or before `until`."""
        return self._next is not None and self._next.time - self._start <= until

    def advance(self) -> bool:
        """Go to the next frame; return False at the end."""
        if self._next is None:
            return False
        time = self._next.time - self._start
        self._interval = time - self.time
        self.number, self.image, self.time = self.number + 1, self._next.image, time
        self._next = next(self._frames, None)
        return True

    def has_ended(self, time: Fraction) -> bool:
        """Whether the last frame is over; its duration is taken from the last interval."""
        return self._next is None and self.time + self._interval <= time + TOLERANCE

    def goes_beyond(self, other: '_Track') -> bool:
        """Whether frames remain after the last frame of another track is over."""
        return self._next is not None and self._next.time - self._start + TOLERANCE >= other.time + other._interval


class _Follower:
    """The frames that a video shows at the times of another track, the clock.

    Args:
        may_be_faster: whether the video may have frames between those of the clock; they are skipped.
        any_rate: see `Matcher`.
    """

    def __init__(self, track: _Track, clock: _Track, *, may_be_faster: bool, any_rate: bool):
        self._track, self._clock, self._may_be_faster, self._any_rate = track, clock, may_be_faster, any_rate
        self._steps = self._clock_steps = 0  # since the last frame that both have
        self._ratio: tuple[int, int] | None = None  # constant number of these steps between frames that both have

    def at(self, time: Fraction) -> Shown | None:
        """Return the frame at `time`, or hold the previous one if it has none; None after the end.

        Raises:
            VideoError: the times do not match.
        """
        track = self._track
        if time == 0:
            return Shown(0, track.image, False)
        self._clock_steps += 1
        num_steps = 0
        while track.has_next(time + TOLERANCE):
            track.advance()
            num_steps += 1
        self._steps += num_steps
        is_held = abs(track.time - time) > TOLERANCE
        if is_held and track.has_ended(time):
            return None
        if is_held:
            matches = num_steps == 0
        else:
            ratio = self._steps, self._clock_steps
            self._ratio = self._ratio or ratio
            matches = ratio == self._ratio and min(ratio) == 1 and (ratio[0] == 1 or self._may_be_faster)
            self._steps = self._clock_steps = 0
        if not matches and not self._any_rate:
            raise VideoError(f'{track.info.path}: {_rate(track.info)}, does not match {self._clock.info.path}: '
                             f'{_rate(self._clock.info)}, at {float(time):.3f} s; expected frames at the same times, '
                             'or a constant whole number of frames in one for each frame of the other')
        return Shown(track.number, track.image, is_held)


def _rate(info: VideoInfo) -> str:
    return f'{float(info.rate):.6g} frames a second' if info.rate else 'of unknown frame rate'
