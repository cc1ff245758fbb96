"""Both stages of the adversarial training, against what PyTorch does by hand."""
import copy
import json
import math

import pytest
import torch
import yaml
from basicsr.data import build_dataset
from basicsr.losses import build_loss
from basicsr.models import build_model
from conftest import ROOT, write_moving_clips
from reference_util import in_float64
from run_util import run
from torch.nn import functional as F

from basicsr_stvsr.config import check_options
from basicsr_stvsr.config.loading import complete_datasets, complete_paths, load_options
from basicsr_stvsr.models.adaptive_gan_model import AdaptiveGANModel
from basicsr_stvsr.models.batch import NonFiniteError

PIXEL = {'type': 'SpatiallyAdaptiveCharbonnierLoss', 'loss_weight': 1.0, 'alpha': 0.1, 'beta': 0.9}
FEATURE = {
    'type': 'SpatiallyAdaptiveFeatureLoss', 'loss_weight': 1.0, 'alpha': 0.2, 'beta': 0.3, 'feature_net': 'random'}
GAN = {'type': 'GANLoss', 'gan_type': 'vanilla', 'loss_weight': 0.01}
LR_G, LR_D = 0.02, 0.05


OPTIONS = ROOT / 'options'


@pytest.fixture(scope='module')
def clips(tmp_path_factory):
    root = tmp_path_factory.mktemp('clips')
    write_moving_clips(root, num_frames=6, height=48, width=56)
    return root


def model_opt(**train) -> dict:
    """Plain gradient descent, which is easily done by hand; stage 2 unless `train` says otherwise."""
    train = {
        'optim_g': {'type': 'SGD', 'lr': LR_G}, 'optim_d': {'type': 'SGD', 'lr': LR_D},
        'scheduler': {'type': 'MultiStepLR', 'milestones': [1000], 'gamma': 0.5}, 'total_iter': 10**6,
        'pixel_opt': PIXEL, 'feature_opt': FEATURE, 'gan_opt': GAN, **train}
    opt = {
        'name': 'tiny', 'model_type': 'AdaptiveGANModel', 'scale': 2, 'num_gpu': 0, 'manual_seed': 0, 'dist': False,
        'rank': 0, 'world_size': 1, 'is_train': True, 'path': {}, 'datasets': {'train': {}},
        'network_g': {'type': 'VSRResNet', 'num_feat': 8, 'num_block': 1, 'scale': 2},
        'network_d': {'type': 'VSRResDiscriminator', 'patch_size': 32}, 'train': train}
    if not train['gan_opt']:
        del opt['network_d'], train['optim_d']
    opt['train'] = {name: value for name, value in train.items() if value is not None}
    return copy.deepcopy(opt)


def make_model(**train) -> AdaptiveGANModel:
    torch.manual_seed(0)
    return build_model(model_opt(**train))


@pytest.fixture
def batch() -> dict:
    return {'lq': torch.rand(4, 5, 1, 16, 16), 'gt': torch.rand(4, 5, 1, 32, 32), 'key': list('abcd')}


def take_step(model: AdaptiveGANModel, batch: dict, number: int = 1) -> None:
    model.feed_data(batch)
    model.optimize_parameters(number)


def weights(net: torch.nn.Module) -> list[torch.Tensor]:
    return [p.detach().clone() for p in net.parameters()]


def descend(net: torch.nn.Module, loss: torch.Tensor, lr: float) -> None:
    for p, gradient in zip(net.parameters(), torch.autograd.grad(loss, list(net.parameters())), strict=True):
        p.data -= lr * gradient


@pytest.mark.numeric
def test_stage_one_is_a_step_on_the_mean_squared_error(batch):
    model = make_model(pixel_opt={'type': 'MSELoss'}, feature_opt=None, gan_opt=None)
    net = copy.deepcopy(model.net_g)
    descend(net, F.mse_loss(net(batch['lq']), batch['gt'][:, 2:3]), LR_G)
    take_step(model, batch)
    torch.testing.assert_close(weights(model.net_g), weights(net))
    assert model.net_d is None and len(model.optimizers) == 1
    assert list(model.get_current_log()) == ['l_pix', 'grad_norm']


@pytest.mark.numeric
def test_stage_two_is_eq_13_and_then_the_discriminator(batch):
    model = make_model()
    net_g, net_d = copy.deepcopy(model.net_g), copy.deepcopy(model.net_d)
    gt = batch['gt'][:, 2:3]
    pixel, feature = build_loss(PIXEL), build_loss(FEATURE)

    frames = net_g(batch['lq'])
    l_gan = -0.01 * F.logsigmoid(net_d(frames[:, 0])).mean()  # -log D(G(Y))
    l_pix, l_feature = pixel(frames, gt), feature(frames, gt)
    descend(net_g, l_pix + l_feature + l_gan, LR_G)
    real, fake = net_d(gt[:, 0]), net_d(frames[:, 0].detach())
    loss_d_real, loss_d_fake = -F.logsigmoid(real).mean(), -F.logsigmoid(-fake).mean()
    descend(net_d, loss_d_real + loss_d_fake, LR_D)

    take_step(model, batch)
    torch.testing.assert_close(weights(model.net_g), weights(net_g))
    torch.testing.assert_close(weights(model.net_d), weights(net_d))
    log = model.get_current_log()
    expected = {
        'l_pix': l_pix, 'l_feature': l_feature, 'l_gan': l_gan, 'loss_d_real': loss_d_real, 'loss_d_fake': loss_d_fake,
        'score_d_real': real.mean(), 'score_d_fake': fake.mean(), 'accuracy_d_real': (real > 0).float().mean(),
        'accuracy_d_fake': (fake < 0).float().mean()}
    assert {name: log[name] for name in expected} == pytest.approx(
        {name: value.item() for name, value in expected.items()}, rel=1e-4, abs=1e-6)
    assert log.keys() == expected.keys() | {'grad_norm', 'grad_norm_d'}


@pytest.mark.numeric
def test_betas_at_zero_are_the_baseline(batch):
    """VSRResFeatGAN: plain Charbonnier losses of frames and of features."""
    baseline = make_model(pixel_opt={**PIXEL, 'beta': 0.0}, feature_opt={**FEATURE, 'beta': 0.0})
    plain = make_model(pixel_opt={'type': 'CharbonnierLoss', 'loss_weight': 0.1, 'eps': 1e-6},
                       feature_opt={**FEATURE, 'beta': 0.0})
    for model in (baseline, plain):
        take_step(model, batch)
    torch.testing.assert_close(weights(baseline.net_g), weights(plain.net_g))


@pytest.mark.numeric
def test_accumulating_gives_the_gradients_of_the_whole_batch(batch, monkeypatch):
    """Of the generator; batch normalisation of the discriminator sees each part by itself."""
    whole, divided = (make_model(accumulate=parts, gan_opt=None, feature_opt=None) for parts in (1, 2))
    batch = in_float64(batch, whole, divided)
    for model in (whole, divided):
        take_step(model, batch)
    torch.testing.assert_close(weights(whole.net_g), weights(divided.net_g))
    divided = make_model(accumulate=2)
    in_float64(batch, divided)
    before, prepared = weights(divided.net_d), []
    prepare = divided.prepare_batch
    monkeypatch.setattr(divided, 'prepare_batch', lambda part: (prepared.append(len(part['gt'])), prepare(part)))
    take_step(divided, batch)
    assert prepared == [len(batch['gt']) // 2] * 2  # each part once, for both networks
    assert not divided.made and not all(map(torch.equal, weights(divided.net_d), before))


@pytest.mark.parametrize('iterations, option', [([1, 3, 5], {'net_d_iters': 2}), ([1, 2, 3], {'net_d_init_iters': 3})])
def test_iterations_of_the_discriminator_alone(batch, iterations, option):
    model = make_model(**option, ema_decay=0.5)
    for number in range(1, 6):
        before = weights(model.net_g), weights(model.net_d)
        take_step(model, batch, number)
        assert all(map(torch.equal, weights(model.net_g), before[0])) == (number in iterations)
        assert not all(map(torch.equal, weights(model.net_d), before[1]))
    assert all(p.requires_grad for p in model.net_d.parameters())
    assert math.isfinite(model.get_current_log()['grad_norm'])


def test_a_discriminator_that_is_not_finite_stops_the_training(batch):
    model = make_model(max_nonfinite=3)
    with torch.no_grad():
        next(model.net_d.parameters()).fill_(math.nan)
    before = weights(model.net_g)
    with pytest.raises(NonFiniteError, match=r'Iteration 3 is skipped \(3 in a row, 3 in all\): l_gan is nan'):
        for number in (1, 2, 3):
            take_step(model, batch, number)
    assert all(map(torch.equal, weights(model.net_g), before))


def test_a_step_of_the_discriminator_that_is_not_finite(batch, monkeypatch):
    """The generator has taken its own by then, which the message does not deny."""
    model = make_model(max_nonfinite=1)
    losses = model.compute_discriminator_losses
    monkeypatch.setattr(model, 'compute_discriminator_losses', lambda: losses() | {'loss_d_real': losses_of_nothing()})
    before = weights(model.net_g), weights(model.net_d)
    with pytest.raises(NonFiniteError, match=r'^The step of net_d in iteration 1 is skipped .*: loss_d_real is nan on '
                                             r'a, b, c, d\. .* a smaller train.optim_d.lr'):
        take_step(model, batch)
    assert all(map(torch.equal, weights(model.net_d), before[1]))
    assert not all(map(torch.equal, weights(model.net_g), before[0]))


def losses_of_nothing() -> torch.Tensor:
    return torch.tensor(math.nan, requires_grad=True)


@pytest.mark.numeric
def test_scores_of_all_parts_of_a_batch(batch):
    model = make_model(accumulate=2)
    net_g, net_d = copy.deepcopy(model.net_g), copy.deepcopy(model.net_d)
    take_step(model, batch)
    log = model.get_current_log()
    fake = net_g(batch['lq'])[:, 0]
    scores = {'fake': fake, 'real': batch['gt'][:, 2]}
    scores = {kind: torch.cat([net_d(part) for part in frames.split(2)]) for kind, frames in scores.items()}
    expected = {'score_d_fake': scores['fake'], 'accuracy_d_fake': (scores['fake'] < 0).float(),
                'score_d_real': scores['real'], 'accuracy_d_real': (scores['real'] > 0).float()}
    assert {name: log[name] for name in expected} == pytest.approx(
        {name: values.mean().item() for name, values in expected.items()}, rel=1e-4, abs=1e-6)


@pytest.mark.parametrize('arguments', [
    {'amp': 'bf16', 'channels_last': True, 'grad_clip': 0.1, 'ema_decay': 0.5, 'accumulate': 2},
    {'amp': 'fp16', 'grad_clip': 0.1},
])
def test_half_precision_and_what_goes_with_it(batch, arguments):
    """The first step of two networks in half precision goes the way of that in float32."""
    exact, half = make_model(**arguments | {'amp': 'none'}), make_model(**arguments)
    before = weights(half.net_g)
    for model in (exact, half):
        take_step(model, batch)
    assert half.skipped == 0
    for ours, true, start in zip(weights(half.net_g), weights(exact.net_g), before, strict=True):
        assert (ours - true).norm() <= 0.3 * (true - start).norm() + 1e-7


def test_rgb(batch):
    batch |= {name: batch[name].repeat(1, 1, 3, 1, 1) for name in ('lq', 'gt')}
    opt = model_opt()
    opt['network_g']['num_in_ch'] = opt['network_d']['num_in_ch'] = 3
    model = build_model(opt)
    take_step(model, batch)
    log = model.get_current_log()
    assert all(math.isfinite(value) for value in log.values()) and log['l_pix'] > 0


# Options


@pytest.mark.parametrize('path', sorted(path for name in ('vsrresnet', 'adaptive_gan', 'vsrresfeatgan')
                                        for path in OPTIONS.glob(f'train_{name}_*.yml')), ids=lambda path: path.stem)
def test_every_training_file_takes_a_step(path, clips, tmp_path):
    opt = load_options(str(path))
    size = opt['datasets']['train']['gt_size']
    assert opt.get('network_d', {'patch_size': size})['patch_size'] == size
    opt.update(num_gpu=0, dist=False, rank=0, world_size=1, is_train=True)
    opt['network_g'].update(num_feat=4, num_block=1)
    opt['path'] |= {'pretrain_network_g': None, 'resume_state': None}
    opt['datasets'] = {'train': opt['datasets']['train'] | {
        'dataroot_gt': str(clips), 'meta_info_file': None, 'gt_size': 8 * opt['scale']}}
    if 'network_d' in opt:
        opt['network_d'] |= {'num_feat': 4, 'patch_size': 8 * opt['scale']}
    if 'feature_opt' in opt['train']:
        opt['train']['feature_opt'] |= {'feature_net': 'random', 'sha256': None}
    complete_datasets(opt)
    complete_paths(opt, str(tmp_path))
    model = build_model(opt)
    dataset = build_dataset(opt['datasets']['train'])
    model.feed_data(torch.utils.data.default_collate([dataset[0], dataset[1]]))
    before = weights(model.net_g)
    model.optimize_parameters(1)
    assert model.skipped == 0 and not all(map(torch.equal, weights(model.net_g), before))
    assert ('l_gan' in model.losses) == ('l_feature' in model.losses) == ('vsrresnet' not in path.stem)


@pytest.mark.parametrize('num_in_ch, patch_size, message', [
    (3, 32, r'network_d.num_in_ch is 3, but frames of datasets.train have 1 channels \(color: y\)'),
    (1, 16, r'network_d.patch_size is 16, but frames of datasets.train are 32x32: both must equal gt_size'),
])
def test_a_discriminator_of_other_frames(clips, num_in_ch, patch_size, message):
    opt = model_opt()
    opt['network_d'].update(num_in_ch=num_in_ch, patch_size=patch_size)
    dataset = build_dataset({
        'name': 'clips', 'type': 'STVSRClipDataset', 'phase': 'train', 'dataroot_gt': str(clips), 'temporal_scale': 1,
        'num_frame': 5, 'color': 'y', 'gt_size': 32, 'scale': 2, 'num_worker_per_gpu': 0, 'batch_size_per_gpu': 2})
    with pytest.raises(ValueError, match=message):
        build_model(opt).check_data(dataset, [])


@pytest.mark.parametrize('change, message', [
    (lambda opt: opt.pop('network_d'), 'network_d is missing, but train.gan_opt is set'),
    (lambda opt: opt['train'].pop('optim_d'), 'train.optim_d is missing, but gan_opt is set'),
    (lambda opt: (opt['train'].pop('gan_opt'), opt['train'].pop('optim_d')),
     'train.gan_opt is missing, but network_d is set'),
    (lambda opt: opt.update(model_type='STVSRModel'), 'network_d: STVSRModel trains no discriminator'),
    (lambda opt: opt['network_d'].update(patch_size='large'), 'network_d.patch_size must be a whole number'),
    (lambda opt: opt['train']['gan_opt'].update(gan_type='wgan'), 'train.gan_opt.gan_type must be one of vanilla, '),
    (lambda opt: [opt['train'].pop(name) for name in ('pixel_opt', 'feature_opt', 'gan_opt')],
     'train.pixel_opt is missing, and so are feature_opt and gan_opt'),
    (lambda opt: opt['network_g'].update(scale=5), 'network_g: scale must be one of 2, 3, 4, but is 5'),
])
def test_options_that_do_not_fit(change, message):
    opt = model_opt()
    for name in ('dist', 'rank', 'world_size', 'is_train'):
        del opt[name]
    opt['datasets']['train'] = {'name': 'a', 'type': 'STVSRClipDataset', 'dataroot_gt': 'a', 'temporal_scale': 1,
                                'num_frame': 5, 'color': 'y'}
    opt['logger'] = {'print_freq': 1, 'save_checkpoint_freq': 1}
    check_options(copy.deepcopy(opt), is_train=True)
    change(opt)
    if opt['model_type'] == 'STVSRModel':
        for name in ('feature_opt', 'gan_opt', 'optim_d'):
            del opt['train'][name]
    with pytest.raises(ValueError, match=message):
        check_options(opt, is_train=True)


# The whole way


def test_train_resume_and_test_by_command(clips, tmp_path):
    """Stage 1, stage 2 from its weights, stage 2 resumed from a checkpoint as if nothing had happened, and a test."""
    opt = model_opt(pixel_opt={'type': 'MSELoss'}, feature_opt=None, gan_opt=None, total_iter=2)
    stage_two = model_opt(total_iter=4)
    val = {'name': 'both', 'type': 'STVSRTestDataset', 'dataroot_gt': str(clips), 'temporal_scale': 1, 'color': 'y'}
    for options, name in ((opt, 'one'), (stage_two, 'two')):
        for key in ('dist', 'rank', 'world_size', 'is_train'):
            del options[key]
        options['name'] = name
        options['datasets'] = {
            'train': {'name': 'clips', 'type': 'STVSRClipDataset', 'dataroot_gt': str(clips), 'temporal_scale': 1,
                      'num_frame': 5, 'color': 'y', 'gt_size': 32, 'batch_size_per_gpu': 2, 'num_worker_per_gpu': 0},
            'val': val}
        options['val'] = {'val_freq': 2, 'metrics': {
            'psnr': {'type': 'calculate_psnr', 'crop_border': 2, 'test_y_channel': True}}}
        options['logger'] = {'print_freq': 1, 'save_checkpoint_freq': 2}
        options['path'] = {'experiments_root': str(tmp_path / name)}

    def train(options: dict, *flags: str) -> str:
        (tmp_path / 'options.yml').write_text(yaml.safe_dump(options))
        done = run('-m', 'basicsr_stvsr.train', '-opt', tmp_path / 'options.yml', *flags, cwd=tmp_path)
        assert done.returncode == 0, done.stderr[-3000:]
        return done.stderr

    def read(name: str, file: str) -> dict:
        return torch.load(tmp_path / name / 'models' / file, weights_only=True)['params']

    train(opt)
    assert not (tmp_path / 'one' / 'models' / 'net_d_2.pth').exists()
    stage_two['path']['pretrain_network_g'] = str(tmp_path / 'one' / 'models' / 'net_g_latest.pth')
    log = train(stage_two)
    assert 'accuracy_d_fake: ' in log and 'VGG' in log and 'random' in log  # it is said aloud
    straight = {file: read('two', file) for file in ('net_g_4.pth', 'net_d_4.pth')}
    for folder in ('models', 'training_states'):
        for path in (tmp_path / 'two' / folder).glob('*4.*'):
            path.unlink()
    train(stage_two, '--auto_resume')
    for file, expected in straight.items():
        resumed = read('two', file)
        assert all(torch.equal(resumed[name], value) for name, value in expected.items()), file

    for key in ('train', 'logger', 'network_d'):
        del stage_two[key]
    stage_two['datasets'] = {'test': val}
    stage_two['path'] = {'pretrain_network_g': str(tmp_path / 'two' / 'models' / 'net_g_latest.pth'),
                         'results_root': str(tmp_path / 'results')}
    stage_two['val'].pop('val_freq')
    (tmp_path / 'test.yml').write_text(yaml.safe_dump(stage_two))
    done = run('-m', 'basicsr_stvsr.test', '-opt', tmp_path / 'test.yml', cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]
    result = json.loads((tmp_path / 'results' / 'both.json').read_text())
    assert [number for number, _ in result['frames']['first']['psnr']] == list(range(6))
    assert load_options(str(tmp_path / 'test.yml'))['name'] == 'two'
