"""What only a GPU can show: the same results as on a CPU, and the code paths that are taken there alone."""
import copy

import pytest
import torch

from basicsr_stvsr.archs.mbnet_arch import MBNET_PRESETS, MBNet
from basicsr_stvsr.archs.pacnet_arch import STRIP_NUMEL, pac_conv2d, pac_kernel

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason='no CUDA device')]


@pytest.fixture(autouse=True)
def full_precision():
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False


def test_mbnet_equals_cpu():
    net = MBNet(**MBNET_PRESETS['small'])
    lq = torch.rand(1, 2, 3, 32, 40)
    gpu_net = copy.deepcopy(net).cuda()
    expected, output = net(lq), gpu_net(lq.cuda())
    torch.testing.assert_close(output.cpu(), expected, atol=1e-4, rtol=1e-4)
    expected.square().mean().backward()
    output.square().mean().backward()
    for (name, p), q in zip(net.named_parameters(), gpu_net.parameters(), strict=True):
        torch.testing.assert_close(q.grad.cpu(), p.grad, atol=1e-4, rtol=1e-2, msg=lambda text, name=name: name + text)


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
    for on_cpu, on_gpu in zip(*grads, strict=True):
        torch.testing.assert_close(on_gpu, on_cpu, atol=1e-3, rtol=1e-4)


@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16])
def test_autocast_trains(dtype):
    net = MBNet(**MBNET_PRESETS['small']).cuda()
    with torch.autocast('cuda', dtype):
        loss = net(torch.rand(1, 2, 3, 32, 32, device='cuda')).float().square().mean()
    loss.backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in net.parameters())
