"""Files that version 0.1 wrote (commit 3594196): an option file, a checkpoint and a training state of two steps.

The expected numbers are those that version 0.1 printed when it continued, and for the frames, its network in float64.
"""
import json
import shutil

import pytest
import torch
from conftest import ROOT

from basicsr_stvsr import load_network
from basicsr_stvsr.config.loading import load_options

FILES = ROOT / 'tests' / 'v0_1'


def test_a_checkpoint_gives_the_same_frames():
    network = load_options(str(FILES / 'train.yml'))['network_g']
    net = load_network(network, FILES / 'net_g_2.pth', device='cpu').double()
    lq = torch.linspace(0, 1, 5 * 8 * 12, dtype=torch.float64).view(1, 5, 1, 8, 12)
    with torch.no_grad():
        frame = net(lq)[0, 0, 0]
    assert frame.shape == (32, 48)
    assert frame.mean().item() == pytest.approx(0.5076439157277974, abs=1e-6)
    assert frame[5:7, 7].tolist() == pytest.approx([0.4608001670599847, 0.42961868903790607], abs=1e-6)


def test_a_training_continues(train_here, clips, tmp_path):
    """From the state, to the same losses."""
    folder = tmp_path / 'experiments' / 'old'
    for name, place in (('net_g_2.pth', 'models'), ('2.state', 'training_states')):
        (folder / place).mkdir(parents=True)
        shutil.copy(FILES / name, folder / place)
    opt = load_options(str(FILES / 'train.yml'))
    opt['datasets']['train']['dataroot_gt'], opt['train']['total_iter'] = str(clips), 4
    train_here(opt, '--auto_resume')
    rows = [json.loads(line) for line in (folder / 'metrics.jsonl').read_text().splitlines()]
    assert [row['iter'] for row in rows] == [3, 4]
    assert [row['l_pix'] for row in rows] == pytest.approx([0.025959542021155357, 0.027139296755194664], rel=1e-3)
