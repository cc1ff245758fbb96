"""Find saved frames of a data set's clips, by the names of the true frames."""
from collections.abc import Iterable, Iterator
from pathlib import Path

import torch
from torch import Tensor

from .color_spaces import Color, convert_clip
from .frames import FrameReader, FrameReadError
from .opening import open_color_reader


def numbers_of(saved: FrameReader, clip: str, names: Iterable[str]) -> dict[int, int]:
    """Find which frames of a clip were saved.

    Args:
        saved: reader of the saved frames.
        clip: one of its clips.
        names: names of the true frames, in order. Saved frames are named the same, or `<name>_<suffix>`.

    Returns:
        index in `names` -> index of the saved frame.

    Raises:
        ValueError: a frame has another name, or two have the same.
    """
    places = {name: place for place, name in enumerate(names)}
    found: dict[int, int] = {}
    for index in range(saved.num_frames(clip)):
        name = saved.frame_name(clip, index)
        stems = [name, *(name[:at] for at in range(len(name) - 1, 0, -1) if name[at] == '_')]
        place = next((places[stem] for stem in stems if stem in places), None)
        if place is None:
            raise ValueError(f'{saved.path}: frame {name!r} of clip {clip!r} matches no GT frame; expected the names '
                             f'{_some(places)}, or <name>_<suffix>')
        if place in found:
            raise ValueError(f'{saved.path}: clip {clip!r} has two frames for {list(places)[place]!r}: {name!r} and '
                             f'{saved.frame_name(clip, found[place])!r}')
        found[place] = index
    return found


class SavedFrames:
    """Saved frames of a data set, to score instead of a network's output.

    Args:
        root: location of the clips, in any form that `open_reader` supports.
        color: colour space to convert the frames to; the files are RGB.

    Raises:
        FrameReadError: nothing there, or nothing that a reader supports.
    """

    def __init__(self, root: str | Path, color: Color):
        self.reader, self.color = open_color_reader(root), color

    def find(self, clip: str, names: list[str], wanted: Iterable[int]) -> dict[int, int]:
        """Find the saved frames of a clip.

        Args:
            clip: its name in the data set.
            names: names of all its frames.
            wanted: numbers of the frames to score; all of them must exist.

        Returns:
            number -> index of the saved frame.

        Raises:
            FrameReadError: the clip, or a frame of it, is missing.
            ValueError: frames of another name.
        """
        if clip not in self.reader.clips:
            raise FrameReadError(f'{self.reader.path}: no clip {clip!r}; its clips are {_some(self.reader.clips)}')
        found, wanted = numbers_of(self.reader, clip, names), set(wanted)
        if missing := [names[number] for number in sorted(wanted) if number not in found]:
            raise FrameReadError(f'{self.reader.path}: clip {clip!r} lacks {len(missing)} of the {len(wanted)} frames '
                                 f'that are scored: {_some(missing)}')
        return found

    def clip(self, clip: str, names: list[str], wanted: Iterable[int], size: tuple[int, int]) -> (
            Iterator[tuple[int, Tensor]]):
        """Yield the frames of a clip.

        Args:
            clip, names, wanted: see `find`.
            size: required height and width.

        Yields:
            number, and frame, (C, H, W), 0-1.

        Raises:
            FrameReadError, ValueError: as `find`; a frame is damaged, of another size, or of more than 8 bits.
        """
        wanted = list(wanted)
        found = self.find(clip, names, wanted)
        for number in wanted:
            frame = self.reader.frame(clip, found[number])
            if frame.shape[:2] != size:
                raise ValueError(f'{self.reader.path}: the frames of clip {clip!r} are '
                                 f'{frame.shape[0]}x{frame.shape[1]} (h x w), but GT frames are {size[0]}x{size[1]}')
            rgb = torch.from_numpy(frame[..., ::-1].transpose(2, 0, 1).copy()).float().div_(255)
            yield number, convert_clip(rgb, 'rgb', self.color)


def _some(names: Iterable[str]) -> str:
    names = [repr(name) for name in names]
    return ', '.join(names[:3]) + (', ...' if len(names) > 3 else '')
