"""Containers of output files, and the streams that they can hold."""
import io
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from .video_info import VideoError, url_of

# Suffix of an output -> FFmpeg's name of its container. AVI lacks time stamps, and transport streams lack tags and
# chapters, so both are left out.
CONTAINERS = {'.mp4': 'mp4', '.m4v': 'mp4', '.mov': 'mov', '.mkv': 'matroska', '.webm': 'webm'}


def takes_stream(suffix: str, stream: Any, packet: Any = None) -> bool:
    """Return whether a container can hold a stream unchanged.

    Args:
        packet: see `trial_error`.
    """
    if stream.type not in ('audio', 'subtitle', 'data', 'attachment'):
        return False
    if stream.type == 'attachment' and suffix == '.webm':
        return False  # FFmpeg drops it without an error
    return trial_error(suffix, lambda container: container.add_stream_from_template(stream), packet) is None


def trial_error(suffix: str, add_stream: Callable[[Any], Any], packet: Any = None) -> Exception | None:
    """Return FFmpeg's error for a trial file in memory. Only FFmpeg knows all limits of encoders and containers.

    Args:
        add_stream: adds a stream to a container, and returns it.
        packet: one of the stream; if given, it is written, too. It is changed.
    """
    import av

    try:
        with av.open(io.BytesIO(), 'w', format=CONTAINERS[suffix.lower()]) as container:  # closing writes the tables
            stream = add_stream(container)
            container.start_encoding()
            if packet is not None:
                packet.stream = stream
                container.mux(packet)
    except (av.error.FFmpegError, OSError, ValueError) as error:
        return error
    return None


def open_input(path: Path) -> Any:
    import av

    try:
        return av.open(url_of(path), metadata_errors='replace')
    except (av.error.FFmpegError, OSError) as error:
        raise VideoError(f'{path}: cannot be read ({error})') from error


def demux(packets: Iterable[Any], path: str | Path) -> Iterator[Any]:
    """Yield packets of a file, without the end markers, which have no time stamps.

    Raises:
        VideoError: the file cannot be read.
    """
    import av

    try:
        for packet in packets:
            if packet.pts is not None or packet.dts is not None:
                yield packet
    except av.error.FFmpegError as error:
        raise VideoError(f'{path}: cannot be read ({error})') from error


def is_cut_off(packet: Any, size: int) -> bool:
    """Return whether a file of this size ends within a packet; FFmpeg returns incomplete packets."""
    return (packet.pos is not None and packet.pos + packet.size >= size
            and any(entry.pos == packet.pos and entry.size > packet.size for entry in packet.stream.index_entries))
