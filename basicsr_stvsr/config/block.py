"""What all option blocks share: how they are read, and how they say what is wrong."""
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
from pydantic_core import CoreSchema, ErrorDetails, PydanticCustomError, ValidationError


def whole_number(value: Any) -> Any:
    """600000 for 6e5, which YAML reads as a float."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


Count = Annotated[int, Field(ge=0), BeforeValidator(whole_number)]
Positive = Annotated[int, Field(ge=1), BeforeValidator(whole_number)]

# What pydantic calls a wrong value -> what would be right; limits come with the number that pydantic names. What is not
# listed, such as a Tensor, no option file can give.
ALLOWED = {
    'bool_type': 'true or false', 'int_type': 'a whole number', 'float_type': 'a number', 'string_type': 'text',
    'finite_number': 'a finite number', 'dict_type': 'a block', 'mapping_type': 'a block', 'model_type': 'a block',
    'list_type': 'a list', 'tuple_type': 'a list', 'sequence_str': 'a list', 'iterable_type': 'a list',
    'greater_than_equal': '>= {ge:g}', 'greater_than': '> {gt:g}', 'less_than_equal': '<= {le:g}',
    'less_than': '< {lt:g}',
    'too_short': 'a list of at least {min_length}', 'too_long': 'a list of at most {max_length}',
    'missing': 'a list with more entries',
}
Problem = dict[str, Any]  # an error in the form that ValidationError.from_exception_data takes


class Block(BaseModel):
    """A block of options: refuses keys that it does not know, and values of another type than it states.

    `~` stands for an option that is not there: it takes back what a file named by `base` says. The text under a field
    says what it is for, in docs/options.md, in the JSON schema, and in the message when the field is missing.
    """

    model_config = ConfigDict(
        extra='forbid', strict=True, frozen=True, allow_inf_nan=False, arbitrary_types_allowed=True,
        protected_namespaces=(), defer_build=True)

    null_is_absent: ClassVar[bool] = True

    @classmethod
    def read(cls, options: Any, prefix: str = '') -> Self:
        """Checks options and fills in defaults.

        Args:
            options: what stands in the file.
            prefix: what goes before the name of an option in messages, such as 'train.'.

        Raises:
            ValueError: something is wrong; a line for each problem.
        """
        try:
            return cls.model_validate(options)
        except ValidationError as error:
            raise ValueError('\n'.join(lines(error, prefix))) from None

    def complete(self) -> dict[str, Any]:
        """The options as a file would have them that states all defaults; those that are not there are left out."""
        values = {name: getattr(self, name) for name in type(self).model_fields}
        return {name: completed(value) for name, value in values.items() if value is not None}

    @model_validator(mode='wrap')
    @classmethod
    def word_problems(cls, options: Any, check: ModelWrapValidatorHandler[Self]) -> Self:
        """Replaces pydantic's messages by sentences that go on after the path of an option, see `lines`."""
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
            problems += worded([details for details in error.errors(include_url=False)
                                if details['type'] != 'missing' or details['loc'][0] not in missing], given)
        if problems:
            raise ValidationError.from_exception_data(cls.__name__, problems)
        return block

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        """For an editor, which sees one file: nothing is missing, as it may stand in the `base`; and `~` takes back."""
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
        """What stands under the fields, by name.

        Read from the source when asked for: pydantic's own `use_attribute_docstrings` reads it on import, which takes
        a sixth of the time that the whole package does.
        """
        found = {}
        for block in reversed(cls.__mro__):
            if issubclass(block, Block):
                found |= texts_in(block)
        return found

    @classmethod
    def purpose(cls, name: str) -> str:
        """': what a field is for', its first sentence; empty where nothing is said."""
        text = ' '.join(cls.texts().get(name, '').split())
        sentence = re.split(r'\. (?=[A-Z])|\.$', text)[0]  # 'eq. 7' ends none
        return text and f': {sentence}'


def completed(value: Any) -> Any:
    """Blocks, by themselves or in a list, as a file would have them; anything else as it is."""
    if isinstance(value, list):
        return [completed(item) for item in value]
    return value.complete() if isinstance(value, Block) else value


@cache
def texts_in(block: type) -> dict[str, str]:
    """The texts under the fields that this class itself states; none where its source is not at hand."""
    try:
        source = inspect.getsource(block)
    except (OSError, TypeError):  # typed into an interpreter
        return {}
    [statement] = ast.parse(textwrap.dedent(source)).body
    return {field.target.id: inspect.cleandoc(text.value.value) for field, text in pairwise(statement.body)
            if isinstance(field, ast.AnnAssign) and isinstance(text, ast.Expr)}


def problem(text: str, *path: str | int) -> Problem:
    """An error at a place of a block; the text goes on after the path: 'train.lr' + 'must be ...'."""
    return {'type': PydanticCustomError('problem', '{text}', {'text': text}), 'loc': path, 'input': None}


def refuse(text: str) -> PydanticCustomError:
    """To be raised by the validator of a field; the text goes on after its path, as in `problem`."""
    return problem(text)['type']


def refuse_field(name: str, text: str) -> ValidationError:
    """To be raised by the validator of a block, about one of its fields."""
    return ValidationError.from_exception_data(name, [problem(text, name)])


def worded(errors: Sequence[ErrorDetails], given: Mapping[str, Any]) -> list[Problem]:
    """The errors of a block in words; those of the alternatives of a union become one."""
    places: dict[tuple, list[ErrorDetails]] = {}
    for details in errors:
        places.setdefault(place_of(details, given), []).append(details)
    problems = []
    for place, several in places.items():
        texts = [details['ctx']['text'] for details in several if details['type'] == 'problem']
        problems += [problem(text, *place) for text in texts or [must_be(several)]]
    return problems


def place_of(details: ErrorDetails, given: Any) -> tuple[str | int, ...]:
    """The part of an error's path that is in the options; pydantic adds the alternative of a union that it tried."""
    if details['type'] == 'problem':
        return details['loc']
    place = ()
    for key in details['loc']:
        try:
            given = given[key]
        except (KeyError, IndexError, TypeError):
            break
        place = (*place, key)
    return place


def must_be(several: Sequence[ErrorDetails]) -> str:
    """'must be a number, but is ...': what any alternative of a union would allow."""
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
    """'Did you mean ...? ' where a known name is near, else nothing."""
    lower = {other.lower(): other for other in known}
    close = get_close_matches(str(name).lower(), lower, n=1)
    return f'Did you mean {lower[close[0]]}? ' if close else ''


def shown(value: Any) -> str:
    """A value nearly as YAML writes it, text in quotes, cut to a line."""
    if value is None or isinstance(value, bool):
        return {None: '~', True: 'true', False: 'false'}[value]
    text = repr(value)
    return text if len(text) <= 60 else f'{text[:56]} ...'


def lines(error: ValidationError, prefix: str) -> list[str]:
    """'train.optim_g.lr must be a number, but is ...' for each problem."""
    found = []
    for details in error.errors(include_url=False):
        keys = [key for key in details['loc'] if key != '[key]']  # pydantic's word for: not the value, but its key
        path = ''.join(f'[{key}]' if isinstance(key, int) else f'.{key}' for key in keys)
        text = details['ctx']['text'] if details['type'] == 'problem' else must_be([details])
        start = f'{prefix}{path.removeprefix(".")}' if path else prefix.rstrip('.: ')
        found.append(f'{start}{text}' if text.startswith(':') else f'{start} {text}'.strip())
    return found
