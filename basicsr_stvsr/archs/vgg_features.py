"""Features of VGG-16 up to relu3_3, for losses: torchvision's layers, with weights from a local file.

Shapes: B images, H x W pixels.
"""
from pathlib import Path

import torch
from basicsr.utils.logger import get_root_logger
from torch import Tensor, nn
from torch.nn import functional as F

from .weight_files import check_finite, check_sha256, check_sha256_option, read_state_dict

# Input and output channels of convolutions, by their index in torchvision's `vgg16().features`
CONVS = {0: (3, 64), 2: (64, 64), 5: (64, 128), 7: (128, 128), 10: (128, 256), 12: (256, 256), 14: (256, 256)}
POOLED = (5, 10)  # convolutions after a pooling
LATER_CONVS = (17, 19, 21, 24, 26, 28)  # unused, but a file without them is of another network, such as VGG-19
RANDOM = 'random'
RANDOM_SEED = 0
WHAT = "torchvision's VGG-16"
PUBLISHED = 'https://download.pytorch.org/models/vgg16-397923af.pth'


def read_vgg16(path: str | Path) -> dict[str, Tensor]:
    """Read the weights for `VGGFeatures` from a state dict of torchvision's `vgg16`.

    Raises:
        FileNotFoundError: the file does not exist.
        ValueError: it does not hold these weights.
    """
    state = read_state_dict(path, what=WHAT, published=PUBLISHED)
    expected = {f'features.{number}.{kind}' for number in (*CONVS, *LATER_CONVS) for kind in ('weight', 'bias')}
    found = {name for name in state if name.startswith('features.')}
    shapes = {f'features.{number}.weight': (out, into, 3, 3) for number, (into, out) in CONVS.items()}
    problems = [f'{name} is missing' for name in sorted(expected - found)]
    problems += [f'{name} is not one of its layers' for name in sorted(found - expected)]
    problems += [f'{name} is {tuple(state[name].shape)}, not {shape}' for name, shape in shapes.items()
                 if name in found and tuple(state[name].shape) != shape]
    problems += [f'{name} holds no floats, but {state[name].dtype}' for name in sorted(expected & found)
                 if not state[name].is_floating_point()]
    if problems:
        raise ValueError(f'{path} does not hold the weights of {WHAT}: {problems[0]}; expected the file published as '
                         f'{PUBLISHED}')
    weights = {name: state[name].float() for name in expected if int(name.split('.')[1]) in CONVS}
    for name, value in weights.items():
        check_finite(name, value, path)
    return weights


def random_vgg16() -> dict[str, Tensor]:
    """Return random weights of the same shapes, with a fixed seed.

    He's normal initialisation preserves the scale of activations.
    """
    generator = torch.Generator().manual_seed(RANDOM_SEED)
    state = {}
    for number, (into, out) in CONVS.items():
        normal = torch.randn(out, into, 3, 3, generator=generator, device='cpu')
        state[f'features.{number}.weight'] = normal * (2 / (9 * into))**0.5
        state[f'features.{number}.bias'] = torch.zeros(out, device='cpu')
    return state


class VGGFeatures(nn.Module):
    """The map relu3_3 of VGG-16, after its ReLU.

    It has no parameters: weights are buffers that are neither trained nor saved.

    Args:
        weights: path to a state dict of torchvision's `vgg16`; or 'random', for tests and trials: fixed random weights,
            with a warning in the log.
        sha256: sha256 of that file, or its first digits, at least eight; None: it is not checked.

    Raises:
        FileNotFoundError: the file does not exist.
        ValueError: the file has another sha256, or holds something else; or `sha256` is malformed.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, weights: str | Path, sha256: str | None = None):
        super().__init__()
        if sha256 is not None:
            check_sha256_option(sha256)
        if sha256 is not None and weights == RANDOM:
            raise ValueError(f'sha256 is given, but the weights are {RANDOM!r}, not a file')
        # Options are checked by building their objects on the meta device, without reading half a gigabyte. Errors in
        # the file are raised when the loss is actually built.
        is_trial = torch.get_default_device().type == 'meta'
        if weights == RANDOM and not is_trial:
            get_root_logger().warning(
                f'VGG-16 has fixed random weights (feature_net: {RANDOM}), for tests and trials only: networks trained '
                f'with it say nothing about the method. The true weights: {PUBLISHED}')
        if weights == RANDOM or is_trial:
            state = random_vgg16()
        else:
            state = read_vgg16(weights)
            if sha256 is not None:
                check_sha256(Path(weights).expanduser(), sha256, f'the weights of {WHAT}, published as {PUBLISHED}')
        for number in CONVS:
            for kind in ('weight', 'bias'):
                self.register_buffer(f'{kind}{number}', state[f'features.{number}.{kind}'], persistent=False)
        for name, values in (('mean', (0.485, 0.456, 0.406)), ('std', (0.229, 0.224, 0.225))):  # of ImageNet
            self.register_buffer(name, torch.tensor(values, device='cpu').view(3, 1, 1), persistent=False)

    def forward(self, x: Tensor, normalize: bool = True) -> Tensor:
        """Return non-negative features of images.

        Args:
            x: (B, 3, H, W), RGB, 0-1; or (B, 1, H, W), which is repeated for all three channels.
            normalize: whether to subtract ImageNet's mean and divide by its standard deviation, as in VGG's training.

        Returns:
            (B, 256, H // 4, W // 4).

        Raises:
            ValueError: the input has a wrong shape, or is smaller than 4 x 4.
        """
        if x.dim() != 4 or x.shape[1] not in (1, 3) or min(x.shape[-2:]) < 4:
            raise ValueError(f'VGG-16 takes images of one or three channels, (B, C, H, W), 4 x 4 or larger, but got '
                             f'{tuple(x.shape)}')
        x = x.expand(-1, 3, -1, -1)
        if normalize:
            x = (x - self.mean) / self.std
        for number in CONVS:
            if number in POOLED:
                x = F.max_pool2d(x, 2)
            weight, bias = self.get_buffer(f'weight{number}'), self.get_buffer(f'bias{number}')
            x = F.relu(F.conv2d(x, weight, bias, padding=1))
        return x
