"""The network that corrects frames interpolated along OpenCV's flow."""
import pytest
import torch
from test_dis_interpolation_arch import scene

from basicsr_stvsr.archs.dis_interpolation_arch import DISInterpolation
from basicsr_stvsr.archs.refined_dis_arch import RefinedDIS

pytestmark = pytest.mark.numeric


def test_untrained_it_is_dis_interpolation():
    pair = torch.stack([scene(44), scene(52)], dim=1)
    torch.testing.assert_close(RefinedDIS(channels=(4, 4, 4))(pair), DISInterpolation()(pair), rtol=0, atol=1e-6)


def test_it_learns_what_dis_gets_wrong_around_a_moving_object():
    """After a few steps every parameter has a gradient, and the error halves."""
    torch.manual_seed(0)
    true = torch.stack([scene(44), scene(48), scene(52)], dim=1)[..., 16:80, 32:112]  # a border of the square and more
    net, pair = RefinedDIS(channels=(16, 16, 16)), true[:, ::2]
    optimizer = torch.optim.Adam(net.parameters(), lr=4e-3)
    errors = []
    for _ in range(12):
        optimizer.zero_grad()
        error = (net(pair) - true).square().mean()
        error.backward()
        optimizer.step()
        errors.append(error.item())
    assert not [name for name, parameter in net.named_parameters() if not parameter.grad.any()]
    assert errors[-1] < 0.5 * errors[0]
