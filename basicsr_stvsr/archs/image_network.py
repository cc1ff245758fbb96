"""Networks of other tools for single images, such as Real-ESRGAN's files: spandrel recognises them by their weights."""
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from .spec import NetSpec
from .weight_files import load_file

SUFFIXES = ('.pth', '.pt', '.ckpt', '.safetensors')


class ImageNetwork(nn.Module):
    """A network that enlarges or restores one frame at a time.

    Args:
        described: spandrel's `ImageModelDescriptor`.

    Attributes:
        architecture: its name, such as ESRGAN.
    """

    def __init__(self, described: Any):
        super().__init__()
        self.net, self._described = described.model, described
        self.architecture: str = described.architecture.name
        self.spec = NetSpec(scale=described.scale, num_frames=1, color='y' if described.input_channels == 1 else 'rgb',
                            needs_float32=not described.supports_bfloat16,
                            whole_frames=described.tiling.name != 'SUPPORTED')

    def forward(self, lq: Tensor) -> Tensor:  # (B, 1, C, H, W) -> (B, 1, C, sH, sW)
        return torch.stack([self._described(frame) for frame in lq])


def load_image_network(path: str | Path) -> ImageNetwork:
    """Load a network from its weights file, in evaluation mode. No code from the file runs.

    Raises:
        FileNotFoundError: the file does not exist.
        ValueError: spandrel is not installed, or does not recognise the file as such a network.
    """
    try:
        import spandrel
    except ModuleNotFoundError as error:
        if error.name != 'spandrel':
            raise
        raise ValueError(f"{path}: reading weights of other tools needs spandrel: pip install 'basicsr_stvsr[spandrel]'"
                         ) from None
    expected = 'the weights of a network for single images'
    weights = load_file(path, expected)
    try:
        described = spandrel.ModelLoader('cpu').load_from_state_dict(weights)
    except Exception as error:  # spandrel's detection and construction fail in many ways on foreign weights
        raise ValueError(f'{path}: spandrel does not recognise a network in this file ({type(error).__name__}); '
                         f'expected {expected}') from error
    channels = described.input_channels, described.output_channels
    if not isinstance(described, spandrel.ImageModelDescriptor) or channels not in ((3, 3), (1, 1)):
        raise ValueError(f'{path}: {described.architecture.name} for {described.purpose}, {channels[0]} channels in '
                         f'and {channels[1]} out; expected {expected}, in RGB or grey')
    return ImageNetwork(described).eval().requires_grad_(False)
