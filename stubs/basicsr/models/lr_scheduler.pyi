from collections.abc import Sequence

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

class MultiStepRestartLR(LRScheduler):
    def __init__(self, optimizer: Optimizer, milestones: Sequence[int], gamma: float = 0.1,
                 restarts: Sequence[int] = (0, ), restart_weights: Sequence[float] = (1, ),
                 last_epoch: int = -1) -> None: ...

class CosineAnnealingRestartLR(LRScheduler):
    def __init__(self, optimizer: Optimizer, periods: Sequence[int], restart_weights: Sequence[float] = (1, ),
                 eta_min: float = 0, last_epoch: int = -1) -> None: ...
