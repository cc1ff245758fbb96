"""Compare videos frame by frame in a single HTML page that works offline.

The page shows pictures of some frames and the scores of all frames. Its template is `compare_page.html` in this folder.
Memory grows by a few numbers per frame, and by the pictures, whose total size is limited.
"""
import base64
import html
import io
import json
import math
import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from fractions import Fraction
from functools import partial
from importlib import resources
from pathlib import Path
from typing import Any, BinaryIO, Literal, NamedTuple, get_args

import numpy as np
from PIL import Image

from ..io.frame_source import Source
from ..io.transparency import BLACK, opaque
from ..io.video_info import VideoError, VideoInfo
from ..io.video_reader import open_source
from ..io.video_writer import with_bits
from ..utils.atomic_files import whole_file
from ..utils.threads import available_cores
from .matching import Matcher, Row, Shown

Mode = Literal['slider', 'side-by-side', 'difference']
SSIM_WINDOW = 11  # pixels, the window of BasicSR's SSIM
# Odd, so that thinned frames still alternate between given and interpolated ones when the frame rate was doubled.
THINNING = 3
ROUNDING = 4  # pixels by which the width of an enlarged video may differ from its exact proportions
AVIF_SPEED = 10  # slower ones make files up to 15 % smaller, and take 4 to 8 times as long

Video = str | Path | Source


class Mean(NamedTuple):
    """Mean scores of a group of frames.

    Attributes:
        compared: labels of the video and of its reference.
        group: 'all'. If one video has fewer frames, also 'given' (frames at its times) and 'between' (the others).
        num_frames: number of scored frames.
        psnr: in dB, over frames that differ from the reference; None: there are none.
        num_equal: number of frames equal to the reference, whose PSNR is infinite.
        ssim: over all frames of the group; None: the frames are smaller than the SSIM window.
    """

    compared: str
    group: str
    num_frames: int
    psnr: float | None
    num_equal: int
    ssim: float | None


class Comparison(NamedTuple):
    """Result of `write_comparison`.

    Attributes:
        path: of the page.
        num_frames: number of compared frames.
        num_shown: number of frames that the page shows.
        means: mean scores; empty if no compared videos have the same size.
        notes: remarks for the reader, such as a video that ends before the others. The page shows them too.
    """

    path: Path
    num_frames: int
    num_shown: int
    means: list[Mean]
    notes: list[str]


def write_comparison(videos: Sequence[Video], output: str | Path, *, gt: Video | None = None,
                     mode: Mode | None = None, labels: Sequence[str] | None = None, any_rate: bool = False,
                     max_frames: int = 240, max_megabytes: float = 100, quality: int | None = 90,
                     progress: Callable[[int, int], None] | None = None) -> Comparison:
    """Write an HTML page that compares two or three videos frame by frame.

    Frames are matched by time, counted from the first frame of each video. One video may have a whole number of frames
    per frame of another, for example a result at twice the frame rate next to its input. The slower video then holds
    its previous frame, without a score. Frames beyond the end of another video are left out. Folders of images have no
    timestamps; they are matched by their number of frames.

    If a video is smaller, such as the input, the page enlarges it and shows no scores for it.

    PSNR and SSIM are computed with BasicSR on 8-bit RGB for every frame. With `gt`, all videos are scored against it;
    without it, against the last video.

    Args:
        videos: two or three video files, folders of images, or open sources.
        output: path of the page, ending in .html; it appears when it is complete.
        gt: ground truth of all, as one more video.
        mode: initial view of the page; the reader can switch modes. Default: a slider for two videos, side by side for
            three.
        labels: names of the videos in the page, with that of `gt` as the last. Default: the file names.
        any_rate: also accept videos whose frame rates have no whole ratio. The slower one holds its previous frame.
        max_frames, max_megabytes: limits on the number of shown frames and on the size that their pictures add to the
            page; scores cover all frames. Above a limit, only every third frame is kept, then every ninth, and so on.
        quality: of the pictures, 1-100, AVIF without chroma subsampling; None: lossless WebP.
        progress: called with the number of frames compared so far and the total. The total is 0 if the files do not
            state it.

    Raises:
        ValueError: an argument is wrong.
        VideoError: a video cannot be read, or its frames do not match the other videos in size or time.
        OSError: the page cannot be written.
    """
    compared = [*videos, *([] if gt is None else [gt])]
    output = Path(output)
    labels = _default_labels([_path_of(video) for video in compared]) if labels is None else list(labels)
    mode = mode or ('slider' if len(videos) < 3 else 'side-by-side')
    _check_arguments(len(videos), len(compared), output, mode, labels, max_frames, max_megabytes, quality)

    with ExitStack() as stack:
        sources = _open_sources(stack, compared)
        infos = [source.info for source in sources]
        check_proportions([(info.path, info.width, info.height) for info in infos])
        # Open the page before hours of work, so that an unwritable folder fails at once
        page = stack.enter_context(open(stack.enter_context(whole_file(output)), 'wb'))
        matcher = Matcher(sources, labels, num_compared=len(videos), any_rate=any_rate)
        *others, last = range(len(infos))
        pairs = [(index, last) for index in others if _size(infos[index]) == _size(infos[last])]
        curves = [_Curve(labels, *pair) for pair in pairs]
        album = _Album(max_frames, max_megabytes * 1e6 * 3 / 4)  # base64 encodes three bytes as four
        times = _compare(matcher, curves, album, len(videos), partial(_encode, quality=quality), progress)

        notes = [*_describe_videos(infos, labels[:len(videos)], labels, pairs), *matcher.notes,
                 *_describe_album(album, quality, len(times))]
        means = [mean for curve in curves for mean in curve.means()]
        _write_page(page, album, {
            'mode': mode,
            'labels': labels,
            'size': max(map(_size, infos)),
            'type': 'image/webp' if quality is None else 'image/avif',
            'times': [round(float(time), 6) for time in times],
            'shown': [{'number': frame.number, 'pictures': [picture.key for picture in frame.pictures],
                       'held': [picture.is_held for picture in frame.pictures]} for frame in album.frames],
            'curves': [curve.to_json() for curve in curves],
            'means': [mean._asdict() for mean in means],
            'notes': notes,
        })
    return Comparison(output, len(times), len(album.frames), means, notes)


# ---------------------------------------------------------------- inputs

def _path_of(video: Video) -> Path:
    return Path(video) if isinstance(video, str | Path) else video.info.path


def _size(info: VideoInfo) -> tuple[int, int]:
    return info.width, info.height


def _default_labels(paths: Sequence[Path]) -> list[str]:
    """Return the names of files or folders, with their parent folder if names repeat."""
    paths = [Path(os.path.abspath(path)) for path in paths]
    names = [path.name for path in paths]
    return names if len({*names}) == len(names) else [f'{path.parent.name}/{path.name}' for path in paths]


def _check_arguments(num_videos: int, num_compared: int, output: Path, mode: str, labels: Sequence[str],
                     max_frames: int, max_megabytes: float, quality: int | None) -> None:
    """Raise ValueError if an argument of `write_comparison` is wrong."""
    if num_videos not in (2, 3):
        raise ValueError(f'expected two or three videos to compare, got {num_videos}')
    if output.suffix.lower() not in ('.html', '.htm'):
        raise ValueError(f'{output}: the page needs a name that ends in .html')
    if mode not in get_args(Mode):
        raise ValueError(f'mode must be one of {", ".join(get_args(Mode))}, got {mode!r}')
    if len(labels) != num_compared:
        raise ValueError(f'expected {num_compared} labels, one for each video, got {len(labels)}')
    if max_frames < 1 or not max_megabytes > 0:
        raise ValueError(f'expected max_frames of 1 or more and max_megabytes above 0, got {max_frames} and '
                         f'{max_megabytes:g}')
    if quality is not None and not 1 <= quality <= 100:
        raise ValueError(f'quality must be 1 to 100, or None for lossless pictures, got {quality}')


def _open_sources(stack: ExitStack, videos: Sequence[Video]) -> list[Source]:
    """Open all videos; infer the frame rate of folders from their number of frames relative to the first video."""
    sources = [stack.enter_context(open_source(video, background=BLACK)) if isinstance(video, str | Path) else
               opaque(video, BLACK) for video in videos]
    reference = next((source for source in sources if not source.info.path.is_dir()), sources[0])
    for i, video in enumerate(videos):
        if isinstance(video, str | Path) and Path(video).is_dir() and sources[i] is not reference and (
                reference.info.rate):
            factor = _frames_per_frame(sources[i].info, reference.info)
            sources[i] = stack.enter_context(open_source(video, rate=reference.info.rate * factor, background=BLACK))
    return sources


def _frames_per_frame(folder: VideoInfo, reference: VideoInfo) -> Fraction:
    """Return the number of folder frames per reference frame: a whole number or the inverse of one."""
    num_frames, num_reference = folder.num_frames, reference.about_frames
    if not num_reference:
        raise VideoError(f'{reference.path}: its number of frames is unknown, so the frames of the folder '
                         f'{folder.path} cannot be matched to it; expected two videos, or two folders')
    few, many = sorted((num_frames, num_reference))
    factor = round(many / few)
    # Accept 2n - 1 frames for n as well as 2n; at one rate, this also accepts 2n and 2n - 1
    if abs(many - factor * few) > max(1, factor - 1):
        raise VideoError(f'{folder.path}: the folder has {num_frames} frames and {reference.path} has {num_reference}; '
                         'expected the same number, or a whole multiple of it')
    return Fraction(factor) if num_frames == many else Fraction(1, factor)


def check_proportions(frames: Sequence[tuple[Path, int, int]]) -> None:
    """Raise VideoError unless frames of all videos have the same proportions, except for rounding.

    Args:
        frames: path, width and height of each video.
    """
    largest, width, height = max(frames, key=lambda frame: frame[1] * frame[2])
    for path, w, h in frames:
        is_cropped = (w == width) != (h == height)
        if is_cropped or abs(w * height / h - width) > ROUNDING:
            raise VideoError(f'{path}: frames are {w}x{h}, those of {largest} are {width}x{height}; expected the same '
                             'proportions')


# ---------------------------------------------------------------- scores and pictures

class _Curve:
    """Scores of one video against another; NaN if either frame is held, or is too small for SSIM."""

    def __init__(self, labels: Sequence[str], index: int, reference: int):
        self.index, self.reference = index, reference
        self.label, self.reference_label = labels[index], labels[reference]
        self.psnr: list[float] = []
        self.ssim: list[float] = []
        self.is_given: list[bool] = []  # whether all videos but the ground truth have a frame

    def append(self, psnr: float, ssim: float, is_given: bool) -> None:
        self.psnr.append(psnr)
        self.ssim.append(ssim)
        self.is_given.append(is_given)

    def means(self) -> list[Mean]:
        is_scored, is_given = ~np.isnan(self.psnr), np.array(self.is_given)
        groups = {'given': is_scored & is_given, 'between': is_scored & ~is_given}
        groups = {'all': is_scored} | (groups if all(map(np.any, groups.values())) else {})
        return [self._mean(group, chosen) for group, chosen in groups.items()]

    def _mean(self, group: str, chosen: np.ndarray) -> Mean:
        psnr, ssim = np.array(self.psnr)[chosen], np.array(self.ssim)[chosen]
        differing = psnr[psnr < math.inf]
        return Mean(f'{self.label} against {self.reference_label}', group, len(psnr),
                    float(differing.mean()) if len(differing) else None, len(psnr) - len(differing),
                    None if np.isnan(ssim).any() else float(ssim.mean()))

    def to_json(self) -> dict[str, Any]:
        def numbers(values: Sequence[float], digits: int) -> list[float | str | None]:
            # JSON has no infinity, but JavaScript parses the word as a number
            return [None if math.isnan(value) else round(value, digits) if value < math.inf else 'Infinity'
                    for value in values]

        return {'label': self.label, 'reference': self.reference_label, 'color': self.index,
                'psnr': numbers(self.psnr, 4), 'ssim': numbers(self.ssim, 6)}


class _Picture(NamedTuple):
    """An encoded frame of a video. A held frame repeats the `key` of the frame that it shows."""

    key: str
    data: bytes
    is_held: bool


class _Frame(NamedTuple):
    """The pictures at one time, one per video."""

    number: int
    pictures: list[_Picture]


class _Album:
    """The evenly spaced frames that the page shows, within limits."""

    def __init__(self, max_frames: int, max_bytes: float):
        self.frames: list[_Frame] = []
        self.stride = 1  # between shown frames
        self._max_frames, self._max_bytes = max_frames, max_bytes

    def wants(self, number: int) -> bool:
        return number % self.stride == 0

    def add(self, frame: _Frame) -> None:
        if self.wants(frame.number):
            self.frames.append(frame)
        while len(self.frames) > self._max_frames or len(self.frames) > 1 and self._num_bytes() > self._max_bytes:
            self.stride *= THINNING
            self.frames = [frame for frame in self.frames if self.wants(frame.number)]

    def pictures(self) -> dict[str, bytes]:
        return {picture.key: picture.data for frame in self.frames for picture in frame.pictures}

    def _num_bytes(self) -> int:
        return sum(map(len, self.pictures().values()))


class _Job(NamedTuple):
    """The work on one row: `scores` for every curve unless a frame is held, and `pictures` if the row is shown."""

    number: int
    shown: list[Shown]
    scores: list[Future[Any] | None]
    pictures: list[Future[Any]]


def _compare(matcher: Matcher, curves: Sequence[_Curve], album: _Album, num_videos: int,
             encode: Callable[[np.ndarray], bytes], progress: Callable[[int, int], None] | None) -> list[Fraction]:
    """Fill curves and album on all cores, with a few frames in memory, and return the time of each frame in seconds."""
    num_workers = available_cores()
    times: list[Fraction] = []
    jobs: deque[_Job] = deque()
    # Video -> number and picture of its last frame, for reuse when held
    encoded: dict[int, tuple[int, Future[Any]]] = {}

    def start(row: Row, pool: ThreadPoolExecutor) -> _Job:
        number, shown = len(times), row.shown
        times.append(row.time)
        scores = [None if shown[curve.index].is_held or shown[curve.reference].is_held else
                  pool.submit(_scores, shown[curve.index].image, shown[curve.reference].image) for curve in curves]
        pictures = []
        if album.wants(number):
            for i, frame in enumerate(shown):
                if i not in encoded or encoded[i][0] != frame.number:
                    encoded[i] = frame.number, pool.submit(encode, frame.image)
                pictures.append(encoded[i][1])
        return _Job(number, shown, scores, pictures)

    def finish(job: _Job) -> None:
        is_given = not any(frame.is_held for frame in job.shown[:num_videos])
        for curve, scores in zip(curves, job.scores, strict=True):
            psnr, ssim = scores.result() if scores else (math.nan, math.nan)
            curve.append(psnr, ssim, is_given)
        if job.pictures:
            album.add(_Frame(job.number, [
                _Picture(f'picture-{i}-{frame.number}', picture.result(), frame.is_held)
                for i, (frame, picture) in enumerate(zip(job.shown, job.pictures, strict=True))]))
        if progress:
            progress(job.number + 1, matcher.about_frames)

    with ThreadPoolExecutor(num_workers) as pool:
        for row in matcher.rows():
            jobs.append(start(row, pool))
            if len(jobs) > 2 * num_workers:
                finish(jobs.popleft())
        while jobs:
            finish(jobs.popleft())
    return times


def _scores(image: np.ndarray, reference: np.ndarray) -> tuple[float, float]:
    """Return PSNR and SSIM; SSIM is NaN if the images are smaller than its window."""
    from basicsr.metrics import calculate_psnr, calculate_ssim  # imports torchvision and SciPy

    image, reference = with_bits(image, 8), with_bits(reference, 8)
    has_ssim = min(image.shape[:2]) >= SSIM_WINDOW
    return (float(calculate_psnr(image, reference, crop_border=0)),
            float(calculate_ssim(image, reference, crop_border=0)) if has_ssim else math.nan)


def _encode(image: np.ndarray, *, quality: int | None) -> bytes:
    """Encode as AVIF, or as lossless WebP if `quality` is None."""
    picture, encoded = Image.fromarray(np.ascontiguousarray(with_bits(image, 8))), io.BytesIO()
    if quality is None:
        picture.save(encoded, 'WEBP', lossless=True, method=2)
    else:  # no chroma subsampling, because the page can show single pixels; other threads encode other pictures
        picture.save(encoded, 'AVIF', quality=quality, subsampling='4:4:4', speed=AVIF_SPEED, max_threads=1)
    return encoded.getvalue()


# ---------------------------------------------------------------- the page

def _describe_videos(infos: Sequence[VideoInfo], compared: Sequence[str], labels: Sequence[str],
                     scored: Sequence[tuple[int, int]]) -> Iterator[str]:
    largest = max(info.height for info in infos)
    for info, label in zip(infos, labels, strict=True):
        if info.height < largest:
            yield f'{label} is {info.width}x{info.height}, and is shown {largest / info.height:.3g} times as large.'
        if info.bits > 8:
            yield f'{label} has {info.bits} bits: it is shown, and scored, rounded to 8.'
    if folders := [label for info, label in zip(infos, labels, strict=True) if info.path.is_dir()]:
        yield f'Frames of {", ".join(folders)} are images without times; they are matched by number.'
    if without := [label for i, label in enumerate(compared) if not any(i in pair for pair in scored)]:
        yield f'There are no scores of {" and ".join(without)}: scores need frames of the same size.'


def _describe_album(album: _Album, quality: int | None, num_frames: int) -> Iterator[str]:
    if len(album.frames) < num_frames:
        every = f', every {_ordinal(album.stride)}' if album.stride > 1 and len(album.frames) > 1 else ''
        yield f'{len(album.frames)} of {num_frames} frames are shown{every}; scores cover all frames.'
    if quality is None:
        yield 'The pictures here are lossless.'
    else:
        yield (f'The pictures here are compressed (AVIF, quality {quality}), which is visible in an amplified '
               'difference; scores use the frames themselves.')


def _ordinal(number: int) -> str:
    """Return '3rd', '9th', '27th', '81st', ... for powers of three."""
    return f'{number}{ {1: "st", 3: "rd"}.get(number % 10, "th") }'


def _write_page(page: BinaryIO, album: _Album, data: dict[str, Any]) -> None:
    template = resources.files(__package__).joinpath('compare_page.html').read_text(encoding='utf-8')
    head, rest = template.split('$PICTURES')
    middle, tail = rest.split('$DATA')
    title = html.escape(' | '.join(data['labels']))
    page.write(head.replace('$TITLE', title).encode(errors='replace'))  # file names may hold any bytes
    for key, picture in album.pictures().items():
        page.write(f'<script type="text/plain" id="{key}">'.encode() + base64.b64encode(picture) + b'</script>\n')
    # A label may hold '</script>'
    text = json.dumps(data, allow_nan=False, separators=(',', ':')).replace('<', r'\u003c')
    page.write((middle + text + tail).encode())
