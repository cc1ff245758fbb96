"""One step of the loop with each option of `train`, against what PyTorch does by hand."""
import copy
import math

import pytest
import torch
from basicsr.data import build_dataset
from basicsr.models import build_model
from basicsr.utils.registry import ARCH_REGISTRY
from conftest import TINY_NET
from reference_util import in_float64
from run_util import small_train_opt
from torch.utils.data import default_collate

from basicsr_stvsr.archs import arch_util
from basicsr_stvsr.archs.spec import NetSpec
from basicsr_stvsr.models import stvsr_model
from basicsr_stvsr.models.stvsr_model import STVSRModel

FLOW_LOSSES = {'hr_flow_opt': {'type': 'MiddleFlowLoss', 'loss_weight': 0.01},
               'lq_flow_opt': {'type': 'MultiScaleWarpLoss', 'loss_weight': 0.005}}


@pytest.fixture
def make_model(clips):
    """Builds an MBNetModel with the given options of `train`, always from the same weights."""
    def make(network: dict = TINY_NET, losses: dict = FLOW_LOSSES, **train) -> STVSRModel:
        torch.manual_seed(0)
        return build_model({
            'name': 'tiny', 'model_type': 'MBNetModel' if losses else 'STVSRModel', 'scale': 4, 'num_gpu': 0,
            'manual_seed': 0, 'dist': False, 'rank': 0, 'world_size': 1, 'is_train': True, 'path': {},
            'network_g': network,
            'datasets': {'train': {}},
            'train': {
                'optim_g': {'type': 'Adam', 'lr': 1e-3},
                'scheduler': {'type': 'MultiStepLR', 'milestones': [1000], 'gamma': 0.5}, 'total_iter': 10**6,
                'pixel_opt': {'type': 'L1Loss'}, **losses, **train}})
    return make


@pytest.fixture(scope='module')
def batch(clips) -> dict:
    """Four samples."""
    dataset = build_dataset({
        'name': 'clips', 'type': 'STVSRClipDataset', 'dataroot_gt': str(clips), 'gt_size': 48, 'scale': 4,
        'phase': 'train'})
    return default_collate([dataset[i] for i in (0, 2, 5, 7)])


def take_steps(model: STVSRModel, batch: dict, number: int = 1) -> dict[str, torch.Tensor]:
    for i in range(1, number + 1):
        model.update_learning_rate(i)
        model.feed_data(batch)
        model.optimize_parameters(i)
    return {name: p.detach().clone() for name, p in model.net_g.named_parameters()}


def assert_close(first: dict, second: dict, atol: float) -> None:
    for name in first:
        torch.testing.assert_close(first[name], second[name], rtol=0, atol=atol)


def grads(model: STVSRModel) -> dict[str, torch.Tensor]:
    return {name: p.grad.clone() for name, p in model.net_g.named_parameters() if p.grad is not None}


# ---------------------------------------------------------------- gradients

@pytest.mark.numeric
@pytest.mark.parametrize('parts', [2, 4])
def test_accumulating_is_one_large_batch(make_model, batch, parts):
    whole, divided = make_model(), make_model(accumulate=parts)
    batch = in_float64(batch, whole, divided)
    take_steps(whole, batch)
    take_steps(divided, batch)
    assert_close(grads(whole), grads(divided), 1e-7)  # of a norm of 2; some buffers stay in float32
    assert whole.get_current_log() == pytest.approx(divided.get_current_log(), rel=1e-4)
    assert divided.lq.shape[0] == 4 // parts
    assert whole.samples == divided.samples == 4


def test_each_part_of_a_batch_is_prepared_once(make_model, batch, monkeypatch):
    model, prepared = make_model(accumulate=2), []
    prepare = model.prepare_batch
    monkeypatch.setattr(model, 'prepare_batch', lambda part: (prepared.append(list(part['key'])), prepare(part)))
    batch = {**batch, 'key': ['a', 'b', 'c', 'd']}
    take_steps(model, batch)
    assert prepared == [['a', 'b'], ['c', 'd']]


def test_a_batch_that_cannot_be_divided_is_refused(make_model, batch):
    with pytest.raises(ValueError, match='train.accumulate 3 does not divide a batch of 4 samples'):
        make_model(accumulate=3).feed_data(batch)


@pytest.mark.numeric
def test_clipping_scales_the_gradient_to_the_norm(make_model, batch):
    free, clipped = make_model(), make_model(grad_clip=0.01)
    take_steps(free, batch)
    take_steps(clipped, batch)
    norm = math.sqrt(sum(float(g.square().sum()) for g in grads(free).values()))
    assert norm > 0.1
    assert free.get_current_log()['grad_norm'] == pytest.approx(norm, rel=1e-4)
    assert clipped.get_current_log()['grad_norm'] == pytest.approx(norm, rel=1e-4)  # what it was before
    assert_close({n: g * (0.01 / norm) for n, g in grads(free).items()}, grads(clipped), 1e-7)
    assert make_model(grad_clip=10**6).train_opt.grad_clip == 10**6
    loose = make_model(grad_clip=1000)
    take_steps(loose, batch)
    assert_close(grads(free), grads(loose), 0)


# ---------------------------------------------------------------- learning rates

@pytest.mark.numeric
def test_parts_have_learning_rates_of_their_own(make_model, batch):
    """The first step of Adam moves every weight by its learning rate, whatever its gradient."""
    model = make_model(lr_mul={'flow_net': 0.25, 'vsr_net.*bias': 0, 'vsr_net': 2})
    before = {name: p.detach().clone() for name, p in model.net_g.named_parameters()}
    after = take_steps(model, batch)
    gradient = grads(model)
    for name, old in before.items():
        factor = 0.25 if name.startswith('flow_net.') else 1
        if name.startswith('vsr_net.'):
            factor = 0 if name.endswith('bias') else 2
        # Epsilon counts where the gradient is tiny.
        large = gradient[name].abs() > 1e-5 if name in gradient else torch.zeros_like(old, dtype=torch.bool)
        torch.testing.assert_close((after[name] - old).abs()[large], torch.full_like(old, 1e-3 * factor)[large],
                                   rtol=2e-3, atol=1e-8)
    assert model.get_current_learning_rate() == pytest.approx([1e-3, 0.25e-3, 0, 2e-3])


@pytest.mark.numeric
def test_schedules_keep_the_ratio(make_model):
    model = make_model(lr_mul={'flow_net': 0.25}, warmup_iter=10, scheduler={
        'type': 'CosineAnnealingRestartLR', 'periods': [100, 10**6], 'restart_weights': [1, 0.5]})
    rates = {}
    for i in range(1, 152):
        model.update_learning_rate(i, warmup_iter=10)
        rates[i] = model.get_current_learning_rate()
    assert all(part == pytest.approx(0.25 * main) for main, part in rates.values())
    # By hand: a line to 1e-3, half a cosine of 100, then a restart at half of it
    assert [rates[i][0] for i in (1, 5, 10)] == pytest.approx([1e-4, 5e-4, 1e-3])
    assert rates[51][0] == pytest.approx(0.5e-3) and rates[101][0] == pytest.approx(0, abs=1e-6)
    assert rates[102][0] == pytest.approx(0.5e-3, rel=1e-4)


def test_a_pattern_that_fits_nothing_is_refused(make_model):
    with pytest.raises(ValueError, match='train.lr_mul.flownet matches no parameter of MBNet, .* network: flow_net'):
        make_model(lr_mul={'flownet': 0.25})


def test_schedules_in_samples(make_model, batch):
    """With 4 samples a step, 12 samples of warm-up are three steps, and the milestone at 20 lies behind the fifth."""
    model = make_model(unit='samples', warmup_iter=12, scheduler={
        'type': 'MultiStepLR', 'milestones': [20, 30], 'gamma': 0.5})
    rates = []
    for i in range(1, 10):
        model.feed_data(batch)
        model.update_learning_rate(i, warmup_iter=12)
        rates.append(model.get_current_learning_rate()[0] / 1e-3)
        model.optimize_parameters(i)
    assert rates == pytest.approx([1 / 3, 2 / 3, 1, 1, 1, 0.5, 0.5, 0.5, 0.25])


def test_total_iter_in_samples(train_here, clips, log):
    opt = small_train_opt(clips)
    opt['train'].update(unit='samples', total_iter=7)  # batches of 2
    folder = train_here(opt)
    assert (folder / 'training_states' / '4.state').is_file() and 'iterations 0 to 4, ' in log.text
    opt['train']['total_iter'] = 12
    train_here(opt, '--auto_resume')
    assert (folder / 'training_states' / '6.state').is_file()


# ---------------------------------------------------------------- optimisers

@pytest.mark.numeric
@pytest.mark.parametrize('optimizer', ['Adam', 'AdamW'])
def test_fused_adam_takes_the_steps_of_the_plain_one(make_model, batch, optimizer):
    fused = make_model(optim_g={'type': optimizer, 'lr': 1e-3})
    plain = make_model(optim_g={'type': optimizer, 'lr': 1e-3, 'fused': False})
    assert [model.optimizer_g.defaults['fused'] for model in (fused, plain)] == [True, False]
    assert_close(take_steps(fused, batch), take_steps(plain, batch), 1e-6)


@pytest.mark.numeric
def test_any_optimiser_of_torch(make_model, batch):
    model = make_model(optim_g={'type': 'SGD', 'lr': 0.1, 'momentum': 0.9, 'nesterov': True})
    before = copy.deepcopy(model.net_g.state_dict())
    after = take_steps(model, batch)
    for name, gradient in grads(model).items():  # Nesterov's first step: g + 0.9 g
        torch.testing.assert_close(after[name], before[name] - 0.1 * 1.9 * gradient, rtol=0, atol=1e-6)


@pytest.mark.numeric
def test_ema_by_hand(make_model, batch):
    model = make_model(ema_decay=0.75)
    average = {name: p.detach().clone() for name, p in model.net_g.named_parameters()}
    for _ in range(3):
        for name, value in take_steps(model, batch).items():
            average[name] = 0.75 * average[name] + 0.25 * value
    assert_close(dict(model.net_g_ema.named_parameters()), average, 1e-6)


# ---------------------------------------------------------------- precision, memory layout, compiler

@pytest.mark.numeric
@pytest.mark.parametrize('amp', ['bf16', 'fp16'])
def test_half_precision_learns_like_single(make_model, batch, amp):
    half, single = make_model(amp=amp), make_model()
    seen = []
    half.net_g.vfi_net.head[-1].register_forward_hook(lambda net, given, output: seen.append(output.dtype))
    for model in (half, single):
        take_steps(model, batch, 4)
    assert set(seen) == {{'bf16': torch.bfloat16, 'fp16': torch.float16}[amp]}
    assert half.scaler.is_enabled() == (amp == 'fp16') and half.skipped == 0
    assert all(p.dtype == torch.float32 for p in half.net_g.parameters())
    log, expected = half.get_current_log(), single.get_current_log()
    assert log['l_sr'] == pytest.approx(expected['l_sr'], rel=0.03)


def test_float16_finds_its_scale(make_model, batch, log):
    """A scale that overflows is halved until it fits, which is no failure; and it is kept with the state."""
    model = make_model(amp='fp16')
    model.scaler.load_state_dict({**model.scaler.state_dict(), 'scale': 2.0**40, 'backoff_factor': 2.0**-8})
    before = {name: p.detach().clone() for name, p in model.net_g.named_parameters()}
    take_steps(model, batch, 5)
    assert 1 < model.scaler.get_scale() < 2.0**35
    assert model.skipped == 0 and 'is skipped' not in log.text
    assert any(not torch.equal(p, before[name]) for name, p in model.net_g.named_parameters())


@pytest.mark.numeric
@pytest.mark.parametrize('amp', ['none', 'fp16'])
def test_a_loss_that_is_not_finite_is_found_before_the_backward_pass(make_model, batch, log, amp):
    """In any part of the batch; the next step is that of a model that has not seen this batch."""
    model, other = make_model(amp=amp, accumulate=4), make_model(amp=amp, accumulate=4)
    scale = model.scaler.get_scale()
    before = {name: p.detach().clone() for name, p in model.net_g.named_parameters()}
    spoilt = {**batch, 'gt': batch['gt'].clone()}
    spoilt['gt'][1, 0, 0, 0, 0] = math.nan
    after = take_steps(model, spoilt)
    assert all(torch.equal(value, before[name]) for name, value in after.items())
    message, = [record.message for record in log.records if 'is skipped' in record.message]
    assert message == f'Iteration 1 is skipped (1 in a row, 1 in all): l_sr is nan on {batch["key"][1]}'
    assert model.scaler.get_scale() == scale and math.isnan(model.get_current_log()['grad_norm'])
    assert_close(take_steps(model, batch), take_steps(other, batch), 0)
    assert model.skipped == 1 and model.skipped_in_a_row == 0


@pytest.mark.numeric
def test_channels_last_changes_only_the_layout(make_model, batch):
    last, first = make_model(channels_last=True), make_model(channels_last=False)
    weight = last.net_g.vfi_net.head[-1].weight
    assert weight.is_contiguous(memory_format=torch.channels_last) and not weight.is_contiguous()
    batch = in_float64(batch, last, first)
    take_steps(last, batch)
    take_steps(first, batch)
    assert_close(grads(last), grads(first), 1e-7)  # of a norm of 2; some buffers stay in float32


@pytest.mark.numeric
def test_moments_follow_the_layout_of_weights(make_model, batch):
    """A training that began in another memory layout goes on alike."""
    before, same = make_model(channels_last=False), make_model(channels_last=False)
    after = make_model(channels_last=True)
    take_steps(before, batch, 2)
    for model in (same, after):
        model.net_g.load_state_dict(before.net_g.state_dict())
        model.resume_training({
            'optimizers': [copy.deepcopy(before.optimizer_g.state_dict())],
            'schedulers': [copy.deepcopy(scheduler.state_dict()) for scheduler in before.schedulers]})
    start = {name: p.detach().clone() for name, p in same.net_g.named_parameters()}
    moved = [{name: p - start[name] for name, p in take_steps(model, batch).items()} for model in (same, after)]
    assert_close(*moved, 2e-5)  # of steps of 1e-3


def test_auto_is_what_the_device_has(make_model, monkeypatch):
    for has_bf16, amp in ((True, 'bf16'), (False, 'none')):
        monkeypatch.setattr(stvsr_model, 'computes_bf16', lambda device, has_bf16=has_bf16: has_bf16)
        assert make_model(amp='auto').amp == amp
    net = make_model().net_g  # on a CPU
    assert net.vfi_net.head[-1].weight.is_contiguous(memory_format=torch.channels_last)


def test_compile_falls_back_with_a_warning(make_model, batch, monkeypatch, log):
    def broken(*args, **kwargs):
        raise RuntimeError('Failed to find C compiler.\nPlease install one')

    monkeypatch.setattr(torch, 'compile', broken)
    arch_util.compiler_problem.cache_clear()
    model = make_model(compile=True)
    arch_util.compiler_problem.cache_clear()
    warning, = [record.message for record in log.records if record.levelname == 'WARNING']
    assert warning == ('train.compile is off: torch.compile does not work here: RuntimeError: Failed to find C '
                       'compiler. Please install one')
    assert_close(take_steps(model, batch), take_steps(make_model(), batch), 0)


@ARCH_REGISTRY.register()
class OneConvolution(torch.nn.Module):
    """Three frames in, the same larger; MBNet takes the compiler minutes."""

    spec = NetSpec(scale=4, num_frames=3, color='rgb')

    def __init__(self):
        super().__init__()
        self.conv = torch.nn.Conv2d(3, 48, 3, padding=1)

    def forward(self, lq):
        return torch.nn.functional.pixel_shuffle(self.conv(lq.flatten(0, 1)), 4).unflatten(0, lq.shape[:2]).sigmoid()


def test_compiled_it_takes_the_same_steps(make_model, batch):
    if arch_util.compiler_problem(torch.device('cpu')):
        pytest.skip(arch_util.compiler_problem(torch.device('cpu')))
    batch = {'lq': batch['gt'][..., ::4, ::4], 'gt': batch['gt']}
    compiled, eager = (make_model({'type': 'OneConvolution'}, {}, compile=on) for on in (True, False))
    calls = []
    compiled.net_g.register_forward_hook(lambda *_: calls.append(torch.compiler.is_compiling()))
    take_steps(compiled, batch, 2)
    take_steps(eager, batch, 2)
    assert calls and all(calls)
    assert_close(grads(compiled), grads(eager), 1e-6)
    assert list(compiled.net_g.state_dict()) == list(eager.net_g.state_dict())
