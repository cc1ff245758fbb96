"""Decode the frames of a video file in display order: all of them, or those from a time on.

The one decoder behind `VideoSource`, which reads a file in order, and `VideoReader`, which reads frames by number.
"""
import itertools
from collections.abc import Iterator
from fractions import Fraction
from typing import TYPE_CHECKING, Any

from .deinterlacing import deinterlaced
from .matroska import MatroskaElements
from .video_info import DECODER_OPTIONS, Damage, VideoInfo, open_container, truncation_of_mp4, video_stream

if TYPE_CHECKING:
    import av

# Codecs with one shown frame per packet, to notice frames that the decoder does not return
_FRAME_PER_PACKET = frozenset({'h264', 'hevc', 'vvc', 'vp9', 'av1', 'mpeg2video', 'ffv1', 'prores', 'dnxhd', 'mjpeg',
                               'png'})
_SEEK_BACK = (0, 1, 4, 16, 64)  # seconds before the wanted frame, to look for a keyframe


class VideoDecoder:
    """An open video file and its decoder. It reads at one position at a time.

    Args:
        info: properties of the file.
        threads: threads of the decoder; 0: FFmpeg's choice, more than there are cores.
        deinterlace: see `VideoSource`.
    """

    def __init__(self, info: VideoInfo, *, threads: int, deinterlace: bool = False):
        self.info, self.path = info, info.path
        self._threads, self._deinterlace = threads, deinterlace
        self._container: Any = None
        self._stream: Any = None

    def frames(self, start: Fraction | None = None) -> Iterator[tuple['av.VideoFrame', Fraction]]:
        """Yield frames and their times. A second call ends the first.

        Args:
            start: time in seconds; the first frame is the first one at or after it, decoded from a keyframe before it.
                Default: all frames.

        Raises:
            Damage, av.error.FFmpegError: at the first frame that is damaged, missing or unlike the others.
        """
        import av

        for target in self._seek_targets(start):
            frames = self._timed(target)
            if target is not None and start is not None:
                # Frames shown before the first keyframe may need frames that were skipped
                try:
                    ahead = next((pair for pair in frames if pair[0].key_frame), None)
                except (Damage, av.error.FFmpegError):
                    continue
                # A deinterlaced frame also needs the frame before it
                if ahead is None or ahead[1] > start or (self._deinterlace and ahead[1] == start):
                    continue
                frames = itertools.chain([ahead], frames)
            for frame, time in frames:
                if start is None or time >= start:
                    yield frame, time
            return

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
        self._stream = video_stream(self._container, self.path)
        self._stream.thread_type = 'AUTO'  # frames and slices
        self._stream.codec_context.thread_count = self._threads
        self._stream.codec_context.options = DECODER_OPTIONS

    def _seek_targets(self, start: Fraction | None) -> list[Fraction | None]:
        """Return times at which to look for a keyframe before `start`, in order; None is the beginning."""
        targets: list[Fraction | None] = [None]
        if start is not None and self.info.has_times:
            targets[:0] = [start - back for back in _SEEK_BACK if start - back > self.info.start]
        return targets

    def _timed(self, target: Fraction | None) -> Iterator[tuple[Any, Fraction]]:
        """Yield frames in display order with their times, deinterlaced if requested."""
        frames = self._decoded(target)
        if self._deinterlace:
            frames = deinterlaced(frames)
        last = None
        for frame in frames:
            if frame.pts is not None:
                time = frame.pts * frame.time_base
            else:
                time = self.info.start if last is None else last + 1 / self._step_rate()
            if last is not None and time <= last:
                raise Damage(f'the next frame has the time {float(time):.3f} s, which is not later')
            last = time
            yield frame, time

    def _step_rate(self) -> Fraction:
        if not self.info.rate:
            raise Damage('the next frame has no time stamp, and the file states no frame rate')
        return self.info.rate

    def _decoded(self, target: Fraction | None) -> Iterator[Any]:
        """Yield the frames of the decoder, after checks for damage."""
        import av

        first = failure = None
        due: set[int] = set()  # time stamps of frames that the decoder still has to return
        tracked = self.info.codec in _FRAME_PER_PACKET and self.info.has_times and not self.info.interlaced
        packets = self.packets(target)
        while failure is None:
            try:
                packet = next(packets, None)
                if packet is None:
                    break
                if tracked and packet.size and packet.pts is not None and not packet.is_discard:
                    due.add(packet.pts)
                frames = packet.decode()
            except (Damage, av.error.FFmpegError) as error:
                failure = error
                frames = _held_back(self._stream) if tracked else []
            for frame in frames:
                first = first or frame
                if tracked:
                    # If a video was cut out of a longer one, frames before the first one cannot be restored
                    due = {pts for pts in due if pts > first.pts and pts != frame.pts}
                _check_frame(frame, first, due)
                yield frame
        if failure is not None:
            raise failure
        if due and first is not None:
            raise Damage(f'the decoder does not restore the frame at {float(min(due) * self._stream.time_base):.3f} s')

    def packets(self, target: Fraction | None = None) -> Iterator[Any]:
        """Yield packets from a time on (default: from the beginning), as long as the file is complete.

        Raises:
            Damage: the file is damaged or truncated.
        """
        import av

        if target is None or self._container is None:
            self._open()
        if target is not None:
            try:
                self._container.seek(int(target / self._stream.time_base), stream=self._stream)
            except av.error.FFmpegError:  # a stream without an index
                return
        size, num_packets = self.path.stat().st_size, 0
        with open(self.path, 'rb') as file:
            elements = MatroskaElements(file, size) if 'matroska' in self._container.format.name else None
            for packet in self._container.demux(self._stream):
                if elements is not None and packet.pos is not None:
                    elements.advance(packet.pos)
                # A recording may start in the middle of a packet
                if packet.is_corrupt and num_packets:
                    raise Damage(self._truncation() or 'a part of the file is missing or damaged')
                num_packets += packet.size > 0
                yield packet
            if elements is not None:
                elements.advance()
        if truncation := self._truncation():
            raise Damage(truncation)
        if 'mp4' not in self._container.format.name and target is None and num_packets < self._stream.frames:
            raise Damage(f'the video is truncated, it has {num_packets} of {self._stream.frames} frames')

    def _truncation(self) -> str:
        return truncation_of_mp4(self._container, self._stream, self.path)


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


def _check_frame(frame: Any, first: Any, due: set[int]) -> None:
    if frame.is_corrupt:
        raise Damage('the decoder cannot restore the next frame')
    if due and (missing := min(due)) < frame.pts:
        raise Damage(f'the decoder does not restore the frame at {float(missing * frame.time_base):.3f} s')
    if (frame.width, frame.height) != (first.width, first.height):
        raise Damage(f'frames change their size from {first.width}x{first.height} to '
                     f'{frame.width}x{frame.height} (w x h)')
    if frame.format.name != first.format.name:
        raise Damage(f'frames change their pixel format from {first.format.name} to {frame.format.name}')
