"""Convert subtitles of text that a container does not take. Only bold, italic and underlined text stays so."""
import html
import re
from collections.abc import Iterator
from fractions import Fraction
from typing import Any, Literal

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
        converted = av.Packet(_as_stored(text, self._codec))
        converted.pts = converted.dts = round((packet.pts * packet.time_base - start) / _MILLISECOND)
        converted.duration = round((packet.duration or 0) * packet.time_base / _MILLISECOND)
        converted.time_base, converted.stream = _MILLISECOND, self.stream
        yield converted.pts * _MILLISECOND, converted

    def rest(self, start: Fraction) -> Iterator[tuple[Fraction, Any]]:
        return iter(())


def _as_stored(text: str, codec: TextCodec) -> bytes:
    r"""Return a packet of a text with ASS tags, such as {\i1}."""
    if codec == 'webvtt':
        text = html.escape(text, quote=False)
    if codec != 'mov_text':
        text = re.sub(r'\{\\([biu])([01])\}', lambda tag: f'<{"/" * (tag[2] == "0")}{tag[1]}>', text)
    data = re.sub(r'\{\\[^}]*\}', '', text).encode()
    return len(data).to_bytes(2) + data if codec == 'mov_text' else data
