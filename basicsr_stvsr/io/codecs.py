"""Compress frames with a video codec in memory, by PyAV."""
from collections.abc import Iterable, Sequence
from fractions import Fraction
from functools import cache
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, cast

import cv2
import numpy as np

if TYPE_CHECKING:
    from av.video.codeccontext import VideoCodecContext

CodecName = Literal['h264', 'h265', 'mpeg4', 'mpeg2']
Preset = Literal['ultrafast', 'superfast', 'veryfast', 'faster', 'fast', 'medium', 'slow', 'slower', 'veryslow']

_RATE = 25  # frames per second; MPEG-2 supports only a few rates
_PIXELS = 'yuv420p'
# Avoid the threads of encoders that look ahead. `info`: x265 would write its options into every clip.
_X265 = 'pools=none:frame-threads=1:wpp=0:log-level=error:info=0'


class _Codec(NamedTuple):
    """A codec's names in FFmpeg and its limits.

    Attributes:
        encoder, decoder: FFmpeg's names.
        has_crf: True: quality is a CRF, with a preset; False: it is the quantiser.
        least_width: smallest width of pictures; narrower ones crash libx265.
    """
    encoder: str
    decoder: str
    has_crf: bool
    least_width: int = 16

    def options(self, quality: float, preset: Preset) -> dict[str, str]:
        if not self.has_crf:
            return {'qmin': f'{quality:.0f}', 'qmax': f'{quality:.0f}'}
        return {'crf': f'{quality:.2f}', 'preset': preset, **({'x265-params': _X265} if self.decoder == 'hevc' else {})}


_CODECS: dict[CodecName, _Codec] = {
    'h264': _Codec('libx264', 'h264', has_crf=True),
    'h265': _Codec('libx265', 'hevc', has_crf=True, least_width=64),
    'mpeg4': _Codec('mpeg4', 'mpeg4', has_crf=False),
    'mpeg2': _Codec('mpeg2video', 'mpeg2video', has_crf=False),
}
_LEAST_HEIGHT = 16


def check_codecs(names: Iterable[CodecName]) -> None:
    """Raise ValueError if this build of PyAV lacks a codec."""
    found = {name: _exists(codec.encoder, 'w') and _exists(codec.decoder, 'r') for name, codec in _CODECS.items()}
    if missing := sorted(name for name in set(names) if not found[name]):
        import av

        needed = ', '.join(f'{name} (encoder {_CODECS[name].encoder})' for name in missing)
        there = ', '.join(name for name in found if found[name]) or 'none of them'
        raise ValueError(f'PyAV {av.__version__} was built without {needed}; it has {there}')


@cache  # called for every window
def _exists(codec: str, mode: Literal['r', 'w']) -> bool:
    import av  # here, so that importing the package stays cheap; few need it

    try:
        av.codec.Codec(codec, mode)
    except av.codec.codec.UnknownCodecError:
        return False
    return True


def compress(frames: Sequence[np.ndarray], name: CodecName, quality: float, *,
             preset: Preset = 'medium') -> list[np.ndarray]:
    """Encode frames as one short video, and decode it again.

    The encoder begins with a keyframe and sees only these frames. Colours are stored in 4:2:0, BT.601. Encoder and
    decoder run on one thread and end with the call, so that forked processes may use them. libx265 starts another
    thread, but it also ends with the call. The same frames give the same result.

    Args:
        frames: uint8 (h, w, 3), BGR, of one size, in temporal order. Frames of odd or tiny size are padded with their
            last row and column for the codec, and cropped afterwards.
        name: name of the codec.
        quality: 'h264' and 'h265': CRF, 0 to 51. 'mpeg4' and 'mpeg2': quantiser, 1 to 31, rounded to a whole number.
            Smaller is better.
        preset: preset of 'h264' and 'h265'.

    Returns:
        As many frames of the same size.

    Raises:
        ValueError: no frames, frames that are not such arrays of one size, or a codec that PyAV lacks.
    """
    if not frames or any(frame.dtype != np.uint8 or frame.shape != (*frames[0].shape[:2], 3) for frame in frames):
        raise ValueError('expected uint8 frames (h, w, 3) of one size to compress, got '
                         f'{[(str(frame.dtype), frame.shape) for frame in frames]}')
    check_codecs([name])
    codec = _CODECS[name]
    height, width = frames[0].shape[:2]
    bottom = max(_LEAST_HEIGHT, height + height % 2) - height
    right = max(codec.least_width, width + width % 2) - width
    padded = [cv2.copyMakeBorder(frame, 0, bottom, 0, right, cv2.BORDER_REPLICATE) for frame in frames]
    decoded = _decode(codec, _encode(codec, codec.options(quality, preset), padded))
    if len(decoded) != len(frames):
        raise RuntimeError(f'the decoder of {name} gave {len(decoded)} of {len(frames)} frames')
    return [frame[:height, :width] for frame in decoded]


def _encode(codec: _Codec, options: dict[str, str], frames: Sequence[np.ndarray]) -> list[Any]:
    """Return the packets of a video."""
    from av import CodecContext, VideoFrame

    encoder = cast('VideoCodecContext', CodecContext.create(codec.encoder, 'w'))
    encoder.height, encoder.width = frames[0].shape[:2]
    encoder.pix_fmt, encoder.thread_count, encoder.options = _PIXELS, 1, options
    encoder.framerate, encoder.time_base = Fraction(_RATE), Fraction(1, _RATE)
    packets: list[Any] = []
    for number, frame in enumerate(frames):
        image = _converted(VideoFrame.from_ndarray(frame, format='bgr24'), _PIXELS)
        image.pts, image.time_base = number, Fraction(1, _RATE)
        packets += encoder.encode(image)
    return packets + encoder.encode(None)


def _decode(codec: _Codec, packets: Iterable[Any]) -> list[np.ndarray]:
    from av import CodecContext

    decoder = cast('VideoCodecContext', CodecContext.create(codec.decoder, 'r'))
    decoder.thread_count = 1
    images = [image for packet in (*packets, None) for image in decoder.decode(packet)]
    return [_converted(image, 'bgr24').to_ndarray() for image in images]


def _converted(image: Any, pixels: str) -> Any:
    from av.video.reformatter import Interpolation

    # Gives the same bytes on every CPU
    exact = Interpolation.BICUBIC | Interpolation.ACCURATE_RND | Interpolation.BITEXACT
    return image.reformat(format=pixels, interpolation=exact, threads=1)
