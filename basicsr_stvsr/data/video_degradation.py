"""Low-resolution frames like those of real footage: random blur, resizing, noise and compression of a clip.

Random settings are drawn once per clip and apply to all of its frames; only noise is new in every frame. Frames are
uint8 `(H, W, 3)`, BGR; s = scale. A range is [lowest, highest], to draw from uniformly, or one number.
"""
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any, Literal

import cv2
import numpy as np
from pydantic import AfterValidator, Field

from ..config.block import Block, Count, refuse, shown
from ..io.codecs import CodecName, Preset, check_codecs, compress
from ..utils.threads import limit_opencv_in_workers
from .crops import Crop, add_margin

_METHODS = {'area': cv2.INTER_AREA, 'bilinear': cv2.INTER_LINEAR, 'bicubic': cv2.INTER_CUBIC}
_MACROBLOCK = 16  # pixels: codecs divide frames into blocks of this size, starting at the top left corner


def _within(lowest: float, highest: float) -> AfterValidator:
    """Return a validator for a number or a range."""
    def check(value: float | list[float]) -> float | list[float]:
        first, last = value if isinstance(value, list) else (value, value)
        if not lowest <= first <= last <= highest:
            raise refuse(f'must be >= {lowest:g} and <= {highest:g}, or a range [lowest, highest] within these limits, '
                         f'but is {shown(value)}')
        return value

    return AfterValidator(check)


_FloatRange = float | Annotated[list[float], Field(min_length=2, max_length=2)]
Sigma = Annotated[_FloatRange, _within(0, 20)]
Share = Annotated[float, Field(ge=0, le=1)]
CRF = Annotated[_FloatRange, _within(0, 51)]
Quantiser = Annotated[_FloatRange, _within(1, 31)]


class BlurOptions(Block):
    """`datasets.<name>.degradation.blur`, type video: Gaussian blur of the HR frames."""

    sigma: Sigma = [0.2, 3.0]
    """Range of the standard deviation, in HR pixels; 0: no blur."""
    anisotropic: Share = 0.5
    """Share of the clips with anisotropic blur: a second sigma across the first, turned by a random angle."""


class ResizeOptions(Block):
    """`datasets.<name>.degradation.resize`, type video: resize HR to LR frames."""

    methods: list[Literal['area', 'bilinear', 'bicubic']] = Field(default=['area', 'bilinear', 'bicubic'], min_length=1)
    """OpenCV interpolations to draw from. area averages; the others use 2 or 4 pixels a side, and alias."""
    intermediate: Annotated[_FloatRange, _within(0.1, 2)] = 1.0
    """Range of an intermediate size, as a multiple of the HR size; 1: no intermediate step."""


class NoiseOptions(Block):
    """`datasets.<name>.degradation.noise`, type video: noise of the LR frames, fresh in every frame."""

    gaussian: Annotated[_FloatRange, _within(0, 255)] = [0.0, 10.0]
    """Range of the standard deviation, in levels of 0-255."""
    poisson: Annotated[_FloatRange, _within(0, 255)] = [0.0, 0.3]
    """Range of the variance per level of brightness, as in photon noise: 0.3 gives white a standard deviation of 8.7
    levels."""
    grey: Share = 0.4
    """Share of the clips with equal noise in all three channels."""


class CodecOptions(Block):
    """`datasets.<name>.degradation.codec`, type video: compression of the LR frames, as one short video."""

    names: list[CodecName | Literal['none']] = Field(default=['h264', 'h265', 'mpeg4', 'none'], min_length=1)
    """Codecs to draw from: h264, h265, mpeg4, mpeg2, or none. Repeat a codec to draw it more often."""
    h264_crf: CRF = [18.0, 32.0]
    """Range of the H.264 quality (CRF); smaller is better."""
    h265_crf: CRF = [20.0, 34.0]
    """Range of the H.265 quality (CRF); smaller is better."""
    mpeg4_qscale: Quantiser = [2.0, 10.0]
    """Range of the MPEG-4 quantiser, rounded to a whole number; smaller is better."""
    mpeg2_qscale: Quantiser = [2.0, 10.0]
    """Range of the MPEG-2 quantiser, rounded to a whole number; smaller is better."""
    preset: Preset = 'medium'
    """Preset of the h264 and h265 encoders. Faster presets leave coarser artefacts."""


@dataclass(frozen=True)
class Settings:
    """Random settings of a clip.

    Attributes:
        sigmas: standard deviations of the blur along and across its axis, HR pixels.
        angle: angle of the axis, radians from x towards y.
        intermediate: intermediate size, as a multiple of the HR size.
        methods: OpenCV's interpolation to that size, and from there to the LR size.
        gaussian, poisson, grey: see `NoiseOptions`; grey: whether this clip's noise is grey.
        codec: its name, or 'none'.
        quality: quality of the codec.
    """
    sigmas: tuple[float, float]
    angle: float
    intermediate: float
    methods: tuple[str, str]
    gaussian: float
    poisson: float
    grey: bool
    codec: CodecName | Literal['none']
    quality: float


@dataclass(frozen=True)
class VideoDegradation:
    """A random degradation of a clip: blur, resizing, noise, compression, in this order.

    Real footage is compressed with all of its frames; here the encoder gets only the LR frames of the call. With
    temporal_scale 2 these are every second frame, and motion between them is twice as large as in footage at the full
    rate.

    Codecs predict across the whole frame, so that a crop cannot equal that of the whole frame. Crops are degraded with
    a margin, see `padded`.

    Attributes:
        scale: s.
        blur, resize, noise, codec: ranges and choices to draw from.
        margin: LR pixels around a crop that are degraded with it.

    Raises:
        ValueError: PyAV lacks one of the codecs.
    """
    scale: int
    blur: BlurOptions
    resize: ResizeOptions
    noise: NoiseOptions
    codec: CodecOptions
    margin: int

    def __post_init__(self) -> None:
        if wanted := [name for name in self.codec.names if name != 'none']:
            check_codecs(wanted)

    def padded(self, crop: Crop, size: tuple[int, int]) -> Crop:
        """Return the area to degrade for a crop: wider by `margin` within the frame, from a macroblock border on.

        The blocks of the codec are then aligned as in the whole frame.

        Args:
            crop: in LR pixels.
            size: height and width of LR frames.
        """
        top, left, bottom, right = add_margin(crop, self.margin, size)
        return top - top % _MACROBLOCK, left - left % _MACROBLOCK, bottom, right

    def draw(self, rng: np.random.Generator) -> Settings:
        """Draw the settings of a clip."""
        def between(value: float | Sequence[float]) -> float:
            return float(rng.uniform(*(value if isinstance(value, list) else (value, value))))

        along, across = between(self.blur.sigma), between(self.blur.sigma)
        is_anisotropic, angle = rng.random() < self.blur.anisotropic, rng.uniform(0, math.pi)
        methods = self.resize.methods
        codec = self.codec.names[rng.integers(len(self.codec.names))]
        qualities = {'h264': self.codec.h264_crf, 'h265': self.codec.h265_crf, 'mpeg4': self.codec.mpeg4_qscale,
                     'mpeg2': self.codec.mpeg2_qscale, 'none': 0}
        return Settings(
            sigmas=(along, across if is_anisotropic else along), angle=angle,
            intermediate=between(self.resize.intermediate),
            methods=(methods[rng.integers(len(methods))], methods[rng.integers(len(methods))]),
            gaussian=between(self.noise.gaussian), poisson=between(self.noise.poisson),
            grey=bool(rng.random() < self.noise.grey), codec=codec, quality=between(qualities[codec]))

    def __call__(self, frames: Sequence[np.ndarray], seed: int) -> list[np.ndarray]:
        """Degrade the frames of a clip.

        Args:
            frames: uint8 (sH, sW, 3), BGR, of one size, in temporal order.
            seed: seed of everything random.

        Returns:
            uint8 (H, W, 3), as many frames.

        Raises:
            ValueError: frames that are not such arrays, or whose size is no multiple of the scale.
        """
        for frame in frames:
            height, width = frame.shape[:2]
            if frame.dtype != np.uint8 or frame.shape != (*frames[0].shape[:2], 3):
                raise ValueError('degradation video needs uint8 frames (h, w, 3) of one size, got '
                                 f'{frame.dtype} {frame.shape}')
            if height % self.scale or width % self.scale:
                raise ValueError(f'frame size {height}x{width} is not a multiple of scale {self.scale}; crop it first, '
                                 'for example with mod_crop')
        limit_opencv_in_workers()
        rng = np.random.default_rng(seed)
        settings = self.draw(rng)
        blur = _blur(settings.sigmas, settings.angle)
        low = [self._resized(blur(frame.astype(np.float32)), settings) for frame in frames]
        low = [_rounded(_noisy(frame, settings, rng)) for frame in low]
        if settings.codec == 'none' or not low:
            return low
        return compress(low, settings.codec, settings.quality, preset=self.codec.preset)

    def _resized(self, frame: np.ndarray, settings: Settings) -> np.ndarray:
        height, width = frame.shape[:2]
        if settings.intermediate != 1:
            size = [max(1, round(side * settings.intermediate)) for side in (width, height)]
            frame = cv2.resize(frame, size, interpolation=_METHODS[settings.methods[0]])
        return cv2.resize(frame, (width // self.scale, height // self.scale),
                          interpolation=_METHODS[settings.methods[1]])


def _blur(sigmas: tuple[float, float], angle: float) -> Callable[[np.ndarray], np.ndarray]:
    """Return a filter of float32 frames. It mirrors frames at the border (cb|abc)."""
    radius = int(4 * max(sigmas) + 0.5)
    if not radius:
        return lambda frame: frame
    if sigmas[0] == sigmas[1]:
        return partial(cv2.GaussianBlur, ksize=(2 * radius + 1, 2 * radius + 1), sigmaX=sigmas[0],
                       borderType=cv2.BORDER_REFLECT_101)
    return partial(cv2.filter2D, ddepth=-1, kernel=gaussian_kernel(sigmas, angle, radius),
                   borderType=cv2.BORDER_REFLECT_101)


def gaussian_kernel(sigmas: tuple[float, float], angle: float, radius: int) -> np.ndarray:
    """Return an anisotropic Gaussian, float (2 radius + 1, 2 radius + 1), with the sum 1.

    Args:
        sigmas: standard deviations along the axis and across it, pixels. Values below 0.1 count as 0.1, which covers
            one pixel.
        angle: angle of the axis, radians from x towards y.
        radius: pixels.
    """
    y, x = np.mgrid[-radius:radius + 1, -radius:radius + 1]
    along, across = x * math.cos(angle) + y * math.sin(angle), y * math.cos(angle) - x * math.sin(angle)
    widths = [max(sigma, 0.1) for sigma in sigmas]
    kernel = np.exp(-0.5 * ((along / widths[0])**2 + (across / widths[1])**2))
    return kernel / kernel.sum()


def _noisy(frame: np.ndarray, settings: Settings, rng: np.random.Generator) -> np.ndarray:
    """Add noise of the drawn strength to a float32 frame."""
    noise = rng.standard_normal((*frame.shape[:2], 1 if settings.grey else 3), dtype=np.float32)
    light = np.maximum(frame, 0)
    if settings.grey:
        light = light.mean(axis=2, keepdims=True)
    return frame + noise * np.sqrt(settings.gaussian**2 + settings.poisson * light)


def _rounded(frame: np.ndarray) -> np.ndarray:
    return np.clip(np.floor(frame + np.float32(0.5)), 0, 255).astype(np.uint8)


def video(scale: int,
          *,
          blur: BlurOptions = BlurOptions(),  # noqa: B008  (frozen)
          resize: ResizeOptions = ResizeOptions(),  # noqa: B008
          noise: NoiseOptions = NoiseOptions(),  # noqa: B008
          codec: CodecOptions = CodecOptions(),  # noqa: B008
          margin: Count = 16) -> VideoDegradation:
    """Random blur, resizing, noise and compression, as in real footage.

    Args:
        scale: s.
        blur, resize, noise, codec: options, or a mapping of options.
        margin: LR pixels around a crop that are degraded with it.

    Raises:
        ValueError: an unknown or impossible option, or a codec that PyAV lacks.
    """
    def read(block: type[Block], given: Any, name: str) -> Any:
        return given if isinstance(given, block) else block.read(given, f'{name}.')

    return VideoDegradation(
        scale, read(BlurOptions, blur, 'blur'), read(ResizeOptions, resize, 'resize'),
        read(NoiseOptions, noise, 'noise'), read(CodecOptions, codec, 'codec'), margin)
