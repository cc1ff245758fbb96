"""Frames with their times into a video file, or into a folder.

A film is written in segments, by `VideoWriter`, each of which stays playable when the work is cut off. `joining` makes
one file of them.
"""
import contextlib
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from .containers import CONTAINERS
from .encoding import MATRIX_TAGS, Encoding, OutputSpec, add_encoder, default_threads
from .joining import stored_frames
from .pixels import packed
from .video_info import FULL, LIMITED, SWSCALE_MATRICES, ColorSpec, VideoError

# A crash leaves all fragments that are complete. `delay_moov`: only then are the times of the first frames exact.
_SEGMENT_OPTIONS = {'movflags': 'frag_keyframe+delay_moov+default_base_moof', 'frag_duration': '1000000'}


class _YUVConverter:
    """Makes frames for an encoder of RGB arrays.

    Args:
        pixel_format: FFmpeg's name.
        color: what the frames' numbers mean.
    """

    def __init__(self, pixel_format: str, color: ColorSpec, width: int, height: int):
        from av import VideoFormat
        from av.video.reformatter import Interpolation, VideoReformatter

        self._reformatter = VideoReformatter()
        # Chroma of all pixels, with all bits: the default of swscale is biased by an eighth of a level. Means of areas
        # keep chroma about as well as the default, bicubic (0.15 dB less there and back), in four fifths of the time.
        # BITEXACT gives the same bytes as ACCURATE_RND here, again in half of the time.
        self._interpolation = Interpolation.AREA | Interpolation.FULL_CHR_H_INP | Interpolation.BITEXACT
        self._pixel_format, self._color = pixel_format, color
        form = VideoFormat(pixel_format)
        self._bits = form.components[0].bits
        self._widened = self._bits > 8 and not form.is_rgb
        self._rgb = 'rgb24' if self._bits == 8 else 'rgb48le'  # which swscale is faster with than with planes
        self._graph = _left_chroma(self._rgb, width, height)

    def __call__(self, image: np.ndarray) -> Any:
        from av import VideoFrame

        image = _with_bits(image, self._bits)
        if self._widened:
            image = image - (image >> 8)  # swscale expects white at 255 * 256 of 16 bits
        frame = VideoFrame.from_numpy_buffer(packed(image), format=self._rgb)
        self._graph.vpush(frame)
        frame = self._graph.vpull()
        frame = self._reformatter.reformat(
            frame, format=self._pixel_format, dst_colorspace=SWSCALE_MATRICES.get(self._color.matrix),
            src_color_range=FULL, dst_color_range=FULL if self._color.full_range else LIMITED,
            interpolation=self._interpolation, threads=1)
        frame.colorspace = MATRIX_TAGS[self._color.matrix]
        frame.color_range = FULL if self._color.full_range else LIMITED
        frame.color_primaries, frame.color_trc = self._color.primaries, self._color.transfer
        return frame


def _check_image(image: np.ndarray, spec: OutputSpec) -> None:
    expected = (spec.height, spec.width, 3)
    if image.shape != expected or image.dtype not in (np.uint8, np.uint16):
        raise ValueError(f'expected an image {expected} of uint8 or uint16, got {image.shape} of {image.dtype}')


def _with_bits(image: np.ndarray, bits: int) -> np.ndarray:
    """The image as uint8 for at most 8 bits, else as uint16."""
    if bits <= 8 and image.dtype == np.uint16:
        return cv2.convertScaleAbs(image, alpha=1 / 257)
    if bits > 8 and image.dtype == np.uint8:
        return image.astype(np.uint16) * np.uint16(257)
    return image


def _left_chroma(pixel_format: str, width: int, height: int) -> Any:
    """A filter that notes on a frame where its chroma shall lie: at the left pixel, as MPEG has it.

    swscale looks there, and would else put it into the middle, half a pixel from where players take it to be.
    """
    import av.filter

    graph = av.filter.Graph()
    source = graph.add('buffer', f'video_size={width}x{height}:pix_fmt={pixel_format}:time_base=1/1')
    graph.link_nodes(source, graph.add('setparams', 'chroma_location=left'), graph.add('buffersink')).configure()
    return graph


class VideoWriter:
    """A segment of a video: its frames alone; also a context manager, which closes the file.

    What was written before an error or a crash stays in the file, and is playable.

    Args:
        path: the file; its suffix is that of `encoding.segment_suffix`.
        spec: the frames.
        encoding: codec and quality.
        threads: of the encoder; default: one per core, at most 16. x264 would start one and a half per core.

    Raises:
        VideoError: the file cannot be written, or the encoder refuses the frames' size or an option.
    """

    def __init__(self, path: str | Path, spec: OutputSpec, encoding: Encoding, *, threads: int | None = None):
        import av

        self.path, self.spec = Path(path), spec
        expected = encoding.segment_suffix
        if self.path.suffix != expected:
            raise VideoError(f'{self.path}: segments of {encoding.codec} are {expected} files')
        timescale = str(spec.time_base.denominator)
        options = _SEGMENT_OPTIONS | {'video_track_timescale': timescale, 'movie_timescale': timescale}
        self._container = None
        with self._errors():
            self._container = av.open(str(self.path), 'w', format=CONTAINERS[expected], container_options=options)
            self._stream = add_encoder(self._container, spec, encoding, threads or default_threads())
            self._container.start_encoding()
        self._time_base = self._stream.codec_context.time_base
        self._duration = round(1 / spec.rate / self._time_base) if spec.rate else 0
        self._to_frame = _YUVConverter(spec.pixel_format(encoding), spec.stored_color(encoding), spec.width,
                                       spec.height)
        self._last: int | None = None
        self._num_frames = 0

    def write(self, image: np.ndarray, time: Fraction) -> None:
        """Encodes the next frame.

        Args:
            image: (h, w, 3) RGB of the size in `spec`, uint8 0-255 or uint16 0-65535.
            time: when it is shown, seconds; rounded to the time base, which changes nothing where it is a multiple.

        Raises:
            ValueError: an image of another shape or type.
            VideoError: a time that is not later than that of the frame before; a full disk.
        """
        _check_image(image, self.spec)
        pts = round(time / self._time_base)
        if self._last is not None and pts <= self._last:
            raise VideoError(f'{self.path}: the frame at {float(time):.6f} s is not later than the one before it, at '
                             f'{float(self._last * self._time_base):.6f} s')
        self._last = pts
        self._num_frames += 1
        frame = self._to_frame(image)
        frame.pts, frame.time_base, frame.duration = pts, self._time_base, self._duration
        with self._errors():
            self._container.mux(self._stream.encode(frame))

    def close(self) -> None:
        """Encodes what is left, and completes the file."""
        if self._container is None:
            return
        with self._errors(), contextlib.closing(self._container):
            self._container, container = None, self._container
            for packet in self._stream.encode():
                if self._num_frames <= 2:  # of which x265 tells no valid times of decoding
                    packet.dts = packet.pts
                container.mux(packet)
        # FFmpeg does not tell where it could not write the last fragments
        stored, _ = stored_frames(self.path)
        if stored != self._num_frames:
            raise VideoError(f'{self.path}: cannot be written, {stored} of {self._num_frames} frames are in the file; '
                             'is the disk full?')

    def __enter__(self) -> 'VideoWriter':
        return self

    def __exit__(self, exc_type: type[BaseException] | None, *exc_info: object) -> None:
        if exc_type is None:
            self.close()
        else:
            with contextlib.suppress(VideoError):  # the first error is the one to tell
                self.close()

    @contextlib.contextmanager
    def _errors(self) -> Iterator[None]:
        import av

        try:
            yield
        except (av.error.FFmpegError, OSError, ValueError) as error:
            raise VideoError(f'{self.path}: cannot be written ({error})') from error


def image_path(folder: Path, number: int) -> Path:
    return folder / f'{number:08d}.png'


class FolderWriter:
    """Frames as PNG files 00000000.png, 00000001.png, ...; also a context manager.

    Args:
        folder: made if it is not there.
        spec: the frames; those of at most 8 bits are stored with 8, others with 16.
        first: number of the first frame.

    Raises:
        VideoError: the folder cannot be made.
    """

    def __init__(self, folder: str | Path, spec: OutputSpec, *, first: int = 0):
        self.path, self.spec = Path(folder), spec
        self._next = first
        try:
            self.path.mkdir(exist_ok=True)
        except OSError as error:
            raise VideoError(f'{self.path}: the folder cannot be made ({error})') from error

    def write(self, image: np.ndarray, time: Fraction) -> None:
        """Writes the next frame; files have no times.

        Args:
            image: (h, w, 3) RGB of the size in `spec`, uint8 0-255 or uint16 0-65535.
            time: of the frame.

        Raises:
            ValueError: an image of another shape or type.
            VideoError: the file cannot be written.
        """
        _check_image(image, self.spec)
        path = image_path(self.path, self._next)
        _, data = cv2.imencode('.png', cv2.cvtColor(_with_bits(image, self.spec.bits), cv2.COLOR_RGB2BGR))
        try:
            part = path.with_name(path.name + '.part')
            part.write_bytes(data)
            part.replace(path)
        except OSError as error:
            raise VideoError(f'{path}: cannot be written ({error})') from error
        self._next += 1

    def close(self) -> None:
        """All frames are complete already."""

    def __enter__(self) -> 'FolderWriter':
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()
