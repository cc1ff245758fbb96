"""Split batches into parts, and check that losses are finite."""
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor

from ..data.items import Batch


class NonFiniteError(RuntimeError):
    """Losses or gradients were not finite in too many consecutive steps, or a tested network gave such frames."""


class BatchLosses(NamedTuple):
    """Loss terms of a batch, by their names in the log."""

    of_parts: list[dict[str, Tensor]]
    is_finite: bool
    """Whether all losses are finite on all ranks; otherwise there are no gradients to use."""


def split_batch(data: Batch, num_parts: int) -> list[Batch]:
    """Split tensors and lists of a batch into equal, consecutive parts."""
    if num_parts == 1:
        return [data]
    size, rest = divmod(len(data['gt']), num_parts)
    if rest:
        raise ValueError(f'train.accumulate {num_parts} does not divide a batch of {len(data["gt"])} samples')
    values_of = cast(Mapping[str, Any], data)
    return [cast(Batch, {name: values[start:start + size] for name, values in values_of.items()})
            for start in range(0, num_parts * size, size)]


def all_finite(values: Iterable[Tensor]) -> bool:
    """Return whether all values are finite; on a GPU, this waits for them."""
    return bool(torch.stack([value.detach().float() for value in values]).isfinite().all())


def sample_keys(parts: Iterable[Batch]) -> list[str]:
    return [str(key) for part in parts for key in part.get('key', [])]


def name_nonfinite(losses: Mapping[str, Tensor], part: Batch) -> str:
    """Name the loss terms that are not finite, and their samples, as in 'l_sr is nan on clip/3, clip/7'.

    The result is empty if all terms are finite.
    """
    terms = [f'{name} is {float(value)}' for name, value in losses.items() if not value.isfinite()]
    return f'{", ".join(terms)} on {", ".join(sample_keys([part])) or "samples without keys"}' if terms else ''
