"""Flow losses on numbers worked out by hand, and on motion that is known."""
import numpy as np
import pytest
import torch
from basicsr.losses import build_loss

from basicsr_stvsr.losses.flow_loss import (
    MiddleFlowLoss,
    MultiScaleWarpLoss,
    PyramidWarpLoss,
    total_variation,
    warp_loss,
)

pytestmark = pytest.mark.numeric


def constant_flow(x: float, y: float, size: int = 16, batch: int = 1) -> torch.Tensor:
    return torch.tensor([x, y], dtype=torch.float32).view(1, 2, 1, 1).expand(batch, 2, size, size).clone()


def moving_texture(*shifts: int, size: int = 16) -> list[torch.Tensor]:
    """Crops of one random texture; the one with shift s shows what lies s pixels to the right of the crop at 0."""
    texture = torch.rand(1, 3, size, size + 32)
    return [texture[..., 16 + shift:16 + shift + size] for shift in shifts]


def test_total_variation_by_hand():
    # x component 0 1 3 / 2 2 2, y component zero: on the common 1 x 2 area |dx| = 1, 2 and |dy| = 2, 1.
    flow = torch.tensor([[[[0., 1, 3], [2, 2, 2]], [[0, 0, 0], [0, 0, 0]]]])
    assert total_variation(flow) == (1 + 2 + 2 + 1) / 2


def test_warp_loss_by_hand():
    # A ramp 0, 1, 2, 3 sampled one pixel to the right is 1, 2, 3, 3 (border); against zeros the mean is 9/4.
    ramp = torch.arange(4.).expand(1, 1, 4, 4)
    flow = constant_flow(1, 0, size=4)
    assert warp_loss(torch.zeros_like(ramp), ramp, flow) == pytest.approx(9 / 4)
    flow[:, 0, :, 2:] = 2  # one step of 1 px on each of 3 rows, of 9 places: total variation 3/9 px
    expected = (1 + 2 + 3 + 3) / 4 + 0.1 * (3 / 9) / 15.5
    assert warp_loss(torch.zeros_like(ramp), ramp, flow) == pytest.approx(expected)
    assert warp_loss(torch.zeros_like(ramp), ramp, flow, smooth_weight=0) == pytest.approx(9 / 4)


def test_multi_scale_loss_weighs_levels_and_averages_directions():
    a, b = torch.zeros(1, 3, 16, 16), torch.full((1, 3, 16, 16), 0.5)
    flows = [constant_flow(0, 0, size) for size in (4, 8, 16)]
    loss = MultiScaleWarpLoss(loss_weight=0.005)
    # |a - b| = 0.5 on every level and in both directions, no total variation
    assert loss(a, b, flows, flows) == pytest.approx(0.005 * 0.5 * (0.1 + 0.2 + 1.0))
    # A level counts by its own weight: total variation on the coarsest alone, in one direction alone
    rough = [flows[0].clone(), *flows[1:]]
    rough[0][:, 0, :, 2:] = 3.0  # a step of 3 px on each of 3 rows of the common 3 x 3 area
    extra = loss(a, b, rough, flows) - loss(a, b, flows, flows)
    assert extra == pytest.approx(0.005 * 0.1 * (0.1 * 1.0 / 15.5) / 2, rel=1e-3)
    with pytest.raises(ValueError, match='got 3 level weights for 2'):
        loss(a, b, flows[:2], flows[:2])


def test_multi_scale_loss_is_least_at_the_true_flow():
    a, b = moving_texture(0, 4)  # b's pixel x shows what a has at x + 4
    def loss(speed):
        return MultiScaleWarpLoss()(
            a, b, [constant_flow(-speed / f, 0, 16 // f) for f in (4, 2, 1)],
            [constant_flow(speed / f, 0, 16 // f) for f in (4, 2, 1)])
    assert loss(4) < 0.5 * min(loss(0), loss(2), loss(-4))


@pytest.mark.parametrize('mode', ['adjacent', 'compose'])
def test_middle_flow_loss_is_least_at_the_true_flow(mode):
    frames = torch.stack(moving_texture(0, 3, 6), dim=1)
    def loss(speed):
        return MiddleFlowLoss(mode=mode)(frames, constant_flow(speed, 0), constant_flow(-speed, 0))
    assert loss(3) < 0.6 * min(loss(0), loss(1), loss(-3))


def test_middle_flow_loss_by_hand():
    levels = torch.tensor([0.0, 0.25, 1.0]).view(1, 3, 1, 1, 1).expand(1, 3, 3, 16, 16)
    zero = constant_flow(0, 0)
    # adjacent: |a - t| and |b - t|, averaged; compose: |a - b| twice, averaged
    assert MiddleFlowLoss(2.0, mode='adjacent')(levels, zero, zero) == pytest.approx(2 * (0.25 + 0.75) / 2)
    assert MiddleFlowLoss(2.0, mode='compose')(levels, zero, zero) == pytest.approx(2 * 1.0)
    with pytest.raises(ValueError, match="'adjacent' or 'compose', but got 'both'"):
        MiddleFlowLoss(mode='both')


def test_compose_ignores_a_shift_of_the_middle_and_adjacent_does_not():
    """The composed flow knows the ends only, so motion that is not uniform escapes it: why it is not the default."""
    frames = torch.stack(moving_texture(0, 1, 6), dim=1)  # the middle frame lies at 1, not at 3
    uneven, even = (constant_flow(1, 0), constant_flow(-5, 0)), (constant_flow(3, 0), constant_flow(-3, 0))
    compose, adjacent = MiddleFlowLoss(mode='compose'), MiddleFlowLoss(mode='adjacent')
    torch.testing.assert_close(compose(frames, *uneven), compose(frames, *even))
    assert adjacent(frames, *uneven) < 0.6 * adjacent(frames, *even)


def test_pyramid_loss_by_hand():
    """Levels 0 and 0.5: a squared error of 1/4 at each; and a step of one pixel in the flow at LR."""
    last, this = (tuple(torch.full((1, 3, size, size), level) for size in (8, 16)) for level in (0.0, 0.5))
    flows = [constant_flow(0, 0, size) for size in (4, 8, 16)]
    flows[1][:, 1, 4:] = 1.0  # on one of 7 rows of places
    loss = PyramidWarpLoss(loss_weight=0.1)
    terms = loss(*zip(this, last, strict=True), flows)
    expected = {'half': 0.125 * 0.25, 'lr': 0.25 * (0.25 + 0.01 / 15.5 / 7), 'hr': 0.25}
    assert terms == pytest.approx({name: 0.1 * value for name, value in expected.items()})
    absolute = PyramidWarpLoss(distance='l1', smooth_weight=1, smooth_unit=2)(*zip(this, last, strict=True), flows)
    assert absolute == pytest.approx({'half': 0.125 * 0.5, 'lr': 0.25 * (0.5 + 1 / 2 / 7), 'hr': 0.5})
    rough = PyramidWarpLoss(level_weights=[0, 1, 0], smooth_weight=0)(*zip(this, last, strict=True), flows)
    assert rough == pytest.approx({'half': 0, 'lr': 0.25, 'hr': 0})


def test_pyramid_loss_is_least_at_the_true_flow():
    last, this = moving_texture(0, 4, size=32)
    small = [torch.nn.functional.avg_pool2d(frame, 2) for frame in (this, last)]
    def loss(speed):
        flows = [constant_flow(speed / f, 0, 32 // f) for f in (4, 2, 1)]
        return sum(PyramidWarpLoss()(small, (this, last), flows).values())
    assert loss(4) < 0.5 * min(loss(0), loss(2), loss(-4))


def test_flow_supervision_by_hand():
    loss = build_loss({'type': 'FlowSupervisionLoss', 'loss_weight': 0.01})
    zero = constant_flow(0, 0)
    # mean |x| over both components: (3 + 1) / 2 and (0 + 4) / 2, summed over the two flows
    assert loss(zero, zero, constant_flow(3, -1), constant_flow(0, 4)) == pytest.approx(0.01 * (2 + 2))


def test_losses_reach_the_flow():
    a, b = moving_texture(0, 1)
    flow = constant_flow(0.4, 0.2).requires_grad_()
    warp_loss(a, b, flow).backward()
    assert np.isfinite(flow.grad.numpy()).all() and flow.grad.abs().sum() > 0
