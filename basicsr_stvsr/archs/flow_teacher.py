"""A trained flow network as teacher: torchvision's RAFT, with weights from a local file."""
from pathlib import Path

import torch
from torch import Tensor, nn

from .weight_files import load_weights, read_state_dict


class RAFTTeacher(nn.Module):
    """RAFT (ECCV 2020) with frozen weights.

    Args:
        weights: path to a state dict of torchvision's `raft_large`.

    Raises:
        FileNotFoundError, ValueError: the file does not exist, or holds something else.
    """

    def __init__(self, weights: str | Path):
        super().__init__()
        from torchvision.models.optical_flow import raft_large  # takes a second to import

        self.net = raft_large(weights=None)
        state = read_state_dict(
            weights, what="torchvision's raft_large",
            published='https://download.pytorch.org/models/raft_large_C_T_SKHT_V2-ff5fadd5.pth')
        load_weights(self.net, state, path=weights, what="torchvision's raft_large")
        self.net.eval().requires_grad_(False)

    def train(self, mode: bool = True) -> 'RAFTTeacher':
        return self  # keep the statistics of batch norm

    @torch.no_grad()
    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        """Estimate flow_ab: `warp(b, flow_ab)` looks like a.

        Args:
            a, b: (B, 3, H, W), RGB, 0-1; at least 128 pixels high and wide, divisible by 8.

        Returns:
            (B, 2, H, W), pixels.
        """
        return self.net(2 * a - 1, 2 * b - 1)[-1]
