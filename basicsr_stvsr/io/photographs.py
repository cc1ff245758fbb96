"""Read photographs of any size by name, from a folder and its subfolders."""
from pathlib import Path

import numpy as np

from .frames import FrameReader, FrameReadError
from .images import IMAGE_SUFFIXES, decode_image, natural_key, walk


class PhotoReader(FrameReader):
    """Photographs (png, jpg, webp, bmp, tif) as clips of one frame, in the natural order of their names.

    A photograph is named by its path from `root`, with forward slashes. Hidden files and folders are skipped. Grey
    photographs get three channels. Reading one with more than 8 bits raises an error, see `decode_image`.

    Args:
        root: the folder.

    Raises:
        FrameReadError: no such folder, no photograph in it, or one that is no image.
    """

    def __init__(self, root: str | Path):
        super().__init__(root)
        if not self.path.is_dir():
            raise FrameReadError(f'{self.path}: no such folder')
        files = (Path(folder, name).relative_to(self.path) for folder, names in walk(self.path) for name in names)
        try:
            self.clips = sorted((file.as_posix() for file in files
                                 if file.suffix.lower() in IMAGE_SUFFIXES), key=natural_key)
        except ValueError as error:
            raise FrameReadError(str(error)) from None
        if not self.clips:
            suffixes = ', '.join(sorted(IMAGE_SUFFIXES))
            raise FrameReadError(f'{self.path}: no images ({suffixes}) in or below this folder')
        self._sizes = {name: self._stated_size(name) for name in self.clips}

    def num_frames(self, clip: str) -> int:
        return 1

    def frame_name(self, clip: str, index: int) -> str:
        return Path(clip).stem

    def frame_size(self, clip: str) -> tuple[int, int]:
        """Return height and width from the header of the file, without decoding it."""
        return self._sizes[clip]

    def _stated_size(self, name: str) -> tuple[int, int]:
        from PIL import ExifTags, Image  # here, so that importing the package stays cheap; only this needs it

        try:
            with Image.open(self.path / name) as image:
                width, height = image.size
                is_turned = image.getexif().get(ExifTags.Base.Orientation, 1) >= 5  # OpenCV rotates decoded images
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
            raise FrameReadError(f'{self.path / name}: not an image that can be read ({error})') from error
        return (width, height) if is_turned else (height, width)

    def _read(self, clip: str, index: int) -> np.ndarray:
        return decode_image((self.path / clip).read_bytes())
