"""Runs a network over a clip or a stream of frames, of any size and length.

What a network needs it states by its `spec`, see `basicsr_stvsr.archs.spec`.
Shapes: B clips, T frames in, U frames out, H x W pixels of the LR grid, s = scale. Frames out are numbered from the
first frame in, in steps of half a frame where the network doubles the frame rate.
"""
from collections import deque
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from itertools import chain, groupby
from operator import itemgetter
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ..archs.spec import NetSpec, State
from ..config.options import OVERLAP_RULES
from .tiles import Tiles, Tiling


class StreamFrame(NamedTuple):
    """A frame that is given."""

    lq: Tensor  # (B, C, H, W), 0-1, any H and W
    # (B, 2, 2, H, W), LR pixels: from the frame before to this one, on that one's grid, and back; only for a network
    # with `needs_flow`, and not of the first frame
    flow: Tensor | None = None
    begins_scene: bool = False


@dataclass
class Carry:
    """What a recurrent network leaves to the frames that come next; None at the beginning of a scene."""

    state: State | None = None


class RestoredWindow(NamedTuple):
    """What a network makes of one window."""

    start: int  # number, in the clip, of the first frame; below 0 where that belongs to a repeated one
    end: int  # number of the last frame that the clip has; those behind it were made of repeated frames alone
    frames: Tensor  # (B, V, C, sH, sW), as the network gives them, where the clip lies


def restore_clip(net: nn.Module, lq: Tensor, flow: Tensor | None = None, tiling: Tiling | None = None,
                 overlap: str | None = None, cuts: Collection[int] = ()) -> Tensor:
    """Restores a clip of any size and length, (B, T, C, H, W) -> (B, U, C, sH, sW); see `restore_frames`."""
    return torch.stack([frame for _, frame in restore_frames(net, lq, flow, tiling, overlap, cuts)], dim=1)


def restore_frames(net: nn.Module, lq: Tensor, flow: Tensor | None = None, tiling: Tiling | None = None,
                   overlap: str | None = None, cuts: Collection[int] = (),
                   dtype: torch.dtype | None = None) -> Iterator[tuple[int, Tensor]]:
    """Restores a clip frame by frame; what has been handed out is not kept.

    The clip may lie in main memory while the network is on a GPU: only one window at a time, or one tile of it, is
    brought there.

    Args:
        net: a network that states its needs.
        lq: (B, T, C, H, W), 0-1, any H and W.
        flow: (B, T - 1, 2, 2, H, W), LR pixels, for a network with `needs_flow`, and passed over by others: of each
            pair of neighbours the flow from the first to the second, on the first's grid, and back.
        tiling: how to cut up frames; default: not at all.
        overlap: which copy of a frame that several windows make is given: the 'first', the 'last', the one nearest the
            'middle' of its window, or their 'mean'; 'all' gives every copy, window after window, as scoring by triplets
            counts them; default: the network's.
        cuts: numbers of the frames with which a new scene begins; each scene is restored as if it were alone.
        dtype: see `Tiles`.

    Yields:
        number of the frame in the clip, and the frame, (B, C, sH, sW); in rising order, but for 'all'.

    Raises:
        ValueError: a scene is shorter than the network's window, or comes without the flow that it needs; or an
            unknown `overlap`.
    """
    return restore_stream(Tiles(net, tiling, dtype=dtype), frames_of_clip(lq, flow, cuts), overlap)


def frames_of_clip(lq: Tensor, flow: Tensor | None = None, cuts: Collection[int] = ()) -> Iterator[StreamFrame]:
    """The frames of a clip; see `restore_frames`."""
    flows = [None] * lq.shape[1] if flow is None else [None, *flow.unbind(1)]
    for number, (frame, frame_flow) in enumerate(zip(lq.unbind(1), flows, strict=True)):
        yield StreamFrame(frame, frame_flow, number in cuts)


def restore_stream(net: nn.Module | Tiles, frames: Iterable[StreamFrame], overlap: str | None = None, *,
                   complete: bool = False, carry: Carry | None = None, clamp: bool = True) -> Iterator[
                       tuple[int, Tensor]]:
    """Restores a stream of any length, with no more of it in memory than a window; see `restore_frames`.

    Args:
        net: a network that states its needs, or `Tiles` of it.
        carry: for a recurrent network, what an earlier part of the stream left, and where this one leaves it.
        complete: give every frame from the first given one to the last, whatever the network does without: scenes
            shorter than its window are filled up, by repeating their ends. Only the frame halfway between the last of
            a scene and the first of the next is not made.
        clamp: cut what comes out to 0-1; else who takes it does.

    Yields:
        number of the frame in the stream, and the frame, (B, C, sH, sW), where it lies.
    """
    tiles = net if isinstance(net, Tiles) else Tiles(net)
    overlap = overlap or tiles.spec.overlap
    if overlap not in OVERLAP_RULES:
        raise ValueError(f'overlap must be one of {", ".join(OVERLAP_RULES)}, but got {overlap!r}')
    restored = _restore_scenes(tiles, frames, overlap, complete, carry or Carry())
    return ((number, frame.clamp(0, 1)) for number, frame in restored) if clamp else restored


def _restore_scenes(tiles: Tiles, frames: Iterable[StreamFrame], overlap: str, complete: bool, carry: Carry) -> (
        Iterator[tuple[int, Tensor]]):
    scene, step = 0, tiles.spec.temporal_scale

    def scene_of(numbered: tuple[int, StreamFrame]) -> int:
        nonlocal scene
        scene += numbered[1].begins_scene
        return scene

    for _, numbered in groupby(enumerate(frames), scene_of):
        start, first = next(numbered)
        if first.begins_scene:
            carry.state = None
        others = map(itemgetter(1), numbered)  # noqa: B031  (goes on where next() stopped)
        windows = restore_windows(tiles, chain([first], others), complete=complete, carry=carry,
                                  share=overlap == 'first')
        for number, frame in join_windows(windows, overlap, step):
            yield step * start + number, frame


@torch.no_grad()
def restore_windows(tiles: Tiles, frames: Iterable[StreamFrame], *, complete: bool = False,
                    carry: Carry | None = None, share: bool = True) -> Iterator[RestoredWindow]:
    """Restores a scene window by window; by a recurrent network, frame by frame. Windows start one frame apart.

    Args:
        frames, complete, carry: as `restore_stream` takes them.
        share: whether a window may use what the one before made of their common frames; else each is restored by
            itself, and may give another copy of such a frame.

    Raises:
        ValueError: as `restore_frames`.
    """
    net, spec = tiles.net, tiles.spec
    if spec.recurrent:
        carry = carry or Carry()
        for number, frame in enumerate(frames):
            restored, carry.state = tiles.step(frame.lq, carry.state)
            yield RestoredWindow(number, number, restored.unsqueeze(1))
        return
    start = spec.first_output - spec.temporal_scale * spec.padding(complete=complete)
    share = share and spec.sharing == 'windows'
    features: dict[int, Any] = {}
    state: State | None = None
    for window in windows_of(net, spec, frames, complete=complete):
        if spec.needs_flow:
            flows = [frame.flow for _, frame in window[1:]]
            if any(flow is None for flow in flows):
                raise ValueError(f'{type(net).__name__} needs the flow between the LR frames, which was not given: set '
                                 'flow_opt of the data set, or see basicsr_stvsr.flow')
            lq = torch.stack([frame.lq for _, frame in window], dim=1)
            restored = tiles(*net.inputs(lq, torch.stack(flows, dim=1)))
        elif share:
            restored, state = tiles.next_window(torch.stack([frame.lq for _, frame in window], dim=1), state)
        else:
            restored = tiles.window([(number, frame.lq) for number, frame in window], features)
        newest, _ = window[-1]
        yield RestoredWindow(start, spec.temporal_scale * newest, restored)
        start += spec.temporal_scale


def windows_of(net: nn.Module, spec: NetSpec, frames: Iterable[StreamFrame], *, complete: bool) -> Iterator[
        list[tuple[int, StreamFrame]]]:
    """Windows of a scene: its frames with their numbers, at the ends repeated as the network needs it.

    Raises:
        ValueError: the scene is shorter than a window.
    """
    padded = pad_ends(frames, spec.padding(complete=complete), least=(spec.num_frames or 1) if complete else 0)
    if spec.num_frames is None:
        yield list(padded)
        return
    window: deque[tuple[int, StreamFrame]] = deque(maxlen=spec.num_frames)
    for frame in padded:
        window.append(frame)
        if len(window) == spec.num_frames:
            yield list(window)
    if len(window) < spec.num_frames:
        raise ValueError(f'{type(net).__name__} works on windows of {spec.num_frames} frames, but the clip has '
                         f'{len(window)}')


def pad_ends(frames: Iterable[StreamFrame], times: int, *, least: int = 0) -> Iterator[tuple[int, StreamFrame]]:
    """Frames with their numbers, the first and the last repeated so many times, until there are `least`."""
    last, count = None, 0
    for number, frame in enumerate(frames):
        if number == 0:
            for _ in range(times):
                yield 0, without_motion(frame)
            frame = without_motion(frame)
        yield number, frame
        last, count = (number, frame), times + number + 1
    if last:
        number, frame = last
        for _ in range(max(times, least - count)):
            yield number, without_motion(frame)


def without_motion(frame: StreamFrame) -> StreamFrame:
    """The same frame with zero flow."""
    lq = frame.lq
    return frame._replace(flow=lq.new_zeros(lq.shape[0], 2, 2, *lq.shape[-2:]))


def join_windows(windows: Iterable[RestoredWindow], overlap: str, step: int) -> Iterator[tuple[int, Tensor]]:
    """The frames of overlapping windows, each once, as soon as no window makes it again; see `restore_frames`.

    Args:
        step: how many frames out after one window the next one starts.
    """
    held: dict[int, list[Tensor]] = {}  # number -> the copies that count so far
    nearest: dict[int, float] = {}  # number -> how far the last of them is from the middle of its window
    for start, end, frames in windows:
        middle = (frames.shape[1] - 1) / 2
        for place, frame in enumerate(frames.unbind(1)):
            number, distance = start + place, abs(place - middle)
            if not 0 <= number <= end:  # made of repeated frames alone
                continue
            if overlap == 'all':
                yield number, frame
            elif overlap == 'mean' or number not in held:
                held.setdefault(number, []).append(frame)
                nearest[number] = distance
            elif overlap == 'last' or overlap == 'middle' and distance < nearest[number]:
                held[number], nearest[number] = [frame], distance
        for number in [number for number in held if number < start + step]:  # no window makes it any more
            del nearest[number]
            yield number, mean_frame(held.pop(number))
    for number, copies in held.items():
        yield number, mean_frame(copies)


def mean_frame(copies: list[Tensor]) -> Tensor:
    return copies[0] if len(copies) == 1 else torch.stack(copies).mean(dim=0)
