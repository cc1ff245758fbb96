"""Synthetic motion blur: against frames that were rendered in between, against pencil, and in the data sets."""
import pickle
import random
import shutil
from collections.abc import Iterable

import av
import cv2
import numpy as np
import pytest
import torch
from basicsr.data import build_dataset
from scenes import Layer, random_background, render
from torch.utils.data import DataLoader

from basicsr_stvsr.data.clip_dataset import STVSRClipDataset, STVSRTestDataset
from basicsr_stvsr.data.crops import add_margin, crop_arrays, relative_to
from basicsr_stvsr.data.degradations import bicubic, gaussian, linear_light_average
from basicsr_stvsr.data.motion_blur import motion_blur, sub_frame_times
from basicsr_stvsr.data.sample_order import SampleStream, SeededDataset
from basicsr_stvsr.flow import FlowEstimator, build_flow
from basicsr_stvsr.io.lmdb_files import clip_frames, write_lmdb
from basicsr_stvsr.io.opening import open_reader

pytestmark = pytest.mark.numeric

HEIGHT, WIDTH, NUM_FRAMES = 128, 160, 4


class FollowsPoint(FlowEstimator):
    """All moves as the brightest point does."""

    def estimate(self, first: np.ndarray, second: np.ndarray) -> np.ndarray:
        places = [np.unravel_index(frame[..., 0].argmax(), frame.shape[:2]) for frame in (first, second)]
        flow = np.subtract(*places[::-1])[::-1]  # x, then y
        return np.broadcast_to(flow, (*first.shape[:2], 2)).astype(np.float32)


def scene(motion: str, speed: float) -> Layer:
    return random_background(np.random.default_rng(0), 'astronaut', motion, speed, NUM_FRAMES, HEIGHT, WIDTH)


def frames_at(layer: Layer, times: Iterable[float]) -> list[np.ndarray]:
    return [render([layer], time, HEIGHT, WIDTH) for time in times]


def fade(frames: list[np.ndarray], number: int, times: list[float]) -> np.ndarray:
    """The same mean without flow."""
    neighbours = [frames[number + 1 if time > 0 else number - 1] for time in times]
    return linear_light_average([
        cv2.addWeighted(frames[number], 1 - abs(time), other, abs(time), 0)
        for time, other in zip(times, neighbours, strict=True)])


def psnr(a: np.ndarray, b: np.ndarray) -> float:
    return cv2.PSNR(np.ascontiguousarray(a), np.ascontiguousarray(b))


@pytest.fixture(scope='module')
def pan() -> tuple[Layer, list[np.ndarray]]:
    layer = scene('pan', 6)
    return layer, frames_at(layer, range(NUM_FRAMES))


# ---------------------------------------------------------------- the blur itself

@pytest.mark.parametrize(('exposure', 'num_frame', 'times'), [
    (1, 5, [-0.4, -0.2, 0, 0.2, 0.4]), (0.6, 3, [-0.2, 0, 0.2]), (2, 3, [-2 / 3, 0, 2 / 3]), (1, 1, [0])])
def test_times(exposure, num_frame, times):
    assert sub_frame_times(exposure, num_frame) == pytest.approx(times)


@pytest.mark.parametrize('motion', ['pan', 'zoom', 'rotation', 'combined'])
def test_against_rendered_sub_frames(motion):
    """Of the whole frame, its borders included, where some of what is seen is in one frame only."""
    layer, times = scene(motion, 6), sub_frame_times(1, 7)
    frames = frames_at(layer, range(NUM_FRAMES))
    truth = linear_light_average(frames_at(layer, [2 + time for time in times]))
    blurred, = motion_blur(frames, 1, which=[2])
    assert psnr(frames[2], truth) < 30 < psnr(fade(frames, 2, times), truth) + 4
    assert psnr(blurred, truth) > 41
    assert psnr(blurred, truth) > psnr(fade(frames, 2, times), truth) + 12


def test_a_point_of_light():
    """Three pixels have it for a third of the time each: 255 * (1.055 * (1 / 3)^(1 / 2.4) - 0.055) = 156.2.

    Where it stands still for two of three sub-frames, 255 * (1.055 * (2 / 3)^(1 / 2.4) - 0.055) = 213.2.
    """
    frames = [np.zeros((16, 40, 3), np.uint8) for _ in range(3)]
    for frame, x in zip(frames, (14, 20, 26), strict=True):
        frame[8, x] = 255
    blurred = motion_blur(frames, 1, num_frame=3, flow=FollowsPoint())
    lit = [{(y, x): image[y, x].tolist() for y, x in np.argwhere(image.any(axis=2)).tolist()} for image in blurred]
    assert lit == [{(8, 14): [213] * 3, (8, 16): [156] * 3},
                   {(8, 18): [156] * 3, (8, 20): [156] * 3, (8, 22): [156] * 3},
                   {(8, 24): [156] * 3, (8, 26): [213] * 3}]


@pytest.mark.parametrize('exposure', [0.1, 1, 2])
@pytest.mark.parametrize('num_frame', [1, 2 * 3 + 1, 15])
def test_what_stands_still_stays_as_it_is(exposure, num_frame):
    frame = np.random.default_rng(0).integers(0, 256, (40, 60, 3), np.uint8)
    for blurred in motion_blur([frame.copy() for _ in range(3)], exposure, num_frame=num_frame):
        np.testing.assert_array_equal(blurred, frame)
    np.testing.assert_array_equal(motion_blur([frame], exposure, num_frame=num_frame)[0], frame)
    assert motion_blur([], exposure) == []


def test_exposures(pan):
    """Each is nearest to what was rendered for it, and the longer the less detail is left."""
    layer, frames = pan
    exposures = (0.25, 0.5, 1, 2)
    truths = [linear_light_average(frames_at(layer, [1 + time for time in sub_frame_times(exposure, 7)]))
              for exposure in exposures]
    blurred = [motion_blur(frames, exposure, which=[1])[0] for exposure in exposures]
    scores = np.array([[psnr(ours, truth) for truth in truths] for ours in blurred])
    assert (scores.argmax(axis=1) == range(4)).all() and (np.diag(scores) > 40).all()
    detail = [cv2.Laplacian(image, cv2.CV_32F).std() for image in [frames[1], *blurred]]
    assert detail == sorted(detail, reverse=True)


def test_ends_of_a_clip(pan):
    """The side that has no neighbour stands still: half of the sub-frames are the sharp frame."""
    layer, frames = pan
    for number, side in ((0, 1), (NUM_FRAMES - 1, -1)):
        times = [time for time in sub_frame_times(1, 7) if side * time > 0]
        truth = linear_light_average([frames[number]] * 4 + frames_at(layer, [number + time for time in times]))
        blurred, = motion_blur(frames, 1, which=[number])
        assert psnr(blurred, truth) > 43 > psnr(frames[number], truth) + 10


def test_which_frames(pan):
    """Any of them, in any order: the same as when all are blurred."""
    _, frames = pan
    everything = motion_blur(frames, 1)
    assert len(everything) == NUM_FRAMES
    for ours, number in zip(motion_blur(frames, 1, which=iter([3, 0, 2, 0])), (3, 0, 2, 0), strict=True):
        np.testing.assert_array_equal(ours, everything[number])


def test_box(pan):
    """A part is what it is in the whole; of a crop with a margin nearly so, as the flow is estimated on the crop."""
    _, frames = pan
    crop = 40, 30, 90, 120
    whole = crop_arrays(motion_blur(frames, 1), crop)
    for ours, expected in zip(motion_blur(frames, 1, crop=crop), whole, strict=True):
        np.testing.assert_array_equal(ours, expected)
    padded = add_margin(crop, 24, (HEIGHT, WIDTH))
    assert padded == (16, 6, 114, 144)
    crops = motion_blur(crop_arrays(frames, padded), 1, crop=relative_to(crop, padded))
    assert min(map(psnr, crops, whole)) > 45
    bare = motion_blur(crop_arrays(frames, crop), 1)
    assert min(map(psnr, bare, whole)) < min(map(psnr, crops, whole)) - 5


def test_middle_frames_of_middlebury(real_data):
    """Real frames that lie between two others, as the last of three sub-frames over an exposure of 1.5, at time 0.5."""
    gains = []
    with open_reader(real_data / 'eval' / 'middlebury_other') as reader:
        for clip in reader.clips:
            first, middle, last = (reader.frame(clip, i) for i in range(3))
            truth = linear_light_average([first, first, middle])  # without a frame before it, the first one waits
            blurred, = motion_blur([first, last], 1.5, num_frame=3, which=[0])
            faded = linear_light_average([first, first, cv2.addWeighted(first, 0.5, last, 0.5, 0)])
            gains.append(psnr(blurred, truth) - psnr(faded, truth))
    # Fading is better on one of the twelve, people before a wall without texture.
    assert sum(gain > 0 for gain in gains) >= 11 and np.mean(gains) > 6


@pytest.mark.parametrize(('change', 'message'), [
    ({'exposure': 0}, 'exposure must be > 0 and <= 2, got 0'),
    ({'exposure': 2.5}, 'exposure must be > 0 and <= 2, got 2.5'),
    ({'exposure': float('nan')}, 'exposure must be > 0 and <= 2, got nan'),
    ({'num_frame': 4}, 'num_frame must be odd and positive, got 4'),
    ({'num_frame': -1}, 'num_frame must be odd and positive, got -1'),
    ({'frames': [np.zeros((8, 8, 3))]}, r"frames \(h, w, 3\) of one shape, BGR, but got \[\('float64', \(8, 8, 3"),
    ({'frames': [np.zeros((8, 8), np.uint8)]}, r"but got \[\('uint8', \(8, 8\)\)\]"),
    ({'frames': [np.zeros((8, 8, 1), np.uint8)]}, r'\(8, 8, 1\)'),
    ({'frames': [np.zeros((8, side, 3), np.uint8) for side in (8, 9)]}, r'\(8, 8, 3\)\), .*\(8, 9, 3\)'),
])
def test_bad_arguments(change, message):
    with pytest.raises(ValueError, match=message):
        motion_blur(**{'frames': [np.zeros((8, 8, 3), np.uint8)], 'exposure': 1, **change})


# ---------------------------------------------------------------- in the data sets

@pytest.fixture(scope='module')
def moving(tmp_path_factory):
    """Two clips of ten frames of 96x112, as folders, as an LMDB, and the first as a video."""
    root = tmp_path_factory.mktemp('moving')
    for clip, motion in (('first', 'combined'), ('second', 'pan')):
        layer = random_background(np.random.default_rng(1), 'astronaut', motion, 5, 10, 96, 112)
        (root / 'gt' / clip).mkdir(parents=True)
        for i in range(10):
            cv2.imwrite(str(root / 'gt' / clip / f'im{i + 1}.png'), render([layer], i, 96, 112))
    with open_reader(root / 'gt') as reader:
        write_lmdb(root / 'gt.lmdb', (frame for clip in reader.clips for frame in clip_frames(reader, clip)))
        with av.open(str(root / 'first.mkv'), 'w') as container:
            stream = container.add_stream('ffv1', rate=25)
            stream.height, stream.width, stream.pix_fmt = 96, 112, 'bgr0'
            for i in range(10):
                frame = av.VideoFrame.from_ndarray(reader.frame('first', i), format='bgr24').reformat(format='bgr0')
                container.mux(stream.encode(frame))
            container.mux(stream.encode())
    return root


@pytest.fixture
def train_opt(moving):
    return {
        'name': 'Moving', 'type': 'STVSRClipDataset', 'phase': 'train', 'scale': 4, 'dataroot_gt': moving / 'gt',
        'num_frame': 3, 'temporal_scale': 1, 'gt_size': 48, 'motion_blur': {'exposure': 1.0, 'num_frame': 5}}


@pytest.fixture
def test_opt(moving):
    return {
        'name': 'Moving', 'type': 'STVSRTestDataset', 'phase': 'val', 'scale': 4, 'dataroot_gt': moving / 'gt',
        'temporal_scale': 1, 'motion_blur': {'exposure': 1.0, 'num_frame': 5}}


def read_clip(moving, clip: str = 'first') -> list[np.ndarray]:
    with open_reader(moving / 'gt') as reader:
        return [reader.frame(clip, i) for i in range(10)]


def to_clip(frames: list[np.ndarray]) -> torch.Tensor:
    return torch.from_numpy(np.stack(frames)[..., ::-1].transpose(0, 3, 1, 2).copy()) / 255


def sample(dataset, index: int, seed: int = 0) -> dict:
    random.seed(seed)
    return dataset[index]


def assert_equal(a: dict, b: dict) -> None:
    assert a.keys() == b.keys()
    assert all(torch.equal(a[key], b[key]) if torch.is_tensor(a[key]) else a[key] == b[key] for key in a)


@pytest.mark.parametrize(('interval', 'temporal_scale', 'start'), [
    (1, 1, 0), (1, 1, 4), (1, 1, 7), (2, 1, 1), (2, 1, 5), (1, 2, 3), (3, 2, 3)])
def test_windows_are_blurred_with_their_neighbours(moving, train_opt, interval, temporal_scale, start):
    """Those of a window are an interval away; before and behind it too, where the clip has them."""
    train_opt.update(gt_size=None, interval_list=[interval], temporal_scale=temporal_scale, clips='first')
    item = STVSRClipDataset(train_opt)[start]
    frames = read_clip(moving)
    spaced = frames[start % interval::interval]
    first = start // interval
    blurred = motion_blur(spaced, 1, num_frame=5, which=range(first, first + 3, temporal_scale))
    assert item['key'] == f'first/im{start + 1}'
    assert torch.equal(item['lq'], to_clip([bicubic(4)(frame) for frame in blurred]))
    assert torch.equal(item['gt'], to_clip(spaced[first:first + 3]))


@pytest.mark.parametrize('gt_size', [16, 48])
def test_crops_are_nearly_those_of_whole_frames(train_opt, gt_size):
    """As flow is estimated on the crop with blur_margin around it; with a margin over all of the frame, exactly so."""
    whole = STVSRClipDataset({**train_opt, 'gt_size': None})[3]
    errors = {}
    for margin in (0, 32, 112):
        dataset = STVSRClipDataset({**train_opt, 'gt_size': gt_size, 'blur_margin': margin})
        errors[margin] = 0
        for seed in range(10):
            item = sample(dataset, 3, seed)
            windows = whole['gt'][0, 0].unfold(0, gt_size, 4).unfold(1, gt_size, 4)
            (top, left), = (windows == item['gt'][0, 0]).all(dim=(2, 3)).nonzero().tolist()
            expected = whole['lq'][..., top:top + gt_size // 4, left:left + gt_size // 4]
            errors[margin] += (item['lq'] - expected).abs().mean().item() * 255 / 10
    assert errors[112] == 0 and errors[32] < 0.5 * errors[0] and errors[32] < 0.3


def test_reversal_and_flips(train_opt):
    """A window played backwards is blurred as it is forward, bit for bit; ground truth stays sharp."""
    train_opt.update(gt_size=None, random_reverse=True, cache=True)
    dataset = STVSRClipDataset(train_opt)
    plain = STVSRClipDataset({**train_opt, 'random_reverse': False})[2]
    reversed_ = [sample(dataset, 2, seed) for seed in range(6)]
    is_reversed = [torch.equal(item['gt'], plain['gt'].flip(0)) for item in reversed_]
    assert 0 < sum(is_reversed) < 6
    for item, back in zip(reversed_, is_reversed, strict=True):
        assert torch.equal(item['lq'], plain['lq'].flip(0) if back else plain['lq'])
        assert torch.equal(item['gt'], plain['gt'].flip(0) if back else plain['gt'])

    turned = STVSRClipDataset({**train_opt, 'use_hflip': True, 'use_rot': True})
    for seed in range(8):
        item = sample(turned, 2, seed)
        smaller = torch.nn.functional.avg_pool2d(item['gt'], 4)
        assert (smaller - item['lq']).abs().mean() < 0.02  # the clip is smooth; turned otherwise it would be far off


@pytest.mark.parametrize('change', [
    {'cache': True}, {'dataroot_gt': 'gt.lmdb'}, {'dataroot_gt': 'gt.lmdb', 'cache': True},
    {'dataroot_gt': 'first.mkv', 'clips': None}])
def test_all_sources_give_the_same(moving, train_opt, change):
    train_opt.update(use_hflip=True, random_reverse=True, clips='first',
                     motion_blur={'exposure': [0.2, 1.5], 'num_frame': 5})
    expected = STVSRClipDataset(train_opt)
    if 'dataroot_gt' in change:
        change = {**change, 'dataroot_gt': moving / change['dataroot_gt']}
    dataset = STVSRClipDataset({**train_opt, **change})
    for seed in range(4):
        for _ in range(2):
            item, other = sample(dataset, 2 * seed, seed), sample(expected, 2 * seed, seed)
            assert torch.equal(item['lq'], other['lq']) and torch.equal(item['gt'], other['gt'])
    assert_equal(sample(pickle.loads(pickle.dumps(dataset)), 5), sample(dataset, 5))


@pytest.mark.parametrize('num_workers', [1, 2])
def test_workers_change_nothing(train_opt, num_workers):
    train_opt.update(motion_blur={'exposure': [0.2, 2], 'num_frame': 3}, use_rot=True, random_reverse=True, cache=True)
    dataset = SeededDataset(build_dataset(train_opt))
    batches = []
    for workers in (0, num_workers):
        loader = iter(DataLoader(dataset, batch_sampler=SampleStream(16, 4, seed=3), num_workers=workers))
        batches.append([next(loader) for _ in range(3)])
    for ours, others in zip(*batches, strict=True):
        assert_equal(ours, others)


def test_exposure_is_drawn_for_each_sample(moving, train_opt):
    """Between the two that the options name; the crop, drawn before, is the same with and without blur."""
    train_opt.update(motion_blur={'exposure': [0.5, 2], 'num_frame': 5}, gt_size=None, clips='first')
    dataset = STVSRClipDataset(train_opt)
    frames = read_clip(moving)
    for seed in (1, 2):
        random.seed(seed)
        exposure = random.uniform(0.5, 2)
        blurred = motion_blur(frames, exposure, num_frame=5, which=(4, 5, 6))
        assert torch.equal(sample(dataset, 4, seed)['lq'], to_clip([bicubic(4)(frame) for frame in blurred]))
    sharp = STVSRClipDataset({**train_opt, 'motion_blur': None, 'gt_size': 48})
    dataset = STVSRClipDataset({**train_opt, 'gt_size': 48})
    assert all(torch.equal(sample(sharp, 4, seed)['gt'], sample(dataset, 4, seed)['gt']) for seed in range(5))


def test_degradation_and_flow_are_of_blurred_frames(moving, train_opt):
    """Options that go with it: another degradation, and flow between the LR frames."""
    train_opt.update(gt_size=None, clips='first', num_frame=5, temporal_scale=2, flow_opt={'type': 'DISFlow'},
                     degradation={'type': 'gaussian'})
    item = STVSRClipDataset(train_opt)[1]
    blurred = motion_blur(read_clip(moving), 1, num_frame=5, which=(1, 3, 5))
    expected = [gaussian(4)(frame) for frame in blurred]
    assert torch.equal(item['lq'], to_clip(expected))
    flow = build_flow({'type': 'DISFlow'})(expected[0], expected[1])
    np.testing.assert_array_equal(item['lq_flow'][0, 0].permute(1, 2, 0), flow)


def test_whole_clips(moving, test_opt):
    """In tests, with the ends of the clip; of the first frames alone, the last one has the one behind it."""
    frames = read_clip(moving)
    expected = to_clip([bicubic(4)(frame) for frame in motion_blur(frames, 1, num_frame=5)])
    item = STVSRTestDataset(test_opt)[0]
    assert torch.equal(item['lq'], expected) and torch.equal(item['gt'], to_clip(frames))
    item = STVSRTestDataset({**test_opt, 'num_frame': 4})[0]
    assert torch.equal(item['lq'], expected[:4]) and torch.equal(item['gt'], to_clip(frames[:4]))
    item = STVSRTestDataset({**test_opt, 'temporal_scale': 2})[0]
    assert torch.equal(item['lq'], expected[::2]) and len(item['gt']) == 9


def test_exposure_of_a_clip_follows_from_its_name(test_opt):
    test_opt['motion_blur'] = {'exposure': [0.2, 2]}
    dataset = STVSRTestDataset(test_opt)
    items = [sample(dataset, 0, seed) for seed in range(2)]
    assert_equal(*items)
    for clip, item in (('first', items[0]), ('second', dataset[1])):
        exposure = random.Random(clip).uniform(0.2, 2)
        fixed = STVSRTestDataset({**test_opt, 'clips': clip, 'motion_blur': {'exposure': exposure}})[0]
        assert_equal(fixed, item)


def test_one_frame_stays_sharp(test_opt, tmp_path, moving):
    (tmp_path / 'clip').mkdir()
    shutil.copy(moving / 'gt' / 'first' / 'im1.png', tmp_path / 'clip')
    test_opt['dataroot_gt'] = tmp_path
    assert_equal(STVSRTestDataset(test_opt)[0], STVSRTestDataset({**test_opt, 'motion_blur': None})[0])


def test_blur_shows_in_real_clips(real_data, test_opt):
    """Of a clip that pans fast much is lost, and a static camera's picture hardly changes."""
    test_opt.update(dataroot_gt=real_data / 'train', num_frame=2)
    scores = {}
    for clip in ('tennis', 'ntia_Aspen'):
        blurred = STVSRTestDataset({**test_opt, 'clips': clip})[0]['lq']
        sharp = STVSRTestDataset({**test_opt, 'clips': clip, 'motion_blur': None})[0]['lq']
        scores[clip] = -10 * (blurred - sharp).square().mean().log10()
    assert scores['tennis'] < 37 < 46 < scores['ntia_Aspen']


@pytest.mark.parametrize(('change', 'message'), [
    ({'exposure': 0}, r'motion_blur.exposure must be > 0 and <= 2, or a range .*, but is 0'),
    ({'exposure': 2.5}, r'motion_blur.exposure must be > 0 and <= 2, .* but is 2.5'),
    ({'exposure': [1, 0.5]}, r'motion_blur.exposure must be .* within these limits, but is \[1.0, 0.5\]'),
    ({'exposure': [0.5]}, 'motion_blur.exposure must be'),
    ({'exposure': 'long'}, "motion_blur.exposure must be a number or a list, but is 'long'"),
    ({'num_frame': 4}, 'motion_blur.num_frame must be odd, so that the sharp frame is the middle one, but is 4'),
    ({'num_frame': 0}, 'motion_blur.num_frame must be >= 1, but is 0'),
    ({'frames': 7}, 'motion_blur.frames is not an option .* Options are exposure, num_frame'),
])
@pytest.mark.parametrize('dataset', [STVSRClipDataset, STVSRTestDataset])
def test_bad_options_of_the_block(moving, dataset, change, message):
    opt = {'name': 'Moving', 'scale': 4, 'key': 'val', 'dataroot_gt': moving / 'gt', 'motion_blur': change}
    with pytest.raises(ValueError, match=f'^datasets.val.{message}'):
        dataset(opt)


@pytest.mark.parametrize(('change', 'message'), [
    ({'dataroot_lq': 'x'}, 'motion_blur cannot be combined with dataroot_lq: LR frames come from one of them'),
    ({'dataroot_blurred': 'x'}, 'motion_blur cannot be combined with dataroot_blurred: .* one of them'),
    ({'color': 'yuv'}, 'motion_blur needs color rgb, to convert values to light, but color is yuv'),
    ({'color': 'y'}, 'motion_blur needs color rgb, to convert values to light, but color is y'),
])
@pytest.mark.parametrize('dataset', [STVSRClipDataset, STVSRTestDataset])
def test_what_motion_blur_does_not_go_with(moving, dataset, change, message):
    opt = {'name': 'Moving', 'scale': 4, 'key': 'val', 'dataroot_gt': moving / 'gt', 'motion_blur': {}}
    with pytest.raises(ValueError, match=f'^datasets.val.{message}$'):
        dataset({**opt, **change})


def test_ground_truth_is_needed(moving):
    with pytest.raises(ValueError, match='datasets.val.dataroot_gt is missing'):
        STVSRTestDataset({'name': 'Moving', 'scale': 4, 'key': 'val', 'motion_blur': {}})
