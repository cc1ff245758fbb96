"""Read a video file as frames with times; `open_source` also opens a folder of images.

A source yields RGB frames in display order, each with the exact time at which it is shown. It never drops or repeats a
frame: frames that it cannot restore correctly raise a `VideoError`.
"""
import contextlib
import itertools
import weakref
from collections.abc import Iterable, Iterator
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, TypeVar

import numpy as np

from ..utils.threads import available_cores
from .frame_folder import FolderSource
from .frame_source import Source, TimedFrame
from .pixels import RGBConverter
from .video_clips import read_ebml_number
from .video_info import DECODER_OPTIONS, VideoError, open_container, probe, video_stream

if TYPE_CHECKING:
    import av

T = TypeVar('T')

# Codecs with one shown frame per packet, to notice frames that the decoder does not return
_FRAME_PER_PACKET = frozenset({'h264', 'hevc', 'vvc', 'vp9', 'av1', 'mpeg2video', 'ffv1', 'prores', 'dnxhd', 'mjpeg',
                               'png'})
_SEEK_BACK = (0, 1, 4, 16, 64)  # seconds before the wanted frame, to look for a keyframe


class _Damage(ValueError):
    """Describe what is wrong with the next frame."""


class _MatroskaElements:
    """Walk through the elements of a Matroska or WebM file. FFmpeg skips damaged elements, and the frames in them.

    EBML (RFC 8794, 9559): a file is a sequence of elements. Each is an identifier, the size of its content, and the
    content.

    Args:
        file: open for reading.
        size: size of the file, bytes.
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
        """Raise _Damage if an element that starts before `position` (default: the end of the file) is damaged or cut
        off.
        """
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
        """Return whether an element of a known kind starts there, or the file ends.

        If so, the element before it may be of a new kind.
        """
        self._file.seek(position)
        return position == self._end or read_ebml_number(self._file) in self._PASSED | {self._CLUSTER}


class VideoSource:
    """Frames of a video file; also a context manager.

    Args:
        path: the file.
        deinterlace: convert each frame of two fields to one frame, with the filter bwdif.
        threads: threads of the decoder; 0: FFmpeg's choice, more than there are cores. Default: half of the cores; that
            leaves the others free and costs less CPU time in total.

    Raises:
        VideoError: see `probe`; also an interlaced video without `deinterlace`.
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

    def frames(self, start: Fraction | None = None) -> Iterator[TimedFrame[np.ndarray]]:
        """Decode the video, or the rest of it from a time on.

        Args:
            start: time in seconds; the first frame is the first one at or after it. Default: all frames.

        Raises:
            VideoError: at the first frame that is damaged, missing or unlike the others, with the time of the last good
                frame. All good frames before it have been yielded.
        """
        to_rgb = RGBConverter(self.info.color, self.info.bits, self.info.orientation)
        return self._tracked(TimedFrame(to_rgb(frame), time) for frame, time in self._frames(start))

    def times(self, start: Fraction | None = None) -> Iterator[Fraction]:
        """Return the times of the frames that `frames` yields. It needs as much decoding."""
        return self._tracked(time for _, time in self._frames(start))

    def _tracked(self, items: Iterator[T]) -> Iterator[T]:
        self._running.add(items)
        return items

    def close(self) -> None:
        """Stop all iterators of `frames`, unless another thread is waiting for a frame."""
        for frames in list(self._running):
            with contextlib.suppress(ValueError):  # it is running, and cannot be stopped from outside
                frames.close()

    def __enter__(self) -> 'VideoSource':
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def __reduce__(self) -> tuple[Any, ...]:  # for other processes, each of which opens the file separately
        return partial(VideoSource, deinterlace=self._deinterlace, threads=self._threads), (self.path,)

    def _frames(self, start: Fraction | None) -> Iterator[tuple['av.VideoFrame', Fraction]]:
        import av

        last = None
        try:
            for frame, time in self._decode(start, self._threads):
                last = time
                yield frame, time
        except (_Damage, av.error.FFmpegError) as error:
            # A decoder with several threads reports damage before it returns the frames in front of it.
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
        """Yield frames from a time on, decoded from a keyframe before it."""
        import av

        for target in self._seek_targets(start):
            with open_container(self.path) as container:
                stream = video_stream(container, self.path)
                stream.thread_type = 'AUTO'  # frames and slices
                stream.codec_context.thread_count = threads
                stream.codec_context.options = DECODER_OPTIONS
                frames = self._timed(container, stream, target)
                if target is not None and start is not None:
                    # Frames shown before the first keyframe may need frames that were skipped
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
        """Return times at which to look for a keyframe before `start`, in order; None is the beginning."""
        targets: list[Fraction | None] = [None]
        if start is not None and self.info.has_times:
            targets[:0] = [start - back for back in _SEEK_BACK if start - back > self.info.start]
        return targets

    def _timed(self, container: Any, stream: Any, target: Fraction | None) -> Iterator[tuple[Any, Fraction]]:
        """Yield frames in display order with their times, deinterlaced if requested."""
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
        """Yield the frames of the decoder, after checks for damage."""
        import av

        first = failure = None
        due: set[int] = set()  # time stamps of frames that the decoder still has to return
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
                    # If a video was cut out of a longer one, frames before the first one cannot be restored
                    due = {pts for pts in due if pts > first.pts and pts != frame.pts}
                self._check_frame(frame, first, due)
                yield frame
        if failure is not None:
            raise failure
        if due and first is not None:
            raise _Damage(f'the decoder does not restore the frame at {float(min(due) * stream.time_base):.3f} s')

    def _packets(self, container: Any, stream: Any, target: Fraction | None) -> Iterator[Any]:
        """Yield packets from a time on, as long as the file is complete."""
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
                # A recording may start in the middle of a packet
                if packet.is_corrupt and num_packets:
                    raise _Damage('a part of the file is missing or damaged')
                num_packets += packet.size > 0
                yield packet
            if elements is not None:
                elements.advance()
        # FFmpeg silently ends a video where its file ends
        if 'mp4' in self.info.format:
            # The number of frames in MP4 includes those that its edit list removes
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
    """Return the frames that a decoder still holds, as others could have preceded them."""
    import av

    try:
        frames = stream.codec_context.decode()
    except av.error.FFmpegError:
        return []
    for frame in frames:
        frame.time_base = stream.time_base
    return frames


def deinterlaced(frames: Iterable['av.VideoFrame']) -> Iterator['av.VideoFrame']:
    """Deinterlace frames with FFmpeg's filter bwdif: each frame of two fields becomes one frame at the same time.

    Args:
        frames: all of one size and pixel format. Their errors are raised again, after the frames finished before.
    """
    import av

    graph: av.filter.Graph | None = None
    failure: Exception | None = None

    def ready(graph: 'av.filter.Graph') -> Iterator['av.VideoFrame']:
        while True:
            try:
                yield graph.vpull()
            except (av.error.BlockingIOError, av.error.EOFError):
                return

    try:
        for frame in frames:
            graph = graph or _bwdif(frame)
            graph.vpush(frame)
            yield from ready(graph)
    except (_Damage, av.error.FFmpegError) as error:
        failure = error
    if graph is not None:
        graph.vpush(None)  # the filter delays a frame until it sees the next one
        yield from ready(graph)
    if failure is not None:
        raise failure


def _bwdif(first: 'av.VideoFrame') -> 'av.filter.Graph':
    import av.filter

    graph = av.filter.Graph()
    assert first.time_base is not None
    time_base = f'{first.time_base.numerator}/{first.time_base.denominator}'
    source = graph.add('buffer', f'video_size={first.width}x{first.height}:pix_fmt={first.format.name}'
                       f':time_base={time_base}:colorspace={first.colorspace}:range={first.color_range}')
    bwdif = graph.add('bwdif', mode='send_frame', deint='all')
    graph.link_nodes(source, bwdif, graph.add('buffersink')).configure()
    return graph


def open_source(path: str | Path, *, deinterlace: bool = False, rate: Fraction | None = None) -> Source:
    """Open a video file or a folder of images; the type is detected.

    Args:
        deinterlace: see `VideoSource`.
        rate: frames per second of a folder of images, default 25; a video file states its rate.

    Raises:
        VideoError: see `VideoSource` and `FolderSource`; also an option that applies only to the other type.
    """
    path = Path(path)
    if path.is_dir():
        if deinterlace:
            raise VideoError(f'{path}: is a folder of images, only video files can be deinterlaced')
        return FolderSource(path, rate=Fraction(25) if rate is None else rate)
    if rate is not None:
        raise VideoError(f'{path}: a frame rate is for folders of images, a video file has its own')
    return VideoSource(path, deinterlace=deinterlace)
