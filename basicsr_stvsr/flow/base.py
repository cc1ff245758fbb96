"""Base classes of optical flow sources: flow estimators, and stores of precomputed flows.

The flow from `first` to `second` follows the convention of `archs.arch_util.warp`. It is on first's grid, (h, w, 2), x
then y, in pixels, and points to where first's pixels have moved: `warp(second, flow)` looks like `first`.
"""
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

import cv2
import numpy as np

from ..config.registered import FLOW_REGISTRY


class FlowEstimator(ABC):
    """Estimate the flow between two frames, deterministically.

    Estimators may be pickled and forked (DataLoader workers).

    Args:
        upscale: factor by which frames are enlarged for the estimate; the flow is then reduced to the original size.
            FISR's authors used 2. A larger value captures small motion and thin objects better, at `upscale`² times the
            cost.

    Raises:
        ValueError: `upscale` is less than 1.
    """

    def __init__(self, upscale: int = 1):
        if upscale < 1:
            raise ValueError(f'upscale must be a whole number >= 1, got {upscale}')
        self.upscale = upscale

    def __call__(self, first: np.ndarray, second: np.ndarray) -> np.ndarray:
        """Return the flow from `first` to `second`.

        Args:
            first, second: uint8 (h, w, 3), BGR, of any size.

        Returns:
            float32 (h, w, 2), x then y, pixels.

        Raises:
            ValueError: the frames are not two such arrays of one shape.
        """
        for frame in (first, second):
            if frame.dtype != np.uint8 or frame.ndim != 3 or frame.shape[2] != 3 or not frame.size:
                raise ValueError(f'{type(self).__name__} needs two uint8 frames (h, w, 3), BGR, but got {frame.dtype} '
                                 f'{frame.shape}')
        if first.shape != second.shape:
            raise ValueError(f'{type(self).__name__} needs two frames of the same size, but got {first.shape[:2]} and '
                             f'{second.shape[:2]} (h, w)')
        if self.upscale == 1:
            return self.estimate(first, second)
        flow = self.estimate(enlarge(first, self.upscale), enlarge(second, self.upscale))
        return shrink_flow(flow, self.upscale)

    @abstractmethod
    def estimate(self, first: np.ndarray, second: np.ndarray) -> np.ndarray:
        """Estimate the flow of frames that are already checked and enlarged."""


class StoredFlow(ABC):
    """Precomputed flows, addressed by clip and frame names; may be pickled and forked (DataLoader workers)."""

    @abstractmethod
    def read(self, clip: str, first: str, second: str, size: tuple[int, int]) -> np.ndarray:
        """Return the flow from one frame to another.

        Args:
            clip: its name in the reader of the frames.
            first, second: the frames, named as by `FrameReader.frame_name`.
            size: height and width of the frames.

        Returns:
            float32 (h, w, 2), x then y, pixels; read-only for the caller.

        Raises:
            FrameReadError: the flow is missing, damaged, of another size, or has values that are no motion.
        """


def build_flow(opt: Mapping[str, Any]) -> FlowEstimator | StoredFlow:
    """Build the flow source that the options describe.

    Args:
        opt: `{type: NAME, arguments}`, such as `{type: DISFlow, preset: fast}`; checked by `config.Flow` if it comes
            from an option file.

    Raises:
        ValueError: nothing is registered under this name, or a value is wrong.
        TypeError: an argument is unknown or missing.
        OSError: a file named by an argument is missing or damaged.
    """
    arguments = dict(opt)
    name = arguments.pop('type', None)
    if name not in FLOW_REGISTRY:
        raise ValueError(f'type of a flow source must be one of {", ".join(sorted(FLOW_REGISTRY.keys()))}, but is '
                         f'{name!r}')
    return FLOW_REGISTRY.get(name)(**arguments)


def enlarge(frame: np.ndarray, scale: int) -> np.ndarray:
    """Upscale like bilinear `skimage.transform.resize`: uint8 (h, w, C) -> uint8 (s * h, s * w, C).

    FISR's authors used that function.
    """
    height, width = frame.shape[:2]
    # Beyond the border, skimage mirrors the frame; OpenCV repeats the last pixels.
    mirrored = cv2.copyMakeBorder(frame.astype(np.float32), 1, 1, 1, 1, cv2.BORDER_REFLECT_101)
    large = cv2.resize(mirrored, (scale * (width + 2), scale * (height + 2)), interpolation=cv2.INTER_LINEAR)
    return np.rint(large[scale:-scale, scale:-scale]).astype(np.uint8)


def shrink_flow(flow: np.ndarray, scale: int) -> np.ndarray:
    """Downscale a flow (s * h, s * w, 2) -> (h, w, 2), in pixels of the new grid.

    It works like `resize` with `anti_aliasing`.
    """
    sigma = (scale - 1) / 2
    reach = round(4 * sigma)
    smooth = cv2.GaussianBlur(flow, [2 * reach + 1] * 2, sigma, borderType=cv2.BORDER_REFLECT_101)
    size = flow.shape[1] // scale, flow.shape[0] // scale
    return cv2.resize(smooth, size, interpolation=cv2.INTER_LINEAR) / scale
