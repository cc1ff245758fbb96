"""Encode sound that a container does not take."""
import io
from collections.abc import Iterator
from fractions import Fraction
from typing import Any, NamedTuple

from .containers import CONTAINERS
from .video_info import stream_info


class _Codec(NamedTuple):
    encoder: str
    bit_rate: int  # per channel
    rates: tuple[int, ...]  # samples a second


_CODECS = {'aac': _Codec('aac', 96000, (8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000)),
           'opus': _Codec('libopus', 64000, (48000,))}
_LAYOUTS = {1: 'mono', 2: 'stereo', 6: '5.1', 8: '7.1'}  # others become stereo


def add_once(notes: list[str], note: str) -> None:
    if note not in notes:
        notes.append(note)


def can_encode(stream: Any, codec: str, suffix: str) -> bool:
    """Return whether sound can be decoded, and encoded for a container, by trying it on a file in memory."""
    import av

    if stream.codec_context is None or not stream.codec_context.rate:
        return False
    with av.open(io.BytesIO(), 'w', format=CONTAINERS[suffix]) as container:
        try:
            _add_stream(container, codec, stream)
            container.start_encoding()
        except (av.error.FFmpegError, OSError, ValueError):
            return False
    return True


def _add_stream(container: Any, codec: str, source: Any) -> Any:
    rates = _CODECS[codec].rates
    rate = source.codec_context.rate if source.codec_context.rate in rates else rates[-1]
    layout = _LAYOUTS.get(source.codec_context.channels, 'stereo')
    stream = container.add_stream(_CODECS[codec].encoder, rate=rate, layout=layout)
    stream.bit_rate = _CODECS[codec].bit_rate * stream.codec_context.channels
    return stream


class SoundEncoder:
    """Decodes the packets of a stream, and encodes their sound. Gaps become silence, so that sound stays in sync.

    Args:
        stream: of the source.
        container: open for writing; gets the stream.
        codec: 'aac' or 'opus'.
        notes: gets a sentence if packets are damaged; they become silence.
    """

    def __init__(self, stream: Any, container: Any, codec: str, notes: list[str]):
        self.stream = _add_stream(container, codec, stream)
        self._source, self._name, self._notes = stream, str(stream_info(stream)), notes
        self._graph: Any = None
        self._next = 0  # pts of the next frame

    def passed(self, packet: Any, start: Fraction) -> Iterator[tuple[Fraction, Any]]:
        """Yield the packets that a packet completes, with their decoding times."""
        import av

        try:
            frames = packet.decode()
        except av.error.FFmpegError:
            add_once(self._notes, f'{self._name} of the source is damaged; silence replaces what cannot be decoded')
            return
        for frame in frames:
            self._graph = self._graph or self._make_graph(frame)
            self._graph.push(frame)
            yield from self._encoded(start)

    def rest(self, start: Fraction) -> Iterator[tuple[Fraction, Any]]:
        """Yield the packets that are left at the end."""
        if self._graph is None:
            return
        for frame in self._source.codec_context.decode(None):
            frame.time_base = frame.time_base or self._source.time_base
            self._graph.push(frame)
        self._graph.push(None)
        yield from self._encoded(start)
        for packet in self.stream.encode(None):
            yield packet.dts * packet.time_base, packet

    def _make_graph(self, first: Any) -> Any:
        import av.filter

        context = self.stream.codec_context
        graph = av.filter.Graph()
        source = graph.add_abuffer(sample_rate=first.sample_rate, format=first.format.name, layout=first.layout.name,
                                   time_base=first.time_base)
        form = graph.add('aformat', f'sample_fmts={context.format.name}:sample_rates={context.rate}'
                         f':channel_layouts={context.layout.name}')
        size = graph.add('asetnsamples', f'n={context.frame_size or 1024}:p=0')
        graph.link_nodes(source, graph.add('aresample', 'async=1000'), form, size, graph.add('abuffersink')).configure()
        return graph

    def _encoded(self, start: Fraction) -> Iterator[tuple[Fraction, Any]]:
        import av

        while True:
            try:
                frame = self._graph.pull()
            except (av.error.BlockingIOError, av.error.EOFError):
                return
            if frame.pts is not None:
                self._next = frame.pts - round(start / frame.time_base)
            frame.pts = self._next
            self._next += frame.samples
            for packet in self.stream.encode(frame):
                yield packet.dts * packet.time_base, packet
