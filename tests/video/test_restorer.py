"""Streams of frames through networks: colours, scenes and times."""
from fractions import Fraction
from itertools import pairwise

import numpy as np
import pytest
import torch
from basicsr.archs import build_network
from torch import nn

import basicsr_stvsr
from basicsr_stvsr import restore
from basicsr_stvsr.archs.resize import upscale_bicubic
from basicsr_stvsr.archs.spec import NetSpec
from basicsr_stvsr.flow import build_flow
from basicsr_stvsr.inference.windows import Carry, restore_clip
from basicsr_stvsr.io.color_spaces import convert_clip
from basicsr_stvsr.io.frame_source import TimedFrame
from basicsr_stvsr.io.video_info import VideoError
from basicsr_stvsr.video.restorer import RestoreOptions, Restorer

FILM = Fraction(1001, 24000)  # seconds of a frame


class Pair(nn.Module):
    """x2 in both: repeats pixels, and puts the mean of its two frames between them."""

    spec = NetSpec(scale=2, temporal_scale=2, num_frames=2)

    def forward(self, lq):
        a, b = lq.repeat_interleave(2, -1).repeat_interleave(2, -2).unbind(1)
        return torch.stack([a, (a + b) / 2, b], dim=1)


class Single(nn.Module):
    """Gives frames back; of luma, if asked."""

    def __init__(self, color):
        super().__init__()
        self.spec = NetSpec(scale=1, num_frames=1, color=color)

    def forward(self, lq):
        return lq


def smooth_clip(num_frames: int, size: tuple[int, int] = (40, 64), seed: int = 0) -> np.ndarray:
    """(T, h, w, 3) uint8: a texture that moves by a pixel a frame."""
    torch.manual_seed(seed)
    texture = torch.nn.functional.avg_pool2d(torch.rand(3, size[0] + 8, size[1] + num_frames + 8), 9, 1)
    texture = (texture - texture.min()) / (texture.max() - texture.min())
    frames = [texture[..., t:t + size[1]] for t in range(num_frames)]
    return (torch.stack(frames) * 255).round().byte().permute(0, 2, 3, 1).numpy()


def timed(clip: np.ndarray, times=None) -> list[TimedFrame]:
    return [TimedFrame(image, time) for image, time in zip(clip, times or [n * FILM for n in range(len(clip))],
                                                           strict=True)]


def to_clip(frames: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(frames).permute(0, 3, 1, 2)[None] / 255


class Diverging(nn.Module):
    """Gives its frames back, with one infinite value where a frame is bright."""

    spec = NetSpec(scale=1, num_frames=1)

    def forward(self, lq):
        return torch.where(lq > 0.99, torch.inf, lq)


@pytest.mark.parametrize('precision', ['fp32', 'bf16'])
def test_an_output_that_is_not_finite_names_its_time(precision):
    clip = np.full((5, 16, 16, 3), 100, np.uint8)
    clip[3, 5, 7, 1] = 255
    restored = Restorer(Diverging(), RestoreOptions(precision=precision, detect_cuts=False))(timed(clip))
    for _ in range(3):
        assert next(restored).image.max() == 100
    with pytest.raises(VideoError, match=r'^Diverging gives values that are not finite for the frame at 0:00:00.125: '):
        next(restored)  # 3 * 1001 / 24000 s


# ---------------------------------------------------------------- time

@pytest.mark.numeric
@pytest.mark.parametrize('num_frames', [1, 2, 5])
@pytest.mark.parametrize('even', [False, True])
def test_times_and_counts(num_frames, even):
    """Frames between two lie halfway, whatever the times are; of 24000 / 1001 a second they come at 48000 / 1001."""
    for times in ([n * FILM for n in range(num_frames)], [Fraction(n * n, 1000) for n in range(num_frames)]):
        restorer = Restorer(Pair(), RestoreOptions(even=even))
        frames = list(restorer(timed(smooth_clip(num_frames), times), last_duration=FILM))
        expected = sorted(times + [(a + b) / 2 for a, b in pairwise(times)])
        if even:
            last = times[-1] - times[-2] if num_frames > 1 else FILM
            expected.append(times[-1] + last / 2)
            np.testing.assert_array_equal(frames[-1].image, frames[-2].image)
        assert [frame.time for frame in frames] == expected


def test_an_empty_stream():
    assert list(Restorer(Pair())([])) == []


@pytest.mark.numeric
@pytest.mark.parametrize('at_cut', ['previous', 'next'])
def test_nothing_is_interpolated_across_a_cut(at_cut):
    """Two shots of other colours: each is restored as if it were alone, and between them a frame stands twice."""
    shots = [smooth_clip(9) // 3, 255 - smooth_clip(9, seed=1) // 3]
    frames = list(Restorer(Pair(), RestoreOptions(at_cut=at_cut))(timed(np.concatenate(shots))))
    assert [frame.time for frame in frames] == [n * FILM / 2 for n in range(35)]
    alone = [[frame.image for frame in Restorer(Pair())(timed(shot))] for shot in shots]
    expected = alone[0] + [alone[0][-1] if at_cut == 'previous' else alone[1][0]] + alone[1]
    np.testing.assert_array_equal([frame.image for frame in frames], expected)
    across = list(Restorer(Pair(), RestoreOptions(detect_cuts=False))(timed(np.concatenate(shots))))
    mean = (shots[0][-1].astype(float) + shots[1][0]) / 2
    assert np.abs(across[17].image[::2, ::2] - mean).max() <= 0.5


# ---------------------------------------------------------------- colour

@pytest.mark.numeric
@pytest.mark.parametrize('dtype', [np.uint8, np.uint16])
@pytest.mark.parametrize('color', ['rgb', 'yuv', 'y'])
def test_colours_come_back(color, dtype):
    """All of them, in as many bits as they had; of luma with the chroma of the given frames."""
    levels = np.linspace(0, np.iinfo(dtype).max, 5).round().astype(dtype)
    image = np.stack(np.meshgrid(levels, levels, levels), axis=-1).reshape(25, 5, 3)
    (frame,) = Restorer(Single(color))([TimedFrame(image, Fraction(0))])
    assert frame.image.dtype == dtype and frame.image.flags['C_CONTIGUOUS']
    assert np.abs(frame.image.astype(int) - image).max() <= (0 if dtype == np.uint8 else 1)


# ---------------------------------------------------------------- networks of the package

NETWORKS = [
    {'type': 'VSRResNet', 'num_feat': 4, 'num_block': 1, 'scale': 2},
    {'type': 'FSTRN', 'num_feat': 4, 'num_frb': 1},
    {'type': 'FISRNet', 'num_feat': 2},
    {'type': 'HOFFR', 'num_feat': 8, 'num_block': 1, 'num_rcab': 1, 'reduction': 1, 'num_flow_feat': 4},
]


@pytest.mark.numeric
@pytest.mark.parametrize('network', NETWORKS, ids=lambda network: network['type'])
def test_equals_a_clip_restored_at_once(network):
    """In RGB and 8 bits; frames at the ends too, which FISR makes of repeated ones."""
    torch.manual_seed(0)
    net = build_network(dict(network)).eval()
    clip = smooth_clip(5)
    frames = [frame.image for frame in Restorer(net)(timed(clip))]
    lq, color = to_clip(clip), net.spec.color
    flow, chroma = None, None
    if net.spec.needs_flow:
        estimator = build_flow({'type': 'DISFlow'})
        bgr = [np.ascontiguousarray(frame[..., ::-1]) for frame in clip]
        flow = torch.from_numpy(np.stack([[estimator(a, b), estimator(b, a)] for a, b in pairwise(bgr)]))
        flow = flow.permute(0, 1, 4, 2, 3)[None]
    lq = convert_clip(lq, 'rgb', 'yuv' if color == 'y' else color)
    if color == 'y':
        lq, chroma = lq[:, :, :1], upscale_bicubic(lq[0, :, 1:], net.spec.scale)
    restored = restore_clip(net, lq, flow)[0]
    if chroma is not None:
        restored = torch.cat((restored, chroma), dim=1)
    expected = convert_clip(restored, 'yuv' if color in ('y', 'yuv') else 'rgb', 'rgb').clamp(0, 1).mul(255).round()
    expected = expected.permute(0, 2, 3, 1).numpy()
    assert len(frames) == net.spec.temporal_scale * 4 + 1
    if network['type'] == 'FISRNet':  # makes no ends; and its last frame is one that a window of the repeated end makes
        frames, expected = frames[1:-2], expected[:-1]
    assert np.abs(np.stack(frames) - expected).max() <= 1


@pytest.mark.numeric
def test_a_recurrent_network_goes_on_where_it_was():
    torch.manual_seed(0)
    net = build_network(dict(NETWORKS[-1])).eval()
    clip, carry = timed(smooth_clip(7)), Carry()
    whole = [frame.image for frame in Restorer(net)(clip)]
    parts = [frame.image for part in (clip[:3], clip[3:]) for frame in Restorer(net)(part, carry=carry)]
    np.testing.assert_array_equal(parts, whole)


@pytest.mark.numeric
def test_tiles():
    """Of 24 pixels at most, which fade into each other: the same within a level, as the network does not see far."""
    torch.manual_seed(0)
    net = build_network({'type': 'FSTRN', 'num_feat': 4, 'num_frb': 1}).eval()
    clip = timed(smooth_clip(3, (50, 70)))
    whole = [frame.image for frame in Restorer(net)(clip)]
    tiled = [frame.image for frame in Restorer(net, RestoreOptions(tile=24, tile_overlap=16))(clip)]
    assert np.abs(np.stack(whole).astype(int) - np.stack(tiled)).max() <= 1


@pytest.mark.parametrize('options, message', [
    ({'precision': 'fp8'}, "precision must be one of auto, fp32, bf16, fp16, but is 'fp8'"),
    ({'at_cut': 'blend'}, "at_cut must be one of previous, next, but is 'blend'"),
    ({'tile': 8}, 'tile must be at least 16 pixels, but is 8'),
    ({'tile_overlap': -1}, 'tile_overlap must be at least 0, but is -1'),
])
def test_options_that_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        RestoreOptions(**options)


# ---------------------------------------------------------------- in Python

@pytest.mark.numeric
@pytest.mark.parametrize('view', [
    lambda frame: frame[..., ::-1], lambda frame: frame[::-1, ::-1],
    lambda frame: np.ascontiguousarray(frame.transpose(2, 0, 1)).transpose(1, 2, 0),
    lambda frame: np.pad(frame, ((1, 2), (3, 0), (0, 0)))[1:-2, 3:]])
def test_frames_may_lie_anyhow_in_memory(view):
    """Such as those of OpenCV, turned from BGR to RGB by a view."""
    clip = [view(frame) for frame in smooth_clip(3)]
    for result, expected in zip(restore(clip, Pair()), restore([frame.copy() for frame in clip], Pair()), strict=True):
        np.testing.assert_array_equal(result, expected)


@pytest.mark.numeric
@pytest.mark.parametrize('kind', ['uint8', 'uint16', 'tensor'])
def test_restore(kind):
    """Frames come out as they went in, one after another, and only as many are read as are needed."""
    clip = smooth_clip(12)
    frames = {'uint8': clip, 'uint16': clip.astype(np.uint16) * 257,
              'tensor': torch.from_numpy(clip).permute(0, 3, 1, 2) / 255}[kind]
    read = []
    results = restore((read.append(0) or frame for frame in frames), Pair(), options=RestoreOptions(detect_cuts=False))
    assert not read
    first = next(results)
    assert len(read) == 2
    results = [first, *results]
    assert len(results) == 23 and {type(result) for result in results} == {type(frames[0])}
    assert {result.dtype for result in results} == {frames[0].dtype}
    for given, result in zip(frames, results[::2], strict=True):
        shrunk = result[:, ::2, ::2] if kind == 'tensor' else result[::2, ::2]
        assert (torch.allclose(shrunk, given) if kind == 'tensor' else np.array_equal(shrunk, given))


def test_restore_by_name():
    (frame,) = basicsr_stvsr.restore(smooth_clip(1), 'adaptive-gan-small', device='cpu')
    assert frame.shape == (160, 256, 3)
    with pytest.raises(ValueError, match="no model 'mbnet' in the zoo, expected one of mbnet-small"):
        basicsr_stvsr.restore(smooth_clip(1), 'mbnet')


@pytest.mark.parametrize('frames, message', [
    ([np.zeros((4, 6), np.uint8)], r'frame 0 is uint8 \(4, 6\)'),
    ([np.zeros((4, 6, 4), np.uint8)], r'frame 0 is uint8 \(4, 6, 4\)'),
    ([np.zeros((4, 6, 3))], r'frame 0 is float64 \(4, 6, 3\)'),
    ([torch.zeros(4, 6, 3)], r'frame 0 is torch.float32 \(4, 6, 3\)'),
    (['a.png'], 'frame 0 is str'),
    ([torch.full((3, 4, 6), 200.)], 'tensors must have values of 0-1, but frame 0 has a maximum of 200'),
    ([np.zeros((4, 6, 3), np.uint8), np.zeros((4, 8, 3), np.uint8)], r'frame 1 is uint8 \(4, 8, 3\) and the first'),
])
def test_frames_that_are_refused(frames, message):
    with pytest.raises(ValueError, match=message):
        list(restore(frames, Pair()))


class Overshoot(nn.Module):
    """Makes of 0-1 what lies between -1 and 2."""

    def __init__(self, color: str):
        super().__init__()
        self.spec = NetSpec(scale=1, num_frames=1, color=color)

    def forward(self, lq: torch.Tensor) -> torch.Tensor:
        return 3 * lq - 1


@pytest.mark.numeric
@pytest.mark.parametrize('dtype', [np.uint8, np.uint16, torch.float32])
def test_what_a_network_makes_is_cut(dtype):
    """A ramp: black up to a third of the range, white from two thirds on."""
    ramp = np.tile(np.arange(256)[None, :, None], (4, 1, 3))
    if dtype is torch.float32:
        frame, white = torch.from_numpy(ramp / 255).permute(2, 0, 1).float(), 1.0
    else:
        white = np.iinfo(dtype).max
        frame = (ramp * (white // 255)).astype(dtype)
    result, = restore([frame], Overshoot('rgb'))
    expected = np.clip(ramp[0, :, 0] / 255 * 3 - 1, 0, 1) * white
    shown = result[0] if dtype is torch.float32 else result[..., 0]
    np.testing.assert_allclose(np.asarray(shown, float), np.tile(expected, (4, 1)), atol=1e-6 if white == 1 else 0.51)


@pytest.mark.parametrize('color', ['y', 'yuv'])
def test_luma_is_cut_before_it_becomes_rgb(color):
    grey = np.full((4, 6, 3), 250, np.uint8)
    result, = restore([grey], Overshoot(color))
    assert (result == 255).all()
