"""Properties of a video file: its size, rate, colours and streams."""
import re
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np

from .side_data import HdrMetadata, have_captions, hdr_of, lost_with

if TYPE_CHECKING:
    import av


Matrix = Literal['rgb', 'bt709', 'fcc', 'bt601', 'smpte240m', 'bt2020']

_MATRICES: dict[int, Matrix] = {  # by AVColorSpace; the two of BT.601 differ only in name
    0: 'rgb', 1: 'bt709', 4: 'fcc', 5: 'bt601', 6: 'bt601', 7: 'smpte240m', 9: 'bt2020'}
SWSCALE_MATRICES: dict[Matrix, int] = {'bt709': 1, 'fcc': 4, 'bt601': 5, 'smpte240m': 7, 'bt2020': 9}
LIMITED, FULL = 1, 2  # AVColorRange
_UNSPECIFIED = 2  # of AVColorSpace, AVColorPrimaries and AVColorTransferCharacteristic alike
BT709, _BT470BG, _SMPTE170M, SRGB = 1, 5, 6, 13  # AVColorPrimaries, AVColorTransferCharacteristic
# If a codec does not state the position of chroma, it is at the left pixel, as in MPEG, not in the middle
DECODER_OPTIONS = {'chroma_sample_location': 'left'}
_BROADCAST = frozenset({'mpegts', 'mpeg'})  # containers of transport and program streams
_NUM_PROBED_PACKETS, _NUM_PROBED_FRAMES = 64, 8
_ROTATIONS = {  # display matrix [a b; c d] -> clockwise rotation; x' = a x + c y, y' = b x + d y, with y downwards
    (1, 0, 0, 1): 0, (0, 1, -1, 0): 90, (-1, 0, 0, -1): 180, (0, -1, 1, 0): 270,
    (-1, 0, 0, 1): 0, (0, -1, -1, 0): 90, (1, 0, 0, -1): 180, (0, 1, 1, 0): 270}  # these after a flip left to right


class VideoError(OSError):
    """A video or a folder of frames that cannot be read or written; the message says which, what is wrong and where."""


class DamageError(ValueError):
    """What is wrong with the next frame; readers turn it into an error that names the file and the time."""


class ColorSpec(NamedTuple):
    """Meaning of a video's numbers.

    Attributes:
        matrix: matrix that converts RGB to YUV; 'rgb' without YUV.
        full_range: whether luma uses all levels, not only 16-235 of 255.
        primaries, transfer: FFmpeg's AVColorPrimaries and AVColorTransferCharacteristic, numbered as in ITU-T H.273.
            They are passed on; frames are not converted by them.
    """
    matrix: Matrix
    full_range: bool
    primaries: int
    transfer: int

    @classmethod
    def untagged(cls, width: int, height: int, *, full_range: bool = False) -> 'ColorSpec':
        """Return what players assume without tags: BT.709 from 1280 columns or 577 lines on, else BT.601."""
        if width >= 1280 or height > 576:
            return cls('bt709', full_range, BT709, BT709)
        primaries = {576: _BT470BG, 480: _SMPTE170M, 486: _SMPTE170M}.get(height, BT709)
        return cls('bt601', full_range, primaries, _SMPTE170M)


class StreamInfo(NamedTuple):
    """A stream of a file other than the video to restore.

    Attributes:
        type: 'audio', 'subtitle', 'data', 'attachment' or 'video' (such as a cover picture).
        codec: FFmpeg's name; '' if the stream has none, as attachments.
        language: as tagged, mostly three letters; '' if unknown.
    """
    index: int  # type: ignore[assignment]  # hides the method of tuples
    type: str
    codec: str
    language: str

    def __str__(self) -> str:
        """Return such as 'audio stream 1 (ac3, fra)'."""
        details = ', '.join(text for text in (self.codec, self.language) if text)
        return f'{self.type} stream {self.index}' + (f' ({details})' if details else '')


@dataclass(frozen=True)
class VideoInfo:
    """Properties of a video, known before it is decoded.

    Attributes:
        path: the file or the folder.
        width, height: pixels as shown, after the rotation.
        rate: average frames per second; 0 if unknown.
        is_variable: whether time stamps are not evenly spaced, from the file's index or its beginning.
        num_frames: as stated by the file; 0 if it is not.
        duration: seconds; 0 if unknown.
        start: time of the first frame, seconds.
        time_base: the unit of time stamps, seconds.
        has_times: False if the file has no time stamps, as raw streams; frames are then spaced by `rate`.
        format, codec, pix_fmt: FFmpeg's names.
        bits: bits of a component, 1 to 16.
        color: from the file's tags, or from its size without tags.
        orientation: a, b, c, d of the file's display matrix, which maps stored (x, y) to shown (ax + cy, bx + dy).
        sample_aspect_ratio: width of a shown pixel divided by its height.
        in_order: whether the file states times only in the order of decoding, as AVI does for codecs with B-frames;
            the n-th frame shown then has the n-th of these times.
        interlaced: whether frames consist of two fields.
        problem: why frames of this pixel format cannot be restored; '' if they can.
        has_alpha: whether a frame has transparent pixels; `probe` looks at the first one only. Frames of sources then
            have alpha, see `TimedFrame`.
        hdr: static HDR metadata; None without it.
        lost: what frames carry that no output keeps.
        has_captions: whether frames carry closed captions, see `captions`.
        stream: index of the video among the streams of the file.
        streams: the other streams of the file.
    """
    path: Path
    width: int
    height: int
    rate: Fraction
    is_variable: bool
    num_frames: int
    duration: Fraction
    start: Fraction
    time_base: Fraction
    has_times: bool
    format: str
    codec: str
    pix_fmt: str
    bits: int
    color: ColorSpec
    orientation: tuple[int, int, int, int] = (1, 0, 0, 1)
    sample_aspect_ratio: Fraction = Fraction(1)
    in_order: bool = False
    interlaced: bool = False
    problem: str = ''
    has_alpha: bool = False
    hdr: HdrMetadata | None = None
    lost: tuple[str, ...] = ()
    has_captions: bool = False
    stream: int = 0
    streams: tuple[StreamInfo, ...] = ()

    @property
    def about_frames(self) -> int:
        """Number of frames as stated or, if not (as in Matroska), estimated from the duration; 0 if unknown."""
        return self.num_frames or round(self.duration * self.rate)

    @property
    def is_one_image(self) -> bool:
        return self.format == 'images' and self.num_frames == 1

    @property
    def rotation(self) -> int:
        """Clockwise rotation of the stored frames for display, in degrees."""
        return _ROTATIONS[self.orientation]


def probe(path: str | Path, stream_number: int | None = None) -> VideoInfo:
    """Read the properties of a video file from its header and its first frames.

    Args:
        stream_number: see `video_stream`.

    Raises:
        VideoError: no such file, no video in it, or one in a colour space without RGB conversion here.
    """
    import av  # here, so that importing the package stays cheap; only videos need it

    path = Path(path)
    with open_container(path) as container:
        stream = video_stream(container, path, stream_number)
        stream.thread_type = 'SLICE'  # the first frame then comes with the first packet
        packets: list[tuple[int | None, int | None]] = []
        frames: list[Any] = []
        try:
            for packet in container.demux(stream):
                if packet.size:
                    packets.append((packet.pts, packet.dts))
                if len(frames) < _NUM_PROBED_FRAMES:
                    frames += packet.decode()
                if len(packets) == _NUM_PROBED_PACKETS and frames:
                    break
        except av.error.FFmpegError as error:  # `frames` reports damage after the first frame
            if not frames:
                raise VideoError(f'{path}: ' + (truncation_of_mp4(container, stream, path) or
                                 f'the first frame cannot be decoded, the file is damaged ({error})')) from error
        if not frames:
            raise VideoError(f'{path}: the video stream ({stream.codec_context.name}) has no frame that can be decoded')
        return describe_stream(path, container, stream, packets, frames)


def describe_stream(path: Path, container: Any, stream: Any, packets: list[tuple[int | None, int | None]],
                    frames: list[Any]) -> VideoInfo:
    """Collect the info from the first packets' time stamps and the first frames."""
    first = frames[0]
    orientation = _orientation(path, first)
    width, height = (first.width, first.height) if orientation[0] else (first.height, first.width)
    aspect = stream.sample_aspect_ratio or Fraction(1)
    rate = _rate(container, stream)
    has_times = all(frame.pts is not None for frame in frames)
    in_order = container.format.name == 'avi' and any(pts != dts for pts, dts in packets)
    start = 0 if not has_times else packets[0][1] or 0 if in_order else first.pts
    duration = Fraction(0)
    if stream.duration:
        duration = stream.duration * stream.time_base
    elif container.duration:
        duration = Fraction(container.duration, 1_000_000)
    counts = [value for name, value in stream.metadata.items()  # of Matroska: NUMBER_OF_FRAMES, or _FRAMES-eng
              if name.partition('-')[0] == 'NUMBER_OF_FRAMES' and value.isdecimal()]
    return VideoInfo(
        path=path,
        width=width,
        height=height,
        rate=rate,
        is_variable=container.format.name != 'avi' and _is_variable(stream, [pts for pts, _ in packets]),
        num_frames=stream.frames or int(counts[0] if counts else 0),
        duration=duration,
        start=start * stream.time_base + early_start(container),
        time_base=stream.time_base,
        has_times=has_times,
        format=container.format.name,
        codec=stream.codec_context.codec.canonical_name,
        pix_fmt=first.format.name,
        bits=max(component.bits for component in first.format.components),
        color=color_of(path, first),
        orientation=orientation,
        sample_aspect_ratio=aspect if orientation[0] else 1 / aspect,
        in_order=in_order,
        problem=_problem(first, stream),
        has_alpha=not is_opaque(first),
        interlaced=stream.codec_context.field_order > 1 or any(frame.interlaced_frame for frame in frames),
        hdr=hdr_of(first),
        lost=lost_with(frames),
        has_captions=have_captions(frames),
        stream=stream.index,
        streams=tuple(stream_info(other) for other in container.streams if other.index != stream.index),
    )


def is_broadcast(format_name: str) -> bool:
    return format_name in _BROADCAST


def early_start(container: Any) -> Fraction:
    """Return how far before 0 a broadcast starts, seconds. Other containers use such times for frames not shown."""
    starts = [stream.start_time * stream.time_base for stream in container.streams
              if stream.type in ('audio', 'video') and stream.start_time is not None]
    return -min([*starts, Fraction(0)]) if is_broadcast(container.format.name) else Fraction(0)


def truncation_of_mp4(container: Any, stream: Any, path: Path) -> str:
    """Return what is missing of an MP4 or MOV file whose index lists frames behind its end; '' otherwise."""
    # FFmpeg silently ends a video where its file ends. The stated number of frames includes those that an edit list
    # removes.
    size = path.stat().st_size
    end = max((entry.pos + entry.size for entry in stream.index_entries), default=0)
    is_cut = 'mp4' in container.format.name and end > size
    return f'the video is truncated, it has {size} of at least {end} bytes' if is_cut else ''


def _rate(container: Any, stream: Any) -> Fraction:
    rate = stream.average_rate or stream.guessed_rate or Fraction(0)
    # Matroska has no rate, only the duration of a frame in nanoseconds. FFmpeg turns it into a simple fraction
    ntsc = round(rate * Fraction(1001, 1000)) * Fraction(1000, 1001)
    is_ntsc = 'matroska' in container.format.name and abs(rate - ntsc) < rate / 10**6
    return ntsc if is_ntsc else rate


def url_of(path: Path) -> str:
    """Return the name of a file for FFmpeg, which takes 'a:b.mp4' for a protocol and '-' for a pipe."""
    return f'file:{path}'


def path_of(url: str) -> Path:
    return Path(url.removeprefix('file:'))


def open_container(path: Path) -> 'av.container.InputContainer':
    import av

    if not path.exists():
        raise VideoError(f'{path}: no such file')
    if path.is_dir():
        raise VideoError(f'{path}: is a folder, expected a video file')
    if path.stat().st_size == 0:
        raise VideoError(f'{path}: the file is empty, expected a video')
    try:
        # Titles may be in any encoding, and must not prevent reading a video
        return av.open(url_of(path), metadata_errors='replace')
    except (av.error.FFmpegError, OSError) as error:
        raise VideoError(f'{path}: not a readable video ({error.strerror or error})') from error


def video_stream(container: 'av.container.InputContainer', path: Path, number: int | None = None) -> 'av.VideoStream':
    """Return the stream to restore: of those marked as default, or of all, the one of most pixels, frame by frame.

    Args:
        number: index of the stream among all streams of the file. Default: the largest one. Cover pictures and
            thumbnails do not count.

    Raises:
        VideoError: there is none, or no decoder for it.
    """
    from av.stream import Disposition

    no_video = Disposition.attached_pic | Disposition.timed_thumbnails | Disposition.still_image
    found = [stream for stream in container.streams.video if number in (None, stream.index)
             and (number is not None or not stream.disposition & no_video)]
    if not found:
        types = ', '.join(f'{stream.index}: {stream.type}' for stream in container.streams) or 'none'
        raise VideoError(f'{path}: no video stream {"in this file" if number is None else number} (streams: {types})')
    stream = max(found, key=lambda stream: (bool(stream.disposition & Disposition.default), stream.width * stream.height
                                            * _stream_duration(stream)) if stream.codec_context else (False, 0))
    if stream.codec_context is None:
        raise VideoError(f'{path}: there is no decoder for its video stream')
    return stream


def _stream_duration(stream: Any) -> float:
    """Return seconds; those of the file if the stream states none."""
    if stream.duration:
        return float(stream.duration * stream.time_base)
    if match := re.match(r'(\d+):(\d+):([\d.]+)', stream.metadata.get('DURATION', '')):  # of Matroska
        return 3600 * int(match[1]) + 60 * int(match[2]) + float(match[3])
    return (stream.container.duration or 1_000_000) / 1_000_000


def _problem(frame: 'av.VideoFrame', stream: 'av.VideoStream') -> str:
    """Return what is wrong with frames whose alpha is not decoded, or without exact RGB of at most 16 bits."""
    pixels = frame.format
    if stream.metadata.get('alpha_mode') == '1':  # of WebM; its decoders drop alpha
        return f'the video has an alpha channel ({pixels.name}) that cannot be read; lay it over a background first'
    if pixels.is_bayer or pixels.name.startswith('xyz') or max(part.bits for part in pixels.components) > 16:
        return f'the pixel format {pixels.name} is not supported, expected YUV, RGB or grey of at most 16 bits'
    return ''


def may_have_alpha(pixel_format: str) -> bool:
    from av import VideoFormat

    form = VideoFormat(pixel_format)
    return form.has_palette or any(component.is_alpha for component in form.components)


def is_opaque(frame: 'av.VideoFrame') -> bool:
    """Return whether a frame has no alpha, or that of opaque pixels everywhere."""
    if frame.format.has_palette:  # the format always allows alpha; only GIF and PNG pictures use it
        planes: Any = frame.planes  # buffers, but not in the stubs of PyAV
        palette = np.frombuffer(planes[1], np.uint32)
        return not (palette[np.unique(np.frombuffer(planes[0], np.uint8))] >> 24 < 255).any()
    if not may_have_alpha(frame.format.name):
        return True
    wide = frame.format.components[0].bits > 8
    alpha = frame.to_ndarray(format='rgba64le' if wide else 'rgba')[..., 3]
    return bool(alpha.min() >= (65535 >> 8 << 8 if wide else 255))  # swscale widens ones to ones with zeros behind them


def color_of(path: Path, frame: 'av.VideoFrame') -> ColorSpec:
    """Return the colour space from the tags of a frame; the decoder takes them from the stream or the container."""
    name = frame.format.name
    is_gray = name.startswith('gray')  # of full range, unless tagged otherwise
    if frame.format.is_rgb or frame.format.has_palette:
        primaries, transfer = _tagged(frame.color_primaries, BT709), _tagged(frame.color_trc, SRGB)
        return ColorSpec('rgb', True, primaries, transfer)
    full_range = frame.color_range == FULL or name.startswith('yuvj') or (is_gray and frame.color_range != LIMITED)
    guess = ColorSpec.untagged(frame.width, frame.height, full_range=full_range)
    matrix = guess.matrix
    if frame.colorspace not in (0, _UNSPECIFIED, 3):  # 0 is that of RGB, 3 is reserved
        if frame.colorspace not in _MATRICES:
            known = ', '.join(sorted(SWSCALE_MATRICES))
            raise VideoError(f'{path}: the video is in colour space {frame.colorspace} of ITU-T H.273, expected YUV by '
                             f'one of {known}')
        matrix = _MATRICES[frame.colorspace]
    return ColorSpec(matrix, full_range, _tagged(frame.color_primaries, guess.primaries),
                     _tagged(frame.color_trc, guess.transfer))


def _tagged(number: int, otherwise: int) -> int:
    return otherwise if number in (0, _UNSPECIFIED, 3) else number


def _orientation(path: Path, frame: 'av.VideoFrame') -> tuple[int, int, int, int]:
    """Return the display matrix of a frame without its scale and shift, see `_ROTATIONS`."""
    side_data: Any = frame.side_data  # of objects, but of str in the stubs of PyAV
    for data in side_data:
        if data.type.name == 'DISPLAYMATRIX':
            a, b, _, c, d = np.frombuffer(data, np.int32)[:5] / 65536
            found = tuple(round(float(number)) for number in (a, b, c, d))
            if found not in _ROTATIONS or np.abs(np.array(found) - (a, b, c, d)).max() > 0.01:
                raise VideoError(f'{path}: the video is to be shown by a display matrix [{a:.2f} {b:.2f}; {c:.2f} '
                                 f'{d:.2f}], expected a rotation by 0, 90, 180 or 270 degrees')
            return found
    return 1, 0, 0, 1


def _is_variable(stream: Any, packets: list[int | None]) -> bool:
    """Return whether time stamps vary by more than their rounding to the time base."""
    times = [entry.timestamp for entry in stream.index_entries]  # of all frames in MP4, of keyframes in others
    if len(times) != stream.frames:
        times = sorted(pts for pts in packets if pts is not None)
        times = times[:-16] if len(times) == _NUM_PROBED_PACKETS else times  # earlier frames may follow
    steps = np.diff(times)
    return len(steps) > 1 and int(steps.max() - steps.min()) > 1


def stream_info(stream: Any) -> StreamInfo:
    codec = stream.codec_context.name if stream.codec_context is not None else getattr(stream, 'name', None) or ''
    return StreamInfo(stream.index, stream.type, codec, stream.metadata.get('language', ''))
