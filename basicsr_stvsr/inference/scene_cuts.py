"""Detect hard cuts in a video, frame by frame, with only a few frames in memory.

The change between two frames is a product of two factors. The first is the distance of their colour histograms. The
second is the share of the new frame that blocks of the old frame cannot explain. Fast motion raises only the second
factor; a lamp or a shadow raises only the first.

A cut is a change that lasts, unlike a flash, and that is large compared with the changes around it. So a shaky clip
needs a stronger change than a calm clip.
"""
from collections import deque
from collections.abc import Iterable, Iterator

import cv2
import numpy as np

# In 580 pairs of frames of real clips without a cut, the strongest change reaches 1.7 (a motorbike ride). The weaker of
# two cuts between similar shots of one room reaches 3.7. Cuts between different places start at 7.
THRESHOLD = 2.5

_THUMBNAIL_WIDTH = 96  # pixels; all sizes below are in thumbnail pixels
_BLOCK = 16
_SEARCH = 12  # largest motion
_REACH = 6  # changes on each side to compare a change with
CONTEXT = _REACH + 3  # number of preceding frames that decide whether a frame starts a scene
_CALM = 0.02  # lower bound of the reference change, so that noise in a still picture is no cut
_BLACK = 24  # largest grey level of a letterbox border


def find_cuts(frames: Iterable[np.ndarray], *, threshold: float = THRESHOLD) -> list[int]:
    """Return the indices of the frames that start a new scene, without the first frame.

    Args:
        frames: uint8 `(H, W, 3)` BGR, all of one size.
        threshold: minimum ratio of a change to the changes around it; see `mark_cuts`.
    """
    return [index for index, (_, is_cut) in enumerate(mark_cuts(frames, threshold=threshold)) if is_cut]


def mark_cuts(frames: Iterable[np.ndarray], *, threshold: float = THRESHOLD) -> Iterator[tuple[np.ndarray, bool]]:
    """Yield every frame with a flag that is True if it starts a new scene.

    The output lags about eight frames behind the input.

    Args:
        frames: uint8 `(H, W, 3)` BGR, all of one size.
        threshold: a change is a cut if it is at least this many times the median of the changes before it, and the
            median of those after it.
    """
    frames = iter(frames)
    first = next(frames, None)
    if first is None:
        return
    yield first, False

    before: deque[float] = deque(maxlen=_REACH)
    undecided: deque[tuple[np.ndarray, float]] = deque()

    def decide() -> tuple[np.ndarray, bool]:
        frame, change = undecided.popleft()
        after = [later for _, later in undecided]
        # Use one median for each side, because the clip after a cut may move more or less than the clip before it.
        usual = max([_CALM] + [np.median(side) for side in (before, after) if side])
        before.append(change)
        return frame, bool(change >= threshold * usual)

    for frame_and_change in _lasting_changes(first, frames):
        undecided.append(frame_and_change)
        if len(undecided) > _REACH:
            yield decide()
    while undecided:
        yield decide()


def _lasting_changes(first: np.ndarray, frames: Iterator[np.ndarray]) -> Iterator[tuple[np.ndarray, float]]:
    """Yield each frame after the first with its change.

    The change is the minimum of those from i-1 to i, from i-2 to i, and from i-1 to i+1.
    """
    thumbnails = deque([_thumbnail(first)], maxlen=2)
    waiting: tuple[np.ndarray, float] | None = None
    for frame in frames:
        thumbnail = _thumbnail(frame)
        change = _change(thumbnails[-1], thumbnail)
        if waiting is not None:
            over_two = _change(thumbnails[-2], thumbnail)
            yield waiting[0], min(waiting[1], over_two)
            change = min(change, over_two)
        waiting = frame, change
        thumbnails.append(thumbnail)
    if waiting is not None:
        yield waiting


def _thumbnail(frame: np.ndarray) -> np.ndarray:
    height = max(2 * _BLOCK, round(frame.shape[0] * _THUMBNAIL_WIDTH / frame.shape[1]))
    return cv2.resize(frame, (_THUMBNAIL_WIDTH, height), interpolation=cv2.INTER_AREA)


def _change(a: np.ndarray, b: np.ndarray) -> float:
    """Return the change from thumbnail a to b, 0 to 1.

    It is the distance of the colour histograms times the part that motion does not explain.
    """
    a, b = _without_letterbox(a, b)
    return _colour_distance(a, b) * _unexplained(a, b)


def _without_letterbox(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    lit = np.maximum(a, b).max(axis=2) > _BLACK
    rows, columns = (np.flatnonzero(lit.mean(axis=axis) > 0.05) for axis in (1, 0))
    if min(rows.size, columns.size) < _BLOCK:
        return a, b
    picture = np.s_[rows[0]:rows[-1] + 1, columns[0]:columns[-1] + 1]
    if min(a[picture].shape[:2]) < _BLOCK:
        return a, b
    return a[picture], b[picture]


def _colour_distance(a: np.ndarray, b: np.ndarray) -> float:
    """Return half the L1 distance of two HSV histograms, 0 to 1."""
    histograms = [cv2.calcHist([cv2.cvtColor(frame, cv2.COLOR_BGR2HSV)], [0, 1, 2], None, [8, 4, 8],
                               [0, 180, 0, 256, 0, 256]) for frame in (a, b)]
    return float(np.abs(histograms[0] - histograms[1]).sum() / (2 * a.shape[0] * a.shape[1]))


def _unexplained(a: np.ndarray, b: np.ndarray) -> float:
    """Return the error of predicting b from the best blocks of a, 0 to 1.

    It is the squared error divided by the variance within the blocks. It is 0 if a moved into b, and 1 if the blocks of
    a are no better than flat grey ones.
    """
    a, b = (cv2.cvtColor(frame, cv2.COLOR_BGR2GRAY) for frame in (a, b))
    padded = cv2.copyMakeBorder(a, _SEARCH, _SEARCH, _SEARCH, _SEARCH, cv2.BORDER_REPLICATE)
    error = variance = 0.0
    for y in range(0, b.shape[0] - _BLOCK + 1, _BLOCK):
        for x in range(0, b.shape[1] - _BLOCK + 1, _BLOCK):
            block = b[y:y + _BLOCK, x:x + _BLOCK]
            candidates = padded[y:y + _BLOCK + 2 * _SEARCH, x:x + _BLOCK + 2 * _SEARCH]
            error += float(cv2.matchTemplate(candidates, block, cv2.TM_SQDIFF).min()) / _BLOCK**2
            variance += float(block.var())
    return min(1.0, max(0.0, error) / max(variance, 1.0))
