"""Read a video file as frames with times; `open_source` also opens a folder of images.

A source yields RGB frames in display order, each with the exact time at which it is shown. It drops no frame, and
repeats only those that the file repeats. A frame that cannot be decoded correctly raises a `VideoError`; in a broadcast
it is left out with a warning.
"""
import contextlib
import itertools
import weakref
from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

import numpy as np

from ..utils.threads import available_cores
from .deinterlacing import Deinterlace
from .frame_folder import FolderSource
from .frame_source import Notes, Source, TimedFrame
from .images import is_animated_png, is_image
from .interlacing import interlaced_since
from .pixels import RGBConverter
from .transparency import NUM_CHECKED, Background, finished, opaque
from .video_decoder import VideoDecoder, scan
from .video_info import DamageError, VideoError, is_opaque, may_have_alpha, probe
from .webp_animation import WebPSource, is_animated_webp

if TYPE_CHECKING:
    import av

T = TypeVar('T')


class VideoSource:
    """Frames of a video file; also a context manager.

    Args:
        path: the file.
        deinterlace: convert each frame of two fields to one frame, with the filter bwdif; 'auto': only frames that are
            flagged as interlaced.
        strict: raise an error instead of a warning.
        stream: index of the video among the streams of the file; default: the main one.
        threads: threads of the decoder; 0: FFmpeg's choice, more than there are cores. Default: half of the cores; that
            leaves the others free and costs less CPU time in total.

    Raises:
        VideoError: see `probe`; also a video in an unsupported pixel format, or an interlaced one without
            `deinterlace`.
    """

    def __init__(self, path: str | Path, *, deinterlace: Deinterlace = False, strict: bool = False,
                 stream: int | None = None, threads: int | None = None):
        self.path = Path(path)
        self.info = probe(self.path, stream)
        if self.info.problem:
            raise VideoError(f'{self.path}: {self.info.problem}')
        if not deinterlace and (since := interlaced_since(self.info)) is not None:
            where = '' if since == self.info.start else f' at {float(since):.1f} s'
            raise VideoError(f'{self.path}: the video is interlaced{where}, its frames are made of two fields of '
                             'different times; give --deinterlace to make whole frames of all, or --deinterlace=auto '
                             'of those flagged as interlaced')
        self.files = [self.path]
        self.reading = {'auto': 'deinterlaced where flagged', True: 'deinterlaced', False: 'as it is'}[deinterlace]
        self.reading += '' if stream is None else f', stream {stream}'
        self.notes = Notes(self.path, strict=strict)
        self._deinterlace, self._stream = deinterlace, stream
        self._threads = max(1, available_cores() // 2) if threads is None else threads
        self._running: weakref.WeakSet[Any] = weakref.WeakSet()
        if not self.info.has_alpha and may_have_alpha(self.info.pix_fmt):
            self.info = replace(self.info, has_alpha=self._becomes_transparent())

    def _becomes_transparent(self) -> bool:
        """Return whether one of the first frames has transparent pixels, up to where the video is damaged."""
        with contextlib.suppress(VideoError), contextlib.closing(cast(Any, self._frames(None))) as frames:
            return any(not is_opaque(frame) for frame, _ in itertools.islice(frames, NUM_CHECKED))
        return False

    @cached_property
    def _can_seek(self) -> bool:
        return scan(self.info).can_seek

    def frames(self, start: Fraction | None = None) -> Iterator[TimedFrame[np.ndarray]]:
        """Decode the video, or the rest of it from a time on.

        Args:
            start: time in seconds; the first frame is the first one at or after it. Default: all frames.

        Raises:
            VideoError: at the first frame that is damaged, missing or unlike the others, with the time of the last good
                frame. All good frames before it have been yielded.
        """
        to_rgb = RGBConverter(self.info.color, self.info.bits, self.info.orientation)

        def shown(frame: 'av.VideoFrame', time: Fraction) -> np.ndarray:
            if frame.interlaced_frame and not self._deinterlace and not self.notes.has('interlaced'):
                self.notes.add('interlaced', f'the frame at {float(time):.3f} s is the first interlaced one; '
                               '--deinterlace=auto makes whole frames of these')
            alpha = None if is_opaque(frame) else to_rgb.alpha(frame)
            return finished(to_rgb(frame), alpha, time, self.info, self.notes)

        return self._tracked(TimedFrame(shown(frame, time), time) for frame, time in self._frames(start))

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
        return partial(VideoSource, deinterlace=self._deinterlace, strict=self.notes.strict,
                       stream=self._stream, threads=self._threads), (self.path,)

    def _frames(self, start: Fraction | None) -> Iterator[tuple['av.VideoFrame', Fraction]]:
        import av

        last = None
        try:
            for frame, time in self._decode(start, self._threads):
                last = time
                yield frame, time
        except (DamageError, av.error.FFmpegError) as error:
            # A decoder with several threads reports damage before it returns the frames in front of it.
            try:
                for frame, time in self._decode(start if last is None else last, threads=1):
                    if last is None or time > last:
                        last = time
                        yield frame, time
                return
            except (DamageError, av.error.FFmpegError):
                pass
            where = 'not even its first frame' if last is None else f'only up to the frame at {float(last):.3f} s'
            raise VideoError(f'{self.path}: the video can be read {where}, then it is damaged ({error})') from error

    def _decode(self, start: Fraction | None, threads: int) -> Iterator[tuple['av.VideoFrame', Fraction]]:
        with VideoDecoder(self.info, self.notes, threads=threads, deinterlace=self._deinterlace) as decoder:
            yield from decoder.frames(start, can_seek=start is None or self._can_seek)


def open_source(path: str | Path, *, deinterlace: Deinterlace = False, rate: Fraction | None = None,
                strict: bool = False, stream: int | None = None, background: Background | None = None,
                keep_alpha: bool = False) -> Source:
    """Open a video file, an animated image, a folder of images or one image; the type is detected.

    Args:
        deinterlace, strict, stream: see `VideoSource`.
        rate: frames per second of a folder of images, default 25; a video file states its rate.
        background: colour to lay transparent pixels over.
        keep_alpha: without a background, whether frames may have alpha, see `TimedFrame`; otherwise they are refused.

    Raises:
        VideoError: see `VideoSource` and `FolderSource`; also an option that applies only to the other type.
    """
    source = _open(path, deinterlace=deinterlace, rate=rate, strict=strict, stream=stream)
    if background is not None:
        return opaque(source, background)
    if source.info.has_alpha and not keep_alpha:
        raise VideoError(f'{path}: has transparent pixels, expected a background to lay them over')
    return source


def _open(path: str | Path, *, deinterlace: Deinterlace, rate: Fraction | None, strict: bool,
          stream: int | None) -> Source:
    path = Path(path)
    is_webp = path.is_file() and path.suffix.lower() == '.webp' and is_animated_webp(path)
    if is_webp and (deinterlace or stream is not None or rate is not None):
        raise VideoError(f'{path}: an animated image has a frame rate, and no fields or streams')
    if is_webp:
        return WebPSource(path, strict=strict)
    if path.is_dir() or (path.is_file() and is_image(path) and not is_animated_png(path)):
        if deinterlace or stream is not None:
            raise VideoError(f'{path}: is a folder of images, only video files can be deinterlaced or have streams')
        return FolderSource(path, rate=Fraction(25) if rate is None else rate, strict=strict)
    if rate is not None:
        raise VideoError(f'{path}: a frame rate is for folders of images, a video file has its own')
    return VideoSource(path, deinterlace=deinterlace, strict=strict, stream=stream)
