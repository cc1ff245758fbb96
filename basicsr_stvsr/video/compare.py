"""Compare two videos frame by frame in a single HTML page that works offline.

The page shows pictures of some frames and the scores of all frames. Its template is `compare_page.html` in this folder.
Memory grows by a few numbers per frame, and by the pictures, whose total size is limited.
"""
import base64
import html
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

import cv2
import numpy as np
from basicsr.metrics import calculate_psnr, calculate_ssim

from ..io.frame_source import Source
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


def write_comparison(first: str | Path, second: str | Path, output: str | Path, *, gt: str | Path | None = None,
                     mode: Mode = 'slider', labels: Sequence[str] | None = None, max_frames: int = 240,
                     max_megabytes: float = 100, quality: int | None = 95,
                     progress: Callable[[int, int], None] | None = None) -> Comparison:
    """Write an HTML page that compares two videos frame by frame.

    Frames are matched by time, counted from the first frame of each video. One video may have a whole number of frames
    per frame of the other, for example a result at twice the frame rate next to its input. The slower video then holds
    its previous frame, without a score. Frames beyond the end of another video are left out. Folders of images have no
    timestamps; they are matched by their number of frames.

    If a video is smaller by a whole factor, such as the input, the page enlarges it and shows no scores for it.

    PSNR and SSIM are computed with BasicSR on 8-bit RGB for every frame. With `gt`, both videos are scored against it;
    without it, the first is scored against the second.

    Args:
        first, second: video files or folders of images.
        output: path of the page, ending in .html; it appears when it is complete.
        gt: ground truth of both, as a third video or folder.
        mode: initial view of the page; the reader can switch modes.
        labels: names of the videos in the page: two, or three with `gt`. Default: the file names.
        max_frames, max_megabytes: limits on the number of shown frames and on the size that their pictures add to the
            page; scores cover all frames. Above a limit, only every third frame is kept, then every ninth, and so on.
        quality: of the pictures, 1-100, JPEG without chroma subsampling; None: lossless WebP.
        progress: called with the number of frames compared so far and the total. The total is 0 if the files do not
            state it.

    Raises:
        ValueError: an argument is wrong.
        VideoError: a video cannot be read, or its frames do not match the other video in size or time.
        OSError: the page cannot be written.
    """
    paths = [Path(path) for path in (first, second, gt) if path is not None]
    output = Path(output)
    labels = _default_labels(paths) if labels is None else list(labels)
    _check_arguments(paths, output, mode, labels, max_frames, max_megabytes, quality)

    with ExitStack() as stack:
        sources = _open_sources(stack, paths)
        infos = [source.info for source in sources]
        factors = _factors(infos)
        # Open the page before hours of work, so that an unwritable folder fails at once
        page = stack.enter_context(open(stack.enter_context(whole_file(output)), 'wb'))
        matcher = Matcher(sources, labels)
        pairs = [(0, 2), (1, 2)] if gt is not None else [(0, 1)]
        pairs = [(index, reference) for index, reference in pairs if factors[index] == factors[reference]]
        curves = [_Curve(labels, *pair) for pair in pairs]
        album = _Album(max_frames, max_megabytes * 1e6 * 3 / 4)  # base64 encodes three bytes as four
        times = _compare(matcher, curves, album, partial(_encode, quality=quality), progress)

        notes = [*_describe_videos(infos, factors, labels, pairs), *matcher.notes,
                 *_describe_album(album, quality, len(times))]
        means = [mean for curve in curves for mean in curve.means()]
        _write_page(page, album, {
            'mode': mode,
            'labels': labels,
            'size': [max(info.width for info in infos), max(info.height for info in infos)],
            'type': 'image/webp' if quality is None else 'image/jpeg',
            'times': [round(float(time), 6) for time in times],
            'shown': [{'number': frame.number, 'pictures': [picture.key for picture in frame.pictures],
                       'held': [picture.is_held for picture in frame.pictures]} for frame in album.frames],
            'curves': [curve.to_json() for curve in curves],
            'means': [mean._asdict() for mean in means],
            'notes': notes,
        })
    return Comparison(output, len(times), len(album.frames), means, notes)


# ---------------------------------------------------------------- inputs

def _default_labels(paths: Sequence[Path]) -> list[str]:
    """Return the names of files or folders, with their parent folder if names repeat."""
    paths = [Path(os.path.abspath(path)) for path in paths]
    names = [path.name for path in paths]
    return names if len({*names}) == len(names) else [f'{path.parent.name}/{path.name}' for path in paths]


def _check_arguments(paths: Sequence[Path], output: Path, mode: str, labels: Sequence[str], max_frames: int,
                     max_megabytes: float, quality: int | None) -> None:
    """Raise ValueError if an argument of `write_comparison` is wrong."""
    if output.suffix.lower() not in ('.html', '.htm'):
        raise ValueError(f'{output}: the page needs a name that ends in .html')
    if mode not in get_args(Mode):
        raise ValueError(f'mode must be one of {", ".join(get_args(Mode))}, got {mode!r}')
    if len(labels) != len(paths):
        raise ValueError(f'expected {len(paths)} labels, one for each video, got {len(labels)}')
    if max_frames < 1 or not max_megabytes > 0:
        raise ValueError(f'expected max_frames of 1 or more and max_megabytes above 0, got {max_frames} and '
                         f'{max_megabytes:g}')
    if quality is not None and not 1 <= quality <= 100:
        raise ValueError(f'quality must be 1 to 100, or None for lossless pictures, got {quality}')


def _open_sources(stack: ExitStack, paths: Sequence[Path]) -> list[Source]:
    """Open all videos; infer the frame rate of folders from their number of frames relative to the first video."""
    sources = [stack.enter_context(open_source(path)) for path in paths]
    reference = next((source for source, path in zip(sources, paths, strict=True) if not path.is_dir()), sources[0])
    for i, path in enumerate(paths):
        if path.is_dir() and sources[i] is not reference and reference.info.rate:
            factor = _frames_per_frame(sources[i].info, reference.info)
            sources[i] = stack.enter_context(open_source(path, rate=reference.info.rate * factor))
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


def _factors(infos: Sequence[VideoInfo]) -> list[int]:
    """Return the factors by which each video must be enlarged to match the largest one."""
    largest = max(infos, key=lambda info: info.width * info.height)
    factors = []
    for info in infos:
        factor = largest.width // info.width
        if (factor * info.width, factor * info.height) != (largest.width, largest.height):
            raise VideoError(f'{info.path}: frames are {info.width}x{info.height}, those of {largest.path} are '
                             f'{largest.width}x{largest.height}; expected the same size, or a whole multiple of it')
        factors.append(factor)
    return factors


# ---------------------------------------------------------------- scores and pictures

class _Curve:
    """Scores of one video against another; NaN if either frame is held, or is too small for SSIM."""

    def __init__(self, labels: Sequence[str], index: int, reference: int):
        self.index, self.reference = index, reference
        self.label, self.reference_label = labels[index], labels[reference]
        self.psnr: list[float] = []
        self.ssim: list[float] = []
        self.is_given: list[bool] = []  # whether both of the first two videos have a frame

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


def _compare(matcher: Matcher, curves: Sequence[_Curve], album: _Album, encode: Callable[[np.ndarray], bytes],
             progress: Callable[[int, int], None] | None) -> list[Fraction]:
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
        is_given = not any(frame.is_held for frame in job.shown[:2])
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
    image, reference = with_bits(image, 8), with_bits(reference, 8)
    has_ssim = min(image.shape[:2]) >= SSIM_WINDOW
    return (float(calculate_psnr(image, reference, crop_border=0)),
            float(calculate_ssim(image, reference, crop_border=0)) if has_ssim else math.nan)


def _encode(image: np.ndarray, *, quality: int | None) -> bytes:
    """Encode as JPEG, or as lossless WebP if `quality` is None."""
    bgr = cv2.cvtColor(with_bits(image, 8), cv2.COLOR_RGB2BGR)
    if quality is None:
        return cv2.imencode('.webp', bgr, [cv2.IMWRITE_WEBP_QUALITY, 101])[1].tobytes()  # above 100: lossless
    # No chroma subsampling, because the page can show single pixels
    options = [cv2.IMWRITE_JPEG_QUALITY, quality,
               cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444]
    return cv2.imencode('.jpg', bgr, options)[1].tobytes()


# ---------------------------------------------------------------- the page

def _describe_videos(infos: Sequence[VideoInfo], factors: Sequence[int], labels: Sequence[str],
                     scored: Sequence[tuple[int, int]]) -> Iterator[str]:
    for info, factor, label in zip(infos, factors, labels, strict=True):
        if factor > 1:
            yield f'{label} is {info.width}x{info.height}, and is shown {factor} times as large.'
        if info.bits > 8:
            yield f'{label} has {info.bits} bits: it is shown, and scored, rounded to 8.'
    if folders := [label for info, label in zip(infos, labels, strict=True) if info.path.is_dir()]:
        yield f'Frames of {", ".join(folders)} are images without times; they are matched by number.'
    if without := [label for i, label in enumerate(labels[:2]) if not any(i in pair for pair in scored)]:
        yield f'There are no scores of {" and ".join(without)}: scores need frames of the same size.'


def _describe_album(album: _Album, quality: int | None, num_frames: int) -> Iterator[str]:
    if len(album.frames) < num_frames:
        every = f', every {_ordinal(album.stride)}' if album.stride > 1 and len(album.frames) > 1 else ''
        yield f'{len(album.frames)} of {num_frames} frames are shown{every}; scores cover all frames.'
    if quality is None:
        yield 'The pictures here are lossless.'
    else:
        yield (f'The pictures here are compressed (JPEG, quality {quality}), which is visible in an amplified '
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
