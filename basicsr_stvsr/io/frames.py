"""Frames by clip name and number: the base class of all readers, and the reader of folders of images.

Readers return `uint8` arrays (h, w, C) in the layout of OpenCV and BasicSR, BGR unless `color` says otherwise. Bad data
raises one exception, `FrameReadError`, that names file, clip and frame. Readers may be pickled and forked (DataLoader
workers): resources of a process are opened on the first read in that process.
"""
import os
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from .color_spaces import Color
from .images import IMAGE_SUFFIXES, decode_image, is_hidden, natural_key, walk


class FrameReadError(OSError):
    """A clip or frame that is missing, damaged or unlike its neighbours; the message says which and why."""


class FrameReader(ABC):
    """Clips of a folder, an LMDB or a video; also a context manager.

    Attributes:
        path: location of the clips.
        clips: names of the clips, in natural order.
        color: colour space of the frames; None: that of the files, as they do not state it.
    """

    path: Path
    clips: list[str]
    color: Color | None = None

    def __init__(self, path: str | Path):
        self.path = Path(path)
        self._size_of: dict[str, tuple[int, tuple[int, int]]] = {}  # clip -> a frame and its size; all must match

    @abstractmethod
    def num_frames(self, clip: str) -> int:
        """Return the number of frames of a clip."""

    @abstractmethod
    def frame_name(self, clip: str, index: int) -> str:
        """Return the name of a frame without folder and suffix, such as 'im1' or '00000003'."""

    @abstractmethod
    def _read(self, clip: str, index: int) -> np.ndarray:
        """Return the frame, of any size. Raise a ValueError or OSError that says what is wrong with it."""

    def frame(self, clip: str, index: int) -> np.ndarray:
        """Read one frame.

        Args:
            clip: one of `clips`.
            index: 0 to `num_frames(clip)` - 1.

        Returns:
            uint8 array (h, w, 3): BGR, or VUY where the files or `color` have YUV; (h, w, 1) where `color` is 'y'. The
                caller must not write to it.

        Raises:
            FrameReadError: no such clip or frame, a damaged frame, or one of another size than the clip's other frames.
        """
        if not 0 <= index < self.num_frames(clip):
            raise FrameReadError(f'{self.path}: clip {clip!r} has frames 0 to {self.num_frames(clip) - 1}, '
                                 f'frame {index} was asked for')
        try:
            image = self._read(clip, index)
        except FrameReadError:
            raise
        except (ValueError, OSError) as error:
            raise FrameReadError(f'{self.path}: clip {clip!r}, frame {index} '
                                 f'({self.frame_name(clip, index)}): {error}') from error
        first, size = self._size_of.setdefault(clip, (index, image.shape[:2]))
        if image.shape[:2] != size:
            raise FrameReadError(f'{self.path}: clip {clip!r}, frame {index} ({self.frame_name(clip, index)}) has size '
                                 f'{image.shape[0]}x{image.shape[1]} (h x w), frame {first} has {size[0]}x{size[1]}; '
                                 'all frames of a clip must have one size')
        return image

    def frame_size(self, clip: str) -> tuple[int, int]:
        """Return height and width of a clip's frames, in pixels."""
        if clip not in self._size_of:
            self.frame(clip, 0)
        return self._size_of[clip][1]

    def close(self) -> None:  # noqa: B027  (most readers hold nothing open)
        """Close files and decoders; a later read opens them again."""

    def __enter__(self) -> 'FrameReader':
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def _unknown_clip(self, clip: str) -> FrameReadError:
        some = ', '.join(self.clips[:3]) + (', ...' if len(self.clips) > 3 else '')
        return FrameReadError(f'{self.path}: no clip {clip!r}; it holds {len(self.clips)} clips ({some})')


class FolderReader(FrameReader):
    """Clips as folders of images (png, jpg, webp, bmp, tif), in the natural order of their file names.

    Every folder below `root` that directly contains images is a clip, named by its path from `root` with forward
    slashes. If `root` itself contains images, it is the only clip, named by the root folder. Hidden files and folders
    are skipped, see `is_hidden`.

    Args:
        root: the folder.
        clips: names of the clips to use. The tree is then not searched; a search takes minutes for 90 000 clips.

    Raises:
        FrameReadError: no such folder, or no images in it.
    """

    def __init__(self, root: str | Path, *, clips: Sequence[str] | None = None):
        super().__init__(root)
        if not self.path.is_dir():
            raise FrameReadError(f'{self.path}: no such folder')
        self._files: dict[str, list[str]] = {}
        self._root_clip = None
        if clips is None:
            if root_files := _image_names(os.listdir(self.path)):
                self._root_clip = self.path.resolve().name
                self._files[self._root_clip] = root_files
            else:
                try:
                    for folder, files in walk(self.path):
                        if names := _image_names(files):
                            self._files[Path(folder).relative_to(self.path).as_posix()] = names
                except ValueError as error:
                    raise FrameReadError(str(error)) from None
            clips = list(self._files)
        self.clips = sorted(clips, key=natural_key)
        self._known = frozenset(self.clips)
        if not self.clips:
            suffixes = ', '.join(sorted(IMAGE_SUFFIXES))
            raise FrameReadError(f'{self.path}: no images ({suffixes}) in or below this folder')

    def num_frames(self, clip: str) -> int:
        return len(self._sorted_files(clip))

    def frame_name(self, clip: str, index: int) -> str:
        return Path(self._sorted_files(clip)[index]).stem

    def _sorted_files(self, clip: str) -> list[str]:
        if clip not in self._files:
            if clip not in self._known:
                raise self._unknown_clip(clip)
            try:
                names = _image_names(os.listdir(self.path / clip))
            except OSError as error:
                raise FrameReadError(f'{self.path}: clip {clip!r} cannot be listed ({error})') from error
            if not names:
                raise FrameReadError(f'{self.path}: clip {clip!r} holds no images')
            self._files[clip] = names
        return self._files[clip]

    def _read(self, clip: str, index: int) -> np.ndarray:
        folder = self.path if clip == self._root_clip else self.path / clip
        path = folder / self._sorted_files(clip)[index]
        try:
            return decode_image(path.read_bytes())
        except ValueError as error:
            raise ValueError(f'{path}: {error}') from error


def _image_names(files: Iterable[str]) -> list[str]:
    names = [name for name in files if os.path.splitext(name)[1].lower() in IMAGE_SUFFIXES and not is_hidden(name)]
    return sorted(names, key=natural_key)


def clip_files(root: Path, files: Iterable[Path]) -> dict[str, Path]:
    """Return the files of clips, by the names of the clips.

    Raises:
        FrameReadError: two files in `root` give the same name.
    """
    paths: dict[str, Path] = {}
    for file in files:
        if file.stem in paths:
            raise FrameReadError(f'{root}: {paths[file.stem].name} and {file.name} would be clips of the same name')
        paths[file.stem] = file
    return paths


class DerivedReader(FrameReader):
    """Base of readers that modify another reader's frames; clips and names stay the same."""

    def __init__(self, reader: FrameReader):
        super().__init__(reader.path)
        self.clips, self.color = reader.clips, reader.color
        self._reader = reader

    def num_frames(self, clip: str) -> int:
        return self._reader.num_frames(clip)

    def frame_name(self, clip: str, index: int) -> str:
        return self._reader.frame_name(clip, index)

    def close(self) -> None:
        self._reader.close()
