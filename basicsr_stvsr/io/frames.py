"""Frames by clip name and number, wherever they lie: a folder of images, an LMDB in BasicSR's format, a video file.

Every reader hands out `uint8` arrays (h, w, C) as OpenCV and BasicSR have them, BGR unless its `color` says otherwise,
and answers bad data with one exception, `FrameReadError`, that names file, clip and frame. Readers may be pickled and
forked (DataLoader workers): whatever is tied to a process is opened on the first read in that process.
"""
import os
import re
import threading
from abc import ABC, abstractmethod
from bisect import bisect_right
from collections.abc import Callable, Collection, Iterable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import cv2
import numpy as np

from .color import Color, StoredColor, check_yuv, convert_frame

IMAGE_SUFFIXES = frozenset({'.png', '.jpg', '.jpeg', '.webp', '.bmp', '.tif', '.tiff'})
VIDEO_SUFFIXES = frozenset({'.mp4', '.mkv', '.mov', '.avi', '.webm', '.m4v', '.mpg', '.mpeg', '.ts', '.m2ts', '.wmv',
                            '.flv', '.ogv', '.y4m', '.264', '.h264', '.265', '.hevc'})
# Freeing a decoder waits for its threads. A forked DataLoader worker inherits the decoder without them, and would hang.
NUM_THREADS = 1
_NUM_CHECKED = 8  # clips of which a frame is looked at, whether it is YUV
_EBML_HEADER, _MATROSKA_SEGMENT = b'\x1aE\xdf\xa3', b'\x18S\x80g'


class FrameReadError(OSError):
    """A clip or a frame that is missing, damaged or unlike its neighbours; the message says which and why."""


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


class FrameReader(ABC):
    """Clips of a folder, an LMDB or a video; also a context manager.

    Attributes:
        path: where the clips lie.
        clips: names of the clips, in natural order.
        color: colour space of the frames; None: that of the files, which do not tell it.
    """

    path: Path
    clips: list[str]
    color: Color | None = None

    def __init__(self, path: str | Path):
        self.path = Path(path)
        self._size_of: dict[str, tuple[int, tuple[int, int]]] = {}  # clip -> a frame and its size, which all must have

    @abstractmethod
    def num_frames(self, clip: str) -> int:
        """Number of frames of a clip."""

    @abstractmethod
    def frame_name(self, clip: str, index: int) -> str:
        """Name of a frame without folder and suffix, such as 'im1' or '00000003'."""

    @abstractmethod
    def _read(self, clip: str, index: int) -> np.ndarray:
        """The frame, of whatever size; a ValueError or OSError that says what is wrong with it."""

    def frame(self, clip: str, index: int) -> np.ndarray:
        """Reads one frame.

        Args:
            clip: one of `clips`.
            index: 0 to `num_frames(clip)` - 1.

        Returns:
            uint8 array (h, w, 3): BGR, or VUY where the files or `color` have YUV; (h, w, 1) where `color` is 'y'. The
            caller may not write to it.

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
        """Height and width of the frames of a clip, in pixels."""
        if clip not in self._size_of:
            self.frame(clip, 0)
        return self._size_of[clip][1]

    def close(self) -> None:  # noqa: B027  (most readers hold nothing open)
        """Frees files and decoders; a later read opens them again."""

    def __enter__(self) -> 'FrameReader':
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def _unknown_clip(self, clip: str) -> FrameReadError:
        some = ', '.join(self.clips[:3]) + (', ...' if len(self.clips) > 3 else '')
        return FrameReadError(f'{self.path}: no clip {clip!r}; it holds {len(self.clips)} clips ({some})')


class FolderReader(FrameReader):
    """Clips as folders of images (png, jpg, webp, bmp, tif), in the natural order of their file names.

    Every folder below `root` that directly holds images is a clip, named by its path from `root` with forward slashes.
    A root that itself holds images is one clip, named by the root folder. Hidden files are passed over.

    Args:
        root: the folder.
        clips: names of the clips to use; the tree is then not searched, which takes minutes for 90 000 clips.

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
                for folder, _, files in os.walk(self.path, followlinks=True):
                    if names := _image_names(files):
                        self._files[Path(folder).relative_to(self.path).as_posix()] = names
            clips = self._files
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
    names = [name for name in files if os.path.splitext(name)[1].lower() in IMAGE_SUFFIXES and name[0] != '.']
    return sorted(names, key=natural_key)


class LmdbReader(FrameReader):
    """Clips of an LMDB in BasicSR's format: a folder `<name>.lmdb` with data.mdb and meta_info.txt.

    meta_info.txt has a line `<key>.png (h,w,c) <compression level>` per image. The clip is the key without its last
    component; keys without a slash make one clip, named by the LMDB.

    Args:
        path: the LMDB folder.
        clips: names of the clips to use.

    Raises:
        FrameReadError: no such LMDB, an unfinished or truncated one, or one without a clip of `clips`.
    """

    def __init__(self, path: str | Path, *, clips: Sequence[str] | None = None):
        super().__init__(path)
        self._resolved = self.path.resolve()
        for needed in ('data.mdb', 'meta_info.txt'):
            if not (self.path / needed).is_file():
                raise FrameReadError(f'{self.path}: no {needed}, so this is no complete LMDB in BasicSR\'s format')
        sizes = self._read_meta_info()
        self._check_whole(num_keys=len(sizes))

        self._keys: dict[str, list[str]] = {}
        for key in sizes:
            self._keys.setdefault(key.rpartition('/')[0] or self.path.stem, []).append(key)
        if clips is None:
            self.clips = sorted(self._keys, key=natural_key)
        else:
            self.clips = sorted(clips, key=natural_key)
            for clip in self.clips:
                if clip not in self._keys:
                    raise FrameReadError(f'{self.path}: no clip {clip!r} in meta_info.txt')
            self._keys = {clip: self._keys[clip] for clip in self.clips}
        for clip, keys in self._keys.items():
            keys.sort(key=lambda key: natural_key(key.rpartition('/')[2]))
            self._size_of[clip] = 0, sizes[keys[0]]

    def num_frames(self, clip: str) -> int:
        if clip not in self._keys:
            raise self._unknown_clip(clip)
        return len(self._keys[clip])

    def frame_name(self, clip: str, index: int) -> str:
        return self._keys[clip][index].rpartition('/')[2]

    def close(self) -> None:
        LmdbEnvironments.close(self._resolved)

    def _read(self, clip: str, index: int) -> np.ndarray:
        key = self._keys[clip][index]
        with LmdbEnvironments.get(self._resolved).begin() as transaction:
            data = transaction.get(key.encode())
        if data is None:
            raise ValueError(f'meta_info.txt lists the key {key!r}, data.mdb does not have it')
        return decode_image(data)

    def _read_meta_info(self) -> dict[str, tuple[int, int]]:
        """Key -> (h, w)."""
        sizes = {}
        for number, line in enumerate((self.path / 'meta_info.txt').read_text().splitlines(), 1):
            match = re.fullmatch(r'(.+)\.\w+ \((\d+), ?(\d+), ?\d+\) \d+', line)
            if match is None:
                raise FrameReadError(f'{self.path}: line {number} of meta_info.txt is {line!r}, '
                                     'expected "<key>.png (h,w,c) <level>"')
            if match[1] in sizes:
                raise FrameReadError(f'{self.path}: line {number} of meta_info.txt lists the key {match[1]!r} again')
            sizes[match[1]] = int(match[2]), int(match[3])
        return sizes

    def _check_whole(self, *, num_keys: int) -> None:
        # A page behind the end of a truncated file is not an error to LMDB: reading it kills the process (SIGBUS).
        # The counts used here all stand on the first two pages.
        LmdbEnvironments.close(self._resolved)  # it may show a file that has been replaced since
        environment = LmdbEnvironments.get(self._resolved)
        stat = environment.stat()
        expected = (environment.info()['last_pgno'] + 1) * stat['psize']
        self.close()
        actual = (self.path / 'data.mdb').stat().st_size
        if actual < expected:
            raise FrameReadError(f'{self.path}: data.mdb is truncated, it has {actual} of {expected} bytes')
        if stat['entries'] != num_keys:
            raise FrameReadError(f'{self.path}: data.mdb holds {stat["entries"]} images and meta_info.txt lists '
                                 f'{num_keys}; its writing did not finish, or the file was changed')


class LmdbEnvironments:
    """The LMDB environments of this process: the library opens a path only once in a process, however many read it."""

    _opened: dict[Path, Any] = {}  # by resolved path
    _lock = threading.Lock()

    @classmethod
    def get(cls, path: Path) -> Any:
        with cls._lock:
            if path not in cls._opened:
                cls._opened[path] = cls._open(path)
            return cls._opened[path]

    @classmethod
    def close(cls, path: Path) -> None:
        with cls._lock:
            environment = cls._opened.pop(path, None)
            if environment is not None:
                environment.close()

    @classmethod
    def forget_parent(cls) -> None:
        """In a forked process: an environment must not be used across a fork, and a thread may have held the lock."""
        cls._lock = threading.Lock()
        while cls._opened:
            cls._opened.popitem()[1].close()

    @staticmethod
    def _open(path: Path) -> Any:
        import lmdb  # here, because importing the package should not cost what only its readers need

        try:
            return lmdb.open(str(path), readonly=True, create=False, lock=False, readahead=False, meminit=False)
        except lmdb.Error as error:
            if 'already open in this process' in str(error):
                raise FrameReadError(
                    f'{path}: LMDB opens a path only once in a process, and something else than this project has it '
                    'open. If that is a data set of BasicSR with num_worker_per_gpu: 0, give it 1 or more, so that it '
                    'reads in processes of its own, or use STVSRClipDataset in its place') from error
            raise FrameReadError(f'{path}: LMDB cannot open it ({error}); data.mdb has '
                                 f'{(path / "data.mdb").stat().st_size} bytes') from error


if hasattr(os, 'register_at_fork'):
    os.register_at_fork(after_in_child=LmdbEnvironments.forget_parent)


class VideoReader(FrameReader):
    """A video file as one clip, named without its suffix, or a folder of video files as clips.

    Frames are counted in the order in which they are shown. A rotation tag is not applied. Reading forward decodes each
    frame once; any other frame is reached from the keyframe before it.

    Whether a file is truncated shows where its format states how long it is (MP4, AVI, Matroska, WebM). Transport,
    program and raw streams do not: what is left of one is a shorter clip.

    Args:
        path: the video file or the folder.
        clips: names of the clips to use.

    Raises:
        FrameReadError: no such file, no video in it, or a truncated one.
    """

    def __init__(self, path: str | Path, *, clips: Sequence[str] | None = None):
        super().__init__(path)
        files = files_with(VIDEO_SUFFIXES, self.path) if self.path.is_dir() else [self.path]
        if not files:
            raise FrameReadError(f'{self.path}: no video files in this folder')
        self._paths = clip_files(self.path, files)
        self.clips = sorted(self._paths if clips is None else clips, key=natural_key)
        self._index: dict[str, _VideoIndex] = {}
        self._decoder: tuple[int, str, _VideoDecoder] | None = None  # process id, clip, decoder

    def num_frames(self, clip: str) -> int:
        return self._index_of(clip).num_frames

    def frame_name(self, clip: str, index: int) -> str:
        return f'{index:08d}'

    def close(self) -> None:
        if self._decoder is not None:
            self._decoder[2].close()
            self._decoder = None

    def _index_of(self, clip: str) -> '_VideoIndex':
        if clip not in self._index:
            if clip not in self._paths:
                raise self._unknown_clip(clip)
            self._index[clip] = _index_video(self._paths[clip])
        return self._index[clip]

    def _read(self, clip: str, index: int) -> np.ndarray:
        if self._decoder is None or self._decoder[:2] != (os.getpid(), clip):
            self.close()
            self._decoder = os.getpid(), clip, _VideoDecoder(self._paths[clip], self._index_of(clip))
        return self._decoder[2].read(index)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, '_decoder': None}


class _VideoIndex(NamedTuple):
    num_frames: int
    pts: list[int]  # time stamps in the order shown; empty when the stream has none
    keyframes: list[int]  # numbers of the frames where decoding can start


def files_with(suffixes: Collection[str], folder: Path) -> list[Path]:
    """The files in a folder that have one of these suffixes, in lower or upper case; hidden ones are passed over."""
    return sorted(p for p in folder.iterdir() if p.suffix.lower() in suffixes and p.name[0] != '.')


def clip_files(root: Path, files: Iterable[Path]) -> dict[str, Path]:
    """Files that are clips, by the names of the clips.

    Raises:
        FrameReadError: two files make the same name; `root` is where they lie.
    """
    paths: dict[str, Path] = {}
    for file in files:
        if file.stem in paths:
            raise FrameReadError(f'{root}: {paths[file.stem].name} and {file.name} would be clips of the same name')
        paths[file.stem] = file
    return paths


def _open_video(path: Path) -> tuple[Any, Any]:
    """An open container and its first video stream."""
    import av  # here, because importing the package should not cost what only this reader needs

    try:
        container = av.open(str(path))
    except (av.error.FFmpegError, OSError) as error:
        raise FrameReadError(f'{path}: not a readable video ({error})') from error
    if not container.streams.video:
        container.close()
        raise FrameReadError(f'{path}: no video stream in this file')
    stream = container.streams.video[0]
    stream.codec_context.thread_count = NUM_THREADS
    return container, stream


def _index_video(path: Path) -> _VideoIndex:
    """Counts the frames from the packets alone, and decodes only where packets do not tell."""
    import av

    try:
        shown = _index_packets(path)  # time stamp -> whether it is a keyframe
        if shown is None:
            container, stream = _open_video(path)
            with container:
                frames = [(frame.pts, frame.key_frame) for frame in container.decode(stream)]
            shown = dict(frames)
            if None in shown or len(shown) < len(frames):
                return _VideoIndex(len(frames), pts=[], keyframes=[0])
    except av.error.FFmpegError as error:
        raise FrameReadError(f'{path}: the video is damaged ({error})') from error
    if not shown:
        raise FrameReadError(f'{path}: the video has no frames')
    pts = sorted(shown)
    return _VideoIndex(len(pts), pts, keyframes=[number for number, time in enumerate(pts) if shown[time]])


def _index_packets(path: Path) -> dict[int, bool] | None:
    """Time stamp of each frame -> whether it is a keyframe; None where packets do not tell which frames are shown."""
    container, stream = _open_video(path)
    with container:
        _check_matroska_size(path)
        packets = [packet for packet in container.demux(stream) if packet.size]
        # The announced number is 0 in containers that have no such field.
        if len(packets) < stream.frames:
            raise FrameReadError(f'{path}: the video is truncated, it has {len(packets)} of {stream.frames} frames')
        if stream.codec_context.name == 'vp8':  # has packets that are never shown
            return None
    packets = [packet for packet in packets if not packet.is_discard]
    shown = {packet.pts: packet.is_keyframe for packet in packets}
    return None if None in shown or len(shown) < len(packets) else shown  # raw streams have no time stamps


def _check_matroska_size(path: Path) -> None:
    """Raises FrameReadError if a Matroska or WebM file ends before its segment does; FFmpeg just ends the clip there.

    EBML (RFC 8794): a file is a row of elements, each an identifier, the size of its content, and the content.
    """
    with open(path, 'rb') as file:
        if file.read(4) != _EBML_HEADER:
            return
        file.seek(0)
        while identifier := read_ebml_number(file):
            field = read_ebml_number(file)
            unknown = 2**(7 * len(field)) - 1  # as in a recording that was never closed
            size = int.from_bytes(field) & unknown
            end = file.tell() + size
            if identifier == _MATROSKA_SEGMENT:
                actual = path.stat().st_size
                if size != unknown and actual < end:
                    raise FrameReadError(f'{path}: the video is truncated, it has {actual} of {end} bytes')
                return
            file.seek(end)


def read_ebml_number(file: BinaryIO) -> bytes:
    """An identifier or a size: as many bytes follow the first as that has leading zero bits."""
    first = file.read(1)
    return first + file.read(8 - first[0].bit_length()) if first and first[0] else b''


class _VideoDecoder:
    """An open video file and the number of the frame that it decodes next."""

    def __init__(self, path: Path, index: _VideoIndex):
        self.path, self.index = path, index
        self._number_of = {pts: number for number, pts in enumerate(index.pts)}
        self._container = None
        self._restart()

    def close(self) -> None:
        if self._container is not None:
            self._container.close()
            self._container = None

    def read(self, number: int) -> np.ndarray:
        import av

        try:
            return self._find(number).reformat(format='bgr24', threads=NUM_THREADS).to_ndarray()
        except av.error.FFmpegError as error:
            raise ValueError(f'{self.path}: the video is damaged ({error})') from error

    def _find(self, number: int) -> Any:
        """Decodes until frame `number`, from where the file stands or from a keyframe before it."""
        keyframe = bisect_right(self.index.keyframes, number) - 1  # the last one that is not behind the frame
        start = self.index.keyframes[keyframe] if keyframe >= 0 else 0
        if not start <= self._next <= number:
            self._seek(keyframe)
        frame = self._decode_until(number)
        while frame is None and keyframe >= 0:
            # Containers may seek too far, and a keyframe may need frames before it: start one keyframe earlier.
            keyframe -= 1
            self._seek(keyframe)
            frame = self._decode_until(number)
        if frame is None or frame.is_corrupt:
            raise ValueError(f'{self.path}: the decoder cannot restore this frame, the video is damaged')
        return frame

    def _decode_until(self, number: int) -> Any | None:
        """Frame `number`, or None where the decoder passes over it."""
        for frame in self._frames:
            if self.index.pts and frame.pts not in self._number_of:
                raise ValueError(f'{self.path}: a frame has time stamp {frame.pts}, which no packet announced')
            found = self._number_of[frame.pts] if self.index.pts else self._next
            self._next = found + 1
            if found >= number:
                return frame if found == number else None
        return None

    def _seek(self, keyframe: int) -> None:
        if keyframe <= 0 or not self.index.pts:
            self._restart()
            return
        number = self.index.keyframes[keyframe]
        self._container.seek(self.index.pts[number], stream=self._stream)
        self._frames = self._container.decode(self._stream)
        self._next = number

    def _restart(self) -> None:
        self.close()
        self._container, self._stream = _open_video(self.path)
        self._frames = self._container.decode(self._stream)
        self._next = 0


class DerivedReader(FrameReader):
    """Another reader's frames, changed on their way; clips and names stay."""

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


class CachedReader(DerivedReader):
    """Another reader's frames, kept in memory once they have been read (in each process by itself).

    Args:
        reader: where the frames come from.
        process: what is done to a frame before it is kept, such as making the LR frame of it; default nothing.
    """

    def __init__(self, reader: FrameReader, process: Callable[[np.ndarray], np.ndarray] | None = None):
        super().__init__(reader)
        self._process = process
        self._frames: dict[tuple[str, int], np.ndarray] = {}

    def _read(self, clip: str, index: int) -> np.ndarray:
        if (clip, index) not in self._frames:
            frame = self._reader.frame(clip, index)
            self._frames[clip, index] = frame if self._process is None else self._process(frame)
        return self._frames[clip, index]


class ReducedReader(DerivedReader):
    """Another reader's frames, made smaller by `area_mean`.

    Args:
        reader: where the frames come from.
        factor: how many times smaller.
    """

    def __init__(self, reader: FrameReader, factor: int):
        super().__init__(reader)
        self.reader, self.factor = reader, factor

    def _read(self, clip: str, index: int) -> np.ndarray:
        return area_mean(self.reader.frame(clip, index), self.factor)

    def frame_size(self, clip: str) -> tuple[int, int]:
        height, width = self.reader.frame_size(clip)
        return height // self.factor, width // self.factor


def area_mean(image: np.ndarray, factor: int) -> np.ndarray:
    """Makes an image smaller by the mean of factor x factor pixels.

    What is left over at the right and the bottom is cut off.

    Args:
        image: uint8 or float32 (h, w, C).

    Returns:
        (h // factor, w // factor, C), of the same type; uint8 is rounded.

    Raises:
        ValueError: the image is smaller than factor x factor.
    """
    height, width = (side // factor for side in image.shape[:2])
    if not height * width:
        raise ValueError(f'a frame of {image.shape[0]}x{image.shape[1]} (h x w) cannot be made {factor} times smaller')
    small = cv2.resize(image[:factor * height, :factor * width], (width, height), interpolation=cv2.INTER_AREA)
    return small.reshape(height, width, -1)  # OpenCV drops a single channel


class ColorReader(DerivedReader):
    """Another reader's frames, brought to another colour space.

    Args:
        reader: where the frames come from.
        stored, wanted: their colour space, and the one to bring them to.
    """

    def __init__(self, reader: FrameReader, stored: Color, wanted: Color):
        super().__init__(reader)
        self._stored, self.color = stored, wanted

    def _read(self, clip: str, index: int) -> np.ndarray:
        return convert_frame(self._reader.frame(clip, index), self._stored, self.color)


def open_reader(path: str | Path, *, clips: Sequence[str] | None = None,
                frame_size: tuple[int, int] | None = None) -> FrameReader:
    """Opens a folder of images, an LMDB, a video file or a folder of video files, by what is found at `path`.

    Frames are as the files have them: those of raw video are YUV. `open_color_reader` brings them to one colour space.

    Args:
        path: a name that ends in `.lmdb`, a folder, or a video file, raw ones (`.yuv`) included.
        clips: names of the clips to use; default all.
        frame_size: height and width of raw video, see `RawVideoReader`.

    Raises:
        FrameReadError: nothing there, or nothing that a reader understands.
    """
    from .raw_video import RAW_SUFFIXES, RawVideoReader  # here, as it is made of what this module has

    path = Path(path)
    if not path.exists():
        raise FrameReadError(f'{path}: no such file or folder')
    if path.suffix == '.part':
        raise FrameReadError(f'{path}: its writing did not finish; make it again')

    def holds(suffixes: Collection[str]) -> bool:
        return bool(files_with(suffixes, path)) if path.is_dir() else path.suffix.lower() in suffixes

    if holds(RAW_SUFFIXES):
        if holds(VIDEO_SUFFIXES):
            raise FrameReadError(f'{path}: holds .yuv files and other videos, expected only one of the two')
        return RawVideoReader(path, clips=clips, frame_size=frame_size)
    if frame_size:
        raise FrameReadError(f'{path}: frame_size is for .yuv files, and there are none here')
    if path.is_file():
        return VideoReader(path, clips=clips)
    if path.suffix == '.lmdb' or (path / 'data.mdb').is_file():
        return LmdbReader(path, clips=clips)
    if holds(VIDEO_SUFFIXES):
        return VideoReader(path, clips=clips)
    return FolderReader(path, clips=clips)


def open_color_reader(path: str | Path, stored: StoredColor = 'rgb', wanted: Color = 'rgb', *,
                      clips: Sequence[str] | None = None, frame_size: tuple[int, int] | None = None) -> FrameReader:
    """`open_reader`, with frames brought to another colour space.

    Args:
        path, clips, frame_size: see `open_reader`.
        stored: colour space of the files, where they do not tell it themselves, as raw video does.
        wanted: colour space of the frames.

    Raises:
        FrameReadError: see `open_reader`.
        ValueError: the files are said to be YUV, and their colours tell that they are not.
    """
    reader = open_reader(path, clips=clips, frame_size=frame_size)
    if reader.color is None and stored == 'yuv':
        # Frames of several clips, as a single one may be grey, which tells nothing
        some = reader.clips[::-(-len(reader.clips) // _NUM_CHECKED)]
        try:
            check_yuv([reader.frame(clip, reader.num_frames(clip) // 2) for clip in some])
        except ValueError as error:
            raise ValueError(f'{path} is said to hold YUV, but {error}') from None
    source = reader.color or stored
    return reader if source == wanted else ColorReader(reader, source, wanted)
