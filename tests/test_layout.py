"""Imports of the package go one way, also those inside of functions: a folder can be read without those above it.

The table below is the order; a folder may import itself and what is in rows above its own.
"""
import ast
import re
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest
from conftest import ROOT

PACKAGE = 'basicsr_stvsr'

# Of folders, and of modules at the root; what is in one row does not know of each other
ORDER = (
    ('version', 'registry'),
    ('utils',),
    ('compat',),  # has an operator of `utils` in place of one that torchvision may lack
    ('discovery',),
    ('io',),
    ('config',),
    ('archs',),
    ('flow',),
    ('losses',),
    ('metrics',),  # the error in busy regions is measured by the activity of a loss
    ('data',),
    ('inference',),
    ('evaluation',),
    ('models',),
    ('training', 'video', 'export'),
    ('train', 'test'),
    ('protocols', 'zoo'),  # a protocol is measured by `test`
    ('openmmlab', 'app'),
    ('cli',),
    ('__init__',),
    ('__main__', 'run'),
)
RANK = {name: rank for rank, names in enumerate(ORDER) for name in names}
# The registries of mmengine are below what fills them, but mmengine knows them by the module at the root.


def modules() -> dict[str, Path]:
    """Dotted name within the package -> file; '__init__' is the package itself."""
    found = {}
    for path in sorted((ROOT / PACKAGE).rglob('*.py')):
        parts = path.relative_to(ROOT / PACKAGE).with_suffix('').parts
        if len(parts) > 1 and parts[-1] == '__init__':
            parts = parts[:-1]
        found['.'.join(parts)] = path
    return found


MODULES = modules()


def imports_of(name: str) -> Iterator[tuple[int, str]]:
    """Line and name of every module of the package that a module imports, at its top or in a function."""
    path = MODULES[name]
    folder = [PACKAGE, *path.relative_to(ROOT / PACKAGE).parts[:-1]]
    for node in ast.walk(ast.parse(path.read_text(encoding='utf-8'))):
        if isinstance(node, ast.Import):
            targets = [alias.name.split('.') for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = folder[:len(folder) + 1 - node.level] if node.level else []
            base = base + (node.module.split('.') if node.module else [])
            targets = [[*base, alias.name] for alias in node.names]
        else:
            continue
        for first, *rest in targets:
            if first == PACKAGE:
                whole, parent = '.'.join(rest), '.'.join(rest[:-1])
                yield node.lineno, whole if whole in MODULES else parent or '__init__'


def folder_of(name: str) -> str:
    return name.partition('.')[0]


def test_every_folder_has_its_place():
    assert {folder_of(name) for name in MODULES} == set(RANK)


@pytest.mark.parametrize('name', MODULES)
def test_imports_go_one_way(name):
    wrong = [f'{MODULES[name].relative_to(ROOT)}:{line} imports {target}' for line, target in imports_of(name)
             if folder_of(target) != folder_of(name) and RANK[folder_of(target)] >= RANK[folder_of(name)]]
    assert not wrong


def test_no_module_needs_itself():
    """Not by way of others either; the __init__ of a folder collects what is in it, and does not count."""
    graph = {name: {target for _, target in imports_of(name) if not MODULES[target].match('__init__.py')} - {name}
             for name, path in MODULES.items() if path.name != '__init__.py'}
    TopologicalSorter(graph).prepare()  # raises CycleError, which names the cycle


def test_the_makefile_names_existing_tests():
    named = re.findall(r'\btests/[\w/.]+', (ROOT / 'Makefile').read_text(encoding='utf-8'))
    assert 'tests/fast.txt' in named
    named += (ROOT / 'tests' / 'fast.txt').read_text(encoding='utf-8').split()
    assert [path for path in named if not (ROOT / path).exists()] == []
