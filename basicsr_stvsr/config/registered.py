"""Blocks `{type: NAME, arguments}`: NAME as it is registered, the arguments those of what is registered under it."""
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
from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler, Strict, TypeAdapter, create_model
from pydantic_core import CoreSchema, PydanticCustomError, ValidationError, core_schema
from torch import nn

from .block import Block, lines, nearest, refuse, refuse_field, shown

FLOW_REGISTRY = Registry('flow')  # `flow` fills it
DEGRADATIONS: dict[str, Callable] = {}  # `data.degradations` fills it


class Arguments(Block):
    """Arguments of a class or function, as its signature has them."""

    null_is_absent: ClassVar[bool] = False  # it is handed on as None

    @classmethod
    def texts(cls) -> dict[str, str]:
        """None: nothing stands under a parameter."""
        return {}


def find(known: Mapping[str, Any], name: Any, what: str) -> Any:
    """What is registered under a name.

    Raises:
        PydanticCustomError: nothing is; it says which name is near.
    """
    # BasicSR looks for a name with this suffix where there is none without.
    for key in (name, f'{name}_basicsr'):
        if isinstance(name, str) and key in known:
            return known[key]
    plain = [key.removesuffix('_basicsr') for key in known]
    raise refuse(f'must be the name of a registered {what}, but is {shown(name)}. {nearest(name, plain)}'
                 f'Registered are {", ".join(sorted(plain))}')


def is_from(target: Any, *packages: str) -> bool:
    """Whether a class or function is defined in one of these packages."""
    return target.__module__.partition('.')[0] in packages


@cache
def arguments_of(target: Callable, given: frozenset[str] = frozenset(), needed: frozenset[str] = frozenset(),
                 is_part: bool = False, **also: Any) -> type[Block]:
    """A block of the arguments of a class or function.

    Args:
        target: the class or function. Parameters without annotation, as BasicSR's, are of the type of their default;
            whole numbers and others are then not told apart.
        given: parameters that the program fills in.
        needed: parameters that must be there although they have a default.
        is_part: whether parameters without a default may be missing, as the network around this one gives some.
        also: keys besides the parameters, and their types; None is the default.
    """
    try:
        parameters = inspect.signature(target, eval_str=True).parameters.values()
    except NameError:  # annotations that only a type checker can follow
        parameters = inspect.signature(target).parameters.values()
    fields = {'type': (str, ...), **{name: (kind | None, None) for name, kind in also.items()}}
    config = {}
    for parameter in parameters:
        if parameter.kind == parameter.VAR_KEYWORD and not is_from(target, 'basicsr'):  # BasicSR's swallow mistakes
            config = {'extra': 'allow'}
        elif parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD) and parameter.name not in given:
            default = None if is_part and parameter.default is parameter.empty else parameter.default
            is_needed = default is parameter.empty or parameter.name in needed
            fields[parameter.name] = (type_of(parameter), ... if is_needed else default)
    with warnings.catch_warnings():
        warnings.simplefilter('ignore', UserWarning)  # parameters named as a method of pydantic's
        base = type(target.__name__, (Arguments,), {'model_config': config}) if config else Arguments
        return create_model(target.__name__, __base__=base, **fields)


def type_of(parameter: inspect.Parameter) -> Any:
    """Of the annotation, or else of the default."""
    if parameter.annotation is not parameter.empty:
        return as_in_yaml(parameter.annotation)
    for kind, allowed in ((bool, bool), (int | float, float), (str, str)):
        if isinstance(parameter.default, kind):
            return allowed | None
    return Any


def as_in_yaml(annotation: Any) -> Any:
    """The type of an argument as a YAML file can give it: lists for tuples, text for paths, blocks for networks."""
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
        return Annotated[tuple[tuple(map(as_in_yaml, arguments))], Strict(False)]
    return annotation


class Registered:
    """Marks a field as a block `{type: NAME, arguments}`.

    Args:
        what: what has such a name, in a word.
        known: all that is registered, by name; a function, as classes may register themselves later.
        block: gives the block of what is registered; None: it is not checked.
        trial: builds the thing, which then refuses values of the right type that make no sense.
    """

    def __init__(self, what: str, known: Callable[[], Mapping[str, Any]],
                 block: Callable[[Any], type[Block] | None] = arguments_of,
                 trial: Callable[[Any, dict[str, Any]], Any] | None = None):
        self.what, self.known, self.block, self.trial = what, known, block, trial

    def check(self, options: dict[str, Any]) -> dict[str, Any]:
        """Returns the options: arguments as they are, those that a class states with defaults filled in.

        Raises:
            ValidationError, PydanticCustomError: something is wrong with them.
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
        if self.trial:
            try_out(lambda: self.trial(target, {name: value for name, value in options.items() if name != 'type'}))
        return options

    def read(self, options: Any, prefix: str = '') -> dict[str, Any]:
        """`check` for a block on its own; raises ValueError as `Block.read` does."""
        try:
            return TypeAdapter(Annotated[dict[str, Any], self]).validate_python(options, strict=True)
        except ValidationError as error:
            raise ValueError('\n'.join(lines(error, prefix))) from None

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_after_validator_function(self.check, handler(source))

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        return {'kind': self}  # for `json_schema`, as networks may be parts of each other without end


def try_out(build: Callable[[], Any]) -> Any:
    """Builds something without memory for its weights; None where it cannot be built so.

    Raises:
        PydanticCustomError: it refuses its arguments, or a file that they name is missing.
    """
    try:
        with warnings.catch_warnings(), torch.device('meta'):
            warnings.simplefilter('ignore')  # weights from a file go nowhere
            return build()
    except (ValueError, OSError) as error:
        raise refuse(f': {error}') from error
    except Exception:  # code that cannot do without memory; what is wrong beyond that shows when it is really built
        return None


def entries(registry: Registry) -> dict[str, Callable]:
    return dict(iter(registry))


def optimizers() -> dict[str, type[torch.optim.Optimizer]]:
    """Those of torch that a training loop can use: neither with a closure (LBFGS) nor for sparse gradients only."""
    return {
        name: optimizer for name, optimizer in vars(torch.optim).items()
        if isinstance(optimizer, type) and issubclass(optimizer, torch.optim.Optimizer)
        and name not in ('Optimizer', 'LBFGS', 'SparseAdam')}


def try_loss(target: Callable, arguments: dict[str, Any]) -> None:
    if arguments.get('reduction') == 'none':
        raise ValueError("reduction must be mean or sum, which make one number of a batch, but is 'none'")
    if target is not LOSS_REGISTRY.get('PerceptualLoss'):  # which may fetch the weights of VGG
        target(**arguments)


Network = Annotated[dict[str, Any], Registered('network', partial(entries, ARCH_REGISTRY))]
NetworkPart = Annotated[dict[str, Any], Registered(
    'network', partial(entries, ARCH_REGISTRY), partial(arguments_of, is_part=True))]
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
    lambda optimizer, arguments: optimizer([nn.Parameter(torch.zeros(2, 2))], **arguments))]
