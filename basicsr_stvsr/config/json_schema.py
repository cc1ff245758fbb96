"""The option blocks as JSON schema, for editors, and as the tables of docs/options.md."""
import json
from collections import ChainMap
from collections.abc import Callable, Collection, Iterator
from functools import partial
from typing import Any, cast, get_args

from basicsr.utils.registry import (
    ARCH_REGISTRY,
    DATASET_REGISTRY,
    LOSS_REGISTRY,
    METRIC_REGISTRY,
    MODEL_REGISTRY,
    Registry,
)
from pydantic.fields import FieldInfo

from .block import Block, texts_in
from .options import (
    CosineOptions,
    DistOptions,
    LoggerOptions,
    MultiStepOptions,
    Options,
    PathOptions,
    TileOptions,
    TrainOptions,
    ValOptions,
    WandbOptions,
)
from .registered import DEGRADATIONS, FLOW_REGISTRY, Registered, arguments_of, entries, is_from

ABOUT = 'An option file of basicsr_stvsr; made by `python -m basicsr_stvsr.config`.'
BASE = 'Another option file, its path relative to this one, from which this file states only the differences.'


def own(registry: Registry) -> dict[str, Any]:
    """Return what this package has registered, by name."""
    return {name: target for name, target in sorted(registry) if is_from(target, 'basicsr_stvsr')}


def models() -> dict[str, type[TrainOptions]]:
    """Return the `train` block of each model."""
    return {name: model.train_options for name, model in own(MODEL_REGISTRY).items()}


# ---------------------------------------------------------------- JSON schema

def json_schema() -> dict[str, Any]:
    """Return the JSON schema of an option file, as in options/schema.json. All editors support draft 7."""
    definitions: dict[str, Any] = {}
    file = schema_of(Options, definitions)
    file['properties']['base'] = {'type': 'string', 'description': BASE}
    # The model determines the keys of `train`. Without `model_type`, which `base` may set, those of any model are
    # allowed.
    file['properties']['train'] = {'description': Options.texts()['train']}
    trains = {
        name: {'anyOf': [define(block.__name__, partial(schema_of, block, definitions), definitions), {'type': 'null'}]}
        for name, block in models().items()}
    needed = [name for name, field in Options.model_fields.items() if field.is_required()]
    file['allOf'] = [
        {'if': {'not': {'required': ['base']}}, 'then': {'required': needed}},
        {'if': {'not': {'required': ['model_type']}},
         'then': {'properties': {'train': {'anyOf': list(trains.values())}}}},
        *(when('model_type', name, {'properties': {'train': train}}) for name, train in trains.items())]
    return {'$schema': 'http://json-schema.org/draft-07/schema#', **file, 'description': ABOUT,
            '$defs': dict(sorted(definitions.items()))}


def schema_of(block: type[Block], definitions: dict[str, Any]) -> dict[str, Any]:
    """Return the schema of a block. Schemas of inner blocks are added to the definitions."""
    schema = block.model_json_schema()
    for name, inner in schema.pop('$defs', {}).items():
        define(name, partial(resolved, inner, definitions), definitions)
    return cast(dict[str, Any], resolved(schema, definitions))


def define(name: str, make: Callable[[], dict[str, Any]], definitions: dict[str, Any]) -> dict[str, Any]:
    if name not in definitions:
        definitions[name] = None  # networks may be parts of each other
        definitions[name] = make()
    return {'$ref': f'#/$defs/{name}'}


def resolved(schema: Any, definitions: dict[str, Any]) -> Any:
    """Define the registered blocks that a schema mentions. Drop titles, and fields that only the program sets."""
    if isinstance(schema, list):
        return [resolved(item, definitions) for item in schema]
    if not isinstance(schema, dict):
        return schema
    if isinstance(schema.get('kind'), Registered):
        kind = schema['kind']
        return define(kind.what.replace(' ', '_'), partial(by_type, kind, definitions), definitions)
    # 'items' in draft 7 is 'prefixItems' in the later one that pydantic writes.
    return {key.replace('prefixItems', 'items'): resolved(value, definitions) for key, value in schema.items()
            if not (key == 'title' and isinstance(value, str))
            and not (isinstance(value, dict) and value.get('readOnly'))}


def by_type(kind: Registered, definitions: dict[str, Any]) -> dict[str, Any]:
    """Return the schema of a block {type, arguments}. An unlisted `type` passes, such as one of your own classes."""
    blocks = {
        name: kind.block(target) for name, target in sorted(kind.known().items())
        if is_from(target, 'basicsr_stvsr', 'torch') or is_from(target, 'basicsr') and kind.what != 'network'}
    schemas = {name: schema_of(block, definitions) for name, block in blocks.items() if block}
    return {
        'type': 'object',
        'properties': {'type': {'anyOf': [{'enum': list(schemas)}, {'type': 'string'}]}},
        'allOf': [when('type', name, schema) for name, schema in schemas.items()]}


def when(key: str, value: str, then: dict[str, Any]) -> dict[str, Any]:
    return {'if': {'properties': {key: {'const': value}}, 'required': [key]}, 'then': then}


# ---------------------------------------------------------------- docs/options.md

def reference() -> str:
    """Return all option blocks as Markdown. A block that extends others lists only its additional keys."""
    datasets: list[type[Block]] = [dataset.options for dataset in own(DATASET_REGISTRY).values()]
    inner = [block for dataset in datasets for field in dataset.model_fields.values()
             for block in blocks_in(field.annotation)]
    parts = [part for block in [*datasets, *inner] for part in parts_of(block)]
    blocks: list[type[Block]] = [
        Options, *parts, PathOptions, TrainOptions, *models().values(), MultiStepOptions, CosineOptions,
        ValOptions, TileOptions, LoggerOptions, WandbOptions, DistOptions]
    sections = [table(block, blocks) for block in dict.fromkeys(blocks)]
    sections += [signatures('Degradations', DEGRADATIONS, {'scale'})]
    sections += [table(block, []) for target in DEGRADATIONS.values() for block in blocks_of(target)]
    sections += [
        signatures('Networks', own(ARCH_REGISTRY)), signatures('Losses', own(LOSS_REGISTRY)),
        signatures('Sources of flow', entries(FLOW_REGISTRY)),
        signatures('Metrics', own(METRIC_REGISTRY), {'img', 'img2'})]
    return '\n\n'.join('\n'.join(section) for section in sections) + '\n'


def table(block: type[Block], listed: list[type[Block]]) -> Iterator[str]:
    title, rest = heading(block)
    extended = [base for base in block.__mro__[1:] if base in listed]
    inherited = ChainMap(*(base.texts() for base in extended))
    texts = block.texts()
    values = schema_of(block, {})['properties']
    own_fields = {name: field for name, field in block.model_fields.items()
                  if name in values and inherited.get(name) != texts[name]}
    yield from (f'### {title}', '', f'{rest[0].upper()}{rest[1:]}')
    if extended:
        also = ', and these' if own_fields else ''
        yield f'It has the keys of: {"; ".join(heading(base)[0] for base in extended)}{also}.'
    if own_fields:
        yield from ('', '| key | value | default | meaning |', '|---|---|---|---|')
    for name, field in own_fields.items():
        yield f'| `{name}` | {value_of(values[name])} | {default_of(field)} | {one_line(texts[name])} |'


def heading(block: type[Block]) -> tuple[str, str]:
    """Return the title and the description of a block, from its docstring."""
    title, _, rest = one_line((block.__doc__ or '').partition('\n\n')[0]).partition(': ')
    return title, rest


def parts_of(block: type[Block]) -> list[type[Block]]:
    """Return a block and the blocks with keys that it extends, the most general first."""
    return [base for base in reversed(block.__mro__)
            if issubclass(base, Block) and base is not Block and (base is block or texts_in(base))]


def blocks_in(annotation: Any) -> Iterator[type[Block]]:
    """Yield the blocks that a field may hold, directly or in a list."""
    if isinstance(annotation, type) and issubclass(annotation, Block):
        yield annotation
    for inner in get_args(annotation):
        yield from blocks_in(inner)


def value_of(schema: dict[str, Any]) -> str:
    """Describe the allowed values of a field."""
    if 'anyOf' in schema:
        return ' or '.join(dict.fromkeys(value_of(one) for one in schema['anyOf'] if one != {'type': 'null'}))
    if 'enum' in schema or 'const' in schema:
        return ', '.join(f'`{choice}`' for choice in schema.get('enum', [schema.get('const')]))
    if schema.get('type') == 'array':
        return f'list of: {value_of(schema["items"])}'
    if 'additionalProperties' in schema:
        return f'block of: {value_of(schema["additionalProperties"])}'
    words = {'boolean': 'true, false', 'integer': 'whole number', 'number': 'number', 'string': 'text'}
    limits = {'minimum': '>=', 'exclusiveMinimum': '>', 'maximum': '<=', 'exclusiveMaximum': '<'}
    return ' '.join([words.get(schema.get('type', ''), 'block'),
                     *(f'{sign} {schema[limit]:g}' for limit, sign in limits.items() if limit in schema)])


def blocks_of(target: Callable[..., Any]) -> list[type[Block]]:
    """Return the blocks among the arguments of a function."""
    return [block for field in arguments_of(target).model_fields.values() for block in blocks_in(field.annotation)]


def default_of(field: FieldInfo) -> str:
    if field.is_required():
        return 'needed'
    return '' if field.default is None else f'`{json.dumps(field.default)}`'


def signatures(title: str, classes: dict[str, Any], given: Collection[str] = ()) -> Iterator[str]:
    """Yield a table of classes that options choose by name. Arguments that the program sets (`given`) are left out."""
    yield from (f'### {title}', '', '| type | arguments and their defaults | what it is |', '|---|---|---|')
    for name, target in classes.items():
        arguments = ', '.join(
            f'`{key}`' if field.is_required() or field.default is None or isinstance(field.default, Block)
            else f'`{key}: {json.dumps(field.default)}`'
            for key, field in arguments_of(target, given=frozenset(given)).model_fields.items() if key != 'type')
        yield f'| `{name}` | {arguments} | {one_line(target.__doc__.strip().partition(chr(10) * 2)[0])} |'


def one_line(text: str | None) -> str:
    return ' '.join((text or '').split()).replace('|', '\\|')
