"""Read checkpoints of mmengine's Runner with current versions of torch, and export them to BasicSR.

They store the log of a training as mmengine's HistoryBuffer. Since torch 2.6, torch.load accepts only tensors and plain
values by default, and mmengine 0.10.7 does not allow more. This module also allows the log. No code runs from a file.
"""
from collections.abc import Callable, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from mmengine.logging import HistoryBuffer
from torch import Tensor

from ..archs.weight_files import load_file
from ..config.block import shortened
from ..utils.atomic_files import write_whole


def statistic_of_history(owner: Any, name: str) -> Callable[..., Any]:
    """Replace `getattr` in these files: return a method of HistoryBuffer.

    Raises:
        ValueError: the file asks for anything else.
    """
    if owner is not HistoryBuffer or name not in HistoryBuffer._statistics_methods:
        raise ValueError(f"the checkpoint refers to {name!r} of {owner!r}, which mmengine's logs never do")
    return cast(Callable[..., Any], HistoryBuffer._statistics_methods[name])


_multiarray = import_module('numpy._core.multiarray')
HistoryBuffer()  # the first instance fills the table of its methods
torch.serialization.add_safe_globals([
    HistoryBuffer, (statistic_of_history, 'builtins.getattr'), np.ndarray, np.dtype,
    *(type(np.dtype(kind)) for kind in (np.float64, np.int64)),
    # Private in numpy, but named in the files
    _multiarray._reconstruct, _multiarray.scalar])


def export_weights(checkpoint: str | Path, path: str | Path) -> None:
    """Write the network weights of a RecipeModel checkpoint as a BasicSR file.

    The file holds `params`, and `params_ema` if EMAHook kept an average. Option files and `stvsr restore --weights` can
    load it.

    Args:
        checkpoint: file of mmengine's Runner.
        path: output file.

    Raises:
        FileNotFoundError: the checkpoint does not exist.
        ValueError: the checkpoint is not of a RecipeModel.
        CheckpointError: the file could not be written.
    """
    saved = load_file(checkpoint, "a checkpoint of mmengine's Runner with a RecipeModel")
    saved = saved if isinstance(saved, dict) else {}
    # EMAHook swaps them: `state_dict` holds the average, and `ema_state_dict` the weights themselves.
    states = {'params_ema': 'state_dict', 'params': 'ema_state_dict'} if 'ema_state_dict' in saved else {
        'params': 'state_dict'}
    weights = {key: weights_of_network(saved.get(name)) for key, name in states.items()}
    if not all(weights.values()):
        raise ValueError(f"{checkpoint} is not a checkpoint of mmengine's Runner with a RecipeModel: expected weights "
                         f'of net_g, found {", ".join(map(shortened, list(saved)[:6])) or "no blocks"}')
    write_whole(path, weights)


def weights_of_network(state: Any) -> dict[str, Tensor]:
    """Return the weights of net_g, with the parameter names of the network; empty if these are no tensors by name."""
    if not isinstance(state, Mapping) or not all(
            isinstance(name, str) and isinstance(value, Tensor) for name, value in state.items()):
        return {}
    bare = {name.removeprefix('module.'): value for name, value in state.items()}  # prefix of the average
    return {name.removeprefix('net_g.').removeprefix('module.'): value.cpu().contiguous()
            for name, value in bare.items() if name.startswith('net_g.')}
