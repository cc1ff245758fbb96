"""MBNet and its parts against outputs of the official implementations, known motion and hand-computed numbers."""
import copy
import math
import re
import shutil
import subprocess
import sys
import weakref

import pytest
import torch
from basicsr.utils.registry import ARCH_REGISTRY
from conftest import ROOT
from reference_util import assert_equals, check_reference, group, load_in_order
from torch import nn
from torch._dynamo.testing import CompileCounterWithBackend
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from basicsr_stvsr.archs import pacnet_arch, pwcnet_arch
from basicsr_stvsr.archs.arch_util import warp
from basicsr_stvsr.archs.gridnet_arch import GridNet
from basicsr_stvsr.archs.mbnet_arch import MBNET_PRESETS, MBNet, interpolate_flow
from basicsr_stvsr.archs.ofrnet_arch import OFRNet
from basicsr_stvsr.archs.pacnet_arch import PACConvTranspose2d, PACFlowNet, pac_conv2d, pac_kernel
from basicsr_stvsr.archs.rdn_arch import RDN, ResidualDenseBlock, ResidualDenseNet
from basicsr_stvsr.archs.spec import PartSpec
from basicsr_stvsr.inference import restore_clip

pytestmark = pytest.mark.numeric

# ---------------------------------------------------------------------------------------------------------- warp


def test_warp_equals_sof_vsr(load_reference):
    reference = load_reference('sof_warp_acTrue')
    image, flow = (reference[f'in/{key}'].requires_grad_() for key in ('image', 'flow'))
    # A normalised displacement of 31 / (size - 1) is 15.5 pixels.
    check_reference(reference, {'y': warp(image, 15.5 * flow)}, {'in/image': image, 'in/flow': flow})


@pytest.mark.parametrize(('dx', 'dy'), [(2, 0), (0, -3), (-1, 2)])
def test_warp_by_whole_pixels_copies_them(dx, dy):
    scene = torch.rand(2, 3, 20, 24)
    image, moved = scene[..., 4:16, 4:20], scene[..., 4 + dy:16 + dy, 4 + dx:20 + dx]  # moved[y, x] = image[y+dy, x+dx]
    flow = torch.tensor([dx, dy]).float().view(1, 2, 1, 1).expand(2, 2, 12, 16)
    inside = (..., slice(3, -3), slice(3, -3))
    torch.testing.assert_close(warp(image, flow)[inside], moved[inside], rtol=0, atol=1e-5)


def test_warp_between_and_beyond_pixels():
    image, flow = torch.tensor([[[[0.0, 4.0, 8.0]]]]), torch.zeros(1, 2, 1, 3)
    flow[:, 0] = 0.25
    torch.testing.assert_close(warp(image, flow), torch.tensor([[[[1.0, 5.0, 8.0]]]]))
    torch.testing.assert_close(warp(image, flow, padding_mode='zeros'), torch.tensor([[[[1.0, 5.0, 6.0]]]]))


def test_warp_keeps_dtype_and_position_in_bfloat16():
    image, flow = torch.arange(1024.0).view(1, 1, 1, 1024).bfloat16(), torch.zeros(1, 2, 1, 1024).bfloat16()
    assert torch.equal(warp(image, flow), image)  # bfloat16 positions would be off by up to two pixels


def test_warp_refuses_a_flow_of_another_grid():
    with pytest.raises(ValueError, match=r'\(1, 2, 8, 8\) for an image .* but got \(1, 2, 4, 4\)'):
        warp(torch.rand(1, 3, 8, 8), torch.rand(1, 2, 4, 4))


# ---------------------------------------------------------------------------------------------------------- OFRNet


def test_ofrnet_equals_sof_vsr(load_reference):
    reference = load_reference('ofrnet_tip_x4_c32_acTrue')
    net = OFRNet(in_channels=1, num_feat=32, num_res=3, num_level=2).double()
    # RNN1 and RNN2 are the recurrent unit; SR, the source's way to HR flow, MBNet has not.
    weights = {key: value for key, value in group(reference, 'w/').items() if key.startswith('RNN')}
    net.load_state_dict(dict(zip(net.state_dict(), weights.values(), strict=True)))
    clip = reference['in/x'].requires_grad_()
    flows = net(clip[:, 1:], clip[:, :1])  # the source's first image is the one that it warps
    assert_equals(flows[0], 15.5 * reference['out/L1'])
    assert_equals(flows[1], 15.5 * reference['out/L2'])


def test_ofrnet_levels_share_their_unit_of_pixels():
    net, images = OFRNet(num_feat=8, num_res=1), torch.rand(2, 1, 3, 16, 16)
    nn.init.zeros_(net.unit.tail.weight)
    net.unit.tail.bias = nn.Parameter(torch.tensor([0.1, -0.2]))
    # Each level adds (0.1, -0.2) units of 15.5 px to twice the flow of the level before.
    for flow, levels in zip(net(*images), (1, 3, 7), strict=True):
        expected = (15.5 * levels * torch.tensor([0.1, -0.2])).view(1, 2, 1, 1).expand_as(flow)
        torch.testing.assert_close(flow, expected)


# ---------------------------------------------------------------------------------------------------------- RDN


@pytest.mark.parametrize(('name', 'build'), [
    ('rdn_rdb', lambda: ResidualDenseBlock(16, 16, 3)),
    ('rdn_tiny_x4', lambda: ResidualDenseNet(3, 3, 16, 16, num_blocks=2, num_layers=3)),
])
def test_rdn_equals_the_public_port(name, build, load_reference):
    reference, net = load_reference(name), build()
    x = reference['in/x'].requires_grad_()
    leaves = {'in/x': x} | load_in_order(net, reference)
    out = net(x)
    check_reference(reference, {'y': out[0] if isinstance(out, tuple) else out}, leaves)


def test_rdn_feature_is_that_of_the_second_convolution():
    net, x = ResidualDenseNet(5, 6, 8, 4, num_blocks=1, num_layers=1), torch.rand(1, 5, 6, 7)
    torch.testing.assert_close(net(x)[1], net.shallow2(net.shallow1(x)))


# ---------------------------------------------------------------------------------------------------------- PAC


@pytest.fixture(params=[2**21, 500], ids=['one strip', 'many strips'])
def strips(request, monkeypatch):
    monkeypatch.setitem(pacnet_arch.STRIP_NUMEL, 'cpu', request.param)


@pytest.mark.usefixtures('strips')
def test_pac_kernel_equals_pacnet(load_reference):
    reference = load_reference('packernel2d_k3_gauss')
    guide = reference['in/guide'].requires_grad_()
    check_reference(reference, {'y': pac_kernel(guide, 3).view_as(reference['out/y'])}, {'in/guide': guide})


@pytest.mark.usefixtures('strips')
@pytest.mark.parametrize(('name', 'stride'), [('pacconv2d_k3_gauss', 1), ('pacconvT_k3_s2', 2)])
def test_pac_conv_equals_pacnet(name, stride, load_reference):
    reference = load_reference(name)
    leaves = {key: reference[key].requires_grad_() for key in ('in/x', 'in/guide', 'w/weight', 'w/bias')}
    x, guide, weight, bias = leaves.values()
    if stride == 1:
        out = pac_conv2d(x, pac_kernel(guide, 3), weight, bias)
    else:
        net = PACConvTranspose2d(6, 4, kernel_size=3, stride=2).double()
        out = torch.func.functional_call(net, {'weight': weight, 'bias': bias}, (x, guide))
    check_reference(reference, {'y': out}, leaves)


@pytest.mark.parametrize('kernel_size', [1, 3, 5])
def test_pac_under_a_constant_guide_is_a_convolution(kernel_size):
    pad, x = kernel_size // 2, torch.rand(2, 3, 6, 7)
    weight, bias = torch.randn(4, 3, kernel_size, kernel_size), torch.randn(4)
    # Inside, where no window reaches the zeros around the image, all neighbours are equal.
    kernel = torch.ones(2, kernel_size**2, 6, 7)
    torch.testing.assert_close(pac_conv2d(x, kernel, weight, bias), F.conv2d(x, weight, bias, padding=pad))
    inside = (..., slice(pad, 6 - pad), slice(pad, 7 - pad))
    torch.testing.assert_close(pac_kernel(torch.full((2, 2, 6, 7), 3.0), kernel_size)[inside], kernel[inside])


@pytest.mark.usefixtures('strips')
@pytest.mark.parametrize(('kernel_size', 'stride'), [(3, 2), (5, 2), (3, 3), (5, 4)])
def test_transposed_pac_under_a_constant_guide_is_a_transposed_convolution(kernel_size, stride):
    x, weight, bias = torch.rand(2, 3, 5, 6), torch.randn(4, 3, kernel_size, kernel_size), torch.randn(4)
    kernel = torch.ones(2, kernel_size**2, 5 * stride, 6 * stride)
    flipped = weight.transpose(0, 1).flip(2, 3)  # PyTorch's spreads the window of an input pixel, PAC's gathers
    expected = F.conv_transpose2d(
        x, flipped, bias, stride, padding=kernel_size // 2, output_padding=stride - 1 - (kernel_size - 1) % 2)
    torch.testing.assert_close(pac_conv2d(x, kernel, weight, bias, stride), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.usefixtures('strips')
@pytest.mark.parametrize('stride', [1, 2])
def test_pac_gradients_equal_finite_differences(stride):
    def values(*shape):
        return torch.randn(shape, dtype=torch.double, requires_grad=True)

    def layer(x, guide, weight, bias):
        return pac_conv2d(x, pac_kernel(guide, 3), weight, bias, stride)

    inputs = values(2, 2, 3, 4), values(2, 2, 3 * stride, 4 * stride), values(3, 2, 3, 3), values(3)
    assert torch.autograd.gradcheck(layer, inputs)


def test_pac_in_bfloat16_stays_close():
    x, guide, weight = torch.rand(1, 4, 40, 40), torch.rand(1, 2, 40, 40), torch.randn(4, 4, 3, 3)
    expected = torch.autograd.grad(
        pac_conv2d(x, pac_kernel(guide, 3), weight.requires_grad_()).square().mean(), weight)[0]
    half = weight.detach().bfloat16().requires_grad_()
    out = pac_conv2d(x.bfloat16(), pac_kernel(guide.bfloat16(), 3), half)
    assert out.dtype == torch.bfloat16
    grad = torch.autograd.grad(out.float().square().mean(), half)[0]
    assert_equals(grad.float(), expected, tolerance=2e-2)


class SeenTensors(TorchDispatchMode):
    """Follows the storages that operations make, also within our own operators and in the backward pass."""

    def __init__(self):
        super().__init__()
        self.largest = self.live = self.peak = 0  # bytes
        self.known = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        own = torch._library.custom_ops.OPDEFS.get(f'{func.namespace}::{func._opname}')
        if own:
            with self:
                out = own._init_fn(*args, **(kwargs or {}))
        else:
            out = func(*args, **(kwargs or {}))
        for tensor in out if isinstance(out, (tuple, list)) else [out]:
            if isinstance(tensor, torch.Tensor):
                self.see(tensor.untyped_storage())
        return out

    def see(self, storage):
        key, size = storage._cdata, storage.nbytes()
        if key not in self.known:
            self.known.add(key)
            weakref.finalize(storage, self.forget, key, size)
            self.live += size
            self.largest, self.peak = max(self.largest, size), max(self.peak, self.live)

    def forget(self, key, size):
        self.known.remove(key)
        self.live -= size


def test_pac_never_holds_the_unfolded_input():
    channels, size, taps = 64, 96, 25
    x, guide = torch.rand(1, channels, size, size, requires_grad=True), torch.rand(1, 16, size, size)
    weight, kept = torch.rand(channels, channels, 5, 5, requires_grad=True), []
    with (torch.autograd.graph.saved_tensors_hooks(lambda tensor: kept.append(tensor) or tensor, lambda tensor: tensor),
          SeenTensors() as seen):
        pac_conv2d(x, pac_kernel(guide.requires_grad_(), 5), weight).mean().backward()
    unfolded = x.nbytes * taps
    assert seen.largest < 0.2 * unfolded
    assert sum({tensor.data_ptr(): tensor.nbytes for tensor in kept}.values()) < 0.1 * unfolded


@pytest.mark.slow
def test_pac_takes_less_memory_than_unfolding():
    """The benchmark at a quarter of its size; it also compares the gradients. Its times are for an idle machine."""
    command = [sys.executable, ROOT / 'scripts/benchmark/benchmark_pac.py', '--size', '128', '--pairs', '1']
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    ratio = re.search(r'ours / unfold: memory (\d\.\d+)', done.stdout)
    assert float(ratio[1]) < 0.4


def test_pac_refuses_what_does_not_fit():
    x, weight = torch.rand(1, 2, 4, 4), torch.rand(3, 2, 3, 3)
    with pytest.raises(ValueError, match=r'kernel must have the shape \(1, 9, 8, 8\), but has \(1, 9, 4, 4\)'):
        pac_conv2d(x, torch.ones(1, 9, 4, 4), weight, stride=2)
    with pytest.raises(ValueError, match='stride must not exceed the kernel size, but is 4'):
        pac_conv2d(x, torch.ones(1, 9, 16, 16), weight, stride=4)


def test_refined_flow_starts_as_the_upsampled_flow():
    flows = torch.tensor([1.0, -2.0, 0.5, 3.0]).view(1, 4, 1, 1).expand(1, 4, 4, 5)
    refined = PACFlowNet(num_feat=4, guide_channels=2)(flows, torch.rand(1, 6, 16, 20))
    # Four times the pixels, so four times the length in pixels.
    torch.testing.assert_close(refined, 4 * flows[..., :1, :1].expand(1, 4, 16, 20))
    direct = PACFlowNet(num_feat=4, guide_channels=2, residual=False)(flows, torch.rand(1, 6, 16, 20))
    assert not torch.allclose(direct, refined, atol=0.5)


# ---------------------------------------------------------------------------------------------------------- sizes


# Counted by hand from the published layers where there are any (OFRNet's unit, RDN, RBPN), and from our reading of the
# paper where there are none; the totals are the paper's 0.76 M (OFRNet) and 30.8 M (headline).
@pytest.mark.parametrize(('name', 'options', 'expected'), [
    ('OFRNet', dict(num_res=3), 186_720),
    ('OFRNet', dict(num_res=13), 713_120),
    ('OFRNet', dict(), 765_760),
    ('RDN', dict(num_blocks=8, num_layers=4), 3_638_662),
    ('RDN', dict(), 11_439_494),
    ('RDN', dict(num_blocks=16, num_layers=8), 22_388_614),
    ('PACFlowNet', dict(), 190_692),
    ('GridNet', dict(channels=(32, 64, 96)), 2_449_283),
    ('GridNet', dict(channels=(48, 96, 192)), 7_762_371),
    ('GridNet', dict(channels=(32, 96, 192)), 7_504_451),
    ('GridNet', dict(channels=(56, 112, 168)), 7_394_915),
    ('MBNet', MBNET_PRESETS['baseline'], 14_845_229),
    ('MBNet', MBNET_PRESETS['headline'], 30_849_517),
])
def test_parameter_counts(name, options, expected):
    with torch.device('meta'):
        net = ARCH_REGISTRY.get(name)(**options)
    assert sum(p.numel() for p in net.parameters()) == expected


def test_defaults_are_the_baseline_and_small_is_small():
    with torch.device('meta'):
        shapes = {
            name: {key: value.shape for key, value in MBNet(**options).state_dict().items()}
            for name, options in {'default': {}, **MBNET_PRESETS}.items()
        }
    assert shapes['default'] == shapes['baseline']
    assert sum(shape.numel() for shape in shapes['small'].values()) < 1_900_000


def test_rdn_of_one_rgb_frame():
    with torch.device('meta'):
        net = ResidualDenseNet(3, 3, 64, 64, num_blocks=16, num_layers=8)
    blocks = sum(9 * 64 * (i + 1) * 64 + 64 for i in range(8)) + 9 * 64 * 64 + 64  # dense layers, 1x1 fusion
    convs = [(3, 64, 9), (64, 64, 9), (16 * 64, 64, 1), (64, 64, 9), (64, 256, 9), (64, 256, 9), (64, 3, 9)]
    expected = 16 * blocks + sum(i * o * taps + o for i, o, taps in convs)
    assert sum(p.numel() for p in net.parameters()) == expected == 22_271_107


# ------------------------------------------------------------------------------------------ options of small networks

SMALL_RDN = dict(num_feat=16, num_grow=16, num_blocks=2, num_layers=1, joint=False, upscale='direct', residual='last')


def vsr_inputs(size: tuple[int, int] = (6, 8)) -> list[torch.Tensor]:
    return [torch.rand(2, channels, *size) for channels in (6, 96, 6, 96, 4)]


def perturb(net: torch.nn.Module) -> torch.nn.Module:
    """Give the layers that start at zero something to do."""
    with torch.no_grad():
        for parameter in net.parameters():
            if not parameter.any():
                parameter.normal_(std=0.1)
    return net.double()


@torch.no_grad()
def test_rdn_of_one_frame_at_a_time_treats_both_alike():
    net = perturb(RDN(**SMALL_RDN))
    inputs = [x.double() for x in vsr_inputs()]
    swapped = [torch.cat(x.chunk(2, dim=1)[::-1], dim=1) for x in inputs]
    for output, of_swapped in zip(net(*inputs), net(*swapped), strict=True):
        torch.testing.assert_close(of_swapped, torch.cat(output.chunk(2, dim=1)[::-1], dim=1), rtol=0, atol=1e-12)


@torch.no_grad()
def test_rdn_of_one_frame_at_a_time_sees_only_that_frame_and_its_neighbour():
    net = perturb(RDN(**SMALL_RDN))
    inputs = [x.double() for x in vsr_inputs()]
    changed = [x.clone() for x in inputs]
    for x in changed[:4]:  # all that is known of the later frame
        x[:, x.shape[1] // 2:] += 1
    (sr, _), (of_changed, _) = net(*inputs), net(*changed)
    assert torch.equal(sr[:, :3], of_changed[:, :3])
    assert not torch.allclose(sr[:, 3:], of_changed[:, 3:])


@torch.no_grad()
def test_rdn_of_one_frame_at_a_time_takes_a_frame_alone():
    net, inputs = perturb(RDN(**SMALL_RDN)), [x.double() for x in vsr_inputs()]
    alone = [net(*(x.chunk(2, dim=1)[place] for x in inputs)) for place in (0, 1)]
    for output, parts in zip(net(*inputs), zip(*alone, strict=True), strict=True):
        torch.testing.assert_close(torch.cat(parts, dim=1), output, rtol=0, atol=1e-12)


def stream_and_pairs(net: MBNet, lq: torch.Tensor, **options) -> tuple[torch.Tensor, torch.Tensor, int]:
    """A clip as it is restored, the pairs alone, and how many frames of the clip went through the VSR net."""
    frames = []
    with torch.no_grad():
        pairs = torch.stack([net(lq[:, start:start + 2]) for start in range(lq.shape[1] - 1)], dim=1)
        net.vsr_net.register_forward_hook(lambda _, inputs, __: frames.append(inputs[0].shape[1] // 3))
        return restore_clip(net, lq, **options), pairs.clamp(0, 1), sum(frames)


@pytest.mark.numeric
def test_a_frame_of_two_pairs_is_super_resolved_once():
    """Where the VSR net does not see the neighbour, which differs from pair to pair, nothing else changes."""
    net = perturb(MBNet(**MBNET_PRESETS['small']))
    with torch.no_grad():
        net.vsr_net.net.shallow1.weight[:, 3 + 48:] = 0
    lq = torch.rand(1, 4, 3, 16, 24, dtype=torch.float64)
    clip, pairs, num_frames = stream_and_pairs(net, lq)
    assert num_frames == 4
    torch.testing.assert_close(clip[:, ::2], torch.cat((pairs[:, :1, 0], pairs[:, :, 2]), dim=1), rtol=0, atol=1e-12)
    torch.testing.assert_close(clip[:, 1::2], pairs[:, :, 1], rtol=0, atol=1e-12)


@pytest.mark.numeric
def test_a_given_frame_is_that_of_the_first_pair_that_has_it():
    """With the neighbour, too; the frame between is made of it, in place of a second copy."""
    net = perturb(MBNet(**MBNET_PRESETS['small']))
    lq = torch.rand(1, 3, 3, 16, 24, dtype=torch.float64)
    clip, pairs, _ = stream_and_pairs(net, lq)
    torch.testing.assert_close(clip[:, ::2], torch.cat((pairs[:, :1, 0], pairs[:, :, 2]), dim=1), rtol=0, atol=1e-12)
    torch.testing.assert_close(clip[:, 1], pairs[:, 0, 1], rtol=0, atol=1e-12)
    assert 0 < (clip[:, 3] - pairs[:, 1, 1]).abs().max() < 0.2


@pytest.mark.numeric
@pytest.mark.parametrize('options, restoring', [
    ({'num_iters': 2, 'feedback': 'vfi'}, {}),
    ({'vsr_net': {**MBNET_PRESETS['small']['vsr_net'], 'joint': True}}, {}),
    ({}, {'overlap': 'middle'}),
])
def test_pairs_stay_alone_where_they_depend_on_each_other_or_should(options, restoring):
    net = perturb(MBNet(**{**MBNET_PRESETS['small'], **options}))
    clip, pairs, num_frames = stream_and_pairs(net, torch.rand(1, 3, 3, 16, 16, dtype=torch.float64), **restoring)
    assert num_frames == 2 * 2 * options.get('num_iters', 1)
    torch.testing.assert_close(clip[:, 1::2], pairs[:, :, 1], rtol=0, atol=1e-12)


@torch.no_grad()
def test_rdn_starts_from_the_frames_of_the_last_round():
    inputs = vsr_inputs()
    sr_pair, _ = RDN(**SMALL_RDN)(*inputs)
    assert torch.equal(sr_pair, F.pixel_shuffle(inputs[1], 4))


def small_grid(**options) -> GridNet:
    return GridNet(feature_channels=16, channels=(4, 6, 8), residual=True, **options)


@torch.no_grad()
@pytest.mark.parametrize('unshuffle', [1, 2, 4])
def test_blended_frame_lies_between_both(unshuffle):
    """With weights of zero, the bias of the last layer alone decides: a weight of 1/2, then 0.9 for the earlier one."""
    net, pair = small_grid(blend=True, unshuffle=unshuffle), torch.rand(1, 6, 32, 48)
    net.head[-1].weight.zero_()
    net.head[-1].bias.zero_()
    torch.testing.assert_close(net(pair, torch.rand(1, 16, 8, 12)), (pair[:, :3] + pair[:, 3:]) / 2)
    net.head[-1].bias[3 * unshuffle**2:] = math.log(9)
    torch.testing.assert_close(net(pair, torch.rand(1, 16, 8, 12)), 0.9 * pair[:, :3] + 0.1 * pair[:, 3:])


@torch.no_grad()
def test_pixels_of_an_unshuffled_grid_come_back_where_they_belong():
    """Only one pixel of each 4x4 block gets a bias."""
    net, pair = small_grid(unshuffle=4), torch.zeros(1, 6, 32, 48)
    net.head[-1].weight.zero_()
    net.head[-1].bias.zero_()
    net.head[-1].bias[16 + 4 * 2 + 3] = 1  # green, row 2, column 3 of its block
    output = net(pair, torch.rand(1, 16, 8, 12))
    assert torch.equal(output.nonzero()[:, 1:].unique(dim=0), torch.tensor(
        [[1, y, x] for y in range(2, 32, 4) for x in range(3, 48, 4)]))


@torch.no_grad()
def test_half_size_refinement_starts_as_the_upsampled_flow():
    flows = torch.tensor([1.0, -2.0, 0.5, 3.0]).view(1, 4, 1, 1).expand(1, 4, 4, 5)
    net = PACFlowNet(num_feat=4, guide_channels=2, kernel_size=3, unshuffle=2)
    torch.testing.assert_close(net(flows, torch.rand(1, 6, 16, 20)), 4 * flows[..., :1, :1].expand(1, 4, 16, 20))
    net.tail[-1].bias[0] = 0.25  # pixels of the grid of half size, so half a pixel at HR
    torch.testing.assert_close(net(flows, torch.rand(1, 6, 16, 20))[:, 0], torch.full((1, 16, 20), 4.5))


@pytest.mark.parametrize(('arch', 'options', 'message'), [
    (RDN, dict(upscale='bicubic'), 'upscale must be one of steps, direct'),
    (RDN, dict(residual='first'), 'residual must be one of False, True, last'),
    (GridNet, dict(unshuffle=3), 'unshuffle must be 1, 2 or 4'),
    (GridNet, dict(num_columns=5), 'num_columns must be even'),
    (GridNet, dict(blend=True), 'blend needs residual'),
    (GridNet, dict(feature_channels=24), 'divisible by 16'),
    (PACFlowNet, dict(unshuffle=4), 'unshuffle must be 1 or 2'),
    (PACFlowNet, dict(kernel_size=4), 'kernel_size must be odd'),
])
def test_small_options_are_checked(arch, options, message):
    with pytest.raises(ValueError, match=message):
        arch(**options)


# ---------------------------------------------------------------------------------------------------------- flow to t


def uniform(dx, dy):
    return torch.tensor([dx, dy]).view(1, 2, 1, 1)


@pytest.mark.parametrize('t', [0.0, 0.25, 0.5, 0.8, 1.0])
def test_uniform_motion_is_divided_exactly(t):
    # A scene moves by (6, -2) from a to b. At time t it has moved t of the way from a.
    flow_ta, flow_tb = interpolate_flow(uniform(6.0, -2.0), uniform(-6.0, 2.0), t)
    torch.testing.assert_close(flow_ta, t * uniform(-6.0, 2.0))
    torch.testing.assert_close(flow_tb, (1 - t) * uniform(6.0, -2.0))


def test_printed_form_has_the_times_swapped():
    flows = uniform(6.0, 0.0), uniform(-6.0, 0.0)
    flow_ta = {form: interpolate_flow(*flows, 0.25, form)[0][0, 0].item() for form in ('superslomo', 'printed')}
    assert flow_ta == {'superslomo': -1.5, 'printed': -4.5}
    curved = torch.randn(2, 1, 2, 4, 5)  # not each other's reverse
    for ours, printed in zip(interpolate_flow(*curved), interpolate_flow(*curved, form='printed'), strict=True):
        torch.testing.assert_close(ours, printed)
        torch.testing.assert_close(interpolate_flow(*curved)[0], (curved[1] - curved[0]) / 4)


# ---------------------------------------------------------------------------------------------------------- MBNet


def small_mbnet(**options):
    """Random in every layer, also where a trained network starts from zero; the same for the same layers."""
    torch.manual_seed(0)
    net = MBNet(**{
        'flow_net': {'type': 'OFRNet', 'num_feat': 8, 'num_res': 1, 'flow_unit': 4.0},
        'refine_net': {'type': 'PACFlowNet', 'num_feat': 4, 'guide_channels': 2},
        'vsr_net': {'type': 'RDN', 'num_feat': 16, 'num_grow': 4, 'num_blocks': 1, 'num_layers': 1},
        'vfi_net': {'type': 'GridNet', 'channels': [4, 4, 4]},
        **options,
    }).eval()
    nn.init.normal_(net.refine_net.tail[-1].weight, std=0.1)
    return net


@pytest.fixture
def clip():
    return torch.rand(2, 2, 3, 8, 12, generator=torch.Generator().manual_seed(1))


@torch.no_grad()
def test_one_round_is_the_first_of_two(clip):
    two, one = small_mbnet(), small_mbnet(num_iters=1, feedback='none')
    one.load_state_dict(two.state_dict())
    frames, aux = two(clip, return_aux=True)
    assert torch.equal(one(clip), aux.rounds[0])
    assert torch.equal(frames, aux.rounds[1])
    assert not torch.allclose(*aux.rounds)
    assert len(small_mbnet(num_iters=3)(clip, return_aux=True)[1].rounds) == 3


@torch.no_grad()
@pytest.mark.parametrize('option', [
    dict(feedback='vsr'), dict(init_feedback='reference'), dict(init_feedback='zeros'), dict(init_feedback='warped_hr'),
])
def test_feedback_options_change_the_output(option, clip):
    standard, other = small_mbnet(), small_mbnet(**option)
    other.load_state_dict(standard.state_dict())
    (frames, aux), (other_frames, other_aux) = (net(clip, return_aux=True) for net in (standard, other))
    assert not torch.allclose(frames, other_frames, atol=1e-5)
    # What stands for the feedback before the first round changes that, the kind of feedback only the second.
    assert torch.equal(aux.rounds[0], other_aux.rounds[0]) == ('feedback' in option)


@torch.no_grad()
def test_first_feedback(clip):
    lq_pair, warped, flow = clip.flatten(1, 2), torch.rand(2, 6, 8, 12), torch.rand(2, 2, 8, 12)
    upsampled = F.interpolate(lq_pair, scale_factor=4, mode='bilinear')
    for init_feedback, expected in (
        ('warped', F.interpolate(warped, scale_factor=4, mode='bilinear')),
        ('reference', upsampled),
        ('zeros', torch.zeros(2, 6, 32, 48)),
    ):
        torch.testing.assert_close(
            small_mbnet(init_feedback=init_feedback).first_feedback(upsampled, warped, flow, flow), expected)


@torch.no_grad()
def test_first_feedback_that_is_warped_at_hr():
    """A flow of half an LR pixel to the right is two HR pixels: whole ones, so that pixels are copied."""
    upsampled, right = torch.rand(2, 6, 32, 48), torch.tensor([0.5, 0]).view(1, 2, 1, 1).expand(2, 2, 8, 12)
    feedback = small_mbnet(init_feedback='warped_hr').first_feedback(upsampled, torch.rand(2, 6, 8, 12), right, -right)
    a, b = upsampled.chunk(2, dim=1)
    torch.testing.assert_close(feedback[:, :3, :, :-2], b[..., 2:])  # a's pixels are found two pixels to the right in b
    torch.testing.assert_close(feedback[:, 3:, :, 2:], a[..., :-2])


@torch.no_grad()
def test_interp_makes_no_difference_half_way(clip):
    torch.testing.assert_close(small_mbnet()(clip), small_mbnet(interp='printed')(clip))


def test_vfi_feature_decides_what_the_vfi_net_sees(clip):
    nets = {feature: small_mbnet(vfi_feature=feature, context_net=context) for feature, context in (
        ('vsr', None), ('none', None), ('resnet', {'type': 'ContextResNet', 'num_feat': 32}))}
    row0 = {feature: net.vfi_net.stems[0][0].in_channels for feature, net in nets.items()}
    assert row0 == {'vsr': 6 + 16 // 16, 'none': 6, 'resnet': 6 + 32 // 16}
    for feature, net in nets.items():
        learns = {'vsr': net.vsr_net.net.shallow2, 'resnet': net.context_net}.get(feature)
        if learns is not None:
            net(clip)[:, 1].mean().backward()
            assert all(p.grad.any() for p in learns.parameters())
    assert nets['vsr'].context_net is None


@pytest.mark.parametrize(('options', 'message'), [
    (dict(feedback='sr'), "feedback must be one of vfi, vsr, none, but got 'sr'"),
    (dict(vfi_feature='rdn'), "vfi_feature must be one of vsr, resnet, none, but got 'rdn'"),
    (dict(interp='linear'), "interp must be one of superslomo, printed, but got 'linear'"),
    (dict(init_feedback='none'), "init_feedback must be one of warped, warped_hr, reference, zeros, but got 'none'"),
    (dict(num_iters=0), 'num_iters must be 1 .*but got num_iters 0'),
    (dict(num_iters=1), "num_iters 1 and feedback 'vfi'"),
    (dict(feedback='none'), "num_iters 2 and feedback 'none'"),
    (dict(context_net={'type': 'ContextResNet'}), "context_net is used only with vfi_feature 'resnet'"),
    (dict(vsr_net={'type': 'RDNN'}), "no network named 'RDNN'"),
    (dict(scale=2), 'scale 4, but got 2'),
])
def test_wrong_options_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        small_mbnet(**options)


def test_a_misspelt_option_of_a_part_is_refused():
    with pytest.raises(TypeError, match='num_block'):
        small_mbnet(vsr_net={'type': 'RDN', 'num_block': 2})


def test_options_are_not_changed():
    options = {'vsr_net': {'type': 'RDN', 'num_feat': 16, 'num_blocks': 1, 'num_layers': 1}}
    small_mbnet(**options)
    assert options['vsr_net']['type'] == 'RDN'


@torch.no_grad()
def test_aux_holds_what_the_losses_need(clip):
    net = small_mbnet()
    frames, aux = net(clip, return_aux=True)
    assert torch.equal(frames, net(clip)) and frames.shape == (2, 3, 3, 32, 48)
    assert [round_.shape for round_ in aux.rounds] == [frames.shape] * 2
    a, b = clip.unbind(1)
    for flows, (first, second) in ((aux.lq_flows_ab, (a, b)), (aux.lq_flows_ba, (b, a))):
        assert [tuple(flow.shape) for flow in flows] == [(2, 2, 2, 3), (2, 2, 4, 6), (2, 2, 8, 12)]
        for flow, expected in zip(flows, net.flow_net(first, second), strict=True):
            torch.testing.assert_close(flow, expected)
    assert aux.hr_flow_ta.shape == aux.hr_flow_tb.shape == (2, 2, 32, 48)


@pytest.mark.parametrize('shape', [(1, 3, 3, 8, 8), (1, 2, 1, 8, 8), (2, 3, 8, 8)])
def test_other_inputs_are_refused(shape):
    with pytest.raises(ValueError, match=r'two RGB frames, \(B, 2, 3, H, W\), but got'):
        small_mbnet()(torch.rand(shape))


class KnownFlow(nn.Module):
    """A flow net that finds by how many whole LR pixels everything moves to the right or left from a to b."""

    part_spec = PartSpec()

    def forward(self, a, b):
        errors = [(b.roll(-dx, dims=3) - a)[..., 4:-4].abs().mean(dim=(1, 2, 3)) for dx in range(-3, 4)]
        flow_ab = torch.zeros_like(a[:, :2])
        flow_ab[:, :1] = torch.stack(errors).argmin(dim=0).sub(3).view(-1, 1, 1, 1)
        return [flow_ab]


class BilinearVSR(nn.Module):
    """A VSR net that upsamples, and remembers what it was given."""

    part_spec = PartSpec(feature_channels=48)

    def __init__(self, *, scale, num_feat):
        super().__init__()
        self.scale, self.num_feat, self.seen = scale, num_feat, []

    def forward(self, lq_pair, prev_sr, warped_lq, feedback, flows):
        self.seen.append(dict(prev_sr=prev_sr, warped_lq=warped_lq, feedback=feedback, flows=flows))
        return F.interpolate(lq_pair, scale_factor=self.scale, mode='bilinear'), prev_sr[:, :48]


@torch.no_grad()
@pytest.mark.parametrize('feedback', ['vfi', 'vsr'])
def test_uniform_motion_through_all_parts(feedback, monkeypatch):
    """Known flow, bilinear VSR, refinement and VFI as they start: what comes out and goes round is known everywhere.

    The two nets are not ours, and plug in by their names.
    """
    for part in (KnownFlow, BilinearVSR):
        monkeypatch.setitem(ARCH_REGISTRY._obj_map, part.__name__, part)
    net = MBNet(
        feedback=feedback, flow_net={'type': 'KnownFlow'}, vsr_net={'type': 'BilinearVSR', 'num_feat': 3},
        refine_net={'type': 'PACFlowNet', 'num_feat': 4, 'guide_channels': 2},
        vfi_net={'type': 'GridNet', 'channels': [4, 4, 4], 'residual': True})
    nn.init.zeros_(net.vfi_net.head[-1].weight)
    nn.init.zeros_(net.vfi_net.head[-1].bias)
    assert net.vfi_net.stems[2][0].in_channels == 6 + 48
    scene = torch.rand(2, 3, 8, 24)
    a, t, b = (scene[..., 4 - shift:20 - shift] for shift in (0, 1, 2))

    frames, aux = net(torch.stack((a, b), dim=1), return_aux=True)

    def assert_equal_inside(actual, expected):  # 3 LR pixels from the sides nothing has come in from outside
        edge = 3 * actual.shape[-1] // 16
        torch.testing.assert_close(actual[..., edge:-edge], expected[..., edge:-edge], rtol=0, atol=1e-5)

    a4, t4, b4 = (F.interpolate(frame, scale_factor=4, mode='bilinear') for frame in (a, t, b))
    assert_equal_inside(frames, torch.stack((a4, t4, b4), dim=1))
    for flow, dx in ((aux.hr_flow_ta, -4.0), (aux.hr_flow_tb, 4.0)):  # half the way, in HR pixels
        torch.testing.assert_close(flow, uniform(dx, 0.0).expand_as(flow))
    for round_ in net.vsr_net.seen:
        assert_equal_inside(round_['warped_lq'], torch.cat((a, b), dim=1))
        assert_equal_inside(F.pixel_shuffle(round_['prev_sr'], 4), torch.cat((a4, b4), dim=1))
        assert_equal_inside(F.pixel_shuffle(round_['feedback'], 4), torch.cat((a4, b4), dim=1))
        assert torch.equal(round_['flows'][0, :, 0, 0], torch.tensor([-2.0, 0.0, 2.0, 0.0]))


def test_bfloat16_keeps_large_motion():
    """Flows of 24 LR pixels, of which bfloat16 alone would lose a third of an HR pixel."""
    class Constant(torch.nn.Module):
        def forward(self, a, b):
            flow = torch.full((a.shape[0], 2, *a.shape[-2:]), 24.3)
            flow[a.shape[0] // 2:] *= -1
            return [flow]

    net = MBNet(**MBNET_PRESETS['small']).eval()
    net.flow_net = Constant()
    lq = torch.rand(1, 2, 3, 16, 32)
    with torch.no_grad():
        expected, aux = net(lq, return_aux=True)
        output, half_aux = net.bfloat16()(lq.bfloat16(), return_aux=True)
    assert output.dtype == torch.bfloat16 and half_aux.hr_flow_ta.dtype == torch.float32
    torch.testing.assert_close(half_aux.hr_flow_ta, aux.hr_flow_ta, atol=1e-3, rtol=0)
    error = (output.float() - expected).square().mean()
    assert error < 1e-4  # 40 dB


def test_parts_without_a_contract_are_refused(monkeypatch):
    class Bare(nn.Module):
        pass

    class NoFeature(nn.Module):
        part_spec = PartSpec()

        def __init__(self, *, scale):
            super().__init__()

    for part in (Bare, NoFeature):
        monkeypatch.setitem(ARCH_REGISTRY._obj_map, part.__name__, part)
    with pytest.raises(ValueError, match='Bare does not state what it needs: set its attribute part_spec'):
        small_mbnet(flow_net={'type': 'Bare'})
    with pytest.raises(ValueError, match="vfi_feature is 'vsr', but NoFeature returns no feature"):
        small_mbnet(vsr_net={'type': 'NoFeature'})
    with pytest.raises(ValueError, match='feature_channels must be a whole number of at least 0, but is -1'):
        PartSpec(feature_channels=-1)
    with pytest.raises(TypeError, match='feature_chanels'):
        PartSpec(feature_chanels=16)


def test_size_multiple_is_that_of_the_parts():
    assert MBNet(**MBNET_PRESETS['small']).spec.size_multiple == 4
    flow_net = {'type': 'OFRNet', 'num_feat': 8, 'num_res': 1, 'num_level': 4}
    net = MBNet(**{**MBNET_PRESETS['small'], 'flow_net': flow_net})
    assert net.spec.size_multiple == 8
    with pytest.raises(ValueError, match='MBNet needs a height and width divisible by 8, but got 12x12'):
        net(torch.rand(1, 2, 3, 12, 12))


# ---------------------------------------------------------------------------------------------------------- training


PARTS = {
    'standard': {},
    'residual': {
        'vsr_net': {'type': 'RDN', 'num_feat': 16, 'num_grow': 4, 'num_blocks': 1, 'num_layers': 1, 'residual': True},
        'vfi_net': {'type': 'GridNet', 'channels': [4, 4, 4], 'residual': True}},
    'direct flow': {'refine_net': {'type': 'PACFlowNet', 'num_feat': 4, 'guide_channels': 2, 'residual': False}},
    'PWC-Net': {'flow_net': {'type': 'PWCNet'}},
    'RBPN': {'vsr_net': {'type': 'RBPN', 'base_filter': 8, 'num_feat': 16, 'num_resblock': 1}},
    'U-Net': {'vfi_net': {'type': 'UNet', 'channels': [4, 4, 4]}},
    'context': {'vfi_feature': 'resnet', 'context_net': {'type': 'ContextResNet', 'num_feat': 16}},
    'no feature': {'vfi_feature': 'none'},
    'VSR feedback': {'feedback': 'vsr'},
    'no first feedback': {'init_feedback': 'zeros'},
    'one round': {'num_iters': 1, 'feedback': 'none'},
    'three rounds': {'num_iters': 3},
}


@pytest.fixture(params=PARTS)
def net(request, monkeypatch):
    """MBNet with each of its parts and ways, all of them small."""
    monkeypatch.setattr(pwcnet_arch, 'PYRAMID_CHANNELS', (4, 4, 4, 8, 8, 8))
    monkeypatch.setattr(pwcnet_arch, 'DECODER_CHANNELS', (8, 8, 8, 4, 4))
    monkeypatch.setattr(pwcnet_arch, 'CONTEXT_CHANNELS', (8, 8, 8, 8, 4, 4))
    return small_mbnet(**PARTS[request.param])


def step(net, lq, loss_scale=1.0):
    """Frames, aux and gradients of a loss on all that MBNet puts out."""
    net.zero_grad()
    frames, aux = net(lq, return_aux=True)
    flows = (aux.hr_flow_ta, aux.hr_flow_tb, *aux.lq_flows_ab, *aux.lq_flows_ba)
    loss = sum(round_.float().square().mean() for round_ in aux.rounds)
    loss = loss + 0.01 * sum(flow.abs().mean() for flow in flows)
    (loss_scale * loss).backward()
    return frames.detach(), aux, {name: p.grad / loss_scale for name, p in net.named_parameters()}


def assert_same_step(actual, expected, tolerance):
    (frames, aux, grads), (expected_frames, expected_aux, expected_grads) = actual, expected
    torch.testing.assert_close(frames, expected_frames, rtol=0, atol=tolerance)
    torch.testing.assert_close(aux, expected_aux, rtol=0, atol=tolerance)
    torch.testing.assert_close(grads, expected_grads, rtol=0, atol=tolerance)


def kept_bytes(net, lq):
    """What autograd keeps between the passes, besides the weights."""
    kept, weights = {}, {p.untyped_storage().data_ptr() for p in net.parameters()}

    def pack(tensor):
        storage = tensor.untyped_storage()
        kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        out = net(lq, return_aux=True)
    size = sum(size for address, size in kept.items() if address not in weights)
    del out  # only now, so that no address is given away twice
    return size


def test_checkpoint_changes_memory_alone(net, clip):
    expected, everything = step(net, clip), kept_bytes(net, clip)
    net.checkpoint = True
    assert_same_step(step(net, clip), expected, tolerance=1e-6)
    assert kept_bytes(net, clip) < 0.3 * everything


def test_checkpoint_lowers_the_peak(clip):
    """The peak falls by less, since in the backward pass one part at a time comes back."""
    peaks = []
    for checkpoint in (False, True):
        with SeenTensors() as seen:
            step(small_mbnet(checkpoint=checkpoint), clip)
        peaks.append(seen.peak)
    assert peaks[1] < 0.65 * peaks[0]


@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16])
def test_checkpoint_repeats_the_autocast(dtype, clip):
    net = small_mbnet()
    results = []
    for net.checkpoint in (False, True):
        with torch.autocast('cpu', dtype):
            frames, aux = net(clip, return_aux=True)
        (frames.float().square().mean() + aux.hr_flow_ta.square().mean()).backward()
        results.append((frames, [p.grad for p in net.parameters()]))
        net.zero_grad()
    torch.testing.assert_close(*results, rtol=0, atol=1e-6)


@pytest.mark.parametrize(('dtype', 'loss_scale', 'tolerance'), [
    (torch.bfloat16, 1, 0.03),
    (torch.float16, 2**12, 0.01),  # scaled as GradScaler does it; without, small gradients would vanish
])
def test_autocast_stays_close(net, clip, dtype, loss_scale, tolerance):
    frames, aux, grads = step(net, clip)
    with torch.autocast('cpu', dtype):
        half_frames, half_aux, half_grads = step(net, clip, loss_scale)
    assert half_frames.dtype in (dtype, torch.float32)  # float32 where a residual is added to an upsampled frame
    assert_equals(half_frames.float(), frames, tolerance)
    for flow, half_flow in ((aux.hr_flow_ta, half_aux.hr_flow_ta), (aux.lq_flows_ab[-1], half_aux.lq_flows_ab[-1])):
        assert half_flow.dtype == torch.float32
        torch.testing.assert_close(half_flow, flow, rtol=0, atol=4 * tolerance)  # pixels
    assert all(grad.dtype == torch.float32 and grad.isfinite().all() for grad in half_grads.values())
    flat, half_flat = (torch.cat([grad.flatten() for grad in of.values()]) for of in (grads, half_grads))
    assert (half_flat - flat).norm() < tolerance * flat.norm()


def test_channels_last_changes_nothing(net, clip):
    expected = step(net, clip)
    net = copy.deepcopy(net).to(memory_format=torch.channels_last)
    assert net.vfi_net.head[0].weight.is_contiguous(memory_format=torch.channels_last)
    for memory_format in (torch.contiguous_format, torch.channels_last_3d):  # of a clip, which has five dimensions
        assert_same_step(step(net, clip.contiguous(memory_format=memory_format)), expected, tolerance=1e-5)


@pytest.fixture
def dynamo(tmp_path, monkeypatch):
    monkeypatch.setenv('TORCHINDUCTOR_CACHE_DIR', str(tmp_path))
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


@pytest.mark.usefixtures('dynamo')
@pytest.mark.parametrize('checkpoint', [pytest.param(False, marks=pytest.mark.slow), True])
def test_compiled_parts_equal_eager(checkpoint, clip):
    """Traced forwards and backwards, but run by PyTorch's own kernels: compiling them takes minutes on a CPU."""
    net = small_mbnet(checkpoint=checkpoint, vfi_net={'type': 'UNet', 'channels': [4, 4, 4]})
    expected = step(net, clip)
    backend = CompileCounterWithBackend('aot_eager')
    net.compile(backend=backend, fullgraph=True)
    assert_same_step(step(net, clip), expected, tolerance=1e-6)
    assert backend.frame_count >= 4  # one graph a part, or more: the second round has inputs with a gradient
    compiled = backend.frame_count
    step(net, clip)
    assert backend.frame_count == compiled


@pytest.mark.slow
@pytest.mark.usefixtures('dynamo')
@pytest.mark.skipif(not shutil.which('g++'), reason='torch.compile needs g++ on a CPU')
def test_compiled_pac_equals_eager():
    net, x, guide = PACConvTranspose2d(3, 4), torch.rand(2, 3, 6, 5), torch.rand(2, 2, 12, 10)
    leaves = [x.requires_grad_(), guide.requires_grad_(), *net.parameters()]
    results = []
    for _ in range(2):
        out = F.relu(net(x, guide)).square()
        results.append((out, torch.autograd.grad(out.sum(), leaves)))
        net.compile(fullgraph=True)
    torch.testing.assert_close(*results, rtol=1e-5, atol=1e-5)
