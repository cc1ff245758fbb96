"""Runs a network over a clip or a stream of frames, of any size and length.

What a network needs it states by its `spec`, see `basicsr_stvsr.archs.spec`.
Shapes: B clips, T frames in, U frames out, H x W pixels of the LR grid, s = scale. Frames out are numbered from the
first frame in, in steps of half a frame where the network doubles the frame rate.
"""
import logging
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from itertools import chain, groupby, pairwise, product
from operator import itemgetter
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..archs.spec import NetSpec, State, spec_of
from ..config.options import OVERLAP_RULES

# What runs on the tile of each input, with the tile of the state: what it makes, and what that leaves
Run = Callable[[list[Tensor], State | None], tuple[Tensor, State]]
DEFAULT_OVERLAP = 32, 8  # and feather, of tiles that nobody asked for
logger = logging.getLogger('basicsr')


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


def device_of(net: nn.Module) -> torch.device | None:
    """Where a network runs; None: it has no weights, and runs anywhere."""
    return next((parameter.device for parameter in net.parameters()), None)


def check_color(net: nn.Module, color: str) -> None:
    """Raises ValueError where a network takes clips of another colour space."""
    expected = spec_of(net).color
    if expected not in (None, color):
        raise ValueError(f'{type(net).__name__} takes {expected} clips, but this one is {color}; set color: {expected} '
                         'of the data set, which converts')


# ---------------------------------------------------------------- space

class Tiling(NamedTuple):
    """How a frame is cut up where the network cannot take it whole."""

    grid: tuple[int, int]  # rows and columns of tiles
    # LR pixels that a tile sees beyond its own, on sides where another begins; rounded up to the network's
    # size_multiple, so that tiles lie on the grid on which it pools and sub-samples
    overlap: int
    # LR pixels on either side of where two tiles meet, over which one fades into the other; less where tiles are
    # smaller than twice that. At most `overlap`; half of it leaves as much around what is used.
    feather: int = 0


class Span(NamedTuple):
    """One side of a tile, in LR pixels."""

    start: int
    end: int
    seen_start: int  # what the tile is given: more, where another begins
    seen_end: int
    fade_start: int  # how far, on either side of where it begins and ends, it fades into the other
    fade_end: int

    def part_of(self, x: Tensor, dim: int, length: int) -> Tensor:
        """What the tile is given of a side, of whole frames of `length`, or of enlarged ones."""
        ratio = x.shape[dim] // length
        return x.narrow(dim, ratio * self.seen_start, ratio * (self.seen_end - self.seen_start))


class Tile(NamedTuple):
    rows: Span
    columns: Span

    def part_of(self, x: Tensor, size: Sequence[int]) -> Tensor:
        """What the tile is given of (..., H, W), or of an enlarged frame.

        Args:
            size: H and W.
        """
        return self.columns.part_of(self.rows.part_of(x, -2, size[0]), -1, size[1])


class Mosaic:
    """Puts tiles together to a frame, or to an enlarged one.

    Args:
        size: H and W of the frame.
        like: a tensor where the mosaic is to lie, and of its type.
        feather: whether tiles fade into each other.
    """

    def __init__(self, size: Sequence[int], like: Tensor, *, feather: bool):
        self.size, self.like, self.feather = size, like, feather
        self.whole: Tensor | None = None

    def add(self, tile: Tile, part: Tensor) -> None:
        """Adds what was made of what a tile was given."""
        ratio = part.shape[-1] // (tile.columns.seen_end - tile.columns.seen_start)
        if self.whole is None:
            self.whole = self.like.new_zeros(*part.shape[:-2], *(ratio * side for side in self.size))
        place = self.whole
        for dim, span in ((-2, tile.rows), (-1, tile.columns)):
            before, after = (span.fade_start, span.fade_end) if self.feather else (0, 0)
            start, length = ratio * (span.start - before), ratio * (span.end + after - span.start + before)
            place = place.narrow(dim, start, length)
            part = part.narrow(dim, start - ratio * span.seen_start, length)
            if before or after:
                weight = fade(length, 2 * ratio * before, 2 * ratio * after).to(part)
                part = part * (weight if dim == -1 else weight[:, None])
        place += part.to(place)


def fade(length: int, before: int, after: int) -> Tensor:
    """Weights that rise over the first `before` places, and fall over the last `after`."""
    weight = torch.ones(length)
    weight[:before] = (torch.arange(before) + 0.5) / before
    weight[length - after:] *= 1 - (torch.arange(after) + 0.5) / after
    return weight


def cut_into_tiles(size: Sequence[int], tiling: Tiling, multiple: int) -> list[Tile]:
    """Tiles of a frame of `size`, H and W, which are divisible by `multiple`."""
    overlap = -(-tiling.overlap // multiple) * multiple
    sides = []
    for length, parts in zip(size, tiling.grid, strict=True):
        parts = spans(length, parts, multiple)
        feather = min(tiling.feather, *((end - start) // 2 for start, end in parts))
        sides.append([Span(start, end, max(0, start - overlap), min(length, end + overlap),
                           feather * (start > 0), feather * (end < length)) for start, end in parts])
    return [Tile(*sides) for sides in product(*sides)]


def spans(length: int, parts: int, multiple: int) -> list[tuple[int, int]]:
    """Start and end of at most `parts` parts of a length, about as long as each other, at multiples of `multiple`."""
    edges = [min(length, multiple * round(part * length / parts / multiple)) for part in range(parts)] + [length]
    return [(start, end) for start, end in pairwise(edges) if start < end]


def pad_to_multiple(lq: Tensor, multiple: int) -> Tensor:
    """Repeats the last row and column until height and width of (..., H, W) are divisible by `multiple`."""
    h, w = lq.shape[-2:]
    if h % multiple == w % multiple == 0:
        return lq
    padded = F.pad(lq.flatten(0, -3), (0, -w % multiple, 0, -h % multiple), mode='replicate')
    return padded.unflatten(0, lq.shape[:-2])


class Tiles:
    """Runs a network on whole frames, or tile by tile.

    Args:
        net: a network that states its needs.
        tiling: how to cut up frames; default: not at all.
        dtype: in which convolutions are computed, by autocast; default: that of the frames.
        may_halve: whether tiles are halved, for good, when the memory of the GPU does not suffice; else torch's error
            is raised. Frames in smaller tiles are not quite the same.

    Raises:
        ValueError: the network has no spec, or the feather of the tiling is wider than its overlap.
    """

    def __init__(self, net: nn.Module, tiling: Tiling | None = None, *, dtype: torch.dtype | None = None,
                 may_halve: bool = False):
        self.net, self.spec = net, spec_of(net)
        self.tiling, self.dtype, self.may_halve = tiling or Tiling((1, 1), 0), dtype, may_halve
        if not 0 <= self.tiling.feather <= self.tiling.overlap:
            raise ValueError(f'feather must be from 0 to overlap {self.tiling.overlap}, but is {self.tiling.feather}')

    def __call__(self, *inputs: Tensor) -> Tensor:
        """Restores one window.

        Args:
            inputs: what the network takes, each (B, ..., H, W), with any H and W.

        Returns:
            (B, V, C, sH, sW), where the inputs lie.
        """
        return self._run(inputs, None, lambda tiles, _: (self.net(*tiles), ()))[0]

    def window(self, frames: Sequence[tuple[int, Tensor]], features: dict[int, Any]) -> Tensor:
        """Restores one window; what the network makes of each frame alone is made once for all windows that it is in.

        That holds for whole frames: the features of tiles would take more memory than tiles save.

        Args:
            frames: numbers and frames, each (B, C, H, W).
            features: by number, what was made of the frames of the window before; holds this one's afterwards.

        Returns:
            (B, V, C, sH, sW), where the frames lie.
        """
        def run(parts: list[Tensor], _: State | None) -> tuple[Tensor, State]:
            if self.tiling.grid != (1, 1) or self.spec.sharing != 'features':
                features.clear()
                return self.net(parts[0].unsqueeze(1) if len(parts) == 1 else torch.stack(parts, dim=1)), ()
            numbers = [number for number, _ in frames]
            for number in features.keys() - set(numbers):
                del features[number]
            for number, part in zip(numbers, parts, strict=True):
                if number not in features:
                    features[number] = self.net.features(part)
            return self.net([features[number] for number in numbers]), ()

        return self._run([frame for _, frame in frames], None, run)[0]

    def step(self, frame: Tensor, state: State | None) -> tuple[Tensor, State]:
        """Restores the next frame of a stream by a recurrent network.

        Args:
            frame: (B, C, H, W), any H and W.
            state: what the last frame left, of the whole frame: each tile sees what its neighbours became.

        Returns:
            the frame, (B, C, sH, sW), where it lies, and what it leaves.
        """
        return self._run((frame,), state, lambda tiles, state: self.net.step(*tiles, state))

    def next_window(self, frames: Tensor, state: State | None) -> tuple[Tensor, State | None]:
        """Restores the next window of a stream by a network that uses what the window before left.

        Args:
            frames: (B, T, C, H, W), any H and W.
            state: of whole frames; None at the beginning of a scene.

        Returns:
            the frames, (B, V, C, sH, sW), where they lie, and the state for the next window.
        """
        return self._run((frames,), state, lambda tiles, state: self.net.next_window(*tiles, state))

    def _run(self, inputs: Sequence[Tensor], state: State | None, run: Run) -> tuple[Tensor, State]:
        inputs, (h, w) = [pad_to_multiple(x, self.spec.size_multiple) for x in inputs], inputs[0].shape[-2:]
        device = device_of(self.net) or inputs[0].device
        while True:
            try:
                with torch.autocast(device.type, self.dtype) if self.dtype else nullcontext():
                    output, left = self._run_padded(inputs, state, run, device)
                return output[..., :self.spec.scale * h, :self.spec.scale * w], left
            except torch.OutOfMemoryError:
                smaller = halved(self.tiling, inputs[0].shape[-2:], self.spec.size_multiple)
                if not self.may_halve or smaller is None:
                    raise
                self.tiling = smaller
            torch.cuda.empty_cache()  # outside of the handler, which keeps alive what the failed call held
            logger.warning('The memory of the GPU does not suffice: frames are cut into %d x %d tiles from here on.',
                           *smaller.grid)

    def _run_padded(self, inputs: list[Tensor], state: State | None, run: Run, device: torch.device) -> (
            tuple[Tensor, State]):
        like, multiple, size = inputs[0], self.spec.size_multiple, inputs[0].shape[-2:]
        tiles = cut_into_tiles(size, self.tiling, multiple)
        if len(tiles) == 1:
            output, left = run([x.to(device) for x in inputs], state)
            return output.to(like), left
        mosaic, states = Mosaic(size, like, feather=True), []
        for tile in tiles:
            part, left = run([tile.part_of(x, size).to(device) for x in inputs],
                             state and type(state)(*(tile.part_of(x, size) for x in state)))
            mosaic.add(tile, part)
            states = states or [Mosaic(size, x, feather=False) for x in left or ()]
            for whole, x in zip(states, left or (), strict=True):
                whole.add(tile, x)
        return mosaic.whole, type(left)(*(each.whole for each in states)) if states else left


def halved(tiling: Tiling, size: Sequence[int], multiple: int) -> Tiling | None:
    """Tiles of half the size; None where that would hardly be less than what they see beyond their own."""
    sides = [length / parts for length, parts in zip(size, tiling.grid, strict=True)]
    longer = sides.index(max(sides))
    overlap, feather = (tiling.overlap, tiling.feather) if max(tiling.grid) > 1 else DEFAULT_OVERLAP
    if sides[longer] / 2 < max(multiple, overlap):
        return None
    return Tiling(tuple(parts * (1 + (side == longer)) for side, parts in enumerate(tiling.grid)), overlap, feather)


# ---------------------------------------------------------------- time

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
                yield 0, still(frame)
            frame = still(frame)
        yield number, frame
        last, count = (number, frame), times + number + 1
    if last:
        number, frame = last
        for _ in range(max(times, least - count)):
            yield number, still(frame)


def still(frame: StreamFrame) -> StreamFrame:
    """A frame that stands behind itself."""
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
