"""Open frames with the reader that fits a path."""
from collections.abc import Collection, Sequence
from pathlib import Path

from .color_spaces import Color, StoredColor, check_yuv
from .derived_frames import ColorReader
from .frames import FolderReader, FrameReader, FrameReadError
from .images import VIDEO_SUFFIXES, files_with
from .lmdb_reader import LmdbReader
from .raw_video import RAW_SUFFIXES, RawVideoReader
from .video_clips import VideoReader

_NUM_CHECKED = 8  # clips of which a frame is checked for YUV


def open_reader(path: str | Path, *, clips: Sequence[str] | None = None,
                frame_size: tuple[int, int] | None = None) -> FrameReader:
    """Open a folder of images, an LMDB, a video file or a folder of video files; the type is detected.

    Frames keep the colour space of the files: raw video is YUV. `open_color_reader` converts all to one colour space.

    Args:
        path: a name that ends in `.lmdb`, a folder, or a video file, including raw ones (`.yuv`).
        clips: names of the clips to use; default: all.
        frame_size: height and width of raw video, see `RawVideoReader`.

    Raises:
        FrameReadError: nothing there, or nothing that a reader supports.
    """
    path = Path(path)
    if not path.exists():
        raise FrameReadError(f'{path}: no such file or folder')
    if path.suffix == '.part':
        raise FrameReadError(f'{path}: writing it was interrupted; create it again')

    def holds(suffixes: Collection[str]) -> bool:
        return bool(files_with(suffixes, path)) if path.is_dir() else path.suffix.lower() in suffixes

    if holds(RAW_SUFFIXES):
        if holds(VIDEO_SUFFIXES):
            raise FrameReadError(f'{path}: holds .yuv files and other videos, expected only one of the two')
        return RawVideoReader(path, clips=clips, frame_size=frame_size)
    if frame_size:
        raise FrameReadError(f'{path}: frame_size is for .yuv files, but there are none')
    if path.is_file():
        return VideoReader(path, clips=clips)
    if path.suffix == '.lmdb' or (path / 'data.mdb').is_file():
        return LmdbReader(path, clips=clips)
    if holds(VIDEO_SUFFIXES):
        return VideoReader(path, clips=clips)
    return FolderReader(path, clips=clips)


def open_color_reader(path: str | Path, stored: StoredColor = 'rgb', wanted: Color = 'rgb', *,
                      clips: Sequence[str] | None = None, frame_size: tuple[int, int] | None = None) -> FrameReader:
    """Open frames with `open_reader`, and convert them to another colour space.

    Args:
        path, clips, frame_size: see `open_reader`.
        stored: colour space of files that do not state it; raw video does.
        wanted: colour space of the frames.

    Raises:
        FrameReadError: see `open_reader`.
        ValueError: `stored` is 'yuv', but the colours of the files show that they are not.
    """
    reader = open_reader(path, clips=clips, frame_size=frame_size)
    if reader.color is None and stored == 'yuv':
        # Frames of several clips, as a single one may be grey
        some = reader.clips[::-(-len(reader.clips) // _NUM_CHECKED)]
        try:
            check_yuv([reader.frame(clip, reader.num_frames(clip) // 2) for clip in some])
        except ValueError as error:
            raise ValueError(f'{path} should hold YUV, but {error}') from None
    source = reader.color or stored
    return reader if source == wanted else ColorReader(reader, source, wanted)
