"""Blocks `{type: NAME, arguments}`: a registered name, and the arguments of the class or function behind it."""
import inspect
import types
import typing
import warnings
from collections.abc import Callable, Mapping
from functools import cache, partial
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import torch
from basicsr.utils.registry import ARCH_REGISTRY, DATASET_REGISTRY, LOSS_REGISTRY, METRIC_REGISTRY, Registry
from pydantic import ConfigDict, Field, GetCoreSchemaHandler, GetJsonSchemaHandler, Strict, TypeAdapter, create_model
from pydantic_core import CoreSchema, PydanticCustomError, ValidationError, core_schema
from torch import nn

from .block import Block, Count, lines, nearest, refuse, refuse_field, shortened, shown

FLOW_REGISTRY = Registry('flow')  # `flow` fills it
DEGRADATIONS: dict[str, Callable[..., Any]] = {}  # `data.degradations` fills it


class Arguments(Block):
    """The arguments of a class or function, from its signature."""

    null_is_absent: ClassVar[bool] = False  # None is passed on

    @classmethod
    def texts(cls) -> dict[str, str]:
        """Return nothing: parameters have no docstrings."""
        return {}


def find(known: Mapping[str, Any], name: Any, what: str) -> Any:
    """Return what is registered under a name.

    Raises:
        PydanticCustomError: nothing is registered under it; the message suggests a similar name.
    """
    # BasicSR also looks for a name with this suffix.
    for key in (name, f'{name}_basicsr'):
        if isinstance(name, str) and key in known:
            return known[key]
    plain = [key.removesuffix('_basicsr') for key in known]
    raise refuse(f'must be the name of a registered {what}, but is {shown(name)}. {nearest(name, plain)}Registered '
                 f'names: {", ".join(sorted(plain))}')


def is_from(target: Any, *packages: str) -> bool:
    """Return whether one of these packages defines a class or function."""
    return target.__module__.partition('.')[0] in packages


@cache
def arguments_of(target: Callable[..., Any], given: frozenset[str] = frozenset(), needed: frozenset[str] = frozenset(),
                 is_part: bool = False, **also: Any) -> type[Block]:
    """Return a block of the arguments of a class or function.

    Args:
        target: the class or function. A parameter without annotation, as in BasicSR, takes the type of its default;
            whole numbers then count as numbers.
        given: parameters that the program sets.
        needed: parameters that are required although they have a default.
        is_part: whether parameters without a default are optional, as the surrounding network sets some.
        also: additional keys and their types; their default is None.
    """
    try:
        parameters = inspect.signature(target, eval_str=True).parameters.values()
    except NameError:  # annotations that only a type checker can resolve
        parameters = inspect.signature(target).parameters.values()
    fields: dict[str, Any] = {'type': (str, ...), **{name: (kind | None, None) for name, kind in also.items()}}
    config: ConfigDict = {}
    for parameter in parameters:
        if parameter.kind == parameter.VAR_KEYWORD and not is_from(target, 'basicsr'):  # BasicSR's hide mistakes
            config = {'extra': 'allow'}
        elif parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD) and parameter.name not in given:
            default = None if is_part and parameter.default is parameter.empty else parameter.default
            is_needed = default is parameter.empty or parameter.name in needed
            fields[parameter.name] = (type_of(parameter), ... if is_needed else default)
    with warnings.catch_warnings():
        warnings.simplefilter('ignore', UserWarning)  # parameters named like a method of pydantic's
        base = type(target.__name__, (Arguments,), {'model_config': config}) if config else Arguments
        return create_model(target.__name__, __base__=base, **fields)


# Of BasicSR's metrics, whose parameters have no types
KNOWN_TYPES: dict[str, Any] = {
    'crop_border': Annotated[Count, Field(le=1000)], 'input_order': Literal['HWC', 'CHW'], 'test_y_channel': bool}


def type_of(parameter: inspect.Parameter) -> Any:
    """Return the type of a parameter, from its annotation, or else from its name or default."""
    if parameter.name in KNOWN_TYPES:
        return KNOWN_TYPES[parameter.name]
    if parameter.annotation is not parameter.empty:
        return as_in_yaml(parameter.annotation)
    for kind, allowed in ((bool, bool), (int | float, float), (str, str)):
        if isinstance(parameter.default, kind):
            return allowed | None
    return Any


def as_in_yaml(annotation: Any) -> Any:
    """Return the type of an argument as YAML states it: lists for tuples, text for paths, blocks for networks."""
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if isinstance(annotation, str):
        return Any
    if annotation is Path:
        return str | Path
    if annotation == Mapping[str, Any]:
        return NetworkPart
    if origin in (typing.Union, types.UnionType):
        return typing.Union[tuple(map(as_in_yaml, arguments))]  # noqa: UP007  (of a number of types known at run time)
    if origin is tuple:
        return Annotated[tuple[tuple(map(as_in_yaml, arguments))], Strict(False)]  # type: ignore[misc]  # types known at run time
    return annotation


class Registered:
    """Mark a field as a block `{type: NAME, arguments}`.

    Args:
        what: kind of thing that the name selects, such as 'network'.
        known: returns everything registered, by name; a function, as classes may be registered later.
        block: returns the option block of a registered thing, or None to skip the check.
        trial: builds the thing, to reject values of the right type that are not valid.
    """

    def __init__(self, what: str, known: Callable[[], Mapping[str, Any]],
                 block: Callable[[Any], type[Block] | None] = arguments_of,
                 trial: Callable[[Any, dict[str, Any]], Any] | None = None):
        self.what, self.known, self.block, self.trial = what, known, block, trial

    def check(self, options: dict[str, Any]) -> dict[str, Any]:
        """Check the options of a block, and return them. Classes that state their options get defaults filled in.

        Raises:
            ValidationError, PydanticCustomError: an option is wrong.
        """
        try:
            target = find(self.known(), options.get('type'), self.what)
        except PydanticCustomError as error:
            raise refuse_field('type', str(error)) from None
        block = self.block(target)
        if block is None:
            return options
        checked = block.model_validate(options)
        if block.null_is_absent:
            options = checked.complete()
        trial = self.trial
        if trial:
            try_out(lambda: trial(target, {name: value for name, value in options.items() if name != 'type'}))
        return options

    def read(self, options: Any, prefix: str = '') -> dict[str, Any]:
        """Check a block on its own; raise ValueError as `Block.read` does."""
        try:
            return TypeAdapter(Annotated[dict[str, Any], self]).validate_python(options, strict=True)
        except ValidationError as error:
            raise ValueError('\n'.join(lines(error, prefix))) from None

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_after_validator_function(self.check, handler(source))

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        return {'kind': self}  # `json_schema` resolves it, as networks can contain each other without end


def try_out(build: Callable[[], Any]) -> Any:
    """Build something without memory for its weights; return None if that is not possible.

    Raises:
        PydanticCustomError: the arguments are rejected, name a missing file, or are of absurd size.
    """
    try:
        with warnings.catch_warnings(), torch.device('meta'):
            warnings.simplefilter('ignore')  # weights from a file are dropped
            return build()
    except (ValueError, OSError) as error:
        raise refuse(f': {error}') from error
    except Exception as error:
        if isinstance(error, NotImplementedError) or 'meta' in str(error):  # code that needs values
            return None
        raise refuse(f' cannot be built: {type(error).__name__}: {shortened(error, 160)}') from error


def entries(registry: Registry) -> dict[str, Any]:
    return dict(iter(registry))


def optimizers() -> dict[str, type[torch.optim.Optimizer]]:
    """Return torch's optimisers that suit a training loop: no closure (LBFGS), not only sparse gradients."""
    return {
        name: optimizer for name, optimizer in vars(torch.optim).items()
        if isinstance(optimizer, type) and issubclass(optimizer, torch.optim.Optimizer)
        and name not in ('Optimizer', 'LBFGS', 'SparseAdam')}


def try_optimizer(optimizer: Callable[..., Any], arguments: dict[str, Any]) -> None:
    for name, most in MOST_OF_AN_OPTIMIZER.items():
        if isinstance(value := arguments.get(name), int | float) and value > most:
            raise ValueError(f'{name} must be at most {most}, but is {value:g}')
    optimizer([nn.Parameter(torch.zeros(2, 2))], **arguments)


def try_loss(target: Callable[..., Any], arguments: dict[str, Any]) -> None:
    if arguments.get('reduction') == 'none':
        raise ValueError("reduction must be mean or sum, so that a batch gives one number, but is 'none'")
    if target is not LOSS_REGISTRY.get('PerceptualLoss'):  # it may download the weights of VGG
        target(**arguments)


# Beyond these, the first steps destroy all weights
MOST_OF_AN_OPTIMIZER = {'lr': 1000, 'weight_decay': 100}
Network = Annotated[dict[str, Any], Registered('network', partial(entries, ARCH_REGISTRY))]
NetworkPart = Annotated[dict[str, Any], Registered(
    'network', partial(entries, ARCH_REGISTRY), partial(arguments_of, is_part=True, arch_spec=dict[str, Any]))]
Loss = Annotated[dict[str, Any], Registered('loss', partial(entries, LOSS_REGISTRY), trial=try_loss)]
Metric = Annotated[dict[str, Any], Registered(
    'metric', partial(entries, METRIC_REGISTRY),
    partial(arguments_of, given=frozenset({'img', 'img2', 'last_img', 'last_img2', 'pairs'}),
            better=Literal['higher', 'lower']))]
Dataset = Annotated[dict[str, Any], Registered(
    'data set', partial(entries, DATASET_REGISTRY), lambda dataset: getattr(dataset, 'options', None))]
Flow = Annotated[dict[str, Any], Registered(
    'source of flow', partial(entries, FLOW_REGISTRY), trial=lambda target, arguments: target(**arguments))]
Optimizer = Annotated[dict[str, Any], Registered(
    'optimiser', optimizers, partial(arguments_of, given=frozenset({'params'}), needed=frozenset({'lr'})),
    try_optimizer)]
