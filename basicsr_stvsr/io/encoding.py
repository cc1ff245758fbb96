"""Codecs with their options, and the format of the encoded frames."""
import os
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple

from ..utils.threads import available_cores, same_priority
from .copied_streams import Audio
from .images import is_image
from .side_data import HdrMetadata
from .video_info import FULL, LIMITED, ColorSpec, VideoInfo

MATRIX_TAGS = {'rgb': 0, 'bt709': 1, 'fcc': 4, 'bt601': 6, 'smpte240m': 7, 'bt2020': 9}  # AVColorSpace


class Codec(NamedTuple):
    """Settings of an encoder.

    Attributes:
        encoder: FFmpeg's name.
        pixels: bits -> pixel format. The format with the fewest bits that holds the source is used.
        odd_pixels: the same for pictures of odd width or height; empty: use `pixels`.
        alpha_pixels: the same for pictures with alpha; empty: the codec has none.
        crf: default, least, largest; None: the codec has no CRF.
        preset: default; None: the codec has no presets.
        alpha_preset: the one that keeps alpha; None: all do.
        options: options of the encoder.
        profiles: numbers of the profiles by the names of presets, for codecs whose `preset` selects a profile.
        segment_suffix: container of a segment. It has exact times and is playable when truncated.
        least_width: smallest width of pictures, for encoders that accept less, but crash.
    """
    encoder: str
    pixels: dict[int, str]
    odd_pixels: dict[int, str] = {}
    alpha_pixels: dict[int, str] = {}
    crf: tuple[float, float, float] | None = None
    preset: str | None = None
    alpha_preset: str | None = None
    options: dict[str, str] = {}
    profiles: dict[str, int] = {}
    segment_suffix: str = '.mp4'
    least_width: int = 1


# H.264 and HEVC in 4:2:0 need even sizes. Adding or dropping a row would change the picture, and many players ignore
# cropping tags. So odd sizes are stored in 4:4:4, which software players can show.
_YUV420, _YUV444 = {8: 'yuv420p', 10: 'yuv420p10le'}, {8: 'yuv444p', 10: 'yuv444p10le'}
_FFV1 = {'level': '3', 'slicecrc': '1', 'g': '1'}
ANIMATIONS = {'gif': '.gif', 'webp': '.webp'}  # codecs of animated images -> suffix
CODEC_TABLE = {
    'x264': Codec('libx264', _YUV420, _YUV444, crf=(18, 0, 51), preset='medium'),
    # info: the encoder would store its options, including thread counts, in each segment's header
    'x265': Codec('libx265', _YUV420, _YUV444, crf=(20, 0, 51), preset='medium',
                   options={'x265-params': 'log-level=error:info=0'}, least_width=64),
    'av1': Codec('libsvtav1', _YUV420, crf=(24, 1, 63), preset='8'),
    'prores': Codec('prores_ks', {10: 'yuv422p10le'}, {10: 'yuv444p10le'}, {10: 'yuva444p10le'}, preset='hq',
                     alpha_preset='4444', profiles={'proxy': 0, 'lt': 1, 'standard': 2, 'hq': 3, '4444': 4},
                     segment_suffix='.mov'),
    # Their segments; see animations.py
    **dict.fromkeys(ANIMATIONS, Codec('ffv1', {8: 'bgr0'}, alpha_pixels={8: 'bgra'}, options=_FFV1)),
    'ffv1': Codec('ffv1', {8: 'bgr0', 16: 'gbrp16le'}, alpha_pixels={8: 'bgra', 16: 'gbrap16le'}, options=_FFV1),
}
_ALPHA_IMAGES = frozenset({'.png', '.webp', '.tif', '.tiff'})
# Options that pass parameters on to an encoder
PARAMETERS = {'x264': 'x264-params', 'x265': 'x265-params', 'av1': 'svtav1-params'}
CODECS = (*CODEC_TABLE, 'png')


@dataclass(frozen=True)
class Encoding:
    """Codec and quality of a video.

    Attributes:
        codec: 'x264', 'x265', 'av1', 'prores', 'ffv1' (lossless), 'gif', 'webp' or 'png' (a folder of
            frames).
        crf: quality, smaller is better; None: 18 for x264, 20 for x265, 24 for av1. The others have no CRF.
        preset: preset of the encoder; slower ones give smaller files. None: medium for x264 and x265, 8 for av1 (0-13).
            For prores it is a profile: proxy, lt, standard, hq (default), 4444. The others have no presets.
        audio: what to do with sound, see `plan_streams`.

    Raises:
        ValueError: an unknown codec, or a value that the codec does not support.
    """
    codec: str = 'x264'
    crf: float | None = None
    preset: str | None = None
    audio: Audio = 'copy'

    def __post_init__(self) -> None:
        if self.codec not in CODECS:
            raise ValueError(f'unknown codec {self.codec!r}, expected one of {", ".join(CODECS)}')
        codec = CODEC_TABLE.get(self.codec)
        if self.crf is not None:
            if codec is None or codec.crf is None:
                raise ValueError(f'{self.codec} has no crf, got {self.crf:g}')
            if not codec.crf[1] <= self.crf <= codec.crf[2]:
                raise ValueError(f'expected a crf of {codec.crf[1]:g} to {codec.crf[2]:g} for {self.codec}, '
                                 f'got {self.crf:g}')
        if self.preset is not None:
            if codec is None or codec.preset is None:
                raise ValueError(f'{self.codec} has no preset, got {self.preset!r}')
            if codec.profiles and self.preset not in codec.profiles:
                raise ValueError(f'expected one of {", ".join(codec.profiles)} for {self.codec}, got {self.preset!r}')

    @property
    def segment_suffix(self) -> str:
        """Suffix of the files that `VideoWriter` writes."""
        return CODEC_TABLE[self.codec].segment_suffix

    def encoder_options(self, *, alpha: bool = False) -> dict[str, str]:
        """Return the options of FFmpeg's encoder for frames with or without alpha."""
        codec = CODEC_TABLE[self.codec]
        options = dict(codec.options)
        if codec.crf:
            options['crf'] = f'{codec.crf[0] if self.crf is None else self.crf:g}'
        preset = self.preset or (alpha and codec.alpha_preset) or codec.preset
        if preset and codec.profiles:
            options['profile'] = str(codec.profiles[preset])
        elif preset:
            options['preset'] = preset
        return options


def default_codec(output: str | Path, info: VideoInfo) -> str:
    """Return the default codec of an output, by its name and the source."""
    path = Path(output)
    if path.suffix.lower() == '.webp' and not path.is_dir() and not info.is_one_image:
        return 'webp'
    if not path.suffix or path.is_dir() or is_image(path):
        return 'png'
    return {'.webm': 'av1', '.gif': 'gif'}.get(path.suffix.lower(), 'x264')


def keeps_alpha(output: Path, encoding: Encoding) -> bool:
    """Return whether an output can have transparent pixels."""
    if encoding.codec == 'png':
        return output.suffix.lower() in _ALPHA_IMAGES or not is_image(output) or output.is_dir()
    codec = CODEC_TABLE[encoding.codec]
    return bool(codec.alpha_pixels) and (not codec.alpha_preset or encoding.preset in (None, codec.alpha_preset))


@dataclass(frozen=True)
class OutputSpec:
    """Format of the output frames.

    Attributes:
        width, height: pixels.
        bits: bits of the source. The video gets at least as many, up to the limit of its codec.
        color: meaning of the frames' numbers; see `stored_color` for the stored video.
        rate: average frames per second; 0 if unknown.
        time_base: all frames' times are multiples of it, seconds.
        sample_aspect_ratio: width of a shown pixel divided by its height.
        hdr: static HDR metadata to store, if the codec has a place for it.
        alpha: whether frames have alpha; the codec must be able to keep it.
    """
    width: int
    height: int
    bits: int
    color: ColorSpec
    rate: Fraction
    time_base: Fraction
    sample_aspect_ratio: Fraction = Fraction(1)
    hdr: HdrMetadata | None = None
    alpha: bool = False

    @classmethod
    def of(cls, info: VideoInfo, *, scale: int = 1, temporal_scale: int = 1) -> 'OutputSpec':
        """Return the spec for frames `scale` times as large, at `temporal_scale` times the frame rate of the source."""
        time_base = info.time_base if info.has_times or not info.rate else 1 / info.rate
        return cls(scale * info.width, scale * info.height, info.bits, info.color, temporal_scale * info.rate,
                   time_base / temporal_scale, info.sample_aspect_ratio, info.hdr, info.has_alpha)

    def pixel_format(self, encoding: Encoding) -> str:
        """Return FFmpeg's pixel format in which a codec stores such frames."""
        codec = CODEC_TABLE[encoding.codec]
        odd = self.width % 2 or self.height % 2
        pixels = codec.alpha_pixels if self.alpha else codec.odd_pixels if odd and codec.odd_pixels else codec.pixels
        return pixels[min((bits for bits in pixels if bits >= self.bits), default=max(pixels))]

    def stored_color(self, encoding: Encoding) -> ColorSpec:
        """Return the meaning of the stored video's numbers; the video is tagged with it."""
        if is_rgb(self.pixel_format(encoding)):
            return self.color._replace(matrix='rgb', full_range=True)
        if self.color.matrix != 'rgb':
            return self.color
        # Limited range, as many players support nothing else
        return self.color._replace(matrix=ColorSpec.untagged(self.width, self.height).matrix, full_range=False)


def add_raw_stream(container: Any, spec: OutputSpec, pixel_format: str, color: ColorSpec) -> Any:
    """Add an uncompressed video stream to a container that is open for writing."""
    stream = container.add_stream('rawvideo', rate=spec.rate or None, width=spec.width, height=spec.height)
    context = stream.codec_context
    context.pix_fmt, context.time_base, stream.time_base = pixel_format, spec.time_base, spec.time_base
    context.sample_aspect_ratio = spec.sample_aspect_ratio
    context.colorspace, context.color_range = MATRIX_TAGS[color.matrix], FULL if color.full_range else LIMITED
    context.color_primaries, context.color_trc = color.primaries, color.transfer
    return stream


def is_rgb(pixel_format: str) -> bool:
    from av import VideoFormat

    return VideoFormat(pixel_format).is_rgb


def default_threads() -> int:
    """Return the threads of an encoder: one per core, at most 16, as more threads compress worse."""
    return min(16, available_cores())


def add_encoder(container: Any, spec: OutputSpec, encoding: Encoding, threads: int) -> Any:
    """Add a video stream to a container that is open for writing."""
    os.environ.setdefault('SVT_LOG', '1')  # otherwise SVT-AV1 writes its settings to stderr, not only errors
    options = encoding.encoder_options(alpha=spec.alpha) | {'chroma_sample_location': 'left'}
    if encoding.codec == 'x265':
        options['x265-params'] += f':pools={threads}'
    if threads == 1 and encoding.codec == 'av1':  # by default SVT-AV1 considers the cores itself
        options['svtav1-params'] = 'lp=1'
    if spec.hdr and encoding.codec in PARAMETERS:
        name, parameters = PARAMETERS[encoding.codec], spec.hdr.parameters(encoding.codec)
        options[name] = ':'.join(filter(None, (options.get(name), parameters)))
    # Any time is a multiple of 1 / denominator; some containers support no other time bases
    time_base = Fraction(1, spec.time_base.denominator)
    stream = container.add_stream(CODEC_TABLE[encoding.codec].encoder, rate=spec.rate or None, options=options,
                                  width=spec.width, height=spec.height, time_base=time_base)
    context = stream.codec_context
    context.pix_fmt = spec.pixel_format(encoding)
    context.time_base = time_base
    context.sample_aspect_ratio = spec.sample_aspect_ratio
    color = spec.stored_color(encoding)
    context.colorspace, context.color_range = MATRIX_TAGS[color.matrix], FULL if color.full_range else LIMITED
    context.color_primaries, context.color_trc = color.primaries, color.transfer
    # Let x265 choose how many frames to encode at once; its default suits the pool. `threads` sets the pool.
    context.thread_count = 0 if encoding.codec == 'x265' and threads > 1 else threads
    context.thread_type = 'AUTO'
    if encoding.codec == 'x265' and 'matroska' not in container.format.name:
        context.codec_tag = 'hvc1'  # the tag that Apple's players recognise
    if encoding.codec == 'av1':
        with same_priority():
            context.open()
    return stream
