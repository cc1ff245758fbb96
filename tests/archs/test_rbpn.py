import pytest
import torch
from reference_util import check_reference, group, load_in_order
from torch import nn

from basicsr_stvsr.archs.rbpn_arch import (
    DBPNS,
    RBPN,
    DownBlock,
    RecurrentBackProjection,
    ResnetBlock,
    UpBlock,
    conv_prelu,
)

pytestmark = pytest.mark.numeric


class OriginalRBPN(nn.Module):
    """The network of the paper around our recurrence: one frame, its neighbours and the flows to them."""

    def __init__(self, base_filter: int, num_feat: int, num_resblock: int, num_neighbour: int):
        super().__init__()
        self.feat0 = conv_prelu(3, base_filter, 3)
        self.feat1 = conv_prelu(8, base_filter, 3)
        self.core = RecurrentBackProjection(
            base_filter=base_filter, num_feat=num_feat, num_resblock=num_resblock, num_step=num_neighbour, scale=4
        )
        self.output = nn.Conv2d(num_neighbour * num_feat, 3, 3, padding=1)

    def forward(self, x, *neighbours_and_flows):
        half = len(neighbours_and_flows) // 2
        pairs = zip(neighbours_and_flows[:half], neighbours_and_flows[half:], strict=True)
        highs = self.core(self.feat0(x), [self.feat1(torch.cat([x, near, flow], dim=1)) for near, flow in pairs])
        return self.output(highs), highs


# Modules of the official code; the references hold their random weights, outputs and gradients.
PARTS = {
    'dbpn_upblock_x4': lambda: UpBlock(8, 4),
    'dbpn_downblock_x4': lambda: DownBlock(8, 4),
    'rbpn_resnetblock': lambda: ResnetBlock(8),
    'rbpn_dbpns_x4': lambda: DBPNS(16, 8, 4),
    'rbpn_tiny_x4': lambda: OriginalRBPN(16, 8, 2, 3),
}


@pytest.mark.parametrize('name', PARTS)
def test_equals_the_official_code(name, load_reference):
    reference, net = load_reference(name), PARTS[name]()
    inputs = {key: value.requires_grad_() for key, value in reference.items() if key.startswith('in/')}
    leaves = inputs | load_in_order(net, reference)
    outputs = net(*inputs.values())
    outputs = dict(zip(group(reference, 'out/'), outputs if isinstance(outputs, tuple) else [outputs], strict=True))
    # Computed in float64, the gradient of a slope differs from the float32 reference by up to 1.3e-4.
    check_reference(reference, outputs, leaves, slope_tolerance=5e-4)


def test_parameters_of_the_seven_frame_network():
    with torch.device('meta'):
        net = OriginalRBPN(base_filter=256, num_feat=64, num_resblock=5, num_neighbour=6)
    assert sum(p.numel() for p in net.parameters()) == 12_771_943  # 12.7 M in MBNet's Table 3


def small_net(**options):
    return RBPN(**{'base_filter': 8, 'num_feat': 4, 'num_resblock': 1, **options})


def random_inputs(batch=1, height=5, width=6, scale=4):
    folded = 6 * scale**2
    channels = {'lq_pair': 6, 'prev_sr': folded, 'warped_lq': 6, 'feedback': folded, 'flows': 4}
    return {name: torch.rand(batch, count, height, width) for name, count in channels.items()}


@pytest.mark.parametrize('scale', [2, 3, 4])
def test_shapes(scale):
    sr_pair, feature = small_net(scale=scale)(**random_inputs(batch=2, scale=scale))
    assert sr_pair.shape == (2, 6, 5 * scale, 6 * scale)
    assert feature.shape == (2, 4, 5, 6)
    assert small_net().part_spec.feature_channels == 4


@pytest.mark.parametrize('num_recurrence', [1, 2])
def test_every_parameter_learns(num_recurrence):
    net = small_net(num_recurrence=num_recurrence)
    sum(out.square().mean() for out in net(**random_inputs())).backward()
    grads = {name: parameter.grad for name, parameter in net.named_parameters()}
    assert not [name for name, grad in grads.items() if grad is None or not grad.isfinite().all() or not grad.any()]


@pytest.mark.parametrize('name', ['lq_pair', 'prev_sr', 'warped_lq', 'feedback', 'flows'])
def test_every_input_matters(name):
    net, inputs = small_net(), random_inputs()
    before = net(**inputs)[0]
    assert not torch.allclose(net(**{**inputs, name: inputs[name] + 0.1})[0], before)


def test_clips_do_not_mix():
    net, inputs = small_net().eval(), random_inputs(batch=2)
    alone = net(**{name: value[1:] for name, value in inputs.items()})
    for together, single in zip(net(**inputs), alone, strict=True):
        torch.testing.assert_close(together[1:], single)


def test_bfloat16_is_finite():
    net = small_net().bfloat16()
    outputs = net(**{name: value.bfloat16() for name, value in random_inputs().items()})
    assert all(out.dtype == torch.bfloat16 and out.isfinite().all() for out in outputs)


def test_wrong_inputs_are_named():
    inputs = random_inputs()
    with pytest.raises(ValueError, match=r'RBPN x4: feedback should be \(1, 96, 5, 6\), but got \(1, 24, 5, 6\)'):
        small_net()(**{**inputs, 'feedback': torch.rand(1, 24, 5, 6)})
    with pytest.raises(ValueError, match='at least one recurrence'):
        small_net(num_recurrence=0)
