"""Run a network on one window of frames, whole or tile by tile.

Shapes: B clips, T frames in, H x W pixels of the LR grid, s = scale.
"""
import logging
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from itertools import pairwise, product
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..archs.spec import Network, State, spec_of

# Runs the network on one tile of each input and of the state; returns the output and the new state.
Run = Callable[[list[Tensor], State | None], tuple[Tensor, State]]
DEFAULT_OVERLAP = 32, 8  # default overlap and feather, used when no tiling was requested
logger = logging.getLogger('basicsr')


def device_of(net: nn.Module) -> torch.device | None:
    """Return the device of a network, or None if it has no weights and runs anywhere."""
    return next((parameter.device for parameter in net.parameters()), None)


class Tiling(NamedTuple):
    """How to split a frame that is too large for the network."""

    grid: tuple[int, int]  # rows and columns of tiles
    # LR pixels of context that a tile sees beyond its area, on sides with a neighbouring tile. Rounded up to the
    # network's size_multiple, so that tiles are aligned with its pooling and subsampling grid.
    overlap: int
    # LR pixels on each side of a seam over which two tiles are blended; less if tiles are smaller than twice that. At
    # most `overlap`; half of it leaves the other half as context.
    feather: int = 0


class Span(NamedTuple):
    """The extent of a tile along one dimension, in LR pixels."""

    start: int
    end: int
    seen_start: int  # tile input: includes the overlap with neighbouring tiles
    seen_end: int
    fade_start: int  # width of the blend on each side of `start` and `end`
    fade_end: int

    def part_of(self, x: Tensor, dim: int, length: int) -> Tensor:
        """Return the tile's input along one dimension of frames of `length`, or of upscaled frames."""
        ratio = x.shape[dim] // length
        return x.narrow(dim, ratio * self.seen_start, ratio * (self.seen_end - self.seen_start))


class Tile(NamedTuple):
    rows: Span
    columns: Span

    def part_of(self, x: Tensor, size: Sequence[int]) -> Tensor:
        """Return the tile's input from (..., H, W), or from an upscaled frame.

        Args:
            size: H and W.
        """
        return self.columns.part_of(self.rows.part_of(x, -2, size[0]), -1, size[1])


class TileGrid:
    """Assemble tiles into a frame or an upscaled frame.

    Args:
        size: H and W of the frame.
        like: a tensor with the device and dtype of the result.
        feather: whether to blend tiles into each other.
    """

    def __init__(self, size: Sequence[int], like: Tensor, *, feather: bool):
        self.size, self.like, self.feather = size, like, feather
        self.whole: Tensor | None = None

    def add(self, tile: Tile, part: Tensor) -> None:
        """Add the output of a tile."""
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

    @property
    def result(self) -> Tensor:
        """Return the frame, once it has all tiles."""
        assert self.whole is not None
        return self.whole


def fade(length: int, before: int, after: int) -> Tensor:
    """Return weights that rise over the first `before` positions and fall over the last `after`."""
    weight = torch.ones(length)
    weight[:before] = (torch.arange(before) + 0.5) / before
    weight[length - after:] *= 1 - (torch.arange(after) + 0.5) / after
    return weight


def split_into_tiles(size: Sequence[int], tiling: Tiling, multiple: int, least: int = 1) -> list[Tile]:
    """Return the tiles of a frame of `size`, H and W, both divisible by `multiple`; none has a side below `least`."""
    overlap = -(-tiling.overlap // multiple) * multiple
    sides = []
    for length, num_parts in zip(size, tiling.grid, strict=True):
        if least > multiple:
            num_parts = min(num_parts, max(1, length // (least + multiple)))
        parts = spans(length, num_parts, multiple)
        feather = min(tiling.feather, *((end - start) // 2 for start, end in parts))
        sides.append([Span(start, end, max(0, start - overlap), min(length, end + overlap),
                           feather * (start > 0), feather * (end < length)) for start, end in parts])
    return [Tile(*sides) for sides in product(*sides)]


def spans(length: int, parts: int, multiple: int) -> list[tuple[int, int]]:
    """Return start and end of at most `parts` parts of a length.

    The parts have about equal lengths and start at multiples of `multiple`.
    """
    edges = [min(length, multiple * round(part * length / parts / multiple)) for part in range(parts)] + [length]
    return [(start, end) for start, end in pairwise(edges) if start < end]


def pad_to_multiple(lq: Tensor, multiple: int, least: int = 1) -> Tensor:
    """Repeat the last row and column of (..., H, W) until both sides are multiples, and at least `least`."""
    h, w = lq.shape[-2:]
    below, right = (-(-max(side, least) // multiple) * multiple - side for side in (h, w))
    if below == right == 0:
        return lq
    return F.pad(lq.flatten(0, -3), (0, right, 0, below), mode='replicate').unflatten(0, lq.shape[:-2])


class Tiles:
    """Run a network on whole frames or tile by tile.

    Args:
        net: a network with a `spec`.
        tiling: how to split frames; default: whole frames.
        dtype: dtype of convolutions, by autocast; default: the dtype of the frames.
        may_halve: whether to halve the tiles, for good, when the GPU runs out of memory; otherwise torch's error is
            raised. Smaller tiles change the output slightly.

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
        """Restore one window.

        Args:
            inputs: the network's inputs, each (B, ..., H, W), with any H and W.

        Returns:
            (B, V, C, sH, sW), on the device of the inputs.
        """
        return self._run(inputs, None, lambda tiles, _: (self.net(*tiles), ()))[0]

    def window(self, frames: Sequence[tuple[int, Tensor]], features: dict[int, Any]) -> Tensor:
        """Restore one window, and share the features of each frame between windows.

        Features are shared only with whole frames: the features of tiles would take more memory than tiles save.

        Args:
            frames: numbers and frames, each (B, C, H, W).
            features: frame number -> features from the previous window; updated in place to those of this window.

        Returns:
            (B, V, C, sH, sW), on the device of the frames.
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
                    features[number] = cast(Network, self.net).features(part)
            return self.net([features[number] for number in numbers]), ()

        return self._run([frame for _, frame in frames], None, run)[0]

    def step(self, frame: Tensor, state: State | None) -> tuple[Tensor, State]:
        """Restore the next frame of a stream with a recurrent network.

        Args:
            frame: (B, C, H, W), any H and W.
            state: state after the previous frame, for the whole frame; each tile also sees its neighbours' part of it.

        Returns:
            the frame, (B, C, sH, sW), on the device of the input, and the new state.
        """
        net = cast(Network, self.net)
        return self._run((frame,), state, lambda tiles, state: net.step(tiles[0], state))

    def next_window(self, frames: Tensor, state: State | None) -> tuple[Tensor, State | None]:
        """Restore the next window of a stream with a network that reuses results of the previous window.

        Args:
            frames: (B, T, C, H, W), any H and W.
            state: for whole frames; None at the start of a scene.

        Returns:
            the frames, (B, V, C, sH, sW), on the device of the input, and the state for the next window.
        """
        net = cast(Network, self.net)
        return self._run((frames,), state, lambda tiles, state: net.next_window(tiles[0], state))

    def _run(self, inputs: Sequence[Tensor], state: State | None, run: Run) -> tuple[Tensor, State]:
        inputs, (h, w) = [self._padded(x) for x in inputs], inputs[0].shape[-2:]
        device = device_of(self.net) or inputs[0].device
        while True:
            try:
                with torch.autocast(device.type, self.dtype) if self.dtype else nullcontext():
                    output, left = self._run_padded(inputs, state, run, device)
                return output[..., :self.spec.scale * h, :self.spec.scale * w], left
            except torch.OutOfMemoryError:
                smaller = halved(self.tiling, inputs[0].shape[-2:], max(self.spec.size_multiple, self.spec.min_size))
                if not self.may_halve or smaller is None:
                    raise
                self.tiling = smaller
            torch.cuda.empty_cache()  # outside the handler, which keeps the tensors of the failed call alive
            logger.warning('Not enough GPU memory: frames are split into %d x %d tiles from now on.',
                           *smaller.grid)

    def _padded(self, x: Tensor) -> Tensor:
        return pad_to_multiple(x, self.spec.size_multiple, self.spec.min_size)

    def _run_padded(self, inputs: list[Tensor], state: State | None, run: Run, device: torch.device) -> (
            tuple[Tensor, State]):
        like, multiple, size = inputs[0], self.spec.size_multiple, inputs[0].shape[-2:]
        tiles = split_into_tiles(size, self.tiling, multiple, self.spec.min_size)
        if len(tiles) == 1:
            output, left = run([x.to(device) for x in inputs], state)
            return output.to(like), left
        grid = TileGrid(size, like, feather=True)
        states: list[TileGrid] = []
        for tile in tiles:
            part, left = run([tile.part_of(x, size).to(device) for x in inputs],
                             state and type(state)(*(tile.part_of(x, size) for x in state)))
            grid.add(tile, part)
            states = states or [TileGrid(size, x, feather=False) for x in left or ()]
            for whole, x in zip(states, left or (), strict=True):
                whole.add(tile, x)
        return grid.result, type(left)(*(each.result for each in states)) if states else left


def halved(tiling: Tiling, size: Sequence[int], multiple: int) -> Tiling | None:
    """Return tiles of half the size, or None if that would hardly be smaller than their overlap."""
    sides = [length / parts for length, parts in zip(size, tiling.grid, strict=True)]
    longer = sides.index(max(sides))
    overlap, feather = (tiling.overlap, tiling.feather) if max(tiling.grid) > 1 else DEFAULT_OVERLAP
    if sides[longer] / 2 < max(multiple, overlap):
        return None
    rows, columns = (parts * (1 + (side == longer)) for side, parts in enumerate(tiling.grid))
    return Tiling((rows, columns), overlap, feather)
