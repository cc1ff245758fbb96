"""Packing a campaign, and a trial of it on a CPU."""
import importlib
import os
import subprocess
import sys
import tarfile

import cv2
import pytest
import torch
from conftest import ROOT
from run_util import ENVIRONMENT

from basicsr_stvsr.config.loading import load_options


@pytest.fixture
def scripts(monkeypatch):
    """Imports a script of scripts/training."""
    monkeypatch.syspath_prepend(ROOT / 'scripts/training')
    return importlib.import_module


@pytest.fixture
def campaign(scripts, clips, tmp_path, monkeypatch):
    """A packed folder with the data of two small clips."""
    pack = scripts('pack_campaign')
    output = tmp_path / 'campaign'
    monkeypatch.setattr(sys, 'argv', ['pack_campaign.py', '--input', str(clips), '--output', str(output),
                                      '--num-frames', '7', '--crop', '64'])
    monkeypatch.setattr(pack, 'folder_size', lambda folder: 60 * 2**20 - 100_000)  # leaves 100 kB
    assert pack.main() == 0
    return output


def test_windows_are_crops_of_consecutive_frames(campaign, clips):
    folder = sorted((campaign / 'data').iterdir())[0]
    packed = [cv2.imread(str(file)).astype(float) for file in sorted(folder.iterdir())]
    assert [frame.shape for frame in packed] == 7 * [(64, 64, 3)]
    errors = {}
    for clip in ('first', 'second'):
        frames = [cv2.imread(str(clips / clip / f'im{i}.png')).astype(float) for i in range(1, 8)]
        for left in range(72 - 64 + 1):
            errors[clip, left] = max(abs(small - large[:, left:left + 64]).mean()
                                     for small, large in zip(packed, frames, strict=True))
    first, second = sorted(errors.values())[:2]
    assert first < 2 < second  # one place fits for all seven frames, but for JPEG's rounding


def test_the_folder_keeps_to_its_size(campaign):
    sizes = [sum(file.stat().st_size for file in folder.iterdir()) for folder in (campaign / 'data').iterdir()]
    assert 100_000 <= sum(sizes) < 100_000 + max(sizes)
    assert (campaign / 'code/packages/basicsr/train.py').is_file()


def test_training_files_of_all_systems_exist(scripts):
    run_campaign = scripts('run_campaign')
    for stages in run_campaign.SYSTEMS.values():
        assert sum(stage.share for stage in stages) == pytest.approx(1)
        for stage in stages:
            start = load_options(str(ROOT / 'options' / f'{stage.options}.yml'))['path']['pretrain_network_g']
            previous = [load_options(str(ROOT / 'options' / f'{other.options}.yml'))['name'] for other in stages]
            assert stage.start or not start or start.split('/')[1] in previous


@pytest.mark.slow
def test_a_trial(campaign, tmp_path):
    """Two systems, one of two stages, two steps each, from the packed folder alone."""
    process = subprocess.run(
        [campaign / 'code/scripts/training/gpu_campaign.sh', campaign, tmp_path / 'out', '--steps', '2', '--batch', '1',
         '--systems', 'mbnet', 'adaptive_gan', '--force_yml', 'datasets:train:batch_size_per_gpu=1',
         'datasets:train:num_worker_per_gpu=0', 'datasets:train:gt_size=64'],
        env={name: value for name, value in ENVIRONMENT.items() if name != 'PYTHONPATH'} | {'PYTHON': sys.executable},
        cwd=tmp_path, capture_output=True, text=True, timeout=500)
    assert process.returncode == 0, process.stderr[-3000:]
    with tarfile.open(tmp_path / 'out/weights.tar') as archive:
        archive.extractall(tmp_path / 'out', filter='data')
    weights = sorted((tmp_path / 'out/weights').glob('*.pth'))
    assert [path.name.split('_')[0] for path in weights] == ['MBNet', 'VSRResNet']
    for path in weights:
        state = torch.load(path, weights_only=True)['params']
        assert all(value.dtype == torch.float16 for value in state.values())
    assert not os.path.exists(campaign / 'code/experiments')


def test_the_number_of_steps_fits_into_the_time(scripts, tmp_path, monkeypatch):
    run_campaign = scripts('run_campaign')
    campaign = run_campaign.Campaign(tmp_path, [], 1, None, None)
    monkeypatch.setattr(run_campaign.Campaign, 'run', lambda *args: 'time        0.050 s per iteration, 0.0 s')
    steps = campaign.steps_within(100, run_campaign.Stage('train_fisr_small'), tmp_path, [])
    assert steps == pytest.approx(0.8 * 100 / 0.05, abs=2)
