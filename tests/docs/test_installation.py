"""docs/installation.md against setup.py and the Makefile."""
import ast
import re

import yaml
from conftest import ROOT
from packaging.requirements import Requirement

PAGE = (ROOT / 'docs' / 'installation.md').read_text(encoding='utf-8')
RANGE = range(11, 15)  # of Python 3


def setup_argument(name: str):
    """An argument of `setup(...)` that is written out."""
    calls = [node for node in ast.walk(ast.parse((ROOT / 'setup.py').read_text(encoding='utf-8')))
             if isinstance(node, ast.Call) and getattr(node.func, 'id', None) == 'setup']
    return ast.literal_eval(next(keyword.value for keyword in calls[0].keywords if keyword.arg == name))


def rows(section: str) -> list[list[str]]:
    """The cells of the table after a line of the page."""
    table = PAGE.partition(section)[2].lstrip('\n').partition('\n\n')[0]
    return [[cell.strip().strip('`') for cell in line.strip('|').split('|')] for line in table.splitlines()[2:]]


def names(requirements: list[str]) -> set[str]:
    return {Requirement(text).name for text in requirements}


def test_the_tables_of_dependencies_are_complete():
    table = rows('These are installed:\n')
    assert {row[0] for row in table} == names(setup_argument('install_requires'))
    extras = setup_argument('extras_require')
    del extras['dev']
    shown = rows('the error names it.\n')
    assert {(row[0], row[1]) for row in shown} == {(extra, name) for extra in extras for name in names(extras[extra])}
    assert all(all(row) for row in table + shown)


def test_the_same_versions_of_python_everywhere():
    low, high = RANGE[0], RANGE[-1]
    assert setup_argument('python_requires') == f'>=3.{low}, <3.{high + 1}'
    assert f'Python 3.{low} to 3.{high}' in PAGE
    assert f'not (3, {low}) <= sys.version_info[:2] <= (3, {high})' in (ROOT / 'Makefile').read_text()
    workflow = yaml.safe_load((ROOT / '.github' / 'workflows' / 'test.yml').read_text())
    assert workflow['jobs']['test']['strategy']['matrix']['python'] == [f'3.{minor}' for minor in RANGE]


def test_every_target_of_the_table_exists():
    targets = re.findall(r'^([a-z-]+):.*##', (ROOT / 'Makefile').read_text(), re.MULTILINE)
    shown = [row[0].removeprefix('make ') for row in rows('we have not tried it.\n') if row[0].startswith('make')]
    assert len(shown) == 7 and set(shown) <= set(targets)
