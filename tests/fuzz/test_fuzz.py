"""A short run of the fuzz test; `make fuzz` runs it for an hour."""
import sys
from pathlib import Path

import pytest

pytest.importorskip('hypothesis')
sys.path.insert(0, str(Path(__file__).parent))

from fuzz import KINDS, fuzz

SECONDS = 24


def test_changed_files_are_refused_in_a_line_or_read_as_before():
    counts, findings = fuzz(KINDS, SECONDS, number=0)
    assert not findings
    for kind in KINDS:  # changes that nothing refuses, or all of which it refuses at once, would test little
        assert counts[kind]['refused'] > 2, kind
