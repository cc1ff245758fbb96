import copy
import random
import shutil
from collections import Counter

import cv2
import numpy as np
import pytest
import torch
from basicsr.data import build_dataloader, build_dataset
from basicsr.data.vimeo90k_dataset import Vimeo90KRecurrentDataset
from basicsr.utils.color_util import bgr2ycbcr
from basicsr.utils.lmdb_util import make_lmdb_from_imgs
from basicsr.utils.matlab_functions import imresize

from basicsr_stvsr.data import train_samples as samples_module
from basicsr_stvsr.data.clip_dataset import STVSRClipDataset, STVSRTestDataset
from basicsr_stvsr.io.color_spaces import convert_clip
from basicsr_stvsr.io.frames import FrameReadError

SCALE, SIZE, NUM_FRAME = 4, 64, 7
CLIPS = ['00001/0001', '00001/0002', '00002/0001']


def write_images(folder, frames):
    folder.mkdir(parents=True, exist_ok=True)
    for i, frame in enumerate(frames):
        assert cv2.imwrite(str(folder / f'im{i + 1}.png'), frame)


def write_lmdb(folder):
    files = sorted(str(file.relative_to(folder)) for file in folder.rglob('*.png'))
    make_lmdb_from_imgs(str(folder), f'{folder}.lmdb', files, [file[:-len('.png')] for file in files])


def lr_frame(frame):
    """By BasicSR's imresize, to the nearest grey level, as an LR file on a disk."""
    return np.clip(imresize(frame / 255, 1 / SCALE) * 255, 0, 255).round().astype(np.uint8)


@pytest.fixture(scope='session')
def vimeo(tmp_path_factory):
    """A folder like Vimeo-90K: gt, lq (bicubic) as folders and LMDBs, and a meta info file; smooth, moving noise."""
    root = tmp_path_factory.mktemp('vimeo')
    rng = np.random.default_rng(0)
    for clip in CLIPS:
        scene = cv2.resize(rng.integers(0, 256, (20, 20, 3), np.uint8), (SIZE + 16, SIZE + 16))
        frames = [scene[2 * i:2 * i + SIZE, i:i + SIZE] for i in range(NUM_FRAME)]
        write_images(root / 'gt' / clip, frames)
        write_images(root / 'lq' / clip, [lr_frame(frame) for frame in frames])
    write_lmdb(root / 'gt')
    write_lmdb(root / 'lq')
    (root / 'meta_info.txt').write_text(''.join(f'{clip} 7 ({SIZE},{SIZE},3)\n' for clip in CLIPS))
    return root


@pytest.fixture
def folder(vimeo, tmp_path):
    """A copy of the image folders that a test may spoil."""
    for name in ('gt', 'lq'):
        shutil.copytree(vimeo / name, tmp_path / name)
    return tmp_path


@pytest.fixture
def train_opt(vimeo):
    return {
        'name': 'Vimeo', 'type': 'STVSRClipDataset', 'phase': 'train', 'scale': SCALE, 'dataroot_gt': vimeo / 'gt.lmdb',
        'dataroot_lq': vimeo / 'lq.lmdb', 'gt_size': 32, 'batch_size_per_gpu': 2, 'num_worker_per_gpu': 0
    }


@pytest.fixture
def test_opt(vimeo):
    return {'name': 'Vimeo', 'type': 'STVSRTestDataset', 'phase': 'val', 'scale': SCALE, 'dataroot_gt': vimeo / 'gt'}


def samples(opt, num_epochs=1, seed=0):
    """The samples of BasicSR's loader, epoch by epoch: a list of (key, lq, gt) each."""
    random.seed(seed)
    torch.manual_seed(seed)
    loader = build_dataloader(build_dataset(opt), {**opt, 'use_shuffle': False}, num_gpu=0, seed=seed)
    epochs = []
    for _ in range(num_epochs):
        epochs.append([(key, lq, gt) for batch in loader
                       for key, lq, gt in zip(batch['key'], batch['lq'], batch['gt'], strict=True)])
    return epochs


def downscale(gt):
    """(T, 3, sh, sw) -> (T, 3, h, w), by averaging: rough, but it turns and flips with the frames."""
    return torch.nn.functional.avg_pool2d(gt, SCALE)


# Training


def test_sample(train_opt):
    dataset = build_dataset(train_opt)
    assert len(dataset) == len(CLIPS) * 5  # windows of three frames in septuplets
    item = dataset[6]
    assert item['lq'].shape == (2, 3, 8, 8) and item['gt'].shape == (3, 3, 32, 32)
    assert item['lq'].dtype == item['gt'].dtype == torch.float32
    assert item['key'] == '00001/0002/im2'
    assert item['gt'].min() >= 0 and 0.5 < item['gt'].max() <= 1


def test_equals_basicsr_on_the_same_lmdb(vimeo, train_opt):
    """All seven frames, uncropped, against BasicSR's own data set."""
    flags = {'gt_size': SIZE, 'num_frame': 7, 'random_reverse': False, 'use_hflip': False, 'use_rot': False}
    ours = STVSRClipDataset({**train_opt, **flags, 'temporal_scale': 1, 'meta_info_file': vimeo / 'meta_info.txt'})
    items = [ours[i] for i in range(3)]
    ours.gt_reader.close()  # LMDB opens a path only once in a process
    ours.lq_reader.close()
    stock = Vimeo90KRecurrentDataset({
        **train_opt, **flags, 'flip_sequence': False, 'meta_info_file': vimeo / 'meta_info.txt',
        'io_backend': {'type': 'lmdb'}
    })
    assert len(ours) == len(stock) == 3
    for i, item in enumerate(items):
        expected = stock[i]
        assert torch.equal(item['lq'], expected['lq']) and torch.equal(item['gt'], expected['gt'])
        assert item['key'] == expected['key'] + '/im1'
    for environment in stock.file_client.client._client.values():
        environment.close()


def test_folder_equals_lmdb(vimeo, train_opt):
    for i in (0, 7):
        samples = []
        for suffix in ('', '.lmdb'):
            random.seed(i)
            dataset = STVSRClipDataset({
                **train_opt, 'dataroot_gt': f'{vimeo}/gt{suffix}', 'dataroot_lq': f'{vimeo}/lq{suffix}'
            })
            samples.append(dataset[i])
        assert samples[0]['key'] == samples[1]['key']
        assert torch.equal(samples[0]['lq'], samples[1]['lq']) and torch.equal(samples[0]['gt'], samples[1]['gt'])


@pytest.mark.parametrize('cache', [False, True])
@pytest.mark.parametrize('gt_size', [8, 32, 64, None])
def test_lr_made_on_the_fly_equals_lr_from_disk(train_opt, gt_size, cache):
    """Crops of every place, those at the border included, against the LR frames that BasicSR's imresize made."""
    train_opt.update(gt_size=gt_size, use_hflip=True, use_rot=True, random_reverse=True)
    from_disk = STVSRClipDataset(train_opt)
    on_the_fly = STVSRClipDataset({**train_opt, 'dataroot_lq': None, 'cache': cache})
    differing = total = 0
    for i in range(40):
        random.seed(i)
        expected = from_disk[i % len(from_disk)]
        random.seed(i)
        item = on_the_fly[i % len(from_disk)]
        assert torch.equal(item['gt'], expected['gt'])
        difference = (item['lq'] - expected['lq']).abs() * 255
        assert difference.max() < 1.01
        differing, total = differing + (difference > 0.5).sum().item(), total + difference.numel()
    assert differing <= 1e-3 * total  # imresize adds up in float32, which turns some halves


def test_on_the_fly_cuts_frames_to_a_multiple_of_the_scale(tmp_path, train_opt):
    frames = np.random.default_rng(0).integers(0, 256, (3, 38, 47, 3), np.uint8)
    write_images(tmp_path / 'clip', frames)
    dataset = STVSRClipDataset({**train_opt, 'dataroot_gt': tmp_path, 'dataroot_lq': None, 'gt_size': None})
    item = dataset[0]
    assert item['lq'].shape == (2, 3, 9, 11)
    expected = lr_frame(frames[2, :36, :44])[..., ::-1].transpose(2, 0, 1) / 255
    assert np.abs(item['lq'][1].numpy() - expected).max() < 1.01 / 255


def test_flips_and_rotations_keep_lr_and_gt_aligned(train_opt):
    train_opt.update(use_hflip=True, use_rot=True, random_reverse=True)
    dataset = STVSRClipDataset(train_opt)
    plain = STVSRClipDataset({**train_opt, 'use_hflip': False, 'use_rot': False, 'random_reverse': False})
    num_changed = 0
    for seed in range(30):
        random.seed(seed)
        item = dataset[0]
        # Smooth frames: their mean over blocks is near the bicubic LR frame, and far from a flipped one.
        assert (downscale(item['gt'])[::2] - item['lq']).abs().mean() < 0.02
        random.seed(seed)
        num_changed += not torch.equal(item['gt'], plain[0]['gt'])
    assert num_changed > 20  # 15 of 16 on average


def test_reversal_is_half_and_half_and_leaves_no_trace(train_opt):
    train_opt.update(gt_size=None, random_reverse=True, num_frame=7, clips=CLIPS[0], cache=True)
    dataset = STVSRClipDataset(train_opt)
    random.seed(0)
    forward = STVSRClipDataset({**train_opt, 'random_reverse': False})[0]
    order = []
    for _ in range(200):
        item = dataset[0]
        reverse = torch.equal(item['gt'], forward['gt'].flip(0))
        assert torch.equal(item['gt'], forward['gt'].flip(0) if reverse else forward['gt'])
        assert torch.equal(item['lq'], forward['lq'].flip(0) if reverse else forward['lq'])
        order.append(reverse)
    assert 70 < sum(order) < 130  # four standard deviations
    # BasicSR turns its list around in place, so that one reversal persists until the next: equal neighbours in 3 of 4.
    changes = sum(a != b for a, b in zip(order, order[1:], strict=False))
    assert 70 < changes < 130


def test_windows_and_intervals(train_opt):
    train_opt.update(num_frame=3, interval_list=[1, 3], gt_size=None, clips='00001/*')
    dataset = STVSRClipDataset(train_opt)
    assert len(dataset) == 2 * (5 + 1)
    whole = STVSRClipDataset({**train_opt, 'num_frame': 7, 'interval_list': [1]})[0]
    assert torch.equal(dataset[2]['gt'], whole['gt'][2:5])
    assert torch.equal(dataset[5]['gt'], whole['gt'][::3])
    assert torch.equal(dataset[5]['lq'][1], STVSRClipDataset({**train_opt, 'temporal_scale': 1})[5]['lq'][2])


def test_frame_stride(train_opt):
    """Windows of three in im1 to im7."""
    for stride, starts in ((1, [1, 2, 3, 4, 5]), (2, [1, 3, 5]), (3, [1, 4]), (4, [1, 5]), (5, [1])):
        dataset = STVSRClipDataset({**train_opt, 'frame_stride': stride, 'clips': CLIPS[0]})
        assert [dataset[i]['key'] for i in range(len(dataset))] == [f'{CLIPS[0]}/im{start}' for start in starts]
    dataset = STVSRClipDataset({**train_opt, 'frame_stride': 2, 'interval_list': [1, 2], 'clips': CLIPS[0]})
    assert [dataset[i]['key'][-1] for i in range(len(dataset))] == ['1', '3', '5', '1', '3']
    dataset = STVSRClipDataset({**train_opt, 'frame_stride': 2, 'clip_weights': {CLIPS[0]: 2}})
    assert len(dataset) == 6 + 3 + 3


@pytest.mark.parametrize(('gt_size', 'stride', 'places'), [
    (32, 16, [0, 16, 32]), (40, 16, [0, 16]), (64, 32, [0]), (32, None, list(range(0, 33, 4)))])
def test_crop_stride(train_opt, gt_size, stride, places):
    """Crops begin at multiples of it, each equally often; found in the whole frame by what they hold."""
    train_opt.update(gt_size=gt_size, clips=CLIPS[0], num_frame=1, temporal_scale=1)
    whole = STVSRClipDataset({**train_opt, 'gt_size': None})[0]['gt'][0]
    dataset = STVSRClipDataset({**train_opt, 'crop_stride': stride})
    found = Counter()
    random.seed(0)
    for _ in range(40 * len(places)):
        corner = dataset[0]['gt'][0, 0, :6, :6]
        windows = whole[0].unfold(0, 6, 1).unfold(1, 6, 1)
        (top, left), = (windows == corner).all(dim=(2, 3)).nonzero().tolist()
        found.update([('top', top), ('left', left)])
    assert set(found) == {(side, place) for side in ('top', 'left') for place in places}
    assert all(16 <= number <= 70 for number in found.values())  # 40 on average, within four standard deviations


@pytest.mark.parametrize('opt', [{'type': 'blur_bicubic'}, {'type': 'gaussian'}])
@pytest.mark.parametrize('gt_size', [8, 32])
def test_degraded_crops_equal_crops_of_whole_frames(train_opt, opt, gt_size):
    train_opt.update(dataroot_lq=None, degradation=opt)
    dataset = STVSRClipDataset({**train_opt, 'gt_size': gt_size})
    whole = STVSRClipDataset({**train_opt, 'gt_size': None})
    gt, lq = whole[3]['gt'], whole[3]['lq']
    places = set()
    for seed in range(60):
        random.seed(seed)
        item = dataset[3]
        windows = gt[0, 0].unfold(0, gt_size, SCALE).unfold(1, gt_size, SCALE)  # in steps of LR pixels
        (top, left), = (windows == item['gt'][0, 0]).all(dim=(2, 3)).nonzero().tolist()
        size = gt_size // SCALE
        assert torch.equal(item['lq'], lq[..., top:top + size, left:left + size])
        places |= {top, left}
    assert {0, (SIZE - gt_size) // SCALE} < places  # borders included


# Sharp LR frames, and blurred versions of the ground truth


@pytest.fixture(scope='session')
def versions(vimeo):
    """`vimeo` with, of each frame, a blurred version (gt_blur) and its LR frame (lq_blur), as folders and LMDBs."""
    for clip in CLIPS:
        frames = [cv2.imread(str(vimeo / 'gt' / clip / f'im{i + 1}.png')) for i in range(NUM_FRAME)]
        blurred = [cv2.blur(frame, (9, 1)) for frame in frames]
        write_images(vimeo / 'gt_blur' / clip, blurred)
        write_images(vimeo / 'lq_blur' / clip, [lr_frame(frame) for frame in blurred])
    for name in ('gt_blur', 'lq_blur'):
        write_lmdb(vimeo / name)
    return vimeo


TURNED = {'use_hflip': True, 'use_rot': True, 'random_reverse': True, 'interval_list': [1, 2]}


def assert_same_samples(ours, expected, pairs=(('lq', 'lq'), ('gt', 'gt')), tolerance=0.0):
    """For the same chance, what `ours` has under the first key of a pair is what `expected` has under the second."""
    for seed in range(8):
        random.seed(seed)
        item = ours[seed % len(ours)]
        random.seed(seed)
        other = expected[seed % len(expected)]
        for key, other_key in pairs:
            assert item[key].shape == other[other_key].shape and item[key].dtype == torch.float32
            assert (item[key] - other[other_key]).abs().max() <= tolerance


@pytest.mark.parametrize('temporal_scale', [1, 2])
@pytest.mark.parametrize('cache', [False, True])
@pytest.mark.parametrize('suffix', ['', '.lmdb'])
def test_sharp_lr_frames_from_disk(versions, train_opt, suffix, cache, temporal_scale):
    """Cut, turned and reversed as the blurred ones beside them: the same as a data set that has only them."""
    train_opt.update(**TURNED, cache=cache, temporal_scale=temporal_scale, dataroot_gt=f'{versions}/gt{suffix}')
    roots = {'dataroot_lq': f'{versions}/lq_blur{suffix}', 'dataroot_lq_sharp': f'{versions}/lq{suffix}'}
    dataset = STVSRClipDataset({**train_opt, **roots})
    blurred = STVSRClipDataset({**train_opt, 'dataroot_lq': roots['dataroot_lq']})
    sharp = STVSRClipDataset({**train_opt, 'dataroot_lq': roots['dataroot_lq_sharp']})
    assert 'lq_sharp' not in sharp[0]
    assert_same_samples(dataset, blurred)
    assert_same_samples(dataset, sharp, [('lq_sharp', 'lq')])


@pytest.mark.parametrize('cache', [False, True])
def test_sharp_lr_frames_made_of_ground_truth(versions, train_opt, cache):
    """By bicubic, whatever the LR frames are made by; within a level of those that imresize wrote."""
    train_opt.update(**TURNED, cache=cache, dataroot_lq=None)
    bicubic = STVSRClipDataset(train_opt)
    dataset = STVSRClipDataset({**train_opt, 'lq_sharp': True, 'degradation': {'type': 'gaussian'}})
    assert_same_samples(dataset, bicubic, [('lq_sharp', 'lq'), ('gt', 'gt')])
    dataset = STVSRClipDataset({**train_opt, 'lq_sharp': True, 'dataroot_lq': versions / 'lq_blur.lmdb'})
    from_disk = STVSRClipDataset({**train_opt, 'dataroot_lq': versions / 'lq.lmdb'})
    assert_same_samples(dataset, from_disk, [('lq_sharp', 'lq')], tolerance=1.01 / 255)


def test_sharp_lr_frames_of_luma(train_opt):
    train_opt.update(color='y', dataroot_lq=None, **TURNED)
    dataset = STVSRClipDataset({**train_opt, 'lq_sharp': True})
    assert_same_samples(dataset, dataset, [('lq_sharp', 'lq')])
    assert dataset[0]['lq_sharp'].shape == (2, 1, 8, 8)


@pytest.mark.parametrize('cache', [False, True])
def test_lr_frames_of_blurred_versions(versions, train_opt, test_opt, cache):
    """LR frames equal those of a data set with these clips as ground truth; ground truth itself stays sharp."""
    train_opt.update(**TURNED, cache=cache, dataroot_lq=None, degradation={'type': 'blur_bicubic'})
    dataset = STVSRClipDataset({**train_opt, 'dataroot_blurred': versions / 'gt_blur.lmdb', 'lq_sharp': True})
    assert_same_samples(dataset, STVSRClipDataset({**train_opt, 'dataroot_gt': versions / 'gt_blur'}), [('lq', 'lq')])
    assert_same_samples(dataset, STVSRClipDataset(train_opt), [('gt', 'gt')])
    assert_same_samples(dataset, STVSRClipDataset({**train_opt, 'degradation': None}), [('lq_sharp', 'lq')])

    item = STVSRTestDataset({**test_opt, 'dataroot_blurred': versions / 'gt_blur'})[1]
    assert torch.equal(item['gt'], STVSRTestDataset(test_opt)[1]['gt'])
    assert torch.equal(item['lq'], STVSRTestDataset({**test_opt, 'dataroot_gt': versions / 'gt_blur'})[1]['lq'])


def test_blurred_versions_off_the_scale(tmp_path, train_opt):
    """They are cut as the ground truth is, from the top left."""
    frames = np.random.default_rng(0).integers(0, 256, (3, 38, 47, 3), np.uint8)
    write_images(tmp_path / 'gt' / 'clip', frames)
    write_images(tmp_path / 'blur' / 'clip', frames[::-1])
    opt = {**train_opt, 'dataroot_gt': tmp_path / 'gt', 'dataroot_lq': None, 'gt_size': None, 'temporal_scale': 1}
    for cache in (False, True):
        item = STVSRClipDataset({**opt, 'dataroot_blurred': tmp_path / 'blur', 'lq_sharp': True, 'cache': cache})[0]
        assert item['lq'].shape == (3, 3, 9, 11) and item['gt'].shape == (3, 3, 36, 44)
        assert torch.equal(item['lq'], item['lq_sharp'].flip(0))


@pytest.mark.parametrize(('option', 'expected'), [
    ('dataroot_lq_sharp', 'expected 4 times the size'), ('dataroot_blurred', 'expected the same size')])
def test_other_versions_that_do_not_fit(versions, folder, train_opt, test_opt, option, expected):
    """As LR clips that do not: they lack a clip, a frame, or are of another size."""
    name = {'dataroot_lq_sharp': 'lq', 'dataroot_blurred': 'gt'}[option]
    train_opt.update(dataroot_lq=None, dataroot_gt=versions / 'gt', **{option: folder / name})
    datasets = [(STVSRClipDataset, train_opt)]
    if option == 'dataroot_blurred':
        datasets.append((STVSRTestDataset, {**test_opt, option: folder / name}))
    write_images(folder / name / '00001' / '0001', [np.zeros((20, 24, 3), np.uint8)] * 7)
    message = rf"data set 'Vimeo' .*clip '00001/0001' is 64x64 \(h x w\) in .*gt and 20x24 in .*{name}, {expected}"
    for dataset, opt in datasets:
        with pytest.raises(ValueError, match=message):
            dataset(opt)[0]
    (folder / name / '00001' / '0002' / 'im4.png').unlink()
    for dataset, opt in datasets:
        with pytest.raises(ValueError, match=rf"'Vimeo' .*'00001/0002' has 7 frames in .*gt and 6 in .*{name}"):
            dataset(opt)
    shutil.rmtree(folder / name / '00001' / '0002')
    for dataset, opt in datasets:
        with pytest.raises(ValueError, match=f"1 clips of dataroot_gt are not in {option} .*the first is '00001/0002'"):
            dataset(opt)


@pytest.mark.parametrize(('change', 'message'), [
    ({'lq_sharp': True, 'dataroot_lq_sharp': 'x'}, 'datasets.train.lq_sharp cannot be combined with dataroot_lq_sharp'),
    ({'lq_sharp': 'yes'}, "datasets.train.lq_sharp must be true or false, but is 'yes'"),
    ({'dataroot_blurred': 'x'}, 'datasets.train.dataroot_blurred cannot be combined with dataroot_lq: LR frames come')])
def test_bad_options_of_versions(train_opt, change, message):
    with pytest.raises(ValueError, match=message):
        STVSRClipDataset({**train_opt, **change})


@pytest.mark.parametrize(('option', 'name', 'expected_hint'), [
    ('dataroot_lq', 'vimeo_LR.lmdb', 'make_lr.py --scale 4 --input {gt} --output {path}\nor remove the option'),
    ('dataroot_lq_sharp', 'vimeo_LR.lmdb', 'make_lr.py --scale 4 --input {gt} --output {path}\nor set lq_sharp: true'),
    ('dataroot_lq', 'reds4_blur_bicubic.lmdb',
     'create_lmdb.py --dataset reds --split reds4 --subset blur_bicubic --input FOLDER --output {path}'),
    ('dataroot_lq_sharp', 'REDS_train_sharp_bicubic.lmdb',
     'create_lmdb.py --dataset reds --subset sharp_bicubic --input FOLDER --output {path}'),
    ('dataroot_lq', 'dvd_train_blur_X4.lmdb',
     'make_lr.py --scale 4 --input BLURRED --output {path}\nor set dataroot_blurred to the blurred clips, to make LR '
     'frames from them while reading.'),
    ('dataroot_blurred', 'dvd_test_blur.lmdb',
     'create_lmdb.py --dataset dvd --split test --subset input --input FOLDER --output {path}'),
    ('dataroot_blurred', 'my_blurred_clips.lmdb', 'create_lmdb.py --dataset folder --input FOLDER --output {path}')])
def test_hints_for_other_versions(train_opt, tmp_path, option, name, expected_hint):
    path = tmp_path / name
    with pytest.raises(FileNotFoundError, match=rf'{option} does not exist') as error:
        STVSRClipDataset({**train_opt, 'dataroot_lq': None, option: path})
    assert expected_hint.format(gt=train_opt['dataroot_gt'], path=path) in str(error.value)


# One channel


@pytest.fixture
def luma(vimeo):
    """Y of the ground truth of a clip by BasicSR: (7, 64, 64), uint8."""
    def load(clip):
        return np.stack([bgr2ycbcr(cv2.imread(str(vimeo / 'gt' / clip / f'im{i}.png')), y_only=True)
                         for i in range(1, 8)])
    return load


@pytest.mark.parametrize('cache', [False, True])
def test_training_on_luma(train_opt, luma, cache):
    """Y of the ground truth, and LR frames made of it: the same as by imresize of BasicSR's Y."""
    train_opt.update(dataroot_lq=None, color='y', gt_size=None, num_frame=5, temporal_scale=1, cache=cache)
    dataset = STVSRClipDataset(train_opt)
    item = dataset[4]
    assert item['key'] == '00001/0002/im2'
    assert item['gt'].shape == (5, 1, 64, 64) and item['lq'].shape == (5, 1, 16, 16)
    expected = luma(CLIPS[1])[1:6].astype(float)
    difference = np.abs(item['gt'][:, 0].numpy() * 255 - expected)
    assert difference.max() < 1.01 and difference.mean() < 1e-3
    for frame, y in zip(item['lq'], expected, strict=True):
        assert np.abs(frame[0].numpy() * 255 - imresize(y / 255, 1 / SCALE) * 255).max() < 1.02
    assert torch.equal(dataset[4]['lq'], item['lq'])


def test_luma_is_turned_as_colours_are(train_opt):
    """BasicSR's `augment` on frames of one channel: in place, and without losing the channel."""
    train_opt.update(use_hflip=True, use_rot=True, random_reverse=True, gt_size=24)
    luma = STVSRClipDataset({**train_opt, 'color': 'y'})
    colored = STVSRClipDataset({**train_opt, 'color': 'yuv'})
    seen = []
    for seed in range(20):
        random.seed(seed)
        item = luma[2]
        random.seed(seed)
        expected = colored[2]
        assert item['lq'].shape == (2, 1, 6, 6) and item['gt'].shape == (3, 1, 24, 24)
        assert torch.equal(item['gt'], expected['gt'][:, :1]) and torch.equal(item['lq'], expected['lq'][:, :1])
        seen.append(item['gt'])
    assert sum(torch.equal(seen[0], other) for other in seen) == 1


@pytest.mark.parametrize('from_disk', [False, True])
def test_luma_of_a_clip_and_its_chroma(vimeo, test_opt, from_disk):
    """The same as all of YUV, cut apart: lq, gt and, so that the result can be shown in colours, chroma."""
    test_opt.update(temporal_scale=1, lq_size_multiple=5, dataroot_lq=vimeo / 'lq' if from_disk else None)
    yuv = STVSRTestDataset({**test_opt, 'color': 'yuv'})[0]
    item = STVSRTestDataset({**test_opt, 'color': 'y'})[0]
    assert item['lq'].shape == (7, 1, 15, 15) and item['gt'].shape == (7, 1, 60, 60)
    assert item['lq_chroma'].shape == (7, 2, 15, 15) and item['lq_chroma'].dtype == torch.float32
    assert torch.equal(item['lq'], yuv['lq'][:, :1]) and torch.equal(item['gt'], yuv['gt'][:, :1])
    assert torch.equal(item['lq_chroma'], yuv['lq'][:, 1:])
    rgb = STVSRTestDataset(test_opt)[0]
    assert 'lq_chroma' not in yuv and 'lq_chroma' not in rgb
    back = convert_clip(torch.cat([item['lq'], item['lq_chroma']], dim=1), 'yuv', 'rgb')
    assert (back - rgb['lq']).abs().max() < 4 / 255  # rounded to YUV before, or after, it was made smaller


def test_luma_in_tests_equals_luma_in_training(train_opt, test_opt):
    whole = STVSRTestDataset({**test_opt, 'color': 'y', 'temporal_scale': 1})[0]
    train_opt.update(color='y', temporal_scale=1, num_frame=7, gt_size=None, dataroot_lq=None)
    item = STVSRClipDataset(train_opt)[0]
    assert torch.equal(item['lq'], whole['lq']) and torch.equal(item['gt'], whole['gt'])


@pytest.mark.parametrize(('change', 'message'), [
    ({'flow_opt': {'type': 'DISFlow'}}, "datasets.train.flow_opt needs colour frames, but color is 'y'"),
    ({'stored_color': 'y'}, "datasets.train.stored_color must be one of rgb, yuv, but is 'y'"),
    ({'color': 'Y'}, "datasets.train.color must be one of rgb, yuv, y, but is 'Y'")])
def test_bad_options_of_colour(train_opt, change, message):
    with pytest.raises(ValueError, match=message):
        STVSRClipDataset({**train_opt, 'color': 'y', **change})


@pytest.mark.parametrize(('weights', 'counts'), [
    ({'00002/*': 3}, [5, 5, 15]),
    ({'00001/0001': 0.4, '*': 2}, [2, 10, 10]),
    ({'00001/*': 0}, [0, 0, 5]),
])
def test_clip_weights(train_opt, weights, counts):
    dataset = STVSRClipDataset({**train_opt, 'clip_weights': weights})
    keys = [dataset[i]['key'] for i in range(len(dataset))]
    assert [sum(key.startswith(clip) for key in keys) for clip in CLIPS] == counts
    if counts == [5, 5, 15]:
        assert {keys.count(f'00002/0001/im{i}') for i in range(1, 6)} == {3}


def test_cached_frames_stay_as_they_are(train_opt):
    train_opt.update(cache=True, use_hflip=True, use_rot=True, gt_size=None)
    dataset = STVSRClipDataset(train_opt)
    before = STVSRClipDataset({**train_opt, 'use_hflip': False, 'use_rot': False})[0]
    for _ in range(10):
        dataset[0]
    dataset.settings = dataset.settings.model_copy(update={'use_hflip': False, 'use_rot': False})
    assert torch.equal(dataset[0]['gt'], before['gt']) and torch.equal(dataset[0]['lq'], before['lq'])


def test_short_clips_are_left_out(folder, train_opt, caplog):
    for i in (6, 7):
        (folder / 'gt' / '00001' / '0002' / f'im{i}.png').unlink()
    train_opt.update(dataroot_gt=folder / 'gt', dataroot_lq=None, num_frame=7)
    with caplog.at_level('WARNING', logger='basicsr'):
        assert len(STVSRClipDataset(train_opt)) == 2
    with pytest.raises(ValueError, match=r"none of 1 clips has a window of 7 frames .*'00001/0002', has 5 frames"):
        STVSRClipDataset({**train_opt, 'clips': '00001/0002'})


# Randomness in workers


@pytest.mark.parametrize('num_workers', [0, 2])
def test_epochs_differ_and_the_seed_decides(train_opt, num_workers):
    train_opt.update(num_worker_per_gpu=num_workers)
    first, second = samples(train_opt, num_epochs=2)
    crops = [{key: gt for key, _, gt in epoch} for epoch in (first, second)]
    equal = [torch.equal(crops[0][key], crops[1][key]) for key in crops[0].keys() & crops[1].keys()]
    assert len(equal) > 8 and sum(equal) <= 2  # 81 places for a crop
    again, = samples(train_opt)
    other, = samples(train_opt, seed=1)
    assert all(a[0] == b[0] and torch.equal(a[2], b[2]) for a, b in zip(first, again, strict=True))
    assert not all(torch.equal(a[2], b[2]) for a, b in zip(first, other, strict=True))


def test_workers_differ(train_opt):
    """Were the workers seeded alike, both would crop the same places of the one window that there is."""
    train_opt.update(num_worker_per_gpu=2, batch_size_per_gpu=1, num_frame=7, clips=CLIPS[0])
    dataset = torch.utils.data.ConcatDataset([STVSRClipDataset(train_opt)] * 16)
    torch.manual_seed(0)
    crops = [batch['gt'] for batch in build_dataloader(dataset, train_opt, num_gpu=0, seed=0)]
    pairs = [torch.equal(a, b) for a, b in zip(crops[::2], crops[1::2], strict=True)]  # the workers take turns
    assert sum(pairs) <= 2


# Whole clips


@pytest.mark.parametrize('source', ['folder', 'lmdb'])
def test_clip_with_ground_truth(vimeo, test_opt, source):
    suffix = '.lmdb' if source == 'lmdb' else ''
    dataset = build_dataset({**test_opt, 'dataroot_gt': f'{vimeo}/gt{suffix}', 'dataroot_lq': f'{vimeo}/lq{suffix}'})
    assert len(dataset) == 3
    item = dataset[2]
    assert item['key'] == item['folder'] == '00002/0001'
    assert item['frame_names'] == [f'im{i}' for i in range(1, 8)]
    assert item['lq'].shape == (4, 3, 16, 16) and item['gt'].shape == (7, 3, 64, 64)
    for tensor, name, numbers in ((item['lq'], 'lq', (1, 3, 5, 7)), (item['gt'], 'gt', range(1, 8))):
        for frame, number in zip(tensor, numbers, strict=True):
            expected = cv2.imread(str(vimeo / name / '00002' / '0001' / f'im{number}.png'))[..., ::-1]
            np.testing.assert_array_equal((frame * 255).round().byte().permute(1, 2, 0), expected)


def test_lr_of_a_clip_made_on_the_fly(vimeo, test_opt):
    on_the_fly = STVSRTestDataset(test_opt)[0]
    from_disk = STVSRTestDataset({**test_opt, 'dataroot_lq': vimeo / 'lq'})[0]
    assert torch.equal(on_the_fly['gt'], from_disk['gt'])
    assert (on_the_fly['lq'] - from_disk['lq']).abs().max() < 1.01 / 255


def test_even_number_of_frames(folder, test_opt):
    for name in ('gt', 'lq'):
        (folder / name / '00001' / '0001' / 'im7.png').unlink()
    for lq in (None, folder / 'lq'):
        item = STVSRTestDataset({**test_opt, 'dataroot_gt': folder / 'gt', 'dataroot_lq': lq})[0]
        assert item['lq'].shape[0] == 3 and item['gt'].shape[0] == 5 and item['frame_names'][-1] == 'im5'


def test_lr_clip_with_every_second_frame(folder, vimeo, test_opt):
    expected = STVSRTestDataset({**test_opt, 'dataroot_lq': vimeo / 'lq'})
    for path in (folder / 'lq').rglob('im[246].png'):
        path.unlink()
    dataset = STVSRTestDataset({**test_opt, 'dataroot_lq': folder / 'lq'})
    for i in range(3):
        assert torch.equal(dataset[i]['lq'], expected[i]['lq']) and dataset[i]['gt'].shape[0] == 7


def test_clip_without_ground_truth(vimeo, test_opt):
    test_opt.update(dataroot_gt=None, dataroot_lq=vimeo / 'lq')
    item = STVSRTestDataset(test_opt)[1]
    assert 'gt' not in item
    assert item['lq'].shape == (7, 3, 16, 16)
    assert item['frame_names'] == [f'{i:08d}' for i in range(13)]
    item = STVSRTestDataset({**test_opt, 'temporal_scale': 1})[1]
    assert item['lq'].shape[0] == 7 and item['frame_names'] == [f'im{i}' for i in range(1, 8)]


def test_first_frames_of_a_clip(vimeo, test_opt):
    item = STVSRTestDataset({**test_opt, 'num_frame': 4})[0]
    assert item['lq'].shape[0] == 2 and item['gt'].shape[0] == 3
    item = STVSRTestDataset({**test_opt, 'num_frame': 4, 'temporal_scale': 1})[0]
    assert item['lq'].shape[0] == item['gt'].shape[0] == 4


def test_areas_of_clips(vimeo, test_opt):
    """As MATLAB counts: rows 9 to 40 are the indices 8 to 39. LR frames are made of what is cut out."""
    areas = {CLIPS[0]: {'rows': [9, 40], 'columns': [1, 48], 'frames': [3, 7]}, '00001/*': {'frames': [1, 2]}}
    test_opt.update(temporal_scale=1, dataroot_gt=vimeo / 'gt')
    dataset = STVSRTestDataset({**test_opt, 'clip_areas': areas})
    whole = STVSRTestDataset(test_opt)
    item = dataset[0]
    assert torch.equal(item['gt'], whole[0]['gt'][2:7, :, 8:40, :48])
    assert item['frame_names'] == ['im3', 'im4', 'im5', 'im6', 'im7'] and dataset.num_input_frames(0) == 5
    frames = [cv2.imread(str(vimeo / 'gt' / CLIPS[0] / f'im{i}.png'))[8:40, :48] for i in range(3, 8)]
    expected = np.stack([lr_frame(frame)[..., ::-1].transpose(2, 0, 1) for frame in frames])
    assert np.abs(item['lq'].numpy() * 255 - expected).max() < 1.01
    assert item['lq'].shape == (5, 3, 8, 12)
    assert torch.equal(dataset[1]['gt'], whole[1]['gt'][:2])
    assert torch.equal(dataset[2]['gt'], whole[2]['gt'])
    # The filter sees the border of the area, and not what lies around it
    assert not torch.equal(item['lq'][..., 0, :], whole[0]['lq'][2:7, :, 2, :12])


def test_an_area_of_a_clip_by_its_name(tmp_path, test_opt):
    """Brackets of a name are no pattern, and the name goes before the patterns."""
    for clip in ('b[1]', 'c'):
        (tmp_path / clip).mkdir()
        cv2.imwrite(str(tmp_path / clip / '0.png'), np.zeros((16, 16, 3), np.uint8))
    dataset = STVSRTestDataset({
        **test_opt, 'temporal_scale': 1, 'dataroot_gt': tmp_path,
        'clip_areas': {'*': {'rows': [1, 4]}, 'b[1]': {'rows': [1, 8]}}})
    assert [len(item['gt'][0, 0]) for item in dataset] == [8, 4]


def test_areas_go_with_other_options(vimeo, test_opt):
    """Patterns are looked for among all clips, so that a part of a set may be tested."""
    areas = {clip: {'rows': [1, 40], 'columns': [5, 64], 'frames': [2, 6]} for clip in CLIPS}
    test_opt.update(dataroot_gt=vimeo / 'gt.lmdb', color='y', num_frame=3, lq_size_multiple=2)
    dataset = STVSRTestDataset({**test_opt, 'clips': CLIPS[1], 'clip_areas': areas})
    item = dataset[0]
    assert len(dataset) == 1 and item['frame_names'] == ['im2', 'im3', 'im4']
    assert item['lq'].shape == (2, 1, 10, 14) and item['gt'].shape == (3, 1, 40, 56)
    assert item['lq_chroma'].shape == (2, 2, 10, 14)
    whole = STVSRTestDataset({**test_opt, 'num_frame': None, 'lq_size_multiple': 1, 'clips': CLIPS[1]})[0]
    assert torch.equal(item['gt'], whole['gt'][1:4, :, :40, 4:60])


@pytest.mark.parametrize(('areas', 'message'), [
    ({'*': {'rows': [1, 65]}}, r"'Vimeo' \(datasets.val\): clip_areas: rows \[1, 65\] exceeds .* clip '00001/0001', "
                               'which is 64 rows, 64 columns, 7 frames'),
    ({'00002/*': {'columns': [60, 72]}}, r"columns \[60, 72\] exceeds the size of clip '00002/0001'"),
    ({'*': {'frames': [8, 8]}}, r'frames \[8, 8\] exceeds the size of clip'),
    ({'calendar': {'rows': [1, 2]}, '*': {}}, r"clip_areas: no clip matches \['calendar'\]; clips are '00001/0001', "),
    ({'*': {'rows': [0, 8]}}, r'datasets.val.clip_areas.\*.rows\[0\] must be >= 1, but is 0'),
    ({'*': {'rows': [9, 8]}}, r'clip_areas.\*.rows must be \[first, last\], counted from 1, but is \[9, 8\]'),
    ({'*': {'rows': [9]}}, r'clip_areas.\*.rows must be a list of at least 2'),
    ({'*': {'lines': [1, 2]}}, r"clip_areas.\*.lines must be one of rows, columns, frames, but is 'lines'"),
])
def test_bad_areas(test_opt, areas, message):
    with pytest.raises(ValueError, match=message):
        STVSRTestDataset({**test_opt, 'clip_areas': areas})


def test_areas_are_those_of_ground_truth(vimeo, test_opt):
    for roots in ({'dataroot_lq': vimeo / 'lq'}, {'dataroot_lq': vimeo / 'lq', 'dataroot_gt': None},
                  {'dataroot_blurred': vimeo / 'gt'}):
        message = f'datasets.val.clip_areas cannot be combined with {next(iter(roots))}: it crops'
        with pytest.raises(ValueError, match=message):
            STVSRTestDataset({**test_opt, **roots, 'clip_areas': {'*': {'rows': [1, 32]}}})


def test_two_videos(vimeo, tmp_path, test_opt):
    """A GT and an LR video need not have the same name."""
    av = pytest.importorskip('av')
    for name in ('gt', 'lq'):
        with av.open(str(tmp_path / f'{name}.mkv'), 'w') as container:
            frames = [cv2.imread(str(vimeo / name / CLIPS[0] / f'im{i}.png')) for i in range(1, 8)]
            stream = container.add_stream('ffv1', rate=25)
            stream.height, stream.width, stream.pix_fmt = *frames[0].shape[:2], 'bgr0'
            for frame in frames:
                container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format='bgr24').reformat(format='bgr0')))
            container.mux(stream.encode())
    dataset = STVSRTestDataset({**test_opt, 'dataroot_gt': tmp_path / 'gt.mkv', 'dataroot_lq': tmp_path / 'lq.mkv'})
    expected = STVSRTestDataset({**test_opt, 'dataroot_lq': vimeo / 'lq'})
    assert len(dataset) == 1 and dataset[0]['key'] == 'gt'
    assert torch.equal(dataset[0]['lq'], expected[0]['lq']) and torch.equal(dataset[0]['gt'], expected[0]['gt'])


def test_real_eval_sets(real_data, test_opt):
    """The numbers of INVENTORY.md."""
    for name, num_clips, num_frame in (('vid4', 4, 13), ('ucf101_triplets', 22, 3), ('vimeo90k_sample', 1, 7)):
        dataset = STVSRTestDataset({**test_opt, 'dataroot_gt': real_data / 'eval' / name})
        assert len(dataset) == num_clips
        item = dataset[0]
        assert item['gt'].shape[0] == num_frame and item['lq'].shape[0] == (num_frame + 1) // 2
        assert item['gt'].shape[-1] == SCALE * item['lq'].shape[-1]


def test_real_bicubic_reference(real_data, test_opt):
    """LR frames as MATLAB makes them: the reference holds the first three of calendar."""
    path = real_data / 'eval' / 'lr_refs' / 'tdan_calendar_BI'
    test_opt.update(dataroot_gt=real_data / 'eval' / 'vid4', clips='calendar', num_frame=3)
    item = STVSRTestDataset(test_opt)[0]
    for frame, file in zip(item['lq'], sorted(path.iterdir())[:3:2], strict=True):
        np.testing.assert_array_equal((frame * 255).round().byte().permute(1, 2, 0), cv2.imread(str(file))[..., ::-1])


# Bad options and bad data


@pytest.mark.parametrize('dataset', [STVSRClipDataset, STVSRTestDataset])
def test_all_missing_paths_are_reported_together(train_opt, dataset, tmp_path):
    opt = {key: train_opt[key] for key in ('name', 'phase', 'scale')}
    gt, lq = tmp_path / 'vimeo90k_train.lmdb', tmp_path / 'my LR.lmdb'
    opt.update(key='train_3', dataroot_gt=gt, dataroot_lq=lq, meta_info_file=tmp_path / 'clips.txt')
    with pytest.raises(FileNotFoundError) as error:
        dataset(opt)
    assert str(error.value).splitlines() == [
        f"data set 'Vimeo' (datasets.train_3): dataroot_gt does not exist: {gt}",
        'Create it with',
        f'  python scripts/data_preparation/create_lmdb.py --dataset vimeo90k --input FOLDER --output {gt}',
        '(--help lists the data sets; docs/datasets.md shows the folders of each)',
        f"data set 'Vimeo' (datasets.train_3): dataroot_lq does not exist: {lq}",
        'Create it with',
        f"  python scripts/data_preparation/make_lr.py --scale 4 --input {gt} --output '{lq}'",
        'or remove the option to make LR frames from dataroot_gt while reading.',
        f"data set 'Vimeo' (datasets.train_3): meta_info_file does not exist: {tmp_path / 'clips.txt'}",
    ]


@pytest.mark.parametrize(('name', 'expected_hint'), [
    ('vimeo90k_test_GT.lmdb', '--dataset vimeo90k --split test --input FOLDER --output {path}'),
    ('Vimeo_triplet.lmdb', '--dataset vimeo90k_triplet --input FOLDER --output {path}'),
    ('reds4.lmdb', '--dataset reds --split reds4 --input'),
    ('dvd_train_GT.lmdb', '--dataset dvd --input'),
    ('dvd_test_blur.lmdb', '--dataset dvd --split test --subset input --input'),
    ('reds_train_sharp.lmdb', '--dataset reds --input'),
    ('reds4_blur_bicubic.lmdb', '--dataset reds --split reds4 --subset blur_bicubic --input'),
    ('vid4_GT.lmdb', '--dataset vid4 --input'),
    ('ucf101_triplets.lmdb', '--dataset ucf101 --input'),
    ('middlebury_other.lmdb', '--dataset middlebury --input'),
    ('hundreds.lmdb', '--dataset folder --input'),
    ('holiday_v1.0', '--dataset folder --input FOLDER --output {path}.lmdb'),
])
def test_hints_follow_the_name(test_opt, name, expected_hint, tmp_path):
    test_opt['dataroot_gt'] = path = tmp_path / name
    with pytest.raises(FileNotFoundError) as error:
        STVSRTestDataset(test_opt)
    assert 'create_lmdb.py ' + expected_hint.format(path=path) in str(error.value)
    # Otherwise the option would still not point at what the command makes.
    assert (f'set the option to {path}.lmdb' in str(error.value)) == (path.suffix != '.lmdb')


def test_missing_flows(train_opt, tmp_path):
    train_opt['dataroot_flow'] = tmp_path / 'flows'
    with pytest.raises(FileNotFoundError, match=r'\(datasets.train\): dataroot_flow does not exist: .*flows$'):
        STVSRClipDataset(train_opt)


def test_no_lmdb_is_advised_for_a_missing_video(test_opt, tmp_path):
    test_opt['dataroot_gt'] = tmp_path / 'holiday.mp4'
    with pytest.raises(FileNotFoundError, match=r'dataroot_gt does not exist: .*holiday\.mp4$'):
        STVSRTestDataset(test_opt)


def test_missing_lr_clips_without_ground_truth(test_opt, tmp_path):
    test_opt.update(dataroot_gt=None, dataroot_lq=tmp_path / 'clips.lmdb')
    with pytest.raises(FileNotFoundError, match='create_lmdb.py --dataset folder') as error:
        STVSRTestDataset(test_opt)
    assert 'remove the option' not in str(error.value)


@pytest.mark.parametrize(('change', 'message'), [
    ({'gt_size': 30}, r'^datasets\.train\.gt_size must be a multiple of scale 4, but is 30$'),
    ({'crop_stride': 6}, r'datasets\.train\.crop_stride must be a multiple of scale 4, but is 6'),
    ({'crop_stride': 8, 'gt_size': None}, 'crop_stride is 8, but has an effect only with gt_size'),
    ({'frame_stride': 0}, 'frame_stride must be >= 1, but is 0'),
    ({'gt_sise': 32}, r'datasets.train.gt_sise is not an option \(its value here is 32\). Did you mean gt_size\? '),
    ({'num_frame': 4}, 'datasets.train.num_frame must be odd with temporal_scale 2, but is 4'),
    ({'temporal_scale': 3}, 'datasets.train.temporal_scale must be one of 1, 2, but is 3'),
    ({'interval_list': [0]}, r'datasets.train.interval_list\[0\] must be >= 1, but is 0'),
    ({'clips': '00009/*'}, "clips: '00009/\\*' matches none of 3 clips"),
    ({'clip_weights': {'00009/*': 2}}, r"no clip matches \['00009/\*'\]"),
    ({'clip_weights': {'*': -1}}, r'datasets.train.clip_weights.\* must be >= 0, but is -1'),
    ({'dataroot_gt': None}, 'datasets.train.dataroot_gt is missing: Clips as a folder'),
    ({'dataroot_flow': '.', 'interval_list': [2]}, r'_flow needs interval_list \[1\] .* values are \[2\] and 2'),
    ({'prefetch_mode': 'cuda'}, "prefetch_mode is 'cuda', which also needs pin_memory: true"),
    ({'dataroot_lq': None, 'degradation': {'type': 'bicubik'}}, 'bicubik'),
])
def test_bad_options(train_opt, change, message):
    with pytest.raises(ValueError, match=message):
        STVSRClipDataset({**train_opt, **change})


def test_no_data_to_test_on(test_opt):
    with pytest.raises(ValueError, match='datasets.val.dataroot_gt is missing, and so is dataroot_lq'):
        STVSRTestDataset({**test_opt, 'dataroot_gt': None})


def test_meta_info_file(vimeo, train_opt, tmp_path, monkeypatch):
    monkeypatch.setenv('HOME', str(tmp_path))
    (tmp_path / 'clips.txt').write_text(f'{CLIPS[1]} 7 (64,64,3)\n')
    assert STVSRClipDataset({**train_opt, 'meta_info_file': '~/clips.txt'}).clips == [CLIPS[1]]
    (tmp_path / 'clips.txt').write_text(f'{CLIPS[0]}\n{CLIPS[1]} 7 (64,64,3)\n{CLIPS[1]} 7 (64,64,3)\n')
    with pytest.raises(ValueError, match=r"clips.txt lists the clip '00001/0002' more than once"):
        STVSRClipDataset({**train_opt, 'meta_info_file': '~/clips.txt'})


@pytest.mark.parametrize(('change', 'num_lq'), [
    ({}, 1), ({'dataroot_lq': None, 'lq_sharp': True}, 2), ({'dataroot_lq': None, 'motion_blur': {}}, 0)])
@pytest.mark.parametrize(('workers', 'short_by'), [(0, -1), (0, 1), (2, -1), (2, 1)])
def test_cache_is_limited_to_half_of_the_memory(train_opt, monkeypatch, workers, short_by, change, num_lq):
    """That of the ground truth and of as many versions of the LR frames as are kept."""
    gt_bytes = 3 * 7 * 64 * 64 * 3
    needed = (gt_bytes + num_lq * gt_bytes // SCALE**2) * max(1, workers)
    monkeypatch.setattr(samples_module, 'physical_memory', lambda: 2 * needed - short_by)
    train_opt.update(cache=True, num_worker_per_gpu=workers, **change)
    if short_by < 0:
        STVSRClipDataset(train_opt)
        return
    message = rf"'Vimeo' .*would keep about 0.0 GB of frames in each of {max(1, workers)} workers; .*Set cache: false"
    with pytest.raises(ValueError, match=message):
        STVSRClipDataset(train_opt)
    STVSRClipDataset({**train_opt, 'cache': False})


def test_options_are_left_alone(train_opt, test_opt):
    for dataset, opt in ((STVSRClipDataset, train_opt), (STVSRTestDataset, test_opt)):
        before = copy.deepcopy(opt)
        assert dataset(opt).opt is opt
        assert opt == before


def test_crop_larger_than_the_frames(train_opt):
    for lq in (train_opt['dataroot_lq'], None):
        with pytest.raises(ValueError, match=r"clip '00001/0001' is 64x64 \(h x w\), smaller than gt_size 68"):
            STVSRClipDataset({**train_opt, 'dataroot_lq': lq, 'gt_size': 68})[0]


def test_sizes_that_do_not_fit(folder, train_opt, test_opt):
    write_images(folder / 'lq' / '00001' / '0001', [np.zeros((16, 15, 3), np.uint8)] * 7)
    message = r"clip '00001/0001' is 64x64 \(h x w\) in .*gt and 16x15 in .*lq, expected 4 times the size"
    roots = {'dataroot_gt': folder / 'gt', 'dataroot_lq': folder / 'lq'}
    with pytest.raises(ValueError, match=message):
        STVSRClipDataset({**train_opt, **roots})[0]
    with pytest.raises(ValueError, match=message):
        STVSRTestDataset({**test_opt, **roots})[0]


def test_own_sizes_off_the_scale(tmp_path, train_opt, test_opt):
    """As make_lr.py leaves them: LR frames of the cut ground truth, beside the ground truth as it was."""
    frames = np.random.default_rng(0).integers(0, 256, (3, 38, 47, 3), np.uint8)
    write_images(tmp_path / 'gt' / 'clip', frames)
    write_images(tmp_path / 'lq' / 'clip', [lr_frame(frame[:36, :44]) for frame in frames])
    roots = {'dataroot_gt': tmp_path / 'gt', 'dataroot_lq': tmp_path / 'lq'}
    whole = STVSRTestDataset({**test_opt, **roots})[0]
    expected = frames[:, :36, :44, ::-1].transpose(0, 3, 1, 2)
    np.testing.assert_array_equal((whole['gt'] * 255).round().byte(), expected)
    item = STVSRClipDataset({**train_opt, **roots, 'gt_size': None})[0]
    assert torch.equal(item['gt'], whole['gt']) and torch.equal(item['lq'], whole['lq'])
    assert STVSRClipDataset({**train_opt, **roots})[0]['gt'].shape[-2:] == (32, 32)


def test_frame_counts_that_do_not_fit(folder, train_opt, test_opt):
    (folder / 'lq' / '00001' / '0002' / 'im4.png').unlink()
    roots = {'dataroot_gt': folder / 'gt', 'dataroot_lq': folder / 'lq'}
    message = "clip '00001/0002' has 7 frames in .*gt and 6 in .*lq"
    with pytest.raises(ValueError, match=message):
        STVSRClipDataset({**train_opt, **roots})
    with pytest.raises(ValueError, match=message + r', expected 7 or 4 \(every second frame\) or 5 \('):
        STVSRTestDataset({**test_opt, **roots})


def test_clips_that_lack_lr_frames(folder, train_opt):
    shutil.rmtree(folder / 'lq' / '00001' / '0002')
    with pytest.raises(ValueError, match="1 clips of dataroot_gt are not in dataroot_lq .*; the first is '00001/0002'"):
        STVSRClipDataset({**train_opt, 'dataroot_lq': folder / 'lq'})


def test_clip_too_short_to_interpolate(folder, test_opt):
    for path in (folder / 'gt' / '00001' / '0001').glob('im[3-7].png'):
        path.unlink()
    with pytest.raises(ValueError, match="clip '00001/0001' has only 1 LR frame, but temporal_scale 2 needs two"):
        STVSRTestDataset({**test_opt, 'dataroot_gt': folder / 'gt'})


def test_damaged_frame_is_named(folder, train_opt):
    path = folder / 'gt' / '00001' / '0001' / 'im2.png'
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(FrameReadError, match=r"clip '00001/0001', frame 1 \(im2\): .*im2.png: the image is truncated"):
        STVSRClipDataset({**train_opt, 'dataroot_gt': folder / 'gt'})[0]
