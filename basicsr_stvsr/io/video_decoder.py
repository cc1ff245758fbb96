"""Decode the frames of a video file in display order: all of them, or those from a time on.

The one decoder behind `VideoSource`, which reads a file in order, and `VideoReader`, which reads frames by number.
"""
import itertools
import math
from collections import deque
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from .broadcast import BroadcastClock
from .deinterlacing import Deinterlace, deinterlaced
from .frame_source import Notes
from .matroska import MatroskaElements
from .video_info import (
    DECODER_OPTIONS,
    DamageError,
    VideoInfo,
    early_start,
    is_broadcast,
    open_container,
    truncation_of_mp4,
)

if TYPE_CHECKING:
    import av

# Codecs with one shown frame per packet, to notice frames that the decoder does not return
_FRAME_PER_PACKET = frozenset({'h264', 'hevc', 'vvc', 'vp9', 'av1', 'mpeg2video', 'ffv1', 'prores', 'dnxhd', 'mjpeg',
                               'png'})
_SEEK_BACK = (0, 1, 4, 16, 64)  # seconds before the wanted frame, to look for a keyframe


class VideoDecoder:
    """An open video file and its decoder. It reads at one position at a time.

    Times always increase: a frame whose time is not later than that of the frame before it is shown one unit of time
    later. Where the file says that a frame is to be shown again, it is yielded again. Damaged frames of a broadcast are
    left out, as players do, if `threads` is 1 and `notes` is not strict.

    Args:
        info: properties of the file.
        notes: gets the warnings.
        threads: threads of the decoder; 0: FFmpeg's choice, more than there are cores.
        deinterlace: see `VideoSource`.
    """

    def __init__(self, info: VideoInfo, notes: Notes, *, threads: int, deinterlace: Deinterlace = False):
        self.info, self.path, self.notes = info, info.path, notes
        self._threads, self._deinterlace = threads, deinterlace
        self._skips_damage = is_broadcast(info.format) and threads == 1 and not notes.strict
        self._container: Any = None
        self._stream: Any = None
        self._begin()

    def _begin(self) -> None:
        self._num_packets = self._num_hidden = 0  # hidden ones: removed by an edit list
        self._packet_times: deque[Fraction] = deque()  # of frames to come, in order of decoding; see `in_order`
        self._repeats: deque[Fraction] = deque()  # when to show the frame before them again

    def frames(self, start: Fraction | None = None, *, can_seek: bool = True) -> (
            Iterator[tuple['av.VideoFrame', Fraction]]):
        """Yield frames and their times. A second call ends the first.

        Args:
            start: time in seconds; the first frame is the first one at or after it, decoded from a keyframe before it.
                Default: all frames.
            can_seek: see `scan`; otherwise all frames before it are decoded, too.

        Raises:
            DamageError, av.error.FFmpegError: at the first frame that is damaged, missing or unlike the others.
        """
        import av

        for target in self._seek_targets(start) if can_seek else [None]:
            frames = self._timed(target)
            if target is not None and start is not None:
                # Frames shown before the first keyframe may need frames that were skipped
                try:
                    ahead = next((pair for pair in frames if pair[0].key_frame), None)
                except (DamageError, av.error.FFmpegError):
                    continue
                # A deinterlaced frame also needs the frame before it
                if ahead is None or ahead[1] > start or (self._deinterlace and ahead[1] == start):
                    continue
                frames = itertools.chain([ahead], frames)
            for frame, time in frames:
                if start is None or time >= start:
                    yield frame, time
            return

    def is_interlaced_at(self, time: Fraction) -> Fraction | None:
        """Return the time of an interlaced frame shortly after a keyframe near `time`; None: there is none."""
        some = itertools.islice(self._decoded(time), 2)
        return next((frame.pts * frame.time_base for frame in some if frame.interlaced_frame), None)

    def close(self) -> None:
        if self._container is not None:
            self._container.close()
            self._container = None

    def __enter__(self) -> 'VideoDecoder':
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def _open(self) -> None:
        """Open the file at its beginning."""
        self.close()
        self._container = open_container(self.path)
        self._stream = self._container.streams[self.info.stream]
        self._stream.thread_type = 'AUTO'  # frames and slices
        self._stream.codec_context.thread_count = self._threads
        self._stream.codec_context.options = DECODER_OPTIONS

    def _seek_targets(self, start: Fraction | None) -> list[Fraction | None]:
        """Return times at which to look for a keyframe before `start`, in order; None is the beginning."""
        targets: list[Fraction | None] = [None]
        if start is not None and self.info.has_times and not self.info.in_order:
            targets[:0] = [start - back for back in _SEEK_BACK if start - back > self.info.start]
        return targets

    def _timed(self, target: Fraction | None) -> Iterator[tuple[Any, Fraction]]:
        """Yield frames in display order with their times, deinterlaced if requested, and again where they repeat."""
        self._begin()
        frames = self._decoded(target)
        if self._deinterlace:
            frames = deinterlaced(frames, all_frames=self._deinterlace != 'auto')
        last, num_frames = None, 0
        for frame in frames:
            time = self._time_of(frame, last and last[1])
            if last is not None:
                for again in self._repeats_between(last[1], time):
                    yield last[0], again
                    last = last[0], again
                if time <= last[1]:
                    self.notes.add('late', f'the time of the frame after {float(last[1]):.3f} s is {float(time):.3f} '
                                   's, which is not later; it is shown one unit of time later')
                    time = last[1] + self.info.time_base
            last, num_frames = (frame, time), num_frames + 1
            yield last
        if last is not None:
            for again in self._repeats_between(last[1], None):
                yield last[0], again
        if target is None:
            self._compare_with_promise(num_frames)

    def _time_of(self, frame: Any, last: Fraction | None) -> Fraction:
        if self.info.in_order:
            return self._packet_times.popleft()
        if frame.pts is not None:
            return Fraction(frame.pts * frame.time_base)
        return self.info.start if last is None else last + 1 / self._step_rate()

    def _repeats_between(self, last: Fraction, time: Fraction | None) -> Iterator[Fraction]:
        """Yield the times at which a frame is shown again, before the frame at `time` (None: up to the end)."""
        if self.info.format == 'avi':  # its unit of time is a frame; empty frames repeat the one before them
            unit = self.info.time_base
            end = self._end_of_avi() if time is None else time
            yield from (last + number * unit for number in range(1, math.ceil((end - last) / unit)))
        while self._repeats and (time is None or self._repeats[0] < time):
            if (again := self._repeats.popleft()) > last:
                yield again

    def _end_of_avi(self) -> Fraction:
        is_whole = _is_whole_avi(self.path, self._stream.frames)
        return self.info.start + self._stream.frames * self.info.time_base if is_whole else Fraction(0)

    def _compare_with_promise(self, num_frames: int) -> None:
        """Warn of frames that are missing at the end of a file that was read without an error."""
        stated = self._stream.frames - self._num_hidden
        if 'mp4' in self.info.format and self.info.codec != 'vp8' and num_frames < stated:
            self.notes.add('missing', f'the file states {stated} frames, but only {num_frames} can be read; its tables '
                           'are damaged')
        size = self.path.stat().st_size
        if self.info.format == 'mpegts' and all(size % length for length in (188, 192, 204)):
            self.notes.add('truncated', f'the file ends within a packet, after {num_frames} frames: {size} bytes are '
                           'not a multiple of 188, as transport streams promise')

    def _step_rate(self) -> Fraction:
        if not self.info.rate:
            raise DamageError('the next frame has no time stamp, and the file states no frame rate')
        return self.info.rate

    def _decoded(self, target: Fraction | None) -> Iterator[Any]:
        """Yield the frames of the decoder, after checks for damage."""
        import av

        first = failure = None
        due: set[Any] = set()  # time stamps of frames that the decoder still has to return
        tracked = (self.info.codec in _FRAME_PER_PACKET and self.info.has_times and not self.info.in_order
                   and not self.info.interlaced and self._deinterlace != 'auto')
        packets = self.packets(target)
        while failure is None:
            frames = []
            try:
                if (packet := next(packets, None)) is None:
                    break
                if packet.size == 0 and packet.pts is not None:
                    self._repeats.append(packet.pts * packet.time_base)
                    continue
                if tracked and packet.size and packet.pts is not None and not packet.is_discard:
                    due.add(packet.pts)
                if self.info.in_order and packet.size and packet.dts is not None:
                    self._packet_times.append(packet.dts * packet.time_base)
                frames = self._decode(packet)
            except (DamageError, av.error.FFmpegError) as error:
                failure = error
                frames = _held_back(self._stream) if tracked else []
            for frame in frames:
                first = first or frame
                if tracked:
                    # If a video was cut out of a longer one, frames before the first one cannot be restored
                    due = {pts for pts in due if pts > first.pts and pts != frame.pts}
                _check_like(frame, first)
                if missing := self._missing(frame, due):
                    if not self._skips_damage:
                        raise DamageError(missing)
                    self.notes.add('damage', missing)
                    due = {pts for pts in due if pts > frame.pts}
                if not frame.is_corrupt:
                    yield frame
        if failure is not None:
            raise failure
        if due and first is not None:
            missing = f'the decoder does not restore the frame at {float(min(due) * self._stream.time_base):.3f} s'
            if not self._skips_damage:
                raise DamageError(missing)
            self.notes.add('damage', missing)

    def _decode(self, packet: Any) -> list[Any]:
        """Return the frames that a packet completes; none if it is damaged and damage is skipped."""
        import av

        try:
            return list(packet.decode())
        except av.error.FFmpegError as error:
            if not self._skips_damage or packet.pts is None:
                raise
            self.notes.add('damage', f'the frame at {float(packet.pts * packet.time_base):.3f} s is damaged ({error})')
            return []

    def _missing(self, frame: Any, due: set[Any]) -> str:
        """Return what is wrong if a frame is damaged, or one before it has not come."""
        if frame.is_corrupt:
            at = '' if frame.pts is None else f' at {float(frame.pts * frame.time_base):.3f} s'
            return f'the decoder cannot restore the frame{at}'
        if due and (missing := min(due)) < frame.pts:
            return f'the decoder does not restore the frame at {float(missing * frame.time_base):.3f} s'
        return ''

    def packets(self, target: Fraction | None = None) -> Iterator[Any]:
        """Yield packets from a time on (default: from the beginning), as long as the file is complete.

        Raises:
            DamageError: the file is damaged or truncated.
        """
        import av

        if target is None or self._container is None:
            self._open()
        if target is not None:
            try:
                shift = early_start(self._container)
                self._container.seek(int((target - shift) / self._stream.time_base), stream=self._stream)
            except av.error.FFmpegError:  # a stream without an index
                return
        size = self.path.stat().st_size
        with open(self.path, 'rb') as file:
            elements = MatroskaElements(file, size) if 'matroska' in self._container.format.name else None
            for packet in self._demuxed():
                if elements is not None and packet.pos is not None:
                    elements.advance(packet.pos)
                # A recording may start in the middle of a packet
                if packet.is_corrupt and self._num_packets:
                    self._note_corrupt(packet)
                self._num_packets += packet.size > 0
                self._num_hidden += packet.is_discard
                yield packet
            if elements is not None:
                elements.advance()
        if truncation := self._truncation():
            raise DamageError(truncation)
        if target is None and self._num_packets < self._stream.frames and 'mp4' not in self.info.format and not (
                self.info.format == 'avi' and _is_whole_avi(self.path, self._stream.frames)):
            raise DamageError(f'the video is truncated, it has {self._num_packets} of {self._stream.frames} frames')

    def _demuxed(self) -> Iterator[Any]:
        if not is_broadcast(self.info.format):
            packets: Iterator[Any] = self._container.demux(self._stream)
            return packets
        packets = BroadcastClock(self._container, self.notes).packets(self._container)
        # The last packets, which end a stream, state `stream_index` 0 for all streams
        return (packet for packet in packets if packet.stream.index == self._stream.index)

    def _note_corrupt(self, packet: Any) -> None:
        if not self._skips_damage:
            raise DamageError(self._truncation() or 'a part of the file is missing or damaged')
        at = '' if packet.pts is None else f', at {float(packet.pts * packet.time_base):.3f} s'
        self.notes.add('damage', f'a part of the file is missing or damaged{at}')

    def _truncation(self) -> str:
        return truncation_of_mp4(self._container, self._stream, self.path)


class Scan(NamedTuple):
    """What the packets of a file say of its frames.

    Attributes:
        shown: time of each frame, and whether it is a keyframe, in display order; None if packets do not state it.
        can_seek: whether frames after a seek have the same times as frames read from the beginning.
        failure: error at which the packets end, if any.
    """
    shown: list[tuple[Fraction, bool]] | None
    can_seek: bool
    failure: Exception | None


def scan(info: VideoInfo) -> Scan:
    """Read the packets of a whole file, without decoding."""
    import av

    packets: list[Any] = []
    failure: Exception | None = None
    with VideoDecoder(info, Notes(info.path), threads=1) as decoder:
        try:
            packets += (packet for packet in decoder.packets() if packet.size or packet.dts is not None)
        except (DamageError, av.error.FFmpegError) as error:
            failure = error
    stamps = [packet.dts for packet in packets if packet.dts is not None]
    shown = {packet.pts: packet.is_keyframe for packet in packets if not packet.is_discard}
    is_regular = (None not in shown and len(shown) == sum(not packet.is_discard for packet in packets)
                  and all(packet.size for packet in packets)
                  and all(before < after for before, after in itertools.pairwise(stamps)))
    if not is_regular or info.in_order:
        return Scan(None, False, failure)
    # VP8 has hidden frames, and AVI empty ones
    is_avi, unit = info.format == 'avi', info.time_base
    counts = info.codec != 'vp8' and not (is_avi and not info.num_frames <= stamps[-1] - stamps[0] + 1 == len(stamps))
    return Scan([(pts * unit, shown[pts]) for pts in sorted(shown)] if counts else None, True, failure)


def _is_whole_avi(path: Path, num_frames: int) -> bool:
    """Return whether the chunks of an AVI file end where it ends, and can hold so many frames, some of them empty."""
    size, end = path.stat().st_size, 0
    with open(path, 'rb') as file:
        while end < size and file.read(4) == b'RIFF' and (length := int.from_bytes(file.read(4), 'little')):
            end += 8 + length + length % 2
            file.seek(end)
    return end == size and 8 * num_frames <= size  # a chunk has a header of 8 bytes


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


def _check_like(frame: Any, first: Any) -> None:
    if (frame.width, frame.height) != (first.width, first.height):
        raise DamageError(f'frames change their size from {first.width}x{first.height} to '
                     f'{frame.width}x{frame.height} (w x h)')
    if frame.format.name != first.format.name:
        raise DamageError(f'frames change their pixel format from {first.format.name} to {frame.format.name}')
