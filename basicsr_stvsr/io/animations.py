"""Write the frames of segments as an animated image: GIF, with one palette for all frames, or WebP."""
from collections.abc import Iterable, Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple

from ..utils.atomic_files import whole_file
from .containers import open_input
from .video_info import VideoError, url_of, video_stream

_RATE = Fraction(25)  # encoders need one; the times of frames count


class _Kind(NamedTuple):
    """A kind of animated image.

    Attributes:
        encoder, pixels: FFmpeg's names.
        unit: times are multiples of it, seconds.
        options: of the encoder.
    """
    encoder: str
    pixels: str
    unit: Fraction
    options: dict[str, str] = {}


_KINDS = {'.gif': _Kind('gif', 'pal8', Fraction(1, 100)),
          '.webp': _Kind('libwebp_anim', 'bgra', Fraction(1, 1000), {'quality': '90'})}


def write_animation(segments: Sequence[Path], output: Path) -> None:
    """Write an animated image of the kind that the suffix says, .gif or .webp.

    Frames are shown at their times, rounded to 1/100 s in GIF and 1/1000 s in WebP; the first one at 0.

    Args:
        segments: files of `VideoWriter`, in the order in which they are shown.
        output: the file to write.

    Raises:
        VideoError: a segment cannot be read, or the file cannot be written.
    """
    import av

    suffix = output.suffix.lower()
    kind = _KINDS[suffix]
    frames = _frames(segments, kind.unit)
    if suffix == '.gif':
        frames = _coloured(frames, _palette(_frames(segments, kind.unit)))
    try:
        with whole_file(output) as part, av.open(url_of(part), 'w', format=suffix[1:]) as container:
            stream: Any = None
            for frame in frames:
                if stream is None:
                    stream = container.add_stream(kind.encoder, rate=_RATE, width=frame.width, height=frame.height,
                                                  options=kind.options)
                    stream.pix_fmt, stream.codec_context.time_base = kind.pixels, kind.unit
                container.mux(stream.encode(frame))
            container.mux(stream.encode())
    except VideoError:
        raise
    except (av.error.FFmpegError, OSError, ValueError) as error:
        raise VideoError(f'{output}: cannot be written ({error})') from error


def _frames(segments: Sequence[Path], unit: Fraction) -> Iterator[Any]:
    """Yield the frames of all segments, with times in units from 0 on."""
    start, last = None, -1
    for path in segments:
        with open_input(path) as container:
            for frame in container.decode(video_stream(container, path)):
                time = frame.pts * frame.time_base
                start = time if start is None else start
                frame.pts, frame.time_base = max(round((time - start) / unit), last + 1), unit
                last = frame.pts
                yield frame


def _buffer(graph: Any, like: Any) -> Any:
    return graph.add_buffer(width=like.width, height=like.height, format=like.format, time_base=like.time_base)


def _palette(frames: Iterable[Any]) -> Any:
    """Return the picture of 256 colours that suit all frames best."""
    import av.filter

    graph: Any = None
    for frame in frames:
        if graph is None:
            graph = av.filter.Graph()
            graph.link_nodes(_buffer(graph, frame), graph.add('palettegen'), graph.add('buffersink')).configure()
        graph.vpush(frame)
    graph.vpush(None)
    palette = graph.vpull()
    palette.pts, palette.time_base = 0, frame.time_base
    return palette


def _coloured(frames: Iterable[Any], palette: Any) -> Iterator[Any]:
    """Yield the frames in the colours of a palette."""
    import av
    import av.filter

    source: Any = None

    def ready() -> Iterator[Any]:
        while True:
            try:
                yield sink.pull()
            except (av.error.BlockingIOError, av.error.EOFError):
                return

    for frame in frames:
        if source is None:
            graph = av.filter.Graph()
            source, colours, sink = _buffer(graph, frame), _buffer(graph, palette), graph.add('buffersink')
            use = graph.add('paletteuse')
            source.link_to(use, 0, 0)
            colours.link_to(use, 0, 1)
            use.link_to(sink)
            graph.configure()
            colours.push(palette)
            colours.push(None)
        source.push(frame)
        yield from ready()
    source.push(None)
    yield from ready()
