"""Find interlaced frames in a video."""
from fractions import Fraction

from .frame_source import Notes
from .video_decoder import VideoDecoder
from .video_info import DamageError, VideoInfo

_PROGRESSIVE = frozenset({'vp8', 'vp9', 'av1', 'theora', 'png', 'gif', 'webp', 'jpeg2000'})  # codecs without fields
_STEP, _NUM_PLACES = 5, (12, 120)  # seconds between places, and how many; the flags of frames need decoding


def interlaced_since(info: VideoInfo) -> Fraction | None:
    """Return a time from which on frames are interlaced, by flags of frames at places all over the file; None: none.

    `VideoSource` warns of interlaced frames between these places.
    """
    import av

    if info.interlaced:
        return info.start
    if info.codec in _PROGRESSIVE or not info.has_times or info.in_order:
        return None
    with VideoDecoder(info, Notes(info.path), threads=1) as decoder:
        num_places = min(max(int(info.duration / _STEP), _NUM_PLACES[0]), _NUM_PLACES[1])
        for place in range(1, num_places + 1):
            try:
                found = decoder.is_interlaced_at(info.start + info.duration * place / num_places)
            except (DamageError, av.error.FFmpegError):  # reported where frames are read
                continue
            if found is not None:
                return found
    return None
