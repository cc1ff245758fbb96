"""HOFFR: its parts against outputs of the code of its relatives, counts, and the recurrence."""
import re

import pytest
import torch
from conftest import ROOT
from reference_util import assert_equals, check_reference, load_in_order
from torch import nn

from basicsr_stvsr.archs.arch_util import upsample
from basicsr_stvsr.archs.hoffr_arch import HOFFR, ChannelAttentionBlock, HOFFRState, HRFlowNet


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
    # One value before a leaky ReLU is -4e-9 here and was positive there, which decides on its gradient.
    net.hr.blocks[0].layers[0].register_forward_hook(
        lambda module, inputs, output: torch.where(output.abs() < 1e-8, output + 1e-8, output))
    check_reference(reference, {'y': net(x[:, :1], x[:, 1:])[2] / 15.5}, leaves)


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
    """(0, 1) pixels: the row below moves up. Seen are both frames, the warped one, what it leaves, and the flow."""
    net, frames = HRFlowNet(1, 4), torch.rand(2, 1, 1, 6, 4)
    flow = torch.tensor([0.0, 1.0]).view(1, 2, 1, 1).expand(1, 2, 6, 4)
    seen = net.refined(*frames, flow)
    moved = torch.cat((frames[0][..., 1:, :], frames[0][..., -1:, :]), dim=-2)
    torch.testing.assert_close(seen, torch.cat((*frames, moved, frames[1] - moved, flow), dim=1))


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
    frames, parts = net(torch.rand(1, 2, 3, 4, 6), return_parts=True)
    assert frames.shape == (1, 2, 3, 16, 24) and [part.deblurred for part in parts] == [None, None]
    assert not [name for name, _ in net.named_parameters() if name.startswith('deblur')]


# ---------------------------------------------------------------- recurrence

@pytest.mark.parametrize('init_state', ['zeros', 'bilinear'])
def test_a_stream_equals_a_clip(init_state):
    net, lq, state = small_net(init_state=init_state), torch.rand(2, 5, 3, 6, 8), None
    with torch.no_grad():
        clip = net(lq)
        for frame, expected in zip(lq.unbind(1), clip.unbind(1), strict=True):
            hr, state = net.step(frame, state)
            torch.testing.assert_close(hr, expected, rtol=0, atol=1e-5)


def test_the_first_state():
    frame = torch.rand(1, 3, 4, 6)
    assert not small_net().first_state(frame).hr.any()
    assert torch.equal(small_net(init_state='bilinear').first_state(frame).hr, upsample(frame, 4))


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
        frames, parts = net(lq, return_parts=True)
        (frames.square().mean() + parts[1].deblurred.mean() + parts[2].flows[0].mean()).backward()
        gradients.append([parameter.grad for parameter in net.parameters()])
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other)


def test_every_parameter_learns():
    net = small_net()
    frames, parts = net(torch.rand(2, 3, 3, 4, 6), return_parts=True)
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
    with pytest.raises(ValueError, match=r'clips of RGB frames, \(B, T, 3, H, W\), but got \(2, 3, 4, 6\)'):
        net(torch.rand(2, 3, 4, 6))
    with pytest.raises(ValueError, match=r'RGB frames, \(B, 3, H, W\), but got \(1, 1, 4, 6\)'):
        net.step(torch.rand(1, 1, 4, 6))
    _, state = net.step(torch.rand(1, 3, 4, 6))
    with pytest.raises(ValueError, match=r'state is of frames of \(1, 3, 4, 6\), .* but this frame is \(1, 3, 4, 8\)'):
        net.step(torch.rand(1, 3, 4, 8), state)
    with pytest.raises(ValueError, match='fusion must be one of attention, concat, but got'):
        small_net(fusion='sum')
    with pytest.raises(ValueError, match='HOFFR is built for scale 4, but got 2'):
        small_net(scale=2)
