"""Measure the speed of a network on this machine."""
import time
from collections.abc import Iterator
from fractions import Fraction
from typing import NamedTuple

import numpy as np
import torch
from torch import nn

from ..io.frame_source import TimedFrame
from .restorer import RestoreOptions, Restorer

SIZE = 270, 480  # frame size for which the speed is reported
TRIAL_SIZE = 90, 160  # frame size of a first, short run
LONGEST_RUN = 30  # seconds
NUM_TIMED = 2  # windows


class Speed(NamedTuple):
    """Speed of a network for frames of SIZE."""

    frames_per_second: float  # output frames
    height: int  # of the measured frames; if not SIZE, the speed is scaled by the frame area
    width: int


def measure_speed(net: nn.Module, *, tile: int | None = None) -> Speed:
    """Measure the speed on a few frames in the default precision of `stvsr restore`, without decoding and encoding.

    A network that would take too long is measured on small frames.

    Args:
        net: a network with a `spec`, in evaluation mode, on its device.
        tile: as in `RestoreOptions`.
    """
    restorer = Restorer(net, RestoreOptions(precision='auto', tile=tile, detect_cuts=False))
    size, took = TRIAL_SIZE, seconds_per_frame(restorer, *TRIAL_SIZE)
    area = SIZE[0] * SIZE[1] / (TRIAL_SIZE[0] * TRIAL_SIZE[1])
    num_frames = (restorer.spec.num_frames or 1) + NUM_TIMED + 2
    if area * took * num_frames <= LONGEST_RUN:
        size, took, area = SIZE, seconds_per_frame(restorer, *SIZE), 1
    return Speed(restorer.spec.temporal_scale / (area * took), *size)


def seconds_per_frame(restorer: Restorer, height: int, width: int) -> float:
    """Return the seconds per input frame.

    A restorer requests a frame after finishing the previous one, except for the first frames, which fill a window.
    """
    warm_up = (restorer.spec.num_frames or 1) + 1
    num_frames = warm_up + NUM_TIMED + 1
    asked: list[float] = []
    image = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)

    def frames() -> Iterator[TimedFrame[np.ndarray]]:
        for number in range(num_frames):
            asked.append(now(restorer.device))
            yield TimedFrame(np.roll(image, number, axis=1), Fraction(number))

    for _ in restorer(frames()):
        pass
    if restorer.spec.num_frames is None and not restorer.spec.recurrent:  # takes all frames at once
        return (now(restorer.device) - asked[-1]) / num_frames
    return (asked[-1] - asked[warm_up]) / NUM_TIMED


def now(device: torch.device) -> float:
    """Wait for the device, and return the time in seconds."""
    if device.type == 'cuda':
        torch.cuda.synchronize(device)
    return time.perf_counter()
