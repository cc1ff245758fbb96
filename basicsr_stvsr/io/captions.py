"""Closed captions that frames carry (CEA-608, as ATSC A/53 stores it): read their text with its times."""
import re
from collections.abc import Iterable, Iterator
from fractions import Fraction
from itertools import takewhile
from typing import Any, NamedTuple

from .frame_source import Notes
from .video_decoder import VideoDecoder, scan
from .video_info import DamageError, VideoInfo

_TYPED = 1  # seconds within which more letters appear of a text that is shown as it is typed
_BEFORE = 30  # seconds before a text is shown in which its letters may come


class Caption(NamedTuple):
    """A text, with tags of ASS for bold, italic and underlined, and when it is shown, seconds."""

    start: Fraction
    end: Fraction
    text: str


def read_captions(info: VideoInfo, since: Fraction | None = None, until: Fraction | None = None) -> list[Caption]:
    """Return the captions of a video, up to where it is damaged. This decodes all frames.

    Args:
        since, until: the part to read, seconds; default: all.
    """
    with VideoDecoder(info, Notes(info.path), threads=1) as decoder:
        frames = decoder.frames(since and since - _BEFORE, can_seek=since is None or scan(info).can_seek)
        screens = _screens(takewhile(lambda timed: until is None or timed[1] < until, frames))
        return [caption for caption in joined(screens) if since is None or caption.end > since]


def joined(screens: Iterable[tuple[Fraction, str]]) -> Iterator[Caption]:
    """Yield captions, given what is shown from each time on. Text that is typed letter by letter is shown at once.

    Args:
        screens: times, seconds, and texts; the last one is ''.
    """
    caption, changed = None, Fraction(0)
    for time, text in screens:
        if caption and text.startswith(caption.text) and (text == caption.text or time - changed < _TYPED):
            caption, changed = caption._replace(text=text), time
            continue
        if caption:
            yield caption._replace(end=time)
        caption, changed = Caption(time, time, text) if text else None, time


def _screens(frames: Iterable[tuple[Any, Fraction]]) -> Iterator[tuple[Fraction, str]]:
    """Yield what is shown each time it changes, '' for nothing; at the end, it is ''."""
    import av

    decoder: Any = av.CodecContext.create('cc_dec', 'r')
    decoder.options = {'real_time': '1', 'real_time_latency_msec': '0'}  # report changes when they happen
    last, end = None, Fraction(0)
    try:
        for frame, time in frames:
            # A frame that is shown again brings no new letters
            for data in [data for data in frame.side_data if data.type.name == 'A53_CC' and frame is not last]:
                packet = av.Packet(bytes(data))
                packet.pts = packet.dts = round(time * 1000)
                for screen in decoder.decode2(packet) or ():
                    # Without positions and colours
                    yield time, re.sub(r'\{\\(?![biu][01]\})[^}]*\}', '', screen.dialogue.decode()).strip()
            last, end = frame, time
    except (DamageError, av.error.FFmpegError):
        pass
    yield end, ''
