"""`basicsr_stvsr.restore`: frames in, frames out, by a network of the zoo or any other."""
from collections.abc import Iterable, Iterator
from fractions import Fraction

import numpy as np
import torch
from torch import Tensor, nn

from ..io.frame_source import TimedFrame
from ..video.restorer import RestoreOptions, Restorer, check_frames
from .table import load


def restore(frames: Iterable[np.ndarray | Tensor], model: str | nn.Module, *, options: RestoreOptions | None = None,
            device: str | torch.device | None = None) -> Iterator[np.ndarray | Tensor]:
    """Restores frames as they come, and keeps no more of them than the network needs at once.

    Args:
        frames: of a video, in order, all of one size and type: arrays (H, W, 3), RGB, uint8 or uint16 (0-65535); or
            tensors (3, H, W), RGB, float, 0-1.
        model: name of a network of the zoo, such as 'mbnet-small'; or a network that states what it needs, see
            `basicsr_stvsr.inference.windows`, in evaluation mode.
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
        net = load(model, device or ('cuda' if torch.cuda.is_available() else 'cpu'))
    else:
        net = model if device is None else model.to(device)
    timed = (TimedFrame(frame, Fraction(number)) for number, frame in enumerate(check_frames(frames)))
    return (frame.image for frame in Restorer(net, options)(timed))
