"""Networks that detect and recognise faces: facexlib's RetinaFace and ArcFace, on the CPU.

Papers: RetinaFace: Single-shot Multi-level Face Localisation in the Wild (CVPR 2020), https://arxiv.org/abs/1905.00641,
and ArcFace: Additive Angular Margin Loss for Deep Face Recognition (CVPR 2019), https://arxiv.org/abs/1801.07698.
Code: https://github.com/xinntao/facexlib. The networks come from the optional package facexlib. facexlib itself
downloads the weights and runs ArcFace only on a GPU. Here weights are read from a local folder, and only tensors are
loaded from pickles.
Shapes: N faces; frames and crops are uint8, B, G, R, as in OpenCV.
"""
import importlib
import warnings
from collections.abc import Callable
from functools import cache, lru_cache
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol, cast

import cv2
import numpy as np
import torch
from torch import Tensor, nn

from ..archs.weight_files import load_weights, read_state_dict

DetectorName = Literal['resnet50', 'mobile0.25']

_RELEASE = 'https://github.com/xinntao/facexlib/releases/download/v0.1.0/'
_OVERLAP = 0.4  # boxes with a larger overlap show one face; facexlib's value
_BATCH = 16  # crops in memory at once; more are embedded in parts


class Face(NamedTuple):
    """A face in a frame.

    Attributes:
        box: left, top, right, bottom, in pixels; may extend beyond the frame.
        score: confidence of the detector, 0 to 1.
        points: (5, 2), x and y in pixels: eyes, nose, corners of the mouth; those on the left of the picture first.
    """

    box: np.ndarray
    score: float
    points: np.ndarray


class WeightsFile(NamedTuple):
    """A file of facexlib's release.

    Attributes:
        name: name of the file.
        what: the network whose weights it holds, for messages.
    """

    name: str
    what: str

    @property
    def published(self) -> str:
        return _RELEASE + self.name


DETECTORS: dict[DetectorName, WeightsFile] = {
    'resnet50': WeightsFile('detection_Resnet50_Final.pth', "facexlib's RetinaFace (ResNet-50)"),
    'mobile0.25': WeightsFile('detection_mobilenet0.25_Final.pth', "facexlib's RetinaFace (MobileNet 0.25)"),
}
ARCFACE = WeightsFile('recognition_arcface_ir_se50.pth', "facexlib's ArcFace (IR-SE-50)")


class _RetinaFace(Protocol):
    """facexlib's network."""

    mean_tensor: Tensor
    cfg: dict[str, Any]

    def __call__(self, images: Tensor) -> Any: ...


class RetinaFaceDetector:
    """Detect the faces of a frame, the most confident first.

    Frames are not resized. As in facexlib, only ImageNet's mean colour, B, G, R, is subtracted.

    Args:
        folder: folder with the weights under facexlib's names, see `DETECTORS`; they are read on first use.
        network: the backbone.
        confidence: 0 to 1; faces with a lower score are left out. facexlib's own scripts use 0.97.

    Raises:
        ValueError: the network is unknown, or the confidence is not between 0 and 1.
    """

    def __init__(self, folder: str | Path, network: DetectorName = 'resnet50', confidence: float = 0.97):
        if network not in DETECTORS:
            raise ValueError(f'the face detector must be one of {", ".join(DETECTORS)}, but is {network!r}')
        if not 0 <= confidence < 1:
            raise ValueError(f'confidence must be >= 0 and < 1, but is {confidence}')
        self.file, self.network, self.confidence = DETECTORS[network], network, confidence
        self.path = Path(folder).expanduser() / self.file.name

    @torch.no_grad()
    def __call__(self, frame: np.ndarray) -> list[Face]:
        """Return the faces of a frame.

        Args:
            frame: (H, W, 3), uint8, BGR.

        Raises:
            ModuleNotFoundError, FileNotFoundError, ValueError: see `load_detector`.
        """
        net = cast(_RetinaFace, load_detector(self.path, self.network))
        height, width = frame.shape[:2]
        boxes, scores, points = (values[0] for values in net(_to_tensor(frame[None]) - net.mean_tensor))
        sure = scores[:, 1] > self.confidence  # the other class is 'no face'
        boxes, scores, points = boxes[sure], scores[sure, 1], points[sure]
        anchors, variance = _anchors(self.network, height, width)[sure], net.cfg['variance']
        utils = _import('facexlib.detection.retinaface_utils')
        size = torch.tensor([width, height])  # coordinates are fractions of the frame
        boxes = (utils.decode(boxes, anchors, variance).view(-1, 2, 2) * size).view(-1, 4).numpy()
        points = (utils.decode_landm(points, anchors, variance).view(-1, 5, 2) * size).numpy()
        return [Face(boxes[i], float(scores[i]), points[i]) for i in _distinct(boxes, scores.numpy())]


class ArcFaceEmbedder:
    """Embed aligned faces, so that faces of one person have a large cosine.

    Channels stay in the order B, G, R, and levels are scaled to -1 to 1. The network's authors trained and validated it
    like this, https://github.com/TreB1eN/InsightFace_Pytorch. facexlib itself contains no code that calls the network.

    Args:
        folder: folder with the weights under facexlib's name, `ARCFACE`; they are read on first use.
    """

    def __init__(self, folder: str | Path):
        self.path = Path(folder).expanduser() / ARCFACE.name

    @torch.no_grad()
    def __call__(self, crops: np.ndarray) -> np.ndarray:
        """Return the embeddings of faces.

        Args:
            crops: (N, 112, 112, 3), uint8, BGR, aligned to ArcFace's points.

        Returns:
            (N, 512), float32, of length 1.

        Raises:
            ModuleNotFoundError, FileNotFoundError, ValueError: see `load_arcface`.
        """
        net = load_arcface(self.path)
        return torch.cat([net(batch) for batch in (_to_tensor(crops) / 127.5 - 1).split(_BATCH)]).numpy()


@cache
def load_detector(path: Path, network: DetectorName) -> nn.Module:
    """Load facexlib's RetinaFace with weights from a local file.

    Raises:
        ModuleNotFoundError: facexlib is not installed.
        FileNotFoundError: the file does not exist.
        ValueError: it is damaged, or of another network.
    """
    module = _import('facexlib.detection.retinaface')
    return _loaded(lambda: module.RetinaFace(network_name=network, device=torch.device('cpu')), path,
                   DETECTORS[network])


@cache
def load_arcface(path: Path) -> nn.Module:
    """Load facexlib's ArcFace with weights from a local file.

    Raises:
        ModuleNotFoundError, FileNotFoundError, ValueError: see `load_detector`.
    """
    module = _import('facexlib.recognition.arcface_arch')
    return _loaded(lambda: module.Backbone(num_layers=50, drop_ratio=0.6, mode='ir_se'), path, ARCFACE)


def _loaded(build: Callable[[], nn.Module], path: Path, file: WeightsFile) -> nn.Module:
    state = read_state_dict(path, what=file.what, published=file.published, keys=())
    # The constructor draws random weights first. This must not change the random state of a training, which is restored
    # on resume. Also, torchvision warns about the arguments that facexlib passes.
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.simplefilter('ignore')
        net = build()
    # Files from before PyTorch 0.4.1 lack these counters. A trained network does not use them.
    counters = {name: value for name, value in net.state_dict().items() if name.endswith('num_batches_tracked')}
    load_weights(net, counters | state, path=path, what=file.what)
    return net.eval().requires_grad_(False)


def _import(name: str) -> Any:
    """Import a module of facexlib.

    Raises:
        ModuleNotFoundError: facexlib is not installed.
    """
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(f'faces need the package facexlib ({error}): '
                                  "pip install 'basicsr_stvsr[face]', or pip install facexlib") from error


@lru_cache(4)
def _anchors(network: DetectorName, height: int, width: int) -> Tensor:
    """Return the anchor boxes of the network, (number, 4): centre and size; facexlib computes them one by one."""
    config = _import('facexlib.detection.retinaface').generate_config(network)
    return _import('facexlib.detection.retinaface_utils').PriorBox(config, image_size=(height, width)).forward()


def _distinct(boxes: np.ndarray, scores: np.ndarray) -> list[int]:
    """Return the indices of boxes after non-maximum suppression, the most confident first.

    torchvision's operator for it may be missing.
    """
    if not len(boxes):
        return []
    corners = boxes.astype(np.float64)
    rectangles = np.concatenate((corners[:, :2], corners[:, 2:] - corners[:, :2]), axis=1)
    return list(cv2.dnn.NMSBoxes(rectangles, scores, 0, _OVERLAP))  # type: ignore[arg-type]  # takes arrays too


def _to_tensor(images: np.ndarray) -> Tensor:  # (N, H, W, 3), uint8 -> (N, 3, H, W), float, 0-255
    # A copy: facexlib's networks flatten by `view`, which needs contiguous (N, C, H, W)
    return torch.from_numpy(images.transpose(0, 3, 1, 2).astype(np.float32, order='C'))
