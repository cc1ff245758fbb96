"""Training sets of several roots: their shares, their samples, and what the options of a source do."""
import re
from collections import Counter

import cv2
import numpy as np
import pytest
import torch
from basicsr.data import build_dataset
from run_util import small_train_opt
from video_util import write_yuv

from basicsr_stvsr.data import train_samples as samples_module
from basicsr_stvsr.data.clip_dataset import STVSRClipDataset
from basicsr_stvsr.data.mixed_dataset import STVSRMixedDataset, shares
from basicsr_stvsr.data.sample_order import seeded
from basicsr_stvsr.data.stills_dataset import STVSRStillsDataset
from basicsr_stvsr.io.derived_frames import area_mean
from basicsr_stvsr.io.frames import FrameReadError
from basicsr_stvsr.io.lmdb_files import FrameSource, write_lmdb
from basicsr_stvsr.io.opening import open_reader
from basicsr_stvsr.training.loader import make_train_loader

SCALE, SIZE, HEIGHT, WIDTH = 4, 32, 64, 72


def write_clip(folder, num_frames, seed, height=HEIGHT, width=WIDTH):
    """Smooth noise that moves."""
    folder.mkdir(parents=True)
    scene = cv2.resize(np.random.default_rng(seed).integers(0, 256, (9, 9, 3), np.uint8), (width + 16, height + 16))
    for i in range(num_frames):
        assert cv2.imwrite(str(folder / f'im{i}.png'), scene[i:height + i, 2 * i:width + 2 * i])


@pytest.fixture(scope='session')
def roots(tmp_path_factory):
    """clips: 2 clips of 5 frames; clips.lmdb: the same; raw: a .yuv file of 4 frames; photos: 3 stills; flows of clips.

    Windows of three frames: 6, 6, 2; stills: 3.
    """
    root = tmp_path_factory.mktemp('roots')
    for number, clip in enumerate(('one', 'two')):
        write_clip(root / 'clips' / clip, 5, number)
        (root / 'flows' / clip).mkdir(parents=True)
        for i in range(5):
            for side, x in (('prev', 2.0), ('next', -2.0)):
                flow = np.full((HEIGHT, WIDTH, 2), [x, x / 2], np.float32)
                np.save(root / 'flows' / clip / f'im{i}_{side}.npy', flow)
    reader = open_reader(root / 'clips')
    write_lmdb(root / 'clips.lmdb', [
        FrameSource(f'{clip}/{reader.frame_name(clip, i)}', clip, lambda clip=clip, i=i: reader.frame(clip, i))
        for clip in reader.clips for i in range(5)])
    rng = np.random.default_rng(2)
    write_yuv(root / f'raw_{WIDTH}x{HEIGHT}.yuv', [
        [rng.integers(16, 236, size, np.uint8) for size in ((HEIGHT, WIDTH), *[(HEIGHT // 2, WIDTH // 2)] * 2)]
        for _ in range(4)])
    (root / 'photos').mkdir()
    for seed in range(3):
        photo = cv2.resize(np.random.default_rng(seed).integers(0, 256, (9, 9, 3), np.uint8), (100, 90))
        assert cv2.imwrite(str(root / 'photos' / f'{seed}.png'), photo)
    return root


@pytest.fixture
def opt(roots):
    return {
        'name': 'mix', 'type': 'STVSRMixedDataset', 'phase': 'train', 'scale': SCALE, 'gt_size': SIZE,
        'use_hflip': True, 'use_rot': True, 'random_reverse': True, 'batch_size_per_gpu': 2, 'sources': [
            {'dataroot_gt': roots / 'clips', 'weight': 1.0}, {'dataroot_gt': roots / 'clips.lmdb', 'weight': 0.5},
            {'dataroot_gt': roots / f'raw_{WIDTH}x{HEIGHT}.yuv', 'weight': 0.25},
            {'stills': roots / 'photos', 'weight': 1.25, 'max_motion': 5, 'exact_flow': False}]}


def with_flow(opt, roots):
    """Of two sources, clips with flows and stills."""
    clips, *_, stills = opt['sources']
    return {**opt, 'sources': [{**clips, 'dataroot_flow': roots / 'flows'}, {**stills, 'exact_flow': True}]}


# Shares


@pytest.mark.parametrize(('weights', 'windows', 'expected'), [
    ([1, 1], [6, 6], [6, 6]),
    ([2, 1], [6, 6], [12, 6]),
    ([1, 0.3], [1000, 300], [1000, 300]),
    ([0.9, 0.1], [100, 10000], [90000, 10000]),
    ([30, 10], [7, 1], [7, 2]),  # a third of 7, rounded
    ([1], [5], [5]),
])
def test_shares_by_hand(weights, windows, expected):
    assert shares(weights, windows) == expected


def test_weights_decide_over_an_epoch(opt):
    """Whatever the number of windows, 6, 6, 2 and 3; each of them comes."""
    dataset = STVSRMixedDataset(opt)
    located = Counter(dataset.locate(index) for index in range(len(dataset)))
    total = Counter(number for number, _ in located.elements())
    assert [total[number] for number in range(4)] == [12, 6, 3, 15]
    assert [len({window for number, window in located if number == k}) for k in range(4)] == [6, 6, 2, 3]
    assert {located[0, window] for window in range(6)} == {2} and {located[3, window] for window in range(3)} == {5}
    assert len(dataset) == 36
    with pytest.raises(IndexError, match='sample 36 does not exist; there are 36'):
        dataset.locate(36)


def test_samples_are_those_of_the_sources(opt, roots):
    dataset = STVSRMixedDataset(opt)
    common = {key: value for key, value in opt.items() if key != 'sources'}
    alone = [STVSRClipDataset({**common, **{'dataroot_gt': source['dataroot_gt']}}) for source in opt['sources'][:3]]
    alone.append(STVSRStillsDataset({**common, 'stills': roots / 'photos', 'max_motion': 5, 'exact_flow': False}))
    for index in range(0, 36, 5):
        number, window = dataset.locate(index)
        with seeded(index):
            ours = dataset[index]
        with seeded(index):
            expected = alone[number][window]
        assert ours.keys() == expected.keys() == {'lq', 'gt', 'key'} and ours['key'] == expected['key']
        assert torch.equal(ours['lq'], expected['lq']) and torch.equal(ours['gt'], expected['gt'])


def test_any_number_of_workers_gives_the_same_batches(opt):
    """And a training that is resumed goes on with the batches that come next."""
    def batches(num_workers: int, start: int = 0, count: int = 8) -> list[dict]:
        train = {**opt, 'num_worker_per_gpu': num_workers}
        run = {'datasets': {'train': train}, 'manual_seed': 3, 'rank': 0, 'world_size': 1, 'dist': False, 'num_gpu': 0}
        loader = make_train_loader(run, build_dataset(train), start=start)
        return [batch for batch, _ in zip(loader, range(count), strict=False)]

    expected = batches(0)
    assert len({key for batch in expected for key in batch['key']}) > 5
    for others, first in ((batches(1), 0), (batches(2), 0), (batches(2, start=10, count=3), 5)):
        for ours, theirs in zip(others, expected[first:], strict=False):
            assert ours['key'] == theirs['key']
            assert torch.equal(ours['lq'], theirs['lq']) and torch.equal(ours['gt'], theirs['gt'])


def test_flow_of_all_sources(opt, roots):
    opt.update(use_hflip=False, use_rot=False, random_reverse=False)
    dataset = STVSRMixedDataset(with_flow(opt, roots))
    for index in (0, len(dataset) - 1):
        assert dataset[index]['flow'].shape == (1, 2, 2, SIZE, SIZE)
    expected = torch.tensor([[2.0, 1.0], [-2.0, -1.0]])[None, :, :, None, None].expand(1, 2, 2, SIZE, SIZE)
    assert torch.equal(dataset[0]['flow'], expected)


def test_sharp_lr_frames_of_files_and_made_ones(opt, roots, tmp_path):
    for clip in ('one', 'two'):
        write_clip(tmp_path / 'sharp' / clip, 5, 7, HEIGHT // SCALE, WIDTH // SCALE)
    opt['sources'][0]['dataroot_lq_sharp'] = tmp_path / 'sharp'
    dataset = STVSRMixedDataset({**opt, 'lq_sharp': True})
    files, made = dataset[0], dataset[12]
    assert not torch.equal(files['lq'], files['lq_sharp']) and torch.equal(made['lq'], made['lq_sharp'])


# reduce


def test_reduced_by_hand(tmp_path):
    """Frames of 5x7 and their flow: means of 2x2, the last row and column left out, motion halved."""
    frame = np.zeros((5, 7, 3), np.uint8)
    frame[:2, :2] = [[[10, 0, 4], [20, 0, 4]], [[30, 0, 4], [40, 255, 4]]]
    frame[4], frame[:, 6] = 255, 255
    for i in range(3):
        (tmp_path / 'gt' / 'a').mkdir(parents=True, exist_ok=True)
        assert cv2.imwrite(str(tmp_path / 'gt' / 'a' / f'{i}.png'), frame)
    flow = np.zeros((5, 7, 2), np.float32)
    flow[..., 0], flow[:2, 4:6, 1] = 4, [[1, 2], [3, 8]]
    (tmp_path / 'flow' / 'a').mkdir(parents=True)
    for side, sign in (('prev', 1), ('next', -1)):
        np.save(tmp_path / 'flow' / 'a' / f'1_{side}.npy', sign * flow)
    item = STVSRClipDataset({
        'name': 'a', 'scale': 1, 'dataroot_gt': tmp_path / 'gt', 'dataroot_flow': tmp_path / 'flow', 'reduce': 2})[0]
    levels = (255 * item['gt']).round()
    assert levels.shape == (3, 3, 2, 3)
    assert levels[0, :, 0, 0].tolist() == [4, 64, 25]  # R, G, B; 63.75 is rounded
    assert levels[0, :, 1:].abs().max() == 0 and levels[0, :, :, 1:].abs().max() == 0
    assert torch.equal(item['lq'], item['gt'][::2])
    assert item['flow'].shape == (1, 2, 2, 2, 3)
    assert item['flow'][0, 0].tolist() == [[[2, 2, 2], [2, 2, 2]], [[0, 0, 1.75], [0, 0, 0]]]
    assert torch.equal(item['flow'][0, 1], -item['flow'][0, 0])


def test_area_mean_is_that_of_numpy():
    image = np.random.default_rng(0).integers(0, 256, (13, 17, 3), np.uint8)
    for factor in (1, 2, 3, 5):
        h, w = 13 // factor, 17 // factor
        expected = image[:h * factor, :w * factor].reshape(h, factor, w, factor, 3).mean(axis=(1, 3))
        assert np.abs(area_mean(image, factor) - expected).max() <= 0.5
    assert area_mean(image[..., :1], 2).shape == (6, 8, 1)
    with pytest.raises(ValueError, match=r'a frame of 13x17 \(h x w\) cannot be made 20 times smaller'):
        area_mean(image, 20)


@pytest.mark.parametrize('changes', [{}, {'cache': True}, {'color': 'y'}, {'lq_sharp': True}])
def test_a_reduced_source_is_like_reduced_files(roots, tmp_path, changes):
    """Ground truth, LR frames made of it, and those of files."""
    opt = {'name': 'a', 'scale': SCALE, 'gt_size': 24, **changes}
    for clip in ('one', 'two'):
        (tmp_path / 'small' / clip).mkdir(parents=True)
        write_clip(tmp_path / 'lq' / clip, 5, 3, HEIGHT // SCALE, WIDTH // SCALE)
        for file in sorted((roots / 'clips' / clip).iterdir()):
            image = cv2.imread(str(file))
            assert cv2.imwrite(str(tmp_path / 'small' / clip / file.name), area_mean(image, 2))
    reduced = STVSRClipDataset({**opt, 'dataroot_gt': roots / 'clips', 'reduce': 2})
    files = STVSRClipDataset({**opt, 'dataroot_gt': tmp_path / 'small'})
    tolerance = 1.01 / 255 if 'color' in changes else 0  # reduced after the conversion
    for seed in range(4):
        with seeded(seed):
            ours = reduced[seed]
        with seeded(seed):
            expected = files[seed]
        assert all(torch.allclose(ours[key], expected[key], rtol=0, atol=tolerance) for key in expected if key != 'key')
    with_lq = STVSRClipDataset({**opt, 'gt_size': None, 'dataroot_gt': roots / 'clips', 'reduce': 2,
                                'dataroot_lq': tmp_path / 'lq'})
    lq = cv2.imread(str(tmp_path / 'lq' / 'one' / 'im0.png'))
    if changes == {}:
        ours = (255 * with_lq[0]['lq'][0]).round().byte().flip(0).permute(1, 2, 0).numpy()
        np.testing.assert_array_equal(ours, area_mean(lq, 2))


def test_sizes_are_told_as_they_are_after_the_reduction(opt, roots):
    opt['sources'][1]['reduce'] = 3
    dataset = STVSRMixedDataset(opt)
    with pytest.raises(ValueError, match=r"\(datasets\.train\.sources\[1\]\): clip 'one' is 20x24 \(h x w\), smaller "
                                         r'than gt_size 32$'):
        dataset[12]


# Training


def mbnet_opt(opt, roots):
    run = small_train_opt(roots / 'clips')
    train = with_flow(opt, roots)
    del train['phase'], train['scale']
    train['sources'] = [{key: str(value) if key.startswith('dataroot') or key == 'stills' else value
                         for key, value in source.items()} for source in train['sources']]
    run['datasets']['train'] = train
    run['train']['flow_sup_opt'] = {'type': 'FlowSupervisionLoss', 'loss_weight': 0.01}
    return run


def test_mbnet_trains_on_it(train_here, opt, roots, tmp_path, capsys):
    """The check takes a step with the flows of the samples as teacher; a training writes its weights."""
    train_here(mbnet_opt(opt, roots), '--check')
    printed = capsys.readouterr().out
    assert 'lq (2, 2, 3, 8, 8), gt (2, 3, 3, 32, 32)' in printed
    assert re.search(r'^first step  l_sr 0\.\d+, l_flow_lr .*, l_flow_hr .*, l_flow_sup 0\.\d+, ', printed, re.M)
    folder = train_here(mbnet_opt(opt, roots))
    assert (folder / 'models' / 'net_g_latest.pth').is_file()


@pytest.mark.parametrize(('change', 'message'), [
    ({'weigth': 2}, r'datasets\.train\.sources\[0\]\.weigth is not an option .*Did you mean weight\? Options are'),
    ({'dataroot_gt': '/no/folder'}, r"data set 'mix' \(datasets\.train\.sources\[0\]\): dataroot_gt does not exist"),
])
def test_what_a_training_is_refused(train_here, opt, roots, capsys, change, message):
    run = mbnet_opt(opt, roots)
    run['datasets']['train']['sources'][0] |= change
    with pytest.raises(SystemExit):
        train_here(run, '--check')
    error, = re.findall('^error: (.*)$', capsys.readouterr().err, re.M)
    assert re.match(message, error)


# Errors


@pytest.mark.parametrize(('sources', 'message'), [
    ([], r'^datasets\.train\.sources must be a list of at least 1, but is \[\]$'),
    ([3], r'^datasets\.train\.sources\[0\] must be a block, but is 3$'),
    ([{'weight': 1}], r'^datasets\.train\.sources\[0\] must have one root, either dataroot_gt .* or stills '
                      r'\(photographs\), but has neither\.$'),
    ([{'stils': 'a'}], r'sources\[0\] must have one root, .* but has neither\. Did you mean stills\?$'),
    ([{'stills': 'a', 'dataroot_gt': 'b'}], r'must have one root, .* but has dataroot_gt and stills\.$'),
    ([{'stills': 'a'}, {'stills': 'a', 'weight': 0}], r'^datasets\.train\.sources\[1\]\.weight must be > 0, but is 0$'),
    ([{'stills': 'a', 'clips': 'b'}], r'train\.sources\[0\]\.clips is not an option .* Options are exact_flow, max_la'),
    ([{'dataroot_gt': 'a', 'reduce': 1.5}], r'sources\[0\]\.reduce must be a whole number, but is 1\.5$'),
    ([{'dataroot_gt': 'a', 'gt_size': 8}], r'sources\[0\]\.gt_size is not an option'),
    ([{'dataroot_gt': 'a'}, {'stills': 'b'}],
     r"^datasets\.train\.sources must all provide .* 'flow' comes from \[1\] and not from \[0\]; set data"),
    ([{'dataroot_gt': 'a', 'dataroot_flow': 'f', 'interval_list': [2]}],
     r'^datasets\.train\.sources\[0\]\.dataroot_flow needs interval_list \[1\]'),
    ([{'dataroot_gt': 'a', 'dataroot_lq_sharp': 'f'}, {'dataroot_gt': 'a'}],
     r"the same keys, but 'lq_sharp' comes from \[0\] and not from \[1\]; set lq_sharp: true"),
])
def test_bad_sources(opt, sources, message):
    with pytest.raises(ValueError, match=message):
        STVSRMixedDataset({**opt, 'sources': sources})


@pytest.mark.parametrize(('change', 'message'), [
    ({'gt_size': None}, r'^datasets\.train\.gt_size is missing: samples of all sources must have the same size$'),
    ({'num_frame': 4}, r'^datasets\.train\.num_frame must be odd with temporal_scale 2, but is 4$'),
    ({'sources': None}, r'^datasets\.train\.sources is missing: The roots'),
    ({'dataroot_gt': 'a'}, r'^datasets\.train\.dataroot_gt is not an option'),
    ({'sources': [{'dataroot_gt': 'a', 'dataroot_lq': 'b'}], 'motion_blur': {}},
     r'^datasets\.train\.sources\[0\]: motion_blur cannot be combined with dataroot_lq: LR frames come from'),
])
def test_bad_options(opt, change, message):
    with pytest.raises(ValueError, match=message):
        STVSRMixedDataset({**opt, **change})


def test_all_missing_roots_are_told_together(opt, tmp_path):
    opt['sources'][0]['dataroot_gt'], opt['sources'][3]['stills'] = tmp_path / 'a', tmp_path / 'b'
    with pytest.raises(FileNotFoundError) as error:
        STVSRMixedDataset(opt)
    assert re.findall(r'sources\[(\d)\]\): (\w+) does not exist', str(error.value)) == [
        ('0', 'dataroot_gt'), ('3', 'stills')]


def test_damage_is_told_with_its_file(opt, roots, tmp_path):
    write_clip(tmp_path / 'clips' / 'one', 3, 0)
    opt['sources'][0]['dataroot_gt'] = tmp_path / 'clips'
    (tmp_path / 'clips' / 'one' / 'im1.png').write_bytes(b'no image')
    with pytest.raises(FrameReadError, match=r"clip 'one', frame 1 \(im1\): .*im1\.png"):
        STVSRMixedDataset(opt)[0]


def test_the_caches_of_all_sources_together_are_limited(opt, monkeypatch):
    one = 3 * HEIGHT * WIDTH * 10 * (1 + 1 / SCALE**2)  # of each of the first two sources
    opt = {**opt, 'cache': True, 'sources': opt['sources'][:2]}
    monkeypatch.setattr(samples_module, 'physical_memory', lambda: 4 * one + 2)
    STVSRMixedDataset(opt)
    monkeypatch.setattr(samples_module, 'physical_memory', lambda: 4 * one - 2)
    with pytest.raises(ValueError, match=r"^data set 'mix' \(datasets\.train\): cache: true would keep"):
        STVSRMixedDataset(opt)


def test_an_epoch_without_end_is_refused(opt):
    opt['sources'][0]['weight'] = 1e-9
    with pytest.raises(ValueError, match=r'epoch would have 12,000,000,006 samples, to contain each of the 6 windows '
                                         r'of sources\[0\] once; raise the weight of this source, now 1e-09, or'):
        STVSRMixedDataset(opt)
