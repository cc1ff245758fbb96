"""Checkpoints of mmengine's Runner: today's torch.load is made to read them, and BasicSR gets its own of them.

They hold the log of a training as mmengine's HistoryBuffer, and mmengine 0.10.7 does not tell torch.load so, which
since torch 2.6 takes tensors and plain values alone. Here the log is allowed as well. No code is run from a file.
"""
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import torch
from mmengine.logging import HistoryBuffer
from torch import Tensor

from ..archs.weights import load_file
from ..utils.atomic_files import write_whole


def statistic_of_history(owner: type, name: str) -> Callable:
    """What stands for `getattr` in these files: a method of HistoryBuffer.

    Raises:
        ValueError: something else is asked for.
    """
    if owner is not HistoryBuffer or name not in HistoryBuffer._statistics_methods:
        raise ValueError(f'the checkpoint asks for {name!r} of {owner!r}, which no log of mmengine does')
    return HistoryBuffer._statistics_methods[name]


HistoryBuffer()  # the first one fills the table of its methods
torch.serialization.add_safe_globals([
    HistoryBuffer, (statistic_of_history, 'builtins.getattr'), np.ndarray, np.dtype,
    *(type(np.dtype(kind)) for kind in (np.float64, np.int64)),
    # Private in numpy, and what the files name
    np._core.multiarray._reconstruct, np._core.multiarray.scalar])


def export_weights(checkpoint: str | Path, path: str | Path) -> None:
    """Writes the weights of the network in a checkpoint of RecipeModel as a file of BasicSR.

    It holds `params`, and `params_ema` where EMAHook kept an average: what option files and `stvsr restore --weights`
    take.

    Args:
        checkpoint: file of mmengine's Runner.
        path: file to write.

    Raises:
        FileNotFoundError: there is no such checkpoint.
        ValueError: it is none of RecipeModel.
        CheckpointError: the file could not be written.
    """
    saved = load_file(checkpoint, "a checkpoint of mmengine's Runner with a RecipeModel")
    saved = saved if isinstance(saved, dict) else {}
    # With an average, EMAHook puts that into `state_dict`, and the weights themselves where the average belongs.
    states = {'params_ema': 'state_dict', 'params': 'ema_state_dict'} if 'ema_state_dict' in saved else {
        'params': 'state_dict'}
    weights = {key: weights_of_network(saved.get(name, {})) for key, name in states.items()}
    if not all(weights.values()):
        raise ValueError(f"{checkpoint} is no checkpoint of mmengine's Runner with a RecipeModel: it holds no weights "
                         f'of net_g, but {", ".join(map(str, list(saved)[:6])) or "no blocks"}')
    write_whole(path, weights)


def weights_of_network(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Those of net_g, by the names that they have in the network itself."""
    bare = {name.removeprefix('module.'): value for name, value in state.items()}  # of the average
    return {name.removeprefix('net_g.').removeprefix('module.'): value.cpu().contiguous()
            for name, value in bare.items() if name.startswith('net_g.')}
