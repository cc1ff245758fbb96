"""The network that corrects frames interpolated along OpenCV's flow."""
import pytest
import torch
from test_dis_interpolation_arch import scene

from basicsr_stvsr.archs.dis_interpolation_arch import DISInterpolation
from basicsr_stvsr.archs.refined_dis_arch import RefinedDIS
from basicsr_stvsr.zoo.table import load

pytestmark = pytest.mark.numeric


def error(net: torch.nn.Module, positions: tuple[int, int, int]) -> float:
    """Mean squared error of the middle frame of a square that moves before a background at rest."""
    first, middle, second = map(scene, positions)
    with torch.no_grad():
        return float((net(torch.stack([first, second], dim=1))[:, 1] - middle).square().mean())


def test_untrained_it_is_dis_interpolation():
    pair = torch.stack([scene(44), scene(52)], dim=1)
    torch.testing.assert_close(RefinedDIS(channels=(4, 4, 4))(pair), DISInterpolation()(pair), rtol=0, atol=1e-6)


def test_one_step_later_every_parameter_learns():
    pair, true = torch.stack([scene(44), scene(52)], dim=1), torch.stack([scene(44), scene(48), scene(52)], dim=1)
    net = RefinedDIS(channels=(4, 4, 4))
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    for _ in range(2):
        optimizer.zero_grad()
        (net(pair) - true).abs().mean().backward()
        optimizer.step()
    assert not [name for name, parameter in net.named_parameters() if not parameter.grad.any()]


@pytest.mark.parametrize('positions', [(44, 48, 52), (50, 44, 38)], ids=['right', 'left, faster'])
def test_around_a_moving_object_it_is_nearer_to_the_truth_than_dis(positions):
    """There, each frame hides a part of the background that the middle frame shows."""
    assert error(load('interpolation-small'), positions) < 0.8 * error(DISInterpolation(), positions)
