"""What every source of optical flow is: an estimator of the flow between two frames, or a store of flows made before.

The flow from `first` to `second` is the textbook one: it lies on first's grid, (h, w, 2), x then y, in pixels, and says
where first's pixels have gone to. Sampled along it, `warp(second, flow)`, the second frame looks like the first.
"""
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

import cv2
import numpy as np

from ..config.registered import FLOW_REGISTRY


class FlowEstimator(ABC):
    """Estimates the flow between two frames; the same frames always give the same flow.

    Estimators may be pickled and forked (DataLoader workers).

    Args:
        upscale: the flow is estimated on frames enlarged so many times, and brought back; 2 is what FISR's authors did.
            Small motion and thin things are found better, at `upscale`² times the cost.

    Raises:
        ValueError: `upscale` is less than 1.
    """

    def __init__(self, upscale: int = 1):
        if upscale < 1:
            raise ValueError(f'upscale must be a whole number >= 1, got {upscale}')
        self.upscale = upscale

    def __call__(self, first: np.ndarray, second: np.ndarray) -> np.ndarray:
        """The flow from `first` to `second`.

        Args:
            first, second: uint8 (h, w, 3), BGR, of any size.

        Returns:
            float32 (h, w, 2), x then y, pixels.

        Raises:
            ValueError: the frames are no two such arrays of one shape.
        """
        for frame in (first, second):
            if frame.dtype != np.uint8 or frame.ndim != 3 or frame.shape[2] != 3 or not frame.size:
                raise ValueError(f'{type(self).__name__} needs two uint8 frames (h, w, 3), BGR, but got {frame.dtype} '
                                 f'{frame.shape}')
        if first.shape != second.shape:
            raise ValueError(f'{type(self).__name__} needs two frames of one size, but got {first.shape[:2]} and '
                             f'{second.shape[:2]} (h, w)')
        if self.upscale == 1:
            return self.estimate(first, second)
        flow = self.estimate(enlarge(first, self.upscale), enlarge(second, self.upscale))
        return shrink_flow(flow, self.upscale)

    @abstractmethod
    def estimate(self, first: np.ndarray, second: np.ndarray) -> np.ndarray:
        """What the call does, of frames that are checked and enlarged already."""


class StoredFlow(ABC):
    """Flows that were made before, by the names of clip and frames; may be pickled and forked (DataLoader workers)."""

    @abstractmethod
    def read(self, clip: str, first: str, second: str, size: tuple[int, int]) -> np.ndarray:
        """The flow from one frame to another.

        Args:
            clip: as the reader of the frames names it.
            first, second: the frames, as `FrameReader.frame_name` names them.
            size: height and width of the frames.

        Returns:
            float32 (h, w, 2), x then y, pixels; the caller may not write to it.

        Raises:
            FrameReadError: there is no such flow, it is damaged, of another size, or has values that are no motion.
        """


def build_flow(opt: Mapping[str, Any]) -> FlowEstimator | StoredFlow:
    """Builds the source of flow that the options ask for.

    Args:
        opt: `{type: NAME, arguments}`, such as `{type: DISFlow, preset: fast}`; checked by `config.Flow` where it comes
            from an option file.

    Raises:
        ValueError: nothing of this name is registered, or a value is wrong.
        TypeError: an argument is unknown or missing.
        OSError: a file that an argument names is missing or damaged.
    """
    arguments = dict(opt)
    name = arguments.pop('type', None)
    if name not in FLOW_REGISTRY:
        raise ValueError(f'type of a source of flow must be one of {", ".join(sorted(FLOW_REGISTRY.keys()))}, '
                         f'but is {name!r}')
    return FLOW_REGISTRY.get(name)(**arguments)


def enlarge(frame: np.ndarray, scale: int) -> np.ndarray:
    """`skimage.transform.resize`, bilinear, which FISR's authors used: uint8 (h, w, C) -> uint8 (s * h, s * w, C)."""
    height, width = frame.shape[:2]
    # Outside of a frame skimage sees it mirrored, OpenCV its last pixels.
    mirrored = cv2.copyMakeBorder(frame.astype(np.float32), *[1] * 4, cv2.BORDER_REFLECT_101)
    large = cv2.resize(mirrored, (scale * (width + 2), scale * (height + 2)), interpolation=cv2.INTER_LINEAR)
    return np.rint(large[scale:-scale, scale:-scale]).astype(np.uint8)


def shrink_flow(flow: np.ndarray, scale: int) -> np.ndarray:
    """The same with `anti_aliasing`: a flow (s * h, s * w, 2) -> (h, w, 2), in pixels of that size."""
    sigma = (scale - 1) / 2
    reach = round(4 * sigma)
    smooth = cv2.GaussianBlur(flow, [2 * reach + 1] * 2, sigma, borderType=cv2.BORDER_REFLECT_101)
    size = flow.shape[1] // scale, flow.shape[0] // scale
    return cv2.resize(smooth, size, interpolation=cv2.INTER_LINEAR) / scale
