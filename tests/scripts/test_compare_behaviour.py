"""scripts/benchmark/compare_behaviour.py and what it records."""
import runpy

import numpy as np
import pytest
from conftest import ROOT

BENCHMARK = ROOT / 'scripts' / 'benchmark'


@pytest.fixture
def script(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARK))
    return lambda name: runpy.run_path(str(BENCHMARK / name))


def test_differences(script):
    differences = script('compare_behaviour.py')['differences']
    assert differences({'a': 1, 'b': [1, 2]}, {'b': [1, 2], 'a': 1}) == []
    assert differences({'a': 1, 'b': [1, 2]}, {'b': [1, 3], 'c': 0}) == [
        'a: only in the old revision', 'b:\n    old [1, 2]\n    new [1, 3]', 'c: only in the new revision']


def test_a_digest_tells_one_bit(script):
    digest = script('record_behaviour.py')['digest']
    values = np.linspace(0, 1, 12, dtype=np.float32).reshape(3, 4)
    other = values.copy()
    other[1, 1] = np.nextafter(other[1, 1], np.float32(2))
    assert digest(values) == digest(values.copy(order='F')) != digest(other)
    assert digest(values).startswith('float32 (3, 4) mean 0.5 ')


def test_restored_videos_are_recorded_alike_twice(script, tmp_path):
    """What differs from run to run must not be recorded."""
    recorder = script('record_behaviour.py')
    frames = recorder['moving_frames'](3, 32, 48)
    for name in ('a.mkv', 'b.mkv'):
        recorder['write_video'](tmp_path / name, frames, [0, 40, 90], sound=True)
    found = recorder['decoded'](tmp_path / 'a.mkv')
    assert found == recorder['decoded'](tmp_path / 'b.mkv')
    assert found[:2] == ['video ffv1', 'audio flac']
    assert [line.split()[1] for line in found if line.startswith('VideoFrame')] == ['0.000000', '0.040000', '0.090000']
