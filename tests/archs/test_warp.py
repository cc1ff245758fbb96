"""Warping, also along flows that are not finite; test_mbnet.py has known motion."""
import math

import cv2
import numpy as np
import pytest
import torch
from torch.nn import functional as F

from basicsr_stvsr.archs.arch_util import COMPILE_OPTIONS, warp

pytestmark = pytest.mark.numeric


def plain_warp(image: torch.Tensor, flow: torch.Tensor, padding_mode: str = 'border') -> torch.Tensor:
    """PyTorch's sampling at x + flow, without anything else."""
    h, w = image.shape[-2:]
    y, x = torch.meshgrid(torch.arange(h), torch.arange(w), indexing='ij')
    grid = torch.stack(((x + flow[:, 0]) * (2 / (w - 1)) - 1, (y + flow[:, 1]) * (2 / (h - 1)) - 1), dim=3)
    return F.grid_sample(image, grid, padding_mode=padding_mode, align_corners=True)


@pytest.mark.parametrize('padding_mode', ['border', 'zeros'])
def test_finite_flows_are_sampled_as_pytorch_does(padding_mode):
    image, flow = torch.rand(2, 3, 9, 11), torch.randn(2, 2, 9, 11) * 4
    flow[0, 0, 2, 3], flow[1, 1, 4, 5] = 1e20, -1e38
    ours, plain = ([x.clone().requires_grad_() for x in (image, flow)] for _ in range(2))
    output, expected = warp(*ours, padding_mode), plain_warp(*plain, padding_mode)
    assert torch.equal(output, expected)
    output.square().sum().backward()
    expected.square().sum().backward()
    for ours_, plain_ in zip(ours, plain, strict=True):
        torch.testing.assert_close(ours_.grad, plain_.grad, rtol=0, atol=0)


def test_gradients_in_float64():
    image = torch.rand(1, 2, 5, 6, dtype=torch.float64, requires_grad=True)
    flow = (torch.rand(1, 2, 5, 6, dtype=torch.float64) * 3 - 1.5).requires_grad_()
    assert torch.autograd.gradcheck(warp, (image, flow))


@pytest.mark.parametrize('compiled', [False, pytest.param(True, marks=pytest.mark.slow)])
@pytest.mark.parametrize('padding_mode', ['border', 'zeros'])
@pytest.mark.parametrize('value', [math.nan, math.inf, -math.inf])
def test_flows_that_are_not_finite_give_nan(value, padding_mode, compiled):
    """PyTorch's own backward pass on a CPU ends the process by a segmentation fault where a position is NaN."""
    function = torch.compile(warp, options=COMPILE_OPTIONS) if compiled else warp
    image, flow = torch.rand(2, 3, 40, 40), torch.randn(2, 2, 40, 40) * 4
    expected = plain_warp(image, flow, padding_mode)
    where = torch.zeros(2, 1, 40, 40, dtype=torch.bool)
    where[0, 0, ::3, ::5] = where[1, 0, 7] = True
    flow = flow.masked_fill(where, value)
    image.requires_grad_()
    flow.requires_grad_()
    output = function(image, flow, padding_mode)
    assert torch.equal(output.isnan(), where.expand_as(output))
    torch.testing.assert_close(output[~output.isnan()], expected[~output.isnan()])
    output.square().sum().backward()  # NaN comes back from the loss
    assert image.grad.shape == image.shape and not flow.grad.isinf().any()


def test_bicubic_is_opencvs():
    """At multiples of 1/32 pixel, to which OpenCV rounds places; outside of the image lies its nearest pixel."""
    rng = np.random.default_rng(0)
    image, flow = rng.random((17, 23), np.float32), rng.integers(-128, 129, (2, 17, 23)).astype(np.float32) / 32
    rows, columns = np.indices(image.shape, np.float32)
    expected = cv2.remap(image, columns + flow[0], rows + flow[1], cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)
    output = warp(torch.from_numpy(image)[None, None], torch.from_numpy(flow)[None], mode='bicubic')[0, 0]
    torch.testing.assert_close(output, torch.from_numpy(expected), rtol=0, atol=2e-5)
