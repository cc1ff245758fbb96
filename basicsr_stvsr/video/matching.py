"""Frames of several videos that are shown at one time."""
import math
from collections.abc import Iterator, Sequence
from fractions import Fraction
from typing import NamedTuple

import numpy as np

from ..io.frame_source import Source
from ..io.video_info import VideoError, VideoInfo

# Matroska rounds times to milliseconds: a frame is off by up to half of one, and so is the first, from which we count.
TOLERANCE = Fraction(1, 400)  # seconds



class Shown(NamedTuple):
    """What a video shows at some time: its frame `number`, which `is_held` where it is an earlier one that stays."""

    number: int
    image: np.ndarray  # (h, w, 3), RGB, uint8 or uint16
    is_held: bool


class Row(NamedTuple):
    """What every video shows at a time in seconds, counted from its first frame."""

    time: Fraction
    shown: list[Shown]


class Matcher:
    """Frames of several videos by the times of the faster one of the first two, see `rows`.

    Attributes:
        num_frames: of that one, as far as the file tells; 0: unknown, as before the first row.
        notes: why the rows ended before a video did; complete once they have ended.
    """

    def __init__(self, sources: Sequence[Source], labels: Sequence[str]):
        self._sources, self._labels = sources, labels
        self.num_frames = 0
        self.notes: list[str] = []

    def rows(self) -> Iterator[Row]:
        """Reads all videos at once, frame by frame.

        Raises:
            VideoError: a video cannot be read, or its times do not match.
        """
        tracks = [_Track(source) for source in self._sources]
        # By their frames, as the rate that a file states may be anything where it varies
        fast = 1 if tracks[1].first_interval() + TOLERANCE < tracks[0].first_interval() else 0
        clock = tracks[fast]
        self.num_frames = clock.info.about_frames
        followers = {i: _Follower(track, clock, may_be_faster=i == 2) for i, track in enumerate(tracks) if i != fast}
        while True:
            shown = {i: follower.at(clock.time) for i, follower in followers.items()}
            ended = [i for i, frame in shown.items() if frame is None]
            if not ended:
                shown[fast] = Shown(clock.number, clock.image, False)
                yield Row(clock.time, [shown[i] for i in range(len(tracks))])
                if clock.step():
                    continue
                ended = [fast] if any(tracks[i].goes_beyond(clock) for i in followers) else []
            self.notes += [f'{self._labels[i]} ends before the others do; what they have beyond that is left out.'
                           for i in ended]
            return


class _Track:
    """A video, frame by frame: the present one is `image`, number `number`, at `time` seconds from the first one."""

    def __init__(self, source: Source):
        self.info = source.info
        self._frames = source.frames()
        first = next(self._frames, None)
        if first is None:
            raise VideoError(f'{self.info.path}: expected frames, there are none')
        self._start = first.time
        self.number, self.image, self.time = 0, first.image, Fraction(0)
        self._next = next(self._frames, None)
        self._interval = 1 / Fraction(self.info.rate) if self.info.rate else Fraction(0)  # to the frame before

    def first_interval(self) -> Fraction | float:
        return math.inf if self._next is None else self._next.time - self._start

    def has_next(self, until: Fraction) -> bool:
        """Whether there is a next frame, not later than `until`."""
        return self._next is not None and self._next.time - self._start <= until

    def step(self) -> bool:
        """Goes to the next frame; False: there is none."""
        if self._next is None:
            return False
        time = self._next.time - self._start
        self._interval = time - self.time
        self.number, self.image, self.time = self.number + 1, self._next.image, time
        self._next = next(self._frames, None)
        return True

    def has_ended(self, time: Fraction) -> bool:
        """Whether the last frame has had its time, for which there is no frame to tell."""
        return self._next is None and self.time + self._interval <= time + TOLERANCE

    def goes_beyond(self, other: '_Track') -> bool:
        """Whether there are frames after the last one of another track has had its time."""
        return self._next is not None and self._next.time - self._start + TOLERANCE >= other.time + other._interval


class _Follower:
    """What a video shows at the times of another, the clock.

    Args:
        may_be_faster: whether it may have frames where the clock has none; they are passed over.
    """

    def __init__(self, track: _Track, clock: _Track, *, may_be_faster: bool):
        self._track, self._clock, self._may_be_faster = track, clock, may_be_faster
        self._steps = self._clock_steps = 0  # since the last frame that both have
        self._ratio: tuple[int, int] | None = None  # these steps from one such frame to the next, always the same

    def at(self, time: Fraction) -> Shown | None:
        """The frame at `time`, or the one before where it has none; None: the video has ended.

        Raises:
            VideoError: the times do not match.
        """
        track = self._track
        if time == 0:
            return Shown(0, track.image, False)
        self._clock_steps += 1
        num_steps = 0
        while track.has_next(time + TOLERANCE):
            track.step()
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
        if not matches:
            raise VideoError(f'{track.info.path}: {_rate(track.info)}, does not match {self._clock.info.path}: '
                             f'{_rate(self._clock.info)}, at {float(time):.3f} s; expected frames at the same times, '
                             'or always the same whole number of frames in one for each of the other')
        return Shown(track.number, track.image, is_held)


def _rate(info: VideoInfo) -> str:
    return f'{float(info.rate):.6g} frames a second' if info.rate else 'of unknown frame rate'
