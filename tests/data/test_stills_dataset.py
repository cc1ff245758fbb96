"""Clips made of photographs: their flow is the motion that is seen, whatever options apply."""
import cv2
import numpy as np
import pytest
import torch
from torch import Tensor

from basicsr_stvsr.archs.arch_util import warp
from basicsr_stvsr.data.degradations import bicubic
from basicsr_stvsr.data.sample_order import seeded
from basicsr_stvsr.data.stills_dataset import STVSRStillsDataset
from basicsr_stvsr.data.synthetic import CameraPath, Cutout, cut_sheet, draw, flow_of_scene
from basicsr_stvsr.io.color_spaces import convert_frame
from basicsr_stvsr.io.frames import FrameReadError

SCALE, SIZE = 4, 48
ALL = {'use_hflip': True, 'use_rot': True, 'random_reverse': True}


def texture(seed: int, height: int = 128, width: int = 160) -> np.ndarray:
    """Smooth noise in colours."""
    noise = np.random.default_rng(seed).uniform(0, 255, (height, width, 3))
    return np.clip(10 * (cv2.GaussianBlur(noise, (0, 0), 5) - 127.5) + 127.5, 0, 255).astype(np.uint8)


@pytest.fixture(scope='module')
def photos(tmp_path_factory):
    """Five photographs of two sizes, one of them in a subfolder, and one grey."""
    root = tmp_path_factory.mktemp('photos')
    (root / 'more').mkdir()
    for seed, (name, size) in enumerate([('a1.png', (128, 160)), ('a2.png', (160, 128)), ('a10.png', (128, 128)),
                                         ('more/b.png', (128, 160))]):
        assert cv2.imwrite(str(root / name), texture(seed, *size))
    assert cv2.imwrite(str(root / 'c.png'), texture(9)[..., 0])
    return root


@pytest.fixture
def opt(photos):
    return {'name': 'photos', 'phase': 'train', 'scale': SCALE, 'stills': photos, 'gt_size': SIZE, 'max_motion': 6}


def sample(opt: dict, index: int = 0, seed: int = 0) -> dict[str, Tensor | str]:
    with seeded(seed):
        return STVSRStillsDataset(opt)[index]


def misfit(source: Tensor, target: Tensor, flow: Tensor) -> Tensor:
    """Grey levels between a frame (3, H, W) and another warped onto it, where the flow does not lead outside."""
    height, width = target.shape[1:]
    x, y = torch.arange(width) + flow[0], torch.arange(height)[:, None] + flow[1]
    inside = (x >= 0) & (x <= width - 1) & (y >= 0) & (y <= height - 1)
    return 255 * (warp(source[None], flow[None])[0] - target).abs().amax(dim=0)[inside]


# Drawing


def test_a_pan_by_whole_pixels_shifts_the_frame():
    path = CameraPath((80.5, 64.5), velocity=(3, -2))
    sheet = cut_sheet(texture(0), path, 2, SIZE, SIZE)
    first, second = (draw([sheet], t, SIZE, SIZE)[0] for t in (0, 1))
    np.testing.assert_array_equal(second[2:, :-3], first[:-2, 3:])
    flow = flow_of_scene([sheet], np.zeros((SIZE, SIZE), np.uint8), 0, 1)
    assert np.all(flow == np.array([3, -2])[:, None, None])


def test_a_photograph_is_reduced_by_the_mean_of_its_pixels():
    """Half as large: each pixel is the mean of 2 x 2; no part of a checkerboard is left."""
    photo = texture(0)
    photo[:64] = 255 * (np.indices((64, 160)).sum(axis=0) % 2)[..., None]
    path = CameraPath((79.5, 63.5), scale=2)  # between four pixels of the photograph, and of the frame
    frame, _ = draw([cut_sheet(photo, path, 1, 60, 70)], 0, 60, 70)
    expected = photo[4:124, 10:150].reshape(60, 2, 70, 2, 3).mean(axis=(1, 3))
    assert np.abs(frame - expected).max() <= 1.5  # rounded twice
    assert np.abs(frame[:30].astype(int) - 127).max() <= 1

    path = CameraPath((79.5, 63.5), scale=4)  # smaller than is supersampled
    frame, _ = draw([cut_sheet(photo, path, 1, 32, 40)], 0, 32, 40)
    assert np.abs(frame[:15].astype(int) - 127).max() <= 1


def test_layers_by_hand():
    """A disc of radius 12 that moves by (-4, 0) in front of what moves by (2, 1)."""
    centre = (SIZE - 1) / 2
    behind = cut_sheet(texture(0), CameraPath((80, 64), velocity=(-2, -1)), 3, SIZE, SIZE)
    disc = Cutout((60, 50), 12, waviness=0)
    front = cut_sheet(np.full((128, 160, 3), 200, np.uint8), CameraPath((56, 50), velocity=(4, 0)), 3, SIZE, SIZE, disc)
    y, x = np.mgrid[:SIZE, :SIZE] - centre
    for t in range(3):
        frame, numbers = draw([behind, front], t, SIZE, SIZE)
        distance = np.hypot(x - (4 - 4 * t), y)
        assert np.all(numbers[distance < 11.3] == 1) and np.all(numbers[distance > 12.7] == 0)
        assert np.all(np.abs(frame[distance < 11.3].astype(int) - 200) <= 1)
        alone, _ = draw([behind], t, SIZE, SIZE)
        np.testing.assert_array_equal(frame[distance > 13], alone[distance > 13])

    _, numbers = draw([behind, front], 1, SIZE, SIZE)
    flow = flow_of_scene([behind, front], numbers, 2, 1)  # to the frame after: the way that things go
    assert np.allclose(flow[:, numbers == 1], np.array([-4, 0])[:, None])
    assert np.allclose(flow[:, numbers == 0], np.array([2, 1])[:, None])


def test_slower_paths_keep_to_the_limit():
    path = CameraPath((0, 0), velocity=(10, 3), zoom=0.03, rotation=0.04, scale=2)
    slow = path.at_most(4, 5, 60, 80)
    flows = [slow.flow(a, b, 60, 80) for t in range(4) for a, b in ((t, t + 1), (t + 1, t))]
    largest = max(np.linalg.norm(flow, axis=0).max() for flow in flows)
    assert 3.7 < largest <= 4.001
    assert slow.largest_motion(5, 60, 80) == pytest.approx(largest, abs=1e-3)


# Samples


def test_sample(opt):
    dataset = STVSRStillsDataset(opt)
    assert [dataset[i]['key'] for i in range(len(dataset))] == ['a1.png', 'a2.png', 'a10.png', 'c.png', 'more/b.png']
    item = dataset[0]
    assert item['lq'].shape == (2, 3, 12, 12) and item['gt'].shape == (3, 3, SIZE, SIZE)
    assert item['flow'].shape == (1, 2, 2, SIZE, SIZE) and item['flow'].dtype == torch.float32
    assert 'flow' not in sample({**opt, 'temporal_scale': 1}) and 'flow' not in sample({**opt, 'exact_flow': False})
    assert sample({**opt, 'num_frame': 7})['flow'].shape == (3, 2, 2, SIZE, SIZE)


@pytest.mark.numeric
@pytest.mark.parametrize('changes', [{}, ALL, {'color': 'yuv'}, {'motion_blur': {}}, {'num_frame': 5, **ALL}])
@pytest.mark.parametrize('max_layers', [0, 3])
def test_frames_warp_onto_each_other(opt, changes, max_layers):
    """Both neighbours onto the frame between, but for what they hide."""
    dataset = STVSRStillsDataset({**opt, 'max_layers': max_layers, **changes})
    moved = 0
    for index in range(len(dataset)):
        with seeded(index):
            item = dataset[index]
        for between, flows in zip(range(1, len(item['gt']), 2), item['flow'], strict=True):
            for neighbour, flow in zip((between - 1, between + 1), flows, strict=True):
                error = misfit(item['gt'][neighbour], item['gt'][between], flow)
                assert error.quantile(0.98 if max_layers == 0 else 0.8) < 4
                wrong = misfit(item['gt'][neighbour], item['gt'][between], -flow)
                moved += error.mean() < 0.5 * wrong.mean()
    assert moved > len(dataset)


def test_motion_is_limited_and_may_be_none(opt):
    dataset = STVSRStillsDataset({**opt, 'max_motion': 9, **ALL})
    lengths = []
    for seed in range(40):
        with seeded(seed):
            lengths.append(dataset[seed % 5]['flow'].norm(dim=2).max().item())
    assert max(lengths) < 9.01 and sum(length > 3 for length in lengths) > 10

    still = sample({**opt, 'max_motion': 0})
    assert still['flow'].abs().max() < 1e-4
    assert torch.equal(still['gt'][0], still['gt'][1]) and torch.equal(still['gt'][0], still['gt'][2])


def test_lr_frames_are_made_of_ground_truth(opt):
    """By MATLAB's bicubic, which reaches 2 LR pixels further; and so are sharp ones beside blurred ones."""
    opt.update(temporal_scale=1, lq_sharp=True, motion_blur={'exposure': 1.0})
    item = sample({**opt, 'max_motion': 20, **ALL}, index=1)
    assert item['lq'].shape == item['lq_sharp'].shape == (3, 3, 12, 12)
    for frame, lq in zip(item['gt'], item['lq_sharp'], strict=True):
        image = (255 * frame).round().byte().permute(1, 2, 0).numpy()
        expected = bicubic(SCALE)(image)[2:-2, 2:-2]
        difference = 255 * lq.permute(1, 2, 0).numpy()[2:-2, 2:-2] - expected
        assert np.abs(difference).max() < 1.01  # a turned crop may round otherwise
    still = sample({**opt, 'max_motion': 0})
    assert torch.equal(still['lq'], still['lq_sharp'])
    assert not torch.equal(item['lq'], item['lq_sharp'])


def test_flow_between_lr_frames(opt):
    """By an estimator, which sees the motion that is known."""
    item = sample({**opt, 'flow_opt': {'type': 'DISFlow'}, 'flow_margin': 8, 'max_layers': 0, 'max_motion': 20},
                  index=1, seed=11)
    assert item['lq_flow'].shape == (1, 2, 2, 12, 12)
    motion = (item['flow'][0, 1] - item['flow'][0, 0]).mean(dim=(1, 2)) / SCALE  # from end to end, in LR pixels
    assert motion.norm() > 0.5
    assert (item['lq_flow'][0, 0].mean(dim=(1, 2)) - motion).norm() < 0.3 * motion.norm()


@pytest.mark.parametrize('color', ['yuv', 'y'])
def test_colours(opt, color):
    expected = sample(opt)['gt']
    frames = [(255 * frame).round().byte().flip(0).permute(1, 2, 0).numpy() for frame in expected]
    frames = [torch.from_numpy(convert_frame(frame, 'rgb', color)[..., ::-1].copy()) for frame in frames]
    assert torch.equal((255 * sample({**opt, 'color': color})['gt']).round().byte(), torch.stack(frames).movedim(3, 1))


def test_a_cache_changes_nothing(opt):
    dataset = STVSRStillsDataset({**opt, 'cache': True, **ALL})
    for _ in range(2):
        with seeded(5):
            cached = dataset[2]
        expected = sample({**opt, **ALL}, index=2, seed=5)
        assert all(torch.equal(cached[key], expected[key]) for key in ('lq', 'gt', 'flow'))


def test_photographs_smaller_than_the_motion_are_mirrored(opt):
    """Of the very size of the crop: a border would show as a black or a smeared edge, and the flow would not fit."""
    item = sample({**opt, 'gt_size': 128, 'max_layers': 0, 'max_motion': 20}, index=2, seed=1)
    assert item['flow'].norm(dim=2).max() > 3
    assert misfit(item['gt'][0], item['gt'][1], item['flow'][0, 0]).quantile(0.98) < 4


# Errors


@pytest.mark.parametrize(('change', 'message'), [
    ({'gt_size': None}, r'^datasets\.train\.gt_size is missing: it sets the size of the frames made from photographs$'),
    ({'gt_size': 50}, r'^datasets\.train\.gt_size must be a multiple of scale 4, but is 50$'),
    ({'crop_stride': 8}, r'^datasets\.train\.crop_stride is 8, but frames made from photographs'),
    ({'max_motoin': 8}, r'^datasets\.train\.max_motoin is not an option .*Did you mean max_motion\?'),
    ({'max_motion': -1}, r'^datasets\.train\.max_motion must be >= 0, but is -1$'),
    ({'min_reduce': 3}, r'^datasets\.train\.max_reduce must be at least min_reduce 3, but is 2$'),
    ({'min_reduce': 0.5}, r'^datasets\.train\.min_reduce must be >= 1, but is 0.5$'),
    ({'motion_blur': {}, 'color': 'y'}, r'^datasets\.train\.motion_blur needs color rgb'),
    ({'flow_opt': {'type': 'FlowFiles', 'root': '.'}}, r'flow_opt must be an estimator, such as {type: DISFlow}'),
    ({'gt_size': 132}, r"^data set 'photos' \(datasets\.train\): 5 of 5 photographs have a side below 132 pixels "
                       r'\(gt_size 132 times min_reduce 1\); the first is .*/a1\.png, 128x160 \(h x w\)$'),
    ({'min_reduce': 2.5, 'max_reduce': 3, 'gt_size': 60}, r'a side below 150 pixels \(gt_size 60 times min_reduce'),
])
def test_bad_options(opt, change, message):
    with pytest.raises(ValueError, match=message):
        STVSRStillsDataset({**opt, **change})


def test_folders_without_photographs(opt, tmp_path):
    with pytest.raises(FileNotFoundError, match=r'\(datasets\.train\): stills does not exist or is not .*/no$'):
        STVSRStillsDataset({**opt, 'stills': tmp_path / 'no'})
    with pytest.raises(FrameReadError, match=r'no images \(.*\) in or below this folder'):
        STVSRStillsDataset({**opt, 'stills': tmp_path})


def test_files_that_are_no_photographs(opt, tmp_path):
    (tmp_path / 'page.jpg').write_text('<!DOCTYPE html>')
    with pytest.raises(FrameReadError, match=r'/page\.jpg: not an image that can be read \(cannot identify'):
        STVSRStillsDataset({**opt, 'stills': tmp_path})
    (tmp_path / 'page.jpg').unlink()
    assert cv2.imwrite(str(tmp_path / 'deep.png'), texture(0).astype(np.uint16) * 257)
    with pytest.raises(FrameReadError, match=r"'deep\.png'.* the image has 16 bits a channel .*, expected 8"):
        sample({**opt, 'stills': tmp_path})
    assert cv2.imwrite(str(tmp_path / 'deep.png'), texture(0))
    dataset = STVSRStillsDataset({**opt, 'stills': tmp_path})
    (tmp_path / 'deep.png').write_bytes((tmp_path / 'deep.png').read_bytes()[:-1000])
    with pytest.raises(FrameReadError, match=r"'deep\.png'.* the image is truncated"):
        dataset[0]
