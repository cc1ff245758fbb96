"""Rules for every network of this package; tests of what each one computes are in separate files."""
import pytest
import torch
from basicsr.utils.registry import ARCH_REGISTRY
from torch import nn

from basicsr_stvsr.archs.arch_util import fuse, to_channels_last

pytestmark = pytest.mark.numeric

MBNET = {
    'flow_net': {'type': 'OFRNet', 'num_feat': 8, 'num_res': 1},
    'refine_net': {'type': 'PACFlowNet', 'num_feat': 4, 'guide_channels': 2},
    'vsr_net': {'type': 'RDN', 'num_feat': 16, 'num_grow': 4, 'num_blocks': 1, 'num_layers': 1},
    'vfi_net': {'type': 'GridNet', 'channels': [4, 4, 4]},
}
PAIR = (2, 3, 16, 20)
# The inputs of a VSR net of MBNet: LR pair, last SR pair and feedback in LR (space to depth), warped LR pair, flows.
VSR_INPUTS = ((2, 6, 8, 10), (2, 96, 8, 10), (2, 6, 8, 10), (2, 96, 8, 10), (2, 4, 8, 10))

# name -> (smallest useful options, shapes of the inputs, shapes of the outputs); a new arch adds one row. 'RDN, small'
# is RDN with the options that the small networks use.
# Two clips each, and one size with each multiple that the arch states, but not with twice that.
CASES = {
    'BicubicAverage': (dict(), ((2, 2, 3, 8, 10),), ((2, 3, 3, 32, 40),)),
    'BicubicDIS': (dict(), ((2, 2, 3, 8, 10),), ((2, 3, 3, 32, 40),)),
    'ContextResNet': (dict(num_feat=4), ((2, 6, 8, 10),), ((2, 4, 8, 10),)),
    'DISInterpolation': (dict(), ((2, 2, 3, 16, 20),), ((2, 3, 3, 16, 20),)),
    'FISRNet': (dict(num_feat=4), ((2, 3, 3, 32, 64), (2, 2, 2, 2, 32, 64)), ((2, 3, 3, 64, 128),)),
    'FISRNet, small': (
        dict(num_feat=(2, 2, 4), residual=True, upscale='frames'),
        ((2, 3, 3, 32, 64), (2, 2, 2, 2, 32, 64)), ((2, 3, 3, 64, 128),)),
    'FSTRN': (dict(num_feat=8, num_frb=1, dropout=0.0), ((2, 5, 1, 8, 10),), ((2, 1, 1, 32, 40),)),
    'GridNet': (
        dict(feature_channels=16, channels=(4, 6, 8)),
        ((2, 6, 32, 40), (2, 16, 8, 10)), ((2, 3, 32, 40),)),
    'GridNet, small': (
        dict(feature_channels=16, channels=(4, 6, 8), num_columns=4, unshuffle=4, residual=True, blend=True),
        ((2, 6, 48, 80), (2, 16, 12, 20)), ((2, 3, 48, 80),)),
    'HOFFR': (
        dict(num_feat=8, num_block=1, num_rcab=1, reduction=4, num_flow_feat=4),
        ((2, 3, 3, 8, 10),), ((2, 3, 3, 32, 40),)),
    'HOFFR, small': (
        dict(num_feat=8, num_block=1, num_rcab=1, reduction=4, num_flow_feat=4, upscale='direct'),
        ((2, 3, 3, 8, 10),), ((2, 3, 3, 32, 40),)),
    'MBNet': (MBNET, ((2, 2, 3, 12, 20),), ((2, 3, 3, 48, 80),)),
    'OFRNet': (dict(num_feat=8, num_res=1), (PAIR, PAIR), ((2, 2, 4, 5), (2, 2, 8, 10), (2, 2, 16, 20))),
    'PACFlowNet': (
        dict(num_feat=4, guide_channels=2),
        ((2, 4, 8, 10), (2, 6, 32, 40)), ((2, 4, 32, 40),)),
    'PACFlowNet, small': (
        dict(num_feat=4, guide_channels=2, kernel_size=3, unshuffle=2),
        ((2, 4, 8, 10), (2, 6, 32, 40)), ((2, 4, 32, 40),)),
    'PWCNet': (dict(), (PAIR, PAIR), ((2, 2, 4, 5), (2, 2, 8, 10), (2, 2, 16, 20))),
    'RBPN': (dict(base_filter=8, num_feat=4, num_resblock=1), VSR_INPUTS, ((2, 6, 32, 40), (2, 4, 8, 10))),
    'RDN': (
        dict(num_feat=8, num_grow=4, num_blocks=2, num_layers=2), VSR_INPUTS, ((2, 6, 32, 40), (2, 8, 8, 10))),
    'RDN, small': (
        dict(num_feat=8, num_grow=4, num_blocks=2, num_layers=1, joint=False, upscale='direct', residual='last'),
        VSR_INPUTS, ((2, 6, 32, 40), (2, 16, 8, 10))),
    'RefinedDIS': (dict(channels=(4, 6, 8)), ((2, 2, 3, 16, 48),), ((2, 3, 3, 16, 48),)),
    'UNet': (
        dict(feature_channels=16, channels=(4, 6, 8)),
        ((2, 6, 32, 40), (2, 16, 8, 10)), ((2, 3, 32, 40),)),
    'VSRResDiscriminator': (dict(num_feat=4, patch_size=16), ((2, 1, 16, 16),), ((2, 1),)),
    'VSRResNet': (dict(num_feat=4, num_block=1), ((2, 5, 1, 8, 10),), ((2, 1, 1, 32, 40),)),
}

ASIDE = ('deblur_tail.',)  # makes what a loss is on, but no part of the output; tests/archs/test_hoffr.py


def build(name: str) -> nn.Module:
    return ARCH_REGISTRY.get(arch_of(name))(**CASES[name][0])


def arch_of(name: str) -> str:
    return name.partition(',')[0]


def weights(net: nn.Module) -> dict[str, nn.Parameter]:
    """Those on which the output depends."""
    return {name: parameter for name, parameter in net.named_parameters() if not name.startswith(ASIDE)}


def as_tuple(outputs) -> tuple[torch.Tensor, ...]:
    return (outputs,) if isinstance(outputs, torch.Tensor) else tuple(outputs)


@pytest.fixture(params=CASES)
def name(request) -> str:
    return request.param


@pytest.fixture
def case(name):
    """The net of a row and its random inputs."""
    return build(name), [torch.rand(shape) for shape in CASES[name][1]]


def names_where(predicate) -> list[str]:
    with torch.device('meta'):
        return [name for name in CASES if predicate(build(name))]


def size_multiple_of(net: nn.Module) -> int:
    """Of a network or of a part of one; discriminators have no contract."""
    specs = [getattr(net, name) for name in ('spec', 'part_spec') if hasattr(net, name)]
    return specs[0].size_multiple if specs else 1


only_learners = pytest.mark.parametrize('name', names_where(lambda net: any(True for _ in net.parameters())))
only_sized = pytest.mark.parametrize('name', names_where(lambda net: size_multiple_of(net) > 1))


def test_no_arch_is_left_out():
    assert {name for name, arch in ARCH_REGISTRY if arch.__module__.startswith('basicsr_stvsr.')} == set(
        map(arch_of, CASES))


def test_shapes(name, case):
    net, inputs = case
    assert tuple(tuple(output.shape) for output in as_tuple(net(*inputs))) == CASES[name][2]


@only_learners
def test_every_parameter_learns(case):
    net, inputs = case
    sum(output.square().mean() for output in as_tuple(net(*inputs))).backward()
    assert not [n for n, p in weights(net).items() if p.grad is None or not p.grad.isfinite().all()]


@only_learners
def test_every_parameter_matters(case):
    """A layer may start at zero and keep those before it from learning; once it has moved, nothing is without use."""
    net, inputs = case
    with torch.no_grad():
        for parameter in net.parameters():
            if not parameter.any():
                parameter.normal_(std=0.1)
    sum(output.square().mean() for output in as_tuple(net(*inputs))).backward()
    assert not [n for n, p in weights(net).items() if not p.grad.any()]


@torch.no_grad()
def test_saved_weights_give_the_same_output(name, case, tmp_path):
    net, inputs = case
    torch.save({'params': net.state_dict()}, tmp_path / 'net.pth')
    other = build(name)
    other.load_state_dict(torch.load(tmp_path / 'net.pth', weights_only=True)['params'])
    for ours, theirs in zip(as_tuple(net(*inputs)), as_tuple(other(*inputs)), strict=True):
        assert torch.equal(ours, theirs)


@torch.no_grad()
def test_clips_do_not_mix(case):
    net, inputs = case
    together, alone = as_tuple(net.eval()(*inputs)), as_tuple(net(*[x[1:] for x in inputs]))
    for both, second in zip(together, alone, strict=True):
        torch.testing.assert_close(both[1:], second, rtol=1e-4, atol=1e-5)


@torch.no_grad()
@only_sized
@pytest.mark.parametrize('axis', [-2, -1], ids=['height', 'width'])
def test_sizes_off_the_multiple_are_refused(name, case, axis):
    net, inputs = case
    inputs = [x.narrow(axis, 0, x.shape[axis] - 1) for x in inputs]
    height, width = inputs[0].shape[-2:]
    multiple = size_multiple_of(net)
    with pytest.raises(ValueError, match=f'{arch_of(name)} .*{multiple}, but got {height}x{width}'):
        net(*inputs)


@torch.no_grad()
def test_bfloat16_is_finite(case):
    net, inputs = case
    for output in as_tuple(net.bfloat16()(*[x.bfloat16() for x in inputs])):
        assert output.dtype in (torch.bfloat16, torch.float32) and output.isfinite().all()  # flows stay float32


@torch.no_grad()
def test_autocast_stays_close(case):
    net, inputs = case
    expected = as_tuple(net(*inputs))
    with torch.autocast('cpu', torch.bfloat16):
        outputs = as_tuple(net(*inputs))
    for half, full in zip(outputs, expected, strict=True):
        assert half.dtype in (torch.bfloat16, torch.float32)
        assert (half.float() - full).abs().max() < 0.03 * full.abs().max()


@torch.no_grad()
def test_channels_last_changes_nothing(case):
    net, inputs = case
    expected = as_tuple(net(*inputs))
    net = to_channels_last(net)
    for output, contiguous in zip(as_tuple(net(*inputs)), expected, strict=True):
        torch.testing.assert_close(output, contiguous, rtol=1e-5, atol=1e-5)


def test_misspelt_options_are_refused(name):
    with pytest.raises(TypeError, match='num_feet'):
        ARCH_REGISTRY.get(arch_of(name))(**CASES[name][0], num_feet=8)


@pytest.mark.parametrize('bias', [True, False])
@pytest.mark.parametrize('layout', [torch.contiguous_format, torch.channels_last])
def test_fusing_equals_the_convolution_of_the_concatenation(layout, bias):
    conv = nn.Conv2d(3 + 5 + 4, 7, 1, bias=bias).double()
    feats = [torch.randn(2, channels, 6, 9).double().to(memory_format=layout).requires_grad_()
             for channels in (3, 5, 4)]
    expected, output = conv(torch.cat(feats, dim=1)), fuse(conv, feats)
    torch.testing.assert_close(output, expected)
    assert output.is_contiguous(memory_format=layout)
    weight = torch.randn_like(expected)
    for ours, theirs in zip(*(torch.autograd.grad((x * weight).sum(), (*feats, *conv.parameters()))
                              for x in (output, expected)), strict=True):
        torch.testing.assert_close(ours, theirs)
