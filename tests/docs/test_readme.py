"""The README is short, and keeps the commands of earlier versions. tests/docs/test_commands.py runs them."""
from conftest import ROOT
from test_commands import COMMANDS, commands_of

README = commands_of(ROOT / 'README.md')


def test_the_two_commands_come_first():
    assert README[:2] == ['make demo', 'make test']


def test_the_commands_of_version_0_1_are_in_the_documentation():
    """In the README of version 0.1 (commit 3594196); the order of flags does not matter."""
    commands = {frozenset(command.split()) for command in COMMANDS}
    old = (ROOT / 'tests' / 'v0_1' / 'commands.txt').read_text().splitlines()
    assert len(old) == 25
    assert [command for command in old if frozenset(command.split()) not in commands] == []


def test_the_readme_is_short():
    assert len((ROOT / 'README.md').read_text().split()) <= 900
