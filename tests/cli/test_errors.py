"""Errors for users are one line on stderr, in one form."""
import ast

import pytest
from conftest import ROOT

from stvsr.errors import USER_ERRORS, user_errors


@pytest.mark.parametrize(('arguments', 'error', 'code', 'line'), [
    ({}, ValueError('scale must be 4'), 2, 'scale must be 4'),
    ({}, FileNotFoundError(2, 'No such file', 'x.yml'), 2, "[Errno 2] No such file: 'x.yml'"),
    ({'code': 1}, ValueError('two\nlines'), 1, 'two\nlines'),
    ({'types': (*USER_ERRORS, ImportError)}, ImportError('no package\nTraceback ...'), 2, 'no package'),
])
def test_errors_are_one_line(capsys, arguments, error, code, line):
    with pytest.raises(SystemExit) as end, user_errors(**arguments):
        raise error
    assert end.value.code == code and capsys.readouterr().err == f'error: {line}\n'


@pytest.mark.parametrize(('types', 'error'), [
    (USER_ERRORS, KeyError), (USER_ERRORS, RuntimeError), (USER_ERRORS, TypeError), ((FileNotFoundError,), ValueError),
])
def test_other_errors_keep_their_traceback(types, error):
    with pytest.raises(error), user_errors(types):
        raise error('of the program')


def first_words(node: ast.expr) -> str:
    """Text that an argument of a call begins with."""
    if isinstance(node, ast.JoinedStr):
        node = node.values[0]
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else ''


@pytest.mark.parametrize('folder', ['basicsr_stvsr', 'stvsr', 'scripts/data_preparation', 'scripts/convert_weights'])
def test_nothing_else_prints_them(folder):
    found = [f'{path.relative_to(ROOT)}:{node.lineno}' for path in sorted((ROOT / folder).rglob('*.py'))
             if path.name != 'errors.py'
             for node in ast.walk(ast.parse(path.read_text(encoding='utf-8')))
             if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == 'print'
             and node.args and first_words(node.args[0]).startswith('error')]
    assert not found, 'use stvsr.errors'
