"""What decoded frames carry besides their pixels: HDR metadata, which encoders can keep, and what is lost."""
import struct
from typing import Any, NamedTuple

_DOLBY = 'Dolby Vision, of which only the base layer is restored'
_LOST = {  # FFmpeg's names of side data -> what it is
    'DYNAMIC_HDR_PLUS': 'HDR10+ metadata of each frame',
    'DYNAMIC_HDR_VIVID': 'HDR Vivid metadata of each frame', 'SPHERICAL': 'the 360-degree projection',
    'STEREO3D': 'the arrangement of 3D views', 'DOVI_METADATA': _DOLBY, 'DOVI_RPU_BUFFER': _DOLBY,
    'ICC_PROFILE': 'the ICC profile', 'FILM_GRAIN_PARAMS': 'synthetic film grain'}
_UNITS = {'x264': (50000, 10000), 'x265': (50000, 10000)}  # of colours and of luminance; AV1 takes numbers as they are


class HdrMetadata(NamedTuple):
    """The display on which a video was mastered, and its brightest content (SMPTE ST 2086, CTA-861.3).

    Attributes:
        points: x and y of red, green, blue and white; () if unknown.
        luminance: least and largest, cd/m2; () if unknown.
        light: largest luminance of a pixel, and of the mean of a frame, cd/m2; () if unknown.
    """
    points: tuple[float, ...] = ()
    luminance: tuple[float, ...] = ()
    light: tuple[int, ...] = ()

    def parameters(self, codec: str) -> str:
        """Return the parameters of x264, x265 or SVT-AV1 that store it; '' if there is nothing to store."""
        colour, light = _UNITS.get(codec, (1, 1))
        parameters = []
        if self.points and self.luminance:
            red, green, blue, white = (','.join(_number(value * colour, colour) for value in self.points[at:at + 2])
                                       for at in (0, 2, 4, 6))
            least, largest = (_number(value * light, light) for value in self.luminance)
            name = 'master-display' if codec == 'x265' else 'mastering-display'
            parameters.append(f'{name}=G({green})B({blue})R({red})WP({white})L({largest},{least})')
        if self.light:
            name = {'x264': 'cll', 'x265': 'max-cll', 'av1': 'content-light'}[codec]
            parameters.append(f'{name}={self.light[0]},{self.light[1]}')
        return ':'.join(parameters)


def _number(value: float, unit: int) -> str:
    return f'{value:.0f}' if unit > 1 else f'{value:.4f}'


def hdr_of(frame: Any) -> HdrMetadata | None:
    """Return the static HDR metadata of a frame; None if there is none."""
    found = HdrMetadata()
    for data in frame.side_data:
        if data.type.name == 'MASTERING_DISPLAY_METADATA':
            numbers = struct.unpack_from('=22i', bytes(data))  # ten fractions, and two flags
            values = tuple(top / bottom if bottom else 0.0
                           for top, bottom in zip(numbers[:20:2], numbers[1:20:2], strict=True))
            found = found._replace(points=values[:8] if numbers[20] else (),
                                   luminance=values[8:] if numbers[21] else ())
        elif data.type.name == 'CONTENT_LIGHT_LEVEL':
            found = found._replace(light=struct.unpack_from('=2I', bytes(data)))
    return found if any(found) else None


def have_captions(frames: list[Any]) -> bool:
    return any(data.type.name == 'A53_CC' for frame in frames for data in frame.side_data)


def lost_with(frames: list[Any]) -> tuple[str, ...]:
    """Return what some frames carry that no output keeps."""
    names = {data.type.name for frame in frames for data in frame.side_data}
    return tuple(sorted({_LOST[name] for name in names if name in _LOST}))
