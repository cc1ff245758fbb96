"""Threads leave the cores to other processes."""
import os
import subprocess
import sys
from fractions import Fraction

import cv2
import numpy as np
import pytest
import torch
from conftest import ROOT
from run_util import small_train_opt
from torch.utils.data import Dataset

from basicsr_stvsr.io.encoding import Encoding, OutputSpec
from basicsr_stvsr.io.video_info import ColorSpec
from basicsr_stvsr.io.video_writer import VideoWriter
from basicsr_stvsr.training.loader import make_train_loader
from basicsr_stvsr.utils import threads
from basicsr_stvsr.utils.threads import SPIN_COUNT, available_cores, limit_spinning


@pytest.fixture
def clean(monkeypatch):
    """As in a new process: nothing says how threads wait, and torch was not imported."""
    for name in ('GOMP_SPINCOUNT', 'OMP_WAIT_POLICY'):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.delitem(sys.modules, 'torch')
    yield monkeypatch
    os.environ.pop('GOMP_SPINCOUNT', None)  # monkeypatch puts back what was there before


def test_spinning_is_limited(clean):
    limit_spinning()
    assert os.environ['GOMP_SPINCOUNT'] == str(SPIN_COUNT)


@pytest.mark.parametrize(('name', 'value'), [('GOMP_SPINCOUNT', '7'), ('OMP_WAIT_POLICY', 'ACTIVE')])
def test_what_the_user_set_stays(clean, name, value):
    clean.setenv(name, value)
    before = dict(os.environ)
    limit_spinning()
    assert os.environ == before


def test_nothing_changes_after_torch(clean):
    clean.setitem(sys.modules, 'torch', torch)
    before = dict(os.environ)
    limit_spinning()
    assert os.environ == before


ENTRY_POINTS = [
    ('-m', 'stvsr', 'info'), ('-m', 'basicsr_stvsr', 'info'), ('-m', 'basicsr_stvsr', 'train', '-opt', 'a.yml'),
    ('-m', 'basicsr_stvsr.train'), ('-m', 'basicsr_stvsr.test'), ('-m', 'basicsr_stvsr.run', 'basicsr/train.py'),
    ('-m', 'basicsr_stvsr.openmmlab.run', 'train', 'a.py'), ('basicsr/train.py',), ('basicsr/test.py',),
    ('-c', 'from basicsr_stvsr import restore'), ('scripts/data_preparation/precompute_flow.py',),
]


@pytest.mark.parametrize('command', ENTRY_POINTS, ids=' '.join)
def test_every_entry_point_limits_it_before_torch_is_imported(tmp_path, command):
    """A module in the place of torch prints what libgomp would find, and ends the process."""
    (tmp_path / 'torch.py').write_text('import os\nprint(os.environ.get("GOMP_SPINCOUNT"), flush=True)\nos._exit(0)')
    env = {name: value for name, value in os.environ.items() if name not in ('GOMP_SPINCOUNT', 'OMP_WAIT_POLICY')}
    process = subprocess.run([sys.executable, *command], cwd=ROOT, capture_output=True, text=True,
                             env=env | {'PYTHONPATH': os.pathsep.join((str(tmp_path), str(ROOT)))})
    assert (process.returncode, process.stdout) == (0, f'{SPIN_COUNT}\n'), process.stderr


class Threads(Dataset):
    """How many threads the libraries use in a data worker."""

    def __len__(self) -> int:
        return 4

    def __getitem__(self, index: int) -> dict[str, int]:
        return {'torch': torch.get_num_threads(), 'cv2': cv2.getNumThreads()}


def test_data_workers_have_one_thread(clips):
    opt = small_train_opt(clips) | {'rank': 0, 'world_size': 1, 'dist': False}
    opt['datasets']['train']['num_worker_per_gpu'] = 1
    batch = next(iter(make_train_loader(opt, Threads())))
    assert batch['torch'].tolist() == batch['cv2'].tolist() == [1, 1]


def test_available_cores_are_those_of_the_affinity(monkeypatch):
    monkeypatch.setattr(threads.os, 'sched_getaffinity', lambda _: {1, 3, 4}, raising=False)
    assert available_cores() == 3
    monkeypatch.delattr(threads.os, 'sched_getaffinity')
    monkeypatch.setattr(threads.os, 'cpu_count', lambda: None)
    assert available_cores() == 1


@pytest.mark.parametrize(('cores', 'expected'), [(1, 1), (3, 3), (64, 16)])
def test_an_encoder_has_a_thread_per_core(tmp_path, monkeypatch, cores, expected):
    monkeypatch.setattr(threads.os, 'sched_getaffinity', lambda _: set(range(cores)), raising=False)
    encoding = Encoding('x264', preset='ultrafast')
    spec = OutputSpec(64, 48, 8, ColorSpec.untagged(64, 48), Fraction(25), Fraction(1, 25))
    with VideoWriter(tmp_path / f'out{encoding.segment_suffix}', spec, encoding) as writer:
        assert writer._stream.codec_context.thread_count == expected
        writer.write(np.zeros((48, 64, 3), np.uint8), Fraction(0))
