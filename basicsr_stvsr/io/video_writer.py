"""Write frames with times to a video file or a folder.

`VideoWriter` writes a film in segments. Each segment stays playable if the work is interrupted. `joining` joins them to
one file.
"""
import contextlib
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from ..utils.atomic_files import replace_file
from .containers import CONTAINERS
from .encoding import MATRIX_TAGS, Encoding, OutputSpec, add_encoder, default_threads
from .joining import stored_frames
from .pixels import packed
from .video_info import FULL, LIMITED, SWSCALE_MATRICES, ColorSpec, VideoError, may_have_alpha, url_of

# A crash keeps all complete fragments. `delay_moov`: required for exact times of the first frames.
_SEGMENT_OPTIONS = {'movflags': 'frag_keyframe+delay_moov+default_base_moof', 'frag_duration': '1000000'}


class YUVConverter:
    """Convert RGB arrays, or RGBA arrays for formats with alpha, to frames for an encoder.

    Args:
        pixel_format: FFmpeg's name.
        color: meaning of the frames' numbers.
    """

    def __init__(self, pixel_format: str, color: ColorSpec, width: int, height: int):
        from av import VideoFormat
        from av.video.reformatter import Interpolation, VideoReformatter

        self._reformatter = VideoReformatter()
        # Full-resolution chroma with all bits: swscale's default is biased by an eighth of a level. Area means preserve
        # chroma about as well as the default, bicubic (0.15 dB less for a round trip), in four fifths of the time.
        # BITEXACT gives the same bytes as ACCURATE_RND here, again in half of the time.
        self._interpolation = Interpolation.AREA | Interpolation.FULL_CHR_H_INP | Interpolation.BITEXACT
        self._pixel_format, self._color = pixel_format, color
        form = VideoFormat(pixel_format)
        self._bits = form.components[0].bits
        self._widened = self._bits > 8 and not form.is_rgb
        # swscale is faster with these than with planes
        self._rgb = {(8, 3): 'rgb24', (8, 4): 'rgba', (16, 3): 'rgb48le', (16, 4): 'rgba64le'}[
            8 if self._bits == 8 else 16, 4 if may_have_alpha(pixel_format) else 3]
        self._graph = _left_chroma(self._rgb, width, height)

    def __call__(self, image: np.ndarray) -> Any:
        from av import VideoFrame

        image = with_bits(image, self._bits)
        if self._widened:
            shift = np.full(image.shape[2], 8, np.uint16)  # swscale expects white at 255 * 256 of 16 bits
            shift[3:] = 16  # but not alpha
            image = image - (image >> shift)
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
    expected = (spec.height, spec.width, 4 if spec.alpha else 3)
    if image.shape != expected or image.dtype not in (np.uint8, np.uint16):
        raise ValueError(f'expected an image {expected} of uint8 or uint16, got {image.shape} of {image.dtype}')


def with_bits(image: np.ndarray, bits: int) -> np.ndarray:
    """Convert an image to uint8 for at most 8 bits, else to uint16."""
    if bits <= 8 and image.dtype == np.uint16:
        return cv2.convertScaleAbs(image, alpha=1 / 257)
    if bits > 8 and image.dtype == np.uint8:
        return image.astype(np.uint16) * np.uint16(257)
    return image


def _left_chroma(pixel_format: str, width: int, height: int) -> Any:
    """Return a filter that tags a frame's chroma position as left, as in MPEG.

    swscale uses the tag. Without it, chroma would be in the middle, half a pixel from where players expect it.
    """
    import av.filter

    graph = av.filter.Graph()
    source = graph.add('buffer', f'video_size={width}x{height}:pix_fmt={pixel_format}:time_base=1/1')
    graph.link_nodes(source, graph.add('setparams', 'chroma_location=left'), graph.add('buffersink')).configure()
    return graph


class VideoWriter:
    """Write a segment of a video, frames only; also a context manager that closes the file.

    Frames written before an error or a crash stay in the file, and are playable.

    Args:
        path: the file; its suffix must be `encoding.segment_suffix`.
        spec: format of the frames.
        encoding: codec and quality.
        threads: threads of the encoder; default: one per core, at most 16. x264 alone would start 1.5 per core.

    Raises:
        VideoError: the file cannot be written, or the encoder rejects the frames' size or an option.
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
            self._container = av.open(url_of(self.path), 'w', format=CONTAINERS[expected], container_options=options)
            self._stream = add_encoder(self._container, spec, encoding, threads or default_threads())
            self._container.start_encoding()
        self._time_base = self._stream.codec_context.time_base
        self._duration = round(1 / spec.rate / self._time_base) if spec.rate else 0
        self._to_frame = YUVConverter(spec.pixel_format(encoding), spec.stored_color(encoding), spec.width,
                                       spec.height)
        self._last: int | None = None
        self._num_written = 0

    def write(self, image: np.ndarray, time: Fraction) -> None:
        """Encode the next frame.

        Args:
            image: (h, w, 3) RGB, or (h, w, 4) if `spec` has alpha, of its size; uint8 0-255 or uint16 0-65535.
            time: time at which it is shown, seconds; rounded to a multiple of the time base.

        Raises:
            ValueError: an image of another shape or type.
            VideoError: a time that is not later than that of the previous frame; a full disk.
        """
        _check_image(image, self.spec)
        pts = round(time / self._time_base)
        if self._last is not None and pts <= self._last:
            raise VideoError(f'{self.path}: the frame at {float(time):.6f} s is not later than the one before it, at '
                             f'{float(self._last * self._time_base):.6f} s')
        self._last = pts
        self._num_written += 1
        frame = self._to_frame(image)
        frame.pts, frame.time_base, frame.duration = pts, self._time_base, self._duration
        assert self._container is not None, 'closed'
        with self._errors():
            self._container.mux(self._stream.encode(frame))

    def close(self) -> None:
        """Encode the remaining frames, and complete the file."""
        if self._container is None:
            return
        with self._errors(), contextlib.closing(self._container):
            container, self._container = self._container, None
            for packet in self._stream.encode():
                if self._num_written <= 2:  # x265 reports no valid decoding times for so few
                    packet.dts = packet.pts
                container.mux(packet)
        # FFmpeg does not report a failure to write the last fragments
        stored, _ = stored_frames(self.path)
        if stored != self._num_written:
            raise VideoError(f'{self.path}: cannot be written, {stored} of {self._num_written} frames are in the file; '
                             'is the disk full?')

    def __enter__(self) -> 'VideoWriter':
        return self

    def __exit__(self, exc_type: type[BaseException] | None, *exc_info: object) -> None:
        if exc_type is None:
            self.close()
        else:
            with contextlib.suppress(VideoError):  # report the first error
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


def write_as(image: Path, output: Path) -> None:
    """Write an image that `FolderWriter` wrote under another name, whose suffix selects the format.

    Raises:
        VideoError: the file cannot be written.
    """
    pixels = cv2.imread(str(image), cv2.IMREAD_UNCHANGED)
    suffix = output.suffix.lower()
    if pixels is None:
        raise VideoError(f'{image}: cannot be read')
    if suffix not in ('.png', '.tif', '.tiff'):
        pixels = with_bits(pixels, 8)
    _, data = cv2.imencode(suffix, pixels, [cv2.IMWRITE_WEBP_QUALITY, 101] if suffix == '.webp' else [])  # lossless
    try:
        replace_file(output, data.data)
    except OSError as error:
        raise VideoError(f'{output}: cannot be written ({error})') from error


class FolderWriter:
    """Write frames as PNG files 00000000.png, 00000001.png, ...; also a context manager.

    Args:
        folder: created if missing.
        spec: format of the frames; those of at most 8 bits are stored with 8, others with 16.
        first: number of the first frame.

    Raises:
        VideoError: the folder cannot be created.
    """

    def __init__(self, folder: str | Path, spec: OutputSpec, *, first: int = 0):
        self.path, self.spec = Path(folder), spec
        self._next = first
        try:
            self.path.mkdir(exist_ok=True)
        except OSError as error:
            raise VideoError(f'{self.path}: the folder cannot be made ({error})') from error

    def write(self, image: np.ndarray, time: Fraction) -> None:
        """Write the next frame; the files do not store times.

        Args:
            image: (h, w, 3) RGB, or (h, w, 4) if `spec` has alpha, of its size; uint8 0-255 or uint16 0-65535.
            time: time of the frame.

        Raises:
            ValueError: an image of another shape or type.
            VideoError: the file cannot be written.
        """
        _check_image(image, self.spec)
        path = image_path(self.path, self._next)
        color = cv2.COLOR_RGBA2BGRA if self.spec.alpha else cv2.COLOR_RGB2BGR
        _, data = cv2.imencode('.png', cv2.cvtColor(with_bits(image, self.spec.bits), color))
        try:
            replace_file(path, data.data)
        except OSError as error:
            raise VideoError(f'{path}: cannot be written ({error})') from error
        self._next += 1

    def close(self) -> None:
        """Do nothing: all frames are already complete."""

    def __enter__(self) -> 'FolderWriter':
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()
