"""What an option file may say: pydantic models of its blocks."""
from difflib import get_close_matches
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError, ValidationError


def whole_number(value: Any) -> Any:
    """600000 for 6e5, which YAML reads as a float."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


Count = Annotated[int, BeforeValidator(whole_number), Field(ge=0)]
Positive = Annotated[int, BeforeValidator(whole_number), Field(ge=1)]


class Block(BaseModel):
    """A block of options: refuses keys that it does not know, and values of another type than it states."""

    model_config = ConfigDict(extra='forbid', strict=True, frozen=True, use_attribute_docstrings=True)

    @model_validator(mode='before')
    @classmethod
    def name_unknown_keys(cls, options: Any) -> Any:
        """Says of an unknown key what may have been meant."""
        if not isinstance(options, dict):
            return options
        unknown = [key for key in options if key not in cls.model_fields]
        if unknown:
            raise ValidationError.from_exception_data(cls.__name__, [
                {'type': unknown_option(key, cls.model_fields), 'loc': (key,), 'input': options[key]}
                for key in unknown])
        return options


def unknown_option(name: str, known: Any) -> PydanticCustomError:
    close = get_close_matches(str(name), list(known), n=1)
    hint = f'did you mean {close[0]!r}? ' if close else ''
    return PydanticCustomError('unknown_option', 'unknown option; {hint}known here: {known}', {
        'hint': hint, 'known': ', '.join(sorted(known))})


class TrainOptions(Block):
    """`train` of every system of this package; a paper's own is a subclass with its losses (`STVSRModel.options`)."""

    optim_g: dict[str, Any]
    """Optimiser: {type, lr, ...}; Adam and AdamW are fused where torch can."""
    scheduler: dict[str, Any]
    """Learning rate over time: {type: MultiStepLR | MultiStepRestartLR | CosineAnnealingRestartLR, ...}."""
    total_iter: Positive
    """How long to train, in `unit`s."""
    warmup_iter: int = -1
    """The learning rate rises linearly over so many `unit`s; -1: it does not."""
    unit: Literal['iterations', 'samples'] = 'iterations'
    """What total_iter, warmup_iter and the scheduler's milestones, periods and restarts count: steps of the optimiser,
    or samples seen, which do not depend on the batch size and the number of GPUs."""
    pixel_opt: dict[str, Any] | None = None
    """Loss on the frames: {type, loss_weight, reduction}."""
    ema_decay: float = Field(0, ge=0, lt=1)
    """Decay of the moving average of the weights that validation uses; 0: none."""
    lr_mul: dict[str, float] = {}
    """Learning rates of parts, relative to optim_g.lr: {part, or pattern of parameter names: factor}; the first that
    matches counts."""
    grad_clip: float | None = Field(None, gt=0)
    """Gradients are scaled down to this norm where theirs is larger."""
    accumulate: Positive = 1
    """A batch goes through the network in so many parts, one after another, which needs less memory; it must divide
    the batch size."""
    amp: Literal['none', 'bf16', 'fp16'] = 'none'
    """Precision of automatic mixed precision."""
    compile: bool = False
    """Whether to compile the network (torch.compile), which takes minutes at the start and a compiler."""
    channels_last: bool = False
    """Memory layout of weights and images; often faster with amp."""
    max_nonfinite: Positive = 10
    """A step whose loss or gradient is not finite is skipped; so many in a row stop the training."""
