"""FISR's recipe, and its way through the training and validation loop."""
import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import skimage.data
import torch
import yaml
from basicsr.archs import build_network
from basicsr.data import build_dataset
from basicsr.models import build_model
from basicsr.utils.color_util import bgr2ycbcr
from conftest import ROOT, write_moving_clips
from run_util import run, succeed, write
from torch.utils.data import default_collate

from basicsr_stvsr.archs.arch_util import warp
from basicsr_stvsr.archs.fisr_arch import FISRNet
from basicsr_stvsr.config.loading import complete_paths, load_options
from basicsr_stvsr.data.lq_flow import LQFlow
from basicsr_stvsr.data.sample_order import seeded
from basicsr_stvsr.flow import build_flow
from basicsr_stvsr.inference.tiles import pad_to_multiple
from basicsr_stvsr.inference.windows import restore_clip
from basicsr_stvsr.io.color_spaces import convert_frame
from basicsr_stvsr.io.lmdb_files import clip_frames, write_lmdb
from basicsr_stvsr.io.opening import open_reader

TERMS = {'l_recn', 'l_tm1', 'l_tmm', 'l_td1', 'l_recn2', 'l_td2', 'l_tm2'}
FISR_TRAIN_FILES = [path for path in sorted((ROOT / 'options').rglob('*fisr*.yml')) for opt in [load_options(str(path))]
                    if 'train' in opt and opt['datasets']['train']['type'] == 'STVSRClipDataset']


@pytest.fixture(scope='module')
def clips(tmp_path_factory) -> Path:
    """9 frames of 96 x 80."""
    root = tmp_path_factory.mktemp('nine')
    write_moving_clips(root, num_frames=9, height=96, width=80)
    return root


def train_opt(clips: Path, **temporal: float) -> dict:
    """Options as the loader of a training completes them."""
    train = {'name': 'clips', 'type': 'STVSRClipDataset', 'phase': 'train', 'scale': 2, 'dataroot_gt': str(clips),
             'color': 'yuv', 'num_frame': 9, 'gt_size': 64, 'flow_opt': {'type': 'DISFlow'}, 'flow_strides': [1, 2]}
    return {
        'name': 'tiny', 'model_type': 'FISRModel', 'scale': 2, 'num_gpu': 0, 'manual_seed': 0, 'dist': False, 'rank': 0,
        'world_size': 1, 'is_train': True, 'datasets': {'train': train},
        'network_g': {'type': 'FISRNet', 'num_feat': 2}, 'path': {'pretrain_network_g': None},
        'train': {'optim_g': {'type': 'Adam', 'lr': 1e-3}, 'total_iter': 2,
                  'scheduler': {'type': 'MultiStepLR', 'milestones': [1]},
                  'temporal_opt': {'type': 'MultiScaleTemporalLoss', **temporal}}}


def batch(opt: dict, size: int = 2) -> dict:
    dataset = build_dataset(opt['datasets']['train'])
    return default_collate([dataset[i % len(dataset)] for i in range(size)])


@pytest.mark.numeric
def test_one_call_for_all_windows_is_four_calls(clips):
    """The batch of 4B gives what each window gives by itself, put together here as the paper numbers them."""
    opt = train_opt(clips)
    model, data = build_model(opt), batch(opt)
    model.feed_data(data)
    assert model.lq.shape == (8, 3, 3, 32, 32) and model.gt.shape == (2, 7, 3, 64, 64)
    losses = model.compute_losses()
    assert set(losses) == TERMS

    lq, flow = data['lq'], data['lq_flow']
    inputs = [(lq[:, w:w + 3], flow[:, w:w + 2]) for w in range(3)] + [(lq[:, [0, 2, 4]], data['lq_flow_stride2'])]
    levels = [model.net_g(*pair, return_aux=True)[1].levels for pair in inputs]
    windows = [torch.stack([levels[w][level] for w in range(3)], dim=1) for level in range(3)]
    expected = model.cri_temporal(windows, levels[3], data['gt'][:, 1:8])  # h2 to h8
    for name, term in expected.items():
        torch.testing.assert_close(losses[f'l_{name}'], term)


@pytest.mark.numeric
def test_frames_of_a_sample(clips):
    """Five LR frames are every second of nine; flow is that of the motion, 4 HR pixels to the next, which is 2 LR."""
    sample = build_dataset(train_opt(clips)['datasets']['train'])[0]
    assert {key: tuple(value.shape) for key, value in sample.items() if key != 'key'} == {
        'lq': (5, 3, 32, 32), 'gt': (9, 3, 64, 64), 'lq_flow': (4, 2, 2, 32, 32), 'lq_flow_stride2': (2, 2, 2, 32, 32)}
    inner = (..., slice(8, 24), slice(8, 24))
    for flow, motion in ((sample['lq_flow'], 2), (sample['lq_flow_stride2'], 4)):
        x, y = flow[inner].median(dim=-1).values.median(dim=-1).values.unbind(-1)
        assert (x[:, 0] + motion).abs().max() < motion / 4 and (x[:, 1] - motion).abs().max() < motion / 4
        assert y.abs().max() < motion / 4  # forward to the left, backward to the right, and neither up nor down


@pytest.fixture(scope='module')
def flow_lmdb(clips, tmp_path_factory) -> Path:
    """Flows of the LR frames, made ahead."""
    path = tmp_path_factory.mktemp('flow') / 'flow.lmdb'
    process = run('scripts/data_preparation/precompute_flow.py', '--input', clips, '--output', path, '--scale', 2,
                  '--flow', 'DISFlow', '--every', 2, '--strides', 1, 2)
    assert process.returncode == 0, process.stderr
    return path


@pytest.mark.parametrize('stored', [False, True])
@pytest.mark.parametrize('seed', range(6))
def test_flow_fits_the_frames_however_they_are_flipped(clips, flow_lmdb, stored, seed):
    """Sampled along the flow, the second frame of a pair looks like the first; in reversed, turned clips too."""
    opt = train_opt(clips)['datasets']['train'] | {'random_reverse': True, 'use_hflip': True, 'use_rot': True}
    if stored:
        opt['flow_opt'] = {'type': 'FlowFiles', 'root': str(flow_lmdb)}
    dataset = build_dataset(opt)
    with seeded(seed):
        sample = dataset[0]
    for key, frames in (('lq_flow', sample['lq']), ('lq_flow_stride2', sample['lq'][::2])):
        for pair, (forward, backward) in enumerate(sample[key]):
            for first, second, flow in ((pair, pair + 1, forward), (pair + 1, pair, backward)):
                first, second = frames[first][None], frames[second][None]
                inner = (..., slice(6, 26), slice(6, 26))
                error = (warp(second, flow[None]) - first)[inner].abs().mean()
                assert error < 0.45 * (second - first)[inner].abs().mean()


@pytest.mark.numeric
def test_without_stride_2(clips):
    opt = train_opt(clips, lambda_stride2=0.0)
    opt['datasets']['train']['flow_strides'] = [1]
    opt['train']['pixel_opt'] = {'type': 'L1Loss'}
    model, data = build_model(opt), batch(opt)
    assert 'lq_flow_stride2' not in data
    model.feed_data(data)
    losses = model.compute_losses()
    assert len(model.lq) == 6 and set(losses) == {'l_recn', 'l_tm1', 'l_tmm', 'l_td1', 'l_pix'}
    frames = torch.stack([model.net_g(data['lq'][:, w:w + 3], data['lq_flow'][:, w:w + 2]) for w in range(3)], dim=1)
    true = torch.stack([data['gt'][:, 1 + 2 * w:4 + 2 * w] for w in range(3)], dim=1)
    torch.testing.assert_close(losses['l_pix'], (frames - true).abs().mean())


@pytest.mark.numeric
def test_warped_frames_of_a_file_are_used(clips):
    opt = train_opt(clips)
    model, data = build_model(opt), batch(opt)
    model.feed_data(data)
    expected = model.compute_losses()
    warp = model.net_g.warp_halfway
    model.feed_data({**data, 'lq_warped': torch.cat([warp(data['lq'][:, i:i + 3], data['lq_flow'][:, i:i + 2])
                                                    for i in (0, 2)], dim=1),
                     'lq_warped_stride2': warp(data['lq'][:, ::2], data['lq_flow_stride2'])})
    for name, loss in model.compute_losses().items():
        torch.testing.assert_close(loss, expected[name])
    model.feed_data({**data, 'lq_warped': torch.zeros(2, 4, 2, 3, 32, 32),
                     'lq_warped_stride2': torch.zeros(2, 2, 2, 3, 32, 32)})
    assert model.compute_losses()['l_recn'] != expected['l_recn']


@pytest.mark.parametrize('change, message', [
    ({'num_frame': 7}, r'datasets.train.num_frame must be 5, 9, 13, ... with flow_strides 2, but is 7'),
    ({'num_frame': 7, 'flow_strides': [1]}, r'FISR trains on samples of 5 LR frames, but these have 4; set num_'),
    ({'num_frame': 3, 'flow_strides': [1]}, r'FISRNet needs windows of 3 LR frames, but a sample has 2; see num_fra'),
    ({'flow_opt': None}, r'samples have no lq_flow: set flow_opt, such as {type: DISFlow}, and flow_strides \[1, 2\]'),
    ({'flow_strides': [1]}, r'samples have no lq_flow_stride2: set flow_opt'),
    ({'color': 'rgb'}, r'FISRNet takes yuv clips, but this one is rgb; set color: yuv in the data set'),
    ({'gt_size': 40}, r'FISRNet trains on LR frames with sides divisible by 32, but these are 20x20'),
])
def test_data_that_do_not_fit(clips, change, message):
    opt = train_opt(clips)
    opt['datasets']['train'] |= change
    opt['datasets']['train']['key'] = 'train'
    model = build_model(opt)
    with pytest.raises(ValueError, match=message):
        model.check_data(build_dataset(opt['datasets']['train']), [])


@pytest.mark.parametrize('lq, flow, message', [
    ((1, 3, 1, 32, 32), (1, 2, 2, 2, 32, 32), r'three YUV frames, \(B, 3, 3, H, W\), but got \(1, 3, 1, 32, 32\)'),
    ((1, 2, 3, 32, 32), (1, 1, 2, 2, 32, 32), r'three YUV frames, \(B, 3, 3, H, W\), but got \(1, 2, 3, 32, 32\)'),
    ((1, 3, 3, 32, 32), (1, 2, 2, 2, 32, 64), r'both directions, \(1, 2, 2, 2, 32, 32\), but got \(1, 2, 2, 2, 32, 64'),
    ((1, 3, 3, 31, 32), (1, 2, 2, 2, 31, 32), r'FISRNet needs a height and width divisible by 32, but got 31x32'),
])
def test_inputs_that_do_not_fit(lq, flow, message):
    net = build_network({'type': 'FISRNet', 'num_feat': 2})
    with pytest.raises(ValueError, match=message):
        net(torch.zeros(lq), torch.zeros(flow))


def test_far_motion_is_cut_off_in_inference_only():
    """Flow beyond 192 pixels counts as 192, as in the authors' test; their training has no such limit."""
    net = build_network({'type': 'FISRNet', 'num_feat': 2})
    lq, warped = torch.rand(1, 3, 3, 32, 32), torch.rand(1, 2, 2, 3, 32, 32)
    far, limit = (torch.full((1, 2, 2, 2, 32, 32), length) for length in (300., 192.))
    with torch.no_grad():
        assert not torch.equal(net(lq, far, warped), net(lq, limit, warped))
        net.eval()
        assert torch.equal(net(lq, far, warped), net(lq, limit, warped))


@pytest.mark.numeric
@torch.no_grad()
def test_clips_of_any_size_and_length():
    net = build_network({'type': 'FISRNet', 'num_feat': 2}).eval()
    lq, flow = torch.rand(1, 4, 3, 33, 35), torch.randn(1, 3, 2, 2, 33, 35)
    clip = restore_clip(net, lq, flow=flow)
    assert clip.shape == (1, 5, 3, 66, 70)
    window = net(*(pad_to_multiple(x, 32) for x in (lq[:, 1:], flow[:, 1:], net.warp_halfway(lq[:, 1:], flow[:, 1:]))))
    torch.testing.assert_close(clip[:, 2:], window[..., :66, :70].clamp(0, 1))  # the later window wins
    with pytest.raises(ValueError, match='FISRNet needs windows of 3 frames, but the clip has 2'):
        restore_clip(net, lq[:, :2], flow=flow[:, :1])


def test_checkpointing_changes_nothing():
    net = build_network({'type': 'FISRNet', 'num_feat': 2})
    lq, flow = torch.rand(1, 3, 3, 32, 32), torch.randn(1, 2, 2, 2, 32, 32)
    gradients = []
    for net.checkpoint in (False, True):
        net.zero_grad()
        net(lq, flow).square().sum().backward()
        gradients.append([p.grad.clone() for p in net.parameters()])
    assert all(torch.equal(one, other) for one, other in zip(*gradients, strict=True))


@pytest.mark.parametrize('path', FISR_TRAIN_FILES, ids=lambda path: path.stem)
def test_every_training_file_builds_and_takes_a_step(path, tmp_path, clips):
    opt = load_options(str(path))
    opt['datasets']['train'].update(
        dataroot_gt=str(clips), gt_size=64, scale=2, phase='train', cache=False)
    opt.update(num_gpu=0, dist=False, rank=0, world_size=1, is_train=True)
    with torch.device('meta'):
        num_parameters = sum(p.numel() for p in build_network(opt['network_g']).parameters())
    small = 1_412_625 if path.parent.name == 'v0.1' else 1_503_364
    assert num_parameters == (small if 'small' in path.stem or path.parent.name == 'claims' else 48_316_251)
    opt['network_g']['num_feat'] = 2
    complete_paths(opt, str(tmp_path))
    model = build_model(opt)
    model.feed_data(batch(opt))
    before = {name: p.detach().clone() for name, p in model.net_g.named_parameters()}
    model.update_learning_rate(1)
    model.optimize_parameters(1)
    log = model.get_current_log()
    off = {'fisr_no_temporal': TERMS - {'l_recn'}, 'fisr_small_no_temporal': TERMS - {'l_recn'},
           'fisr_stride1_only': {'l_recn2', 'l_td2', 'l_tm2'}, 'fisr_no_r': {'l_recn', 'l_recn2'},
           'fisr_no_tm1': {'l_tm1'}, 'fisr_no_tm2': {'l_tm2'}, 'fisr_no_tmm': {'l_tmm'},
           'fisr_no_td': {'l_td1', 'l_td2'}}.get(path.stem, set())
    assert set(log) == TERMS - off | {'grad_norm'} and all(np.isfinite(value) for value in log.values())
    assert any(not torch.equal(p, before[name]) for name, p in model.net_g.named_parameters())


def test_schedule_is_the_published_one():
    opt = load_options(str(ROOT / 'options' / 'train_fisr.yml'))
    train = opt['train']
    steps = (10_086 - 320) // 8  # an epoch of the authors, of 100
    assert train['total_iter'] == 100 * steps == 122_000 and opt['datasets']['train']['batch_size_per_gpu'] == 8
    assert train['scheduler'] == {'type': 'MultiStepLR', 'milestones': [80 * steps, 90 * steps], 'gamma': 0.1}
    assert train['optim_g']['lr'] == 1e-4 and opt['datasets']['train']['gt_size'] == 192
    assert train['temporal_opt'] == {
        'type': 'MultiScaleTemporalLoss', 'lambda_r': 1, 'lambda_tm1': 1, 'lambda_tmm': 1, 'lambda_td': 0.1,
        'lambda_tm2': 0.1, 'lambda_stride2': 1, 'level_weights': [4, 2, 1], 'td_mode': 'official'}


# ---------------------------------------------------------------- validation

class Stub(torch.nn.Module):
    """In place of FISRNet: the middle frame of the window, enlarged; the frames around it by number of the call."""

    spec = FISRNet.spec

    def __init__(self):
        super().__init__()
        self.calls = 0

    def inputs(self, lq, flow):
        return lq, flow

    def forward(self, lq, flow):
        self.calls += 1
        middle = lq[:, 1].repeat_interleave(2, -1).repeat_interleave(2, -2)
        return torch.stack([torch.full_like(middle, self.calls / 10), middle, torch.zeros_like(middle)], dim=1)


@pytest.fixture
def protocol(clips, tmp_path) -> Path:
    """Five YUV LR frames and seven YUV GT frames, h2 to h8, of each scene, 70 x 66 LR pixels."""
    rng = np.random.default_rng(1)
    for scene in ('scene1', 'scene2'):
        for kind, numbers, size in (('LR', range(1, 10, 2), (66, 70, 3)), ('HR', range(2, 9), (132, 140, 3))):
            (tmp_path / kind / scene).mkdir(parents=True)
            for number in numbers:
                frame = convert_frame(rng.integers(0, 256, size, dtype=np.uint8), 'rgb', 'yuv')
                cv2.imwrite(str(tmp_path / kind / scene / f'seq_{number}.png'), frame)
    return tmp_path


@pytest.mark.numeric
def test_protocol(protocol, monkeypatch):
    """4 new and 3 given frames a scene, the later window's copy, cut to 64 LR pixels, all by hand."""
    opt = load_options(str(ROOT / 'options' / 'test_fisr.yml'))
    dataset_opt = opt['datasets']['test'] | {
        'dataroot_gt': str(protocol / 'HR'), 'dataroot_lq': str(protocol / 'LR'), 'phase': 'test', 'scale': 2}
    opt.update(num_gpu=0, dist=False, rank=0, world_size=1, is_train=False)
    opt['network_g']['num_feat'] = 2
    opt['path'] = {'pretrain_network_g': None, 'results_root': str(protocol), 'visualization': str(protocol)}
    opt['val'] |= {'tile': None, 'save_img': True}
    model = build_model(opt)
    model.net_g = Stub()
    dataset = build_dataset(dataset_opt)
    loader = torch.utils.data.DataLoader(dataset)
    model.validation(loader, 'test', None, save_img=True)
    result = json.loads((protocol / 'fisr_test.json').read_text())

    def read(kind: str, scene: str, number: int) -> np.ndarray:  # Y, U, V, cut to 64 (LR) or 128 pixels
        frame = cv2.imread(str(protocol / kind / scene / f'seq_{number}.png'))[..., ::-1]
        return frame[:64, :64] if kind == 'LR' else frame[:128, :128]

    for index, scene in enumerate(('scene1', 'scene2')):
        scores = dict(result['frames'][scene]['psnr_yuv'])
        assert sorted(scores) == [1, 2, 3, 4, 5, 6, 7]  # h2 to h8
        for number in (2, 4, 6):  # given: h3, h5, h7
            made = read('LR', scene, number + 1).repeat(2, 0).repeat(2, 1)
            error = (made / 255. - read('HR', scene, number + 1) / 255.)**2
            assert scores[number] == pytest.approx(-10 * np.log10(error.mean()), abs=1e-4)
        # New: the first frame of windows 1, 2, 3, and the last of the third
        for number, value in ((1, 1), (3, 2), (5, 3), (7, None)):
            made = 0 if value is None else (3 * index + value) / 10
            error = (made - read('HR', scene, number + 1) / 255.)**2
            assert scores[number] == pytest.approx(-10 * np.log10(error.mean()), abs=1e-4)
    frames = [dict(result['frames'][scene]['psnr_yuv']) for scene in ('scene1', 'scene2')]
    average = result['average']['psnr_yuv']
    assert average['vfi'] == pytest.approx(np.mean([scores[i] for scores in frames for i in (1, 3, 5, 7)]))
    assert average['vsr'] == pytest.approx(np.mean([scores[i] for scores in frames for i in (2, 4, 6)]))

    # What is saved is RGB, under the names of the ground truth.
    names = sorted(path.name for path in (protocol / 'fisr_test' / 'scene1').iterdir())
    assert names == [f'seq_{number}_test_FISR_x2.png' for number in range(2, 9)]
    saved = cv2.imread(str(protocol / 'fisr_test' / 'scene1' / names[1])).astype(int)
    vuy = np.ascontiguousarray(read('LR', 'scene1', 3)[..., ::-1])
    expected = convert_frame(vuy, 'yuv', 'rgb').repeat(2, 0).repeat(2, 1)
    assert np.abs(saved - expected).max() <= 1


def test_rgb_taken_for_yuv_is_refused(tmp_path):
    for clip, photo in (('a', skimage.data.astronaut()), ('b', skimage.data.coffee()), ('c', skimage.data.chelsea())):
        (tmp_path / clip).mkdir()
        for i in range(3):
            cv2.imwrite(str(tmp_path / clip / f'{i}.png'), photo[:200, i:i + 300, ::-1])
    opt = {'name': 'c', 'type': 'STVSRTestDataset', 'phase': 'test', 'scale': 2, 'dataroot_gt': str(tmp_path),
           'color': 'yuv'}
    with pytest.raises(ValueError, match=r'stored_color: .* should hold YUV, but does not look like YUV: \d+% of its'):
        build_dataset({**opt, 'stored_color': 'yuv'})
    for path in tmp_path.rglob('*.png'):
        cv2.imwrite(str(path), convert_frame(cv2.imread(str(path)), 'rgb', 'yuv'))
    build_dataset({**opt, 'stored_color': 'yuv'})


def test_grey_taken_for_yuv_is_refused(tmp_path):
    (tmp_path / 'clip').mkdir()
    for i in range(5):
        cv2.imwrite(str(tmp_path / 'clip' / f'{i}.png'), np.random.default_rng(i).integers(90, 160, (64, 64), np.uint8))
    opt = {'name': 'c', 'type': 'STVSRTestDataset', 'phase': 'test', 'scale': 2, 'dataroot_gt': str(tmp_path),
           'color': 'yuv', 'stored_color': 'yuv'}
    with pytest.raises(ValueError, match=r'stored_color: .* should hold YUV, but is grey: its three channels'):
        build_dataset(opt)
    grey = build_dataset({**opt, 'stored_color': 'rgb'})[0]['gt']
    assert (grey[:, 1:] * 255 == 128).all()  # no colour


@pytest.mark.parametrize('num_lq, num_gt, gt_start, expected', [
    (5, 9, None, ([0, 1, 2, 3, 4], range(0, 9))), (5, 10, None, ([0, 1, 2, 3, 4], range(0, 9))),
    (9, 9, None, ([0, 2, 4, 6, 8], range(0, 9))), (5, 7, None, ([0, 1, 2, 3, 4], range(1, 8))),
    (3, 3, None, ([0, 2], range(0, 3))), (3, 3, 1, ([0, 1, 2], range(1, 4))), (5, 7, 1, ([0, 1, 2, 3, 4], range(1, 8))),
    (5, 7, 0, r'has 7 frames in .* and 5 in .*, expected 7 or 4 \(every second frame\)$'),
    (5, 8, None, r'has 8 frames in .* and 5 in .*, expected 8 or 4 \(every second frame\)$'),
    (5, 9, 1, r'has 9 frames in .* and 5 in .*, expected 6 \(every second frame, and one more at both ends\)$'),
])
def test_which_frames_belong_together(tmp_path, num_lq, num_gt, gt_start, expected):
    """LR frame k and GT frame k hold the level 10 k; with gt_start 1 GT frame 0 is frame 1 of the clip."""
    for kind, number, size in (('lq', num_lq, 8), ('gt', num_gt, 16)):
        (tmp_path / kind / 'clip').mkdir(parents=True)
        for i in range(number):
            cv2.imwrite(str(tmp_path / kind / 'clip' / f'{i}.png'), np.full((size, size, 3), 10 * i, np.uint8))
    opt = {'name': 'c', 'type': 'STVSRTestDataset', 'phase': 'test', 'scale': 2, 'gt_start': gt_start,
           'dataroot_gt': str(tmp_path / 'gt'), 'dataroot_lq': str(tmp_path / 'lq')}
    if isinstance(expected, str):
        with pytest.raises(ValueError, match=expected):
            build_dataset(opt)
        return
    item = build_dataset(opt)[0]
    lq, gt = expected
    assert (item['lq'][:, 0, 0, 0] * 25.5).round().tolist() == lq
    assert item['gt_start'] == gt.start and (item['gt'][:, 0, 0, 0] * 25.5).round().tolist() == list(range(len(gt)))
    assert [item['frame_names'][number] for number in gt] == [str(i) for i in range(len(gt))]


@pytest.mark.parametrize('margin', [0, 8, 100])
def test_flow_of_a_crop_sees_what_lies_around_it(clips, margin):
    """With a margin beyond the frame it is the flow of the whole frames, cut; without, that of the crop."""
    opt = train_opt(clips)['datasets']['train'] | {'flow_margin': margin, 'random_reverse': False}
    with seeded(3):
        sample = build_dataset(opt)[0]
    whole = build_dataset({**opt, 'gt_size': None})[0]
    y, x = next((y, x) for y in range(17) for x in range(9)
                if torch.equal(whole['lq'][..., y:y + 32, x:x + 32], sample['lq']))
    cut = whole['lq_flow'][..., y:y + 32, x:x + 32]
    assert torch.equal(sample['lq_flow'], cut) == (margin == 100)
    estimate = LQFlow(build_flow({'type': 'DISFlow'}), 'yuv')
    frames = [np.rint(frame.permute(1, 2, 0).numpy()[..., ::-1] * 255).astype(np.uint8) for frame in sample['lq']]
    alone = estimate.to_sample(estimate.estimate(frames), 5)['lq_flow']
    assert torch.equal(sample['lq_flow'], alone) == (margin == 0)


@pytest.mark.numeric
@pytest.mark.parametrize('dataset_type', ['STVSRClipDataset', 'STVSRTestDataset'])
def test_an_lmdb_of_yuv_gives_what_rgb_files_give(clips, tmp_path, dataset_type):
    for path in clips.rglob('*.png'):
        target = tmp_path / 'yuv' / path.relative_to(clips)
        target.parent.mkdir(parents=True, exist_ok=True)
        # As the authors store it: Y, U, V in place of R, G, B; made by BasicSR's conversion
        yuv = np.rint(255 * bgr2ycbcr(cv2.imread(str(path)).astype(np.float32) / 255)).astype(np.uint8)
        cv2.imwrite(str(target), yuv[..., ::-1])
    with open_reader(tmp_path / 'yuv') as reader:
        write_lmdb(tmp_path / 'yuv.lmdb', [frame for clip in reader.clips for frame in clip_frames(reader, clip)])
    opt = {'name': 'c', 'type': dataset_type, 'scale': 2, 'phase': 'train', 'color': 'yuv'}
    if dataset_type == 'STVSRClipDataset':
        opt['num_frame'] = 9
    of_rgb = build_dataset({**opt, 'dataroot_gt': str(clips)})[0]
    of_yuv = build_dataset({**opt, 'dataroot_gt': str(tmp_path / 'yuv.lmdb'), 'stored_color': 'yuv'})[0]
    for key in ('lq', 'gt'):
        assert (of_rgb[key] - of_yuv[key]).abs().max() <= 1 / 255 + 1e-6


def test_train_and_test_by_command(clips, tmp_path):
    opt = train_opt(clips)
    for name in ('dist', 'rank', 'world_size', 'is_train'):
        del opt[name]
    train = opt['datasets']['train']
    del train['phase'], train['scale']
    train |= {'batch_size_per_gpu': 1, 'num_worker_per_gpu': 1}
    val = {'name': 'both', 'type': 'STVSRTestDataset', 'dataroot_gt': str(clips), 'color': 'yuv',
           'flow_opt': {'type': 'DISFlow'}}
    opt['datasets']['val'] = val
    opt['path'] = {'experiments_root': str(tmp_path / 'experiment')}
    opt['val'] = {'val_freq': 2, 'overlap': 'last', 'metrics': {
        'psnr_yuv': {'type': 'calculate_fisr_psnr'}, 'psnr': {'type': 'calculate_psnr', 'crop_border': 0}}}
    opt['logger'] = {'print_freq': 1, 'save_checkpoint_freq': 2, 'use_tb_logger': True}
    log = succeed('basicsr/train.py', '-opt', write(tmp_path / 'train.yml', opt), cwd=ROOT)
    assert all(f'{term}: ' in log for term in TERMS) and 'Validation both: 2 clips, iteration 2' in log

    del opt['train'], opt['logger'], opt['datasets']
    opt['datasets'] = {'test': val}
    opt['path'] = {'pretrain_network_g': str(tmp_path / 'experiment' / 'models' / 'net_g_latest.pth'),
                   'results_root': str(tmp_path / 'results')}
    opt['val'] = {**opt['val'], 'tile': {'grid': [2, 1], 'overlap': 32}}
    del opt['val']['val_freq']
    succeed('basicsr/test.py', '-opt', write(tmp_path / 'test.yml', opt))
    result = json.loads((tmp_path / 'results' / 'both.json').read_text())
    assert [number for number, _ in result['frames']['first']['psnr_yuv']] == [1, 2, 3, 4, 5, 6, 7]

    opt['datasets']['test'] = {**val, 'num_frame': 3}
    process = run('basicsr/test.py', '-opt', write(tmp_path / 'short.yml', opt))
    assert process.returncode == 2 and 'Traceback' not in process.stderr
    assert "clip 'first' has 2 LR frames, but FISRNet needs windows of 3" in process.stderr


def test_networks_and_models_that_do_not_fit(clips, tmp_path):
    opt = train_opt(clips)
    with pytest.raises(ValueError, match='network_g.type: BicubicAverage does not accept the flow'):
        build_model({**opt, 'network_g': {'type': 'BicubicAverage', 'scale': 2}})
    train = {name: value for name, value in opt['train'].items() if name != 'temporal_opt'}
    with pytest.raises(ValueError, match='network_g.type: FISRNet needs the flow between LR frames: set model_type to'):
        build_model({**opt, 'model_type': 'STVSRModel', 'train': {**train, 'pixel_opt': {'type': 'L1Loss'}}})


def test_a_validation_set_without_flow_is_refused_at_the_start(clips):
    opt = train_opt(clips)
    val = {'name': 'v', 'type': 'STVSRTestDataset', 'phase': 'val', 'key': 'val', 'scale': 2, 'color': 'yuv',
           'dataroot_gt': str(clips)}
    model, train_set = build_model(opt), build_dataset(opt['datasets']['train'])
    with pytest.raises(ValueError, match=r'datasets.val: FISRNet needs the flow between LR frames: set flow_opt'):
        model.check_data(train_set, [build_dataset(val)])
    model.check_data(train_set, [build_dataset({**val, 'flow_opt': {'type': 'DISFlow'}})])


def test_options_of_the_loss_are_checked(clips, tmp_path):
    opt = load_options(str(ROOT / 'options' / 'train_fisr_small.yml'))
    opt['train']['temporal_opt'] = {'type': 'L1Loss'}
    process = run('basicsr/train.py', '-opt', write(tmp_path / 'a.yml', yaml.safe_load(yaml.safe_dump(opt))))
    assert process.returncode == 2
    assert 'train.temporal_opt.type must be MultiScaleTemporalLoss, but is L1Loss' in process.stderr
