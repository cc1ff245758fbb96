"""The training and validation loop, and MBNet's recipe in it."""
import json
import math
import re
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from basicsr.data import build_dataset
from basicsr.metrics import calculate_psnr
from basicsr.models import build_model
from basicsr.utils.color_util import bgr2ycbcr
from basicsr.utils.matlab_functions import imresize
from conftest import ROOT, TINY_NET, score_of
from skimage.metrics import peak_signal_noise_ratio

from basicsr_stvsr.archs.mbnet_arch import MBNET_PRESETS, MBNet
from basicsr_stvsr.config.loading import complete_paths, load_options
from basicsr_stvsr.data.degradations import bicubic
from basicsr_stvsr.evaluation.clip_scores import FramePair, average_groups, needs_reference
from basicsr_stvsr.io.color_spaces import convert_frame
from basicsr_stvsr.metrics.flicker import flicker
from basicsr_stvsr.metrics.temporal_metric import calculate_tof


def make_opt(root: Path, clips: Path, is_train: bool = True, **changes) -> dict:
    opt = {
        'name': 'tiny', 'model_type': 'MBNetModel', 'scale': 4, 'num_gpu': 0, 'manual_seed': 0, 'dist': False,
        'rank': 0, 'world_size': 1, 'is_train': is_train, 'path': {}, 'network_g': TINY_NET,
        'datasets': {'train': {'name': 'clips', 'type': 'STVSRClipDataset', 'dataroot_gt': str(clips), 'gt_size': 64,
                               'scale': 4, 'phase': 'train'}},
        'train': {
            'optim_g': {'type': 'Adam', 'lr': 1e-3},
            'scheduler': {'type': 'MultiStepLR', 'milestones': [100], 'gamma': 0.5}, 'total_iter': 100,
            'pixel_opt': {'type': 'L1Loss'},
            'hr_flow_opt': {'type': 'MiddleFlowLoss', 'loss_weight': 0.01},
            'lq_flow_opt': {'type': 'MultiScaleWarpLoss', 'loss_weight': 0.005},
        },
        'val': {'metrics': {'psnr': {'type': 'calculate_psnr', 'crop_border': 0}}},
    }
    opt.update(changes)
    complete_paths(opt, str(root))
    (root / ('experiments' if is_train else 'results') / 'tiny' / 'models').mkdir(parents=True, exist_ok=True)
    if is_train:
        (root / 'experiments' / 'tiny' / 'training_states').mkdir(exist_ok=True)
    return opt


def batch_of(opt: dict, *indices: int) -> dict:
    dataset = build_dataset(opt['datasets']['train'])
    return torch.utils.data.default_collate([dataset[i] for i in indices])


# ---------------------------------------------------------------- training

def test_options_are_not_changed(tmp_path, clips):
    opt = make_opt(tmp_path, clips)
    model = build_model(opt)
    assert model.opt['train']['optim_g']['type'] == 'Adam'
    assert model.opt['train']['scheduler']['type'] == 'MultiStepLR'


@pytest.mark.numeric
def test_every_term_is_logged_and_the_total_is_their_sum(tmp_path, clips):
    opt = make_opt(tmp_path, clips)
    model = build_model(opt)
    model.feed_data(batch_of(opt, 0))
    losses = model.compute_losses()
    model.optimize_parameters(1)
    log = model.get_current_log()
    assert list(log) == ['l_sr', 'l_flow_lr', 'l_flow_hr', 'grad_norm']
    assert all(log[name] == pytest.approx(float(losses[name]), rel=1e-4) for name in losses)
    # L^SR is a mean over pixels and a sum over the three frames
    output = build_model(opt).net_g.train()
    output.load_state_dict(model.net_g.state_dict())
    by_hand = sum((output(model.lq)[:, i] - model.gt[:, i]).abs().mean() for i in range(3))
    assert float(model.compute_losses()['l_sr']) == pytest.approx(float(by_hand), rel=1e-4)


def test_it_learns_one_clip(tmp_path, clips):
    torch.set_num_threads(1)
    opt = make_opt(tmp_path, clips, manual_seed=0)
    opt['train']['optim_g']['lr'] = 3e-3
    model = build_model(opt)
    batch = batch_of(opt, 0)
    losses = []
    for i in range(1, 41):
        model.feed_data(batch)
        model.optimize_parameters(i)
        losses.append(model.get_current_log()['l_sr'])
    assert losses[-1] < 0.7 * losses[0]


@pytest.mark.parametrize('num_frames', [3, 7, 8, 14])
@pytest.mark.parametrize('full_rate', [True, False])
def test_feed_data_cuts_clips_into_windows(tmp_path, clips, num_frames, full_rate):
    """As BasicSR's recurrent data sets give them: all LR frames, of which the model drops every second one."""
    model = build_model(make_opt(tmp_path, clips))
    gt = torch.arange(float(num_frames)).view(1, -1, 1, 1, 1).expand(2, -1, 3, 16, 16)
    lq = torch.arange(float(num_frames)).view(1, -1, 1, 1, 1).expand(2, -1, 3, 4, 4)
    model.feed_data({'lq': lq if full_rate else lq[:, ::2], 'gt': gt})
    windows = [[2 * i, 2 * i + 1, 2 * i + 2] for i in range((num_frames - 1) // 2)]
    assert model.gt[:, :, 0, 0, 0].tolist() == windows * 2
    assert model.lq[:, :, 0, 0, 0].tolist() == [[a, b] for a, _, b in windows] * 2


def test_feed_data_refuses_what_does_not_fit(tmp_path, clips):
    model = build_model(make_opt(tmp_path, clips))
    with pytest.raises(ValueError, match='makes 5 frames from 3 LR frames, but gt has 7'):
        model.feed_data({'lq': torch.zeros(1, 3, 3, 4, 4), 'gt': torch.zeros(1, 7, 3, 16, 16)})
    with pytest.raises(ValueError, match='must be clips'):
        model.feed_data({'lq': torch.zeros(1, 3, 3, 4, 4), 'gt': torch.zeros(1, 3, 16, 16)})


@pytest.mark.numeric
def test_iter_weights(tmp_path, clips):
    opt = make_opt(tmp_path, clips)
    opt['train']['iter_weights'] = [0.4, 1.0]
    model = build_model(opt)
    model.feed_data(batch_of(opt, 0))
    with torch.no_grad():
        _, aux = model.net_g(model.lq, return_aux=True)
    first, last = (3 * (frames - model.gt).abs().mean() for frames in aux.rounds)
    assert float(model.compute_losses()['l_sr']) == pytest.approx(float(0.4 * first + last), rel=1e-5)
    opt['train']['iter_weights'] = [1.0]
    with pytest.raises(ValueError, match='train.iter_weights must hold 2 numbers'):
        build_model(opt)


@pytest.mark.parametrize('images, reaches_vfi_net', [('sr_detach', False), ('sr', True), ('gt', False)])
def test_flow_loss_images(tmp_path, clips, images, reaches_vfi_net):
    opt = make_opt(tmp_path, clips)
    opt['train']['flow_loss_images'] = images
    model = build_model(opt)
    model.feed_data(batch_of(opt, 0))
    model.compute_losses()['l_flow_hr'].backward()
    grad = model.net_g.vfi_net.head[-1].weight.grad
    assert (grad is not None and bool(grad.abs().sum() > 0)) == reaches_vfi_net
    assert model.net_g.refine_net.tail[-1].bias.grad.abs().sum() > 0


def test_a_wrong_choice_names_the_option(tmp_path, clips):
    opt = make_opt(tmp_path, clips)
    opt['train']['flow_loss_images'] = 'hr'
    with pytest.raises(ValueError, match="train.flow_loss_images must be one of sr_detach, sr, gt, but is 'hr'"):
        build_model(opt)


@pytest.mark.parametrize(('ema_warmup', 'decays'), [(False, (0.8, 0.8, 0.8)), (True, (2 / 11, 3 / 12, 0.8))])
def test_moving_average(tmp_path, clips, ema_warmup, decays):
    """Steps 1, 2 and 100, at which the average has warmed up."""
    opt = make_opt(tmp_path, clips)
    opt['train'].update(ema_decay=0.8, ema_warmup=ema_warmup)
    model = build_model(opt)
    model.feed_data(batch_of(opt, 0))
    expected = model.net_g.vfi_net.head[0].weight.detach().clone()
    for step, decay in zip((1, 2, 100), decays, strict=True):
        model.optimize_parameters(step)
        expected = decay * expected + (1 - decay) * model.net_g.vfi_net.head[0].weight.detach()
        torch.testing.assert_close(model.net_g_ema.vfi_net.head[0].weight, expected, rtol=0, atol=1e-7)


# ---------------------------------------------------------------- L^FLOW

def test_supervision_is_off_and_says_why(tmp_path, clips, log):
    opt = make_opt(tmp_path, clips)
    opt['train']['flow_sup_opt'] = {'type': 'FlowSupervisionLoss', 'loss_weight': 0.01}
    model = build_model(opt)
    assert 'L^FLOW (train.flow_sup_opt) is off' in log.text and 'raft_weights' in log.text
    model.feed_data(batch_of(opt, 0))
    assert 'l_flow_sup' not in model.compute_losses()


def flow_along_x(x: float) -> np.ndarray:
    field = np.zeros((64, 72, 2), np.float32)
    field[..., 0] = x
    return field


def write_flow_folder(path: Path) -> None:
    (path / 'first').mkdir(parents=True)
    for i in range(1, 8):
        # Frame i + 1 shows at x what frame i shows at x + 2.
        for neighbour, x in (('prev', 2), ('next', -2)):
            np.save(path / 'first' / f'im{i}_{neighbour}.npy', flow_along_x(x))


def write_flow_lmdb(path: Path) -> None:
    from basicsr_stvsr.flow.flow_lmdb import FlowLmdbWriter
    with FlowLmdbWriter(path, {'of': 'a test'}) as writer:
        for i in range(1, 8):
            for neighbour, x in ((i - 1, 2), (i + 1, -2)):
                writer.put(f'first/im{i}_to_im{neighbour}', flow_along_x(x))


@pytest.mark.numeric
@pytest.mark.parametrize('reverse', [False, True])
@pytest.mark.parametrize('flip', [False, True])
@pytest.mark.parametrize('write', [write_flow_folder, write_flow_lmdb])
def test_precomputed_flows_agree_with_the_frames(tmp_path, clips, reverse, flip, write, monkeypatch):
    """The texture moves by two pixels a frame, so the flows are known; crops, flips and reversal keep them true."""
    write(tmp_path / 'flows.lmdb')
    opt = make_opt(tmp_path, clips)
    opt['datasets']['train'].update(
        dataroot_flow=str(tmp_path / 'flows.lmdb'), clips='first', gt_size=48, num_frame=5, random_reverse=reverse,
        use_hflip=flip, use_rot=flip)
    opt['train']['flow_sup_opt'] = {'type': 'FlowSupervisionLoss', 'loss_weight': 0.01}
    monkeypatch.setattr('random.random', lambda: 0.25)  # every coin falls on 'yes'
    model = build_model(opt)
    model.feed_data(batch_of(opt, 0, 2))
    flow_ta, flow_tb = model.target_flows()
    assert flow_ta.shape == (4, 2, 48, 48)  # two clips of two windows each
    from basicsr_stvsr.archs.arch_util import warp
    a, middle, b = model.gt.unbind(1)
    inner = (..., slice(4, -4), slice(4, -4))
    for frame, flow in ((a, flow_ta), (b, flow_tb)):
        assert (warp(frame, flow)[inner] - middle[inner]).abs().mean() < 0.005 < 0.02 < (frame - middle).abs().mean()
    assert 'l_flow_sup' in model.compute_losses()


def test_flow_net_alone_learns_the_flow_only(tmp_path, clips):
    write_flow_folder(tmp_path / 'flows')
    opt = make_opt(tmp_path, clips)
    opt['datasets']['train'].update(dataroot_flow=str(tmp_path / 'flows'), clips='first')
    opt['train'].update(flow_only=True, flow_loss_images='gt',
                        flow_sup_opt={'type': 'FlowSupervisionLoss', 'loss_weight': 1.0})
    model = build_model(opt)
    before = {name: value.clone() for name, value in model.net_g.state_dict().items()}
    model.feed_data(batch_of(opt, 0))
    model.optimize_parameters(1)
    changed = {name.partition('.')[0] for name, value in model.net_g.state_dict().items()
               if not torch.equal(value, before[name])}
    assert changed == {'flow_net'}
    assert 'l_sr' not in model.losses and 'l_flow_sup' in model.losses
    # Of untrained, nearly still flows the error is the motion: half an LR pixel in x, none in y, of two flows.
    assert float(model.losses['l_flow_sup']) == pytest.approx(0.5, abs=0.12)


def test_vsr_net_alone_learns_the_given_frames(tmp_path, clips):
    opt = make_opt(tmp_path, clips, network_g={**TINY_NET, 'num_iters': 1, 'feedback': 'none'})
    opt['train'].update(vsr_only=True, lq_flow_opt=None, hr_flow_opt=None)
    model = build_model(opt)
    before = {name: value.clone() for name, value in model.net_g.state_dict().items()}
    model.feed_data(batch_of(opt, 0))
    with torch.no_grad():
        of_whole = model.net_g(model.lq)[:, ::2]
        of_part = model.net_g(model.lq, vsr_only=True)
    assert torch.equal(of_part, of_whole)  # one round: the frames that the whole network gives out
    model.optimize_parameters(1)
    changed = {name.partition('.')[0] for name, value in model.net_g.state_dict().items()
               if not torch.equal(value, before[name])}
    assert changed == {'vsr_net'}
    assert set(model.losses) == {'l_sr'}
    assert float(model.losses['l_sr']) == pytest.approx(2 * float((of_part - model.gt[:, ::2]).abs().mean()), rel=1e-5)


def test_all_but_the_vsr_net_learn_the_frames_between(tmp_path, clips):
    opt = make_opt(tmp_path, clips)
    opt['train']['vfi_only'] = True
    model = build_model(opt)
    before = {name: value.clone() for name, value in model.net_g.state_dict().items()}
    model.feed_data(batch_of(opt, 0))
    with torch.no_grad():
        between = model.net_g(model.lq)[:, 1]
    model.optimize_parameters(1)
    changed = {name.partition('.')[0] for name, value in model.net_g.state_dict().items()
               if not torch.equal(value, before[name])}
    assert changed == {'flow_net', 'refine_net', 'vfi_net'}
    assert float(model.losses['l_sr']) == pytest.approx(float((between - model.gt[:, 1]).abs().mean()), rel=1e-5)


@pytest.mark.parametrize(('changes', 'message'), [
    ({'flow_only': True}, 'train.vsr_only and flow_only are two stages'),
    ({'vfi_only': True}, 'train.vfi_only and vsr_only are two stages'),
    ({}, 'train.vsr_only trains no flow: remove lq_flow_opt'),
])
def test_vsr_only_is_a_stage_of_its_own(tmp_path, clips, changes, message):
    opt = make_opt(tmp_path, clips)
    opt['train'].update(vsr_only=True, flow_loss_images='gt', **changes)
    with pytest.raises(ValueError, match=message):
        build_model(opt)


@pytest.mark.parametrize(('changes', 'message'), [
    ({'lq_flow_opt': None, 'hr_flow_opt': None, 'flow_sup_opt': None}, 'train.flow_only needs a loss on the flow'),
    ({'flow_loss_images': 'sr'}, 'train.flow_loss_images must be gt with flow_only'),
])
def test_flow_only_needs_a_loss_that_it_can_compute(tmp_path, clips, changes, message):
    opt = make_opt(tmp_path, clips)
    opt['train'].update(flow_only=True, **changes)
    with pytest.raises(ValueError, match=message):
        build_model(opt)


def test_damaged_flows_are_named(tmp_path, clips):
    from basicsr_stvsr.data.middle_flows import MiddleFlows
    from basicsr_stvsr.io.frames import FrameReadError
    (tmp_path / 'c').mkdir()
    np.save(tmp_path / 'c' / 'im1_prev.npy', np.zeros((4, 5, 2), np.float32))
    (tmp_path / 'c' / 'im2_prev.flo').write_bytes(b'PIEH')
    flows = MiddleFlows(tmp_path)
    assert flows.read('c', 'im1', 'im0', 'prev', (4, 5)).shape == (4, 5, 2)
    for name, size, message in (('im1', (4, 6), r'expected \(4, 6, 2\)'), ('im2', (4, 5), 'cannot be read as a flow'),
                                ('im3', (4, 5), "no flow for frame 'im3' of clip 'c'")):
        with pytest.raises(FrameReadError, match=message):
            flows.read('c', name, 'im0', 'prev', size)


def test_raft_teacher_looks_in_the_right_direction(tmp_path, clips):
    """A teacher that measures the shift: 'sampling' flows warp both ends onto the middle, 'printed' ones do not."""
    opt = make_opt(tmp_path, clips)
    opt['train']['flow_sup_opt'] = {'type': 'FlowSupervisionLoss', 'loss_weight': 0.01}
    model = build_model(opt)
    model.feed_data(batch_of(opt, 0))

    def measure(first, second):  # the flow from first to second, by exhaustive search
        errors = {}
        for x in range(-4, 5):
            shifted = torch.roll(second, -x, dims=3)
            errors[x] = float((shifted - first)[..., 8:-8].abs().mean())
        flow = torch.zeros_like(first[:, :2])
        flow[:, 0] = min(errors, key=errors.get)
        return flow

    model.teacher = measure
    assert [float(flow[0, 0, 0, 0]) for flow in model.target_flows()] == [2, -2]
    model.raft_direction = 'printed'
    assert [float(flow[0, 0, 0, 0]) for flow in model.target_flows()] == [-2, 2]


@pytest.mark.numeric
def test_raft_weights_from_a_local_file(tmp_path):
    from torchvision.models.optical_flow import raft_large

    from basicsr_stvsr.archs.flow_teacher import RAFTTeacher
    net = raft_large(weights=None).eval()
    torch.save(net.state_dict(), tmp_path / 'raft.pth')
    teacher = RAFTTeacher(tmp_path / 'raft.pth').train()
    a, b = torch.rand(2, 1, 3, 128, 128)
    with torch.no_grad():
        torch.testing.assert_close(teacher(a, b), net(2 * a - 1, 2 * b - 1)[-1])
    assert not any(p.requires_grad for p in teacher.parameters())
    torch.save({'weight': torch.zeros(1)}, tmp_path / 'other.pth')
    with pytest.raises(ValueError, match="other.pth does not hold the weights of torchvision's raft_large"):
        RAFTTeacher(tmp_path / 'other.pth')
    with pytest.raises(FileNotFoundError, match='missing.pth does not exist; expected the weights'):
        RAFTTeacher(tmp_path / 'missing.pth')


# ---------------------------------------------------------------- validation

def validate(root, clips, **changes):
    dataset_opt = {'name': 'set', 'type': 'STVSRTestDataset', 'dataroot_gt': str(clips), 'scale': 4, 'phase': 'test'}
    dataset_opt.update(changes.pop('dataset', {}))
    opt = make_opt(root, clips, is_train=False, **changes)
    model = build_model(opt)
    loader = torch.utils.data.DataLoader(build_dataset(dataset_opt))
    model.validation(loader, 'tiny', None, save_img=opt['val'].get('save_img', False))
    path = root / 'results' / 'tiny' / 'set.json'
    return model, json.loads(path.read_text()) if path.is_file() else None


BASELINE = {'model_type': 'STVSRModel', 'network_g': {'type': 'BicubicAverage', 'scale': 4}}


@pytest.mark.numeric
def test_scores_equal_those_of_the_saved_images(tmp_path, clips):
    """PSNR from the PNGs on disk, by scikit-image, group by group."""
    metrics = {'psnr': {'type': 'calculate_psnr', 'crop_border': 0}}
    _, result = validate(tmp_path, clips, **BASELINE, val={'metrics': metrics, 'save_img': True})
    for clip in ('first', 'second'):
        folder = tmp_path / 'results' / 'tiny' / 'visualization' / 'set' / clip
        scores = []
        for i in range(7):
            image = cv2.imread(str(folder / f'im{i + 1}_tiny.png'))
            scores.append(peak_signal_noise_ratio(cv2.imread(str(clips / clip / f'im{i + 1}.png')), image))
        groups = result['clips'][clip]['psnr']
        assert groups['vsr'] == pytest.approx(np.mean(scores[::2]))
        assert groups['vfi'] == pytest.approx(np.mean(scores[1::2]))
        assert groups['all'] == pytest.approx((4 * groups['vsr'] + 3 * groups['vfi']) / 7)  # per septuplet
    both = [result['clips'][clip]['psnr']['all'] for clip in ('first', 'second')]
    assert result['average']['psnr']['all'] == pytest.approx(np.mean(both))


@pytest.mark.numeric
def test_frames_of_luma_are_saved_in_colours(tmp_path, clips):
    """Those of the LR frames, enlarged by bicubic, as is the luma of this network; scored is luma alone."""
    net = {'type': 'BicubicAverage', 'scale': 4, 'temporal_scale': 1}
    metrics = {'psnr': {'type': 'calculate_psnr', 'crop_border': 0, 'test_y_channel': True}}
    _, result = validate(
        tmp_path, clips, model_type='STVSRModel', network_g=net, val={'metrics': metrics, 'save_img': True},
        dataset={'color': 'y', 'temporal_scale': 1})
    for i in (0, 6):
        true = cv2.imread(str(clips / 'first' / f'im{i + 1}.png'))
        saved = cv2.imread(str(
            tmp_path / 'results' / 'tiny' / 'visualization' / 'set' / 'first' / f'im{i + 1}_tiny.png'))
        lq = bicubic(4)(convert_frame(true, 'rgb', 'yuv'))
        enlarged = imresize(lq.astype(np.float32) / 255, 4) * 255
        expected = convert_frame(enlarged.round().clip(0, 255).astype(np.uint8), 'yuv', 'rgb')
        # The planes that were rounded here were not in between; blue takes twice the error of U.
        assert np.abs(saved.astype(int) - expected).max() <= 3
        luma = [bgr2ycbcr(image, y_only=True) for image in (saved, true)]
        score = dict(result['frames']['first']['psnr'])[i]
        assert peak_signal_noise_ratio(*luma, data_range=255) == pytest.approx(score, abs=0.1)


@pytest.mark.numeric
def test_a_metric_that_the_state_did_not_know(tmp_path, clips):
    """A training goes on with one metric more, for which less is better."""
    metrics = {'psnr': {'type': 'calculate_psnr', 'crop_border': 0},
               'error': {'type': 'calculate_region_error', 'region': 'edge', 'better': 'lower'}}
    model = build_model(make_opt(tmp_path, clips, val={'metrics': metrics}))
    model.best_metric_results = {'set': {'psnr': {'better': 'higher', 'val': 30.0, 'iter': 5}}}
    best = [[model.best_so_far('set', name, score, step)['iter'] for name, score in scores.items()]
            for step, scores in enumerate((
                {'psnr': 29.0, 'error': 9.0}, {'psnr': 31.0, 'error': 8.0}, {'psnr': 31.0, 'error': 8.5},
                {'psnr': math.nan, 'error': math.nan}), start=6)]
    assert best == [[5, 6], [7, 7], [8, 7], [8, 7]]


@pytest.mark.numeric
def test_counting_by_triplets(tmp_path, clips):
    """With `overlap: all` the average is (2 VSR + VFI) / 3, as in Table 5: frames 3 and 5 count twice."""
    metrics = {'psnr': {'type': 'calculate_psnr', 'crop_border': 0}}
    net = {'network_g': TINY_NET}
    _, result = validate(tmp_path, clips, **net, val={'metrics': metrics, 'overlap': 'all'})
    groups = result['average']['psnr']
    assert groups['all'] == pytest.approx((2 * groups['vsr'] + groups['vfi']) / 3)
    assert [number for number, _ in result['frames']['first']['psnr']] == [0, 1, 2, 2, 3, 4, 4, 5, 6]


def test_averages_by_hand():
    frames = [(0, 10.0), (1, 4.0), (2, 20.0), (3, 6.0), (4, 30.0)]
    assert average_groups(frames, 2) == {'vsr': 20.0, 'vfi': 5.0, 'all': 14.0}
    assert average_groups(frames, 1) == {'vsr': 14.0, 'all': 14.0}


@pytest.mark.numeric
def test_scores_that_are_not_finite_are_left_out(tmp_path, clips, log):
    """Black frames come out exactly, with an infinite PSNR: the mean is that of the other clip, and JSON stays JSON."""
    import shutil
    mixed = tmp_path / 'mixed'
    shutil.copytree(clips / 'first', mixed / 'first')
    (mixed / 'black').mkdir()
    for i in range(3):
        cv2.imwrite(str(mixed / 'black' / f'{i}.png'), np.zeros((64, 72, 3), np.uint8))
    _, result = validate(tmp_path, mixed, **BASELINE, val={
        'metrics': {'psnr': {'type': 'calculate_psnr', 'crop_border': 0}}})
    assert result['clips']['black']['psnr']['all'] is None
    assert result['average']['psnr']['all'] == pytest.approx(result['clips']['first']['psnr']['all'])


@pytest.mark.numeric
def test_niqe_of_flat_and_of_small_frames_is_left_out():
    opt = {'type': 'calculate_niqe', 'crop_border': 0}
    assert np.isnan(score_of(FramePair(torch.zeros(3, 192, 320), None, 'rgb'), opt))
    noise = torch.rand(3, 192, 320, generator=torch.Generator().manual_seed(0))
    assert score_of(FramePair(noise, None, 'rgb'), opt) > 0
    assert np.isnan(score_of(FramePair(noise[:, :95], None, 'rgb'), opt))  # smaller than a block
    assert np.isnan(score_of(FramePair(noise[:, :103], None, 'rgb'), opt | {'crop_border': 4}))
    with pytest.raises(ValueError, match='Image shapes are different'):  # other errors are errors
        score_of(FramePair(torch.zeros(3, 8, 8), torch.zeros(3, 8, 9), 'rgb'),
                 {'type': 'calculate_psnr', 'crop_border': 0})


@pytest.mark.numeric
def test_metrics_of_clips_in_a_validation(tmp_path, clips):
    """tOF of the saved images, and a score for all frames but the first; frames out of order are refused."""
    metrics = {'tof': {'type': 'calculate_tof', 'better': 'lower'},
               'flicker': {'type': 'calculate_temporal_difference', 'better': 'lower'}}
    _, result = validate(tmp_path, clips, **BASELINE, val={'metrics': metrics, 'save_img': True})
    folder = tmp_path / 'results' / 'tiny' / 'visualization' / 'set' / 'first'
    made = [cv2.imread(str(folder / f'im{i + 1}_tiny.png')) for i in range(7)]
    true = [cv2.imread(str(clips / 'first' / f'im{i + 1}.png')) for i in range(7)]
    assert result['frames']['first']['tof'] == [
        [i, pytest.approx(calculate_tof(made[i], true[i], made[i - 1], true[i - 1]))] for i in range(1, 7)]
    assert result['clips']['first']['flicker']['all'] == pytest.approx(flicker(np.stack(made), np.stack(true)))
    with pytest.raises(ValueError, match='val.metrics.tof needs every frame once and in order, but val.overlap: all'):
        validate(tmp_path, clips, **BASELINE, val={'metrics': metrics, 'overlap': 'all'})


@pytest.mark.numeric
def test_average_over_frames_weighs_long_clips_more(tmp_path, clips):
    import shutil
    uneven = tmp_path / 'uneven'
    shutil.copytree(clips, uneven)
    for i in (4, 5, 6, 7):
        (uneven / 'second' / f'im{i}.png').unlink()
    by = {}
    for rule in ('clips', 'frames'):
        _, result = validate(tmp_path, uneven, **BASELINE, val={
            'metrics': {'psnr': {'type': 'calculate_psnr', 'crop_border': 0}}, 'average': rule})
        by[rule] = result['average']['psnr']['all']
    first, second = (result['clips'][clip]['psnr']['all'] for clip in ('first', 'second'))
    assert by['clips'] == pytest.approx((first + second) / 2)
    assert by['frames'] == pytest.approx((7 * first + 3 * second) / 10)


@pytest.mark.numeric
def test_no_ground_truth(tmp_path, clips):
    """Pictures are written, and the metrics that need no ground truth are computed."""
    metrics = {name: {'type': f'calculate_{name}', 'crop_border': 0} for name in ('psnr', 'niqe')}
    _, result = validate(
        tmp_path, clips, **BASELINE, val={'metrics': metrics, 'save_img': True},
        dataset={'dataroot_gt': None, 'dataroot_lq': str(clips), 'clips': 'first', 'num_frame': 3})
    assert set(result['average']) == {'niqe'}
    written = sorted((tmp_path / 'results' / 'tiny' / 'visualization' / 'set' / 'first').iterdir())
    assert [path.name for path in written] == [f'0000000{i}_tiny.png' for i in range(3)]
    assert cv2.imread(str(written[0])).shape == (4 * 64, 4 * 72, 3)


@pytest.mark.numeric
def test_which_metrics_need_a_reference():
    assert needs_reference('calculate_psnr') and needs_reference('calculate_ssim')
    assert not needs_reference('calculate_niqe')


def test_several_validation_sets_keep_their_own_best(tmp_path, clips, log):
    """BasicSR's video models keep the results of the first data set only."""
    opt = make_opt(tmp_path, clips)
    model = build_model(opt)
    for name, clip in (('one', 'first'), ('two', 'second')):
        dataset = build_dataset({'name': name, 'type': 'STVSRTestDataset', 'dataroot_gt': str(clips), 'clips': clip,
                                 'scale': 4, 'phase': 'val'})
        model.validation(torch.utils.data.DataLoader(dataset), 10, None)
    assert set(model.best_metric_results) == {'one', 'two'}
    assert 'Validation one: 1 clips' in log.text and 'Validation two: 1 clips' in log.text
    assert model.net_g.training


@pytest.mark.numeric
def test_baseline_is_bicubic_and_mean(tmp_path, clips):
    from basicsr.utils.matlab_functions import imresize

    from basicsr_stvsr.archs.baseline_arch import BicubicAverage
    lq = torch.rand(1, 2, 3, 8, 8)
    a, middle, b = BicubicAverage()(lq)[0]
    expected = [np.round(imresize(frame.permute(1, 2, 0).numpy(), 4).clip(0, 1) * 255) / 255 for frame in lq[0]]
    for frame, reference in ((a, expected[0]), (b, expected[1]), (middle, (expected[0] + expected[1]) / 2)):
        np.testing.assert_allclose(frame.permute(1, 2, 0).numpy(), reference, atol=1e-6)


@pytest.mark.numeric
@pytest.mark.parametrize('clip, vsr, vfi', [('vid4', 22.35, 21.68), ('middlebury_other', 27.24, 25.89)])
def test_baseline_on_real_clips(tmp_path, real_data, clip, vsr, vfi):
    """The figures that MATLAB's bicubic gives on the standard sets, RGB, 8 bits, no border cropped."""
    metrics = {'psnr': {'type': 'calculate_psnr', 'crop_border': 0}}
    _, result = validate(tmp_path, real_data / 'eval' / clip, **BASELINE, val={'metrics': metrics})
    assert result['average']['psnr']['vsr'] == pytest.approx(vsr, abs=0.015)
    assert result['average']['psnr']['vfi'] == pytest.approx(vfi, abs=0.015)


@pytest.mark.numeric
def test_psnr_is_basicsrs(clips):
    """The y channel of `val.metrics` is BasicSR's: studio swing, so black to white is 219 levels."""
    black, white = np.zeros((8, 8, 3), np.uint8), np.full((8, 8, 3), 255, np.uint8)
    assert calculate_psnr(black, white, 0, test_y_channel=True) == pytest.approx(20 * np.log10(255 / 219), abs=1e-3)


# ---------------------------------------------------------------- option files

OPTION_FILES = sorted((ROOT / 'options').rglob('*.yml'))
MBNET_TRAIN_FILES = [path for path in OPTION_FILES for opt in [load_options(str(path))]
                     if 'train' in opt and opt['model_type'] == 'MBNetModel']


def test_every_row_of_the_tables_has_a_file():
    names = {path.stem for path in (ROOT / 'options' / 'ablations').glob('mbnet_*.yml')}
    for table, rows in ((1, 8), (2, 6), (4, 3), (5, 5)):
        assert len([name for name in names if name.startswith(f'mbnet_table{table}_')]) == rows


@pytest.mark.parametrize('path', OPTION_FILES, ids=lambda path: path.stem)
def test_option_files_open_with_what_they_are(path):
    assert path.read_text().startswith('# ')


@pytest.mark.parametrize('path', sorted((ROOT / 'options' / 'ablations').glob('*mbnet*')), ids=lambda path: path.stem)
def test_ablations_open_with_row_and_number(path):
    opening = path.read_text().split('base:')[0]
    assert 'Table' in opening and 'ublished' in opening or path.stem == 'mbnet_baseline'


@pytest.mark.parametrize('path', [
    pytest.param(path, marks=pytest.mark.slow) if re.match('mbnet_table[25]', path.stem) else path
    for path in MBNET_TRAIN_FILES], ids=lambda path: path.stem)
def test_every_training_file_builds_and_takes_a_step(path, tmp_path, clips):
    opt = load_options(str(path))
    train_set = opt['datasets']['train']
    train_set.update(dataroot_gt=str(clips), dataroot_lq=None, meta_info_file=None, gt_size=64, scale=4, phase='train',
                     cache=False)
    if train_set.pop('dataroot_flow', None):
        opt['train']['flow_sup_opt'] = None
    opt.update(num_gpu=0, dist=False, rank=0, world_size=1, is_train=True)
    opt['path']['pretrain_network_g'] = None
    complete_paths(opt, str(tmp_path))
    model = build_model(opt)
    model.feed_data(batch_of(opt, 0))
    before = {name: p.detach().clone() for name, p in model.net_g.named_parameters()}
    model.update_learning_rate(1)
    model.optimize_parameters(1)
    log = model.get_current_log()
    expected = {'l_sr'} if not opt['train'].get('flow_only') else set()
    expected |= {log_name for name, log_name in (('hr_flow_opt', 'l_flow_hr'), ('lq_flow_opt', 'l_flow_lr'))
                 if opt['train'].get(name)}
    assert set(log) == expected | {'grad_norm'} and all(np.isfinite(value) for value in log.values())
    assert any(not torch.equal(p, before[name]) for name, p in model.net_g.named_parameters())


@pytest.mark.parametrize('file, preset', [
    ('options/train_mbnet.yml', 'headline'), ('options/test_mbnet.yml', 'headline'),
    ('options/ablations/mbnet_baseline.yml', 'baseline'), ('options/train_mbnet_small.yml', 'small'),
    ('options/test_mbnet_small.yml', 'small'), ('options/demo/train_mbnet_small.yml', 'small'),
    ('options/demo/test_mbnet_small.yml', 'small')])
def test_option_files_spell_out_the_presets(file, preset):
    arguments = load_options(str(ROOT / file))['network_g']
    assert arguments.pop('type') == 'MBNet'
    with torch.device('meta'):
        from_file, from_preset = MBNet(**arguments), MBNet(**MBNET_PRESETS[preset])
    assert str(from_file) == str(from_preset)
    assert vars_of(from_file) == vars_of(from_preset)


def vars_of(net: torch.nn.Module) -> dict:
    """The plain settings of a network and of its parts, which its text does not show."""
    return {name: {k: v for k, v in vars(part).items() if isinstance(v, int | float | str | bool)}
            for name, part in net.named_modules()}
