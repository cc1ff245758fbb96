"""Frames with their times into a video file, beside all that the source has besides its picture, or into a folder.

A film is written in segments, by `VideoWriter`, each of which stays playable when the work is cut off. `join` makes one
file of them without encoding again, and adds sound, subtitles, chapters and tags of the source.
"""
import contextlib
import heapq
import io
import itertools
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np

from ..utils.threads import available_cores
from .video_reader import (
    FULL,
    LIMITED,
    SWSCALE_MATRICES,
    ColorSpec,
    StreamInfo,
    VideoError,
    VideoInfo,
    packed,
    video_stream,
)

# Suffix of an output -> FFmpeg's name of its container. AVI and transport streams are left out: the former has no time
# stamps, the latter no tags and chapters.
CONTAINERS = {'.mp4': 'mp4', '.m4v': 'mp4', '.mov': 'mov', '.mkv': 'matroska', '.webm': 'webm'}
_TAGS = {'rgb': 0, 'bt709': 1, 'fcc': 4, 'bt601': 6, 'smpte240m': 7, 'bt2020': 9}  # AVColorSpace

# Tags of a source that are not true of what is made of it. Matroska also has them with a language, as BPS-eng.
_STALE_TAGS = frozenset({
    'rotate', 'encoder', 'duration', 'bps', 'number_of_frames', 'number_of_bytes', '_statistics_tags',
    '_statistics_writing_app', '_statistics_writing_date_utc', 'major_brand', 'minor_version', 'compatible_brands',
    'vendor_id', 'alpha_mode'})

_INTERLEAVED = 10  # seconds by which packets of different streams may lie apart in a file

# A crash leaves all fragments that are complete. `delay_moov`: only then are the times of the first frames exact.
_SEGMENT_OPTIONS = {'movflags': 'frag_keyframe+delay_moov+default_base_moof', 'frag_duration': '1000000'}


class _Codec(NamedTuple):
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
_CODECS = {
    'x264': _Codec('libx264', _YUV420, _YUV444, crf=(18, 0, 51), preset='medium'),
    # info: the encoder would store its options, thread counts among them, in each segment's header
    'x265': _Codec('libx265', _YUV420, _YUV444, crf=(20, 0, 51), preset='medium',
                   options={'x265-params': 'log-level=error:info=0'}, least_width=64),
    'av1': _Codec('libsvtav1', _YUV420, crf=(24, 1, 63), preset='8'),
    'prores': _Codec('prores_ks', {10: 'yuv422p10le'}, {10: 'yuv444p10le'}, preset='hq', segment_suffix='.mov',
                     profiles={'proxy': 0, 'lt': 1, 'standard': 2, 'hq': 3, '4444': 4}),
    'ffv1': _Codec('ffv1', {8: 'bgr0', 16: 'gbrp16le'}, options={'level': '3', 'slicecrc': '1', 'g': '1'}),
}
CODECS = (*_CODECS, 'png')


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
        codec = _CODECS.get(self.codec)
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
        return _CODECS[self.codec].segment_suffix

    def encoder_options(self) -> dict[str, str]:
        """Options of FFmpeg's encoder."""
        codec = _CODECS[self.codec]
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
        codec = _CODECS[encoding.codec]
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


class _YUVConverter:
    """Makes frames for an encoder of RGB arrays.

    Args:
        pixel_format: FFmpeg's name.
        color: what the frames' numbers mean.
    """

    def __init__(self, pixel_format: str, color: ColorSpec, width: int, height: int):
        from av import VideoFormat
        from av.video.reformatter import Interpolation, VideoReformatter

        self._reformatter = VideoReformatter()
        # Chroma of all pixels, with all bits: the default of swscale is biased by an eighth of a level. Means of areas
        # keep chroma about as well as the default, bicubic (0.15 dB less there and back), in four fifths of the time.
        # BITEXACT gives the same bytes as ACCURATE_RND here, again in half of the time.
        self._interpolation = Interpolation.AREA | Interpolation.FULL_CHR_H_INP | Interpolation.BITEXACT
        self._pixel_format, self._color = pixel_format, color
        form = VideoFormat(pixel_format)
        self._bits = form.components[0].bits
        self._widened = self._bits > 8 and not form.is_rgb
        self._rgb = 'rgb24' if self._bits == 8 else 'rgb48le'  # which swscale is faster with than with planes
        self._graph = _left_chroma(self._rgb, width, height)

    def __call__(self, image: np.ndarray) -> Any:
        from av import VideoFrame

        image = _with_bits(image, self._bits)
        if self._widened:
            image = image - (image >> 8)  # swscale expects white at 255 * 256 of 16 bits
        frame = VideoFrame.from_numpy_buffer(packed(image), format=self._rgb)
        self._graph.vpush(frame)
        frame = self._graph.vpull()
        frame = self._reformatter.reformat(
            frame, format=self._pixel_format, dst_colorspace=SWSCALE_MATRICES.get(self._color.matrix),
            src_color_range=FULL, dst_color_range=FULL if self._color.full_range else LIMITED,
            interpolation=self._interpolation, threads=1)
        frame.colorspace = _TAGS[self._color.matrix]
        frame.color_range = FULL if self._color.full_range else LIMITED
        frame.color_primaries, frame.color_trc = self._color.primaries, self._color.transfer
        return frame


def _check_image(image: np.ndarray, spec: OutputSpec) -> None:
    expected = (spec.height, spec.width, 3)
    if image.shape != expected or image.dtype not in (np.uint8, np.uint16):
        raise ValueError(f'expected an image {expected} of uint8 or uint16, got {image.shape} of {image.dtype}')


def _with_bits(image: np.ndarray, bits: int) -> np.ndarray:
    """The image as uint8 for at most 8 bits, else as uint16."""
    if bits <= 8 and image.dtype == np.uint16:
        return cv2.convertScaleAbs(image, alpha=1 / 257)
    if bits > 8 and image.dtype == np.uint8:
        return image.astype(np.uint16) * np.uint16(257)
    return image


def _left_chroma(pixel_format: str, width: int, height: int) -> Any:
    """A filter that notes on a frame where its chroma shall lie: at the left pixel, as MPEG has it.

    swscale looks there, and would else put it into the middle, half a pixel from where players take it to be.
    """
    import av.filter

    graph = av.filter.Graph()
    source = graph.add('buffer', f'video_size={width}x{height}:pix_fmt={pixel_format}:time_base=1/1')
    graph.link_nodes(source, graph.add('setparams', 'chroma_location=left'), graph.add('buffersink')).configure()
    return graph


def default_threads() -> int:
    """Threads of an encoder: one per core, at most 16, as encoders compress worse the more they have."""
    return min(16, available_cores())


def _add_encoder(container: Any, spec: OutputSpec, encoding: Encoding, threads: int) -> Any:
    """A video stream of a container that is written."""
    os.environ.setdefault('SVT_LOG', '1')  # SVT-AV1 writes its settings to stderr, unless told to write errors alone
    options = encoding.encoder_options() | {'chroma_sample_location': 'left'}
    if encoding.codec == 'x265':
        options['x265-params'] += f':pools={threads}'
    if threads == 1 and encoding.codec == 'av1':  # by default SVT-AV1 takes the cores into account itself
        options['svtav1-params'] = 'lp=1'
    # Any time is a multiple of 1 / denominator; some containers know no other time bases
    time_base = Fraction(1, spec.time_base.denominator)
    stream = container.add_stream(_CODECS[encoding.codec].encoder, rate=spec.rate or None, options=options,
                                  width=spec.width, height=spec.height, time_base=time_base)
    context = stream.codec_context
    context.pix_fmt = spec.pixel_format(encoding)
    context.time_base = time_base
    context.sample_aspect_ratio = spec.sample_aspect_ratio
    color = spec.stored_color(encoding)
    context.colorspace, context.color_range = _TAGS[color.matrix], FULL if color.full_range else LIMITED
    context.color_primaries, context.color_trc = color.primaries, color.transfer
    # x265 counts frames at once here, for which its default suits the pool; threads are those of the pool
    context.thread_count = 0 if encoding.codec == 'x265' and threads > 1 else threads
    context.thread_type = 'AUTO'
    if encoding.codec == 'x265' and 'matroska' not in container.format.name:
        context.codec_tag = 'hvc1'  # the one that Apple's players know
    return stream


class VideoWriter:
    """A segment of a video: its frames alone; also a context manager, which closes the file.

    What was written before an error or a crash stays in the file, and is playable.

    Args:
        path: the file; its suffix is that of `encoding.segment_suffix`.
        spec: the frames.
        encoding: codec and quality.
        threads: of the encoder; default: one per core, at most 16. x264 would start one and a half per core.

    Raises:
        VideoError: the file cannot be written, or the encoder refuses the frames' size or an option.
    """

    def __init__(self, path: str | Path, spec: OutputSpec, encoding: Encoding, *, threads: int | None = None):
        import av

        self.path, self.spec = Path(path), spec
        expected = encoding.segment_suffix
        if self.path.suffix != expected:
            raise VideoError(f'{self.path}: segments of {encoding.codec} are {expected} files')
        timescale = str(spec.time_base.denominator)
        options = _SEGMENT_OPTIONS | {'video_track_timescale': timescale, 'movie_timescale': timescale}
        self._container = None
        with self._errors():
            self._container = av.open(str(self.path), 'w', format=CONTAINERS[expected], container_options=options)
            self._stream = _add_encoder(self._container, spec, encoding, threads or default_threads())
            self._container.start_encoding()
        self._time_base = self._stream.codec_context.time_base
        self._duration = round(1 / spec.rate / self._time_base) if spec.rate else 0
        self._to_frame = _YUVConverter(spec.pixel_format(encoding), spec.stored_color(encoding), spec.width,
                                       spec.height)
        self._last: int | None = None
        self._num_frames = 0

    def write(self, image: np.ndarray, time: Fraction) -> None:
        """Encodes the next frame.

        Args:
            image: (h, w, 3) RGB of the size in `spec`, uint8 0-255 or uint16 0-65535.
            time: when it is shown, seconds; rounded to the time base, which changes nothing where it is a multiple.

        Raises:
            ValueError: an image of another shape or type.
            VideoError: a time that is not later than that of the frame before; a full disk.
        """
        _check_image(image, self.spec)
        pts = round(time / self._time_base)
        if self._last is not None and pts <= self._last:
            raise VideoError(f'{self.path}: the frame at {float(time):.6f} s is not later than the one before it, at '
                             f'{float(self._last * self._time_base):.6f} s')
        self._last = pts
        self._num_frames += 1
        frame = self._to_frame(image)
        frame.pts, frame.time_base, frame.duration = pts, self._time_base, self._duration
        with self._errors():
            self._container.mux(self._stream.encode(frame))

    def close(self) -> None:
        """Encodes what is left, and completes the file."""
        if self._container is None:
            return
        with self._errors(), contextlib.closing(self._container):
            self._container, container = None, self._container
            for packet in self._stream.encode():
                if self._num_frames <= 2:  # of which x265 tells no valid times of decoding
                    packet.dts = packet.pts
                container.mux(packet)
        # FFmpeg does not tell where it could not write the last fragments
        stored, _ = stored_frames(self.path)
        if stored != self._num_frames:
            raise VideoError(f'{self.path}: cannot be written, {stored} of {self._num_frames} frames are in the file; '
                             'is the disk full?')

    def __enter__(self) -> 'VideoWriter':
        return self

    def __exit__(self, exc_type: type[BaseException] | None, *exc_info: object) -> None:
        if exc_type is None:
            self.close()
        else:
            with contextlib.suppress(VideoError):  # the first error is the one to tell
                self.close()

    @contextlib.contextmanager
    def _errors(self) -> Iterator[None]:
        import av

        try:
            yield
        except (av.error.FFmpegError, OSError, ValueError) as error:
            raise VideoError(f'{self.path}: cannot be written ({error})') from error


def image_path(folder: Path, number: int) -> Path:
    return folder / f'{number:08d}.png'


class FolderWriter:
    """Frames as PNG files 00000000.png, 00000001.png, ...; also a context manager.

    Args:
        folder: made if it is not there.
        spec: the frames; those of at most 8 bits are stored with 8, others with 16.
        first: number of the first frame.

    Raises:
        VideoError: the folder cannot be made.
    """

    def __init__(self, folder: str | Path, spec: OutputSpec, *, first: int = 0):
        self.path, self.spec = Path(folder), spec
        self._next = first
        try:
            self.path.mkdir(exist_ok=True)
        except OSError as error:
            raise VideoError(f'{self.path}: the folder cannot be made ({error})') from error

    def write(self, image: np.ndarray, time: Fraction) -> None:
        """Writes the next frame; files have no times.

        Args:
            image: (h, w, 3) RGB of the size in `spec`, uint8 0-255 or uint16 0-65535.
            time: of the frame.

        Raises:
            ValueError: an image of another shape or type.
            VideoError: the file cannot be written.
        """
        _check_image(image, self.spec)
        path = image_path(self.path, self._next)
        _, data = cv2.imencode('.png', cv2.cvtColor(_with_bits(image, self.spec.bits), cv2.COLOR_RGB2BGR))
        try:
            part = path.with_name(path.name + '.part')
            part.write_bytes(data)
            part.replace(path)
        except OSError as error:
            raise VideoError(f'{path}: cannot be written ({error})') from error
        self._next += 1

    def close(self) -> None:
        """All frames are complete already."""

    def __enter__(self) -> 'FolderWriter':
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()


def check_output(path: str | Path, info: VideoInfo, encoding: Encoding, spec: OutputSpec, *,
                 overwrite: bool = False) -> list[str]:
    """Finds out whether an output can be written, before any work is done for it.

    Args:
        path: the output, a file, or a folder for the codec 'png'.
        info: of the source.
        encoding: codec and quality.
        spec: the frames of the output.
        overwrite: whether a file that is there may be replaced, or a folder of nothing but such frames.

    Returns:
        What the output will lack or have otherwise than one may expect, a sentence each.

    Raises:
        VideoError: there is no such container, or it takes not the codec or not a sound or subtitle stream of the
            source; the encoder refuses the size or an option; the folder is missing or may not be written to; the
            output is the source, or lies there already.
    """
    path = Path(path)
    _check_place(path, info, overwrite)
    if encoding.codec == 'png':
        if path.suffix.lower() in CONTAINERS or path.is_file():
            raise VideoError(f'{path}: the codec png writes a folder of frames, got the name of a file')
        if path.is_symlink():
            raise VideoError(f'{path}: is a link, expected a folder that can be replaced')
        there = sorted(file.name for file in path.iterdir()) if path.is_dir() else []
        if there and not overwrite:
            raise VideoError(f'{path}: is there already, and not empty; --overwrite replaces frames')
        if others := [name for name in there if not re.fullmatch(r'\d{8}\.png', name)]:
            raise VideoError(f'{path}: holds more than frames ({others[0]}), and will not be replaced')
        return [f'a folder of frames has no place for {_named(stream)}' for stream in info.streams]
    if path.suffix.lower() not in CONTAINERS or path.is_dir():
        known = ', '.join(CONTAINERS)
        raise VideoError(f'{path}: expected the name of a file that ends in one of {known}, or a folder and the codec '
                         'png')
    _check_codec(path, spec, encoding)
    notes = [f'{path.suffix} files have no place for {_named(stream)}, which is left out'
             for stream in _streams_left_out(path, info)]
    codec = _CODECS[encoding.codec]
    if codec.odd_pixels and spec.pixel_format(encoding) in codec.odd_pixels.values():
        notes.append(f'{encoding.codec} stores the odd size {spec.width}x{spec.height} in 4:4:4, which some players '
                     'cannot show')
    return notes


def _streams_left_out(path: Path, info: VideoInfo) -> list[StreamInfo]:
    """Streams of a source that a container has no place for; a VideoError where sound or a subtitle is among them."""
    if not info.streams:
        return []
    with _open_input(info.path) as source:
        def refused(suffix: str) -> list[StreamInfo]:
            return [stream for stream in info.streams if not _takes(suffix, source.streams[stream.index])]

        left_out = refused(path.suffix)
        if missed := [stream for stream in left_out if stream.type in ('audio', 'subtitle')]:
            takes = [suffix for suffix in CONTAINERS
                     if not any(stream.type in ('audio', 'subtitle') for stream in refused(suffix))]
            advice = f'; {" and ".join(takes)} files take all sound and subtitles of it' if takes else ''
            raise VideoError(f'{path}: {path.suffix} files do not take {_named(missed[0])} of the source{advice}')
        if 'mp4' in info.format and source.chapters():
            # The names of chapters look like data without a meaning; they are copied as chapters
            left_out = [stream for stream in left_out if (stream.type, stream.codec) != ('data', 'bin_data')]
        return left_out


def _check_place(path: Path, info: VideoInfo, overwrite: bool) -> None:
    if not path.name:
        raise VideoError(f'{path}: is no name of an output')
    folder = path.absolute().parent
    if not folder.is_dir():
        raise VideoError(f'{path}: there is no folder {folder}')
    if not os.access(path if path.is_dir() else folder, os.W_OK):
        raise VideoError(f'{path}: no permission to write to the folder {folder}')
    if path.exists() and info.path.exists() and path.samefile(info.path):
        raise VideoError(f'{path}: is the source itself, expected another name')
    if path.is_file() and not overwrite:
        raise VideoError(f'{path}: is there already; --overwrite replaces it')


def _check_codec(path: Path, spec: OutputSpec, encoding: Encoding) -> None:
    suffix = path.suffix.lower()
    if error := _encoding_error(suffix, spec, encoding):
        if takes := [other for other in CONTAINERS if not _encoding_error(other, spec, encoding)]:
            raise VideoError(f'{path}: {suffix} files do not take {encoding.codec}, {" and ".join(takes)} files do')
        raise VideoError(f'{path}: {encoding.codec} does not encode {spec.width}x{spec.height} pixels (w x h) with '
                         f'{encoding.encoder_options()} ({error})')


def _encoding_error(suffix: str, spec: OutputSpec, encoding: Encoding) -> Exception | None:
    """What FFmpeg says when a file in memory is begun; nobody else knows all limits of encoders and containers."""
    import av

    if spec.width < (least := _CODECS[encoding.codec].least_width):
        return ValueError(f'at least {least} pixels of width')
    container = av.open(io.BytesIO(), 'w', format=CONTAINERS[suffix])
    try:
        _add_encoder(container, spec, encoding, threads=1)
        container.start_encoding()
    except (av.error.FFmpegError, OSError, ValueError) as error:
        return error
    finally:
        container.close()
    return None


def _takes(suffix: str, stream: Any) -> bool:
    """Whether a container takes a stream as it is, which is tried on a file in memory."""
    import av

    if stream.type not in ('audio', 'subtitle', 'data', 'attachment'):
        return False  # a second video, mostly a cover picture, is not part of what is restored
    container = av.open(io.BytesIO(), 'w', format=CONTAINERS[suffix.lower()])
    try:
        container.add_stream_from_template(stream)
        container.start_encoding()
    except (av.error.FFmpegError, OSError, ValueError):
        return False
    finally:
        container.close()
    return True


def _named(stream: Any) -> str:
    details = ', '.join(text for text in (stream.codec, stream.language) if text)
    return f'{stream.type} stream {stream.index}' + (f' ({details})' if details else '')


def _open_input(path: Path) -> Any:
    import av

    try:
        return av.open(str(path), metadata_errors='replace')
    except (av.error.FFmpegError, OSError) as error:
        raise VideoError(f'{path}: cannot be read ({error})') from error


def stored_frames(segment: Path) -> tuple[int, Fraction | None]:
    """How many frames of a segment are whole, and the time of the last one that is shown, seconds."""
    try:
        with _open_input(segment) as container:
            stream = video_stream(container, segment)
            times = [packet.pts * packet.time_base for packet in _whole_packets(container, stream, segment)]
    except VideoError:  # not even its header
        times = []
    return len(times), max(times, default=None)


def join(segments: Sequence[Path], source: Path | None, output: Path, *, rate: Fraction = Fraction(0),
         until: Fraction | None = None) -> list[str]:
    """Makes one video of segments, with all that the source has besides its picture; nothing is encoded again.

    Times are those that were written, less the source's start where it starts behind 0, as recordings of broadcasts do;
    sound, subtitles and chapters are moved alike. Matroska rounds times to a millisecond. The file appears under its
    name when it is complete.

    Args:
        segments: files of `VideoWriter`, in the order in which they are shown, encoded alike.
        source: video file whose sound, subtitles, attachments, data, chapters and tags are copied, as far as the
            container has a place for them; see `check_output`, which tells before.
        output: the file to write; its suffix tells the container.
        rate: frames a second to note in the file; 0: none, as for variable ones.
        until: time of the source, seconds, from which on nothing of it is copied: where an unfinished picture ends.
            Then the last segment may be cut off.

    Returns:
        What was not copied because the source is damaged, a sentence each.

    Raises:
        VideoError: a segment is damaged or unlike the first one; the source cannot be opened; the output cannot be
            written.
    """
    import av

    notes: list[str] = []
    output = Path(output)
    if not segments:
        raise VideoError(f'{output}: there is nothing to join, not one frame was written')
    part = output.with_name(output.name + '.part')
    try:
        with contextlib.ExitStack() as stack:
            original = None if source is None else stack.enter_context(_open_input(Path(source)))
            with _open_input(Path(segments[0])) as first:
                template = video_stream(first, Path(segments[0]))
                container = stack.enter_context(_create(part, output.suffix, template.time_base))
                video = container.add_stream_from_template(template, opaque=True)
            video.codec_context.framerate = rate
            if video.codec_context.name == 'hevc' and container.format.name != 'matroska':
                video.codec_context.codec_tag = 'hvc1'
            start = Fraction(0) if original is None else _start(original)
            packets = [_video_packets(segments, video, start, rate, unfinished=until is not None)]
            if original is not None:
                _copy_tags(original, video_stream(original, Path(source)), container, video)
                container.set_chapters(_chapters(original, start, until))
                packets.append(_copied_packets(original, container, start, until, notes))
            for _, packet in heapq.merge(*packets, key=lambda timed: timed[0]):
                container.mux(packet)
        part.replace(output)
        return notes
    except BaseException as error:  # also a KeyboardInterrupt
        part.unlink(missing_ok=True)
        if isinstance(error, (av.error.FFmpegError, OSError, ValueError)) and not isinstance(error, VideoError):
            raise VideoError(f'{output}: cannot be written ({error})') from error
        raise


def _create(path: Path, suffix: str, time_base: Fraction) -> Any:
    import av

    container_format = CONTAINERS[suffix.lower()]
    if container_format in ('mp4', 'mov'):
        timescale = str(time_base.denominator)
        options = {'movflags': 'faststart', 'video_track_timescale': timescale, 'movie_timescale': timescale}
    else:
        # Else all streams would be moved when the sound starts before 0, as that of MP4 files does
        options = {'avoid_negative_ts': 'disabled'}
    return av.open(str(path), 'w', format=container_format, container_options=options)


def _start(container: Any) -> Fraction:
    """Where a source starts behind 0; seconds."""
    starts = [stream.start_time * stream.time_base for stream in container.streams
              if stream.type in ('audio', 'video') and stream.start_time is not None]
    return max(min(starts, default=Fraction(0)), Fraction(0))


def _video_packets(segments: Sequence[Path], video: Any, start: Fraction, rate: Fraction, *,
                   unfinished: bool) -> Iterator[tuple[Fraction, Any]]:
    """The packets of all segments for one stream, each with the time at which it is decoded."""
    header, last = video.codec_context.extradata, None
    for path in segments:
        with _open_input(Path(path)) as container:
            stream = video_stream(container, Path(path))
            size = stream.codec_context.width, stream.codec_context.height
            if stream.codec_context.extradata != header or size != (video.codec_context.width,
                                                                    video.codec_context.height):
                raise VideoError(f'{path}: the segment is encoded otherwise than the first one, {segments[0]}')
            shift, step = round(start / stream.time_base), round(1 / rate / stream.time_base) if rate else 0
            read = _whole_packets if unfinished else _demux
            for packet in read(container, stream, path):
                packet.pts -= shift
                packet.dts -= shift
                # A segment's first frames are decoded ahead of their times, which its predecessor may reach into
                if last is not None and packet.dts * packet.time_base <= last:
                    packet.dts = int(last / packet.time_base) + 1
                if packet.dts > packet.pts:
                    raise VideoError(f'{path}: the segment starts at {float(packet.pts * packet.time_base):.6f} s, '
                                     'which is not behind the one before it')
                last = packet.dts * packet.time_base
                packet.duration = step or packet.duration
                packet.stream = video
                yield last, packet


def _whole_packets(container: Any, stream: Any, path: Path) -> Iterator[Any]:
    """Packets of a stream up to where the file is cut off."""
    size = path.stat().st_size
    with contextlib.suppress(VideoError):
        yield from itertools.takewhile(lambda packet: not _is_cut_off(packet, size), _demux(container, stream, path))


def _is_cut_off(packet: Any, size: int) -> bool:
    """Whether a file of so many bytes ends within a packet; FFmpeg hands out what there is of it."""
    return (packet.pos is not None and packet.pos + packet.size >= size
            and any(entry.pos == packet.pos and entry.size > packet.size for entry in packet.stream.index_entries))


def _demux(container: Any, streams: Any, path: Path) -> Iterator[Any]:
    """Packets of one stream or several, but those without time stamps that mark the end."""
    import av

    try:
        for packet in container.demux(streams):
            if packet.pts is not None or packet.dts is not None:
                yield packet
    except av.error.FFmpegError as error:
        raise VideoError(f'{path}: cannot be read ({error})') from error


def _copied_packets(original: Any, container: Any, start: Fraction, until: Fraction | None,
                    notes: list[str]) -> Iterator[tuple[Fraction, Any]]:
    """Adds the streams of a source that a container takes, and hands out their packets by the time of decoding."""
    suffix = next(suffix for suffix, name in CONTAINERS.items() if name == container.format.name)
    copies = {}
    for stream in original.streams:
        if _takes(suffix, stream):
            copy = container.add_stream_from_template(stream)
            copy.metadata.update(_lasting(stream.metadata))
            copy.disposition = stream.disposition
            copies[stream.index] = copy

    def packets() -> Iterator[tuple[Fraction, Any]]:
        wanted = [stream for stream in original.streams if stream.index in copies and stream.type != 'attachment']
        texts = {stream.index for stream in wanted if stream.type == 'subtitle'
                 and stream.codec_context.name == 'mov_text'}
        time, size = start, Path(original.name).stat().st_size
        try:
            for packet in _demux(original, wanted, original.name) if wanted else ():
                if _is_cut_off(packet, size):
                    continue
                if packet.stream_index in texts and packet.size <= 2:
                    continue  # a pause between two texts, which MP4 makes anew
                packet.dts = packet.pts if packet.dts is None else packet.dts
                time = packet.dts * packet.time_base
                if until is not None and time >= until:
                    if time >= until + _INTERLEAVED:
                        return
                    continue
                shift = round(start / packet.time_base)
                packet.pts = None if packet.pts is None else packet.pts - shift
                packet.dts -= shift
                packet.stream = copies[packet.stream_index]
                yield time - start, packet
        except VideoError as error:
            notes.append(f'sound and subtitles are copied only up to {float(time):.3f} s: {error}')

    return packets()


def _copy_tags(original: Any, picture: Any, container: Any, video: Any) -> None:
    """Tags of a file and of its video stream."""
    container.metadata.update(_lasting(original.metadata))
    video.metadata.update(_lasting(picture.metadata))
    video.disposition = picture.disposition


def _chapters(original: Any, start: Fraction, until: Fraction | None) -> list[Any]:
    """A file's chapters, `start` earlier, as far as they begin before `until`; both in seconds of the file."""
    chapters = []
    for chapter in original.chapters():
        unit = chapter['time_base']
        end = chapter['end'] if until is None else min(chapter['end'], round(until / unit))
        if chapter['start'] < end:
            shift = round(start / unit)
            chapters.append({**chapter, 'start': max(chapter['start'] - shift, 0), 'end': max(end - shift, 0)})
    return chapters


def _lasting(tags: dict[str, str]) -> dict[str, str]:
    lasting = {name: value for name, value in tags.items() if name.lower().partition('-')[0] not in _STALE_TAGS}
    if 'name' in lasting:  # how MP4 calls the title of a stream when it is read, but not when it is written
        lasting.setdefault('title', lasting.pop('name'))
    return lasting
