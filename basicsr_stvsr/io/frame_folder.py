"""Read a folder of images as frames with times."""
import contextlib
import io
import itertools
import math
from collections.abc import Iterator, Sequence
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np

from .frame_source import Notes, TimedFrame
from .images import IMAGE_SUFFIXES, VIDEO_SUFFIXES, decode_image, files_with, is_hidden, natural_key
from .transparency import NUM_CHECKED, finished
from .video_info import BT709, SRGB, ColorSpec, VideoError, VideoInfo


class FolderSource:
    """The images of a folder as a video, in the natural order of their names; also a context manager.

    Args:
        path: a folder that directly contains png, jpg, webp, bmp or tif files; or one such file, a single frame.
        rate: frames per second.
        strict: refuse numbers with a gap, instead of a warning.

    Raises:
        VideoError: no such folder, no images in it, several clips below it, or a first image that is not usable.
    """

    def __init__(self, path: str | Path, *, rate: Fraction = Fraction(25), strict: bool = False):
        self.path = Path(path)
        self.files = self._list_files()
        if rate <= 0:
            raise VideoError(f'{self.path}: expected a frame rate above 0, got {rate}')
        self.notes = Notes(self.path, strict=strict)
        self._note_gaps()
        first, alpha = _read_image(self.files[0])
        height, width = first.shape[:2]
        bits = 8 * first.dtype.itemsize
        num_frames = len(self.files)
        rate = Fraction(rate)
        self.reading = f'{rate} frames a second'
        self.info = VideoInfo(
            path=self.path, width=width, height=height, rate=rate, is_variable=False, num_frames=num_frames,
            duration=num_frames / rate, start=Fraction(0), time_base=1 / rate, has_times=False, format='images',
            codec=self.files[0].suffix.lower()[1:], pix_fmt='rgb24' if bits == 8 else 'rgb48le', bits=bits,
            color=ColorSpec('rgb', True, BT709, SRGB),
            has_alpha=alpha is not None or not _are_opaque(self.files))

    def frames(self, start: Fraction | None = None) -> Iterator[TimedFrame[np.ndarray]]:
        """Read the images, from a time on. Image n is shown at n / `rate`.

        Raises:
            VideoError: at the first image that is damaged, or differs from the others in size or bits.
        """
        dtype = np.uint8 if self.info.bits == 8 else np.uint16
        for number in self._numbers(start):
            image, alpha = _read_image(self.files[number])
            if image.shape[:2] != (self.info.height, self.info.width) or image.dtype != dtype:
                raise VideoError(f'{self.files[number]}: the image has {image.shape[1]}x{image.shape[0]} pixels (w x '
                                 f'h) and {8 * image.dtype.itemsize} bits, {self.files[0].name} has '
                                 f'{self.info.width}x{self.info.height} and {self.info.bits}; all images must match')
            time = number / self.info.rate
            yield TimedFrame(finished(image, alpha, time, self.info, self.notes), time)

    def times(self, start: Fraction | None = None) -> Iterator[Fraction]:
        """Return the times of the frames that `frames` yields, if no image is damaged."""
        return (number / self.info.rate for number in self._numbers(start))

    def _numbers(self, start: Fraction | None) -> range:
        return range(0 if start is None else max(math.ceil(start * self.info.rate), 0), len(self.files))

    def close(self) -> None:
        """Do nothing: no file stays open."""

    def __enter__(self) -> 'FolderSource':
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def _note_gaps(self) -> None:
        """Warn of numbers that are missing, if all names are equal but for one number."""
        keys = [natural_key(file.stem) for file in self.files]  # texts and numbers by turns
        varying = [place for place, parts in enumerate(zip(*keys, strict=False)) if len(set(parts)) > 1]
        if len({len(key) for key in keys}) > 1 or len(varying) != 1 or varying[0] % 2 == 0:
            return
        steps = [int(after[varying[0]]) - int(before[varying[0]]) for before, after in itertools.pairwise(keys)]
        for step, (before, after) in zip(steps, itertools.pairwise(self.files), strict=True):
            if step > min(steps):
                self.notes.add('gap', f'numbers are missing between {before.name} and {after.name}; the images are '
                               'shown one after the other')

    def _list_files(self) -> list[Path]:
        if self.path.is_file():
            return [self.path]
        if not self.path.is_dir():
            raise VideoError(f'{self.path}: no such folder')
        if videos := videos_in(self.path):
            raise VideoError(f'{self.path}: expected images, found videos ({videos[0].name}); restore all of them with '
                             '--into FOLDER')
        if files := files_with(IMAGE_SUFFIXES, self.path):
            return sorted(files, key=lambda file: natural_key(file.name))
        clips = [folder.name for folder in sorted(self.path.iterdir())
                 if folder.is_dir() and not is_hidden(folder.name) and files_with(IMAGE_SUFFIXES, folder)]
        if clips:
            some = ', '.join(clips[:3]) + (', ...' if len(clips) > 3 else '')
            raise VideoError(f'{self.path}: expected images, found {len(clips)} folders of images ({some}); pass them '
                             'one by one')
        raise VideoError(f'{self.path}: no images ({", ".join(sorted(IMAGE_SUFFIXES))}) in this folder')


def videos_in(folder: Path) -> list[Path]:
    """Return the videos that are directly in a folder, in the natural order of their names.

    Raises:
        VideoError: there are images, too.
    """
    videos, images = files_with(VIDEO_SUFFIXES | {'.gif'}, folder), files_with(IMAGE_SUFFIXES, folder)
    if videos and images:
        raise VideoError(f'{folder}: holds videos ({videos[0].name}) and images ({images[0].name}), expected only one '
                         'of the two; name the videos one by one, or move the images to another folder')
    return sorted(videos, key=lambda file: natural_key(file.name))


def _read_image(path: Path) -> tuple[np.ndarray, np.ndarray | None]:
    """Read an image as viewers show it: (h, w, 3) RGB, uint8 or uint16; and alpha (h, w), None if it is opaque."""
    try:
        data = path.read_bytes()
        image = decode_image(data, cv2.IMREAD_ANYCOLOR)
        alpha = None if _has_alpha(io.BytesIO(data)) is False else _alpha(data, image.dtype)
    except (ValueError, OSError) as error:
        raise VideoError(f'{path}: {error}') from error
    if image.dtype not in (np.uint8, np.uint16):
        raise VideoError(f'{path}: the image holds {image.dtype} numbers, expected 8 or 16 bits')
    color = cv2.COLOR_BGR2RGB if image.ndim == 3 and image.shape[2] == 3 else cv2.COLOR_GRAY2RGB
    return cv2.cvtColor(image, color), alpha


def _alpha(data: bytes, dtype: np.dtype) -> np.ndarray | None:
    """Return the alpha of an image, turned as its tag for rotation says: (h, w); None if it is opaque."""
    from PIL import ExifTags, Image, ImageOps

    stored = decode_image(data, cv2.IMREAD_UNCHANGED)
    if stored.ndim == 2 or stored.shape[2] != 4 or (stored[..., 3] == np.iinfo(dtype).max).all():
        return None
    alpha = Image.fromarray(np.ascontiguousarray(stored[..., 3]))
    with contextlib.suppress(*_pillow_errors()), Image.open(io.BytesIO(data)) as image:
        alpha.getexif()[ExifTags.Base.Orientation] = image.getexif().get(ExifTags.Base.Orientation, 1)
    return np.asarray(ImageOps.exif_transpose(alpha))


def _has_alpha(file: Path | io.BytesIO) -> bool | None:
    """Return whether an image has alpha, by its header; None if that is unknown, such as for TIFF of 16 bits."""
    from PIL import Image  # here, so that importing the package stays cheap; only this needs it

    try:
        with Image.open(file) as image:
            return image.has_transparency_data
    except _pillow_errors():
        return None


def _pillow_errors() -> tuple[type[Exception], ...]:
    from PIL import Image

    return OSError, ValueError, SyntaxError, Image.DecompressionBombError


def _are_opaque(files: Sequence[Path]) -> bool:
    """Return whether no image is known to have transparent pixels. Of many files, some are read."""
    with contextlib.suppress(VideoError):  # reported where frames are read
        return all(not _has_alpha(file) or _read_image(file)[1] is None
                   for file in files[::-(-len(files) // NUM_CHECKED)])
    return True
