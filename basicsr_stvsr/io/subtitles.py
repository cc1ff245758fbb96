"""Convert subtitles of text that a container does not take. Only bold, italic and underlined text stays so."""
import html
import re
from collections.abc import Iterable, Iterator
from fractions import Fraction
from typing import Any, Literal

from .captions import Caption
from .containers import CONTAINERS, trial_error

TextCodec = Literal['mov_text', 'subrip', 'webvtt']
_TAKEN: dict[str, TextCodec] = {'mp4': 'mov_text', 'mov': 'mov_text', 'matroska': 'subrip', 'webm': 'webvtt'}
_TEXTS = frozenset({'mov_text', 'subrip', 'srt', 'ass', 'ssa', 'webvtt', 'text'})  # FFmpeg's names
_MILLISECOND = Fraction(1, 1000)


def text_codec(stream: Any, suffix: str) -> TextCodec | None:
    """Return the codec into which subtitles can be converted for a container; None if they are not text."""
    codec = _TAKEN[CONTAINERS[suffix]]
    is_text = stream.codec_context is not None and stream.codec_context.name in _TEXTS
    return codec if is_text and trial_error(suffix, lambda container: add_text(container, codec)) is None else None


def add_text(container: Any, codec: TextCodec) -> Any:
    stream = container.add_mux_stream(codec)
    stream.time_base = _MILLISECOND
    return stream


class TextConverter:
    """Converts the packets of a subtitle stream.

    Args:
        stream: of the source.
        container: open for writing; gets the stream.
        codec: see `text_codec`.
    """

    def __init__(self, stream: Any, container: Any, codec: TextCodec):
        self.stream, self._codec = add_text(container, codec), codec

    def passed(self, packet: Any, start: Fraction) -> Iterator[tuple[Fraction, Any]]:
        """Yield the converted packet, with its time; nothing for a pause."""
        import av

        try:
            text = '\n'.join(line.dialogue.decode('utf-8', 'replace') for line in packet.decode()).strip()
        except av.error.FFmpegError:  # damaged
            return
        if not text:
            return
        begin = packet.pts * packet.time_base
        yield _text_packet(text, begin - start, (packet.duration or 0) * packet.time_base, self.stream, self._codec)

    def rest(self, start: Fraction) -> Iterator[tuple[Fraction, Any]]:
        return iter(())


def add_captions(captions: Iterable[Caption], container: Any, start: Fraction) -> Iterator[tuple[Fraction, Any]]:
    """Add closed captions as a text stream to a container, and return its packets by time.

    Args:
        start: time of the captions that becomes 0, seconds.
    """
    codec = _TAKEN[container.format.name]
    stream = add_text(container, codec)
    stream.metadata['title'] = 'Closed captions'
    return (_text_packet(text, max(begin, start) - start, end - max(begin, start), stream, codec)
            for begin, end, text in captions)


def _text_packet(text: str, begin: Fraction, duration: Fraction, stream: Any, codec: TextCodec) -> (
        tuple[Fraction, Any]):
    """Return a packet of a text with ASS tags, and its time."""
    import av

    packet = av.Packet(_as_stored(text, codec))
    packet.pts = packet.dts = round(begin / _MILLISECOND)
    packet.duration = round(duration / _MILLISECOND)
    packet.time_base, packet.stream = _MILLISECOND, stream
    return packet.pts * _MILLISECOND, packet


def _as_stored(text: str, codec: TextCodec) -> bytes:
    r"""Return a packet of a text with ASS tags, such as {\i1}."""
    if codec == 'webvtt':
        text = html.escape(text, quote=False)
    if codec != 'mov_text':
        text = re.sub(r'\{\\([biu])([01])\}', lambda tag: f'<{"/" * (tag[2] == "0")}{tag[1]}>', text)
    data = re.sub(r'\{\\[^}]*\}', '', text).encode()
    return len(data).to_bytes(2) + data if codec == 'mov_text' else data
