"""Write the frames of segments as an animated GIF, with one palette for all of them."""
from collections.abc import Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

from ..utils.atomic_files import whole_file
from .containers import open_input
from .video_info import VideoError, url_of, video_stream

UNIT = Fraction(1, 100)  # seconds
_RATE = Fraction(25)  # the encoder needs one; the times of frames count


def write_gif(segments: Sequence[Path], output: Path) -> None:
    """Write a GIF. Its frames are shown at their times, rounded to `UNIT`; the first one at 0.

    Args:
        segments: files of `VideoWriter`, in the order in which they are shown.
        output: the file to write.

    Raises:
        VideoError: a segment cannot be read, or the file cannot be written.
    """
    import av

    try:
        with whole_file(output) as part, av.open(url_of(part), 'w', format='gif') as container:
            stream: Any = None
            for frame in _coloured(segments, _palette(segments)):
                if stream is None:
                    stream = container.add_stream('gif', rate=_RATE, width=frame.width, height=frame.height)
                    stream.pix_fmt, stream.codec_context.time_base = 'pal8', UNIT
                container.mux(stream.encode(frame))
            container.mux(stream.encode())
    except VideoError:
        raise
    except (av.error.FFmpegError, OSError, ValueError) as error:
        raise VideoError(f'{output}: cannot be written ({error})') from error


def _frames(segments: Sequence[Path]) -> Iterator[Any]:
    """Yield the frames of all segments, with times in units from 0 on."""
    start, last = None, -1
    for path in segments:
        with open_input(path) as container:
            for frame in container.decode(video_stream(container, path)):
                time = frame.pts * frame.time_base
                start = time if start is None else start
                frame.pts, frame.time_base = max(round((time - start) / UNIT), last + 1), UNIT
                last = frame.pts
                yield frame


def _buffer(graph: Any, like: Any) -> Any:
    return graph.add_buffer(width=like.width, height=like.height, format=like.format, time_base=UNIT)


def _palette(segments: Sequence[Path]) -> Any:
    """Return the picture of 256 colours that suit all frames best."""
    import av.filter

    graph: Any = None
    for frame in _frames(segments):
        if graph is None:
            graph = av.filter.Graph()
            graph.link_nodes(_buffer(graph, frame), graph.add('palettegen'), graph.add('buffersink')).configure()
        graph.vpush(frame)
    graph.vpush(None)
    palette = graph.vpull()
    palette.pts, palette.time_base = 0, UNIT
    return palette


def _coloured(segments: Sequence[Path], palette: Any) -> Iterator[Any]:
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

    for frame in _frames(segments):
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
