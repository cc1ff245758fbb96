"""Runs a network over a clip of any size and length.

A network states what it needs: `scale`, `temporal_scale` (1, or 2 where it makes the frame between two), `num_frames`
(its window; None: any number), `size_multiple`.
Shapes: B clips, T frames in, U frames out, H x W pixels of the LR grid, s = scale.
"""
import torch
from torch import Tensor, nn
from torch.nn import functional as F

OVERLAP_RULES = ('first', 'last', 'mean', 'all')


def output_length(net: nn.Module, num_frames: int) -> int:
    """Number of frames that `num_frames` become: 2T - 1 where the network doubles the frame rate, else T."""
    return net.temporal_scale * (num_frames - 1) + 1


def pad_to_multiple(lq: Tensor, multiple: int) -> Tensor:
    """Repeats the last row and column until height and width of (B, T, C, H, W) are divisible by `multiple`."""
    h, w = lq.shape[-2:]
    padded = F.pad(lq.flatten(0, 1), (0, -w % multiple, 0, -h % multiple), mode='replicate')
    return padded.unflatten(0, lq.shape[:2])


@torch.no_grad()
def restore_windows(net: nn.Module, lq: Tensor) -> Tensor:
    """Restores a clip window by window.

    The clip may lie in main memory while the network is on a GPU: only one window at a time is brought there.

    Args:
        net: a network that states its needs.
        lq: (B, T, C, H, W), 0-1, any H and W.

    Returns:
        (B, N, V, C, sH, sW), clamped to 0-1, where `lq` lies: the V output frames of each of N windows, which start one
        input frame apart; window n's frame v is frame `temporal_scale * n + v` of the clip.

    Raises:
        ValueError: the clip is shorter than the network's window.
    """
    num_frames, (h, w) = lq.shape[1], lq.shape[-2:]
    window = net.num_frames or num_frames
    if num_frames < window:
        raise ValueError(f'{type(net).__name__} works on windows of {window} frames, but the clip has {num_frames}')
    device = next((parameter.device for parameter in net.parameters()), lq.device)
    padded = pad_to_multiple(lq, net.size_multiple)
    outputs = [
        net(padded[:, start:start + window].to(device))[..., :net.scale * h, :net.scale * w].clamp(0, 1).to(lq.device)
        for start in range(num_frames - window + 1)
    ]
    return torch.stack(outputs, dim=1)


def join_windows(windows: Tensor, temporal_scale: int, overlap: str = 'first') -> Tensor:
    """Joins the output of `restore_windows` to one clip.

    Args:
        windows: (B, N, V, C, H, W).
        temporal_scale: frames by which neighbouring windows are apart.
        overlap: which copy of a frame that several windows made is kept: the 'first', the 'last', or their 'mean';
            'all' keeps every copy, window after window, as scoring by triplets counts them.

    Returns:
        (B, U, C, H, W) with U = temporal_scale (N - 1) + V, or N V for 'all'.
    """
    if overlap not in OVERLAP_RULES:
        raise ValueError(f'overlap must be one of {", ".join(OVERLAP_RULES)}, but got {overlap!r}')
    if overlap == 'all':
        return windows.flatten(1, 2)
    b, n, v = windows.shape[:3]
    clip = windows.new_zeros(b, temporal_scale * (n - 1) + v, *windows.shape[3:])
    copies = windows.new_zeros(clip.shape[1])
    order = reversed(range(n)) if overlap == 'first' else range(n)  # a later write wins
    for i in order:
        target = slice(temporal_scale * i, temporal_scale * i + v)
        if overlap == 'mean':
            clip[:, target] += windows[:, i]
            copies[target] += 1
        else:
            clip[:, target] = windows[:, i]
    return clip / copies.view(-1, 1, 1, 1) if overlap == 'mean' else clip


def window_frames(num_windows: int, num_out: int, temporal_scale: int, overlap: str = 'first') -> list[int]:
    """Which frame of the clip each frame of `join_windows` is: counts up, but for 'all', which repeats some."""
    if overlap == 'all':
        return [temporal_scale * n + v for n in range(num_windows) for v in range(num_out)]
    return list(range(temporal_scale * (num_windows - 1) + num_out))


def restore_clip(net: nn.Module, lq: Tensor, overlap: str = 'first') -> Tensor:
    """Restores a clip of any size and length, (B, T, C, H, W) -> (B, U, C, sH, sW); see the functions it is made of."""
    return join_windows(restore_windows(net, lq), net.temporal_scale, overlap)
