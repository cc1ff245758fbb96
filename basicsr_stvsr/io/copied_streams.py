"""Streams of a source other than the picture: decide what becomes of each, and pass them on to an output."""
import itertools
from collections.abc import Iterator
from fractions import Fraction
from typing import Any, Literal, NamedTuple

from .broadcast import BroadcastClock
from .containers import CONTAINERS, demux, is_cut_off, open_input, takes_stream
from .covers import Cover, is_cover, takes_cover
from .sound_encoder import SoundEncoder, add_once, can_encode
from .subtitles import TextCodec, TextConverter, text_codec
from .video_info import VideoError, is_broadcast, path_of, stream_info

# Tags of a source that do not apply to the output. Matroska also has them with a language, as BPS-eng.
_STALE_TAGS = frozenset({
    'rotate', 'encoder', 'duration', 'bps', 'number_of_frames', 'number_of_bytes', '_statistics_tags',
    '_statistics_writing_app', '_statistics_writing_date_utc', 'major_brand', 'minor_version', 'compatible_brands',
    'vendor_id', 'alpha_mode'})
_NUM_SAMPLED = 2000  # packets at the beginning of a file
_INTERLEAVED = 10  # largest distance in a file between packets of different streams, seconds

Audio = Literal['copy', 'aac', 'opus', 'none']


class Plan(NamedTuple):
    """What becomes of a stream.

    Attributes:
        index: of the stream.
        action: 'copy', 'cover' to copy a picture, the codec into which its sound or text is converted, or 'drop'.
        warning: what is lost; '' if nothing is.
    """
    index: int  # type: ignore[assignment]  # hides the method of tuples
    action: Literal['copy', 'cover', 'aac', 'opus', 'drop'] | TextCodec
    warning: str = ''


def plan_streams(source: Any, picture: int, suffix: str, audio: Audio) -> list[Plan]:
    """Decide what becomes of the streams of an open source, except for the one of index `picture`.

    Args:
        suffix: of the output file; selects its container.
        audio: 'copy': encode only sound that the container does not take; 'aac', 'opus': encode all sound of another
            codec; 'none': drop sound.
    """
    streams = [stream for stream in source.streams if stream.index != picture]
    samples = _first_packets(source.name, {stream.index for stream in streams if stream.type in ('audio', 'data')})
    return [_plan(source, stream, suffix.lower(), audio, samples.get(stream.index)) for stream in streams]


def _first_packets(url: str, wanted: set[int]) -> dict[int, Any]:
    """Return the first packet of each of some streams. Containers refuse some streams only when they get data."""
    found: dict[int, Any] = {}
    if wanted:
        with open_input(path_of(url)) as source:
            for packet in itertools.islice(demux(source.demux(), url), _NUM_SAMPLED):
                if packet.stream_index in wanted:
                    found.setdefault(packet.stream_index, packet)
                if len(found) == len(wanted):
                    break
    return found


def time_code(source: Any) -> str:
    """Return the time code of the first frame, such as 01:00:00:00; '' if there is none."""
    return next((stream.metadata['timecode'] for stream in source.streams if 'timecode' in stream.metadata), '')


def _plan(source: Any, stream: Any, suffix: str, audio: Audio, sample: Any) -> Plan:
    name = str(stream_info(stream))
    if stream.type == 'audio':
        if audio == 'none':
            return Plan(stream.index, 'drop')
        wanted = audio if audio != 'copy' else 'opus' if suffix == '.webm' else 'aac'
        is_wanted = audio == 'copy' or (stream.codec_context is not None and stream.codec_context.name == audio)
        if is_wanted and takes_stream(suffix, stream, sample):
            return Plan(stream.index, 'copy')
        if can_encode(stream, wanted, suffix):
            because = f'{name} is encoded as {wanted}, {suffix} files cannot hold it'
            return Plan(stream.index, wanted, because if audio == 'copy' else '')
        return Plan(stream.index, 'drop', f'{name} is left out, {suffix} files cannot hold it and it cannot be decoded')
    if is_cover(stream):
        return Plan(stream.index, 'cover') if takes_cover(suffix, stream) else Plan(
            stream.index, 'drop', f'{name}, a cover picture, is left out, {suffix} files cannot hold it')
    if stream.type == 'video':
        return Plan(stream.index, 'drop', f'{name} is left out, only one video is restored')
    if stream.type == 'data' and 'timecode' in stream.metadata:
        return Plan(stream.index, 'drop')  # it becomes a tag, of which MOV and MP4 make such a stream
    if takes_stream(suffix, stream, sample):
        return Plan(stream.index, 'copy')
    if stream.type == 'subtitle' and (codec := text_codec(stream, suffix)):
        return Plan(stream.index, codec, f'{name} is converted to {codec}, {suffix} files cannot hold it')
    # The names of chapters look like meaningless data; they are copied as chapters
    if stream.type == 'data' and 'mp4' in source.format.name and source.chapters() and 'bin_data' in name:
        return Plan(stream.index, 'drop')
    return Plan(stream.index, 'drop', f'{name} is left out, {suffix} files cannot hold it')


def passed_packets(original: Any, container: Any, picture: int, *, audio: Audio, start: Fraction,
                   until: Fraction | None, notes: list[str], is_part: bool = False) -> Iterator[tuple[Fraction, Any]]:
    """Add streams of a source to a container by `plan_streams`, and return their packets by decoding time.

    Args:
        start: time of the source that becomes 0, seconds.
        until: time of the source at which to stop; None: never.
        notes: gets a sentence for each thing that is damaged.
        is_part: whether to leave out what is before `start`.
    """
    suffix = next(suffix for suffix, name in CONTAINERS.items() if name == container.format.name)
    outputs: dict[int, _Output] = {}
    for plan in plan_streams(original, picture, suffix, audio):
        if plan.action == 'drop':
            continue
        stream = original.streams[plan.index]
        output = _output(plan, stream, container, notes)
        output.stream.metadata.update(lasting_tags(stream.metadata))
        output.stream.disposition = stream.disposition
        if stream.type != 'attachment':
            outputs[plan.index] = output

    def packets() -> Iterator[tuple[Fraction, Any]]:
        time, size = start, path_of(original.name).stat().st_size
        end = start + Fraction(original.duration or 0, 1_000_000) + _INTERLEAVED
        try:
            for packet in _steady_packets(original, outputs) if outputs else ():
                if is_cut_off(packet, size):
                    continue
                time = (packet.pts if packet.dts is None else packet.dts) * packet.time_base
                if is_part and time < start:
                    continue
                if original.duration and time > end:
                    add_once(notes, f'{stream_info(packet.stream)} of the source has times behind the end of the file; '
                             'what is there is left out')
                    continue
                if until is not None and time >= until:
                    if time >= until + _INTERLEAVED:
                        break
                    continue
                yield from outputs[packet.stream_index].passed(packet, start)
        except VideoError as error:
            notes.append(f'sound and subtitles are copied only up to {float(time):.3f} s: {error}')
        for output in outputs.values():
            yield from output.rest(start)

    return packets()


def _output(plan: Plan, stream: Any, container: Any, notes: list[str]) -> '_Output':
    if plan.action == 'copy':
        return _Copy(stream, container, notes)
    if plan.action == 'cover':
        return Cover(stream, container)
    if plan.action == 'aac' or plan.action == 'opus':
        return SoundEncoder(stream, container, plan.action, notes)
    assert plan.action != 'drop'
    return TextConverter(stream, container, plan.action)


def _steady_packets(original: Any, wanted: dict[int, Any]) -> Iterator[Any]:
    if is_broadcast(original.format.name):
        packets = BroadcastClock(original).packets(original)
        return (packet for packet in demux(packets, original.name) if packet.stream_index in wanted)
    return demux(original.demux([original.streams[index] for index in wanted]), original.name)


class _Copy:
    """Passes on the packets of a stream. It repairs times that do not increase.

    Args:
        stream: of the source.
        container: open for writing; gets the stream.
        notes: gets a sentence if times were repaired.
    """

    def __init__(self, stream: Any, container: Any, notes: list[str]):
        self.stream = container.add_stream_from_template(stream)
        self._name, self._notes = str(stream_info(stream)), notes
        self._is_mov_text = stream.type == 'subtitle' and stream.codec_context.name == 'mov_text'
        self._last: int | None = None

    def passed(self, packet: Any, start: Fraction) -> Iterator[tuple[Fraction, Any]]:
        if self._is_mov_text and packet.size <= 2:
            return  # a pause between two texts; MP4 adds it again
        shift = round(start / packet.time_base)
        dts = (packet.pts if packet.dts is None else packet.dts) - shift
        if self._last is not None and dts <= self._last and self.stream.type == 'audio':
            add_once(self._notes, f'{self._name} of the source has damaged times; its packets are placed one after the '
                     'other')
            dts = self._last + 1
            packet.pts = dts + shift
        self._last = dts
        packet.pts = None if packet.pts is None else max(packet.pts - shift, dts)
        packet.dts, packet.stream = dts, self.stream
        yield dts * packet.time_base, packet

    def rest(self, start: Fraction) -> Iterator[tuple[Fraction, Any]]:
        return iter(())


_Output = _Copy | Cover | SoundEncoder | TextConverter


def lasting_tags(tags: dict[str, str]) -> dict[str, str]:
    lasting = {name: value for name, value in tags.items() if name.lower().partition('-')[0] not in _STALE_TAGS}
    if 'name' in lasting:  # MP4's name for a stream's title in reading, but not in writing
        lasting.setdefault('title', lasting.pop('name'))
    return lasting
