"""Parts of clips: a range of frames and a rectangle in each, as the test protocols of papers define them."""
from collections.abc import Mapping
from typing import Annotated, Literal

import numpy as np
from pydantic import AfterValidator, Field

from ..config import Positive
from ..config.block import refuse, shown
from ..io.frames import DerivedReader, FrameReader


def check_span(span: list[int]) -> list[int]:
    if span[0] > span[1]:
        raise refuse(f'must be [first, last], counted from 1, but is {shown(span)}')
    return span


Span = Annotated[list[Positive], Field(min_length=2, max_length=2), AfterValidator(check_span)]
# Counted from 1, the last one included; omitted sides are used whole.
ClipArea = dict[Literal['rows', 'columns', 'frames'], Span]


class AreaReader(DerivedReader):
    """Clips of another reader, cropped to areas.

    Args:
        reader: reader of the whole clips.
        areas: clip -> its area; other clips stay whole.

    Raises:
        ValueError: an area reaches beyond its clip.
    """

    def __init__(self, reader: FrameReader, areas: Mapping[str, ClipArea]):
        super().__init__(reader)
        self._slices = {clip: self._find(clip, area) for clip, area in areas.items()}

    def _find(self, clip: str, area: ClipArea) -> dict[str, slice]:
        height, width = self._reader.frame_size(clip)
        size = {'rows': height, 'columns': width, 'frames': self._reader.num_frames(clip)}
        for side, (first, last) in area.items():
            if last > size[side]:
                text = ', '.join(f'{number} {name}' for name, number in size.items())
                raise ValueError(f'{side} [{first}, {last}] exceeds the size of clip {clip!r}, which is {text}')
        return {side: slice(first - 1, last) for side, (first, last) in area.items()}

    def _part(self, clip: str, side: str) -> slice:
        return self._slices.get(clip, {}).get(side, slice(None))

    def _indices(self, clip: str) -> range:
        return range(self._reader.num_frames(clip))[self._part(clip, 'frames')]

    def num_frames(self, clip: str) -> int:
        return len(self._indices(clip))

    def frame_name(self, clip: str, index: int) -> str:
        return self._reader.frame_name(clip, self._indices(clip)[index])

    def _read(self, clip: str, index: int) -> np.ndarray:
        frame = self._reader.frame(clip, self._indices(clip)[index])
        return frame[self._part(clip, 'rows'), self._part(clip, 'columns')]
