"""Read an animated WebP file as frames with times. FFmpeg cannot; Pillow can."""
import contextlib
import itertools
from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np

from .frame_source import Notes, TimedFrame
from .transparency import finished
from .video_info import BT709, SRGB, ColorSpec, VideoError, VideoInfo

_MILLISECOND = Fraction(1, 1000)


def is_animated_webp(path: Path) -> bool:
    with open(path, 'rb') as file:
        head = file.read(32)
    return head[8:16] == b'WEBPVP8X' and len(head) > 20 and bool(head[20] & 2)


class WebPSource:
    """The frames of an animated WebP file; also a context manager.

    Args:
        path: the file.
        strict: see `VideoSource`.

    Raises:
        VideoError: the file is damaged.
    """

    def __init__(self, path: str | Path, *, strict: bool = False):
        from PIL import Image  # here, so that importing the package stays cheap; only this needs it

        self.path, self.files, self.reading = Path(path), [Path(path)], 'as it is'
        self.notes = Notes(self.path, strict=strict)
        durations = [max(duration, 1) for duration in _durations(self.path)]
        self._times = [time * _MILLISECOND for time in itertools.accumulate(durations, initial=0)]
        length = self._times.pop()
        try:
            with Image.open(self.path) as image:
                width, height = image.size
        except (OSError, ValueError, Image.DecompressionBombError) as error:
            raise VideoError(f'{self.path}: not a readable image ({error})') from error
        self.info = VideoInfo(
            path=self.path, width=width, height=height, rate=len(durations) / length,
            is_variable=len(set(durations[:-1])) > 1, num_frames=len(durations), duration=length, start=Fraction(0),
            time_base=_MILLISECOND, has_times=True, format='webp', codec='webp', pix_fmt='rgb24', bits=8,
            color=ColorSpec('rgb', True, BT709, SRGB))
        with contextlib.suppress(VideoError):  # reported where frames are read
            self.info = replace(self.info, has_alpha=any(pixels[..., 3].min() < 255 for pixels, _ in self._pictures()))

    def frames(self, start: Fraction | None = None) -> Iterator[TimedFrame[np.ndarray]]:
        """Decode the frames, from a time on.

        Raises:
            VideoError: at the first frame that is damaged.
        """
        for pixels, time in self._pictures():
            if start is None or time >= start:
                shown = np.ascontiguousarray(pixels[..., :3])
                alpha = pixels[..., 3] if self.info.has_alpha else None
                yield TimedFrame(finished(shown, alpha, time, self.info, self.notes), time)

    def _pictures(self) -> Iterator[tuple[np.ndarray, Fraction]]:
        """Yield RGBA pixels and times."""
        from PIL import Image

        try:
            with Image.open(self.path) as image:
                for number, time in enumerate(self._times):
                    image.seek(number)
                    yield np.asarray(image.convert('RGBA')), time
        except (EOFError, OSError, ValueError, Image.DecompressionBombError) as error:
            raise VideoError(f'{self.path}: the animation is damaged ({error})') from error

    def times(self, start: Fraction | None = None) -> Iterator[Fraction]:
        """Return the times of the frames that `frames` yields, if none is damaged."""
        return (time for time in self._times if start is None or time >= start)

    def close(self) -> None:
        """Do nothing: no file stays open."""

    def __enter__(self) -> 'WebPSource':
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()


def _durations(path: Path) -> list[int]:
    """Return the milliseconds for which each frame is shown, from the ANMF chunks of the file (RFC 9649).

    Raises:
        VideoError: the file is cut off, or has no frames.
    """
    data, durations, place = path.read_bytes(), [], 12
    if len(data) < 8 + int.from_bytes(data[4:8], 'little'):
        raise VideoError(f'{path}: the image is truncated (its end is missing after {len(data)} bytes)')
    while place + 8 <= len(data):
        name, size = data[place:place + 4], int.from_bytes(data[place + 4:place + 8], 'little')
        if name == b'ANMF':
            durations.append(int.from_bytes(data[place + 20:place + 23], 'little'))
        place += 8 + size + size % 2
    if not durations:
        raise VideoError(f'{path}: the animation has no frames')
    return durations
