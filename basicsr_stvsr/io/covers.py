"""Cover pictures: images within a video file, in MP4 as a stream and in Matroska as an attachment."""
from collections.abc import Iterator
from fractions import Fraction
from typing import Any

from .containers import open_input
from .video_info import path_of

_KINDS = {'mjpeg': ('cover.jpg', 'image/jpeg'), 'png': ('cover.png', 'image/png')}  # by codec


def is_cover(stream: Any) -> bool:
    """Return whether a stream is one picture; others are marked as such, but have many, to show along the video."""
    from av.stream import Disposition

    return bool(stream.type == 'video' and stream.disposition == Disposition.attached_pic)


def takes_cover(suffix: str, stream: Any) -> bool:
    """Return whether files of a suffix can hold a cover picture. FFmpeg drops it in MOV files without an error."""
    return suffix in ('.mp4', '.m4v', '.mkv') and stream.codec_context is not None and (
        stream.codec_context.name in _KINDS and _packet_of(stream).size > 0)


def _packet_of(stream: Any) -> Any:
    with open_input(path_of(stream.container.name)) as source:  # another reader of the file needs its place in it
        return next(source.demux(source.streams[stream.index]))


class Cover:
    """Passes on a cover picture.

    Args:
        stream: of the source; one that the container takes.
        container: open for writing; gets the stream.
    """

    def __init__(self, stream: Any, container: Any):
        self._packet = _packet_of(stream)
        self._is_stream = container.format.name == 'mp4'
        if self._is_stream:
            self.stream = container.add_stream_from_template(stream, opaque=True)
        else:
            name, mime_type = _KINDS[stream.codec_context.name]
            self.stream = container.add_attachment(name, mime_type, bytes(self._packet))

    def passed(self, packet: Any, start: Fraction) -> Iterator[tuple[Fraction, Any]]:
        return iter(())

    def rest(self, start: Fraction) -> Iterator[tuple[Fraction, Any]]:
        if self._is_stream:
            self._packet.stream, self._packet.pts, self._packet.dts = self.stream, 0, 0
            yield Fraction(0), self._packet
