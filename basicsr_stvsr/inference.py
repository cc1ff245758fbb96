"""Runs a network over a clip of any size and length.

A network states what it needs: `scale`, `temporal_scale` (1, or 2 where it makes the frame between two), `num_frames`
(its window; None: any number), `size_multiple`; and where they are not these, `first_output` (0), the number of the
first frame that a window gives, `pads_ends` (False), whether the frames at the ends of a clip are repeated so that none
is missing, `color` (None: any), `needs_flow` (False) and `overlap` ('first', see `restore_frames`). A recurrent network
has `step(frame, state) -> (frame, state)`, by which clips are restored frame after frame.
Shapes: B clips, T frames in, U frames out, H x W pixels of the LR grid, s = scale. Frames out are numbered from the
first frame in, in steps of half a frame where the network doubles the frame rate.
"""
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from itertools import pairwise, product
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

OVERLAP_RULES = ('first', 'last', 'middle', 'mean', 'all')


class Tiling(NamedTuple):
    """How a frame is cut up where the network cannot take it whole."""

    grid: tuple[int, int]  # rows and columns of tiles
    # LR pixels that a tile sees beyond its own, on sides where another begins; rounded up to the network's
    # size_multiple, so that tiles lie on the grid on which it pools and sub-samples
    overlap: int


def first_output(net: nn.Module, *, of_clip: bool = True) -> int:
    """Number of the first frame that comes out; as many are missing at the end.

    Args:
        of_clip: of a whole clip, whose ends may be padded; else of a window, or of a sample of windows for training.
    """
    return 0 if of_clip and getattr(net, 'pads_ends', False) else getattr(net, 'first_output', 0)


def overlap_of(net: nn.Module) -> str:
    """Which copy of a frame that two windows made counts where nobody says: what its paper does, or else the first."""
    return getattr(net, 'overlap', 'first')


def padding(net: nn.Module) -> int:
    """How often the first and the last frame of a clip are repeated: until they are the middle one of a window."""
    return net.num_frames // 2 if getattr(net, 'pads_ends', False) else 0


def window_start(net: nn.Module, window: int = 0) -> int:
    """Number, in the clip, of the first frame that a window gives; below 0 where that belongs to a repeated frame."""
    return net.temporal_scale * (window - padding(net)) + first_output(net, of_clip=False)


def output_length(net: nn.Module, num_frames: int, *, of_clip: bool = True) -> int:
    """Number of frames that `num_frames` become: 2T - 1 where the network doubles the frame rate, else T; less those
    at both ends that it does not make.

    Args:
        of_clip: see `first_output`.
    """
    return net.temporal_scale * (num_frames - 1) + 1 - 2 * first_output(net, of_clip=of_clip)


def frames_of_windows(net: nn.Module, num_frames: int) -> list[int]:
    """Numbers of the frames that the windows run over, one after another: all; and the first and the last again where
    the network pads the ends, so that it makes every frame, of clips shorter than its window too."""
    before = padding(net)
    return [min(max(number - before, 0), num_frames - 1) for number in range(num_frames + 2 * before)]


def is_recurrent(net: nn.Module) -> bool:
    """Whether it restores clips frame after frame, with a state that each leaves to the next."""
    return hasattr(net, 'step')


def check_color(net: nn.Module, color: str) -> None:
    """Raises ValueError where a network takes clips of another colour space."""
    expected = getattr(net, 'color', None)
    if expected not in (None, color):
        raise ValueError(f'{type(net).__name__} takes {expected} clips, but this one is {color}; set color: {expected} '
                         'of the data set, which converts')


def pad_to_multiple(lq: Tensor, multiple: int) -> Tensor:
    """Repeats the last row and column until height and width of (..., H, W) are divisible by `multiple`."""
    h, w = lq.shape[-2:]
    padded = F.pad(lq.flatten(0, -3), (0, -w % multiple, 0, -h % multiple), mode='replicate')
    return padded.unflatten(0, lq.shape[:-2])


@torch.no_grad()
def restore_windows(net: nn.Module, lq: Tensor, flow: Tensor | None = None, tiling: Tiling | None = None,
                    cuts: Collection[int] = ()) -> Iterator[Tensor]:
    """Restores a clip window by window; by a recurrent network, frame by frame.

    The clip may lie in main memory while the network is on a GPU: only one window at a time, or one tile of it, is
    brought there.

    Args:
        net: a network that states its needs.
        lq: (B, T, C, H, W), 0-1, any H and W.
        flow: (B, T - 1, 2, 2, H, W), LR pixels, for a network with `needs_flow`, and passed over by others: of each
            pair of neighbours the flow from the first to the second, on the first's grid, and back.
        tiling: how to cut up frames; default: not at all.
        cuts: numbers of the frames with which a new scene begins, for a recurrent network, which starts afresh there;
            passed over by others.

    Yields:
        (B, V, C, sH, sW), clamped to 0-1, where `lq` lies: the V output frames of each window. Windows start one input
        frame apart; window n's frame v is frame `window_start(net, n) + v` of the clip, if the clip has it.

    Raises:
        ValueError: the clip is shorter than the network's window, or comes without the flow that it needs.
    """
    if is_recurrent(net):
        scenes = ((frame, number in cuts) for number, frame in enumerate(lq.unbind(1)))
        yield from (frame.unsqueeze(1) for frame in restore_stream(net, scenes, tiling))
        return
    numbers = frames_of_windows(net, lq.shape[1])
    window = net.num_frames or len(numbers)
    needs_flow = getattr(net, 'needs_flow', False)
    if len(numbers) < window:
        raise ValueError(f'{type(net).__name__} works on windows of {window} frames, but the clip has {lq.shape[1]}')
    if needs_flow and flow is None:
        raise ValueError(f'{type(net).__name__} needs the flow between the LR frames, which was not given: set '
                         'flow_opt of the data set, or see basicsr_stvsr.flow')
    for start in range(len(numbers) - window + 1):
        inputs = (lq[:, numbers[start:start + window]],)
        if needs_flow:
            inputs = net.inputs(*inputs, flow[:, start:start + window - 1])
        yield restore_tiles(net, inputs, tiling).clamp_(0, 1)


@torch.no_grad()
def restore_stream(net: nn.Module, frames: Iterable[tuple[Tensor, bool]], tiling: Tiling | None = None) -> Iterator[
        Tensor]:
    """Restores a stream of any length by a recurrent network; of what has passed, only the state is kept.

    Args:
        net: a recurrent network.
        frames: each frame, (B, C, H, W), 0-1, any H and W, with whether a new scene begins with it.
        tiling: see `restore_windows`; each tile has a state of its own.

    Yields:
        (B, C, sH, sW), clamped to 0-1, where the frame lies.
    """
    states: dict[tuple[int, int], Any] = {}  # by the corner of the tile

    def step(corner: tuple[int, int], tile: Tensor) -> Tensor:
        restored, states[corner] = net.step(tile, states.get(corner))
        return restored

    for frame, begins_scene in frames:
        if begins_scene:
            states.clear()
        yield restore_tiles(net, (frame,), tiling, step).clamp_(0, 1)


def restore_frames(net: nn.Module, lq: Tensor, flow: Tensor | None = None, tiling: Tiling | None = None,
                   overlap: str | None = None, cuts: Collection[int] = ()) -> Iterator[tuple[int, Tensor]]:
    """Restores a clip frame by frame; what has been handed out is not kept.

    Args:
        net, lq, flow, tiling, cuts: as `restore_windows` takes them.
        overlap: which copy of a frame that several windows make is given: the 'first', the 'last', the one nearest the
            'middle' of its window, or their 'mean'; 'all' gives every copy, window after window, as scoring by triplets
            counts them; default: the network's.

    Yields:
        number of the frame in the clip, and the frame, (B, C, sH, sW); in rising order, but for 'all'.

    Raises:
        ValueError: as `restore_windows`, or for an unknown `overlap`.
    """
    overlap = overlap or overlap_of(net)
    if overlap not in OVERLAP_RULES:
        raise ValueError(f'overlap must be one of {", ".join(OVERLAP_RULES)}, but got {overlap!r}')
    held: dict[int, list[Tensor]] = {}  # number -> the copies that count so far
    nearest: dict[int, float] = {}  # number -> how far the last of them is from the middle of its window
    first, num_out = first_output(net), output_length(net, lq.shape[1])
    for n, window in enumerate(restore_windows(net, lq, flow, tiling, cuts)):
        start, middle = window_start(net, n), (window.shape[1] - 1) / 2
        for number in [number for number in held if number < start]:  # no window makes it any more
            del nearest[number]
            yield number, mean_frame(held.pop(number))
        for place, frame in enumerate(window.unbind(1)):
            number, distance = start + place, abs(place - middle)
            if not first <= number < first + num_out:  # made of repeated frames alone
                continue
            if overlap == 'all':
                yield number, frame
            elif overlap == 'mean' or number not in held:
                held.setdefault(number, []).append(frame)
                nearest[number] = distance
            elif overlap == 'last' or overlap == 'middle' and distance < nearest[number]:
                held[number], nearest[number] = [frame], distance
    for number, copies in held.items():
        yield number, mean_frame(copies)


def mean_frame(copies: list[Tensor]) -> Tensor:
    return copies[0] if len(copies) == 1 else torch.stack(copies).mean(dim=0)


def restore_tiles(net: nn.Module, inputs: Sequence[Tensor], tiling: Tiling | None = None,
                  run: Callable[..., Tensor] | None = None) -> Tensor:
    """Restores one window, or one frame, tile by tile.

    Args:
        net: a network that states its needs.
        inputs: what it takes, each (B, ..., H, W), with any H and W.
        tiling: see `restore_windows`.
        run: what is called with the corner of each tile, (top, left), and the tile of each input; default: the network,
            with the latter alone.

    Returns:
        (B, V, C, sH, sW), where the inputs lie; or without V.
    """
    like = inputs[0]
    device = next((parameter.device for parameter in net.parameters()), like.device)
    (rows, columns), overlap = tiling or Tiling((1, 1), 0)
    overlap = -(-overlap // net.size_multiple) * net.size_multiple
    h, w = like.shape[-2:]
    output = None
    for (top, bottom), (left, right) in product(cuts(h, rows, net.size_multiple), cuts(w, columns, net.size_multiple)):
        y0, y1 = max(0, top - overlap), min(h, bottom + overlap)
        x0, x1 = max(0, left - overlap), min(w, right + overlap)
        tiles = [pad_to_multiple(x[..., y0:y1, x0:x1].to(device), net.size_multiple) for x in inputs]
        tile = run((top, left), *tiles) if run else net(*tiles)
        if output is None:
            output = like.new_empty(*tile.shape[:-2], net.scale * h, net.scale * w)
        output[..., net.scale * top:net.scale * bottom, net.scale * left:net.scale * right] = tile[
            ..., net.scale * (top - y0):net.scale * (bottom - y0), net.scale * (left - x0):net.scale * (right - x0)]
    return output


def cuts(length: int, parts: int, multiple: int) -> list[tuple[int, int]]:
    """Start and end of at most `parts` parts of a length, about as long as each other, at multiples of `multiple`."""
    edges = [min(length, multiple * round(part * length / parts / multiple)) for part in range(parts)] + [length]
    return [(start, end) for start, end in pairwise(edges) if start < end]


def restore_clip(net: nn.Module, lq: Tensor, flow: Tensor | None = None, tiling: Tiling | None = None,
                 overlap: str | None = None, cuts: Collection[int] = ()) -> Tensor:
    """Restores a clip of any size and length, (B, T, C, H, W) -> (B, U, C, sH, sW); see `restore_frames`."""
    return torch.stack([frame for _, frame in restore_frames(net, lq, flow, tiling, overlap, cuts)], dim=1)
