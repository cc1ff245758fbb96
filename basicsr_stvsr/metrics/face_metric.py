"""Faces: do people stay who they are, from frame to frame, and how good is the picture where their faces are.

Faces are found in the ground truth alone, and the same five points align truth and result, so that a result is not
scored by how well faces are found in it. A score of a frame is the mean over its faces, which count alike; a frame
whose truth has none has no score, and reports tell the share of the frames that have one, the coverage.

The networks are facexlib's, see face_networks.py; `FaceScores` takes any others.
"""
import hashlib
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache, partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol, TypeVar

import cv2
import numpy as np
from basicsr.utils.registry import METRIC_REGISTRY
from scipy.optimize import linear_sum_assignment

from ..archs.weights import sha256_of
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
from .psnr_ssim import calculate_psnr, calculate_ssim

CROP_SIZE = 112
# Where ArcFace expects the eyes, the nose and the corners of the mouth; InsightFace aligns its training data to them
ARCFACE_POINTS = np.array([[38.2946, 51.6963], [73.5318, 51.5014], [56.0252, 71.7366], [41.5493, 92.3655],
                           [70.7299, 92.2041]])
_SMALLEST = 11  # pixels: the window of SSIM
_SAME_FACE = 0.3  # how far a face's boxes in two frames overlap at least; the number of SORT, a tracker

Result = TypeVar('Result')


class Detector(Protocol):
    """Finds the faces of a frame, (H, W, 3), uint8, BGR."""

    def __call__(self, frame: np.ndarray) -> Sequence[Face]: ...


class Embedder(Protocol):
    """Embeds aligned faces: (N, 112, 112, 3), uint8, BGR, become (N, D), of any length."""

    def __call__(self, crops: np.ndarray) -> np.ndarray: ...


class FaceScores:
    """Scores of frames by the faces of the ground truth; the truth of a frame is looked at once for all of them.

    All frames are (H, W, 3), uint8, BGR. Every score is the mean over the faces of the truth, NaN where it has none.

    Args:
        detector: finds faces in the ground truth.
        embedder: None: identity and its stability are not asked for.
        min_size: smallest side of a face that counts, of what the frame shows of it, in pixels; 11 at least, the
            window of SSIM.

    Raises:
        ValueError: smaller faces are asked for. Methods raise it for frames of other shapes or types.
    """

    def __init__(self, detector: Detector, embedder: Embedder | None = None, *, min_size: int = 32):
        if min_size < _SMALLEST:
            raise ValueError(f'min_size of faces must be {_SMALLEST} pixels or more, the window of SSIM, but is '
                             f'{min_size}')
        self.detector, self.embedder, self.min_size = detector, embedder, min_size
        self._faces, self._embeddings = _Recent(), _Recent()

    def identity(self, img: np.ndarray, img2: np.ndarray) -> float:
        """Cosine of the embeddings of result and truth: 1 for the same face, near 0 for other people."""
        _check(img, img2)
        return _mean(map(cosine, self.embeddings(img, img2), self.embeddings(img2, img2)))

    def stability(self, img: np.ndarray, img2: np.ndarray, last_img: np.ndarray, last_img2: np.ndarray) -> float:
        """How much more, or less, a face changes from the frame before than it truly does: 0 is best, 2 the worst.

        It is |cos(result, last result) - cos(truth, last truth)| of embeddings. A face is the one of the frame before
        whose box it overlaps most; one that was not there does not count.
        """
        _check(img, img2, last_img, last_img2)
        pairs = followed(self.faces(img2), self.faces(last_img2))
        now, last = self.embeddings(img, img2), self.embeddings(last_img, last_img2)
        true_now, true_last = self.embeddings(img2, img2), self.embeddings(last_img2, last_img2)
        return _mean(abs(cosine(now[i], last[j]) - cosine(true_now[i], true_last[j])) for i, j in pairs)

    def psnr(self, img: np.ndarray, img2: np.ndarray, *, test_y_channel: bool = False) -> float:
        """PSNR of the boxes of the faces, dB; they are not aligned."""
        _check(img, img2)
        return _mean(calculate_psnr(*pair, 0, test_y_channel=test_y_channel) for pair in self._regions(img, img2))

    def ssim(self, img: np.ndarray, img2: np.ndarray, *, test_y_channel: bool = False) -> float:
        """SSIM of the boxes of the faces, by BasicSR's windows that lie within; they are not aligned."""
        _check(img, img2)
        return _mean(calculate_ssim(*pair, 0, test_y_channel=test_y_channel) for pair in self._regions(img, img2))

    def faces(self, truth: np.ndarray) -> list[Face]:
        """The faces of a frame of the ground truth that count."""
        def find() -> list[Face]:
            found = (Face(np.asarray(box), score, np.asarray(points)) for box, score, points in self.detector(truth))
            return [face for face in found if self._counts(face, truth)]

        return self._faces.get((truth,), find)

    def embeddings(self, frame: np.ndarray, truth: np.ndarray) -> np.ndarray:
        """Embeddings of what a frame shows where its truth has faces, (N, D).

        Raises:
            ValueError: there is no embedder.
        """
        if self.embedder is None:
            raise ValueError('identity of faces, and its stability, need an embedder')
        faces = self.faces(truth)
        if not faces:
            return np.zeros((0, 1))
        return self._embeddings.get((frame, truth), lambda: np.asarray(self.embedder(
            np.stack([align(frame, face.points) for face in faces]))))

    def _regions(self, *frames: np.ndarray) -> list[list[np.ndarray]]:
        return [[frame[region(face, frame)] for frame in frames] for face in self.faces(frames[-1])]

    def _counts(self, face: Face, frame: np.ndarray) -> bool:
        if not (np.isfinite(face.box).all() and np.isfinite(face.points).all() and np.ptp(face.points, axis=0).any()):
            return False  # nothing that could be cut out, or aligned
        return min(frame[region(face, frame)].shape[:2]) >= self.min_size


def align(frame: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Turns, scales and shifts a face to where ArcFace expects it; what lies outside the frame is black.

    The transform is the one of least squares (Umeyama 1991), by scikit-image, as InsightFace takes it.

    Args:
        frame: (H, W, 3), uint8.
        points: of the face, (5, 2), see `Face`.

    Returns:
        (112, 112, 3), uint8.
    """
    from skimage.transform import estimate_transform  # here, because importing the package should not cost that

    matrix = estimate_transform('similarity', points, ARCFACE_POINTS).params
    return cv2.warpAffine(frame, matrix[:2], (CROP_SIZE, CROP_SIZE))


def region(face: Face, frame: np.ndarray) -> tuple[slice, slice]:
    """Rows and columns of the whole pixels that a face's box touches, within the frame."""
    left, top, right, bottom = face.box
    height, width = frame.shape[:2]
    return (slice(max(math.floor(top), 0), max(min(math.ceil(bottom), height), 0)),
            slice(max(math.floor(left), 0), max(min(math.ceil(right), width), 0)))


def followed(faces: Sequence[Face], last: Sequence[Face]) -> list[tuple[int, int]]:
    """Which face is which of the frame before: pairs of numbers in both lists.

    Each face is of one pair at most; the pairs are those whose boxes overlap most in sum. Boxes that overlap by less
    than 0.3 of what both cover are of other faces.
    """
    overlaps = np.array([[overlap(face.box, other.box) for other in last] for face in faces])
    pairs = zip(*linear_sum_assignment(overlaps.reshape(len(faces), len(last)), maximize=True), strict=True)
    return [(int(i), int(j)) for i, j in pairs if overlaps[i, j] >= _SAME_FACE]


def overlap(box: np.ndarray, other: np.ndarray) -> float:
    """The share of what two boxes cover that both cover, 0 to 1."""
    shared = np.prod(np.clip(np.minimum(box[2:], other[2:]) - np.maximum(box[:2], other[:2]), 0, None))
    return float(shared / (np.prod(box[2:] - box[:2]) + np.prod(other[2:] - other[:2]) - shared))


def cosine(first: np.ndarray, second: np.ndarray) -> float:
    """Of the angle between two vectors; NaN where one has no length."""
    first, second = first.astype(np.float64), second.astype(np.float64)
    lengths = np.linalg.norm(first) * np.linalg.norm(second)
    return float(first @ second / lengths) if lengths else math.nan


class _Recent:
    """What was found out about the last few frames. They are told apart by what they show: processes that score get
    copies of them."""

    def __init__(self, size: int = 8):  # result and truth of a frame and of the one before, and some more
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
    return hashlib.blake2b(np.ascontiguousarray(frame), person=b'%dx%d' % frame.shape[:2]).digest()


def _mean(scores: Iterable[float]) -> float:
    scores = list(scores)
    return sum(scores) / len(scores) if scores else math.nan


def _check(*frames: np.ndarray) -> None:
    """Raises ValueError where they are no uint8 images of one shape."""
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
    """Identity of faces: cosine of ArcFace's embeddings of the result and of the truth.

    Args:
        img: the result, (H, W, 3), uint8, B, G, R.
        img2: the ground truth, of the same shape and type, in which RetinaFace looks for faces.
        weights: folder of facexlib's files, see `DETECTORS` and `ARCFACE`.
        detector: the network in RetinaFace; 'mobile0.25' is several times as fast, and misses more.
        confidence: 0 to 1; less sure faces do not count.
        min_size: smallest side of a face that counts, pixels of the frame, 11 at least.

    Returns:
        -1 to 1, higher is better; the mean over the faces of the truth; NaN where it has none.

    Raises:
        ModuleNotFoundError: facexlib is not installed.
        FileNotFoundError: a file is missing.
        ValueError: a file is damaged, or of another network; an argument makes no sense; frames of other shapes or
            types.
    """
    return build_scores(weights, detector, confidence, min_size).identity(img, img2)


@METRIC_REGISTRY.register()
def calculate_face_stability(img: np.ndarray, img2: np.ndarray, last_img: np.ndarray, last_img2: np.ndarray, *,
                             weights: str | Path, detector: DetectorName = 'resnet50', confidence: float = 0.97,
                             min_size: int = 32) -> float:
    """Stability of identity: |cos(result, last result) - cos(truth, last truth)| of ArcFace's embeddings of a face.

    Args:
        img, img2: a frame of the result and of the ground truth, see `calculate_face_identity`.
        last_img, last_img2: the frames before them.
        weights, detector, confidence, min_size: see `calculate_face_identity`.

    Returns:
        0 to 2, lower is better; the mean over the faces of the truth that the frame before shows as well, see
        `followed`; NaN where there is none.

    Raises:
        ModuleNotFoundError, FileNotFoundError, ValueError: see `calculate_face_identity`.
    """
    return build_scores(weights, detector, confidence, min_size).stability(img, img2, last_img, last_img2)


@METRIC_REGISTRY.register()
def calculate_face_psnr(img: np.ndarray, img2: np.ndarray, *, weights: str | Path,
                        detector: DetectorName = 'resnet50', confidence: float = 0.97, min_size: int = 32,
                        test_y_channel: bool = False) -> float:
    """PSNR of the boxes of the truth's faces; needs no ArcFace.

    Args:
        img, img2, weights, detector, confidence, min_size: see `calculate_face_identity`.
        test_y_channel: of Y of BT.601 in studio swing.

    Returns:
        In dB, higher is better; the mean over the faces of the truth; NaN where it has none, infinite where one is
        equal.

    Raises:
        ModuleNotFoundError, FileNotFoundError, ValueError: see `calculate_face_identity`.
    """
    return build_scores(weights, detector, confidence, min_size).psnr(img, img2, test_y_channel=test_y_channel)


@METRIC_REGISTRY.register()
def calculate_face_ssim(img: np.ndarray, img2: np.ndarray, *, weights: str | Path,
                        detector: DetectorName = 'resnet50', confidence: float = 0.97, min_size: int = 32,
                        test_y_channel: bool = False) -> float:
    """SSIM of the boxes of the truth's faces; needs no ArcFace.

    Args:
        img, img2, weights, detector, confidence, min_size, test_y_channel: see `calculate_face_psnr`.

    Returns:
        -1 to 1, higher is better; the mean over the faces of the truth; NaN where it has none.

    Raises:
        ModuleNotFoundError, FileNotFoundError, ValueError: see `calculate_face_identity`.
    """
    return build_scores(weights, detector, confidence, min_size).ssim(img, img2, test_y_channel=test_y_channel)


@cache
def build_scores(weights: str | Path, detector: DetectorName = 'resnet50', confidence: float = 0.97,
                 min_size: int = 32) -> FaceScores:
    """The scores by facexlib's networks, one object for all metrics that have the same options.

    Args:
        weights, detector, confidence, min_size: see `calculate_face_identity`.

    Raises:
        ValueError: an argument makes no sense.
    """
    return FaceScores(RetinaFaceDetector(weights, detector, confidence), ArcFaceEmbedder(weights), min_size=min_size)


def unusable(options: Mapping[str, Any], *, recognition: bool) -> str | None:
    """Why a metric cannot be computed here: facexlib or a file is missing; None: it can.

    Args:
        options: of the metric.
        recognition: whether it needs ArcFace.

    Raises:
        ValueError: an option makes no sense; or a file is there, but is damaged or of another network.
    """
    scores = build_scores(**{name: options[name] for name in ('weights', 'detector', 'confidence', 'min_size')
                             if name in options})
    if find_spec('facexlib') is None:
        return "the package facexlib is not installed; pip install 'basicsr_stvsr[face]', or pip install facexlib"
    files = {scores.detector.path: scores.detector.file}
    if recognition:
        files[scores.embedder.path] = ARCFACE
    for path, file in files.items():
        if not path.is_file():
            return f'{path} does not exist; expected the weights of {file.what}, published as {file.published}'
    load_detector(scores.detector.path, scores.detector.network)
    if recognition:
        load_arcface(scores.embedder.path)
    return None


def label(options: Mapping[str, Any], *, recognition: bool) -> str:
    """Names the networks, and their files by the first digits of the sha256: 'retinaface-0a1b2c3d, arcface-4e5f6a7b'.

    Args:
        options, recognition: see `unusable`.
    """
    folder = Path(options['weights']).expanduser()
    files = {'retinaface': DETECTORS[options.get('detector', 'resnet50')]} | (
        {'arcface': ARCFACE} if recognition else {})
    return ', '.join(f'{name}-{sha256_of(folder / file.name)[:8]}' for name, file in files.items())


for _metric, _recognition in ((calculate_face_identity, True), (calculate_face_stability, True),
                              (calculate_face_psnr, False), (calculate_face_ssim, False)):
    _metric.unusable = partial(unusable, recognition=_recognition)
    _metric.label = partial(label, recognition=_recognition)
    _metric.has_coverage = True
