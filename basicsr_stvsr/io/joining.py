"""Join segments to one file and add sound, subtitles, chapters and tags of the source, without encoding again."""
import contextlib
import heapq
import itertools
from collections.abc import Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

from ..utils.atomic_files import whole_file
from .captions import Caption
from .containers import CONTAINERS, demux, is_cut_off, open_input
from .copied_streams import Audio, lasting_tags, passed_packets, time_code
from .matroska import ROOM, display_size, set_display_size
from .subtitles import add_captions
from .video_info import VideoError, early_start, url_of, video_stream


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
         picture: int | None = None, audio: Audio = 'copy', captions: Sequence[Caption] = (),
         sample_aspect_ratio: Fraction = Fraction(1), since: Fraction | None = None,
         until: Fraction | None = None) -> list[str]:
    """Join segments to one video and copy everything but the picture from the source, without encoding again.

    Times stay as written. If the source starts after 0, as recordings of broadcasts do, its start is subtracted, also
    for sound, subtitles and chapters. Matroska rounds times to a millisecond. The output gets its name when it is
    complete.

    Args:
        segments: files of `VideoWriter`, in the order in which they are shown, with equal encoding.
        source: video file to take sound, subtitles, attachments, data, chapters and tags from, see `plan_streams`.
        output: the file to write; its suffix selects the container.
        rate: frames per second to state in the file; 0: none, for variable frame rates.
        picture: index of the source's stream that was restored; default: the main video.
        audio: see `plan_streams`.
        captions: of the source, to add as a text stream.
        sample_aspect_ratio: width of a shown pixel divided by its height.
        since: time of the source in seconds that becomes 0; nothing before it is copied. Default: the source's start.
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
                if video.codec_context.name == 'prores':  # only the tag states the profile
                    video.codec_context.codec_tag = template.codec_context.codec_tag
            video.codec_context.framerate = rate
            video.codec_context.sample_aspect_ratio = sample_aspect_ratio  # segments do not state it for all codecs
            if video.codec_context.name == 'hevc' and container.format.name != 'matroska':
                video.codec_context.codec_tag = 'hvc1'
            start = since or (Fraction(0) if original is None else _start(original))
            states_shape = container.format.name in ('matroska', 'webm') and sample_aspect_ratio != 1
            packets = [_video_packets(segments, video, start, rate, unfinished=until is not None)]
            if original is not None and source is not None:
                given = video_stream(original, Path(source), picture)
                _copy_tags(original, given, container, video)
                container.set_chapters(_chapters(original, start, until))
                packets.append(passed_packets(original, container, given.index, audio=audio, start=start, until=until,
                                              notes=notes, is_part=since is not None))
            if captions:
                packets.append(add_captions(captions, container, start))
            if states_shape:
                title = next((name for name in video.metadata if name.lower() == 'title'), 'title')
                video.metadata[title] = video.metadata.get(title, '') + ROOM
            for _, packet in heapq.merge(*packets, key=lambda timed: timed[0]):
                container.mux(packet)
            stack.close()  # the file is complete
            if states_shape:
                set_display_size(part, *display_size(template.width, template.height, sample_aspect_ratio))
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
        # Otherwise all streams would shift if the sound starts before 0, as in MP4 files. bitexact: without it,
        # Matroska files have a random number, so that the same input would not give the same file. '+' keeps the flag
        # that converts AAC of transport streams.
        options = {'avoid_negative_ts': 'disabled', 'fflags': '+bitexact'}
    return av.open(url_of(path), 'w', format=container_format, container_options=options)


def _start(container: Any) -> Fraction:
    """Return how far after 0 a source starts; seconds."""
    starts = [stream.start_time * stream.time_base for stream in container.streams
              if stream.type in ('audio', 'video') and stream.start_time is not None]
    return max(min(starts, default=Fraction(0)) + early_start(container), Fraction(0))


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
            packets = (_whole_packets(container, stream, path) if unfinished
                       else demux(container.demux(stream), path))
            for packet in packets:
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
        packets = demux(container.demux(stream), path)
        yield from itertools.takewhile(lambda packet: not is_cut_off(packet, size), packets)


def _copy_tags(original: Any, picture: Any, container: Any, video: Any) -> None:
    """Copy the tags of a file and of its video stream."""
    container.metadata.update(lasting_tags(original.metadata))
    video.metadata.update(lasting_tags(picture.metadata))
    if code := time_code(original):
        video.metadata['timecode'] = code
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
