"""HOFFR's recipe by hand, its options, and clips restored as streams."""
import copy
import weakref
from types import SimpleNamespace
from typing import NamedTuple

import pytest
import torch
import yaml
from basicsr.archs import build_network
from basicsr.data import build_dataset
from basicsr.models import build_model
from conftest import ROOT, write_moving_clips
from reference_util import in_float64
from run_util import run, succeed
from torch import nn
from torch.nn import functional as F

from basicsr_stvsr.archs.arch_util import warp
from basicsr_stvsr.archs.hoffr_arch import HRFlowNet
from basicsr_stvsr.archs.spec import NetSpec
from basicsr_stvsr.config import check_options
from basicsr_stvsr.config.loading import complete_datasets, complete_paths, load_options
from basicsr_stvsr.inference.tiles import Tiling
from basicsr_stvsr.inference.windows import StreamFrame, restore_clip, restore_stream
from basicsr_stvsr.losses.flow_loss import PyramidWarpLoss, total_variation
from basicsr_stvsr.models.batch import NonFiniteError
from basicsr_stvsr.models.hoffr_model import HOFFRModel

OPTIONS = ROOT / 'options'
LR = 0.1
TRAIN_FILES = sorted(path for path in OPTIONS.rglob('*hoffr*.yml') if 'train' in load_options(str(path)))
COUNTS = {'hoffr_concat': 2_651_186, 'hoffr_lr_flow': 3_316_970, 'hoffr_no_db': 2_026_875}  # see test_hoffr.py
TINY = {'num_feat': 8, 'num_block': 1, 'num_rcab': 1, 'reduction': 1, 'num_flow_feat': 4}


def model_opt(network: dict | None = None, **train) -> dict:
    """Plain gradient descent on all terms, unless the arguments say otherwise."""
    train = {
        'optim_g': {'type': 'SGD', 'lr': LR}, 'total_iter': 10,
        'scheduler': {'type': 'MultiStepLR', 'milestones': [100], 'gamma': 0.5},
        'pixel_opt': {'type': 'MSELoss'}, 'deblur_opt': {'type': 'MSELoss', 'loss_weight': 0.5},
        'flow_opt': {'type': 'PyramidWarpLoss', 'loss_weight': 0.01}, **train}
    return {
        'name': 'tiny', 'model_type': 'HOFFRModel', 'scale': 4, 'num_gpu': 0, 'manual_seed': 0, 'dist': False,
        'rank': 0, 'world_size': 1, 'is_train': True, 'path': {}, 'datasets': {'train': {}},
        'network_g': {'type': 'HOFFR', **TINY, **(network or {})}, 'val': {},
        'train': {name: value for name, value in train.items() if value is not None}}


def make_model(network: dict | None = None, **train) -> HOFFRModel:
    torch.manual_seed(0)
    return build_model(copy.deepcopy(model_opt(network, **train)))


@pytest.fixture
def batch() -> dict:
    return {'lq': torch.rand(2, 3, 3, 8, 12), 'lq_sharp': torch.rand(2, 3, 3, 8, 12),
            'gt': torch.rand(2, 3, 3, 32, 48), 'key': ['a', 'b']}


def take_step(model: HOFFRModel, batch: dict) -> None:
    model.feed_data(batch)
    model.optimize_parameters(1)


# ---------------------------------------------------------------- losses

@pytest.mark.numeric
def test_a_step_by_hand(batch):
    """Every term written out, frame by frame, and a step of plain gradient descent on their sum."""
    model = make_model()
    batch = in_float64(batch, model)
    net = copy.deepcopy(model.net_g)
    hr, (frames,) = net(batch['lq'], return_aux=True)
    lq, gt, num_frames = batch['lq_sharp'], batch['gt'], 3
    half = F.avg_pool2d(lq.flatten(0, 1), 2).view(2, 3, 3, 4, 6)
    expected = {
        'l_sr': ((hr - gt)**2).mean(),
        'l_db': 0.5 * sum(((frames[t].deblurred - lq[:, t])**2).mean() for t in range(num_frames)) / num_frames}
    for name, weight, clip, level in (('half', 0.125, half, 0), ('lr', 0.25, lq, 1), ('hr', 1.0, gt, 2)):
        terms = []
        for t in (1, 2):
            flow = frames[t].flow_to_last[level]
            terms.append(((warp(clip[:, t - 1], flow) - clip[:, t])**2).mean()
                         + 0.01 * total_variation(flow) / 15.5)
        expected[f'l_of_{name}'] = 0.01 * weight * sum(terms) / 2
    gradients = torch.autograd.grad(sum(expected.values()), list(net.parameters()))

    take_step(model, batch)
    log = model.get_current_log()
    assert {name: log[name] for name in expected} == pytest.approx(
        {name: value.item() for name, value in expected.items()}, rel=1e-4)
    assert log.keys() == expected.keys() | {'grad_norm'}
    for ours, start, gradient in zip(model.net_g.parameters(), net.parameters(), gradients, strict=True):
        torch.testing.assert_close(ours, start - LR * gradient, rtol=1e-4, atol=1e-6)


@pytest.mark.numeric
def test_the_flow_trained_alone(batch):
    """Two steps on L_OF, which a flow network without the rest of HOFFR takes alike."""
    model = make_model(flow_only=True)
    batch = in_float64(batch, model)
    start = copy.deepcopy(model.net_g)
    net = copy.deepcopy(model.net_g.flow_net)
    loss, optimizer = PyramidWarpLoss(loss_weight=0.01), torch.optim.SGD(net.parameters(), lr=LR)
    pairs = [[torch.cat((clip[:, 1], clip[:, 2])), torch.cat((clip[:, 0], clip[:, 1]))]
             for clip in (batch['lq'], batch['lq_sharp'], batch['gt'])]
    for _ in range(2):
        optimizer.zero_grad()
        sum(loss(*pairs[1:], net(*pairs[0])).values()).backward()
        optimizer.step()
        take_step(model, batch)
    assert model.losses.keys() == {'l_of_half', 'l_of_lr', 'l_of_hr'}
    for ours, expected in zip(model.net_g.flow_net.parameters(), net.parameters(), strict=True):
        torch.testing.assert_close(ours, expected)
    after = dict(model.net_g.named_parameters())
    moved = {name for name, value in start.named_parameters() if not torch.equal(value, after[name])}
    assert moved == {f'flow_net.{name}' for name, _ in net.named_parameters()}


@pytest.mark.numeric
def test_accumulating_gives_the_gradients_of_the_whole_batch(batch):
    whole, divided = make_model(), make_model(accumulate=2)
    batch = in_float64(batch, whole, divided)
    for model in (whole, divided):
        take_step(model, batch)
    for ours, theirs in zip(whole.net_g.parameters(), divided.net_g.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs)


@pytest.mark.numeric
def test_truncated_gradients(batch):
    """Through one frame only, as for three clips that start with the estimate of the previous frame as state."""
    batch = {name: value[:1] if name != 'key' else ['a'] for name, value in batch.items()}
    whole, truncated = (make_model(deblur_opt=None, flow_opt=None, truncate=truncate,
                                   network={'deblur_branch': False}) for truncate in (None, 1))
    batch = in_float64(batch, whole, truncated)
    net, state, loss = copy.deepcopy(truncated.net_g), None, 0
    for t in range(3):
        hr, state = net.step(batch['lq'][:, t], state)
        state = state._replace(hr=hr.detach())
        loss = loss + F.mse_loss(hr, batch['gt'][:, t]) / 3
    gradients = torch.autograd.grad(loss, list(net.parameters()))
    for model in (whole, truncated):
        take_step(model, batch)
    for ours, start, gradient in zip(truncated.net_g.parameters(), net.parameters(), gradients, strict=True):
        torch.testing.assert_close(ours, start - LR * gradient, rtol=1e-4, atol=1e-6)
    assert not all(torch.allclose(*pair, rtol=1e-6, atol=0) for pair in zip(
        truncated.net_g.parameters(), whole.net_g.parameters(), strict=True))


@pytest.mark.parametrize('network, train, terms', [
    ({'deblur_branch': False}, {'deblur_opt': None}, {'l_sr', 'l_of_half', 'l_of_lr', 'l_of_hr'}),
    ({}, {'flow_opt': None}, {'l_sr', 'l_db'}),
    ({'deblur_branch': False}, {'deblur_opt': None, 'flow_opt': None}, {'l_sr'}),
])
def test_terms_that_are_off(batch, network, train, terms):
    if len(terms) == 1:
        del batch['lq_sharp']  # which nothing needs then
    model = make_model(network, **train)
    take_step(model, batch)
    assert model.losses.keys() == terms


@pytest.mark.numeric
def test_the_flow_is_learned_from_known_motion():
    """A texture that moves by one LR pixel a frame: L_OF alone finds the flow, on all three grids."""
    torch.manual_seed(0)
    texture = F.interpolate(torch.rand(1, 3, 12, 20), scale_factor=8, mode='bicubic').clamp(0, 1)
    gt = [texture[..., :48, 4 * t:4 * t + 64] for t in range(2)]
    lq = [F.avg_pool2d(frame, 4) for frame in gt]
    net, loss = HRFlowNet(3, 8), PyramidWarpLoss()
    optimizer = torch.optim.Adam(net.parameters(), lr=3e-3)
    for _ in range(120):
        optimizer.zero_grad()
        sum(loss(lq[::-1], gt[::-1], net(lq[1], lq[0])).values()).backward()
        optimizer.step()
    for flow, pixels in zip(net(lq[1], lq[0]), (0.5, 1.0, 4.0), strict=True):
        x, y = flow[0, :, 2:-2, 2:-2].flatten(1).median(dim=1).values.tolist()
        assert x == pytest.approx(pixels, rel=0.25) and abs(y) < 0.25 * pixels


@pytest.mark.numeric
def test_the_flow_shown():
    """From the second frame to the first, of frames padded to even sides; then of levels that give only a bias."""
    model = make_model()
    net, window = model.net_g.eval(), torch.rand(1, 3, 3, 5, 7)
    padded = F.pad(window[0, :2], (0, 1, 0, 1), mode='replicate')
    with torch.no_grad():
        expected = net.flow_net(padded[1:], padded[:1])[2][0, :, :20, :28]
    torch.testing.assert_close(model.flow_to_show(net, window, {}), expected)

    for level, values in ((net.flow_net.coarse, (0.5, 0)), (net.flow_net.fine, (0.25, -1)), (net.flow_net.hr, (2, 0))):
        nn.init.zeros_(level.tail[-1].weight)
        bias = level.tail[-1].bias.data.view(2, -1)  # x, then y
        bias.copy_(torch.tensor(values).unsqueeze(1).expand_as(bias))
    x, y = model.flow_to_show(net, window, {})
    torch.testing.assert_close(x, torch.full((20, 28), 4 * (2 * 0.5 + 0.25) + 2))
    torch.testing.assert_close(y, torch.full((20, 28), -4.0))
    assert model.flow_to_show(net, window[:, :1], {}) is None


def test_a_sample_that_is_not_finite_is_named(batch):
    model = make_model(max_nonfinite=1)
    batch['lq_sharp'][1, 0, 0, 0, 0] = float('nan')
    with pytest.raises(NonFiniteError, match='l_db is nan, l_of_half is nan, l_of_lr is nan on a, b'):
        take_step(model, batch)


# ---------------------------------------------------------------- bad input

def test_samples_that_are_refused(batch):
    one = {name: value[:, :1] if name != 'key' else value for name, value in batch.items()}
    with pytest.raises(ValueError, match='HOFFR trains on sequences, but a sample has one frame; set num_frame'):
        make_model().feed_data(one)
    odd = batch | {'lq': torch.rand(2, 3, 3, 7, 12), 'gt': torch.rand(2, 3, 3, 28, 48)}
    with pytest.raises(ValueError, match='sides divisible by 2, but these are 7x12: set gt_size .* a multiple of 8'):
        make_model().feed_data(odd)
    short = batch | {'lq_sharp': batch['lq_sharp'][:, :2]}
    with pytest.raises(ValueError, match=r'shape of lq, but they are \(2, 2, 3, 8, 12\) and \(2, 3, 3, 8, 12\)'):
        make_model().feed_data(short)
    del batch['lq_sharp']
    with pytest.raises(ValueError, match='samples have no lq_sharp: set lq_sharp: true or dataroot_lq_sharp'):
        make_model().feed_data(batch)


@pytest.mark.parametrize('network, train, message', [
    ({}, {'deblur_opt': None}, 'train.deblur_opt is missing, but the network has a deblurring branch'),
    ({'deblur_branch': False}, {}, 'train.deblur_opt is set, but HOFFR has no deblurring branch'),
    ({}, {'flow_opt': {'type': 'MSELoss'}}, 'train.flow_opt.type must be PyramidWarpLoss, but is MSELoss'),
    ({}, {'flow_opt': {'type': 'PyramidWarpLoss', 'level_weights': [1.0]}}, 'level_weights must hold 3 numbers'),
    ({}, {'flow_opt': {'type': 'PyramidWarpLoss', 'distance': 'l3'}}, "distance must be one of l2, l1, but got 'l3'"),
    ({}, {'flow_opt': None, 'flow_only': True}, 'train.flow_opt is missing: it is the loss of train.flow_only'),
    ({}, {'truncate': 0}, 'train.truncate must be >= 1, but is 0'),
    ({'num_block': 0}, {}, 'network_g: num_block must be at least 1, but got 0'),
    ({'reduction': 99}, {}, 'network_g: reduction must be from 1 to num_feat 8, but got 99'),
])
def test_options_that_do_not_fit(network, train, message):
    opt = model_opt(network, **train)
    for name in ('dist', 'rank', 'world_size', 'is_train', 'val'):
        del opt[name]
    opt['datasets']['train'] = {'name': 'a', 'type': 'STVSRClipDataset', 'dataroot_gt': 'a', 'temporal_scale': 1,
                                'num_frame': 8}
    opt['logger'] = {'print_freq': 1, 'save_checkpoint_freq': 1}
    with pytest.raises(ValueError, match=message):
        check_options(opt, is_train=True)


# ---------------------------------------------------------------- option files

@pytest.fixture(scope='module')
def clips(tmp_path_factory):
    root = tmp_path_factory.mktemp('clips')
    write_moving_clips(root, num_frames=9, height=48, width=56)
    return root


@pytest.mark.parametrize('path', TRAIN_FILES, ids=lambda path: path.stem)
def test_every_training_file_takes_a_step(path, clips, tmp_path):
    """On clips that are blurred as they are read, where the file names LR or blurred frames."""
    opt = load_options(str(path))
    with torch.device('meta'):
        count = sum(p.numel() for p in build_network(opt['network_g']).parameters())
    is_small = 'small' in path.stem or path.parent.name == 'claims'
    assert count < 1_500_000 if is_small else count == COUNTS.get(path.stem, 3_543_242)
    opt.update(num_gpu=0, dist=False, rank=0, world_size=1, is_train=True)
    opt['network_g'].update(TINY)
    train = opt['datasets']['train']
    stored = {name: None for name in ('dataroot_lq', 'dataroot_lq_sharp', 'dataroot_blurred')}
    opt['datasets'] = {'train': train | stored | {
        'dataroot_gt': str(clips), 'lq_sharp': True, 'motion_blur': {'exposure': 1.0, 'num_frame': 3}, 'gt_size': 32,
        'cache': False, 'meta_info_file': None}}
    opt['path']['pretrain_network_g'] = None
    complete_datasets(opt)
    complete_paths(opt, str(tmp_path))
    model = build_model(opt)
    dataset = build_dataset(opt['datasets']['train'])
    model.feed_data(torch.utils.data.default_collate([dataset[0], dataset[1]]))
    num_frame = train['num_frame']
    assert model.lq.shape == model.lq_sharp.shape == (2, num_frame, 3, 8, 8)
    assert model.gt.shape == (2, num_frame, 3, 32, 32) and not torch.equal(model.lq, model.lq_sharp)
    before = {name: p.detach().clone() for name, p in model.net_g.named_parameters()}
    model.optimize_parameters(1)
    flow_only = opt['train'].get('flow_only', False)
    for name, p in model.net_g.named_parameters():
        assert torch.equal(p, before[name]) == (flow_only and not name.startswith('flow_net.')), name
    assert ('l_db' in model.losses) == (opt['network_g'].get('deblur_branch', True) and not flow_only)


def test_a_whole_training_by_command(clips, tmp_path):
    """Blurred clips, restored and scored frame by frame, and the state resumed as if nothing had happened."""
    opt = model_opt(total_iter=4, optim_g={'type': 'Adam', 'lr': 1e-3})
    for name in ('dist', 'rank', 'world_size', 'is_train'):
        del opt[name]
    blur = {'motion_blur': {'exposure': 1.0, 'num_frame': 3}, 'dataroot_gt': str(clips), 'temporal_scale': 1}
    opt['datasets'] = {
        'train': {'name': 'clips', 'type': 'STVSRClipDataset', **blur, 'num_frame': 3, 'gt_size': 32, 'lq_sharp': True,
                  'batch_size_per_gpu': 2, 'num_worker_per_gpu': 0},
        'val': {'name': 'both', 'type': 'STVSRTestDataset', **blur}}
    opt['val'] = {'val_freq': 4, 'reset_at_cuts': True, 'metrics': {
        'psnr': {'type': 'calculate_psnr', 'crop_border': 0}}}
    opt['logger'] = {'print_freq': 1, 'save_checkpoint_freq': 2, 'use_tb_logger': True}
    opt['path'] = {'experiments_root': str(tmp_path / 'run')}
    (tmp_path / 'options.yml').write_text(yaml.safe_dump(opt))
    log = run('-m', 'basicsr_stvsr.train', '-opt', tmp_path / 'options.yml', cwd=tmp_path).stderr
    assert 'l_of_hr: ' in log and '# psnr: ' in log
    path = tmp_path / 'run' / 'models' / 'net_g_4.pth'
    straight = torch.load(path, weights_only=True)['params']
    path.unlink()
    (tmp_path / 'run' / 'training_states' / '4.state').unlink()
    succeed('-m', 'basicsr_stvsr.train', '-opt', tmp_path / 'options.yml', '--auto_resume', cwd=tmp_path)
    resumed = torch.load(path, weights_only=True)['params']
    assert all(torch.equal(resumed[name], value) for name, value in straight.items())


# ---------------------------------------------------------------- streams

@pytest.fixture(scope='module')
def net():
    torch.manual_seed(0)
    return make_model().net_g.eval()


@pytest.mark.numeric
def test_a_clip_of_any_size_is_a_stream_of_padded_frames(net):
    lq = torch.rand(2, 4, 3, 5, 7)
    padded = F.pad(lq.flatten(0, 1), (0, 1, 0, 1), mode='replicate').unflatten(0, (2, 4))
    with torch.no_grad():
        expected = net(padded)[..., :20, :28].clamp(0, 1)
    torch.testing.assert_close(restore_clip(net, lq), expected)
    torch.testing.assert_close(restore_clip(net, lq[:, :1]), expected[:, :1])  # of one frame


@pytest.mark.numeric
def test_a_cut_begins_a_new_stream(net):
    lq = torch.rand(1, 5, 3, 4, 6)
    scenes = torch.cat((restore_clip(net, lq[:, :2]), restore_clip(net, lq[:, 2:])), dim=1)
    assert torch.equal(restore_clip(net, lq, cuts=[2]), scenes)
    assert not torch.allclose(restore_clip(net, lq)[:, 2:], scenes[:, 2:])


@pytest.mark.numeric
def test_tiles_have_states_of_their_own(net):
    """Without overlap the tiles of a stream are streams."""
    lq = torch.rand(1, 3, 3, 8, 12)
    tiled = restore_clip(net, lq, tiling=Tiling((1, 2), 0))
    halves = [restore_clip(net, lq[..., part]) for part in (slice(0, 6), slice(6, 12))]
    torch.testing.assert_close(tiled, torch.cat(halves, dim=-1))


@pytest.mark.numeric
@pytest.mark.parametrize('reset', [True, False])
def test_a_validation_starts_afresh_at_cuts_if_asked(reset):
    """Two shots of different colours: each is scored as if it were alone."""
    opt = model_opt()
    opt['val'] = {'reset_at_cuts': reset, 'metrics': {'psnr': {'type': 'calculate_psnr', 'crop_border': 0}}}
    torch.manual_seed(0)
    model = build_model(opt)
    texture = F.avg_pool2d(torch.rand(3, 36, 60), 5, 1)  # (3, 32, 56)
    shots = [torch.stack([texture[..., t:t + 48] * torch.tensor(color).view(3, 1, 1) for t in range(8)])
             for color in ([1., 0.2, 0.2], [0.2, 0.2, 1.])]

    def psnr(lq: torch.Tensor) -> list[float]:
        item = {'lq': lq, 'gt': lq.repeat_interleave(4, -1).repeat_interleave(4, -2)}
        scores = model.validate_clip(model.net_g.eval(), 'clip', item, SimpleNamespace(color='rgb'), 0, False)
        return [value for _, value in scores['psnr']]

    together, apart = psnr(torch.cat(shots)), [value for shot in shots for value in psnr(shot)]
    assert together[:8] == pytest.approx(apart[:8], abs=1e-6)
    assert (together[8:] == pytest.approx(apart[8:], abs=1e-6)) == reset


class State(NamedTuple):
    frame: torch.Tensor


class Recurrent(nn.Module):
    """Repeats frames, and leaves a new state at each."""

    spec = NetSpec(scale=1, num_frames=None, state=State)

    def __init__(self):
        super().__init__()
        self.states = []

    def step(self, frame, state):
        state = State(frame.clone())
        self.states.append(weakref.ref(state.frame))
        return frame, state


def test_a_stream_keeps_one_state():
    net, alive = Recurrent(), []
    frames = (StreamFrame(torch.rand(1, 3, 4, 6), begins_scene=number == 5) for number in range(10))
    for _ in restore_stream(net, frames):
        alive.append(sum(state() is not None for state in net.states))
    assert alive == [1] * 10
