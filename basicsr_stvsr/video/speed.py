"""How fast a network restores on this machine."""
import time
from collections.abc import Iterator
from fractions import Fraction
from typing import NamedTuple

import numpy as np
import torch
from torch import nn

from ..io.frame_source import TimedFrame
from .restorer import RestoreOptions, Restorer

SIZE = 270, 480  # of the frames of which the speed is given
TRIAL_SIZE = 90, 160  # of those of a first, short run
LONGEST_RUN = 30  # seconds
NUM_TIMED = 2  # windows


class Speed(NamedTuple):
    """How fast a network restores frames of SIZE."""

    frames_per_second: float  # that come out
    height: int  # of the frames that were restored; where it is not SIZE, the speed is an estimate by their areas
    width: int


def measure_speed(net: nn.Module, *, tile: int | None = None) -> Speed:
    """Restore a few frames in the precision that `stvsr restore` uses by default, without decoding and encoding.

    A network that would take too long is measured on small frames.

    Args:
        net: a network that states its needs, in evaluation mode, where it is to run.
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
    """Seconds that each given frame takes.

    A restorer asks for a frame when it is done with the one before, but for the first ones, which fill a window.
    """
    warm_up = (restorer.spec.num_frames or 1) + 1
    num_frames = warm_up + NUM_TIMED + 1
    asked: list[float] = []
    image = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)

    def frames() -> Iterator[TimedFrame]:
        for number in range(num_frames):
            asked.append(now(restorer.device))
            yield TimedFrame(np.roll(image, number, axis=1), Fraction(number))

    for _ in restorer(frames()):
        pass
    if restorer.spec.num_frames is None and not restorer.spec.recurrent:  # takes all frames at once
        return (now(restorer.device) - asked[-1]) / num_frames
    return (asked[-1] - asked[warm_up]) / NUM_TIMED


def now(device: torch.device) -> float:
    """Seconds, when the device has done what it was asked to."""
    if device.type == 'cuda':
        torch.cuda.synchronize(device)
    return time.perf_counter()
