"""Read frames of video files by number, for data sets."""
import os
from bisect import bisect_right
from collections.abc import Sequence
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from .frames import FrameReader, FrameReadError, clip_files
from .images import files_with, natural_key
from .pixels import RGBConverter
from .video_info import DECODER_OPTIONS, color_of

VIDEO_SUFFIXES = frozenset({'.mp4', '.mkv', '.mov', '.avi', '.webm', '.m4v', '.mpg', '.mpeg', '.ts', '.m2ts', '.wmv',
                            '.flv', '.ogv', '.y4m', '.264', '.h264', '.265', '.hevc'})
# Closing a decoder waits for its threads. A forked DataLoader worker inherits the decoder without them, and would hang.
NUM_THREADS = 1
_EBML_HEADER, _MATROSKA_SEGMENT = b'\x1aE\xdf\xa3', b'\x18S\x80g'


class VideoReader(FrameReader):
    """A video file as one clip, named without its suffix, or a folder of video files as clips.

    Frames are numbered in display order. Colours are converted as `stvsr restore` converts them: by the file's tags, or
    without them by the size, see `ColorSpec.untagged`. Rotation tags are ignored. Reading forward decodes each frame
    once; any other frame is reached from the keyframe before it.

    Truncated files are detected if their format states a length (MP4, AVI, Matroska, WebM). Transport, program and raw
    streams do not: a truncated one is a shorter clip.

    Args:
        path: the video file or the folder.
        clips: names of the clips to use.

    Raises:
        FrameReadError: no such file, no video in it, or a truncated one.
    """

    def __init__(self, path: str | Path, *, clips: Sequence[str] | None = None):
        super().__init__(path)
        files = files_with(VIDEO_SUFFIXES, self.path) if self.path.is_dir() else [self.path]
        if not files:
            raise FrameReadError(f'{self.path}: no video files in this folder')
        self._paths = clip_files(self.path, files)
        self.clips = sorted(self._paths if clips is None else clips, key=natural_key)
        self._index: dict[str, _VideoIndex] = {}
        self._decoder: tuple[int, str, _VideoDecoder] | None = None  # process id, clip, decoder

    def num_frames(self, clip: str) -> int:
        return self._index_of(clip).num_frames

    def frame_name(self, clip: str, index: int) -> str:
        return f'{index:08d}'

    def close(self) -> None:
        if self._decoder is not None:
            self._decoder[2].close()
            self._decoder = None

    def _index_of(self, clip: str) -> '_VideoIndex':
        if clip not in self._index:
            if clip not in self._paths:
                raise self._unknown_clip(clip)
            self._index[clip] = _index_video(self._paths[clip])
        return self._index[clip]

    def _read(self, clip: str, index: int) -> np.ndarray:
        if self._decoder is None or self._decoder[:2] != (os.getpid(), clip):
            self.close()
            self._decoder = os.getpid(), clip, _VideoDecoder(self._paths[clip], self._index_of(clip))
        return self._decoder[2].read(index)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, '_decoder': None}


class _VideoIndex(NamedTuple):
    num_frames: int
    pts: list[int]  # time stamps in display order; empty if the stream has none
    keyframes: list[int]  # numbers of the frames where decoding can start


def _open_video(path: Path) -> tuple[Any, Any]:
    """Return an open container and its first video stream."""
    import av  # here, so that importing the package stays cheap; only this reader needs it

    try:
        container = av.open(str(path))
    except (av.error.FFmpegError, OSError) as error:
        raise FrameReadError(f'{path}: not a readable video ({error})') from error
    if not container.streams.video:
        container.close()
        raise FrameReadError(f'{path}: no video stream in this file')
    stream = container.streams.video[0]
    stream.codec_context.thread_count = NUM_THREADS
    stream.codec_context.options = DECODER_OPTIONS
    return container, stream


def _index_video(path: Path) -> _VideoIndex:
    """Count the frames from the packets alone; decode only if the packets do not suffice."""
    import av

    try:
        shown = _index_packets(path)  # time stamp -> whether it is a keyframe
        if shown is None:
            container, stream = _open_video(path)
            with container:
                frames = [(frame.pts, frame.key_frame) for frame in container.decode(stream)]
            shown = dict(frames)
            if None in shown or len(shown) < len(frames):
                return _VideoIndex(len(frames), pts=[], keyframes=[0])
    except av.error.FFmpegError as error:
        raise FrameReadError(f'{path}: the video is damaged ({error})') from error
    if not shown:
        raise FrameReadError(f'{path}: the video has no frames')
    pts = sorted(shown)
    return _VideoIndex(len(pts), pts, keyframes=[number for number, time in enumerate(pts) if shown[time]])


def _index_packets(path: Path) -> dict[int, bool] | None:
    """Return time stamp -> whether the frame is a keyframe; None if packets do not state which frames are shown."""
    container, stream = _open_video(path)
    with container:
        _check_matroska_size(path)
        packets = [packet for packet in container.demux(stream) if packet.size]
        # The stated number is 0 in containers without such a field.
        if len(packets) < stream.frames:
            raise FrameReadError(f'{path}: the video is truncated, it has {len(packets)} of {stream.frames} frames')
        if stream.codec_context.name == 'vp8':  # has packets that are never shown
            return None
    packets = [packet for packet in packets if not packet.is_discard]
    shown = {packet.pts: packet.is_keyframe for packet in packets}
    return None if None in shown or len(shown) < len(packets) else shown  # raw streams have no time stamps


def _check_matroska_size(path: Path) -> None:
    """Raise FrameReadError if a Matroska or WebM file ends before its segment does. FFmpeg only ends the clip there.

    EBML (RFC 8794): a file is a sequence of elements. Each is an identifier, the size of its content, and the content.
    """
    with open(path, 'rb') as file:
        if file.read(4) != _EBML_HEADER:
            return
        file.seek(0)
        while identifier := read_ebml_number(file):
            field = read_ebml_number(file)
            unknown = 2**(7 * len(field)) - 1  # in a recording that was never closed
            size = int.from_bytes(field) & unknown
            end = file.tell() + size
            if identifier == _MATROSKA_SEGMENT:
                actual = path.stat().st_size
                if size != unknown and actual < end:
                    raise FrameReadError(f'{path}: the video is truncated, it has {actual} of {end} bytes')
                return
            file.seek(end)


def read_ebml_number(file: BinaryIO) -> bytes:
    """Read an identifier or a size: the number of leading zero bits of the first byte gives the number of further
    bytes.
    """
    first = file.read(1)
    return first + file.read(8 - first[0].bit_length()) if first and first[0] else b''


class _VideoDecoder:
    """An open video file and the number of the frame that it decodes next."""

    _next: int

    def __init__(self, path: Path, index: _VideoIndex):
        self.path, self.index = path, index
        self._number_of = {pts: number for number, pts in enumerate(index.pts)}
        self._container: Any = None
        self._to_rgb: RGBConverter | None = None
        self._restart()

    def close(self) -> None:
        if self._container is not None:
            self._container.close()
            self._container = None

    def read(self, number: int) -> np.ndarray:
        import av

        try:
            frame = self._find(number)
            if self._to_rgb is None:
                self._to_rgb = RGBConverter(color_of(self.path, frame), bits=8)
            return np.ascontiguousarray(self._to_rgb(frame)[..., ::-1])
        except av.error.FFmpegError as error:
            raise ValueError(f'{self.path}: the video is damaged ({error})') from error

    def _find(self, number: int) -> Any:
        """Decode until frame `number`, from the current position or from a keyframe before it."""
        keyframe = bisect_right(self.index.keyframes, number) - 1  # the last keyframe up to the frame
        start = self.index.keyframes[keyframe] if keyframe >= 0 else 0
        if not start <= self._next <= number:
            self._seek(keyframe)
        frame = self._decode_until(number)
        while frame is None and keyframe >= 0:
            # Containers may seek too far, and a keyframe may need frames before it: start one keyframe earlier.
            keyframe -= 1
            self._seek(keyframe)
            frame = self._decode_until(number)
        if frame is None or frame.is_corrupt:
            raise ValueError(f'{self.path}: the decoder cannot restore this frame, the video is damaged')
        return frame

    def _decode_until(self, number: int) -> Any | None:
        """Return frame `number`, or None if the decoder skips it."""
        for frame in self._frames:
            if self.index.pts and frame.pts not in self._number_of:
                raise ValueError(f'{self.path}: a frame has time stamp {frame.pts}, which no packet announced')
            found = self._number_of[frame.pts] if self.index.pts else self._next
            self._next = found + 1
            if found >= number:
                return frame if found == number else None
        return None

    def _seek(self, keyframe: int) -> None:
        if keyframe <= 0 or not self.index.pts:
            self._restart()
            return
        number = self.index.keyframes[keyframe]
        self._container.seek(self.index.pts[number], stream=self._stream)
        self._frames = self._container.decode(self._stream)
        self._next = number

    def _restart(self) -> None:
        self.close()
        self._container, self._stream = _open_video(self.path)
        self._frames = self._container.decode(self._stream)
        self._next = 0
