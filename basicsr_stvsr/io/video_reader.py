"""Frames with their times, out of a video file or a folder of images.

A source hands out RGB frames in the order in which they are shown, each with the exact time at which it is shown, and
never drops or repeats one: what it cannot hand out rightly, it refuses with a `VideoError`.
"""
import contextlib
import itertools
import math
import weakref
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Literal, NamedTuple, Protocol, TypeVar

import cv2
import numpy as np

from ..utils.threads import available_cores
from .images import IMAGE_SUFFIXES, decode_image, files_with, natural_key
from .video_clips import read_ebml_number

if TYPE_CHECKING:
    import av

T = TypeVar('T')
Matrix = Literal['rgb', 'bt709', 'fcc', 'bt601', 'smpte240m', 'bt2020']

_MATRICES: dict[int, Matrix] = {  # by AVColorSpace; the two of BT.601 differ in name alone
    0: 'rgb', 1: 'bt709', 4: 'fcc', 5: 'bt601', 6: 'bt601', 7: 'smpte240m', 9: 'bt2020'}
SWSCALE_MATRICES: dict[Matrix, int] = {'bt709': 1, 'fcc': 4, 'bt601': 5, 'smpte240m': 7, 'bt2020': 9}
LIMITED, FULL = 1, 2  # AVColorRange
_UNSPECIFIED = 2  # of AVColorSpace, AVColorPrimaries and AVColorTransferCharacteristic alike
_BT709, _BT470BG, _SMPTE170M, _SRGB = 1, 5, 6, 13  # AVColorPrimaries, AVColorTransferCharacteristic

# swscale takes white of limited range to 255 * 256 when it widens to 16 bits, and that of full range to as many ones as
# the source has bits, followed by zeros. x + (x >> shift) takes both to 65535.
_LIMITED_SHIFT = 8
_WIDE_RGB = frozenset({'gbrp9le', 'gbrp10le', 'gbrp12le', 'gbrp14le'})  # of which swscale loses bits

# Codecs of which each packet is a frame that is shown, so that one that does not come out of the decoder is noticed
_FRAME_PER_PACKET = frozenset({'h264', 'hevc', 'vvc', 'vp9', 'av1', 'mpeg2video', 'ffv1', 'prores', 'dnxhd', 'mjpeg',
                               'png'})
_NUM_PROBED_PACKETS, _NUM_PROBED_FRAMES = 64, 8
_SEEK_BACK = (0, 1, 4, 16, 64)  # seconds in front of the wanted frame where a keyframe is looked for
_ROTATIONS = {  # what a display matrix [a b; c d] does: x' = a x + c y, y' = b x + d y, with y downwards -> clockwise
    (1, 0, 0, 1): 0, (0, 1, -1, 0): 90, (-1, 0, 0, -1): 180, (0, -1, 1, 0): 270,
    (-1, 0, 0, 1): 0, (0, -1, -1, 0): 90, (1, 0, 0, -1): 180, (0, 1, 1, 0): 270}  # these after a flip left to right


class VideoError(OSError):
    """A video or a folder of frames that cannot be read or written; the message says which, what is wrong and where."""


class ColorSpec(NamedTuple):
    """What the numbers of a video mean.

    Attributes:
        matrix: how YUV is made of RGB; 'rgb' where there is no YUV.
        full_range: whether luma uses all levels, not 16-235 of 255 alone.
        primaries, transfer: FFmpeg's numbers, AVColorPrimaries and AVColorTransferCharacteristic, which are those of
            ITU-T H.273. They are passed on, frames are not converted by them.
    """
    matrix: Matrix
    full_range: bool
    primaries: int
    transfer: int

    @classmethod
    def untagged(cls, width: int, height: int, *, full_range: bool = False) -> 'ColorSpec':
        """What players take a video without tags for: BT.709 from 1280 columns or 577 lines on, else BT.601."""
        if width >= 1280 or height > 576:
            return cls('bt709', full_range, _BT709, _BT709)
        primaries = {576: _BT470BG, 480: _SMPTE170M, 486: _SMPTE170M}.get(height, _BT709)
        return cls('bt601', full_range, primaries, _SMPTE170M)


class StreamInfo(NamedTuple):
    """A stream of a file besides the video that is restored.

    Attributes:
        type: 'audio', 'subtitle', 'data', 'attachment' or 'video' (such as a cover picture).
        codec: FFmpeg's name; '' where the stream has none, as attachments.
        language: as tagged, mostly three letters; '' if unknown.
    """
    index: int
    type: str
    codec: str
    language: str


@dataclass(frozen=True)
class VideoInfo:
    """What is known of a video before it is decoded.

    Attributes:
        path: the file or the folder.
        width, height: pixels as shown, after the rotation.
        rate: frames a second, on average; 0 if unknown.
        is_variable: whether time stamps are not evenly spaced (seen in the index of the file, or in its beginning).
        num_frames: as the file states it; 0 if it does not.
        duration: seconds; 0 if unknown.
        start: time of the first frame, seconds.
        time_base: the unit of time stamps, seconds.
        has_times: False where the file has no time stamps, as raw streams; frames then follow each other by `rate`.
        format, codec, pix_fmt: FFmpeg's names.
        bits: of a component, 1 to 16.
        color: from the file's tags, or by its size where it has none.
        orientation: a, b, c, d of the file's display matrix, which takes stored (x, y) to shown (ax + cy, bx + dy).
        sample_aspect_ratio: width of a shown pixel by its height.
        interlaced: whether frames are made of two fields.
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
    interlaced: bool = False
    streams: tuple[StreamInfo, ...] = ()

    @property
    def about_frames(self) -> int:
        """Number of frames as the file states it or, as Matroska does not, by its duration; 0 if unknown."""
        return self.num_frames or round(self.duration * self.rate)

    @property
    def rotation(self) -> int:
        """Degrees clockwise by which stored frames are turned to be shown."""
        return _ROTATIONS[self.orientation]


class TimedFrame(NamedTuple):
    """A frame and when it is shown.

    Attributes:
        image: (h, w, 3) RGB; uint8, 0-255, from sources of at most 8 bits, else uint16, 0-65535. In memory its planes
            may lie behind each other.
        time: seconds, exactly as the time stamp says.
    """
    image: np.ndarray
    time: Fraction


class Source(Protocol):
    """What frames come from.

    Attributes:
        info: what is known of it.
        files: what is read.
        reading: how, as far as that changes the frames.
    """
    info: VideoInfo
    files: Sequence[Path]
    reading: str

    def frames(self, start: Fraction | None = None) -> Iterator[TimedFrame]: ...

    def times(self, start: Fraction | None = None) -> Iterator[Fraction]: ...

    def close(self) -> None: ...

    def __enter__(self) -> 'Source': ...

    def __exit__(self, *exc_info: object) -> None: ...


def probe(path: str | Path) -> VideoInfo:
    """Finds out what a video file holds, by its header and its first frames.

    Raises:
        VideoError: no such file, no video in it, or one that cannot be restored: with an alpha channel, or in a pixel
            format or a colour space that has no RGB here.
    """
    import av  # here, because importing the package should not cost what only videos need

    path = Path(path)
    with _open(path) as container:
        stream = video_stream(container, path)
        stream.thread_type = 'SLICE'  # the first frame then comes with the first packet
        packets, frames = [], []
        try:
            for packet in container.demux(stream):
                if packet.size:
                    packets.append(packet.pts)
                if len(frames) < _NUM_PROBED_FRAMES:
                    frames += packet.decode()
                if len(packets) == _NUM_PROBED_PACKETS and frames:
                    break
        except av.error.FFmpegError as error:  # what comes behind the first frame may be damaged, `frames` tells where
            if not frames:
                raise VideoError(f'{path}: the first frame cannot be decoded, the file is damaged ({error})') from error
        if not frames:
            raise VideoError(f'{path}: the video stream ({stream.codec_context.name}) has no frame that can be decoded')
        return _describe(path, container, stream, packets, frames)


def _describe(path: Path, container: Any, stream: Any, packets: list[int | None], frames: list[Any]) -> VideoInfo:
    """Makes the info of the first packets' time stamps and the first frames."""
    first = frames[0]
    check_format(path, first, stream)
    orientation = _orientation(path, first)
    width, height = (first.width, first.height) if orientation[0] else (first.height, first.width)
    aspect = stream.sample_aspect_ratio or Fraction(1)
    rate = _rate(container, stream)
    has_times = all(frame.pts is not None for frame in frames)
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
        is_variable=_is_variable(stream, packets),
        num_frames=stream.frames or int(counts[0] if counts else 0),
        duration=duration,
        start=first.pts * first.time_base if has_times else Fraction(0),
        time_base=stream.time_base,
        has_times=has_times,
        format=container.format.name,
        codec=stream.codec_context.codec.canonical_name,
        pix_fmt=first.format.name,
        bits=max(component.bits for component in first.format.components),
        color=_color(path, first),
        orientation=orientation,
        sample_aspect_ratio=aspect if orientation[0] else 1 / aspect,
        interlaced=stream.codec_context.field_order > 1 or any(frame.interlaced_frame for frame in frames),
        streams=tuple(_stream_info(other) for other in container.streams if other.index != stream.index),
    )


def _rate(container: Any, stream: Any) -> Fraction:
    rate = stream.average_rate or stream.guessed_rate or Fraction(0)
    # Matroska has no rate but the nanoseconds of a frame, of which FFmpeg makes a fraction of few digits
    ntsc = round(rate * Fraction(1001, 1000)) * Fraction(1000, 1001)
    is_ntsc = 'matroska' in container.format.name and abs(rate - ntsc) < rate / 10**6
    return ntsc if is_ntsc else rate


def _open(path: Path) -> 'av.container.InputContainer':
    import av

    if not path.exists():
        raise VideoError(f'{path}: no such file')
    if path.is_dir():
        raise VideoError(f'{path}: is a folder, expected a video file')
    if path.stat().st_size == 0:
        raise VideoError(f'{path}: the file is empty, expected a video')
    try:
        # Titles may be in any encoding, and are no reason to refuse a video
        return av.open(str(path), metadata_errors='replace')
    except (av.error.FFmpegError, OSError) as error:
        raise VideoError(f'{path}: not a readable video ({error})') from error


def video_stream(container: 'av.container.InputContainer', path: Path) -> 'av.VideoStream':
    """The stream that is restored: the first video that is no cover picture.

    Raises:
        VideoError: there is none, or no decoder for it.
    """
    from av.stream import Disposition

    for stream in container.streams.video:
        if not stream.disposition & (Disposition.attached_pic | Disposition.timed_thumbnails):
            if stream.codec_context is None:
                raise VideoError(f'{path}: there is no decoder for its video stream')
            return stream
    found = ', '.join(sorted({stream.type for stream in container.streams})) or 'none'
    raise VideoError(f'{path}: no video stream in this file (streams: {found})')


def check_format(path: Path, frame: 'av.VideoFrame', stream: 'av.VideoStream') -> None:
    """Raises VideoError for frames with alpha, and for pixel formats that have no exact RGB of at most 16 bits."""
    pixels = frame.format
    alpha = any(component.is_alpha for component in pixels.components)
    if pixels.has_palette:  # the format always has room for alpha; only GIF and PNG pictures use it
        palette = np.frombuffer(frame.planes[1], np.uint32)
        alpha = bool((palette[np.unique(np.frombuffer(frame.planes[0], np.uint8))] >> 24 < 255).any())
    if alpha or stream.metadata.get('alpha_mode') == '1':  # the latter is of WebM, whose decoders leave alpha out
        raise VideoError(f'{path}: the video has an alpha channel ({pixels.name}), which a restored video cannot keep; '
                         'lay it over a background first')
    if pixels.is_bayer or pixels.name.startswith('xyz') or max(part.bits for part in pixels.components) > 16:
        raise VideoError(f'{path}: the pixel format {pixels.name} is not supported, expected YUV, RGB or grey of at '
                         'most 16 bits')


def _color(path: Path, frame: 'av.VideoFrame') -> ColorSpec:
    """The colour space by the tags of a frame, which the decoder takes from the stream or from the container."""
    name = frame.format.name
    is_gray = name.startswith('gray')  # of full range, unless it is tagged otherwise
    if frame.format.is_rgb or frame.format.has_palette:
        primaries, transfer = _tagged(frame.color_primaries, _BT709), _tagged(frame.color_trc, _SRGB)
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
    """The display matrix of a frame without its scale and shift, see `_ROTATIONS`."""
    for data in frame.side_data:
        if data.type.name == 'DISPLAYMATRIX':
            a, b, _, c, d = np.frombuffer(data, np.int32)[:5] / 65536
            found = tuple(round(float(number)) for number in (a, b, c, d))
            if found not in _ROTATIONS or np.abs(np.array(found) - (a, b, c, d)).max() > 0.01:
                raise VideoError(f'{path}: the video is to be shown by a display matrix [{a:.2f} {b:.2f}; {c:.2f} '
                                 f'{d:.2f}], expected a rotation by 0, 90, 180 or 270 degrees')
            return found
    return 1, 0, 0, 1


def _is_variable(stream: Any, packets: list[int | None]) -> bool:
    """Whether time stamps differ by more than the rounding to the time base."""
    times = [entry.timestamp for entry in stream.index_entries]  # of all frames in MP4, of keyframes in others
    if len(times) != stream.frames:
        times = sorted(pts for pts in packets if pts is not None)
        times = times[:-16] if len(times) == _NUM_PROBED_PACKETS else times  # frames shown before these may follow
    steps = np.diff(times)
    return len(steps) > 1 and int(steps.max() - steps.min()) > 1


def _stream_info(stream: Any) -> StreamInfo:
    codec = stream.codec_context.name if stream.codec_context is not None else getattr(stream, 'name', None) or ''
    return StreamInfo(stream.index, stream.type, codec, stream.metadata.get('language', ''))


class RGBConverter:
    """Makes RGB arrays of decoded frames.

    Args:
        color: what the frames' numbers mean.
        bits: of a component of the frames; decides between uint8 and uint16.
        orientation: see `VideoInfo`.
    """

    def __init__(self, color: ColorSpec, bits: int, orientation: tuple[int, int, int, int] = (1, 0, 0, 1)):
        from av.video.reformatter import Interpolation, VideoReformatter

        self._reformatter = VideoReformatter()
        # Chroma of each pixel, with all bits; the default of swscale is off by up to two levels
        self._interpolation = Interpolation.BICUBIC | Interpolation.FULL_CHR_H_INT | Interpolation.ACCURATE_RND
        self._color, self._orientation = color, orientation
        self._dtype, self._planar = (np.uint8, 'gbrp') if bits <= 8 else (np.uint16, 'gbrp16le')
        self._shift = bits if color.full_range else _LIMITED_SHIFT

    def __call__(self, frame: 'av.VideoFrame') -> np.ndarray:
        """(h, w, 3) RGB as shown; a view of contiguous planes (3, h, w), which networks and encoders take."""
        is_wide_rgb = frame.format.name in _WIDE_RGB
        if not is_wide_rgb:
            # Planes, as swscale makes packed RGB with full chroma four times slower
            frame = self._reformatter.reformat(
                frame, format=self._planar, src_colorspace=SWSCALE_MATRICES.get(self._color.matrix),
                src_color_range=FULL if self._color.full_range else LIMITED, dst_color_range=FULL,
                interpolation=self._interpolation, threads=1)
        green, blue, red = plane_arrays(frame, self._dtype)
        planes = np.stack((red, green, blue))
        if is_wide_rgb:
            planes <<= 16 - self._shift
        if self._dtype == np.uint16 and self._shift < 16:
            rows = planes.reshape(-1, frame.width)
            cv2.add(rows, rows >> self._shift, rows)  # saturates, as whiter than white may come
        return self._turned(planes).transpose(1, 2, 0)

    def _turned(self, planes: np.ndarray) -> np.ndarray:
        a, b, c, d = self._orientation
        if not a:
            planes = planes.swapaxes(1, 2)
        # A row of the turned image now holds what had one y (or one x, if swapped), and may lie in reverse order
        planes = planes[:, ::d or b, ::a or c]
        return np.ascontiguousarray(planes)


def plane_arrays(frame: 'av.VideoFrame', dtype: type) -> list[np.ndarray]:
    """The planes of a frame as (h, w) arrays of its memory."""
    size = np.dtype(dtype).itemsize
    return [np.frombuffer(plane, dtype).reshape(-1, plane.line_size // size)[:plane.height, :plane.width]
            for plane in frame.planes]


def planes_of(image: np.ndarray) -> np.ndarray:
    """The channels (3, h, w) of an image (h, w, 3), contiguous; not a copy where that is how it lies in memory."""
    return np.stack(cv2.split(image)) if image.flags.c_contiguous else np.ascontiguousarray(image.transpose(2, 0, 1))


def packed(image: np.ndarray) -> np.ndarray:
    """An image (h, w, 3), contiguous, pixel by pixel; not a copy where that is how it lies in memory."""
    return image if image.flags.c_contiguous else cv2.merge(tuple(planes_of(image)))


class _Damage(ValueError):
    """What is wrong with the next frame."""


class _MatroskaElements:
    """Goes along the elements of a Matroska or WebM file: FFmpeg passes over damaged ones, and over the frames in them.

    EBML (RFC 8794, 9559): a file is a row of elements, each an identifier, the size of its content, and the content.

    Args:
        file: open for reading.
        size: of the file, bytes.
    """
    _SEGMENT, _CLUSTER = bytes.fromhex('18538067'), bytes.fromhex('1f43b675')
    _PASSED = frozenset(bytes.fromhex(name) for name in (
        '1a45dfa3', 'ec', 'bf',  # EBML header; anywhere: void, checksum
        '114d9b74', '1549a966', '1654ae6b', '1c53bb6b', '1941a469', '1043a770', '1254c367',  # of the segment
        'e7', 'a7', 'ab', 'a3', 'a0', '5854'))  # of clusters: times and blocks

    def __init__(self, file: BinaryIO, size: int):
        self._file, self._size = file, size
        self._next, self._end = 0, size

    def advance(self, position: int | None = None) -> None:
        """Raises _Damage if an element that begins before a position in the file, or its end, is damaged or cut off."""
        while self._next < (self._end if position is None else min(position, self._end)):
            if self._next >= self._size:
                raise _Damage(f'the video is truncated, it has {self._size} of {self._end} bytes')
            self._file.seek(self._next)
            identifier = read_ebml_number(self._file)
            field = read_ebml_number(self._file)
            content = self._file.tell()
            unknown = 2**(7 * len(field)) - 1  # the size in a recording that was never closed
            size = int.from_bytes(field) & unknown
            if identifier == self._SEGMENT and size != unknown:
                self._end = content + size
            if identifier in (self._SEGMENT, self._CLUSTER):
                self._next = content
            elif field and (identifier in self._PASSED or self._is_known(content + size)):
                self._next = content + size
            else:
                raise _Damage(f'the Matroska file is damaged at byte {self._next}')

    def _is_known(self, position: int) -> bool:
        """Whether an element of a known kind begins there, or the file ends: so what is before it may be a new kind."""
        self._file.seek(position)
        return position == self._end or read_ebml_number(self._file) in self._PASSED | {self._CLUSTER}


class VideoSource:
    """Frames of a video file; also a context manager.

    Args:
        path: the file.
        deinterlace: makes one frame of each frame of two fields, by the filter bwdif.
        threads: of the decoder; 0: what FFmpeg finds best, which is more than there are cores; default: half of the
            cores, which leaves the others to what else is to be done, and takes less work in all.

    Raises:
        VideoError: see `probe`; also an interlaced video where `deinterlace` is not set.
    """

    def __init__(self, path: str | Path, *, deinterlace: bool = False, threads: int | None = None):
        self.path = Path(path)
        self.info = probe(self.path)
        if self.info.interlaced and not deinterlace:
            raise VideoError(f'{self.path}: the video is interlaced, its frames are made of two fields of different '
                             'times; give --deinterlace to make whole frames of them first')
        self.files, self.reading = [self.path], 'deinterlaced' if deinterlace else 'as it is'
        self._deinterlace = deinterlace
        self._threads = max(1, available_cores() // 2) if threads is None else threads
        self._running: weakref.WeakSet[Any] = weakref.WeakSet()

    def frames(self, start: Fraction | None = None) -> Iterator[TimedFrame]:
        """Decodes the video, or what is left of it from a time on.

        Args:
            start: the first frame is the first one at or behind this time, seconds; default all frames.

        Raises:
            VideoError: at the first frame that is damaged, missing or unlike the others, with the time of the last good
                one; all good frames before it have been handed out.
        """
        to_rgb = RGBConverter(self.info.color, self.info.bits, self.info.orientation)
        return self._tracked(TimedFrame(to_rgb(frame), time) for frame, time in self._frames(start))

    def times(self, start: Fraction | None = None) -> Iterator[Fraction]:
        """The times of what `frames` hands out, which it takes as much decoding to know; else the same."""
        return self._tracked(time for _, time in self._frames(start))

    def _tracked(self, items: Iterator[T]) -> Iterator[T]:
        self._running.add(items)
        return items

    def close(self) -> None:
        """Ends what `frames` began, as far as no other thread is waiting for a frame of it."""
        for frames in list(self._running):
            with contextlib.suppress(ValueError):  # it runs, and cannot be ended from outside
                frames.close()

    def __enter__(self) -> 'VideoSource':
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def __reduce__(self) -> tuple[Any, ...]:  # for other processes, each of which reads the file by itself
        return partial(VideoSource, deinterlace=self._deinterlace, threads=self._threads), (self.path,)

    def _frames(self, start: Fraction | None) -> Iterator[tuple['av.VideoFrame', Fraction]]:
        import av

        last = None
        try:
            for frame, time in self._decode(start, self._threads):
                last = time
                yield frame, time
        except (_Damage, av.error.FFmpegError) as error:
            # A decoder of several threads meets damage before it has handed out the frames in front of it.
            try:
                for frame, time in self._decode(start if last is None else last, threads=1):
                    if last is None or time > last:
                        last = time
                        yield frame, time
            except (_Damage, av.error.FFmpegError):
                pass
            where = 'not even its first frame' if last is None else f'only up to the frame at {float(last):.3f} s'
            raise VideoError(f'{self.path}: the video can be read {where}, then it is damaged ({error})') from error

    def _decode(self, start: Fraction | None, threads: int) -> Iterator[tuple['av.VideoFrame', Fraction]]:
        """Frames from a time on, decoded from a keyframe in front of it."""
        import av

        for target in self._seek_targets(start):
            with _open(self.path) as container:
                stream = video_stream(container, self.path)
                stream.thread_type = 'AUTO'  # frames and slices
                stream.codec_context.thread_count = threads
                # Where a codec does not tell, chroma lies at the left pixel, as MPEG has it, not in the middle
                stream.codec_context.options = {'chroma_sample_location': 'left'}
                frames = self._timed(container, stream, target)
                if target is not None:
                    # Frames shown before the first keyframe may need frames that were passed over
                    try:
                        ahead = next((pair for pair in frames if pair[0].key_frame), None)
                    except (_Damage, av.error.FFmpegError):
                        continue
                    # A deinterlaced frame also needs the frame before it
                    if ahead is None or ahead[1] > start or (self._deinterlace and ahead[1] == start):
                        continue
                    frames = itertools.chain([ahead], frames)
                for frame, time in frames:
                    if start is None or time >= start:
                        yield frame, time
                return

    def _seek_targets(self, start: Fraction | None) -> list[Fraction | None]:
        """Where to look for a keyframe that is not behind `start`, one place after the other; None is the beginning."""
        targets: list[Fraction | None] = [None]
        if start is not None and self.info.has_times:
            targets[:0] = [start - back for back in _SEEK_BACK if start - back > self.info.start]
        return targets

    def _timed(self, container: Any, stream: Any, target: Fraction | None) -> Iterator[tuple[Any, Fraction]]:
        """Frames as they are shown, deinterlaced if wished, and their times."""
        frames = self._decoded(container, stream, target)
        if self._deinterlace:
            frames = deinterlaced(frames)
        last = None
        for frame in frames:
            if frame.pts is not None:
                time = frame.pts * frame.time_base
            else:
                time = self.info.start if last is None else last + 1 / self._step_rate()
            if last is not None and time <= last:
                raise _Damage(f'the next frame has the time {float(time):.3f} s, which is not later')
            last = time
            yield frame, time

    def _step_rate(self) -> Fraction:
        if not self.info.rate:
            raise _Damage('the next frame has no time stamp, and the file states no frame rate')
        return self.info.rate

    def _decoded(self, container: Any, stream: Any, target: Fraction | None) -> Iterator[Any]:
        """Frames as the decoder hands them out, looked at for damage."""
        import av

        first = failure = None
        due: set[int] = set()  # time stamps of frames that the decoder owes
        tracked = self.info.codec in _FRAME_PER_PACKET and self.info.has_times and not self.info.interlaced
        packets = self._packets(container, stream, target)
        while failure is None:
            try:
                packet = next(packets, None)
                if packet is None:
                    break
                if tracked and packet.size and packet.pts is not None and not packet.is_discard:
                    due.add(packet.pts)
                frames = packet.decode()
            except (_Damage, av.error.FFmpegError) as error:
                failure = error
                frames = _held_back(stream) if tracked else []
            for frame in frames:
                first = first or frame
                if tracked:
                    # Where a video was cut out of a longer one, frames in front of the first one cannot be restored
                    due = {pts for pts in due if pts > first.pts and pts != frame.pts}
                self._check_frame(frame, first, due)
                yield frame
        if failure is not None:
            raise failure
        if due and first is not None:
            raise _Damage(f'the decoder does not restore the frame at {float(min(due) * stream.time_base):.3f} s')

    def _packets(self, container: Any, stream: Any, target: Fraction | None) -> Iterator[Any]:
        """Packets from a time on, as long as the file is whole."""
        import av

        if target is not None:
            try:
                container.seek(int(target / stream.time_base), stream=stream)
            except av.error.FFmpegError:  # a stream without an index
                return
        size, num_packets = self.path.stat().st_size, 0
        with open(self.path, 'rb') as file:
            elements = _MatroskaElements(file, size) if 'matroska' in self.info.format else None
            for packet in container.demux(stream):
                if elements is not None and packet.pos is not None:
                    elements.advance(packet.pos)
                # A recording may begin in the middle of a packet
                if packet.is_corrupt and num_packets:
                    raise _Damage('a part of the file is missing or damaged')
                num_packets += packet.size > 0
                yield packet
            if elements is not None:
                elements.advance()
        # FFmpeg just ends a video where its file ends
        if 'mp4' in self.info.format:
            # The number of frames that MP4 states includes those that its edit list takes out
            end = max((entry.pos + entry.size for entry in stream.index_entries), default=0)
            if end > size:
                raise _Damage(f'the video is truncated, it has {size} of at least {end} bytes')
        elif target is None and num_packets < stream.frames:
            raise _Damage(f'the video is truncated, it has {num_packets} of {stream.frames} frames')

    def _check_frame(self, frame: Any, first: Any, due: set[int]) -> None:
        if frame.is_corrupt:
            raise _Damage('the decoder cannot restore the next frame')
        if due and (missing := min(due)) < frame.pts:
            raise _Damage(f'the decoder does not restore the frame at {float(missing * frame.time_base):.3f} s')
        if (frame.width, frame.height) != (first.width, first.height):
            raise _Damage(f'frames change their size from {first.width}x{first.height} to '
                          f'{frame.width}x{frame.height} (w x h)')
        if frame.format.name != first.format.name:
            raise _Damage(f'frames change their pixel format from {first.format.name} to {frame.format.name}')


def _held_back(stream: 'av.VideoStream') -> list['av.VideoFrame']:
    """Frames that a decoder holds back, as others may have to be shown before them."""
    import av

    try:
        frames = stream.codec_context.decode()
    except av.error.FFmpegError:
        return []
    for frame in frames:
        frame.time_base = stream.time_base
    return frames


def deinterlaced(frames: Iterable['av.VideoFrame']) -> Iterator['av.VideoFrame']:
    """One whole frame of each frame of two fields, at the same time, by FFmpeg's filter bwdif.

    Args:
        frames: all of one size and pixel format. What they raise is raised on, behind the frames made before.
    """
    import av

    graph = failure = None

    def ready() -> Iterator['av.VideoFrame']:
        while True:
            try:
                yield graph.vpull()
            except (av.error.BlockingIOError, av.error.EOFError):
                return

    try:
        for frame in frames:
            graph = graph or _bwdif(frame)
            graph.vpush(frame)
            yield from ready()
    except (_Damage, av.error.FFmpegError) as error:
        failure = error
    if graph is not None:
        graph.vpush(None)  # the filter holds the last frame back, as it looks at the next one
        yield from ready()
    if failure is not None:
        raise failure


def _bwdif(first: 'av.VideoFrame') -> 'av.filter.Graph':
    import av.filter

    graph = av.filter.Graph()
    time_base = f'{first.time_base.numerator}/{first.time_base.denominator}'
    source = graph.add('buffer', f'video_size={first.width}x{first.height}:pix_fmt={first.format.name}'
                       f':time_base={time_base}:colorspace={first.colorspace}:range={first.color_range}')
    bwdif = graph.add('bwdif', mode='send_frame', deint='all')
    graph.link_nodes(source, bwdif, graph.add('buffersink')).configure()
    return graph


class FolderSource:
    """The images of a folder as a video, in the natural order of their names; also a context manager.

    Args:
        path: a folder that directly holds png, jpg, webp, bmp or tif files.
        rate: frames a second.

    Raises:
        VideoError: no such folder, no images in it, several clips below it, or a first image that cannot be used.
    """

    def __init__(self, path: str | Path, *, rate: Fraction = Fraction(25)):
        self.path = Path(path)
        self.files = self._list_files()
        if rate <= 0:
            raise VideoError(f'{self.path}: expected a frame rate above 0, got {rate}')
        first = _read_image(self.files[0])
        height, width = first.shape[:2]
        bits = 8 * first.dtype.itemsize
        num_frames = len(self.files)
        rate = Fraction(rate)
        self.reading = f'{rate} frames a second'
        self.info = VideoInfo(
            path=self.path, width=width, height=height, rate=rate, is_variable=False, num_frames=num_frames,
            duration=num_frames / rate, start=Fraction(0), time_base=1 / rate, has_times=False, format='images',
            codec=self.files[0].suffix.lower()[1:], pix_fmt='rgb24' if bits == 8 else 'rgb48le', bits=bits,
            color=ColorSpec('rgb', True, _BT709, _SRGB))

    def frames(self, start: Fraction | None = None) -> Iterator[TimedFrame]:
        """Reads the images, or what is left of them from a time on; image n is shown at n / `rate`.

        Raises:
            VideoError: at the first image that is damaged, has alpha, or differs from the others in size or bits.
        """
        dtype = np.uint8 if self.info.bits == 8 else np.uint16
        for number in self._numbers(start):
            image = _read_image(self.files[number])
            if image.shape[:2] != (self.info.height, self.info.width) or image.dtype != dtype:
                raise VideoError(f'{self.files[number]}: the image has {image.shape[1]}x{image.shape[0]} pixels (w x '
                                 f'h) and {8 * image.dtype.itemsize} bits, {self.files[0].name} has '
                                 f'{self.info.width}x{self.info.height} and {self.info.bits}; all must be alike')
            yield TimedFrame(image, number / self.info.rate)

    def times(self, start: Fraction | None = None) -> Iterator[Fraction]:
        """The times of what `frames` hands out, if no image is damaged."""
        return (number / self.info.rate for number in self._numbers(start))

    def _numbers(self, start: Fraction | None) -> range:
        return range(0 if start is None else max(math.ceil(start * self.info.rate), 0), len(self.files))

    def close(self) -> None:
        """Nothing is kept open."""

    def __enter__(self) -> 'FolderSource':
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def _list_files(self) -> list[Path]:
        if not self.path.is_dir():
            raise VideoError(f'{self.path}: no such folder')
        if files := files_with(IMAGE_SUFFIXES, self.path):
            return sorted(files, key=lambda file: natural_key(file.name))
        clips = [folder.name for folder in sorted(self.path.iterdir())
                 if folder.is_dir() and files_with(IMAGE_SUFFIXES, folder)]
        if clips:
            some = ', '.join(clips[:3]) + (', ...' if len(clips) > 3 else '')
            raise VideoError(f'{self.path}: expected images, found {len(clips)} folders of images ({some}); give them '
                             'one by one')
        raise VideoError(f'{self.path}: no images ({", ".join(sorted(IMAGE_SUFFIXES))}) in this folder')


def _read_image(path: Path) -> np.ndarray:
    """(h, w, 3) RGB, uint8 or uint16."""
    # A JPEG's rotation is applied as long as OpenCV is not asked for the image as it is stored; it has no alpha.
    flags = cv2.IMREAD_COLOR if path.suffix.lower() in ('.jpg', '.jpeg') else cv2.IMREAD_UNCHANGED
    try:
        image = decode_image(path.read_bytes(), flags)
    except (ValueError, OSError) as error:
        raise VideoError(f'{path}: {error}') from error
    if image.ndim == 3 and image.shape[2] not in (1, 3):
        raise VideoError(f'{path}: the image has an alpha channel, which a restored video cannot keep; lay it over a '
                         'background first')
    if image.dtype not in (np.uint8, np.uint16):
        raise VideoError(f'{path}: the image holds {image.dtype} numbers, expected 8 or 16 bits')
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB if image.ndim == 3 and image.shape[2] == 3 else cv2.COLOR_GRAY2RGB)


def open_source(path: str | Path, *, deinterlace: bool = False, rate: Fraction | None = None) -> Source:
    """A video file or a folder of images, by what is found at `path`.

    Args:
        deinterlace: see `VideoSource`.
        rate: frames a second of a folder of images, default 25; a video file has its own.

    Raises:
        VideoError: see `VideoSource` and `FolderSource`; also an option that is for the other one of them.
    """
    path = Path(path)
    if path.is_dir():
        if deinterlace:
            raise VideoError(f'{path}: is a folder of images, only video files can be deinterlaced')
        return FolderSource(path, rate=Fraction(25) if rate is None else rate)
    if rate is not None:
        raise VideoError(f'{path}: a frame rate is for folders of images, a video file has its own')
    return VideoSource(path, deinterlace=deinterlace)
