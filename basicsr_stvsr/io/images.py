"""Decode image files in memory, and list files by name."""
import os
import re
from collections.abc import Collection, Iterator
from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np

# Of Synology, QNAP, macOS and Windows; other names begin with a dot
_THUMBNAILS = frozenset({'@eadir', '@recycle', '#recycle', '@__thumb', '__macosx', 'thumbs.db', 'desktop.ini',
                         '$recycle.bin', 'system volume information', 'lost+found'})
IMAGE_SUFFIXES = frozenset({'.png', '.jpg', '.jpeg', '.webp', '.bmp', '.tif', '.tiff'})
VIDEO_SUFFIXES = frozenset({'.mp4', '.mkv', '.mov', '.avi', '.webm', '.m4v', '.mpg', '.mpeg', '.ts', '.m2ts', '.mts',
                            '.vob', '.wmv', '.asf', '.flv', '.3gp', '.ogv', '.nut', '.y4m', '.264', '.h264', '.265',
                            '.hevc'})
MOST_EMPTY_FOLDERS = 5000  # without images, below a folder that is searched for them


@lru_cache(maxsize=4096)  # frames have the same few names in all clips of a large set
def natural_key(name: str) -> tuple[str | int, ...]:
    """Return a sort key that puts 'im2' before 'im10'."""
    parts = re.split('([0-9]+)', name)
    return tuple(int(part) if number % 2 else part for number, part in enumerate(parts))


def decode_image(data: bytes, flags: int = cv2.IMREAD_COLOR) -> np.ndarray:
    """Decode an image file in memory, as BasicSR does: 8 bits, alpha dropped, grey copied to three channels.

    Args:
        data: the bytes of a png, jpg, webp, bmp or tif file.
        flags: OpenCV's flags; others than IMREAD_COLOR keep the bits, and IMREAD_UNCHANGED also alpha and ignores a tag
            for rotation.

    Returns:
        uint8 array (h, w, 3), BGR.

    Raises:
        ValueError: no image, an animation, or a damaged or truncated image. With IMREAD_COLOR also an image of
            more than 8 bits, as OpenCV would drop bits.
    """
    if not data:
        raise ValueError('expected an image, got no bytes')
    # Some OpenCV versions decode part of a truncated file and only print a warning, so check for its end.
    if not _is_whole(data):
        raise ValueError(f'the image is truncated (its end is missing after {len(data)} bytes)')
    if _is_animation(data):
        raise ValueError('the image is an animation, expected one frame; store its frames as files, as by '
                         'ffmpeg -i IN.png frames/%04d.png')
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), flags | cv2.IMREAD_ANYDEPTH)
    except cv2.error as error:
        raise ValueError(f'OpenCV cannot decode the image ({error})') from error
    if image is None:
        raise ValueError(f'OpenCV cannot decode these {len(data)} bytes as an image')
    if image.dtype != np.uint8 and flags == cv2.IMREAD_COLOR:
        raise ValueError(f'the image has {8 * image.itemsize} bits a channel ({image.dtype}), expected 8; convert it, '
                         'as by ffmpeg -i IN.png -pix_fmt rgb24 OUT.png')
    return image


def _is_whole(data: bytes) -> bool:
    """Return whether an image file is complete, by its format's end mark or stated length."""
    if data.startswith(b'\x89PNG'):
        return data.rfind(b'IEND\xaeB`\x82') > 0
    if data.startswith(b'\xff\xd8'):  # JPEG; an end mark before the last scan belongs to an embedded thumbnail
        return data.rfind(b'\xff\xd9') > data.rfind(b'\xff\xda')
    if data.startswith(b'RIFF') and data[8:12] == b'WEBP':
        return len(data) >= 8 + int.from_bytes(data[4:8], 'little')
    if data.startswith(b'BM'):
        return len(data) >= int.from_bytes(data[2:6], 'little')
    return True  # tif stores its directory anywhere in the file; OpenCV rejects it if a part is missing


def _is_animation(data: bytes) -> bool:
    """Return whether a png or webp file holds several frames, of which OpenCV would give the first."""
    if data.startswith(b'\x89PNG'):
        return b'acTL' in data[8:max(data.find(b'IDAT'), 8)]
    return data[8:16] == b'WEBPVP8X' and len(data) > 20 and bool(data[20] & 2)


def walk(root: Path) -> Iterator[tuple[str, list[str]]]:
    """Yield `root` and the folders below it, with links to folders, and the names of the files in each.

    Hidden files and folders are left out.

    Raises:
        ValueError: many folders hold no image; this is probably another place than meant.
    """
    seen, without_images = set(), 0
    for folder, folders, files in os.walk(root, followlinks=True):
        status = os.stat(folder)
        if (place := (status.st_dev, status.st_ino)) in seen:  # a link to a folder above
            folders.clear()
            continue
        seen.add(place)
        folders[:] = [name for name in folders if not is_hidden(name)]
        files = [name for name in files if not is_hidden(name)]
        without_images += not any(Path(name).suffix.lower() in IMAGE_SUFFIXES for name in files)
        if without_images > MOST_EMPTY_FOLDERS:
            raise ValueError(f'{root}: more than {MOST_EMPTY_FOLDERS:,} folders below it hold no images; is it the '
                             'right folder?')
        yield folder, files


def files_with(suffixes: Collection[str], folder: Path) -> list[Path]:
    """Return the files in a folder with one of these suffixes, in lower or upper case, without hidden files."""
    return sorted(p for p in folder.iterdir() if p.suffix.lower() in suffixes and not is_hidden(p.name))


def is_hidden(name: str) -> bool:
    """Return whether a file or folder is one that file managers and network disks hide, such as for thumbnails."""
    return name[0] == '.' or name.lower() in _THUMBNAILS


def is_image(path: Path) -> bool:
    """Return whether a path is named like an image file."""
    return path.suffix.lower() in IMAGE_SUFFIXES


def is_animated_png(path: Path) -> bool:
    """Return whether a PNG file is an animation, which FFmpeg reads as a video."""
    with open(path, 'rb') as file:
        head = file.read(4096)
    return head.startswith(b'\x89PNG') and b'acTL' in head.partition(b'IDAT')[0]
