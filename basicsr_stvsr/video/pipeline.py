"""The way of frames from a video to its output: doublings in time, another frame rate, and one network for their size.

Doublings come first, on small frames. A network that does both then does the last doubling with the enlargement.
"""
import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import partial
from itertools import chain, islice
from typing import Literal

import numpy as np
import torch
from torch import nn

from ..archs.spec import spec_of
from ..inference.windows import Carry
from ..io.encoding import OutputSpec
from ..io.frame_source import TimedFrame
from ..io.video_info import VideoInfo
from .restorer import RestoreOptions, Restorer, like, resized, to_tensor

_LARGEST_DENOMINATOR = 2**31 - 1  # of a time base in MP4


@dataclass(frozen=True)
class Shape:
    """Size and rate of an output; by default, what the network makes.

    Attributes:
        scale: output height divided by input height.
        width, height: of the output; height alone keeps the proportions.
        fps: frames per second, at even distances, whatever the times of the input are.
        only: for networks that do both: 'space' keeps the frame rate, 'time' keeps the size.

    Raises:
        ValueError: a number that is not positive.
    """
    scale: Fraction | None = None
    width: int | None = None
    height: int | None = None
    fps: Fraction | None = None
    only: Literal['space', 'time'] | None = None

    def __post_init__(self) -> None:
        for name in ('scale', 'width', 'height', 'fps'):
            value = getattr(self, name)
            if value is not None and value <= 0:
                raise ValueError(f'{name} must be above 0, but is {value}')

    def size(self, width: int, height: int, scale: int) -> tuple[int, int]:
        """Return width and height of the output for an input, and a network that enlarges it by `scale`."""
        if self.width and self.height:
            return self.width, self.height
        if self.height:
            return _even(Fraction(width * self.height, height)), self.height
        if self.scale is None or self.scale.denominator == 1:
            factor = int(self.scale or scale)
            return factor * width, factor * height
        return _even(self.scale * width), _even(self.scale * height)


def _even(length: Fraction) -> int:
    """Return the nearest even number, as most videos have."""
    return max(2, 2 * round(length / 2))


class Retimer:
    """Show frames at even distances: at each time, the nearest one.

    Args:
        fps: frames per second.
        start: time of the first frame of the whole video.
    """

    def __init__(self, fps: Fraction, start: Fraction):
        self.fps, self.start = fps, start

    def __call__(self, frames: Iterable[TimedFrame[np.ndarray]], last_duration: Fraction) -> (
            Iterator[TimedFrame[np.ndarray]]):
        """Yield the frames; the last one is shown about as long as the one before it, or for `last_duration`."""
        shown, duration, number = None, last_duration, 0
        for frame in frames:
            if shown is None:
                number = self.number_at(frame.time)
            else:
                duration = frame.time - shown.time
                while (time := self.time(number)) < (shown.time + frame.time) / 2:
                    yield TimedFrame(shown.image, time)
                    number += 1
            shown = frame
        # Matroska rounds times, so the end is not exact
        while shown is not None and (time := self.time(number)) < shown.time + duration - 1 / (2 * self.fps):
            yield TimedFrame(shown.image, time)
            number += 1

    def number_at(self, time: Fraction) -> int:
        """Return the number of the first output frame that is not before a time."""
        return math.ceil((time - self.start) * self.fps)

    def time(self, number: int) -> Fraction:
        return self.start + number / self.fps


def resize_frames(frames: Iterable[TimedFrame[np.ndarray]], size: tuple[int, int]) -> Iterator[TimedFrame[np.ndarray]]:
    """Resize frames to width and height."""
    for image, time in frames:
        yield TimedFrame(like(image, resized(to_tensor(image, torch.device('cpu')), *size)), time)


class Pipeline:
    """Make the frames of an output from those of a video.

    Args:
        net: the network, in evaluation mode, on its device.
        options: how to restore frames.
        info: properties of the video.
        shape: size and rate of the output.
        interpolator: network that doubles the frame rate; default: `net`, if it does.

    Attributes:
        spec: describes the output frames.
        temporal_scale: output frames per input frame; None: they come at the rate of `shape`.
        context: number of previous frames needed to restore a frame exactly, apart from a recurrent state.

    Raises:
        ValueError: the networks cannot make such an output.
    """

    def __init__(self, net: nn.Module, options: RestoreOptions, info: VideoInfo, shape: Shape | None = None,
                 interpolator: nn.Module | None = None):
        shape = shape or Shape()
        self.options = options
        needs, between = spec_of(net), net if interpolator is None else interpolator
        doubles, doublings = spec_of(between).temporal_scale == 2, 0
        name = type(between).__name__
        if not doubles and (interpolator is not None or shape.only == 'time'):
            raise ValueError(f'{name} does not interpolate frames; expected a network that does, such as mbnet-small')
        if shape.fps is None:
            doublings = int(doubles and shape.only != 'space')
        else:
            doublings = self._doublings(shape, info)
            if doublings and not doubles:
                raise ValueError(f'{name} does not interpolate frames, and {shape.fps} a second are more than the '
                                 f'{info.rate} of the video; add an interpolating network: --interpolate mbnet-small')
        if shape.only == 'time' and interpolator is not None:
            raise ValueError('--time-only leaves nothing for the network that enlarges; give the interpolating one as '
                             '--model, without --interpolate')
        if shape.only == 'space' and doublings:
            raise ValueError('--space-only keeps the frame rate; leave out either it or the higher rate')
        enlarges = shape.only != 'time' and (interpolator is not None or needs.scale > 1 or needs.temporal_scale == 1)
        size = shape.size(info.width, info.height, needs.scale if enlarges else 1)
        self.spec = _output_spec(info, size, shape.fps, doublings)
        self.temporal_scale = None if shape.fps else 2**doublings

        even = options.even or shape.fps is not None
        in_time = replace(options, only='time', even=even)
        last = replace(options, size=size, even=even)
        self.before: list[Restorer] = []
        self.after: Callable[[Iterable[TimedFrame[np.ndarray]]], Iterator[TimedFrame[np.ndarray]]] | None = None
        self.recurrent: Restorer | None = None  # comes last
        if not enlarges:
            self.before = [Restorer(between, in_time) for _ in range(doublings)]
            self.after = partial(resize_frames, size=size) if size != (info.width, info.height) else None
        elif needs.recurrent and shape.fps is not None:
            self.before = [Restorer(between, in_time) for _ in range(doublings)]
            self.recurrent = Restorer(net, last)
        elif interpolator is None:
            self.before = [Restorer(net, in_time) for _ in range(doublings - 1)]
            self.before.append(Restorer(net, last if doublings else replace(last, only='space')))
        else:
            self.before = [Restorer(interpolator, in_time) for _ in range(doublings)]
            main = Restorer(net, replace(last, only='space'))
            if shape.fps is not None and needs.num_frames == 1:  # restore only frames that are shown
                self.after = main
            else:
                self.before.append(main)
        self.retimer = None if shape.fps is None else Retimer(shape.fps, info.start)

    @staticmethod
    def _doublings(shape: Shape, info: VideoInfo) -> int:
        if not info.rate:
            raise ValueError(f'{info.path}: states no frame rate, so its frames cannot be counted for a rate of '
                             f'{shape.fps}')
        assert shape.fps is not None
        doublings = 0
        while info.rate * 2**doublings < shape.fps:
            doublings += 1
        return doublings

    @property
    def context(self) -> int:
        return sum(stage.context for stage in (*self.before, *([self.recurrent] if self.recurrent else [])))

    def num_frames(self, info: VideoInfo) -> int:
        """Return the expected number of output frames; 0: unknown."""
        given = info.about_frames
        if not given:
            return 0
        if self.temporal_scale is None:
            return round(given / info.rate * self.spec.rate)
        return int(self.temporal_scale * given - (0 if self.options.even else self.temporal_scale - 1))

    def __call__(self, frames: Iterable[TimedFrame[np.ndarray]], *, carry: Carry | None = None, skip: int = 0,
                 last_duration: Fraction = Fraction(0)) -> Iterator[TimedFrame[np.ndarray]]:
        """Make the output frames of a stream; see `Restorer`."""
        if self.recurrent is not None and self.retimer is not None:
            return self._by_state(self.recurrent, self.retimer, iter(frames), carry, skip, last_duration)
        for number, stage in enumerate(self.before, 1):
            is_last = number == len(self.before)
            frames = stage(frames, carry=carry if is_last else None, skip=skip if is_last else 0,
                           last_duration=last_duration)
            if stage.doubles:
                skip, last_duration = 2 * skip, last_duration / 2
        if self.retimer is not None:
            frames = self.retimer(islice(frames, 0 if self.before else skip, None), last_duration)
        return iter(frames if self.after is None else self.after(frames))

    def _by_state(self, last: Restorer, retimer: Retimer, frames: Iterator[TimedFrame[np.ndarray]],
                  carry: Carry | None, skip: int, last_duration: Fraction) -> Iterator[TimedFrame[np.ndarray]]:
        """Make the output frames by a recurrent network, whose state does not know frames that are not shown."""
        skipped = list(islice(frames, skip + 1))
        given: Iterable[TimedFrame[np.ndarray]] = chain(skipped, frames)
        for stage in self.before:
            given, last_duration = stage(given, last_duration=last_duration), last_duration / 2
        num_skipped = retimer.number_at(skipped[-1].time) - retimer.number_at(skipped[0].time) if skipped else 0
        return last(retimer(given, last_duration), carry=carry, skip=num_skipped)


def _output_spec(info: VideoInfo, size: tuple[int, int], fps: Fraction | None, doublings: int) -> OutputSpec:
    spec = OutputSpec.of(info, temporal_scale=2**doublings)
    if fps is not None:  # times are sums of the start and multiples of 1 / fps
        denominator = math.lcm(info.start.denominator, fps.numerator)
        spec = replace(spec, rate=fps, time_base=Fraction(1, denominator if denominator <= _LARGEST_DENOMINATOR else
                                                          fps.numerator))
    width, height = size
    aspect = spec.sample_aspect_ratio
    if abs(width * info.height - info.width * height) > info.width + info.height:  # more than rounded to even sizes
        aspect *= Fraction(info.width * height, info.height * width)
    return replace(spec, width=width, height=height, sample_aspect_ratio=aspect)
