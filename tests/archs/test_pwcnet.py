import numpy as np
import pytest
import torch
from torch.nn import functional as F

from basicsr_stvsr.archs.arch_util import warp
from basicsr_stvsr.archs.pwcnet_arch import PWCNet, cost_volume, published_names, warp_or_zero

pytestmark = pytest.mark.numeric


@pytest.fixture(scope='module')
def net():
    torch.manual_seed(0)
    return PWCNet().eval()


def published_weights(net):
    """A checkpoint as the authors publish it, weights drawn in the alphabetical order of their names."""
    ours = net.state_dict()
    shapes = {theirs: ours[name].shape for theirs, name in published_names().items()}
    shapes |= {'deconv2.weight': (2, 2, 4, 4), 'deconv2.bias': (2,)}
    state = {}
    for seed, name in enumerate(sorted(shapes)):
        std = (2 / np.prod(shapes[name][1:])) ** 0.5 if name.endswith('weight') else 0.1
        values = np.random.RandomState(seed).standard_normal(tuple(shapes[name])) * std
        state[name] = torch.from_numpy(values).float()
    return state


def test_cost_volume_equals_the_reference(load_reference):
    reference = load_reference('pwc_correlation_d4')
    one, two = (reference[f'in/{name}'].requires_grad_() for name in ('one', 'two'))
    volume = cost_volume(one, two)
    torch.testing.assert_close(volume, reference['out/y'], rtol=1e-5, atol=1e-6)
    (volume * reference['cot/y']).sum().backward()
    torch.testing.assert_close(one.grad, reference['grad/in/one'], rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(two.grad, reference['grad/in/two'], rtol=1e-5, atol=1e-6)


def test_cost_volume_by_hand():
    first, second = torch.zeros(1, 2, 3, 3), torch.zeros(1, 2, 3, 3)
    first[0, :, 1, 1] = torch.tensor([2.0, 4.0])
    second[0, :, 0, 2] = torch.tensor([3.0, 5.0])  # one up, one to the right
    volume = cost_volume(first, second, max_displacement=1)
    expected = torch.zeros(9, 3, 3)
    expected[2, 1, 1] = (2 * 3 + 4 * 5) / 2  # row dy = -1, column dx = +1
    assert torch.equal(volume[0], expected)


def test_warp_or_zero_leaves_no_partial_pixels():
    feat, flow = torch.ones(1, 1, 4, 4), torch.zeros(1, 2, 4, 4)
    flow[:, 0] = 0.5
    expected = torch.tensor([1.0, 1, 1, 0]).expand(1, 1, 4, 4)  # half of the last column would come from outside
    torch.testing.assert_close(warp_or_zero(feat, flow), expected)


def test_parameters_of_the_published_layout(net):
    assert sum(p.numel() for p in net.parameters()) == 9_374_274
    assert sorted(published_names().values()) == sorted(net.state_dict())


# The forward pass of the authors' network (NVlabs/PWC-Net) in float64, its CUDA correlation replaced by plain PyTorch
# and grid_sample called with the align_corners=True of its time, on the weights and images of the test below; the flow
# in pixels of the 1/4 grid, every fifth row and ninth column.
OFFICIAL_FLOW = torch.tensor([
    [[-0.36458, 1.11666, -1.41691, 3.82563],
     [5.83922, -7.94684, 5.31860, 5.96357],
     [3.39068, 0.04758, 3.35611, -0.13472],
     [1.18175, -5.99877, -1.93179, 0.17731]],
    [[0.49846, -4.86610, 1.74995, -5.99159],
     [3.56470, 18.93235, 28.21886, -1.11349],
     [-0.62497, 4.30445, 12.75211, 1.94677],
     [-0.74758, 3.15470, 4.94307, 1.43416]],
])


def test_published_checkpoint_gives_the_official_flow(net, tmp_path):
    path = tmp_path / 'pwc_net.pth.tar'
    torch.save({'state_dict': {f'module.{name}': value for name, value in published_weights(net).items()}}, path)
    # In float64, since a threshold decides which pixels a flow takes out of the image
    loaded = PWCNet(pretrained=str(path)).double()
    images = torch.from_numpy(np.random.RandomState(1000).rand(1, 6, 64, 128)).float().double()
    with torch.no_grad():
        flow = loaded.flow_between(images[:, :3], images[:, 3:])
    torch.testing.assert_close(flow[0, :, ::5, ::9], OFFICIAL_FLOW.double(), rtol=0, atol=1e-4)


def test_own_checkpoint(net, tmp_path):
    path = tmp_path / 'pwc.pth'
    torch.save({'params': net.state_dict()}, path)
    loaded = PWCNet(pretrained=str(path)).state_dict()
    assert all(torch.equal(loaded[name], value) for name, value in net.state_dict().items())


def test_wrong_checkpoints_are_refused(net, tmp_path):
    path = tmp_path / 'weights.pth'
    with pytest.raises(FileNotFoundError, match=r'weights\.pth does not exist.*pwc_net\.pth\.tar in NVlabs/PWC-Net'):
        PWCNet(pretrained=str(path))
    path.write_bytes(b'<html>not found</html>')
    with pytest.raises(ValueError, match=r'weights\.pth is a web page.*PWC-Net'):
        PWCNet(pretrained=str(path))
    torch.save([1, 2], path)
    with pytest.raises(ValueError, match='holds no tensors by name'):
        PWCNet(pretrained=str(path))
    torch.save({'conv.weight': torch.zeros(1)}, path)
    with pytest.raises(ValueError, match=r'not hold the weights of PWC-Net .*126 missing .*1 unknown .*conv\.weight'):
        PWCNet(pretrained=str(path))
    torch.save(published_weights(net) | {'conv1a.0.bias': torch.zeros(3)}, path)
    with pytest.raises(ValueError, match=r'1 of another shape .*pyramid\.0\.0\.0\.bias \(3,\), expected \(16,\)'):
        PWCNet(pretrained=str(path))


def test_flow_makes_the_second_image_look_like_the_first(net, monkeypatch):
    """A pair with known motion; the network is replaced by the best match of the whole image in the cost volume."""
    first = F.interpolate(torch.rand(1, 3, 16, 16), scale_factor=4, mode='bicubic')
    second = first.roll((4, -8), dims=(2, 3))  # content moves 4 pixels down, 8 to the left

    def best_match(one, two):  # the flow from one to two, in pixels at 1/4 of the size
        one, two = (F.avg_pool2d(image, 4) for image in (one, two))
        one, two = (image - image.mean(dim=(2, 3), keepdim=True) for image in (one, two))
        dy, dx = divmod(cost_volume(one, two).mean(dim=(0, 2, 3)).argmax().item(), 9)
        return torch.tensor([dx - 4.0, dy - 4.0]).view(1, 2, 1, 1).expand(1, 2, 16, 16)

    monkeypatch.setattr(net, 'flow_between', best_match)
    flows = net(first, second)
    assert flows[-1][0, :, 20, 20].tolist() == [-8, 4]
    for factor, flow in zip((4, 2, 1), flows, strict=True):
        pair = [F.avg_pool2d(image, factor) for image in (first, second)]
        margin = 12 // factor
        inner = (..., slice(margin, -margin), slice(margin, -margin))
        torch.testing.assert_close(warp(pair[1], flow)[inner], pair[0][inner], rtol=0, atol=1e-4)


def test_images_are_resized_and_turned_to_bgr(net, monkeypatch):
    seen = []

    def constant_flow(one, two):
        seen.extend([one, two])
        return torch.tensor([1.0, 2.0]).view(1, 2, 1, 1).expand(1, 2, 16, 32)

    monkeypatch.setattr(net, 'flow_between', constant_flow)
    first = torch.tensor([0.1, 0.2, 0.3]).view(1, 3, 1, 1).expand(1, 3, 36, 100)
    quarter, half, full = net(first, 2 * first)
    assert [image.shape for image in seen] == [(1, 3, 64, 128)] * 2
    torch.testing.assert_close(seen[0][0, :, 0, 0], torch.tensor([0.3, 0.2, 0.1]))  # the first image, blue first
    expected = torch.tensor([1 * 100 / 128, 2 * 36 / 64]).view(1, 2, 1, 1)
    for factor, flow in ((1, quarter), (2, half), (4, full)):
        torch.testing.assert_close(flow, (factor * expected).expand(1, 2, 9 * factor, 25 * factor))


def test_shapes_and_clips_do_not_mix(net):
    first, second = torch.rand(2, 2, 3, 36, 68)
    with torch.no_grad():
        flows, alone = net(first, second), net(first[1:], second[1:])
    assert [tuple(flow.shape) for flow in flows] == [(2, 2, 9, 17), (2, 2, 18, 34), (2, 2, 36, 68)]
    for together, single in zip(flows, alone, strict=True):
        torch.testing.assert_close(together[1:], single, rtol=1e-4, atol=1e-5)


def test_every_parameter_learns():
    net = PWCNet()
    sum(flow.square().mean() for flow in net(torch.rand(1, 3, 32, 32), torch.rand(1, 3, 32, 32))).backward()
    grads = {name: parameter.grad for name, parameter in net.named_parameters()}
    assert not [name for name, grad in grads.items() if grad is None or not grad.isfinite().all() or not grad.any()]


def test_bfloat16_is_finite():
    first, second = torch.rand(2, 1, 3, 64, 64).bfloat16()
    with torch.no_grad():
        flows = PWCNet().bfloat16()(first, second)
    assert all(flow.dtype == torch.bfloat16 and flow.isfinite().all() for flow in flows)


def test_wrong_inputs_are_named(net):
    with pytest.raises(ValueError, match='PWCNet needs a height and width divisible by 4, but got 30x32'):
        net(torch.rand(1, 3, 30, 32), torch.rand(1, 3, 30, 32))
    with pytest.raises(ValueError, match=r'two equal batches of RGB images .* \(1, 3, 32, 32\) and \(1, 1, 32, 32\)'):
        net(torch.rand(1, 3, 32, 32), torch.rand(1, 1, 32, 32))
