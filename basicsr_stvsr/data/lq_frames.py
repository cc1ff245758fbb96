"""Sources of LR frames: files, or HR frames that are degraded, with or without blur first.

Crops are in pixels of the frames that a source returns.
"""
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from ..io.frames import DerivedReader, FrameReader
from .clip_options import MotionBlurOptions
from .crops import Crop, add_margin, crop_arrays, relative_to, scale_crop
from .degradations import Degradation, mod_crop
from .motion_blur import motion_blur
from .video_degradation import VideoDegradation


class Window(NamedTuple):
    """Part of a clip.

    Attributes:
        clip: name of the clip.
        frames: ground truth by number, evenly spaced; empty without ground truth.
        uniform: draws a number between two others, for everything random.
    """
    clip: str
    frames: Mapping[int, np.ndarray]
    uniform: Callable[[float, float], float]


class CropSource(ABC):
    """A source of frames of a window."""

    @abstractmethod
    def read(self, window: Window, numbers: Sequence[int], crop: Crop) -> list[np.ndarray]:
        """Return a crop of the frames of these numbers, uint8 (h, w, C). The caller must not write to it.

        Raises:
            FrameReadError: a frame is missing or damaged.
        """


class GroundTruth(CropSource):
    """The frames of the window themselves."""

    def read(self, window: Window, numbers: Sequence[int], crop: Crop) -> list[np.ndarray]:
        return crop_arrays([window.frames[number] for number in numbers], crop)


class Stored(CropSource):
    """The frames of a reader whose clips have the same names as those of the window."""

    def __init__(self, reader: FrameReader):
        self.reader = reader

    def read(self, window: Window, numbers: Sequence[int], crop: Crop) -> list[np.ndarray]:
        return crop_arrays([self.reader.frame(window.clip, number) for number in numbers], crop)


class MotionBlurred(CropSource):
    """Ground truth with motion blur, as from a longer exposure.

    The window must hold the neighbours of the frames to blur.

    Args:
        settings: exposure and number of sub-frames.
        margin: extra pixels around a crop for the flow estimator.
    """

    def __init__(self, settings: MotionBlurOptions, margin: int):
        self.settings, self.margin = settings, margin

    def read(self, window: Window, numbers: Sequence[int], crop: Crop) -> list[np.ndarray]:
        order = sorted(window.frames)
        frames = [window.frames[number] for number in order]
        padded = add_margin(crop, self.margin, frames[0].shape[:2])
        return motion_blur(crop_arrays(frames, padded), self.settings.draw_exposure(window.uniform),
                           num_frame=self.settings.num_frame, which=map(order.index, numbers),
                           crop=relative_to(crop, padded))


class Degraded(CropSource):
    """Degrade the frames of a source that have the size of ground truth. A crop equals that of the whole frame."""

    def __init__(self, source: CropSource, degradation: Degradation):
        self.source, self.degradation = source, degradation

    def read(self, window: Window, numbers: Sequence[int], crop: Crop) -> list[np.ndarray]:
        s = self.degradation.scale
        height, width = next(iter(window.frames.values())).shape[:2]
        # The filter needs the surroundings of the crop; padding applies only at the real border of the frame.
        padded = add_margin(crop, self.degradation.margin // s, (height // s, width // s))
        frames = self.source.read(window, numbers, scale_crop(padded, s))
        return crop_arrays([self.degradation(frame) for frame in frames], relative_to(crop, padded))


class VideoDegraded(CropSource):
    """Degrade the frames of a source by a random degradation of the whole window, in temporal order.

    The codec encodes exactly the requested frames, also if the window is played backwards. A crop gets a margin, but
    does not equal that of the whole frame.
    """

    def __init__(self, source: CropSource, degradation: VideoDegradation):
        self.source, self.degradation = source, degradation

    def read(self, window: Window, numbers: Sequence[int], crop: Crop) -> list[np.ndarray]:
        s = self.degradation.scale
        height, width = next(iter(window.frames.values())).shape[:2]
        padded = self.degradation.padded(crop, (height // s, width // s))
        order = sorted(numbers)
        frames = self.source.read(window, order, scale_crop(padded, s))
        low = dict(zip(order, self.degradation(frames, int(window.uniform(0, 2**53))), strict=True))
        return crop_arrays([low[number] for number in numbers], relative_to(crop, padded))


def degraded(source: CropSource, degradation: Degradation | VideoDegradation) -> CropSource:
    """Return a source of LR frames that degrades those of a source of HR frames."""
    if isinstance(degradation, VideoDegradation):
        return VideoDegraded(source, degradation)
    return Degraded(source, degradation)


def degrade_whole(frame: np.ndarray, degradation: Degradation) -> np.ndarray:
    """Crop a frame to a multiple of the scale, and degrade it."""
    return degradation(mod_crop(frame, degradation.scale))


class PairedReader(DerivedReader):
    """Another version of the ground truth's clips, such as LR ones, under the names of the ground truth.

    Clips are paired by name. If both have a single clip, such as a video file, their names may differ.

    Args:
        reader: the other version.
        gt: the ground truth.
        clips: names of the clips of `gt` to use.
        ratio: how many times larger the frames of `gt` are.
        option: option that names `reader`, for messages.

    Attributes:
        stored_name: name of a clip in `gt` -> its name in `reader`.

    Raises:
        ValueError: clips are missing.
    """

    def __init__(self, reader: FrameReader, gt: FrameReader, clips: Sequence[str], *, ratio: int, option: str):
        super().__init__(reader)
        self.gt_reader, self.ratio = gt, ratio
        self.clips = list(clips)
        self.stored_name = self._pair(option)

    def _pair(self, option: str) -> dict[str, str]:
        stored = set(self._reader.clips)
        if len(self.clips) == len(stored) == 1:
            return {self.clips[0]: self._reader.clips[0]}
        missing = [clip for clip in self.clips if clip not in stored]
        if missing:
            raise ValueError(f'{len(missing)} clips of dataroot_gt are not in {option} ({self.path}); the first is '
                             f'{missing[0]!r}')
        return {clip: clip for clip in self.clips}

    def num_frames(self, clip: str) -> int:
        return self._reader.num_frames(self.stored_name[clip])

    def frame_name(self, clip: str, index: int) -> str:
        return self._reader.frame_name(self.stored_name[clip], index)

    def frame_size(self, clip: str) -> tuple[int, int]:
        return self._reader.frame_size(self.stored_name[clip])

    def _read(self, clip: str, index: int) -> np.ndarray:
        return self._reader.frame(self.stored_name[clip], index)

    def check_frame_counts(self) -> None:
        """Raise ValueError if a clip and its ground truth differ in the number of frames."""
        for clip in self.clips:
            gt, stored = self.gt_reader.num_frames(clip), self.num_frames(clip)
            if gt != stored:
                raise ValueError(f'clip {clip!r} has {gt} frames in {self.gt_reader.path} and {stored} in {self.path}')

    def check_size(self, clip: str) -> None:
        """Raise ValueError if the frame size of a clip does not match its ground truth."""
        gt, stored = self.gt_reader.frame_size(clip), self.frame_size(clip)
        if (gt[0] // self.ratio, gt[1] // self.ratio) != stored:  # mod_crop cuts off the remainder
            expected = f'{self.ratio} times the size' if self.ratio > 1 else 'the same size'
            raise ValueError(f'clip {clip!r} is {gt[0]}x{gt[1]} (h x w) in {self.gt_reader.path} and '
                             f'{stored[0]}x{stored[1]} in {self.path}, expected {expected}')
