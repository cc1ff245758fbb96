"""Learning-rate schedules of BasicSR for mmengine, whose built-in schedules also decay during warm-up."""
from collections.abc import Mapping
from typing import Any

import torch
from basicsr.models.lr_scheduler import CosineAnnealingRestartLR, MultiStepRestartLR
from mmengine.config import ConfigDict
from mmengine.optim import OptimWrapper, _ParamScheduler
from torch import nn

from ..config.options import SCHEDULERS
from ..registry import PARAM_SCHEDULERS

CLASSES = {'MultiStepLR': MultiStepRestartLR, 'MultiStepRestartLR': MultiStepRestartLR,
           'CosineAnnealingRestartLR': CosineAnnealingRestartLR}


@PARAM_SCHEDULERS.register_module()
class RecipeLR(_ParamScheduler):
    """Learning-rate schedule from `train.scheduler` and `train.warmup_iter` of an option file, in iterations.

    Args:
        optimizer: its rates are set; the current rate of each group is the initial rate.
        scheduler: {type: MultiStepLR | MultiStepRestartLR | CosineAnnealingRestartLR, ...}.
        warmup_iter: iterations of linear warm-up; -1: none.
        begin, end, last_step, by_epoch, verbose: as in mmengine's schedules; by_epoch must be False. A Runner sets end
            to its max_iters.

    Raises:
        ValueError: an option of the scheduler is unknown or wrong, its periods end before `end`, or by_epoch is set.
    """

    def __init__(self, optimizer: torch.optim.Optimizer | OptimWrapper, scheduler: Mapping[str, Any],
                 warmup_iter: int = -1, begin: int = 0, end: int = 10**9, last_step: int = -1, by_epoch: bool = True,
                 verbose: bool = False):
        if by_epoch:
            raise ValueError('param_scheduler: RecipeLR counts iterations; set by_epoch=False')
        if scheduler.get('type') not in SCHEDULERS:
            raise ValueError(f'param_scheduler.scheduler.type must be one of {", ".join(SCHEDULERS)}, but is '
                             f'{scheduler.get("type")!r}')
        options = SCHEDULERS[scheduler['type']].read(ConfigDict(scheduler).to_dict(), 'param_scheduler.scheduler.')
        self.scheduler, self.warmup_iter = options.complete(), warmup_iter
        length = sum(self.scheduler.get('periods', [end]))
        if length < end:  # BasicSR's schedule has no rate after the last period
            raise ValueError(f'param_scheduler.scheduler.periods add up to {length}, but must reach '
                             f'train_cfg.max_iters {end}')
        self.schedule: torch.optim.lr_scheduler.LRScheduler | None = None
        super().__init__(optimizer, 'lr', begin=begin, end=end, last_step=last_step, by_epoch=by_epoch,
                         verbose=verbose)

    def state_dict(self) -> dict[str, Any]:
        return {name: value for name, value in super().state_dict().items() if name != 'schedule'}

    def _get_value(self) -> list[float]:
        """Return the rates of the next iteration, whose number, from 0, is `last_step`."""
        if self.last_step < self.warmup_iter:
            return [rate * (self.last_step + 1) / self.warmup_iter for rate in self.base_values]
        self.schedule = self.schedule or self.new_schedule()
        while self.schedule.last_epoch < self.last_step:
            self.schedule.optimizer.step()  # otherwise torch warns
            self.schedule.step()
        return [float(rate) for rate in self.schedule.get_last_lr()]

    def new_schedule(self) -> torch.optim.lr_scheduler.LRScheduler:
        """Build BasicSR's schedule for a dummy optimiser with these rates."""
        groups = [{'params': nn.Parameter(torch.zeros(())), 'lr': rate} for rate in self.base_values]
        arguments = {name: value for name, value in self.scheduler.items() if name != 'type'}
        schedule: type[torch.optim.lr_scheduler.LRScheduler] = CLASSES[self.scheduler['type']]
        return schedule(torch.optim.SGD(groups), **arguments)
