"""HOFFR: its parts against outputs of the code of its relatives, counts, and the recurrence."""
import re

import cv2
import pytest
import torch
from basicsr.utils.matlab_functions import imresize
from conftest import ROOT
from reference_util import assert_equals, check_reference, load_in_order
from torch import nn
from torch._dynamo.testing import CompileCounterWithBackend
from torch.nn import functional as F

from basicsr_stvsr.archs.arch_util import warp
from basicsr_stvsr.archs.hoffr_arch import HOFFR, ChannelAttentionBlock, HOFFRState, HRFlowNet

pytestmark = pytest.mark.numeric


def small_net(**options):
    options = {'num_feat': 8, 'num_block': 2, 'num_rcab': 1, 'reduction': 4, 'num_flow_feat': 4} | options
    torch.manual_seed(0)
    return HOFFR(**options).eval()


def parameter_count(module):
    return sum(p.numel() for p in module.parameters())


# ---------------------------------------------------------------- parts

def test_flow_net_equals_sof_vsr(load_reference):
    """The ancestor works on luma, measures flow in units of 15.5 pixels, and does not rescale it between grids."""
    reference, net = load_reference('ofrnet_accv_x4_acTrue'), HRFlowNet(1, flow_unit=15.5, rescale=False)
    x = reference['in/x'].requires_grad_()
    leaves = {'in/x': x} | load_in_order(net, reference)
    # One value before a leaky ReLU is -4.9e-8, the next larger one 4.7e-6. Float32 made it positive in the reference,
    # which decides on the gradient.
    net.hr.blocks[0].layers[0].register_forward_hook(
        lambda module, inputs, output: torch.where(output.abs() < 1e-7, output + 1e-7, output))
    check_reference(reference, {'y': net(x[:, 1:], x[:, :1])[2] / 15.5}, leaves)


def test_attention_block_equals_rcan(load_reference):
    reference, net = load_reference('rcan_rcab_64'), ChannelAttentionBlock(64)
    x = reference['in/x'].requires_grad_()
    leaves = {'in/x': x} | load_in_order(net, reference)
    check_reference(reference, {'y': net(x)}, leaves)


def test_flows_count_pixels_of_their_own_grid():
    """Levels that give only a bias: half a pixel of the half-size grid, corrected by a quarter and by two."""
    net = HRFlowNet(3, 4)
    for level, value in ((net.coarse, 0.5), (net.fine, 0.25), (net.hr, 2.0)):
        nn.init.zeros_(level.tail[-1].weight)
        nn.init.constant_(level.tail[-1].bias, value)
    coarse, flow, hr_flow = net(*torch.rand(2, 1, 3, 8, 12))
    assert torch.equal(coarse, torch.full((1, 2, 4, 6), 0.5))
    torch.testing.assert_close(flow, torch.full((1, 2, 8, 12), 2 * 0.5 + 0.25))
    torch.testing.assert_close(hr_flow, torch.full((1, 2, 32, 48), 4 * 1.25 + 2))


def test_refined_levels_see_the_warped_frame():
    """(0, 1) pixels: a's rows are found one row below in b. A level sees b, a, the warped b, its error and the flow."""
    net, (a, b) = HRFlowNet(1, 4), torch.rand(2, 1, 1, 6, 4)
    flow_ab = torch.tensor([0.0, 1.0]).view(1, 2, 1, 1).expand(1, 2, 6, 4)
    warped = torch.cat((b[..., 1:, :], b[..., -1:, :]), dim=-2)
    torch.testing.assert_close(net.refined(a, b, flow_ab), torch.cat((b, a, warped, a - warped, flow_ab), dim=1))


def written_out(weights, frame, estimate, num_block, num_rcab):
    """PF in functions of PyTorch: an LR frame and the estimate that came along, (B, 3, 4H, 4W) -> HR, deblurred LR."""
    def conv(name, x):
        weight = weights[f'{name}.weight']
        return F.conv2d(x, weight, weights[f'{name}.bias'], padding=weight.shape[-1] // 2)

    given, feats = torch.cat((frame, F.pixel_unshuffle(estimate, 4)), dim=1), {}
    for branch in ('deblur_branch', 'sr_branch'):
        if f'{branch}.fuse.weight' not in weights:
            continue
        x, outputs = F.leaky_relu(conv(f'{branch}.head.0', given), 0.1), []
        for block in (f'{branch}.blocks.{number}' for number in range(num_block)):
            x = x + conv(f'{block}.conv2', conv(f'{block}.conv1', x).relu())
            outputs.append(x)
        feats[branch] = conv(f'{branch}.fuse', torch.cat(outputs, dim=1))
    deblurred = frame + conv('deblur_tail', feats['deblur_branch']) if 'deblur_branch' in feats else None

    x = torch.cat(list(feats.values()), dim=1)
    for block in (f'fusion.{number}' for number in range(num_rcab)):
        residual = conv(f'{block}.2', conv(f'{block}.0', x).relu())
        mean = residual.mean(dim=(2, 3), keepdim=True)
        x = x + residual * conv(f'{block}.3.3', conv(f'{block}.3.1', mean).relu()).sigmoid()
    x = conv(f'fusion.{num_rcab}', x)
    for number in (0, 3):
        x = F.leaky_relu(F.pixel_shuffle(conv(f'reconstruction.{number}', x), 2), 0.1)
    x = conv('reconstruction.8', F.leaky_relu(conv('reconstruction.6', x), 0.1))
    return x + F.interpolate(frame, scale_factor=4, mode='bilinear', align_corners=False), deblurred


@pytest.mark.parametrize('options', [{'num_rcab': 2}, {'fusion': 'concat'}, {'deblur_branch': False}])
def test_frames_equal_those_written_out(options):
    """Of two frames; the second one's flow and estimate come from the first."""
    net, lq = small_net(num_block=3, **options).double(), torch.rand(2, 2, 3, 4, 6).double()
    with torch.no_grad():
        for name, parameter in net.named_parameters():
            if not name.startswith('flow_net.'):
                parameter.uniform_(-0.2, 0.2)  # no bias is zero any more
        clip, (parts,) = net(lq, return_aux=True)
        last_lq, last_hr = lq[:, 0], torch.zeros(2, 3, 16, 24).double()
        for number, part in enumerate(parts):
            flow = net.flow_net(lq[:, number], last_lq)[2]
            hr, deblurred = written_out(
                net.state_dict(), lq[:, number], warp(last_hr, flow), 3,
                0 if options.get('fusion') == 'concat' else options.get('num_rcab', 1))
            for ours in (part.hr, clip[:, number]):
                torch.testing.assert_close(ours, hr, rtol=1e-9, atol=1e-9)
            torch.testing.assert_close(part.deblurred, deblurred, rtol=1e-9, atol=1e-9)
            last_lq, last_hr = lq[:, number], hr


def test_the_network_adds_to_the_frame():
    """Where the last convolutions give nothing: OpenCV's bilinear interpolation, and the LR frame."""
    net, frame = small_net(), torch.rand(1, 3, 4, 6)
    for conv in (net.reconstruction[-1], net.deblur_tail):
        nn.init.zeros_(conv.weight)
        nn.init.zeros_(conv.bias)
    with torch.no_grad():
        _, ((part,),) = net(frame.unsqueeze(1), return_aux=True)
    larger = cv2.resize(frame[0].permute(1, 2, 0).numpy(), (24, 16), interpolation=cv2.INTER_LINEAR)
    torch.testing.assert_close(part.hr[0], torch.from_numpy(larger).permute(2, 0, 1))
    assert torch.equal(part.deblurred, frame)


# ---------------------------------------------------------------- counts

@pytest.mark.parametrize(('options', 'count'), [
    ({}, 3_543_242),
    ({'num_block': 8, 'num_rcab': 4}, 3_528_786),
    # Without the level of 32 flow channels, 4 * 3 + 2 given ones: 9 * 14 * 32 + 9 * 64 * 32 + 9 * 32^2 + 32, and two
    # dense blocks of 9 * 32^2 (1 + 2 + 3 + 4) + 5 * 32^2
    ({'hr_flow': False}, 3_543_242 - (9 * 14 * 32 + 9 * 64 * 32 + 9 * 32**2 + 32 + 2 * (90 + 5) * 32**2)),
    # Without three blocks of two 3x3 convolutions of 128 features and attention through 8
    ({'fusion': 'concat'}, 3_543_242 - 3 * (2 * (9 * 128**2 + 128) + 2 * 8 * 128 + 8 + 128)),
    ({'recurrent': False}, 3_543_242),
])
def test_parameters(options, count):
    with torch.device('meta'):
        assert parameter_count(HOFFR(**options)) == count


def test_parameters_of_the_flow_net():
    with torch.device('meta'):
        assert [parameter_count(HRFlowNet(channels)) for channels in (3, 1)] == [623_532, 617_772]


def test_without_the_deblurring_branch():
    net = small_net(deblur_branch=False)
    frames, (parts,) = net(torch.rand(1, 2, 3, 4, 6), return_aux=True)
    assert frames.shape == (1, 2, 3, 16, 24) and [part.deblurred for part in parts] == [None, None]
    assert not [name for name, _ in net.named_parameters() if name.startswith('deblur')]


# ---------------------------------------------------------------- recurrence

@pytest.mark.parametrize('init_state', ['zeros', 'bicubic'])
def test_a_stream_equals_a_clip(init_state):
    net, lq, state = small_net(init_state=init_state), torch.rand(2, 5, 3, 6, 8), None
    with torch.no_grad():
        clip = net(lq)
        for frame, expected in zip(lq.unbind(1), clip.unbind(1), strict=True):
            hr, state = net.step(frame, state)
            torch.testing.assert_close(hr, expected, rtol=0, atol=1e-5)


def test_the_first_state():
    frame = torch.rand(1, 3, 4, 6)
    state = small_net().first_state(frame)
    assert torch.equal(state.lq, frame) and torch.equal(state.hr, torch.zeros(1, 3, 16, 24))
    state = small_net(init_state='bicubic').first_state(frame)
    assert torch.equal(state.lq, frame)
    torch.testing.assert_close(state.hr[0], imresize(frame[0], 4), rtol=0, atol=1e-5)


def carried(net, frame, state):
    """What the branches see besides the frame."""
    seen = []
    handle = net.sr_branch.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    net.step(frame, state)
    handle.remove()
    assert torch.equal(seen[0][:, :3], frame)
    return seen[0][:, 3:]


def test_the_last_estimate_comes_along_the_flow():
    """A flow of four HR pixels to the right: each LR pixel sees the 4x4 estimated pixels of its right neighbour."""
    net, frame, last = small_net(), torch.rand(1, 3, 4, 6), HOFFRState(torch.rand(1, 3, 4, 6), torch.rand(1, 3, 16, 24))
    for level in (net.flow_net.coarse, net.flow_net.fine, net.flow_net.hr):
        nn.init.zeros_(level.tail[-1].weight)
        nn.init.zeros_(level.tail[-1].bias)
    net.flow_net.fine.tail[-1].bias.data[0] = 1.0
    with torch.no_grad():
        seen = carried(net, frame, last)
        assert seen.shape == (1, 48, 4, 6)
        for y, x in ((0, 0), (3, 4)):
            block = last.hr[0, :, 4 * y:4 * y + 4, 4 * x + 4:4 * x + 8]
            torch.testing.assert_close(seen[0, :, y, x], block.reshape(48), rtol=0, atol=1e-5)


def test_without_recurrence_the_last_frame_stands_for_its_estimate():
    frame, lq = torch.rand(2, 1, 3, 4, 6)
    with torch.no_grad():
        for recurrent in (True, False):
            net = small_net(recurrent=recurrent)
            seen = [carried(net, frame, HOFFRState(lq, hr)) for hr in torch.rand(2, 1, 3, 16, 24)]
            assert torch.equal(*seen) != recurrent


def test_gradients_go_back_over_the_clip_or_as_far_as_asked():
    net, lq = small_net(), torch.rand(1, 4, 3, 4, 4)
    for truncate, reached in ((None, [0, 1, 2, 3]), (2, [2, 3]), (1, [3])):
        frames = lq.clone().requires_grad_()
        hr = net(frames, truncate=truncate)
        assert_equals(hr, net(lq))
        grad, = torch.autograd.grad(hr[:, 3].sum(), frames)
        # The frame before is seen by the flow network in any case.
        expected = sorted({*reached, max(0, reached[0] - 1)})
        assert [number for number in range(4) if grad[0, number].any()] == expected


def test_checkpointing_changes_nothing():
    lq = torch.rand(1, 3, 3, 4, 6)
    gradients = []
    for checkpoint in (False, True):
        net = small_net(checkpoint=checkpoint).train()
        frames, (parts,) = net(lq, return_aux=True)
        (frames.square().mean() + parts[1].deblurred.mean() + parts[2].flow_to_last[0].mean()).backward()
        gradients.append([parameter.grad for parameter in net.parameters()])
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other)


@pytest.fixture
def dynamo():
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    yield
    torch._dynamo.reset()


@pytest.mark.slow
@pytest.mark.usefixtures('dynamo')
def test_compiled_parts_equal_eager():
    """Traced forwards and backwards, but run by PyTorch's own kernels: compiling them takes minutes on a CPU."""
    net, lq = small_net(num_block=1), torch.rand(1, 2, 3, 4, 6)
    backend, results = CompileCounterWithBackend('aot_eager'), []
    for _ in range(2):
        hr, (parts,) = net(lq, return_aux=True)
        loss = hr.square().mean() + parts[1].deblurred.mean() + parts[1].flow_to_last[0].mean()
        results.append((hr, *torch.autograd.grad(loss, list(net.parameters()))))
        net.compile(backend=backend)
    torch.testing.assert_close(*results, rtol=1e-5, atol=1e-6)
    # The flow network, a branch, of which there are two alike, fusion and reconstruction, each in one graph
    assert backend.frame_count >= 4 and not torch._dynamo.utils.counters['graph_break']


def test_every_parameter_learns():
    net = small_net()
    frames, (parts,) = net(torch.rand(2, 3, 3, 4, 6), return_aux=True)
    (frames.square().mean() + sum(part.deblurred.square().mean() for part in parts)).backward()
    assert not [name for name, parameter in net.named_parameters() if not parameter.grad.any()]


def test_bfloat16_is_finite():
    frames = small_net().bfloat16()(torch.rand(1, 3, 3, 4, 6).bfloat16())
    assert frames.dtype == torch.bfloat16 and frames.isfinite().all()


def test_the_example_of_the_docs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    net = HOFFR().eval()
    torch.save({'params': net.state_dict()}, 'net_g_latest.pth')
    block = re.search(r'```python\n(.*?)```', (ROOT / 'docs' / 'hoffr.md').read_text(), re.DOTALL)[1]
    names = {}
    exec(block, names)
    assert names['hr'].shape == (1, 3, 128, 192) and torch.equal(names['state'].hr, names['hr'])


# ---------------------------------------------------------------- bad input

def test_refused():
    net = small_net()
    with pytest.raises(ValueError, match='HOFFR needs a height and width divisible by 2, but got 5x6'):
        net(torch.rand(1, 2, 3, 5, 6))
    for shape in ((2, 3, 4, 6), (2, 3, 1, 4, 6), (2, 0, 3, 4, 6)):
        message = f'clips of RGB frames, (B, T, 3, H, W) with T >= 1, but got {shape}'
        with pytest.raises(ValueError, match=re.escape(message)):
            net(torch.rand(shape))
    with pytest.raises(ValueError, match=r'RGB frames, \(B, 3, H, W\), but got \(1, 1, 4, 6\)'):
        net.step(torch.rand(1, 1, 4, 6))
    _, state = net.step(torch.rand(1, 3, 4, 6))
    with pytest.raises(ValueError, match=r'state belongs to frames of \(1, 3, 4, 6\) .* this frame is \(1, 3, 4, 8\)'):
        net.step(torch.rand(1, 3, 4, 8), state)
    for other in (tuple(state), state.hr, ()):
        with pytest.raises(TypeError, match=f'state must be None or the HOFFRState .* but is a {type(other).__name__}'):
            net.step(torch.rand(1, 3, 4, 6), other)
    with pytest.raises(ValueError, match='fusion must be one of attention, concat, but got'):
        small_net(fusion='sum')
    with pytest.raises(ValueError, match='init_state must be one of zeros, bicubic, but got'):
        small_net(init_state='bilinear')
    with pytest.raises(ValueError, match='HOFFR is built for scale 4, but got 2'):
        small_net(scale=2)


def test_options_of_attention_count_only_where_it_is():
    unused = {'num_rcab': 0, 'reduction': 99}
    assert parameter_count(small_net(fusion='concat', **unused)) == parameter_count(small_net(fusion='concat'))
    with pytest.raises(ValueError, match='num_rcab must be at least 1, but got 0'):
        small_net(num_rcab=0)
    with pytest.raises(ValueError, match='reduction must be from 1 to num_feat 8, but got 99'):
        small_net(reduction=99)
