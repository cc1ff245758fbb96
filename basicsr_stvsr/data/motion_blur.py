"""Synthetic motion blur: simulate a longer exposure from sharp frames alone.

A blurred frame is the mean, in linear light, of sub-frames spread evenly over an exposure. The exposure is centred on
the sharp frame, its ground truth. Sub-frames are interpolated between neighbouring frames along optical flow: blending
frames without flow gives double images where there is motion.

Times are in frames of the clip: 1 is the time from one frame to the next.
"""
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import cast

import cv2
import numpy as np

from ..flow import FlowEstimator, build_flow
from .crops import Crop, crop_arrays
from .degradations import linear_light_average

LONGEST_EXPOSURE = 2  # reaches to the previous and the next frame


def sub_frame_times(exposure: float, num_frame: int) -> list[float]:
    """Return the times of the sub-frames, relative to the sharp frame.

    They are the centres of `num_frame` equal parts of the exposure.
    Consecutive exposures of 1 therefore never count an instant twice.
    """
    return [exposure * (2 * part + 1 - num_frame) / (2 * num_frame) for part in range(num_frame)]


def motion_blur(frames: Sequence[np.ndarray], exposure: float, *, num_frame: int = 7,
                which: Iterable[int] | None = None, crop: Crop | None = None,
                flow: FlowEstimator | None = None) -> list[np.ndarray]:
    """Blur all or some frames of a clip.

    The first frame has no predecessor and the last has no successor: motion stops on that side.

    Args:
        frames: neighbouring frames, uint8 (h, w, 3), BGR in sRGB.
        exposure: exposure time, 0 < exposure <= 2. A camera reaches 1, where the shutter never closes. Values up to 2
            make blur visible in clips with little motion; larger ones would need frames beyond the neighbours.
        num_frame: number of sub-frames, odd, so that the sharp frame is one of them.
        which: numbers of the frames to blur; default: all.
        crop: part of the frames to return; flow is estimated on whole frames.
        flow: estimator; default: DISFlow with preset fast, which is five times faster than medium and within 2 dB of
            it.

    Returns:
        The blurred frames in the order of `which`, uint8 (h, w, 3), or the size of the crop. Frames of a clip without
        motion are unchanged.

    Raises:
        ValueError: an exposure or a number of sub-frames out of range, or frames that are not such arrays of one shape.
    """
    if not 0 < exposure <= LONGEST_EXPOSURE:
        raise ValueError(f'exposure must be > 0 and <= {LONGEST_EXPOSURE}, got {exposure}')
    if num_frame < 1 or num_frame % 2 == 0:
        raise ValueError(f'num_frame must be odd and positive, got {num_frame}')
    for frame in frames:
        if frame.dtype != np.uint8 or frame.shape != (*frames[0].shape[:2], 3):
            raise ValueError('motion blur needs uint8 frames (h, w, 3) of one shape, BGR, but got '
                             f'{sorted({(str(frame.dtype), frame.shape) for frame in frames})}')
    numbers = range(len(frames)) if which is None else list(which)
    if not frames:
        return []
    estimator = flow or cast(FlowEstimator, build_flow({'type': 'DISFlow', 'preset': 'fast'}))
    crop = crop or (0, 0, *frames[0].shape[:2])
    sharp = crop_arrays(frames, crop)

    @lru_cache(maxsize=2)  # the times before and after a frame
    def between(number: int) -> _Between:
        return _Between(frames[number], frames[number + 1], estimator, crop)

    def sub_frame(number: int, time: float) -> np.ndarray:
        first = number if time > 0 else number - 1
        if time == 0 or not 0 <= first < len(frames) - 1:
            return sharp[number]
        return between(first).at(number + time - first)

    times = sub_frame_times(exposure, num_frame)
    # In temporal order, so that each flow is estimated once, and a reversed clip gives the same frames
    blurred = {number: linear_light_average([sub_frame(number, time) for time in times])
               for number in sorted(set(numbers))}
    return [blurred[number] for number in numbers]


class _Between:
    """The interval between two frames, in a crop of the frames.

    Sub-frames follow Super SloMo without its networks (CVPR 2018, https://arxiv.org/abs/1712.00080, eq. 1 and 4). Both
    frames are sampled along flows derived from the two flows between them, and blended by distance in time.
    """

    def __init__(self, first: np.ndarray, second: np.ndarray, flow: FlowEstimator, crop: Crop):
        # OpenCV's cubic interpolation is twice as fast with float32 as with uint8.
        self._first, self._second = first.astype(np.float32), second.astype(np.float32)
        self._forward, self._backward = crop_arrays([flow(first, second), flow(second, first)], crop)
        top, left, bottom, right = crop
        x, y = np.arange(left, right, dtype=np.float32), np.arange(top, bottom, dtype=np.float32)
        self._points = np.dstack(np.meshgrid(x, y))

    def at(self, time: float) -> np.ndarray:
        """Return the sub-frame at a time from 0, the first frame, to 1, the second: uint8."""
        left = 1 - time
        to_first = -time * left * self._forward + time**2 * self._backward
        to_second = left**2 * self._forward - time * left * self._backward
        points = [self._points + to_first, self._points + to_second]
        # Cubic: the softness of bilinear sampling would look like blur.
        sampled = [cv2.remap(frame, places, None, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)  # type: ignore[call-overload]  # the stub lacks None
                   for frame, places in zip((self._first, self._second), points, strict=True)]
        # Pixels outside of one frame are taken from the other frame alone.
        height, width = self._first.shape[:2]
        shown = [cv2.inRange(places, (0, 0), (width - 1, height - 1)) > 0 for places in points]
        for own, other in ((0, 1), (1, 0)):
            only_other = shown[other] & ~shown[own]
            if only_other.any():
                np.copyto(sampled[own], sampled[other], where=only_other[..., None])
        return cv2.addWeighted(sampled[0], left, sampled[1], time, 0, dtype=cv2.CV_8U)  # rounds and clips
