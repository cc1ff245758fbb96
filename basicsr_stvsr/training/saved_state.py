"""The form of a training state: what is read from the file is checked before a training takes it over."""
import math
from typing import Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, ConfigDict, Field, StringConstraints
from torch import Tensor

from ..archs.weight_files import is_dense_floats
from ..config.block import Block, Count, refuse, shown
from ..utils.random_state import check_rng

MOST_STEPS = 10**12
Steps = Annotated[int, Field(ge=0, le=MOST_STEPS)]
Value = Any


class SavedBlock(Block):
    """A part of a state. States of BasicSR have fewer keys, and those of later versions more."""

    model_config = ConfigDict(extra='allow')
    null_is_absent: ClassVar[bool] = False


def check_number(value: Value) -> Value:
    """Check a number, which may be a tensor of one."""
    if isinstance(value, Tensor):
        is_number = is_dense_floats(value) and value.numel() == 1 and bool(value.isfinite())
    else:
        is_number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    if not is_number:
        raise refuse(f'must be a finite number, but is {shown(value)}')
    return value


def check_moments(moments: dict[str, Value]) -> dict[str, Value]:
    """Check what an optimiser keeps for a parameter: finite numbers, alone or in tensors."""
    for name, value in moments.items():
        if isinstance(value, Tensor):
            if not is_dense_floats(value):
                raise refuse(f'has a tensor {name} that holds no floats')
            if value.numel() > value.untyped_storage().nbytes() or not value.isfinite().all():
                raise refuse(f'has a tensor {name} that is not finite')
        elif value is not None:
            check_number(value)
    return moments


def check_generators(state: dict[str, Value]) -> dict[str, Value]:
    try:
        check_rng(state)
    except Exception as error:  # of Python, NumPy or PyTorch, depending on what is wrong
        raise refuse(f'is no state of the random generators ({type(error).__name__})') from error
    return state


class ParamGroup(SavedBlock):
    params: list[Count]
    lr: Annotated[Value, AfterValidator(check_number)]


class OptimizerState(SavedBlock):
    state: dict[Count, Annotated[dict[str, Value], AfterValidator(check_moments)]]
    param_groups: list[ParamGroup] = Field(min_length=1)


class SchedulerState(SavedBlock):
    last_epoch: Steps
    step_count: Steps = Field(1, alias='_step_count')
    base_lrs: list[float]
    last_lr: list[float] = Field([], alias='_last_lr')


class ScalerState(SavedBlock):
    scale: float = Field(1, gt=0)
    growth_factor: float = Field(2, gt=1)
    backoff_factor: float = Field(0.5, gt=0, lt=1)
    growth_interval: Annotated[int, Field(ge=1)] = 2000
    growth_tracker: Count = Field(0, alias='_growth_tracker')


class Best(SavedBlock):
    better: Literal['higher', 'lower']
    val: float = Field(allow_inf_nan=True)
    iter: int


class SavedState(SavedBlock):
    """A training state of this package or of BasicSR."""

    epoch: Steps
    iter: Steps
    samples: Annotated[int, Field(ge=0, le=2**62)] = 0
    seed: Annotated[int, Field(ge=0, le=2**32 - 1)] = 0
    networks: dict[str, Annotated[str, StringConstraints(pattern='^[0-9a-f]{64}$')]] = {}
    optimizers: list[OptimizerState] = Field(min_length=1)
    schedulers: list[SchedulerState] = Field(min_length=1)
    scaler: ScalerState | None = None
    skipped: Annotated[list[Count], Field(min_length=2, max_length=2)] = [0, 0]
    rng: list[Annotated[dict[str, Value], AfterValidator(check_generators)]] = []
    best_metric_results: dict[str, dict[str, Best]] = {}
