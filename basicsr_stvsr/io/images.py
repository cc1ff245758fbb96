"""Image files in memory, and files by name."""
import re
from collections.abc import Collection
from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np

IMAGE_SUFFIXES = frozenset({'.png', '.jpg', '.jpeg', '.webp', '.bmp', '.tif', '.tiff'})


@lru_cache(maxsize=4096)  # frames have the same few names in all clips of a large set
def natural_key(name: str) -> tuple[str | int, ...]:
    """Sort key by which 'im2' comes before 'im10'."""
    parts = re.split('([0-9]+)', name)
    return tuple(int(part) if number % 2 else part for number, part in enumerate(parts))


def decode_image(data: bytes, flags: int = cv2.IMREAD_COLOR) -> np.ndarray:
    """Decodes an image file held in memory as BasicSR does (8 bits, alpha dropped, grey copied to three channels).

    Args:
        data: the bytes of a png, jpg, webp, bmp or tif file.
        flags: of OpenCV; IMREAD_UNCHANGED gives the channels and bits as they are stored.

    Returns:
        uint8 array (h, w, 3), BGR.

    Raises:
        ValueError: no image, a damaged one, one that ends too early, or without IMREAD_UNCHANGED one of more than 8
            bits, which OpenCV would cut off.
    """
    if not data:
        raise ValueError('expected an image, got no bytes')
    # Some OpenCV versions decode what there is of a truncated file and only print a warning, so its end is looked for.
    if not _is_whole(data):
        raise ValueError(f'the image is truncated (its end is missing after {len(data)} bytes)')
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), flags | cv2.IMREAD_ANYDEPTH)
    except cv2.error as error:
        raise ValueError(f'OpenCV cannot decode the image ({error})') from error
    if image is None:
        raise ValueError(f'OpenCV cannot decode these {len(data)} bytes as an image')
    if image.dtype != np.uint8 and flags != cv2.IMREAD_UNCHANGED:
        raise ValueError(f'the image has {8 * image.itemsize} bits a channel ({image.dtype}), expected 8; convert it, '
                         'as by ffmpeg -i IN.png -pix_fmt rgb24 OUT.png')
    return image


def _is_whole(data: bytes) -> bool:
    """Whether an image file reaches its end, by the end mark or the length that its format has."""
    if data.startswith(b'\x89PNG'):
        return data.rfind(b'IEND\xaeB`\x82') > 0
    if data.startswith(b'\xff\xd8'):  # JPEG; an end mark before the last scan is that of an embedded thumbnail
        return data.rfind(b'\xff\xd9') > data.rfind(b'\xff\xda')
    if data.startswith(b'RIFF') and data[8:12] == b'WEBP':
        return len(data) >= 8 + int.from_bytes(data[4:8], 'little')
    if data.startswith(b'BM'):
        return len(data) >= int.from_bytes(data[2:6], 'little')
    return True  # tif keeps its directory anywhere in the file; OpenCV refuses it when a part is missing


def files_with(suffixes: Collection[str], folder: Path) -> list[Path]:
    """The files in a folder that have one of these suffixes, in lower or upper case; hidden ones are passed over."""
    return sorted(p for p in folder.iterdir() if p.suffix.lower() in suffixes and p.name[0] != '.')
