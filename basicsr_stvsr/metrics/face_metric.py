"""Face metrics: identity, its stability from frame to frame, and image quality in the face regions.

Faces are detected only in the ground truth. The same five points align truth and result, so a score does not depend on
how well faces are detected in the result. The score of a frame is the plain mean over its faces. A frame whose truth
has no face has no score; reports show the coverage, the share of frames with a score.

The networks are facexlib's, see face_networks.py; `FaceScores` accepts any others.
"""
import hashlib
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache, partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol, TypeVar, cast

import cv2
import numpy as np
from basicsr.utils.registry import METRIC_REGISTRY
from scipy.optimize import linear_sum_assignment

from ..archs.weight_files import sha256_of
from .face_networks import (
    ARCFACE,
    DETECTORS,
    ArcFaceEmbedder,
    DetectorName,
    Face,
    RetinaFaceDetector,
    load_arcface,
    load_detector,
)
from .metric_util import declare
from .psnr_ssim import calculate_psnr, calculate_ssim

CROP_SIZE = 112
# Where ArcFace expects the eyes, the nose and the corners of the mouth; InsightFace aligns its training data to these
# points.
ARCFACE_POINTS = np.array([[38.2946, 51.6963], [73.5318, 51.5014], [56.0252, 71.7366], [41.5493, 92.3655],
                           [70.7299, 92.2041]])
_SMALLEST = 11  # pixels: the window of SSIM
_SAME_FACE = 0.3  # least overlap of a face's boxes in two frames; the value of the tracker SORT

Result = TypeVar('Result')


class Detector(Protocol):
    """Detect the faces of a frame, (H, W, 3), uint8, BGR."""

    def __call__(self, frame: np.ndarray) -> Sequence[Face]: ...


class Embedder(Protocol):
    """Embed aligned faces: (N, 112, 112, 3), uint8, BGR -> (N, D), of any length."""

    def __call__(self, crops: np.ndarray) -> np.ndarray: ...


class FaceScores:
    """Score frames by the faces of the ground truth; faces of a frame are detected once for all scores.

    All frames are (H, W, 3), uint8, BGR. Every score is the mean over the faces of the truth, NaN if it has none.

    Args:
        detector: finds faces in the ground truth.
        embedder: None if identity and its stability are not needed.
        min_size: smallest side of a face that counts, in pixels within the frame; at least 11, the window of SSIM.

    Raises:
        ValueError: `min_size` is too small. Methods raise it for frames with wrong shapes or types.
    """

    def __init__(self, detector: Detector, embedder: Embedder | None = None, *, min_size: int = 32):
        if min_size < _SMALLEST:
            raise ValueError(f'min_size of faces must be {_SMALLEST} pixels or more, the window of SSIM, but is '
                             f'{min_size}')
        self.detector, self.embedder, self.min_size = detector, embedder, min_size
        self._faces, self._embeddings = _Recent(), _Recent()

    def identity(self, img: np.ndarray, img2: np.ndarray) -> float:
        """Return the cosine of the embeddings of result and truth: 1 for the same face, near 0 for other people."""
        _check(img, img2)
        return _mean(map(cosine, self.embeddings(img, img2), self.embeddings(img2, img2)))

    def stability(self, img: np.ndarray, img2: np.ndarray, last_img: np.ndarray, last_img2: np.ndarray) -> float:
        """Return how far a face's change from the previous frame differs from the true change: 0 is best, 2 the worst.

        It is |cos(result, last result) - cos(truth, last truth)| of embeddings. A face is matched to the face of the
        previous frame that it overlaps most. Faces without a match do not count.
        """
        _check(img, img2, last_img, last_img2)
        pairs = followed(self.faces(img2), self.faces(last_img2))
        now, last = self.embeddings(img, img2), self.embeddings(last_img, last_img2)
        true_now, true_last = self.embeddings(img2, img2), self.embeddings(last_img2, last_img2)
        return _mean(abs(cosine(now[i], last[j]) - cosine(true_now[i], true_last[j])) for i, j in pairs)

    def psnr(self, img: np.ndarray, img2: np.ndarray, *, test_y_channel: bool = False) -> float:
        """Return the PSNR in the boxes of the faces, without alignment, in dB."""
        _check(img, img2)
        return _mean(calculate_psnr(part, part2, 0, test_y_channel=test_y_channel)
                     for part, part2 in self._regions(img, img2))

    def ssim(self, img: np.ndarray, img2: np.ndarray, *, test_y_channel: bool = False) -> float:
        """Return the SSIM in the boxes of the faces, without alignment, by BasicSR's windows inside the boxes."""
        _check(img, img2)
        return _mean(calculate_ssim(part, part2, 0, test_y_channel=test_y_channel)
                     for part, part2 in self._regions(img, img2))

    def faces(self, truth: np.ndarray) -> list[Face]:
        """Return the faces of a ground truth frame that count."""
        def find() -> list[Face]:
            found = (Face(np.asarray(box), score, np.asarray(points)) for box, score, points in self.detector(truth))
            return [face for face in found if self._counts(face, truth)]

        return self._faces.get((truth,), find)

    def embeddings(self, frame: np.ndarray, truth: np.ndarray) -> np.ndarray:
        """Return embeddings of a frame at the faces of its truth, (N, D).

        Raises:
            ValueError: there is no embedder.
        """
        embedder = self.embedder
        if embedder is None:
            raise ValueError('face identity and its stability need an embedder')
        faces = self.faces(truth)
        if not faces:
            return np.zeros((0, 1))
        return self._embeddings.get((frame, truth), lambda: np.asarray(embedder(
            np.stack([align(frame, face.points) for face in faces]))))

    def _regions(self, *frames: np.ndarray) -> list[list[np.ndarray]]:
        return [[frame[region(face, frame)] for frame in frames] for face in self.faces(frames[-1])]

    def _counts(self, face: Face, frame: np.ndarray) -> bool:
        if not (np.isfinite(face.box).all() and np.isfinite(face.points).all() and np.ptp(face.points, axis=0).any()):
            return False  # nothing to crop or align
        return min(frame[region(face, frame)].shape[:2]) >= self.min_size


def align(frame: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Rotate, scale and shift a face to the points that ArcFace expects; pixels outside the frame are black.

    The transform is the least-squares one (Umeyama 1991) of scikit-image, as in InsightFace.

    Args:
        frame: (H, W, 3), uint8.
        points: of the face, (5, 2), see `Face`.

    Returns:
        (112, 112, 3), uint8.
    """
    from skimage.transform import estimate_transform  # here, to keep the import of the package fast

    matrix = estimate_transform('similarity', points, ARCFACE_POINTS).params
    return cv2.warpAffine(frame, matrix[:2], (CROP_SIZE, CROP_SIZE))


def region(face: Face, frame: np.ndarray) -> tuple[slice, slice]:
    """Return the rows and columns of the whole pixels that a face's box touches, within the frame."""
    left, top, right, bottom = face.box
    height, width = frame.shape[:2]
    return (slice(max(math.floor(top), 0), max(min(math.ceil(bottom), height), 0)),
            slice(max(math.floor(left), 0), max(min(math.ceil(right), width), 0)))


def followed(faces: Sequence[Face], last: Sequence[Face]) -> list[tuple[int, int]]:
    """Match faces to those of the previous frame; return pairs of indices into both lists.

    Each face is in at most one pair, and the pairs maximise the sum of overlaps. Pairs of boxes with an overlap below
    0.3 do not match.
    """
    overlaps = np.array([[overlap(face.box, other.box) for other in last] for face in faces])
    pairs = zip(*linear_sum_assignment(overlaps.reshape(len(faces), len(last)), maximize=True), strict=True)
    return [(int(i), int(j)) for i, j in pairs if overlaps[i, j] >= _SAME_FACE]


def overlap(box: np.ndarray, other: np.ndarray) -> float:
    """Return the intersection over union of two boxes, 0 to 1."""
    shared = np.prod(np.clip(np.minimum(box[2:], other[2:]) - np.maximum(box[:2], other[:2]), 0, None))
    return float(shared / (np.prod(box[2:] - box[:2]) + np.prod(other[2:] - other[:2]) - shared))


def cosine(first: np.ndarray, second: np.ndarray) -> float:
    """Return the cosine of the angle between two vectors; NaN if one has zero length."""
    first, second = first.astype(np.float64), second.astype(np.float64)
    lengths = np.linalg.norm(first) * np.linalg.norm(second)
    return float(first @ second / lengths) if lengths else math.nan


class _Recent:
    """Cache of results for the last few frames, keyed by frame contents, since scoring processes get copies."""

    def __init__(self, size: int = 8):  # covers result and truth of two frames, and some more
        self.size = size
        self.values: dict[bytes, Any] = {}

    def get(self, frames: Sequence[np.ndarray], find: Callable[[], Result]) -> Result:
        key = b''.join(_digest(frame) for frame in frames)
        if key not in self.values:
            self.values[key] = find()
            if len(self.values) > self.size:
                del self.values[next(iter(self.values))]  # the oldest
        return self.values[key]


def _digest(frame: np.ndarray) -> bytes:
    return hashlib.blake2b(np.ascontiguousarray(frame).data, person=b'%dx%d' % frame.shape[:2]).digest()


def _mean(scores: Iterable[float]) -> float:
    scores = list(scores)
    return sum(scores) / len(scores) if scores else math.nan


def _check(*frames: np.ndarray) -> None:
    """Raise ValueError unless the frames are uint8 images of one shape."""
    first = frames[0]
    if first.ndim != 3 or first.shape[2] != 3 or any(
            frame.shape != first.shape or frame.dtype != np.uint8 for frame in frames):
        found = ', '.join(f'{frame.shape} of {frame.dtype}' for frame in frames)
        raise ValueError(f'faces need frames of the same shape (H, W, 3), uint8 (BGR), but they are {found}')


# ---------------------------------------------------------------- metrics

@METRIC_REGISTRY.register()
def calculate_face_identity(img: np.ndarray, img2: np.ndarray, *, weights: str | Path,
                            detector: DetectorName = 'resnet50', confidence: float = 0.97,
                            min_size: int = 32) -> float:
    """Return the identity of faces: the cosine of ArcFace's embeddings of the result and of the truth.

    Args:
        img: the result, (H, W, 3), uint8, B, G, R.
        img2: the ground truth, of the same shape and type, in which RetinaFace detects faces.
        weights: folder of facexlib's files, see `DETECTORS` and `ARCFACE`.
        detector: backbone of RetinaFace; 'mobile0.25' is several times as fast, but misses more faces.
        confidence: 0 to 1; faces with a lower score do not count.
        min_size: smallest side of a face that counts, in pixels of the frame, at least 11.

    Returns:
        -1 to 1, higher is better; the mean over the faces of the truth; NaN if it has none.

    Raises:
        ModuleNotFoundError: facexlib is not installed.
        FileNotFoundError: a file is missing.
        ValueError: a file is damaged or of another network; an argument has an invalid value; or frames have wrong
            shapes or types.
    """
    return build_scores(weights, detector, confidence, min_size).identity(img, img2)


@METRIC_REGISTRY.register()
def calculate_face_stability(img: np.ndarray, img2: np.ndarray, last_img: np.ndarray, last_img2: np.ndarray, *,
                             weights: str | Path, detector: DetectorName = 'resnet50', confidence: float = 0.97,
                             min_size: int = 32) -> float:
    """Return the stability of identity: |cos(result, last result) - cos(truth, last truth)| of ArcFace's embeddings.

    Args:
        img, img2: a frame of the result and of the ground truth, see `calculate_face_identity`.
        last_img, last_img2: the previous frames.
        weights, detector, confidence, min_size: see `calculate_face_identity`.

    Returns:
        0 to 2, lower is better; the mean over the faces of the truth that the previous frame also shows, see
            `followed`; NaN if there is none.

    Raises:
        ModuleNotFoundError, FileNotFoundError, ValueError: see `calculate_face_identity`.
    """
    return build_scores(weights, detector, confidence, min_size).stability(img, img2, last_img, last_img2)


@METRIC_REGISTRY.register()
def calculate_face_psnr(img: np.ndarray, img2: np.ndarray, *, weights: str | Path,
                        detector: DetectorName = 'resnet50', confidence: float = 0.97, min_size: int = 32,
                        test_y_channel: bool = False) -> float:
    """Return the PSNR in the boxes of the truth's faces; needs no ArcFace.

    Args:
        img, img2, weights, detector, confidence, min_size: see `calculate_face_identity`.
        test_y_channel: use Y of BT.601 in studio swing.

    Returns:
        In dB, higher is better; the mean over the faces of the truth; NaN if it has none, infinite if a face is equal.

    Raises:
        ModuleNotFoundError, FileNotFoundError, ValueError: see `calculate_face_identity`.
    """
    return build_scores(weights, detector, confidence, min_size).psnr(img, img2, test_y_channel=test_y_channel)


@METRIC_REGISTRY.register()
def calculate_face_ssim(img: np.ndarray, img2: np.ndarray, *, weights: str | Path,
                        detector: DetectorName = 'resnet50', confidence: float = 0.97, min_size: int = 32,
                        test_y_channel: bool = False) -> float:
    """Return the SSIM in the boxes of the truth's faces; needs no ArcFace.

    Args:
        img, img2, weights, detector, confidence, min_size, test_y_channel: see `calculate_face_psnr`.

    Returns:
        -1 to 1, higher is better; the mean over the faces of the truth; NaN if it has none.

    Raises:
        ModuleNotFoundError, FileNotFoundError, ValueError: see `calculate_face_identity`.
    """
    return build_scores(weights, detector, confidence, min_size).ssim(img, img2, test_y_channel=test_y_channel)


@cache
def build_scores(weights: str | Path, detector: DetectorName = 'resnet50', confidence: float = 0.97,
                 min_size: int = 32) -> FaceScores:
    """Build the scores with facexlib's networks, one object for all metrics with the same options.

    Args:
        weights, detector, confidence, min_size: see `calculate_face_identity`.

    Raises:
        ValueError: an argument has an invalid value.
    """
    return FaceScores(RetinaFaceDetector(weights, detector, confidence), ArcFaceEmbedder(weights), min_size=min_size)


def unusable(options: Mapping[str, Any], *, recognition: bool) -> str | None:
    """Return why a metric cannot be computed here, or None: facexlib or a file may be missing.

    Args:
        options: of the metric.
        recognition: whether it needs ArcFace.

    Raises:
        ValueError: an option has an invalid value; or a file is damaged or of another network.
    """
    scores = build_scores(**{name: options[name] for name in ('weights', 'detector', 'confidence', 'min_size')
                             if name in options})
    if find_spec('facexlib') is None:
        return "the package facexlib is not installed; pip install 'basicsr_stvsr[face]', or pip install facexlib"
    detector = cast(RetinaFaceDetector, scores.detector)
    embedder = cast(ArcFaceEmbedder, scores.embedder)
    files = {detector.path: detector.file}
    if recognition:
        files[embedder.path] = ARCFACE
    for path, file in files.items():
        if not path.is_file():
            return f'{path} does not exist; expected the weights of {file.what}, published as {file.published}'
    load_detector(detector.path, detector.network)
    if recognition:
        load_arcface(embedder.path)
    return None


def label(options: Mapping[str, Any], *, recognition: bool) -> str:
    """Return the networks and the first digits of their files' sha256, as in 'retinaface-0a1b2c3d, arcface-4e5f6a7b'.

    Args:
        options, recognition: see `unusable`.
    """
    folder = Path(options['weights']).expanduser()
    files = {'retinaface': DETECTORS[options.get('detector', 'resnet50')]} | (
        {'arcface': ARCFACE} if recognition else {})
    return ', '.join(f'{name}-{sha256_of(folder / file.name)[:8]}' for name, file in files.items())


for _metric, _recognition in ((calculate_face_identity, True), (calculate_face_stability, True),
                              (calculate_face_psnr, False), (calculate_face_ssim, False)):
    declare(_metric, has_coverage=True, unusable=partial(unusable, recognition=_recognition),
            label=partial(label, recognition=_recognition))
