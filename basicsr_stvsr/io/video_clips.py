"""Read frames of video files by number, for data sets."""
import os
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from basicsr.utils.logger import get_root_logger

from .frame_source import Notes
from .frames import FrameReader, FrameReadError, clip_files
from .images import VIDEO_SUFFIXES, files_with, natural_key
from .pixels import RGBConverter
from .video_decoder import VideoDecoder, scan
from .video_info import DamageError, VideoError, VideoInfo, probe

# Closing a decoder waits for its threads. A forked DataLoader worker inherits the decoder without them, and would hang.
NUM_THREADS = 1


class VideoReader(FrameReader):
    """A video file as one clip, named without its suffix, or a folder of video files as clips.

    Frames are numbered in display order. They are those of `stvsr restore`, with the same colours and rotation, in 8
    bits; alpha is dropped, and fields stay interlaced. Reading forward decodes each frame once; any other frame is
    reached from the keyframe before it.

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
        self._frames: tuple[int, str, _NumberedFrames] | None = None  # process id, clip, its frames

    def num_frames(self, clip: str) -> int:
        return len(self._index_of(clip).times)

    def frame_name(self, clip: str, index: int) -> str:
        return f'{index:08d}'

    def close(self) -> None:
        if self._frames is not None:
            self._frames[2].close()
            self._frames = None

    def _index_of(self, clip: str) -> '_VideoIndex':
        if clip not in self._index:
            if clip not in self._paths:
                raise self._unknown_clip(clip)
            self._index[clip] = _index_video(self._paths[clip])
        return self._index[clip]

    def _read(self, clip: str, index: int) -> np.ndarray:
        if self._frames is None or self._frames[:2] != (os.getpid(), clip):
            self.close()
            self._frames = os.getpid(), clip, _NumberedFrames(self._index_of(clip))
        return self._frames[2].read(index)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, '_frames': None}


class _VideoIndex(NamedTuple):
    info: VideoInfo
    times: list[Fraction]  # of the frames, in display order
    keyframes: list[int]  # numbers of the frames where decoding can start; empty: only at the beginning


def _index_video(path: Path) -> _VideoIndex:
    """List the frames from the packets alone; decode only if the packets do not suffice."""
    import av

    notes = Notes(path)
    try:
        info = probe(path)
        shown, can_seek, failure = scan(info)
        if failure is not None:
            raise failure
        if shown is None:
            with VideoDecoder(info, notes, threads=NUM_THREADS) as decoder:
                shown = [(time, frame.key_frame) for frame, time in decoder.frames()]
    except VideoError as error:
        raise FrameReadError(str(error)) from error
    except DamageError as error:
        raise FrameReadError(f'{path}: {error}') from error
    except av.error.FFmpegError as error:
        raise FrameReadError(f'{path}: the video is damaged ({error})') from error
    if not shown:
        raise FrameReadError(f'{path}: the video has no frames')
    for warning in notes.warnings():
        get_root_logger().warning(warning)
    keyframes = [number for number, (_, is_keyframe) in enumerate(shown) if is_keyframe]
    return _VideoIndex(info, [time for time, _ in shown], keyframes if can_seek else [])


class _NumberedFrames:
    """Frames of a video file by number, and the number of the frame that it decodes next."""

    def __init__(self, index: _VideoIndex):
        self.index, self.path = index, index.info.path
        self._number_of = {time: number for number, time in enumerate(index.times)}
        self._decoder = VideoDecoder(index.info, Notes(index.info.path), threads=NUM_THREADS)
        self._to_rgb = RGBConverter(index.info.color, bits=8, orientation=index.info.orientation)
        self._frames: Iterator[tuple[Any, Fraction]] = iter(())
        self._next = len(index.times)

    def close(self) -> None:
        self._decoder.close()

    def read(self, number: int) -> np.ndarray:
        import av

        try:
            frame = self._find(number)
        except (DamageError, av.error.FFmpegError) as error:
            self._next = len(self.index.times)
            raise ValueError(f'{self.path}: the video is damaged ({error})') from error
        return np.ascontiguousarray(self._to_rgb(frame)[..., ::-1])

    def _find(self, number: int) -> Any:
        """Decode until frame `number`, from the current position or from a keyframe before it."""
        keyframe = bisect_right(self.index.keyframes, number) - 1  # the last keyframe up to the frame
        if not (self.index.keyframes[keyframe] if keyframe >= 0 else 0) <= self._next <= number:
            self._frames = self._decoder.frames(self.index.times[number], can_seek=bool(self.index.keyframes))
        for frame, time in self._frames:
            if time not in self._number_of:
                raise DamageError(f'a frame has the time {float(time):.3f} s, which no packet announced')
            self._next = self._number_of[time] + 1
            if self._next > number:
                if self._next > number + 1:
                    break
                return frame
        raise DamageError('the decoder cannot restore this frame')
