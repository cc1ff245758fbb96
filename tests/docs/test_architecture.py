"""docs/architecture.md says what is there."""
import importlib
import re

import pytest
from conftest import ROOT
from test_layout import ORDER

PAGE = (ROOT / 'docs' / 'architecture.md').read_text(encoding='utf-8')
FOLDERS = {path.parent.name for path in (ROOT / 'basicsr_stvsr').glob('*/__init__.py')}
NAMES = sorted(name for name in set(re.findall(r'`((?:\w+\.)+\w+)`', PAGE)))


def test_the_layers_are_those_of_the_imports():
    diagram = re.search(r'```text\n(.*?)```', PAGE, re.DOTALL)[1]
    rows = [re.findall(r'(?:^|\| )(\w+)(?=:? )', line) for line in diagram.splitlines()]
    expected = [[name for name in row if name in FOLDERS] for row in ORDER]
    assert [sorted(row) for row in rows] == [sorted(row) for row in expected if row]


@pytest.mark.parametrize('name', NAMES)
def test_names_are_there(name):
    module, _, attribute = name.rpartition('.')
    assert hasattr(importlib.import_module(f'basicsr_stvsr.{module}'), attribute)
