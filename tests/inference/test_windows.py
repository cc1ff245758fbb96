"""Windows, joining and padding, checked with a network that writes its inputs into its output."""
from typing import NamedTuple

import pytest
import torch
from torch import nn

from basicsr_stvsr.archs.fisr_arch import FISRNet
from basicsr_stvsr.archs.spec import NetSpec
from basicsr_stvsr.archs.vsrresnet_arch import VSRResNet
from basicsr_stvsr.inference.tiles import Tiles, Tiling, halved, pad_to_multiple, spans
from basicsr_stvsr.inference.windows import (
    Carry,
    StreamFrame,
    frames_of_clip,
    restore_clip,
    restore_frames,
    restore_stream,
    restore_windows,
)


class Pair(nn.Module):
    """x2 in both: repeats pixels, and puts the mean of its two frames between them."""

    spec = NetSpec(scale=2, temporal_scale=2, num_frames=2, size_multiple=4)

    def forward(self, lq):
        assert lq.shape[1] == 2 and lq.shape[-1] % 4 == 0 and lq.shape[-2] % 4 == 0
        a, b = lq.repeat_interleave(2, -1).repeat_interleave(2, -2).unbind(1)
        return torch.stack([a, (a + b) / 2, b], dim=1)


@pytest.mark.numeric
@pytest.mark.parametrize('num_frames', [2, 3, 4, 7])
@pytest.mark.parametrize('size', [(4, 8), (5, 7), (9, 4)])
@pytest.mark.parametrize('batch', [1, 2])
def test_any_length_and_size(num_frames, size, batch):
    lq = torch.rand(batch, num_frames, 3, *size)
    clip = restore_clip(Pair(), lq)
    assert clip.shape == (batch, 2 * num_frames - 1, 3, 2 * size[0], 2 * size[1])
    torch.testing.assert_close(clip[:, ::2, :, ::2, ::2], lq)
    torch.testing.assert_close(clip[:, 1::2, :, 1::2, 1::2], (lq[:, 1:] + lq[:, :-1]) / 2)


def test_a_clip_shorter_than_the_window_is_refused():
    with pytest.raises(ValueError, match='windows of 2 frames, but the clip has 1'):
        restore_clip(Pair(), torch.rand(1, 1, 3, 4, 4))


def test_output_is_clamped():
    assert restore_clip(Pair(), torch.full((1, 2, 3, 4, 4), 1.5)).max() == 1


def test_pad_repeats_the_border():
    padded = pad_to_multiple(torch.arange(6.).view(1, 1, 1, 2, 3), 4)
    assert padded[0, 0, 0].tolist() == [[0, 1, 2, 2], [3, 4, 5, 5], [3, 4, 5, 5], [3, 4, 5, 5]]


class Counted(nn.Module):
    """Frames out of window n are 10 n, 10 n + 1, 10 n + 2, in hundredths; remembers how many were asked for."""

    spec = NetSpec(scale=1, temporal_scale=2, num_frames=2)

    def __init__(self):
        super().__init__()
        self.calls = 0

    def forward(self, lq):
        values = torch.arange(3.) + 10 * self.calls
        self.calls += 1
        return values.div(100).view(1, 3, 1, 1, 1).expand(len(lq), 3, *lq.shape[2:])


@pytest.mark.parametrize('overlap, expected', [
    ('first', [(0, 0), (1, 1), (2, 2), (3, 11), (4, 12), (5, 21), (6, 22)]),
    ('last', [(0, 0), (1, 1), (2, 10), (3, 11), (4, 20), (5, 21), (6, 22)]),
    ('mean', [(0, 0), (1, 1), (2, 6), (3, 11), (4, 16), (5, 21), (6, 22)]),
    ('all', [(0, 0), (1, 1), (2, 2), (2, 10), (3, 11), (4, 12), (4, 20), (5, 21), (6, 22)]),
])
def test_overlap_rules(overlap, expected):
    """Three windows; frames 2 and 10, and 12 and 20, are copies of the same frame."""
    frames = list(restore_frames(Counted(), torch.zeros(1, 4, 3, 2, 2), overlap=overlap))
    assert [(number, round(100 * float(frame[0, 0, 0, 0]))) for number, frame in frames] == expected
    if overlap != 'all':
        clip = restore_clip(Counted(), torch.zeros(1, 4, 3, 2, 2), overlap=overlap)
        assert clip.shape == (1, 7, 3, 2, 2)
        assert [round(100 * float(value)) for value in clip[0, :, 0, 0, 0]] == [value for _, value in expected]


def test_frames_come_as_soon_as_no_window_makes_them_again():
    net = Counted()
    calls = [(number, net.calls) for number, _ in restore_frames(net, torch.zeros(1, 9, 3, 2, 2), overlap='mean')]
    assert calls == [(number, min(number // 2 + 1, 8)) for number in range(17)]


def test_an_unknown_rule_is_refused():
    with pytest.raises(ValueError, match="first, last, middle, mean, all, but got 'median'"):
        restore_clip(Counted(), torch.zeros(1, 2, 3, 2, 2), overlap='median')


def test_no_gradients_are_kept():
    net = nn.Sequential(nn.Conv3d(3, 3, 1))
    net.spec = NetSpec(scale=1, num_frames=None)
    net.forward = lambda lq, conv=net[0]: conv(lq.transpose(1, 2)).transpose(1, 2)
    assert not restore_clip(net, torch.rand(1, 2, 3, 4, 4)).requires_grad


# ---------------------------------------------------------------- networks that need flow, and make no ends

class Numbered(nn.Module):
    """Of three frames the three around the middle one: each the mean of the given ones beside it, and the flow's."""

    spec = NetSpec(scale=1, temporal_scale=2, num_frames=3, first_output=1, needs_flow=True)

    def inputs(self, lq, flow):
        return lq, flow

    def forward(self, lq, flow):
        a, b, c = lq.unbind(1)
        first, second = flow[:, :, 0, 0].unsqueeze(2).unbind(1)  # x of the flows forward
        return torch.stack([(a + b) / 2 + first, b, (b + c) / 2 + second], dim=1)


@pytest.mark.numeric
def test_frames_without_ends():
    """Return frames 0, 2, 4, 6 of a clip: frame k is k / 10, flow n is n / 100."""
    lq = (torch.arange(4) / 5).view(1, 4, 1, 1, 1).expand(1, 4, 3, 2, 2)
    flow = (torch.arange(3) / 100).view(1, 3, 1, 1, 1, 1).expand(1, 3, 2, 2, 2, 2)
    windows = list(restore_windows(Tiles(Numbered()), frames_of_clip(lq, flow)))
    assert [tuple(window.frames.shape) for window in windows] == 2 * [(1, 3, 3, 2, 2)]
    assert Numbered.spec.length_of_clip(4) == 5
    assert [number for number, _ in restore_frames(Numbered(), lq, flow)] == [1, 2, 3, 4, 5]
    assert [number for number, _ in restore_frames(Numbered(), lq, flow, overlap='all')] == [1, 2, 3, 3, 4, 5]
    clip = restore_clip(Numbered(), lq, flow, overlap='last')
    torch.testing.assert_close(clip[0, :, 0, 0, 0], torch.tensor([0.1, 0.2, 0.3 + 0.01, 0.4, 0.5 + 0.02]))
    with pytest.raises(ValueError, match='Numbered needs the flow between LR frames, but got none'):
        restore_clip(Numbered(), lq)


class Blur(nn.Module):
    """x2: the mean of 5 x 5 pixels around each, then repeated; remembers what it saw."""

    spec = NetSpec(scale=2, num_frames=1, size_multiple=32)

    def __init__(self):
        super().__init__()
        self.sizes = []

    def forward(self, lq):
        self.sizes.append(tuple(lq.shape[-2:]))
        blurred = nn.functional.avg_pool2d(nn.functional.pad(lq.flatten(0, 1), [2] * 4, 'replicate'), 5, 1)
        return blurred.repeat_interleave(2, -1).repeat_interleave(2, -2).unflatten(0, lq.shape[:2])


@pytest.mark.numeric
def test_tiles():
    lq = torch.rand(1, 1, 3, 1024, 1920)
    net = Blur()
    whole = restore_clip(net, lq)
    net.sizes.clear()
    tiled = restore_clip(net, lq, tiling=Tiling((2, 2), 32))
    assert net.sizes == [(544, 992)] * 4  # the published protocol's
    torch.testing.assert_close(tiled, whole)
    assert not torch.allclose(restore_clip(net, lq, tiling=Tiling((2, 2), 0)), whole)  # a seam


@pytest.mark.numeric
@pytest.mark.parametrize('size', [(33, 100), (64, 64), (5, 7), (96, 31)])
@pytest.mark.parametrize('grid', [(1, 1), (2, 3), (7, 2)])
def test_tiles_of_any_size(size, grid):
    lq = torch.rand(1, 1, 3, *size)
    torch.testing.assert_close(restore_clip(Blur(), lq, tiling=Tiling(grid, 3)), restore_clip(Blur(), lq))


@pytest.mark.numeric
@torch.no_grad()
@pytest.mark.parametrize('overlap', [20, 33])
def test_tiles_lie_on_the_grid_of_the_network(overlap):
    """FISR pools by 32: an overlap in between is rounded up, as a tile off that grid would be another image to it."""
    net = FISRNet(num_feat=2).eval()
    lq, flow = torch.rand(1, 3, 3, 192, 64), torch.zeros(1, 2, 2, 2, 192, 64)
    rounded = restore_clip(net, lq, flow=flow, tiling=Tiling((2, 1), 32 * -(-overlap // 32)))
    assert torch.equal(restore_clip(net, lq, flow=flow, tiling=Tiling((2, 1), overlap)), rounded)
    whole = restore_clip(net, lq, flow=flow)
    # Far from the seam a tile gives what the whole frame gives.
    assert (rounded - whole)[..., :100, :].abs().max() < 0.05 * whole.std()


def test_spans():
    assert spans(1024, 2, 32) == [(0, 512), (512, 1024)]
    assert spans(100, 3, 32) == [(0, 32), (32, 64), (64, 100)]
    assert spans(20, 3, 32) == [(0, 20)]


class Centre(nn.Module):
    """Of five frames, weighs each by its place: the middle one counts 100, those before it 1 and 10."""

    spec = NetSpec(scale=1, num_frames=5, first_output=2, pads_ends=True)

    def forward(self, lq):
        weights = torch.tensor([1., 10., 100., 1000., 10000.]).view(1, 5, 1, 1, 1)
        return (lq * weights).sum(1, keepdim=True) / 11111


@pytest.mark.parametrize('num_frames, windows', [
    (1, ['11111']), (2, ['22111', '22211']), (3, ['32111', '33211', '33321']),
    (6, ['32111', '43211', '54321', '65432', '66543', '66654'])])
def test_ends_are_padded(num_frames, windows):
    """Frame k holds k in 11,111ths, so digits show the frames of each window, from its last to its first."""
    assert Centre.spec.length_of_clip(num_frames) == num_frames and Centre.spec.length_of_window(6) == 2
    lq = (torch.arange(num_frames, dtype=torch.float64) + 1).view(1, -1, 1, 1, 1).expand(1, num_frames, 1, 2, 3) / 11111
    frames = dict(restore_frames(Centre(), lq))
    assert list(frames) == list(range(num_frames))
    assert [f'{float(frame[0, 0, 0, 0]) * 11111**2:.0f}' for frame in frames.values()] == windows


class AllOfFive(Centre):
    """All frames of its window: what it made of each, and that much more for each place from the first on."""

    spec = NetSpec(scale=1, num_frames=5, pads_ends=True, overlap='middle')

    def forward(self, lq):
        return lq / 2 + torch.arange(5).view(1, 5, 1, 1, 1) / 100


@pytest.mark.numeric
@pytest.mark.parametrize('num_frames', [1, 4, 5, 7])
def test_short_clips_are_padded_for_networks_that_make_all_frames(num_frames):
    lq = torch.rand(2, num_frames, 1, 2, 3)
    torch.testing.assert_close(restore_clip(AllOfFive(), lq), lq / 2 + 0.02)  # by the window that it is the middle of
    numbers = [number for number, _ in restore_frames(AllOfFive(), lq)]
    assert numbers == list(range(num_frames))


# ---------------------------------------------------------------- streams

def numbers_of(net, num_frames: int, cuts=(), **options) -> list[int]:
    lq = torch.zeros(1, num_frames, 3, 2, 2)
    flow = torch.zeros(1, max(0, num_frames - 1), 2, 2, 2, 2)
    return [number for number, _ in restore_stream(net, frames_of_clip(lq, flow, cuts), **options)]


@pytest.mark.parametrize('net', [Counted(), Numbered()])
@pytest.mark.parametrize('num_frames', [1, 2, 3, 6])
def test_a_complete_stream_has_every_frame(net, num_frames):
    """Of a pair network one frame alone; of one that does without the ends, the ends."""
    assert numbers_of(net, num_frames, complete=True) == list(range(2 * num_frames - 1))


@pytest.mark.numeric
def test_what_a_complete_stream_makes_of_its_ends():
    """Repeated frames do not move, and lie halfway between themselves."""
    lq = (torch.arange(3) / 5).view(1, 3, 1, 1, 1).expand(1, 3, 3, 2, 2)
    flow = torch.full((1, 2, 2, 2, 2, 2), 0.01)
    frames = [float(frame.mean()) for _, frame in restore_stream(
        Numbered(), frames_of_clip(lq, flow), overlap='last', complete=True)]
    assert frames == pytest.approx([0, 0.1 + 0.01, 0.2, 0.3 + 0.01, 0.4])


def test_scenes_are_restored_apart():
    """Between the last frame of a scene and the first of the next nothing is made; one frame is a scene, too."""
    assert numbers_of(Counted(), 6, cuts=[2, 3], complete=True) == [0, 1, 2, 4, 6, 7, 8, 9, 10]
    lq = torch.rand(1, 6, 3, 4, 8)
    scenes = [restore_clip(Pair(), part) for part in (lq[:, :2], lq[:, 2:])]
    assert torch.equal(restore_clip(Pair(), lq, cuts=[2]), torch.cat(scenes, dim=1))
    with pytest.raises(ValueError, match='windows of 2 frames, but the clip has 1'):
        restore_clip(Pair(), lq, cuts=[1])


def test_a_stream_is_read_no_further_than_needed():
    """A window's worth at a time, though the stream never ends."""
    read = []

    def frames():
        while True:
            read.append(len(read))
            yield StreamFrame(torch.zeros(1, 3, 2, 2))

    for number, _ in restore_stream(Counted(), frames()):
        assert len(read) <= number // 2 + 2
        if number == 40:
            break


class TraceState(NamedTuple):
    hr: torch.Tensor


class Trace(nn.Module):
    """x2, recurrent: the mean of this frame and the last output; remembers the sizes of tiles."""

    spec = NetSpec(scale=2, num_frames=None, size_multiple=2, state=TraceState)

    def __init__(self):
        super().__init__()
        self.sizes = []

    def step(self, frame, state):
        self.sizes.append(tuple(frame.shape[-2:]))
        large = frame.repeat_interleave(2, -1).repeat_interleave(2, -2)
        blurred = nn.functional.avg_pool2d(nn.functional.pad(large, [1] * 4, 'replicate'), 3, 1)
        hr = blurred if state is None else (blurred + state.hr) / 2
        return hr, TraceState(hr)


@pytest.mark.numeric
@pytest.mark.parametrize('size', [(8, 12), (7, 13)])
@pytest.mark.parametrize('feather', [0, 1])
def test_tiles_of_a_stream_see_what_became_of_their_neighbours(size, feather):
    """For any length: a state for each tile would miss what moves across the border."""
    lq = torch.rand(1, 9, 3, *size)
    net = Trace()
    tiled = restore_clip(net, lq, tiling=Tiling((2, 2), 2, feather))
    assert len(net.sizes) == 4 * 9
    torch.testing.assert_close(tiled, restore_clip(net, lq))


@pytest.mark.numeric
def test_feather():
    """Tiles that show their position: values rise from one to the next in even steps on both sides of a seam."""
    class Place(nn.Module):
        spec = NetSpec(scale=1, num_frames=1)

        def forward(self, lq):
            return torch.full_like(lq, float(lq[..., -1].mean() > 0))

    lq = torch.zeros(1, 1, 1, 1, 12)
    lq[..., 10:] = 1
    row = restore_clip(Place(), lq, tiling=Tiling((1, 2), 3, 2))[0, 0, 0, 0]
    torch.testing.assert_close(row, torch.tensor([0, 0, 0, 0, 1 / 8, 3 / 8, 5 / 8, 7 / 8, 1, 1, 1, 1]))
    row = restore_clip(Place(), lq, tiling=Tiling((1, 2), 3))[0, 0, 0, 0]
    torch.testing.assert_close(row, torch.tensor([0.] * 6 + [1] * 6))
    with pytest.raises(ValueError, match='feather must be from 0 to overlap 3, but is 4'):
        restore_clip(Place(), lq, tiling=Tiling((1, 2), 3, 4))


@pytest.mark.numeric
@pytest.mark.parametrize('size', [(33, 100), (5, 7), (96, 31)])
@pytest.mark.parametrize('grid', [(1, 1), (2, 3), (7, 2)])
def test_feathered_tiles_of_any_size(size, grid):
    lq = torch.rand(1, 1, 3, *size)
    whole = restore_clip(Plain(), lq)
    torch.testing.assert_close(restore_clip(Plain(), lq, tiling=Tiling(grid, 6, 4)), whole)


class Plain(nn.Module):
    """x2: the mean of 5 x 5 pixels around each, then repeated."""

    spec = NetSpec(scale=2, num_frames=1)

    def forward(self, lq):
        blurred = nn.functional.avg_pool2d(nn.functional.pad(lq.flatten(0, 1), [2] * 4, 'replicate'), 5, 1)
        return blurred.repeat_interleave(2, -1).repeat_interleave(2, -2).unflatten(0, lq.shape[:2])


class Greedy(Plain):
    """Runs out of memory on tiles of more than so many pixels."""

    def __init__(self, most):
        super().__init__()
        self.most, self.sizes = most, []

    def forward(self, lq):
        if lq.shape[-1] * lq.shape[-2] > self.most:
            raise torch.OutOfMemoryError('CUDA out of memory.')
        self.sizes.append(tuple(lq.shape[-2:]))
        return super().forward(lq)


@pytest.mark.numeric
def test_tiles_are_halved_when_memory_does_not_suffice(log):
    """For good, and with a line that says so; what comes out is the same."""
    lq = torch.rand(1, 3, 3, 128, 256)
    net = Greedy(170 * 140)
    frames = [frame for _, frame in restore_stream(Tiles(net, may_halve=True), frames_of_clip(lq))]
    assert net.sizes == 3 * [(128, 160), (128, 160)]
    torch.testing.assert_close(torch.stack(frames, dim=1), restore_clip(Plain(), lq))
    assert log.text.count('frames are split into 1 x 2 tiles from now on') == 1
    with pytest.raises(torch.OutOfMemoryError):
        restore_clip(Greedy(170 * 140), lq)
    with pytest.raises(torch.OutOfMemoryError):  # no tile is small enough
        list(restore_stream(Tiles(Greedy(60), may_halve=True), frames_of_clip(lq)))


def test_halved():
    assert halved(Tiling((1, 1), 0), (100, 300), 1) == Tiling((1, 2), 32, 8)
    assert halved(Tiling((1, 2), 20, 4), (200, 300), 1) == Tiling((2, 2), 20, 4)
    assert halved(Tiling((2, 2), 20, 4), (60, 70), 1) is None
    assert halved(Tiling((1, 1), 0), (64, 64), 64) is None


@pytest.mark.numeric
def test_a_stream_in_two_parts():
    """What a recurrent network left of the first goes into the second."""
    lq, carry = torch.rand(1, 7, 3, 4, 6), Carry()
    whole = restore_clip(Trace(), lq)
    parts = [frame for part in (lq[:, :3], lq[:, 3:])
             for _, frame in restore_stream(Trace(), frames_of_clip(part), carry=carry)]
    assert torch.equal(torch.stack(parts, dim=1), whole)
    assert not torch.allclose(restore_clip(Trace(), lq[:, 3:]), whole[:, 3:])
    begun = [frame for _, frame in restore_stream(Trace(), frames_of_clip(lq[:, 3:], cuts=[0]), carry=carry)]
    assert torch.equal(torch.stack(begun, dim=1), restore_clip(Trace(), lq[:, 3:]))


@pytest.mark.numeric
def test_half_precision():
    """Convolutions in bfloat16, of three digits; frames come out as they went in."""
    net = VSRResNet(num_feat=8, num_block=1).eval()
    lq = torch.rand(1, 2, 1, 8, 12)
    frames = [frame for _, frame in restore_stream(Tiles(net, dtype=torch.bfloat16), frames_of_clip(lq))]
    assert all(frame.dtype == torch.float32 for frame in frames)
    half, whole = torch.stack(frames, dim=1), restore_clip(net, lq)
    assert 0 < (half - whole).abs().max() < 0.02


class Shared(nn.Module):
    """The mean of three frames, each of which is doubled by itself; remembers which were."""

    spec = NetSpec(scale=1, num_frames=3, size_multiple=4, first_output=1, pads_ends=True, sharing='features')

    def __init__(self):
        super().__init__()
        self.doubled = []

    def features(self, frame):
        self.doubled.append(round(frame.flatten()[0].item() * 100))
        return 2 * frame

    def forward(self, lq):
        frames = [self.features(frame) for frame in lq.unbind(1)] if isinstance(lq, torch.Tensor) else lq
        return (sum(frames) / 6).unsqueeze(1)


@pytest.mark.numeric
def test_features_are_made_once_of_each_frame():
    """Also of those that stand in for frames beyond the ends; anew in each scene, though numbers begin anew there."""
    net, lq = Shared(), torch.arange(6.).div(100).view(1, 6, 1, 1, 1).expand(2, 6, 3, 8, 8)
    clip = restore_clip(net, lq, cuts=[4])
    assert net.doubled == [0, 1, 2, 3, 4, 5]
    expected = [1 / 3, 1, 2, 8 / 3, 13 / 3, 14 / 3]
    torch.testing.assert_close(clip[0, :, 0, 0, 0], torch.tensor(expected) / 100)
    torch.testing.assert_close(restore_clip(net, lq, tiling=Tiling((1, 2), 4), cuts=[4]), clip)


class Doubled(NamedTuple):
    frame: torch.Tensor


class Pairs(torch.nn.Module):
    """x2; the second frame of a pair comes out 100 times brighter in the first window that has it."""

    spec = NetSpec(scale=2, num_frames=2, sharing='windows')

    def forward(self, lq):
        return self.next_window(lq, None)[0]

    def next_window(self, lq, earlier):
        first, second = lq.repeat_interleave(2, dim=-1).repeat_interleave(2, dim=-2).unbind(1)
        if earlier is not None:
            first = earlier.frame
        return torch.stack((first, 100 * second), dim=1), Doubled(100 * second)


@pytest.mark.numeric
@pytest.mark.parametrize('tiling', [None, Tiling((2, 3), 2)])
def test_a_window_uses_what_the_one_before_made(tiling):
    """Not across a cut, nor where the copies of a frame are averaged; and by tiles as well."""
    lq = torch.rand(2, 5, 3, 6, 9).div(100)
    large = lq.repeat_interleave(2, dim=-1).repeat_interleave(2, dim=-2)
    gain = torch.tensor([1., 100, 100, 1, 100]).view(1, 5, 1, 1, 1)
    torch.testing.assert_close(restore_clip(Pairs(), lq, tiling=tiling, cuts=[3]), gain * large)
    alone = restore_clip(Pairs(), lq, tiling=tiling, overlap='mean')
    torch.testing.assert_close(alone, torch.tensor([1, 50.5, 50.5, 50.5, 100]).view(1, 5, 1, 1, 1) * large)
    both = [(number, frame) for number, frame in restore_frames(Pairs(), lq, tiling=tiling, overlap='all')]
    assert [number for number, _ in both] == [0, 1, 1, 2, 2, 3, 3, 4]
    torch.testing.assert_close(both[2][1], large[:, 1])


@pytest.mark.numeric
@pytest.mark.parametrize('first_conv', ['shared', 'separate', 'early'])
def test_shared_features_are_those_of_a_window_alone(first_conv):
    torch.manual_seed(0)
    net, lq = VSRResNet(num_feat=4, num_block=1, scale=2, first_conv=first_conv), torch.rand(1, 7, 1, 9, 10)
    with torch.no_grad():
        expected = torch.stack([net(lq[:, start:start + 5])[:, 0] for start in range(3)], dim=1)
    torch.testing.assert_close(restore_clip(net, lq)[:, 2:5], expected.clamp(0, 1))
