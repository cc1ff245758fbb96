"""The base class of all option blocks, and its error messages."""
import ast
import inspect
import re
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from difflib import get_close_matches
from functools import cache
from itertools import pairwise
from typing import Annotated, Any, ClassVar, Self

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    GetJsonSchemaHandler,
    ModelWrapValidatorHandler,
    model_validator,
)
from pydantic_core import CoreSchema, ErrorDetails, InitErrorDetails, PydanticCustomError, ValidationError


def whole_number(value: Any) -> Any:
    """Convert a whole float to int: YAML reads 6e5 as a float."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


Count = Annotated[int, Field(ge=0), BeforeValidator(whole_number)]
Positive = Annotated[int, Field(ge=1), BeforeValidator(whole_number)]

# pydantic's error type -> what would be right. Limits use the numbers that pydantic reports. An option file cannot
# cause other types of errors, such as that of a Tensor.
ALLOWED = {
    'bool_type': 'true or false', 'int_type': 'a whole number', 'float_type': 'a number', 'string_type': 'text',
    'finite_number': 'a finite number', 'dict_type': 'a block', 'mapping_type': 'a block', 'model_type': 'a block',
    'list_type': 'a list', 'tuple_type': 'a list', 'sequence_str': 'a list', 'iterable_type': 'a list',
    'greater_than_equal': '>= {ge:g}', 'greater_than': '> {gt:g}', 'less_than_equal': '<= {le:g}',
    'less_than': '< {lt:g}',
    'too_short': 'a list of at least {min_length}', 'too_long': 'a list of at most {max_length}',
    'missing': 'a list with more entries',
}
Problem = InitErrorDetails


class Block(BaseModel):
    """A block of options: it rejects unknown keys and values of a wrong type.

    `~` removes an option, also one set by a `base` file. The docstring of a field describes it in docs/options.md, in
    the JSON schema, and in the error message when the field is missing.
    """

    model_config = ConfigDict(
        extra='forbid', strict=True, frozen=True, allow_inf_nan=False, arbitrary_types_allowed=True,
        protected_namespaces=(), defer_build=True)

    null_is_absent: ClassVar[bool] = True

    @classmethod
    def read(cls, options: Any, prefix: str = '') -> Self:
        """Check options and fill in defaults.

        Args:
            options: the block as read from the file.
            prefix: prefix of option names in messages, such as 'train.'.

        Raises:
            ValueError: an option is wrong; one line for each problem.
        """
        try:
            return cls.model_validate(options)
        except ValidationError as error:
            raise ValueError('\n'.join(lines(error, prefix))) from None

    def complete(self) -> dict[str, Any]:
        """Return the options with all defaults filled in, as a file would state them, without those that are None."""
        values = {name: getattr(self, name) for name in type(self).model_fields}
        return {name: completed(value) for name, value in values.items() if value is not None}

    @model_validator(mode='wrap')
    @classmethod
    def word_problems(cls, options: Any, check: ModelWrapValidatorHandler[Self]) -> Self:
        """Replace pydantic's messages by sentences that follow the path of an option, see `lines`."""
        if not isinstance(options, dict):
            return check(options)
        given = {name: value for name, value in options.items() if value is not None or not cls.null_is_absent}
        unknown = [name for name in given if name not in cls.model_fields and cls.model_config['extra'] == 'forbid']
        missing = [name for name, field in cls.model_fields.items() if field.is_required() and name not in given]
        problems = [problem(unknown_option(name, given[name], cls.model_fields), name) for name in unknown]
        problems += [problem(f'is missing{cls.purpose(name)}', name) for name in missing]
        try:
            block = check({name: value for name, value in given.items() if name not in unknown})
        except ValidationError as error:
            problems += to_problems([details for details in error.errors(include_url=False)
                                if details['type'] != 'missing' or details['loc'][0] not in missing], given)
        if problems:
            raise ValidationError.from_exception_data(cls.__name__, problems)
        return block

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        """Adapt the schema to an editor, which sees one file: `base` may hold any option, and `~` may remove any."""
        reference = handler(schema)
        block = handler.resolve_ref_schema(reference)
        block.pop('required', None)
        for name, text in cls.texts().items():
            block['properties'][name]['description'] = text
        for name, field in block['properties'].items():
            if cls.null_is_absent and {'type': 'null'} not in field.get('anyOf', []):
                about = {key: field.pop(key) for key in ('title', 'description', 'default', 'readOnly') if key in field}
                block['properties'][name] = {'anyOf': [field, {'type': 'null'}], **about}
        return reference

    @classmethod
    def texts(cls) -> dict[str, str]:
        """Return the docstrings of the fields by name.

        They are read from the source on demand. pydantic's own `use_attribute_docstrings` reads them on import, and
        takes a sixth of the time that importing the whole package takes.
        """
        found: dict[str, str] = {}
        for block in reversed(cls.__mro__):
            if issubclass(block, Block):
                found |= texts_in(block)
        return found

    @classmethod
    def purpose(cls, name: str) -> str:
        """Return ': ' and the first sentence of a field's docstring; empty if it has none."""
        text = ' '.join(cls.texts().get(name, '').split())
        sentence = re.split(r'\. (?=[A-Z])|\.$', text)[0]  # but 'eq. 7' ends no sentence
        return text and f': {sentence}'


def completed(value: Any) -> Any:
    """Convert blocks, also those in a list, to what a file would state. Return other values unchanged."""
    if isinstance(value, list):
        return [completed(item) for item in value]
    return value.complete() if isinstance(value, Block) else value


@cache
def texts_in(block: type) -> dict[str, str]:
    """Return the docstrings of the fields that this class itself defines; empty if its source is not available."""
    try:
        source = inspect.getsource(block)
    except (OSError, TypeError):  # defined in an interpreter
        return {}
    [statement] = ast.parse(textwrap.dedent(source)).body
    assert isinstance(statement, ast.ClassDef)
    return {field.target.id: inspect.cleandoc(text.value.value) for field, text in pairwise(statement.body)
            if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name)
            and isinstance(text, ast.Expr) and isinstance(text.value, ast.Constant)
            and isinstance(text.value.value, str)}


def problem(text: str, *path: str | int) -> Problem:
    """Return an error at a place in a block. The text follows the path: 'train.lr' + 'must be ...'."""
    return {'type': refuse(text), 'loc': path, 'input': None}


def refuse(text: str) -> PydanticCustomError:
    """Return an error for the validator of a field to raise. The text follows the field's path, as in `problem`."""
    return PydanticCustomError('problem', '{text}', {'text': text})


def refuse_field(name: str, text: str) -> ValidationError:
    """Return an error about one field, for the validator of a block to raise."""
    return ValidationError.from_exception_data(name, [problem(text, name)])


def to_problems(errors: Sequence[ErrorDetails], given: Mapping[str, Any]) -> list[Problem]:
    """Turn a block's errors into sentences. The errors of a union's alternatives become one."""
    places: dict[tuple[str | int, ...], list[ErrorDetails]] = {}
    for details in errors:
        places.setdefault(place_of(details, given), []).append(details)
    problems = []
    for place, several in places.items():
        texts = [details['ctx']['text'] for details in several if details['type'] == 'problem']
        problems += [problem(text, *place) for text in texts or [must_be(several)]]
    return problems


def place_of(details: ErrorDetails, given: Any) -> tuple[str | int, ...]:
    """Return the part of an error's path that exists in the options; pydantic appends the union's alternative."""
    if details['type'] == 'problem':
        return details['loc']
    place: tuple[str | int, ...] = ()
    for key in details['loc']:
        try:
            given = given[key]
        except (KeyError, IndexError, TypeError):
            break
        place = (*place, key)
    return place


def must_be(several: Sequence[ErrorDetails]) -> str:
    """Return 'must be a number, but is ...', with what any alternative of a union would allow."""
    allowed = []
    for details in several:
        if details['type'] == 'literal_error':
            choices = details['ctx']['expected'].replace("'", '').replace(' or ', ', ')
            allowed.append(f'one of {choices}' if ',' in choices else choices)
        elif details['type'] in ALLOWED:
            allowed.append(ALLOWED[details['type']].format(**details.get('ctx', {})))
    allowed = list(dict.fromkeys(allowed)) or [several[0]['msg']]
    return f'must be {" or ".join(allowed)}, but is {shown(several[0]["input"])}'


def unknown_option(name: Any, value: Any, known: Iterable[str]) -> str:
    return (f'is not an option (its value here is {shown(value)}). {nearest(name, known)}'
            f'Options are {", ".join(sorted(known))}')


def nearest(name: Any, known: Iterable[str]) -> str:
    """Return 'Did you mean ...? ' if a known name is close, else an empty string."""
    lower = {other.lower(): other for other in known}
    close = get_close_matches(str(name)[:100].lower(), lower, n=1)  # takes long for long names
    return f'Did you mean {lower[close[0]]}? ' if close else ''


def shown(value: Any) -> str:
    """Format a value nearly as YAML does, with text in quotes, cut to one line."""
    if value is None or isinstance(value, bool):
        return {None: '~', True: 'true', False: 'false'}[value]
    return shortened(repr(value))


def shortened(text: Any, most: int = 60) -> str:
    """Return text of a file on one line, without escape sequences, cut to a length."""
    text = str(text)[:4 * most]
    text = ''.join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in text)
    return text if len(text) <= most else f'{text[:most - 4]} ...'


def lines(error: ValidationError, prefix: str) -> list[str]:
    """Return a line for each problem: 'train.optim_g.lr must be a number, but is ...'."""
    found = []
    for details in error.errors(include_url=False):
        keys = [key for key in details['loc'] if key != '[key]']  # an error in the key, not the value
        path = ''.join(f'[{key}]' if isinstance(key, int) else f'.{shortened(key)}' for key in keys)
        text = details['ctx']['text'] if details['type'] == 'problem' else must_be([details])
        start = f'{prefix}{path.removeprefix(".")}' if path else prefix.rstrip('.: ')
        found.append(f'{start}{text}' if text.startswith(':') else f'{start} {text.strip()}'.strip())
    return found
