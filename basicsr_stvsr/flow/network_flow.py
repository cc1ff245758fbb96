"""Optical flow by trained networks, with weights from local files."""
from abc import abstractmethod
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from ..archs.arch_util import upsample_flow
from ..archs.flow_teacher import RAFTTeacher
from ..archs.pwcnet_arch import PWCNet
from ..config.registered import FLOW_REGISTRY
from .base import FlowEstimator


class NetworkFlow(FlowEstimator):
    """Estimate flow with a network; frames are padded at the right and bottom to a size that it accepts.

    The padding repeats the last pixels.

    Args:
        upscale: see `FlowEstimator`.
        device: device of the network. Forked DataLoader workers cannot use a GPU.
    """

    size_multiple: int
    smallest_size = 0

    def __init__(self, upscale: int, device: str):
        super().__init__(upscale)
        self.device = torch.device(device)

    @torch.no_grad()
    def estimate(self, first: np.ndarray, second: np.ndarray) -> np.ndarray:
        height, width = first.shape[:2]
        flow = self.network_flow(*(self._to_input(frame) for frame in (first, second)))
        return flow[0, :, :height, :width].permute(1, 2, 0).float().cpu().numpy()

    @abstractmethod
    def network_flow(self, first: Tensor, second: Tensor) -> Tensor:
        """Estimate the flow from `first` to `second`: (1, 3, H, W) BGR, 0-1 -> (1, 2, H, W), pixels."""

    def _to_input(self, frame: np.ndarray) -> Tensor:
        image = torch.from_numpy(np.ascontiguousarray(frame)).to(self.device).permute(2, 0, 1).unsqueeze(0) / 255
        padding = [max(self.smallest_size, side + -side % self.size_multiple) - side for side in image.shape[-2:]]
        return F.pad(image, (0, padding[1], 0, padding[0]), 'replicate')


@FLOW_REGISTRY.register()
class PWCFlow(NetworkFlow):
    """PWC-Net (CVPR 2018), the network that FISR's authors used.

    Args:
        weights: file of `PWCNet`, or as published by the authors of PWC-Net (PyTorch/pwc_net.pth.tar of NVlabs/PWC-Net
            on GitHub). FISR's authors used weights of another implementation, in TensorFlow.
        upscale: see `FlowEstimator`; FISR's authors used 2, the default.
        device: device of the network; 'cpu' in DataLoader workers.

    Raises:
        FileNotFoundError: the file does not exist.
        ValueError: it holds something else, or `upscale` is less than 1.
    """

    size_multiple = 64

    def __init__(self, weights: str | Path, *, upscale: int = 2, device: str = 'cpu'):
        super().__init__(upscale, device)
        self.net = PWCNet(pretrained=str(weights)).to(self.device).eval()

    def network_flow(self, first: Tensor, second: Tensor) -> Tensor:
        return upsample_flow(self.net.flow_between(first, second), 4)


@FLOW_REGISTRY.register()
class RAFTFlow(NetworkFlow):
    """RAFT (ECCV 2020), torchvision's.

    Args:
        weights: file of torchvision's `raft_large` (raft_large_C_T_SKHT_V2-ff5fadd5.pth).
        upscale: see `FlowEstimator`.
        device: device of the network; 'cpu' in DataLoader workers.

    Raises:
        FileNotFoundError: the file does not exist.
        ValueError: it holds something else, or `upscale` is less than 1.
    """

    size_multiple = 8
    smallest_size = 128

    def __init__(self, weights: str | Path, *, upscale: int = 1, device: str = 'cpu'):
        super().__init__(upscale, device)
        self.net = RAFTTeacher(weights).to(self.device)

    def network_flow(self, first: Tensor, second: Tensor) -> Tensor:
        return self.net(first.flip(1), second.flip(1))
