"""Public API of `import basicsr_stvsr`: load a network, and restore frames with it."""
from collections.abc import Iterable, Iterator, Mapping
from fractions import Fraction
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from ..io.frame_source import TimedFrame
from ..video.restorer import RestoreOptions, Restorer, check_frames
from . import table

Image = TypeVar('Image', np.ndarray, Tensor)


def list_models() -> list[str]:
    """Return the model names that `load_network` and `restore` accept, as listed by `stvsr zoo list`."""
    return list(table.ZOO)


def load_network(model: str | Mapping[str, Any], weights: str | Path | None = None, *,
                 device: str | torch.device | None = None) -> nn.Module:
    """Build a network with its weights, in evaluation mode. Nothing is downloaded.

    Args:
        model: a name from `list_models`; or the options of a network, `network_g` of an option file, such as
            {'type': 'FSTRN', 'num_feat': 32}.
        weights: a training checkpoint, or weights alone. Models of the zoo bring their own.
        device: device of the network; default: a GPU if there is one.

    Returns:
        the network. Its attribute `spec` describes the frames that it takes and returns, see `NetSpec`.

    Raises:
        ValueError: an unknown model, a wrong option, or weights that do not fit or are damaged.
        FileNotFoundError: the weights are missing.
    """
    device = device or ('cuda' if torch.cuda.is_available() else 'cpu')
    if not isinstance(model, str):
        return table.load_network(model, weights, device)
    if weights is not None:
        raise ValueError(f'weights: {model} comes with its own; to use others, pass the options of the network instead '
                         'of its name')
    return table.load(model, device)


def restore(frames: Iterable[Image], model: str | nn.Module, *, options: RestoreOptions | None = None,
            device: str | torch.device | None = None) -> Iterator[Image]:
    """Restore frames as a stream, holding only as many frames as the network needs at once.

    Args:
        frames: of a video, in order, all of one size and type: arrays (H, W, 3), RGB, uint8 or uint16 (0-65535); or
            tensors (3, H, W), RGB, float, 0-1.
        model: name of a zoo model, such as 'mbnet-small'; or a network with a `spec`, see `NetSpec`, in evaluation
            mode.
        options: see `RestoreOptions`; default: whole frames in single precision, with scene-cut detection.
        device: device of the network; default: a GPU if there is one for zoo models, else the current device of the
            network.

    Yields:
        the frames, s times as large, in the type of the input. Networks that double the frame rate also yield
        interpolated frames: 2n - 1 frames in all, or 2n with `options.even`.

    Raises:
        ValueError: an unknown model, or unsupported frames.
    """
    if isinstance(model, str):
        net = load_network(model, device=device)
    else:
        net = model if device is None else model.to(device)
    timed = (TimedFrame(frame, Fraction(number)) for number, frame in enumerate(check_frames(frames)))
    return (frame.image for frame in Restorer(net, options)(timed))
