"""Published weights: what is in the package, and the script that makes such files."""
import hashlib
import shutil
import subprocess
import sys

import pytest
import torch
from conftest import ROOT

from basicsr_stvsr.archs.checkpoint import check_hash
from basicsr_stvsr.archs.mbnet_arch import MBNET_PRESETS, MBNet
from basicsr_stvsr.options import load_options

WEIGHTS = sorted((ROOT / 'basicsr_stvsr' / 'weights').glob('*.pth'))


def test_there_are_weights():
    assert WEIGHTS


@pytest.mark.parametrize('path', WEIGHTS, ids=lambda path: path.name)
def test_weights_of_the_package(path):
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    assert path.stem.endswith(f'-{digest[:8]}')
    assert path.stat().st_size < 3e6
    weights = torch.load(path, weights_only=True)['params']
    assert all(tensor.dtype == torch.float16 and tensor.isfinite().all() for tensor in weights.values())
    net = MBNet(**MBNET_PRESETS['small'])
    net.load_state_dict(weights)
    card = (path.parent / 'README.md').read_text()
    assert path.name in card and digest in card and 'research' in card


@pytest.mark.parametrize('file', ['options/test_mbnet_small.yml', 'options/demo/train_mbnet_small.yml'])
def test_option_files_name_weights_that_are_there(file):
    assert (ROOT / load_options(str(ROOT / file))['path']['pretrain_network_g']) in WEIGHTS


def test_publish(tmp_path):
    checkpoint = tmp_path / 'net_g_latest.pth'
    averaged = {'w': torch.full((3,), 0.1), 'n': torch.tensor(7)}
    torch.save({'params': {'w': torch.ones(3)}, 'params_ema': averaged}, checkpoint)
    command = [sys.executable, ROOT / 'scripts' / 'publish_weights.py', checkpoint, tmp_path / 'out' / 'Net_set_x4']
    subprocess.run(command, check=True)
    path, = (tmp_path / 'out').iterdir()
    weights = torch.load(path, weights_only=True)['params']
    assert torch.equal(weights['w'], torch.full((3,), 0.1).half()) and weights['n'] == 7
    check_hash(path)

    torch.save({'weights': {}}, checkpoint)
    failed = subprocess.run(command, capture_output=True, text=True)
    assert failed.returncode == 1
    assert failed.stderr == f'{checkpoint} holds weights, but no params_ema\n'


def test_damaged_weights_are_refused(tmp_path):
    path = shutil.copy(WEIGHTS[0], tmp_path)
    with open(path, 'r+b') as file:
        file.seek(1000)
        file.write(b'x')
    with pytest.raises(ValueError, match='is damaged or was changed: its sha256 begins with'):
        check_hash(path)
    with pytest.raises(FileNotFoundError, match='weights .*nothing.pth do not exist'):
        check_hash(tmp_path / 'nothing.pth')
