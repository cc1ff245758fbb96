"""What only a GPU can show: the results of a CPU, the memory and the code paths that are taken there alone.

Tests with a `device` run at a small size on the CPU as well, so that they work on the day a GPU is there.
"""
import copy
import math

import pytest
import torch
from basicsr.archs import build_network
from basicsr.models import build_model
from conftest import TINY_NET

from basicsr_stvsr.archs.mbnet_arch import MBNET_PRESETS
from basicsr_stvsr.archs.pacnet_arch import STRIP_NUMEL, pac_conv2d, pac_kernel

GPU = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason='no CUDA device')]
GIB = 2**30
NETS = {
    'tiny': TINY_NET, **{name: {'type': 'MBNet', **options} for name, options in MBNET_PRESETS.items()},
    'hoffr': {'type': 'HOFFR', 'num_feat': 8, 'num_block': 2, 'num_rcab': 1, 'reduction': 4, 'num_flow_feat': 8}}
LOSSES = {  # besides that on the frames
    'MBNet': {
        'lq_flow_opt': {'type': 'MultiScaleWarpLoss', 'loss_weight': 0.005},
        'hr_flow_opt': {'type': 'MiddleFlowLoss', 'loss_weight': 0.01}},
    'HOFFR': {
        'deblur_opt': {'type': 'MSELoss', 'loss_weight': 0.5},
        'flow_opt': {'type': 'PyramidWarpLoss', 'loss_weight': 0.01}}}


def on_gpu(test):
    for mark in GPU:
        test = mark(test)
    return test


@pytest.fixture(params=['cpu', pytest.param('cuda', marks=GPU)])
def device(request) -> str:
    return request.param


@pytest.fixture(autouse=True)
def full_precision():
    before = torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    yield
    torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = before


def make_model(net: str, device: str, *, checkpoint: bool = False, **train):
    """The network's model with its losses, always with the same weights; `train` are more of its options."""
    torch.manual_seed(0)
    name = NETS[net]['type']
    model = build_model({
        'name': 'gpu', 'model_type': f'{name}Model', 'scale': 4, 'num_gpu': int(device == 'cuda'), 'manual_seed': 0,
        'dist': False, 'rank': 0, 'world_size': 1, 'is_train': True, 'path': {}, 'datasets': {'train': {}},
        'network_g': {**NETS[net], 'checkpoint': checkpoint},
        'train': {
            'optim_g': {'type': 'Adam', 'lr': 1e-4}, 'total_iter': 100,
            'scheduler': {'type': 'MultiStepLR', 'milestones': [1000], 'gamma': 0.5},
            'pixel_opt': {'type': 'L1Loss'}, **LOSSES[name], **train}})
    assert model.device.type == device
    return model


def train(model, batch: int = 2, patch: int = 16, num_steps: int = 3) -> list[dict[str, float]]:
    """The losses of steps on the same batch of smooth noise."""
    noise = torch.rand(batch, 9, patch // 4, patch // 4, generator=torch.Generator().manual_seed(1))
    gt, lq = (torch.nn.functional.interpolate(noise, size=(size, size), mode='bicubic').unflatten(1, (3, 3))
              for size in (4 * patch, patch))
    logs = []
    for step in range(1, num_steps + 1):
        model.feed_data({'lq': lq, 'gt': gt, 'lq_sharp': lq})
        model.optimize_parameters(step)
        logs.append(dict(model.get_current_log()))
    return logs


def assert_close_losses(actual: list[dict[str, float]], expected: list[dict[str, float]], tolerance: float) -> None:
    for ours, theirs in zip(actual, expected, strict=True):
        assert ours.keys() == theirs.keys() and all(math.isfinite(value) for value in ours.values())
        for name in (name for name in ours if name.startswith('l_')):
            assert ours[name] == pytest.approx(theirs[name], rel=tolerance), name


# ---------------------------------------------------------------- the same results


@on_gpu
@pytest.mark.parametrize('name', ['small', 'hoffr'])
def test_network_equals_cpu(name):
    net = build_network(NETS[name])
    lq = torch.rand(1, 2, 3, 32, 40)
    gpu_net = copy.deepcopy(net).cuda()
    expected, output = net(lq), gpu_net(lq.cuda())
    torch.testing.assert_close(output.cpu(), expected, atol=1e-4, rtol=1e-4)
    expected.square().mean().backward()
    output.square().mean().backward()
    for (name, p), q in zip(net.named_parameters(), gpu_net.parameters(), strict=True):
        if name.startswith('deblur_tail.'):  # makes no part of HOFFR's output
            continue
        torch.testing.assert_close(q.grad.cpu(), p.grad, atol=1e-4, rtol=1e-2, msg=lambda text, name=name: name + text)


@on_gpu
@pytest.mark.parametrize('stride', [1, 2])
@pytest.mark.parametrize('strip', [2**12, 2**24])
def test_pac_equals_cpu(stride, strip, monkeypatch):
    monkeypatch.setitem(STRIP_NUMEL, 'cuda', strip)
    x, weight = torch.rand(2, 8, 12, 16), torch.rand(4, 8, 5, 5)
    guide = torch.rand(2, 3, 12 * stride, 16 * stride)
    grads = []
    for device in ('cpu', 'cuda'):
        leaves = [t.detach().to(device).requires_grad_() for t in (x, weight, guide)]
        out = pac_conv2d(leaves[0], pac_kernel(leaves[2], 5), leaves[1], stride=stride)
        out.square().sum().backward()
        grads.append([out.detach().cpu(), *[leaf.grad.cpu() for leaf in leaves]])
    for on_cpu, on_cuda in zip(*grads, strict=True):
        torch.testing.assert_close(on_cuda, on_cpu, atol=1e-3, rtol=1e-4)


@pytest.mark.parametrize('net', ['tiny', 'small', 'hoffr'])
def test_losses_equal_cpu(net, device):
    expected = train(make_model(net, 'cpu'))
    assert_close_losses(train(make_model(net, device)), expected, tolerance=1e-3)
    assert expected[-1]['l_sr'] < expected[0]['l_sr']


@pytest.mark.parametrize('net', ['tiny', 'hoffr'])
@pytest.mark.parametrize('amp', ['bf16', 'fp16'])
def test_half_precision_learns_like_single(net, amp, device):
    model = make_model(net, device, amp=amp)
    # GradScaler may leave out its first steps until its scale fits: what is learned is compared by its losses alone.
    assert_close_losses(train(model), train(make_model(net, device)), tolerance=0.03)
    assert model.scaler.is_enabled() == (amp == 'fp16')
    assert model.skipped == 0
    assert all(p.grad.isfinite().all() for p in model.net_g.parameters())


@pytest.mark.parametrize('net', ['tiny', 'hoffr'])
@pytest.mark.parametrize('options', [
    dict(channels_last=True), dict(accumulate=2), dict(checkpoint=True), dict(checkpoint=True, accumulate=2),
])
def test_options_change_no_loss(net, options, device):
    assert_close_losses(train(make_model(net, device, **options)), train(make_model(net, device)), tolerance=1e-3)


@on_gpu
@pytest.mark.parametrize('net', ['small', 'hoffr'])
@pytest.mark.parametrize('options', [dict(), dict(checkpoint=True), dict(amp='bf16')])
def test_compiled_equals_eager(net, options):
    torch._dynamo.reset()
    counters = torch._dynamo.utils.counters
    counters.clear()
    compiled, eager = (make_model(net, 'cuda', compile=on, **options) for on in (True, False))
    logs = train(compiled, num_steps=1)
    # A network that cannot be compiled runs without it, so only the log shows the difference.
    assert counters['frames']['ok'] == counters['frames']['total'] >= 4
    tolerance = 0.03 if 'amp' in options else 1e-3
    assert_close_losses(logs, train(eager, num_steps=1), tolerance)
    # A wrong gradient shows in no loss of one step.
    grads, expected = (torch.cat([p.grad.flatten() for p in model.net_g.parameters()]) for model in (compiled, eager))
    assert (grads - expected).norm() < tolerance * expected.norm()


# ---------------------------------------------------------------- memory


def peak_memory(model, **sizes) -> int:
    """Bytes that PyTorch's allocator has handed out at most in a step, after one that allocates."""
    train(model, num_steps=1, **sizes)
    torch.cuda.reset_peak_memory_stats()
    train(model, num_steps=1, **sizes)
    return torch.cuda.max_memory_allocated()


# MBNet as it is trained: on a GPU at full size.
HEADLINE = {'cpu': ('tiny', dict(batch=2, patch=16)), 'cuda': ('headline', dict(batch=16, patch=32))}


def test_headline_takes_a_step_in_bfloat16(device):
    net, sizes = HEADLINE[device]
    model = make_model(net, device, amp='bf16')
    first, second = train(model, **sizes, num_steps=2)
    assert all(math.isfinite(value) for log in (first, second) for value in log.values())
    assert model.skipped == 0
    if device == 'cuda':
        assert peak_memory(model, **sizes) < 20 * GIB  # a card of 24 GB


@on_gpu
@pytest.mark.parametrize('amp', ['none', 'bf16'])
def test_checkpoint_lowers_memory(amp):
    sizes = dict(batch=8, patch=32)
    with_checkpoint = peak_memory(make_model('small', 'cuda', amp=amp, checkpoint=True), **sizes)
    without = peak_memory(make_model('small', 'cuda', amp=amp), **sizes)
    assert with_checkpoint < 0.65 * without
