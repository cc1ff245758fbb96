"""Frames with their times, out of a video file; `open_source` also opens a folder of images.

A source hands out RGB frames in the order in which they are shown, each with the exact time at which it is shown, and
never drops or repeats one: what it cannot hand out rightly, it refuses with a `VideoError`.
"""
import contextlib
import itertools
import weakref
from collections.abc import Iterable, Iterator
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, TypeVar

from ..utils.threads import available_cores
from .frame_folder import FolderSource
from .frame_source import Source, TimedFrame
from .pixels import RGBConverter
from .video_clips import read_ebml_number
from .video_info import VideoError, open_container, probe, video_stream

if TYPE_CHECKING:
    import av

T = TypeVar('T')

# Codecs of which each packet is a frame that is shown, so that one that does not come out of the decoder is noticed
_FRAME_PER_PACKET = frozenset({'h264', 'hevc', 'vvc', 'vp9', 'av1', 'mpeg2video', 'ffv1', 'prores', 'dnxhd', 'mjpeg',
                               'png'})
_SEEK_BACK = (0, 1, 4, 16, 64)  # seconds in front of the wanted frame where a keyframe is looked for


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
            with open_container(self.path) as container:
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
