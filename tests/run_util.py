"""What tests of whole runs share: the commands, and options of a training that takes seconds."""
import os
import subprocess
import sys
from copy import deepcopy
from pathlib import Path

import torch
import yaml
from conftest import ROOT, TINY_NET

NUM_ITER = 4

# One core, no GPU, and this checkout wherever a command is started
ENVIRONMENT = os.environ | {'OMP_NUM_THREADS': '1', 'CUDA_VISIBLE_DEVICES': '', 'PYTHONPATH': str(ROOT)}

# Trains like basicsr/train.py, and does `{action}` in the middle of the step that begins with `{samples}` samples seen.
INTERRUPTED = '''
import os, signal, sys
from basicsr_stvsr.models.mbnet_model import MBNetModel
from basicsr_stvsr.train import train_pipeline

compute_losses = MBNetModel.compute_losses

def interrupted(self):
    if self.samples == {samples}:
        {action}
    return compute_losses(self)

MBNetModel.compute_losses = interrupted
train_pipeline(os.getcwd())
'''


def run(*command: object, cwd: Path = ROOT) -> subprocess.CompletedProcess:
    """Runs `python *command` on one core without a GPU."""
    return subprocess.run(
        [sys.executable, *map(str, command)], cwd=cwd, capture_output=True, text=True, timeout=300, env=ENVIRONMENT)


def succeed(*command: object, cwd: Path = ROOT) -> str:
    """Runs `python *command`, which must end well, and returns the log."""
    process = run(*command, cwd=cwd)
    assert process.returncode == 0, process.stderr[-3000:]
    return process.stderr


def write(path: Path, opt: dict) -> Path:
    path.write_text(yaml.safe_dump(opt))
    return path


def train_opt(clips: Path, **path: str) -> dict:
    def val(name: str) -> dict:
        return {'name': name, 'type': 'STVSRTestDataset', 'dataroot_gt': str(clips), 'num_frame': 3}

    return {
        'name': 'tiny', 'model_type': 'MBNetModel', 'scale': 4, 'num_gpu': 0, 'manual_seed': 0,
        'datasets': {
            'train': {
                'name': 'clips', 'type': 'STVSRClipDataset', 'dataroot_gt': str(clips), 'gt_size': 48,
                'use_hflip': True, 'use_rot': True, 'num_worker_per_gpu': 0, 'batch_size_per_gpu': 2},
            'val': val('both'), 'val_2': {**val('one'), 'clips': 'second'}},
        'network_g': deepcopy(TINY_NET),
        'path': path,
        'train': {
            'optim_g': {'type': 'Adam', 'lr': 1e-3},
            'scheduler': {'type': 'MultiStepLR', 'milestones': [100], 'gamma': 0.5},
            'total_iter': NUM_ITER,
            'pixel_opt': {'type': 'L1Loss'},
            'hr_flow_opt': {'type': 'MiddleFlowLoss', 'loss_weight': 0.01},
            'lq_flow_opt': {'type': 'MultiScaleWarpLoss', 'loss_weight': 0.005}},
        'val': {'val_freq': 100, 'save_img': False, 'metrics': {'psnr': {'type': 'calculate_psnr', 'crop_border': 0}}},
        'logger': {'print_freq': 1, 'save_checkpoint_freq': NUM_ITER, 'use_tb_logger': False},
    }


def weights(folder: Path, name: str = 'net_g_latest.pth', key: str = 'params') -> dict[str, torch.Tensor]:
    return torch.load(folder / 'models' / name, weights_only=True)[key]


def small_train_opt(clips: Path) -> dict:
    opt = train_opt(clips)
    del opt['datasets']['val'], opt['datasets']['val_2'], opt['val']
    return opt
