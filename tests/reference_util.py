"""Comparison with the numeric outputs of official implementations, as `load_reference` gives them, and in float64."""
from collections.abc import Mapping
from typing import Any

import torch
from basicsr.models.base_model import BaseModel
from torch import Tensor, nn


def group(reference: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """'w/conv.weight' as 'conv.weight', for the prefix 'w/'."""
    return {key.removeprefix(prefix): value for key, value in reference.items() if key.startswith(prefix)}


def load_in_order(net: nn.Module, reference: Mapping[str, Tensor]) -> dict[str, nn.Parameter]:
    """Give a network the reference's weights and dtype, and return its parameters by the reference's names.

    The weights have the same order, but other names.
    """
    weights = group(reference, 'w/')
    net.to(next(iter(weights.values())).dtype)
    net.load_state_dict(dict(zip(net.state_dict(), weights.values(), strict=True)))
    return {f'w/{key}': value for key, value in zip(weights, net.parameters(), strict=True)}


def assert_equals(actual: Tensor, expected: Tensor, tolerance: float = 1e-5, name: str = '') -> None:
    """Bound the largest error, relative to the largest value; by default by what a sum in float32 leaves."""
    assert actual.shape == expected.shape
    error = ((actual - expected).abs().max() / expected.abs().max()).item()
    assert error < tolerance, f'{name} relative error {error:.1e}'


def check_reference(reference: Mapping[str, Tensor], outputs: Mapping[str, Tensor], leaves: Mapping[str, Tensor],
                    slope_tolerance: float = 1e-5) -> None:
    """Compares outputs, and the gradients that the reference's cotangents send to `leaves` (key -> tensor).

    Args:
        slope_tolerance: for the gradient of a single number, a sum of thousands of terms that nearly cancel.
    """
    for key, output in outputs.items():
        assert_equals(output, reference[f'out/{key}'], name=key)
    total = sum((output * reference[f'cot/{key}']).sum() for key, output in outputs.items())
    for (key, leaf), grad in zip(leaves.items(), torch.autograd.grad(total, list(leaves.values())), strict=True):
        assert_equals(grad, reference[f'grad/{key}'], slope_tolerance if leaf.numel() == 1 else 1e-5, key)


def in_float64(batch: Mapping[str, Any], *models: BaseModel) -> dict[str, Any]:
    """Bring models to float64, and return a batch for them.

    For gradients that are computed in two orders: in float32, a value that a ReLU sees as -1e-9 in one of them and as
    1e-9 in the other sends on a gradient, or none.
    """
    for model in models:
        for name in ('net_g', 'net_d', 'cri_feature'):
            if getattr(model, name, None) is not None:
                getattr(model, name).double()
    return {name: value.double() if torch.is_tensor(value) and value.is_floating_point() else value
            for name, value in batch.items()}
