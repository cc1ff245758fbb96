"""Run a network over a clip or a stream of frames of any size and length.

Each network states its requirements in `spec`, see `basicsr_stvsr.archs.spec`.
Shapes: B clips, T frames in, U frames out, H x W pixels of the LR grid, s = scale. Output frames are numbered from the
first input frame, in steps of half a frame where the network doubles the frame rate.
"""
from collections import deque
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from itertools import chain, groupby
from operator import itemgetter
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn

from ..archs.spec import NetSpec, Network, State
from ..config.options import OVERLAP_RULES
from .tiles import Tiles, Tiling


class StreamFrame(NamedTuple):
    """An input frame."""

    lq: Tensor  # (B, C, H, W), 0-1, any H and W
    # (B, 2, 2, H, W), LR pixels: from the previous frame to this one, on the previous frame's grid, and back. Only for
    # a network with `needs_flow`; the first frame has none.
    flow: Tensor | None = None
    begins_scene: bool = False


@dataclass
class Carry:
    """State that a recurrent network passes to the next frames; None at the start of a scene."""

    state: State | None = None


class RestoredWindow(NamedTuple):
    """Output of a network for one window."""

    start: int  # number of the first frame in the clip; negative if it belongs to a repeated frame
    end: int  # number of the clip's last frame; later ones come from repeated frames only
    frames: Tensor  # (B, V, C, sH, sW), the network's output, on the device of the clip


def restore_clip(net: nn.Module, lq: Tensor, flow: Tensor | None = None, tiling: Tiling | None = None,
                 overlap: str | None = None, cuts: Collection[int] = ()) -> Tensor:
    """Restore a clip of any size and length, (B, T, C, H, W) -> (B, U, C, sH, sW); see `restore_frames`."""
    return torch.stack([frame for _, frame in restore_frames(net, lq, flow, tiling, overlap, cuts)], dim=1)


def restore_frames(net: nn.Module, lq: Tensor, flow: Tensor | None = None, tiling: Tiling | None = None,
                   overlap: str | None = None, cuts: Collection[int] = (),
                   dtype: torch.dtype | None = None) -> Iterator[tuple[int, Tensor]]:
    """Restore a clip frame by frame, without keeping the frames already yielded.

    The clip may be in main memory while the network is on a GPU. Only one window or one tile at a time is moved there.

    Args:
        net: a network with a `spec`.
        lq: (B, T, C, H, W), 0-1, any H and W.
        flow: (B, T - 1, 2, 2, H, W), LR pixels: for each pair of neighbours a, b, flow_ab and flow_ba. Only networks
            with `needs_flow` use it.
        tiling: how to split frames; default: whole frames.
        overlap: which copy to yield of a frame that several windows restore: the 'first', the 'last', the one nearest
            the 'middle' of its window, or their 'mean'. 'all' yields every copy, window after window, as scoring by
            triplets counts them. Default: the network's.
        cuts: numbers of the frames that start a new scene; each scene is restored separately.
        dtype: see `Tiles`.

    Yields:
        number of the frame in the clip, and the frame, (B, C, sH, sW); in ascending order, except with 'all'.

    Raises:
        ValueError: a scene is shorter than the network's window or lacks the flow that the network needs; or `overlap`
            is unknown.
    """
    return restore_stream(Tiles(net, tiling, dtype=dtype), frames_of_clip(lq, flow, cuts), overlap)


def frames_of_clip(lq: Tensor, flow: Tensor | None = None, cuts: Collection[int] = ()) -> Iterator[StreamFrame]:
    """Yield the frames of a clip; see `restore_frames`."""
    flows = [None] * lq.shape[1] if flow is None else [None, *flow.unbind(1)]
    for number, (frame, frame_flow) in enumerate(zip(lq.unbind(1), flows, strict=True)):
        yield StreamFrame(frame, frame_flow, number in cuts)


def restore_stream(net: nn.Module | Tiles, frames: Iterable[StreamFrame], overlap: str | None = None, *,
                   complete: bool = False, carry: Carry | None = None, clamp: bool = True) -> Iterator[
                       tuple[int, Tensor]]:
    """Restore a stream of any length with at most one window in memory; see `restore_frames`.

    Args:
        net: a network with a `spec`, or `Tiles` of it.
        carry: for a recurrent network, the state from an earlier part of the stream; updated in place.
        complete: yield every frame from the first input frame to the last, including those the network leaves out at
            the ends of a scene. Scenes shorter than its window are filled up by repeating their ends. Only the frame
            between the last of a scene and the first of the next is left out.
        clamp: clamp finite output to 0-1; otherwise the caller does.

    Yields:
        number of the frame in the stream, and the frame, (B, C, sH, sW), on the device of the input.
    """
    tiles = net if isinstance(net, Tiles) else Tiles(net)
    overlap = overlap or tiles.spec.overlap
    if overlap not in OVERLAP_RULES:
        raise ValueError(f'overlap must be one of {", ".join(OVERLAP_RULES)}, but got {overlap!r}')
    restored = _restore_scenes(tiles, frames, overlap, complete, carry or Carry())
    if not clamp:
        return restored
    # Clamping would turn infinity into white.
    return ((number, frame.clamp(0, 1) if is_finite(frame) else frame) for number, frame in restored)


def _restore_scenes(tiles: Tiles, frames: Iterable[StreamFrame], overlap: str, complete: bool, carry: Carry) -> (
        Iterator[tuple[int, Tensor]]):
    scene, temporal_scale = 0, tiles.spec.temporal_scale

    def scene_of(numbered: tuple[int, StreamFrame]) -> int:
        nonlocal scene
        scene += numbered[1].begins_scene
        return scene

    for _, numbered in groupby(enumerate(frames), scene_of):
        start, first = next(numbered)
        if first.begins_scene:
            carry.state = None
        others = map(itemgetter(1), numbered)  # noqa: B031  (continues where next() stopped)
        windows = restore_windows(tiles, chain([first], others), complete=complete, carry=carry,
                                  share=overlap == 'first')
        for number, frame in join_windows(windows, overlap, temporal_scale):
            yield temporal_scale * start + number, frame


@torch.no_grad()
def restore_windows(tiles: Tiles, frames: Iterable[StreamFrame], *, complete: bool = False,
                    carry: Carry | None = None, share: bool = True) -> Iterator[RestoredWindow]:
    """Restore a scene window by window, or frame by frame with a recurrent network.

    Windows start one frame apart.

    Args:
        frames, complete, carry: see `restore_stream`.
        share: whether a window may reuse the previous window's results for their common frames. Otherwise each window
            is restored independently, and may give another copy of such a frame.

    Raises:
        ValueError: see `restore_frames`.
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
            flows = [frame.flow for _, frame in window[1:] if frame.flow is not None]
            if len(flows) < len(window) - 1:
                raise ValueError(f'{type(net).__name__} needs the flow between LR frames, but got none: set flow_opt '
                                 'in the data set, or see basicsr_stvsr.flow')
            lq = torch.stack([frame.lq for _, frame in window], dim=1)
            restored = tiles(*cast(Network, net).inputs(lq, torch.stack(flows, dim=1)))
        elif share:
            restored, state = tiles.next_window(torch.stack([frame.lq for _, frame in window], dim=1), state)
        else:
            restored = tiles.window([(number, frame.lq) for number, frame in window], features)
        newest, _ = window[-1]
        yield RestoredWindow(start, spec.temporal_scale * newest, restored)
        start += spec.temporal_scale


def windows_of(net: nn.Module, spec: NetSpec, frames: Iterable[StreamFrame], *, complete: bool) -> Iterator[
        list[tuple[int, StreamFrame]]]:
    """Yield the windows of a scene as numbered frames, with the ends repeated as the network needs it.

    Raises:
        ValueError: the scene is shorter than a window.
    """
    least = spec.min_frames if spec.num_frames is None else spec.num_frames if complete else 0
    padded = pad_ends(frames, spec.padding(complete=complete), least=least)
    if spec.num_frames is None:
        yield list(padded)
        return
    window: deque[tuple[int, StreamFrame]] = deque(maxlen=spec.num_frames)
    for frame in padded:
        window.append(frame)
        if len(window) == spec.num_frames:
            yield list(window)
    if len(window) < spec.num_frames:
        raise ValueError(f'{type(net).__name__} needs windows of {spec.num_frames} frames, but the clip has '
                         f'{len(window)}')


def pad_ends(frames: Iterable[StreamFrame], times: int, *, least: int = 0) -> Iterator[tuple[int, StreamFrame]]:
    """Yield numbered frames, with the first and the last repeated `times` times, and at least `least` frames."""
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
    """Return the same frame with zero flow."""
    lq = frame.lq
    return frame._replace(flow=lq.new_zeros(lq.shape[0], 2, 2, *lq.shape[-2:]))


def join_windows(windows: Iterable[RestoredWindow], overlap: str, stride: int) -> Iterator[tuple[int, Tensor]]:
    """Yield each frame of overlapping windows once, as soon as no later window contains it; see `restore_frames`.

    Args:
        stride: distance of the starts of two consecutive windows, in output frames.
    """
    held: dict[int, list[Tensor]] = {}  # number -> copies selected so far
    nearest: dict[int, float] = {}  # number -> distance of the selected copy from the middle of its window
    for start, end, frames in windows:
        middle = (frames.shape[1] - 1) / 2
        for place, frame in enumerate(frames.unbind(1)):
            number, distance = start + place, abs(place - middle)
            if not 0 <= number <= end:  # comes from repeated frames only
                continue
            if overlap == 'all':
                yield number, frame
            elif overlap == 'mean' or number not in held:
                held.setdefault(number, []).append(frame)
                nearest[number] = distance
            elif overlap == 'last' or overlap == 'middle' and distance < nearest[number]:
                held[number], nearest[number] = [frame], distance
        for number in [number for number in held if number < start + stride]:  # no later window contains it
            del nearest[number]
            yield number, mean_frame(held.pop(number))
    for number, copies in held.items():
        yield number, mean_frame(copies)


def is_finite(frame: Tensor) -> bool:
    """Return whether a frame has neither NaN nor infinity; on a GPU, this waits for it."""
    return bool(frame.sum(dtype=torch.float32).isfinite())  # one pass, without a mask


def mean_frame(copies: list[Tensor]) -> Tensor:
    return copies[0] if len(copies) == 1 else torch.stack(copies).mean(dim=0)
