"""Make low-resolution and blurred frames from sharp ones.

There are MATLAB's bicubic, Gaussian blur followed by subsampling or bicubic, and synthetic motion blur.
`video_degradation` has the random degradation of real footage.

Frames are uint8 `(H, W, C)` or `(H, W)`, in any channel order; s = scale, an integer.
"""
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any, Literal, cast

import cv2
import numpy as np
from basicsr.data.transforms import mod_crop as mod_crop  # for scripts, where basicsr needs the patches first

from ..archs.resize import keys_cubic
from ..config.registered import DEGRADATIONS, Registered, arguments_of
from .video_degradation import VideoDegradation, video

# numpy's name of each border option. MATLAB's imresize mirrors the frame including its border pixel.
_BORDERS: dict[str, Literal['symmetric', 'reflect', 'edge']] = {
    'symmetric': 'symmetric', 'reflect': 'reflect', 'replicate': 'edge'}
_ROUNDINGS = ('round', 'floor')


@dataclass(frozen=True)
class Filter:
    """A separable low-pass filter, sampled at every s-th pixel: float64 `(sH, sW, C)` -> `(H, W, C)`.

    Attributes:
        scale: s; the frame's height and width must be multiples of it.
        taps: weights of the filter, with the sum 1.
        first: offset of the first tap for output pixel k, relative to input pixel s * k.
        border: padding of the frame: 'symmetric' (cba|abc), 'reflect' (cb|abc), 'replicate'.
    """
    scale: int
    taps: tuple[float, ...]
    first: int
    border: str

    def __post_init__(self) -> None:
        if self.scale < 1 or self.scale != int(self.scale):
            raise ValueError(f'scale must be a whole number >= 1, got {self.scale}')
        if self.border not in _BORDERS:
            raise ValueError(f'border must be one of {list(_BORDERS)}, got {self.border!r}')

    @property
    def reach(self) -> tuple[int, int]:
        """Pixels that the filter needs before the first and after the last s x s block of a crop."""
        return max(0, -self.first), max(0, self.first + len(self.taps) - self.scale)

    def __call__(self, frame: np.ndarray) -> np.ndarray:
        return self._along(self._along(frame, 0), 1)

    def _along(self, frame: np.ndarray, axis: int) -> np.ndarray:
        num_out = frame.shape[axis] // self.scale
        before, after = self.reach
        padded = np.pad(frame, [(before, after) if i == axis else (0, 0) for i in range(frame.ndim)],
                        mode=_BORDERS[self.border])
        padded = np.moveaxis(padded, axis, 0)
        start = self.first + before
        stop = start + (num_out - 1) * self.scale + 1
        out = sum(tap * padded[start + i:stop + i:self.scale] for i, tap in enumerate(self.taps))
        return np.moveaxis(cast(np.ndarray, out), 0, axis)


@dataclass(frozen=True)
class Degradation:
    """A chain of filters with rounding at the end: uint8 `(sH, sW, C)` -> `(H, W, C)`.

    Sums are in float64 and in the same order at every pixel. A crop that is extended by `margin` pixels, or up to the
    border of the frame if that is nearer, therefore gives the same bits as the whole frame.

    Attributes:
        filters: see `Filter`; none: frames stay as they are.
        rounding: 'round' (halves upwards, as MATLAB's im2uint8) or 'floor'.
    """
    filters: tuple[Filter, ...]
    rounding: str = 'round'

    def __post_init__(self) -> None:
        if self.rounding not in _ROUNDINGS:
            raise ValueError(f'rounding must be one of {list(_ROUNDINGS)}, got {self.rounding!r}')

    @property
    def scale(self) -> int:
        """s; the frame's height and width must be multiples of it."""
        return math.prod(step.scale for step in self.filters)

    @property
    def margin(self) -> int:
        """HR pixels that the filters need around a crop, rounded up to a multiple of s."""
        before = after = 0
        for step in reversed(self.filters):
            before, after = step.reach[0] + step.scale * before, step.reach[1] + step.scale * after
        return math.ceil(max(before, after) / self.scale) * self.scale

    def __call__(self, frame: np.ndarray) -> np.ndarray:
        """Degrade one frame.

        Raises:
            ValueError: the frame is not uint8 `(H, W[, C])`, or its size is no multiple of the scale.
        """
        if frame.dtype != np.uint8 or frame.ndim not in (2, 3):
            raise ValueError(f'expected a uint8 frame (H, W) or (H, W, C), got {frame.dtype} {frame.shape}')
        if frame.shape[0] % self.scale or frame.shape[1] % self.scale:
            raise ValueError(f'frame size {frame.shape[0]}x{frame.shape[1]} is not a multiple of scale {self.scale}; '
                             'crop it first, for example with mod_crop')
        if not self.filters:
            return frame
        out = frame.astype(np.float64)
        for step in self.filters:
            out = step(out)
        # The sums have an error of about 1e-13. It must not turn a whole number into the next lower one.
        out = np.floor(out + (0.5 if self.rounding == 'round' else 0) + 1e-9)
        return np.clip(out, 0, 255).astype(np.uint8)


def bicubic(scale: int) -> Degradation:
    """MATLAB's `imresize(frame, 1 / scale, 'bicubic')` with antialiasing, the LR frames of most papers.

    BasicSR's `imresize` is the same filter in float32; about one value in 100,000 differs by one grey level. With scale
    1, for networks that only interpolate, frames stay as they are.
    """
    if scale == 1:
        return Degradation(())
    centre = (scale - 1) / 2
    offsets = np.arange(math.floor(centre - 2 * scale) + 1, math.ceil(centre + 2 * scale))
    taps = np.array([keys_cubic((offset - centre) / scale) for offset in offsets])
    return Degradation((Filter(scale, tuple(taps / taps.sum()), int(offsets[0]), border='symmetric'),))


def gaussian(scale: int, *, sigma: float = 1.6, kernel_size: int = 13, border: str = 'reflect',
             rounding: str = 'round') -> Degradation:
    """Gaussian blur, then the pixels [0::s, 0::s] ("BD" in the literature).

    Published LR frames differ in the details. DUF uses sigma 1.6, border 'replicate' and rounding 'floor'. TecoGAN and
    FRVSR use sigma 1.5, 'reflect' and 'round'.

    Args:
        scale: s.
        sigma: standard deviation, in HR pixels.
        kernel_size: number of taps, odd.
        border: see `Filter`.
        rounding: see `Degradation`.
    """
    return Degradation((_gaussian_filter(scale, sigma, kernel_size, border),), rounding)


def blur_bicubic(scale: int, *, sigma: float = 2.0, kernel_size: int = 5, border: str = 'replicate') -> Degradation:
    """Gaussian blur at full size without rounding, then MATLAB's bicubic; the defaults are FSTRN's.

    Args:
        scale: s.
        sigma: standard deviation, in HR pixels.
        kernel_size: number of taps, odd.
        border: padding for the blur, see `Filter`; bicubic mirrors the blurred frame.
    """
    return Degradation((_gaussian_filter(1, sigma, kernel_size, border), *bicubic(scale).filters))


def _gaussian_filter(scale: int, sigma: float, kernel_size: int, border: str) -> Filter:
    if sigma <= 0:
        raise ValueError(f'sigma must be positive, got {sigma}')
    if kernel_size < 1 or kernel_size % 2 == 0:
        raise ValueError(f'kernel_size must be odd and positive, got {kernel_size}')
    radius = kernel_size // 2
    taps = np.exp(-0.5 * (np.arange(-radius, radius + 1) / sigma)**2)
    return Filter(scale, tuple(taps / taps.sum()), -radius, border)


DEGRADATIONS.update(bicubic=bicubic, gaussian=gaussian, blur_bicubic=blur_bicubic, video=video)
_OPTIONS = Registered(
    'degradation', lambda: DEGRADATIONS, partial(arguments_of, given=frozenset({'scale'})),
    trial=lambda degradation, arguments: degradation(4, **arguments))
DegradationBlock = Annotated[dict[str, Any], _OPTIONS]  # in the options of a data set


def build_degradation(opt: dict[str, Any] | None, scale: int) -> Degradation | VideoDegradation:
    """Build the degradation of a data set's options.

    Args:
        opt: `{type: bicubic}`, `{type: gaussian, sigma, kernel_size, border, rounding}`, `{type: blur_bicubic, sigma,
            kernel_size, border}` or `{type: video, blur, resize, noise, codec, margin}`; None is bicubic.
        scale: s.

    Raises:
        ValueError: the type or another key is unknown, or a value is wrong; the message lists the choices.
    """
    arguments = dict(_OPTIONS.read(opt or {'type': 'bicubic'}, 'degradation.'))
    return DEGRADATIONS[arguments.pop('type')](scale, **arguments)


def _srgb_to_linear(value: np.ndarray) -> np.ndarray:
    return np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055)**2.4)


def _linear_to_srgb(light: np.ndarray) -> np.ndarray:
    # In place, and with OpenCV's power: six times as fast as one numpy expression
    value: np.ndarray = cv2.pow(light, 1 / 2.4).reshape(light.shape)
    value *= 1.055
    value -= 0.055
    return np.multiply(light, 12.92, out=value, where=light <= 0.0031308)


_LINEAR_OF_LEVEL = _srgb_to_linear(np.arange(256) / 255)


def linear_light_average(frames: Sequence[np.ndarray]) -> np.ndarray:
    """Average frames in linear light, as a longer exposure would, and encode the mean as sRGB (IEC 61966-2-1).

    Args:
        frames: neighbouring uint8 frames of one shape. If their number is odd, the middle frame is the sharp ground
            truth of the result.

    Returns:
        uint8, the shape of one frame.

    Raises:
        ValueError: no frame, frames of unequal shape, or frames that are not uint8.
    """
    if not frames:
        raise ValueError('expected at least one frame to average')
    if any(frame.dtype != np.uint8 or frame.shape != frames[0].shape for frame in frames):
        raise ValueError('expected uint8 frames of one shape to average, got '
                         f'{[(str(frame.dtype), frame.shape) for frame in frames]}')
    light = np.zeros(frames[0].shape)
    for frame in frames:
        light += cv2.LUT(frame, _LINEAR_OF_LEVEL).reshape(frame.shape)
    light /= len(frames)
    return np.floor(_linear_to_srgb(light) * 255 + 0.5).astype(np.uint8)
