"""A batch in parts, and whether its losses are finite."""
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor


class NonFiniteError(RuntimeError):
    """Losses or gradients were not finite for so many steps that training on makes no sense."""


class BatchLosses(NamedTuple):
    """Loss terms of a batch, by their names in the log."""

    of_parts: list[dict[str, Tensor]]
    is_finite: bool
    """Whether all of them are, on all ranks; otherwise there are no gradients to use."""


def split_batch(data: Mapping[str, Any], num_parts: int) -> list[Mapping[str, Any]]:
    """Divides tensors and lists of a batch into equal parts, one behind the other."""
    if num_parts == 1:
        return [data]
    size, rest = divmod(len(data['gt']), num_parts)
    if rest:
        raise ValueError(f'train.accumulate {num_parts} does not divide a batch of {len(data["gt"])} samples')
    return [{name: values[start:start + size] for name, values in data.items()}
            for start in range(0, num_parts * size, size)]


def all_finite(values: Iterable[Tensor]) -> bool:
    """Whether these numbers are finite; on a GPU, asking waits for them."""
    return bool(torch.stack([value.detach().float() for value in values]).isfinite().all())


def sample_keys(parts: Iterable[Mapping[str, Any]]) -> list[str]:
    return [str(key) for part in parts for key in part.get('key', [])]


def name_nonfinite(losses: Mapping[str, Tensor], part: Mapping[str, Any]) -> str:
    """'l_sr is nan on clip/3, clip/7': the terms that are not finite, and on which samples; empty: all are."""
    terms = [f'{name} is {float(value)}' for name, value in losses.items() if not value.isfinite()]
    return f'{", ".join(terms)} on {", ".join(sample_keys([part])) or "samples without keys"}' if terms else ''
