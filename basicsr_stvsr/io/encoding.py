"""How frames are encoded: codecs, their options, and the format of what is written."""
import os
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple

from ..utils.threads import available_cores
from .video_info import FULL, LIMITED, ColorSpec, VideoInfo

MATRIX_TAGS = {'rgb': 0, 'bt709': 1, 'fcc': 4, 'bt601': 6, 'smpte240m': 7, 'bt2020': 9}  # AVColorSpace


class Codec(NamedTuple):
    """How an encoder is used.

    Attributes:
        encoder: FFmpeg's name.
        pixels: bits -> pixel format; the one with the fewest bits that holds a source's is taken.
        odd_pixels: the same for pictures of odd width or height; empty: the others do.
        crf: default, least, largest; None: the codec has no such number.
        preset: default; None: it has none.
        options: of the encoder.
        profiles: numbers by the names that presets have, where `preset` stands for a profile.
        segment_suffix: container of a segment, which has exact times and is playable when cut off.
        least_width: of pictures, where the encoder takes less, but crashes.
    """
    encoder: str
    pixels: dict[int, str]
    odd_pixels: dict[int, str] = {}
    crf: tuple[float, float, float] | None = None
    preset: str | None = None
    options: dict[str, str] = {}
    profiles: dict[str, int] = {}
    segment_suffix: str = '.mp4'
    least_width: int = 1


# H.264 and HEVC in 4:2:0 have even sizes only. A row more or less would not be the picture any more, and cropping tags
# are passed over by many players; so odd sizes are stored in 4:4:4, which players in software show.
_YUV420, _YUV444 = {8: 'yuv420p', 10: 'yuv420p10le'}, {8: 'yuv444p', 10: 'yuv444p10le'}
CODEC_TABLE = {
    'x264': Codec('libx264', _YUV420, _YUV444, crf=(18, 0, 51), preset='medium'),
    # info: the encoder would store its options, thread counts among them, in each segment's header
    'x265': Codec('libx265', _YUV420, _YUV444, crf=(20, 0, 51), preset='medium',
                   options={'x265-params': 'log-level=error:info=0'}, least_width=64),
    'av1': Codec('libsvtav1', _YUV420, crf=(24, 1, 63), preset='8'),
    'prores': Codec('prores_ks', {10: 'yuv422p10le'}, {10: 'yuv444p10le'}, preset='hq', segment_suffix='.mov',
                     profiles={'proxy': 0, 'lt': 1, 'standard': 2, 'hq': 3, '4444': 4}),
    'ffv1': Codec('ffv1', {8: 'bgr0', 16: 'gbrp16le'}, options={'level': '3', 'slicecrc': '1', 'g': '1'}),
}
CODECS = (*CODEC_TABLE, 'png')


@dataclass(frozen=True)
class Encoding:
    """How a video is encoded.

    Attributes:
        codec: 'x264', 'x265', 'av1', 'prores', 'ffv1' (lossless) or 'png' (a folder of frames).
        crf: quality, smaller is better; None: 18 for x264, 20 for x265, 24 for av1. The others have none.
        preset: of the encoder, slower is smaller; None: medium for x264 and x265, 8 for av1 (0-13), and for prores a
            profile, hq (proxy, lt, standard, hq, 4444). The others have none.

    Raises:
        ValueError: an unknown codec, or a value that it does not have.
    """
    codec: str = 'x264'
    crf: float | None = None
    preset: str | None = None

    def __post_init__(self):
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

    def encoder_options(self) -> dict[str, str]:
        """Options of FFmpeg's encoder."""
        codec = CODEC_TABLE[self.codec]
        options = dict(codec.options)
        if codec.crf:
            options['crf'] = f'{codec.crf[0] if self.crf is None else self.crf:g}'
        preset = codec.preset if self.preset is None else self.preset
        if codec.profiles:
            options['profile'] = str(codec.profiles[preset])
        elif preset:
            options['preset'] = preset
        return options


def default_codec(output: str | Path) -> str:
    """The codec of an output, by its name: 'png' for a folder, 'av1' for WebM, 'x264' for others."""
    suffix = Path(output).suffix.lower()
    return 'png' if not suffix or Path(output).is_dir() else 'av1' if suffix == '.webm' else 'x264'


@dataclass(frozen=True)
class OutputSpec:
    """What is written.

    Attributes:
        width, height: pixels.
        bits: of the source; the video gets at least as many, up to what its codec has.
        color: what its numbers mean; see `stored_color` for what is written.
        rate: frames a second, on average; 0 if unknown.
        time_base: all frames' times are multiples of it, seconds.
        sample_aspect_ratio: width of a shown pixel by its height.
    """
    width: int
    height: int
    bits: int
    color: ColorSpec
    rate: Fraction
    time_base: Fraction
    sample_aspect_ratio: Fraction = Fraction(1)

    @classmethod
    def of(cls, info: VideoInfo, *, scale: int = 1, temporal_scale: int = 1) -> 'OutputSpec':
        """For frames `scale` times as large, and evenly between the source's `temporal_scale` - 1 more."""
        time_base = info.time_base if info.has_times or not info.rate else 1 / info.rate
        return cls(scale * info.width, scale * info.height, info.bits, info.color, temporal_scale * info.rate,
                   time_base / temporal_scale, info.sample_aspect_ratio)

    def pixel_format(self, encoding: Encoding) -> str:
        """FFmpeg's pixel format that a codec stores such frames in."""
        codec = CODEC_TABLE[encoding.codec]
        odd = self.width % 2 or self.height % 2
        pixels = codec.odd_pixels if odd and codec.odd_pixels else codec.pixels
        return pixels[min((bits for bits in pixels if bits >= self.bits), default=max(pixels))]

    def stored_color(self, encoding: Encoding) -> ColorSpec:
        """What the numbers of the stored video mean, which it is tagged with."""
        if is_rgb(self.pixel_format(encoding)):
            return self.color._replace(matrix='rgb', full_range=True)
        if self.color.matrix != 'rgb':
            return self.color
        # Limited range, as many players know no other
        return self.color._replace(matrix=ColorSpec.untagged(self.width, self.height).matrix, full_range=False)


def is_rgb(pixel_format: str) -> bool:
    from av import VideoFormat

    return VideoFormat(pixel_format).is_rgb


def default_threads() -> int:
    """Threads of an encoder: one per core, at most 16, as encoders compress worse the more they have."""
    return min(16, available_cores())


def add_encoder(container: Any, spec: OutputSpec, encoding: Encoding, threads: int) -> Any:
    """A video stream of a container that is written."""
    os.environ.setdefault('SVT_LOG', '1')  # SVT-AV1 writes its settings to stderr, unless told to write errors alone
    options = encoding.encoder_options() | {'chroma_sample_location': 'left'}
    if encoding.codec == 'x265':
        options['x265-params'] += f':pools={threads}'
    if threads == 1 and encoding.codec == 'av1':  # by default SVT-AV1 takes the cores into account itself
        options['svtav1-params'] = 'lp=1'
    # Any time is a multiple of 1 / denominator; some containers know no other time bases
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
    # x265 counts frames at once here, for which its default suits the pool; threads are those of the pool
    context.thread_count = 0 if encoding.codec == 'x265' and threads > 1 else threads
    context.thread_type = 'AUTO'
    if encoding.codec == 'x265' and 'matroska' not in container.format.name:
        context.codec_tag = 'hvc1'  # the one that Apple's players know
    return stream
