"""FISR against numeric outputs of the authors' TensorFlow graph."""
import copy
import importlib.util
import json

import cv2
import numpy as np
import pytest
import torch
from conftest import SHARED
from fisr_weights import from_tensorflow, tensorflow_name
from torch.nn import functional as F

from basicsr_stvsr.archs.fisr_arch import FLOW_UNIT, FISRNet, legacy_subsample
from basicsr_stvsr.archs.resize import legacy_bilinear
from basicsr_stvsr.io.color_spaces import convert_clip
from basicsr_stvsr.losses.temporal_loss import MultiScaleTemporalLoss, temporal_terms

pytestmark = pytest.mark.numeric

REFS = SHARED / 'refs'


@pytest.fixture(scope='module')
def reference():
    """The module that makes the weights and inputs of the references."""
    path = REFS / 'fisr_reference.py'
    if not path.is_file():
        pytest.skip(f'no reference: {path} does not exist')
    spec = importlib.util.spec_from_file_location('fisr_reference', path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope='module')
def variables(reference) -> dict[str, np.ndarray]:
    lines = (REFS / 'fisr_tf_variables.txt').read_text().splitlines()
    shapes = {name: json.loads(f'[{shape}') for name, shape in (line.split(' [') for line in lines)}
    return {name: reference.weight(name, shape) for name, shape in shapes.items()}


@pytest.fixture(scope='module')
def net(variables) -> FISRNet:
    net = FISRNet()
    net.load_state_dict(from_tensorflow(variables, net))
    return net


def images(array: np.ndarray) -> torch.Tensor:  # (B, H, W, C) -> (B, C, H, W)
    return torch.from_numpy(np.ascontiguousarray(np.moveaxis(array, -1, 1)))


def test_parameters(variables):
    with torch.device('meta'):
        net = FISRNet()
    assert sum(p.numel() for p in net.parameters()) == 48_316_251
    assert [sum(p.numel() for p in level.parameters()) for level in net.levels] == [16_101_961, 16_107_145, 16_107_145]
    assert sorted(map(tensorflow_name, net.state_dict())) == sorted(variables) and len(variables) == 276


def test_resizes(load_reference):
    reference = load_reference('fisr_forward')
    x = reference['input_nhwc'].movedim(-1, 1)
    assert torch.equal(legacy_subsample(x, 4), reference['probe_bicubic_24'].movedim(-1, 1))
    assert torch.equal(legacy_subsample(x, 2), reference['probe_bicubic_48'].movedim(-1, 1))
    torch.testing.assert_close(
        legacy_bilinear(x[:, :3], 2), reference['probe_bilinear_192_first3ch'].movedim(-1, 1), rtol=0, atol=1e-7)
    assert legacy_bilinear(torch.tensor([[[[0., 4.]]]]), 2).tolist() == [[[[0, 2, 4, 4]] * 2]]


def test_forward(net, load_reference):
    reference, net = load_reference('fisr_forward'), copy.deepcopy(net).double()
    lq, flow, warped = reference['input_nhwc'].movedim(-1, 1).split((9, 8, 12), dim=1)
    with torch.no_grad():
        output, aux = net(lq.unflatten(1, (3, 3)), flow.unflatten(1, (2, 2, 2)) * FLOW_UNIT,
                          warped.unflatten(1, (2, 2, 3)), return_aux=True)
    for level, frames in enumerate(aux.levels, start=1):
        expected = reference[f'pred_l{level}_nhwc'].movedim(-1, 1)
        torch.testing.assert_close(frames.flatten(1, 2), expected, rtol=0, atol=2e-5)
    assert output is aux.levels[-1]


def test_sizes_off_the_multiple_are_refused():
    with pytest.raises(ValueError, match='FISRNet needs a height and width divisible by 32, but got 32x48'):
        FISRNet(num_feat=4)(torch.zeros(1, 3, 3, 32, 48), torch.zeros(1, 2, 2, 2, 32, 48))


# ---------------------------------------------------------------- loss

def test_every_term_by_hand():
    """One pixel a frame; the numbers were worked out on paper."""
    def clip(*values: float) -> torch.Tensor:
        return torch.tensor(values).view(1, -1, 1, 1, 1)

    windows = torch.stack((clip(1., 2, 4), clip(2., 3, 5), clip(7., 6, 8)), dim=1)
    strided, gt = clip(1., 4, 9), clip(0., 1, 3, 3, 5, 6, 10)
    expected = {'recn': 1 + 1 / 3 + 8 / 3, 'tm1': 4 + 4, 'tmm': 0 + 1, 'td1': 0 + 1 + 0 + 1 + 1 + 4, 'recn2': 10 / 3,
                'td2': 1 + 4, 'tm2': 11 / 3}
    terms = temporal_terms(windows, strided, gt)
    assert {name: float(term) for name, term in terms.items()} == pytest.approx(expected)
    assert float(temporal_terms(windows, strided, gt, 'paper')['td1']) == pytest.approx(0 + 0 + 1 + 0 + 4 + 4)
    with pytest.raises(ValueError, match="td_mode must be one of official, paper, but got 'papr'"):
        MultiScaleTemporalLoss(td_mode='papr')


@pytest.mark.parametrize('arguments, message', [
    ({'level_weights': [1, 2]}, r'level_weights must hold 3 numbers, one for each level, but is \[1, 2\]'),
    ({'lambda_td': -0.1}, 'lambdas and level_weights must not be negative, but one is -0.1'),
    ({'lambda_r': 0, 'lambda_tm1': 0, 'lambda_tmm': 0, 'lambda_td': 0, 'lambda_tm2': 0}, 'all terms have the weight 0'),
])
def test_weights_that_make_no_loss(arguments, message):
    with pytest.raises(ValueError, match=message):
        MultiScaleTemporalLoss(**arguments)


def network_inputs(arrays: dict[str, np.ndarray]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Frames, flows and warped frames of three windows of stride 1 and the one of stride 2, (B, 4, ...)."""
    frames, flow, warp, flow2, warp2 = (
        images(arrays[name]).unflatten(1, shape) for name, shape in (
            ('frames', (5, 3)), ('flow', (4, 2, 2)), ('warp', (4, 2, 3)), ('flow_ss2', (2, 2, 2)),
            ('warp_ss2', (2, 2, 3))))
    return (torch.stack([frames[:, 0:3], frames[:, 1:4], frames[:, 2:5], frames[:, ::2]], dim=1),
            torch.stack([flow[:, 0:2], flow[:, 1:3], flow[:, 2:4], flow2], dim=1) * FLOW_UNIT,
            torch.stack([warp[:, 0:2], warp[:, 1:3], warp[:, 2:4], warp2], dim=1))


def weighted_terms(net: FISRNet, x: tuple[torch.Tensor, ...], gt: torch.Tensor, loss: MultiScaleTemporalLoss) -> dict:
    _, aux = net(*(part.flatten(0, 1) for part in x), return_aux=True)
    outputs = [level.unflatten(0, (-1, 4)) for level in aux.levels]
    return loss([level[:, :3] for level in outputs], [level[:, 3] for level in outputs], gt)


@pytest.mark.slow
def test_loss_gradients_and_a_step_of_adam(net, reference):
    """Terms, the norms of all 276 gradients, and the total after a step, of the authors' graph."""
    expected = json.loads((REFS / 'fisr_loss.json').read_text())
    arrays = reference.loss_inputs()
    x, gt = network_inputs(arrays), images(arrays['label']).unflatten(1, (7, 3))
    net = copy.deepcopy(net)
    terms = weighted_terms(net, x, gt, MultiScaleTemporalLoss())
    names = {'recn': ('recnLoss', 1), 'tm1': ('tmLoss', 1), 'tmm': ('tmmLoss', 1), 'td1': ('tdLoss', 0.1),
             'recn2': ('recnLoss_ss2', 1), 'td2': ('tdLoss_ss2', 0.1), 'tm2': ('tmLoss_ss2', 0.1)}
    for name, (theirs, weight) in names.items():
        assert float(terms[name].detach()) == pytest.approx(weight * expected['loss'][theirs], rel=1e-5), name
    total = sum(terms.values())
    assert float(total.detach()) == pytest.approx(expected['loss']['total_loss'], rel=1e-5)

    optimizer = torch.optim.Adam(net.parameters(), lr=1e-4)
    total.backward()
    norms = {tensorflow_name(name): float(p.grad.double().norm()) for name, p in net.named_parameters()}
    assert norms == pytest.approx(expected['gradient_l2_norm'], rel=1e-3) and len(norms) == 276
    optimizer.step()
    with torch.no_grad():
        after = sum(weighted_terms(net, x, gt, MultiScaleTemporalLoss()).values())
    assert float(after) == pytest.approx(expected['after_one_adam_step']['total_loss'], rel=5e-4)


# ---------------------------------------------------------------- inputs

def test_frames_are_warped_as_the_authors_warp_them():
    """By OpenCV's remap of RGB, converted afterwards; a->b samples b, b->a a, b->c c, c->b b, half the way."""
    rgb = torch.rand(1, 3, 3, 24, 40)
    flow = torch.randint(-200, 200, (1, 2, 2, 2, 24, 40)) / 16  # remap knows 32 steps a pixel
    a, b, c = ('a', 0), ('b', 1), ('c', 2)
    warped = FISRNet.warp_halfway(convert_clip(rgb, 'rgb', 'yuv'), flow)
    x, y = np.meshgrid(np.arange(40, dtype=np.float32), np.arange(24, dtype=np.float32))
    for pair, direction, (name, number) in ((0, 0, b), (0, 1, a), (1, 0, c), (1, 1, b)):
        dx, dy = flow[0, pair, direction].numpy() * 0.5
        expected = cv2.remap(rgb[0, number].permute(1, 2, 0).numpy(), x + dx, y + dy, cv2.INTER_LINEAR,
                             borderMode=cv2.BORDER_REPLICATE)
        expected = convert_clip(torch.from_numpy(expected).permute(2, 0, 1), 'rgb', 'yuv')
        torch.testing.assert_close(warped[0, pair, direction], expected, rtol=0, atol=1e-5, msg=name)


def test_order_of_the_input_channels(monkeypatch):
    """Frames, flows / 192 (x, y of a->b, b->a, b->c, c->b), warped frames, as the spec counts them."""
    seen = []
    net = FISRNet(num_feat=2)
    monkeypatch.setattr(net.levels[2], 'forward', lambda x: seen.append(x) or torch.zeros(1, 9, 64, 64))
    lq = torch.rand(1, 3, 3, 32, 32)
    flow = torch.arange(8.).view(1, 2, 2, 2, 1, 1).expand(1, 2, 2, 2, 32, 32)
    warped = torch.rand(1, 2, 2, 3, 32, 32)
    net(lq, flow, warped)
    x, = seen
    torch.testing.assert_close(x[:, :9], lq.reshape(1, 9, 32, 32))
    torch.testing.assert_close(x[0, 9:17, 0, 0], torch.arange(8.) / 192)
    torch.testing.assert_close(x[:, 17:29], warped.reshape(1, 12, 32, 32))


def test_residual_networks_begin_with_plain_estimates():
    net = FISRNet(num_feat=2, residual=True)
    lq, flow = torch.rand(1, 3, 3, 32, 32), torch.zeros(1, 2, 2, 2, 32, 32)
    frames, aux = net(lq, flow, return_aux=True)
    a, b, c = lq.unbind(1)
    for number, expected in enumerate(((a + b) / 2, b, (b + c) / 2)):
        expected = F.interpolate(expected, scale_factor=2, mode='bicubic')
        torch.testing.assert_close(frames[:, number], expected)
        torch.testing.assert_close(aux.levels[0][:, number], expected[..., ::4, ::4])


def test_widths():
    small = FISRNet(num_feat=[6, 8, 16], residual=True)
    assert sum(p.numel() for p in small.parameters()) == 1_412_625 < 1_500_000
    with pytest.raises(ValueError, match=r'num_feat must be one number from 1 on, or 3, one a level, but is \[6, 8\]'):
        FISRNet(num_feat=[6, 8])
