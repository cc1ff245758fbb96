"""LPIPS, a distance of frames in the feature space of an image network; also known as PercepDist.

Paper: The Unreasonable Effectiveness of Deep Features as a Perceptual Metric (CVPR 2018),
https://arxiv.org/abs/1801.03924.  Official code: https://github.com/richzhang/PerceptualSimilarity, the package lpips,
which computes the metric here.  The package includes the weights of its linear layers, version 0.1, but not those of
the backbone. lpips would download these; here they are read from a local file, as published by torchvision.
"""
import re
import warnings
from collections.abc import Mapping
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from basicsr.utils.registry import METRIC_REGISTRY
from torch import Tensor, nn

from ..archs.weight_files import check_sha256, check_sha256_option, load_weights, read_state_dict, sha256_of
from .metric_util import cropped, declare

Net = Literal['alex', 'vgg', 'squeeze']

class Backbone(NamedTuple):
    """A network whose features lpips compares.

    Attributes:
        what: its name, for messages.
        published: where torchvision publishes its weights.
        smallest_side: smallest side of a frame, in pixels; smaller frames vanish at the last pooling.
    """

    what: str
    published: str
    smallest_side: int


BACKBONES = {
    'alex': Backbone("torchvision's AlexNet", 'https://download.pytorch.org/models/alexnet-owt-7be5be79.pth', 31),
    'vgg': Backbone("torchvision's VGG-16", 'https://download.pytorch.org/models/vgg16-397923af.pth', 16),
    'squeeze': Backbone("torchvision's SqueezeNet 1.1",
                        'https://download.pytorch.org/models/squeezenet1_1-b8a52dc0.pth', 17),
}


@METRIC_REGISTRY.register()
def calculate_lpips(img: np.ndarray, img2: np.ndarray, *, backbone: str | Path, net: Net = 'alex',
                    sha256: str | None = None, crop_border: int = 0) -> float:
    """Return LPIPS (PercepDist), the distance of two frames by the features of AlexNet, VGG-16 or SqueezeNet.

    Frames are not resized. Distances by different backbones are not comparable.

    Args:
        img: the result, (H, W, 3), uint8, B, G, R.
        img2: the ground truth, of the same shape and type.
        backbone: path to torchvision's weights of the backbone, see `BACKBONES`.
        net: name of the backbone.
        sha256: sha256 of that file, or its first digits, at least eight; None: the digits at the end of its name, if
            any.
        crop_border: pixels to leave out at every side.

    Returns:
        0 for equal frames, larger for others, rarely above 1; lower is better.

    Raises:
        ModuleNotFoundError: lpips is not installed.
        FileNotFoundError: the file does not exist.
        ValueError: the file is damaged or of another network; or frames have wrong shapes or types, or are too small.
    """
    if img.shape != img2.shape or img.ndim != 3 or img.shape[2] != 3 or not img.dtype == img2.dtype == np.uint8:
        raise ValueError('calculate_lpips needs two frames of the same shape (H, W, 3), uint8 (BGR), but they are '
                         f'{img.shape} of {img.dtype} and {img2.shape} of {img2.dtype}')
    img, img2 = (cropped(frame, crop_border, 'calculate_lpips') for frame in (img, img2))
    model = build_lpips(Path(backbone).expanduser(), net, sha256)
    if min(img.shape[:2]) < BACKBONES[net].smallest_side:
        raise ValueError(f'calculate_lpips needs frames of at least {BACKBONES[net].smallest_side} pixels a side '
                         f'within the border for {net!r}, but they are {img.shape[0]}x{img.shape[1]} (h x w)')
    with torch.no_grad():
        return float(model(_to_input(img), _to_input(img2)))


def unusable(options: Mapping[str, Any]) -> str | None:
    """Return why the metric cannot be computed here, or None: its package or its file may be missing.

    Args:
        options: of `calculate_lpips`.

    Raises:
        ValueError: the file is damaged or of another network.
    """
    net, path = options.get('net', 'alex'), Path(options['backbone']).expanduser()
    if find_spec('lpips') is None:
        return 'the package lpips is not installed; pip install lpips'
    if not path.is_file():
        return (f'{path} does not exist; expected the weights of {BACKBONES[net].what}, published as '
                f'{BACKBONES[net].published}')
    build_lpips(path, net, options.get('sha256'))
    return None


def label(options: Mapping[str, Any]) -> str:
    """Return the backbone and the first digits of its file's sha256, as in 'alex-7be5be79'.

    Args:
        options: of `calculate_lpips`.
    """
    return f'{options.get("net", "alex")}-{sha256_of(Path(options["backbone"]).expanduser())[:8]}'


declare(calculate_lpips, unusable=unusable, label=label)


@cache
def build_lpips(path: Path, net: Net, sha256: str | None = None) -> nn.Module:
    """Build LPIPS 0.1 with a backbone from a local file.

    The result is called with two tensors (1, 3, H, W), RGB, -1 to 1.

    Args:
        path, net, sha256: see `calculate_lpips`.

    Raises:
        ModuleNotFoundError, FileNotFoundError, ValueError: see `calculate_lpips`.
    """
    if net not in BACKBONES:
        raise ValueError(f'calculate_lpips: net must be one of {", ".join(BACKBONES)}, but is {net!r}')
    if sha256 is not None:
        check_sha256_option(sha256)
    import lpips  # optional

    what = BACKBONES[net].what
    state = read_state_dict(path, what=what, published=BACKBONES[net].published)
    in_name = re.search(r'-([0-9a-f]{8,64})\.pth$', path.name)
    expected = sha256 or (in_name[1] if in_name else None)
    if expected:
        check_sha256(path, expected, f'the weights of {what}, published as {BACKBONES[net].published}')
    # lpips draws random weights, which are replaced below. This must not change the random state of a training, which
    # is restored on resume. Also, torchvision warns about the arguments that lpips passes.
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.simplefilter('ignore')
        model = lpips.LPIPS(net=net, pnet_rand=True, verbose=False)
    # lpips splits the layers into slices, and keeps their numbers: features.3 is slice2.3.
    features = {name: value for name, value in state.items() if name.startswith('features.')}
    slices = {re.sub(r'slice\d+', 'features', name): name for name in model.net.state_dict()}
    load_weights(model.net, {slices.get(name, name): value for name, value in features.items()}, path=path, what=what)
    return model.eval().requires_grad_(False)


def _to_input(frame: np.ndarray) -> Tensor:  # uint8 BGR (H, W, 3) -> RGB (1, 3, H, W), -1 to 1
    return torch.from_numpy(np.ascontiguousarray(frame[..., ::-1])).permute(2, 0, 1).unsqueeze(0) / 127.5 - 1
