"""Write a clip that shows a video beside its restored version."""
from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from ..io.encoding import Encoding, OutputSpec
from ..io.frame_source import Source, TimedFrame
from ..io.joining import join
from ..io.video_writer import VideoWriter
from .matching import TOLERANCE
from .pipeline import resize_frames


def write_side_by_side(given: Source, restored: Source, clip: Path) -> None:
    """Write the given video, enlarged by bicubic interpolation, at the left of the restored one.

    Args:
        given, restored: both videos. At each time of the restored one, the given one shows its latest frame.
        clip: the file to write; gets the sound of the restored video.

    Raises:
        VideoError: a video cannot be read, or the clip cannot be written.
    """
    info, encoding = restored.info, Encoding()
    spec = replace(OutputSpec.of(info), width=2 * info.width)
    with TemporaryDirectory(dir=clip.absolute().parent) as folder:
        segment = Path(folder) / f'clip{encoding.segment_suffix}'
        with VideoWriter(segment, spec, encoding) as writer:
            for frame in side_by_side(given, restored):
                writer.write(*frame)
        join([segment], None if info.path.is_dir() else info.path, clip,
             rate=Fraction(0) if info.is_variable else info.rate)


def side_by_side(given: Source, restored: Source) -> Iterator[TimedFrame[np.ndarray]]:
    """Yield the frames of the clip."""
    size = restored.info.width, restored.info.height
    left = resize_frames(given.frames(), size)
    shown, coming = next(left), next(left, None)
    begin, start = shown.time, None
    for frame in restored.frames():
        start = frame.time if start is None else start
        while coming is not None and coming.time - begin <= frame.time - start + TOLERANCE:
            shown, coming = coming, next(left, None)
        images = [_bytes(shown.image), _bytes(frame.image)]
        yield TimedFrame(np.concatenate(images, axis=1), frame.time)


def _bytes(image: np.ndarray) -> np.ndarray:
    return image if image.dtype == np.uint8 else (image >> 8).astype(np.uint8)
