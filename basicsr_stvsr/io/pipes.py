"""Read and write videos through pipes, without a file: y4m or NUT, as `ffmpeg` exchanges them."""
import contextlib
from collections.abc import Iterator
from fractions import Fraction
from itertools import chain
from pathlib import Path
from typing import Any, BinaryIO, Literal, get_args

import numpy as np

from .encoding import CODEC_TABLE, OutputSpec, add_raw_stream
from .frame_source import Notes, TimedFrame
from .pixels import RGBConverter, plane_arrays
from .video_info import ColorSpec, VideoError, describe_stream, video_stream
from .video_writer import YUVConverter

PipeFormat = Literal['y4m', 'nut']
PIPE_FORMATS = get_args(PipeFormat)
PIPE = Path('-')
_PROBED = 2  # frames
_CHROMA = {'yuv420p': 'C420mpeg2', 'yuv444p': 'C444', 'yuv420p10le': 'C420p10', 'yuv444p10le': 'C444p10'}


class PipeSource:
    """The frames of a video that comes through a pipe, once; also a context manager.

    Args:
        stream: gives the bytes of a y4m or NUT video.
        path: name of the pipe, for messages.

    Raises:
        VideoError: it is not a video, or not one that can be restored.
    """

    def __init__(self, stream: BinaryIO, path: Path = PIPE):
        import av

        self.path, self.files, self.reading = path, (), 'through a pipe'
        self.notes = Notes(path)
        try:
            self._container: Any = av.open(stream, 'r')
            video = video_stream(self._container, path)
            self._decoded: Iterator[Any] = self._container.decode(video)
            self._first = [frame for _, frame in zip(range(_PROBED), self._decoded, strict=False)]
        except (av.error.FFmpegError, OSError) as error:
            raise VideoError(f'{path}: not a readable video, expected y4m or NUT '
                             f'({error.strerror or error})') from error
        if not self._first:
            raise VideoError(f'{path}: expected frames, there are none')
        times = [(frame.pts, frame.dts) for frame in self._first]
        self.info = describe_stream(path, self._container, video, times, self._first)
        if self.info.problem or self.info.has_alpha:
            raise VideoError(f'{path}: {self.info.problem or "the video has an alpha channel"}')

    def frames(self, start: Fraction | None = None) -> Iterator[TimedFrame[np.ndarray]]:
        """Yield the frames, from a time on; raise VideoError where the video is damaged."""
        import av

        to_rgb = RGBConverter(self.info.color, self.info.bits, self.info.orientation)
        try:
            for number, frame in enumerate(chain(self._first, self._decoded)):
                time = frame.pts * frame.time_base if self.info.has_times else number / self.info.rate
                if start is None or time >= start:
                    yield TimedFrame(to_rgb(frame), time)
        except (av.error.FFmpegError, OSError) as error:
            raise VideoError(f'{self.path}: the video is damaged ({error})') from error

    def times(self, start: Fraction | None = None) -> Iterator[Fraction]:
        raise VideoError(f'{self.path}: a pipe can be read only once')

    def close(self) -> None:
        self._container.close()

    def __enter__(self) -> 'PipeSource':
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()


class PipeWriter:
    """Write uncompressed frames to a pipe; also a context manager.

    Args:
        stream: takes the bytes.
        spec: format of the frames.
        form: 'y4m', which needs a constant frame rate; or 'nut', which keeps times.

    Raises:
        VideoError: y4m without a frame rate.
    """

    def __init__(self, stream: BinaryIO, spec: OutputSpec, form: PipeFormat):
        self._stream, self.spec = stream, spec
        odd = spec.width % 2 or spec.height % 2
        codec = CODEC_TABLE['x264']
        bits = 8 if spec.bits <= 8 else 10
        self._pixels = (codec.odd_pixels if odd else codec.pixels)[bits]
        color = spec.color if spec.color.matrix != 'rgb' else spec.color._replace(
            matrix=ColorSpec.untagged(spec.width, spec.height).matrix, full_range=False)
        self._to_frame = YUVConverter(self._pixels, color, spec.width, spec.height)
        self._bits, self._container = bits, None
        if form == 'nut':
            import av

            self._container = av.open(stream, 'w', format='nut')
            self._video = add_raw_stream(self._container, spec, self._pixels, color)
            return
        if not spec.rate:
            raise VideoError(f'{PIPE}: y4m needs a frame rate, which the input does not state; use --pipe-format nut')
        rate, aspect = spec.rate, spec.sample_aspect_ratio
        levels = 'FULL' if color.full_range else 'LIMITED'
        header = (f'YUV4MPEG2 W{spec.width} H{spec.height} F{rate.numerator}:{rate.denominator} Ip '
                  f'A{aspect.numerator}:{aspect.denominator} {_CHROMA[self._pixels]} XCOLORRANGE={levels}\n')
        stream.write(header.encode())

    def write(self, image: np.ndarray, time: Fraction) -> None:
        """Write the next frame; see `VideoWriter`."""
        frame = self._to_frame(image)
        if self._container is not None:
            frame.pts, frame.time_base = round(time / self.spec.time_base), self.spec.time_base
            self._container.mux(self._video.encode(frame))
            return
        self._stream.write(b'FRAME\n')
        for plane in plane_arrays(frame, np.uint8 if self._bits == 8 else np.uint16):
            self._stream.write(np.ascontiguousarray(plane).data)

    def close(self) -> None:
        if self._container is not None:
            self._container.mux(self._video.encode())
            self._container.close()
        with contextlib.suppress(BrokenPipeError):
            self._stream.flush()

    def __enter__(self) -> 'PipeWriter':
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()
