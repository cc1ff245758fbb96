"""What `import basicsr_stvsr` offers: load a network, and restore frames with it."""
from collections.abc import Iterable, Iterator, Mapping
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..io.frame_source import TimedFrame
from ..video.restorer import RestoreOptions, Restorer, check_frames
from . import table


def list_models() -> list[str]:
    """Return the names of the networks that `load_network` and `restore` know, those of `stvsr zoo list`."""
    return list(table.ZOO)


def load_network(model: str | Mapping[str, Any], weights: str | Path | None = None, *,
                 device: str | torch.device | None = None) -> nn.Module:
    """Build a network with its weights, in evaluation mode. Nothing is downloaded.

    Args:
        model: a name of `list_models`; or options of a network, `network_g` of an option file, such as
            {'type': 'FSTRN', 'num_feat': 32}.
        weights: a checkpoint of a training, or weights alone. A network of the list has its own.
        device: where it is to run; default: a GPU if there is one.

    Returns:
        the network. Its attribute `spec` says which frames it takes and returns, see `NetSpec`.

    Raises:
        ValueError: no such model, a wrong option, or weights that do not fit or are damaged.
        FileNotFoundError: the weights are missing.
    """
    device = device or ('cuda' if torch.cuda.is_available() else 'cpu')
    if not isinstance(model, str):
        return table.load_network(model, weights, device)
    if weights is not None:
        raise ValueError(f'weights: {model} has its own; give the options of the network to use others')
    return table.load(model, device)


def restore(frames: Iterable[np.ndarray | Tensor], model: str | nn.Module, *, options: RestoreOptions | None = None,
            device: str | torch.device | None = None) -> Iterator[np.ndarray | Tensor]:
    """Restores frames as they come, and keeps no more of them than the network needs at once.

    Args:
        frames: of a video, in order, all of one size and type: arrays (H, W, 3), RGB, uint8 or uint16 (0-65535); or
            tensors (3, H, W), RGB, float, 0-1.
        model: name of a network of the zoo, such as 'mbnet-small'; or a network that states what it needs, see
            `NetSpec`, in evaluation mode.
        options: see `RestoreOptions`; default: whole frames in single precision, scenes apart.
        device: where the network is to run; default: a GPU if there is one, for a network by name, and for others where
            they are.

    Yields:
        the frames, s times as large, of the type of those given; of a network that doubles the frame rate, those
        between two others as well, 2n - 1 in all, or 2n with `options.even`.

    Raises:
        ValueError: no such model, or frames that are not as above.
    """
    if isinstance(model, str):
        net = load_network(model, device=device)
    else:
        net = model if device is None else model.to(device)
    timed = (TimedFrame(frame, Fraction(number)) for number, frame in enumerate(check_frames(frames)))
    return (frame.image for frame in Restorer(net, options)(timed))
