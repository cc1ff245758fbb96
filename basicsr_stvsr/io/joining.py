"""Join segments to one file and add sound, subtitles, chapters and tags of the source, without encoding again."""
import contextlib
import heapq
import itertools
from collections.abc import Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

from ..utils.atomic_files import whole_file
from .containers import CONTAINERS, open_input, takes_stream
from .video_info import VideoError, video_stream

# Tags of a source that do not apply to the output. Matroska also has them with a language, as BPS-eng.
_STALE_TAGS = frozenset({
    'rotate', 'encoder', 'duration', 'bps', 'number_of_frames', 'number_of_bytes', '_statistics_tags',
    '_statistics_writing_app', '_statistics_writing_date_utc', 'major_brand', 'minor_version', 'compatible_brands',
    'vendor_id', 'alpha_mode'})

_INTERLEAVED = 10  # largest distance in a file between packets of different streams, seconds


def stored_frames(segment: Path) -> tuple[int, Fraction | None]:
    """Return the number of complete frames of a segment, and the time of the last one shown, seconds."""
    try:
        with open_input(segment) as container:
            stream = video_stream(container, segment)
            times = [packet.pts * packet.time_base for packet in _whole_packets(container, stream, segment)]
    except VideoError:  # not even its header
        times = []
    return len(times), max(times, default=None)


def join(segments: Sequence[Path], source: Path | None, output: Path, *, rate: Fraction = Fraction(0),
         until: Fraction | None = None) -> list[str]:
    """Join segments to one video and copy everything but the picture from the source, without encoding again.

    Times stay as written. If the source starts after 0, as recordings of broadcasts do, its start is subtracted, also
    for sound, subtitles and chapters. Matroska rounds times to a millisecond. The output gets its name when it is
    complete.

    Args:
        segments: files of `VideoWriter`, in the order in which they are shown, with equal encoding.
        source: video file to copy sound, subtitles, attachments, data, chapters and tags from, as far as the container
            supports them; `check_output` checks that in advance.
        output: the file to write; its suffix selects the container.
        rate: frames per second to state in the file; 0: none, for variable frame rates.
        until: time of the source in seconds at which to stop copying, for a picture that is incomplete. The last
            segment may then be truncated.

    Returns:
        A sentence for each thing that was not copied because the source is damaged.

    Raises:
        VideoError: a segment is damaged or unlike the first one; the source cannot be opened; the output cannot be
            written.
    """
    import av

    notes: list[str] = []
    output = Path(output)
    if not segments:
        raise VideoError(f'{output}: nothing to join, no frame was written')
    try:
        with whole_file(output) as part, contextlib.ExitStack() as stack:
            original = None if source is None else stack.enter_context(open_input(Path(source)))
            with open_input(Path(segments[0])) as first:
                template = video_stream(first, Path(segments[0]))
                assert template.time_base is not None
                container = stack.enter_context(_create(part, output.suffix, template.time_base))
                video = container.add_stream_from_template(template, opaque=True)
            video.codec_context.framerate = rate
            if video.codec_context.name == 'hevc' and container.format.name != 'matroska':
                video.codec_context.codec_tag = 'hvc1'
            start = Fraction(0) if original is None else _start(original)
            packets = [_video_packets(segments, video, start, rate, unfinished=until is not None)]
            if original is not None and source is not None:
                _copy_tags(original, video_stream(original, Path(source)), container, video)
                container.set_chapters(_chapters(original, start, until))
                packets.append(_copied_packets(original, container, start, until, notes))
            for _, packet in heapq.merge(*packets, key=lambda timed: timed[0]):
                container.mux(packet)
    except VideoError:
        raise
    except (av.error.FFmpegError, OSError, ValueError) as error:
        raise VideoError(f'{output}: cannot be written ({error})') from error
    return notes


def _create(path: Path, suffix: str, time_base: Fraction) -> Any:
    import av

    container_format = CONTAINERS[suffix.lower()]
    if container_format in ('mp4', 'mov'):
        timescale = str(time_base.denominator)
        options = {'movflags': 'faststart', 'video_track_timescale': timescale, 'movie_timescale': timescale}
    else:
        # Otherwise all streams would shift if the sound starts before 0, as in MP4 files
        options = {'avoid_negative_ts': 'disabled'}
    return av.open(str(path), 'w', format=container_format, container_options=options)


def _start(container: Any) -> Fraction:
    """Return how far after 0 a source starts; seconds."""
    starts = [stream.start_time * stream.time_base for stream in container.streams
              if stream.type in ('audio', 'video') and stream.start_time is not None]
    return max(min(starts, default=Fraction(0)), Fraction(0))


def _video_packets(segments: Sequence[Path], video: Any, start: Fraction, rate: Fraction, *,
                   unfinished: bool) -> Iterator[tuple[Fraction, Any]]:
    """Yield the packets of all segments as one stream, each with its decoding time."""
    header, last = video.codec_context.extradata, None
    for path in segments:
        with open_input(Path(path)) as container:
            stream = video_stream(container, Path(path))
            assert stream.time_base is not None
            size = stream.codec_context.width, stream.codec_context.height
            if stream.codec_context.extradata != header or size != (video.codec_context.width,
                                                                    video.codec_context.height):
                raise VideoError(f'{path}: the encoding of the segment differs from that of the first one, '
                                 f'{segments[0]}')
            shift, duration = round(start / stream.time_base), round(1 / rate / stream.time_base) if rate else 0
            read = _whole_packets if unfinished else _demux
            for packet in read(container, stream, path):
                packet.pts -= shift
                packet.dts -= shift
                # Decoding of a segment's first frames precedes their times and may overlap the previous segment
                if last is not None and packet.dts * packet.time_base <= last:
                    packet.dts = int(last / packet.time_base) + 1
                if packet.dts > packet.pts:
                    raise VideoError(f'{path}: the segment starts at {float(packet.pts * packet.time_base):.6f} s, '
                                     'which is not after the previous segment')
                last = packet.dts * packet.time_base
                packet.duration = duration or packet.duration
                packet.stream = video
                yield last, packet


def _whole_packets(container: Any, stream: Any, path: Path) -> Iterator[Any]:
    """Yield the packets of a stream up to where the file is truncated."""
    size = path.stat().st_size
    with contextlib.suppress(VideoError):
        yield from itertools.takewhile(lambda packet: not _is_cut_off(packet, size), _demux(container, stream, path))


def _is_cut_off(packet: Any, size: int) -> bool:
    """Return whether a file of this size ends within a packet; FFmpeg returns incomplete packets."""
    return (packet.pos is not None and packet.pos + packet.size >= size
            and any(entry.pos == packet.pos and entry.size > packet.size for entry in packet.stream.index_entries))


def _demux(container: Any, streams: Any, path: Path) -> Iterator[Any]:
    """Yield the packets of one or several streams, without the end markers, which have no time stamps."""
    import av

    try:
        for packet in container.demux(streams):
            if packet.pts is not None or packet.dts is not None:
                yield packet
    except av.error.FFmpegError as error:
        raise VideoError(f'{path}: cannot be read ({error})') from error


def _copied_packets(original: Any, container: Any, start: Fraction, until: Fraction | None,
                    notes: list[str]) -> Iterator[tuple[Fraction, Any]]:
    """Add the streams of a source that a container supports, and return their packets by decoding time."""
    suffix = next(suffix for suffix, name in CONTAINERS.items() if name == container.format.name)
    copies = {}
    for stream in original.streams:
        if takes_stream(suffix, stream):
            copy = container.add_stream_from_template(stream)
            copy.metadata.update(_lasting(stream.metadata))
            copy.disposition = stream.disposition
            copies[stream.index] = copy

    def packets() -> Iterator[tuple[Fraction, Any]]:
        wanted = [stream for stream in original.streams if stream.index in copies and stream.type != 'attachment']
        texts = {stream.index for stream in wanted if stream.type == 'subtitle'
                 and stream.codec_context.name == 'mov_text'}
        time, size = start, Path(original.name).stat().st_size
        try:
            for packet in _demux(original, wanted, original.name) if wanted else ():
                if _is_cut_off(packet, size):
                    continue
                if packet.stream_index in texts and packet.size <= 2:
                    continue  # a pause between two texts; MP4 adds it again
                packet.dts = packet.pts if packet.dts is None else packet.dts
                time = packet.dts * packet.time_base
                if until is not None and time >= until:
                    if time >= until + _INTERLEAVED:
                        return
                    continue
                shift = round(start / packet.time_base)
                packet.pts = None if packet.pts is None else packet.pts - shift
                packet.dts -= shift
                packet.stream = copies[packet.stream_index]
                yield time - start, packet
        except VideoError as error:
            notes.append(f'sound and subtitles are copied only up to {float(time):.3f} s: {error}')

    return packets()


def _copy_tags(original: Any, picture: Any, container: Any, video: Any) -> None:
    """Copy the tags of a file and of its video stream."""
    container.metadata.update(_lasting(original.metadata))
    video.metadata.update(_lasting(picture.metadata))
    video.disposition = picture.disposition


def _chapters(original: Any, start: Fraction, until: Fraction | None) -> list[Any]:
    """Return a file's chapters that start before `until`, shifted back by `start`; both in seconds of the file."""
    chapters = []
    for chapter in original.chapters():
        unit = chapter['time_base']
        end = chapter['end'] if until is None else min(chapter['end'], round(until / unit))
        if chapter['start'] < end:
            shift = round(start / unit)
            chapters.append({**chapter, 'start': max(chapter['start'] - shift, 0), 'end': max(end - shift, 0)})
    return chapters


def _lasting(tags: dict[str, str]) -> dict[str, str]:
    lasting = {name: value for name, value in tags.items() if name.lower().partition('-')[0] not in _STALE_TAGS}
    if 'name' in lasting:  # MP4's name for a stream's title in reading, but not in writing
        lasting.setdefault('title', lasting.pop('name'))
    return lasting
