"""The types in stubs/ describe BasicSR as it is installed: a stub that BasicSR lacks would hide an error from mypy."""
import ast
import importlib
import inspect
from pathlib import Path

import pytest
from conftest import ROOT

import basicsr_stvsr  # noqa: F401  (makes BasicSR work with today's PyTorch)

STUBS = ROOT / 'stubs'
# Its models take the number of the iteration; the method of the base class, which does nothing, takes none
OTHER_ARGUMENTS = {'basicsr.models.base_model.BaseModel.optimize_parameters'}


def module_of(path: Path) -> str:
    return '.'.join(path.relative_to(STUBS).with_suffix('').parts).removesuffix('.__init__')


def check(stub: ast.AST, owner: object, where: str) -> None:
    """Compare the functions and classes of a stub with those of a module or class."""
    for node in ast.iter_child_nodes(stub):
        if isinstance(node, ast.ClassDef):
            check(node, getattr(owner, node.name), f'{where}.{node.name}')
        elif isinstance(node, ast.ImportFrom):
            assert all(hasattr(owner, alias.asname) for alias in node.names if alias.asname), where
        elif isinstance(node, ast.FunctionDef):
            assert hasattr(owner, node.name), f'{where} has no {node.name}'
            actual = inspect.signature(getattr(owner, node.name)).parameters
            stubbed = [argument.arg for argument in node.args.args]
            if f'{where}.{node.name}' not in OTHER_ARGUMENTS:
                assert stubbed == list(actual)[:len(stubbed)], f'{where}.{node.name}'


@pytest.mark.parametrize('path', sorted(STUBS.rglob('*.pyi')), ids=module_of)
def test_stubs_are_of_what_is_there(path):
    name = module_of(path)
    check(ast.parse(path.read_text()), importlib.import_module(name), name)
