"""Data sets, models and networks of both sides, in both training loops: the table of docs/basicsr.md, run."""
import re
import shutil
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import cv2
import pytest
import torch
import yaml
from conftest import ROOT, TINY_NET, write_moving_clips

from basicsr_stvsr import run
from basicsr_stvsr.config.loading import load_options
from stvsr.main import main
from stvsr.training_parser import SYSTEMS

LUMA = 'its data are RGB, the network takes luma'
WHOLE = 'the model calls the network with whole clips'
FRAMES = 'the model takes single frames; refused at start'


class Cell(NamedTuple):
    """A row of the table: what runs in both loops, or why it does not."""
    data: str  # ours or BasicSR's
    model: str
    network: str
    reason: str = ''  # why it does not work


CELLS = [
    Cell('ours', 'MBNetModel', 'MBNet'), Cell('ours', 'FISRModel', 'FISRNet'), Cell('ours', 'STVSRModel', 'FSTRN'),
    Cell('ours', 'HOFFRModel', 'HOFFR'), Cell('ours', 'AdaptiveGANModel', 'VSRResNet'),
    Cell('ours', 'STVSRModel', 'images'), Cell('ours', 'STVSRModel', 'windows'), Cell('ours', 'STVSRModel', 'clips'),
    Cell('ours', 'VideoRecurrentModel', 'clips'),
    Cell('ours', 'VideoRecurrentModel', 'images, windows', WHOLE),
    Cell('ours', 'SRModel, EDVRModel', 'any', FRAMES),
    Cell("BasicSR's", 'MBNetModel', 'MBNet'),
    Cell("BasicSR's", 'FISRModel', 'FISRNet', 'its data have no flow, and are RGB instead of YUV'),
    Cell("BasicSR's", 'STVSRModel', 'FSTRN', LUMA), Cell("BasicSR's", 'AdaptiveGANModel', 'VSRResNet', LUMA),
    Cell("BasicSR's", 'HOFFRModel', 'HOFFR', 'its data have no blurred frames with their sharp versions'),
    Cell("BasicSR's", 'STVSRModel', 'images'), Cell("BasicSR's", 'STVSRModel', 'windows'),
    Cell("BasicSR's", 'STVSRModel', 'clips'), Cell("BasicSR's", 'VideoRecurrentModel', 'clips'),
]
WORKING = [cell for cell in CELLS if not cell.reason]
SYSTEM_OF = dict(zip(('MBNet', 'FISRNet', 'FSTRN', 'HOFFR', 'VSRResNet'), SYSTEMS, strict=True))
NETWORKS = {
    'images': {'type': 'MSRResNet', 'num_feat': 4, 'num_block': 1},
    'windows': {'type': 'EDVR', 'num_feat': 8, 'num_frame': 5, 'deformable_groups': 1, 'num_extract_block': 1,
                'num_reconstruct_block': 1},
    'clips': {'type': 'BasicVSR', 'num_feat': 4, 'num_block': 1},
}
pytestmark = pytest.mark.usefixtures('tiny_flow')

METRICS = {'psnr': {'type': 'calculate_psnr', 'crop_border': 0, 'test_y_channel': False}}


def row(cell: Cell) -> str:
    return f'| {cell.data} | {cell.model} | {cell.network} | {cell.reason or "yes"} |'


def test_the_page_has_this_table():
    page = (ROOT / 'docs' / 'basicsr.md').read_text(encoding='utf-8')
    rows = [line for line in page.splitlines() if line.startswith(('| ours |', "| BasicSR's |"))]
    assert rows == [row(cell) for cell in CELLS]


@pytest.fixture(scope='module')
def root(tmp_path_factory) -> Path:
    """GT and LR: two clips, v/first and v/second, of 9 frames of 144 x 152, im1.png, ...; and a list of them."""
    root = tmp_path_factory.mktemp('data')
    (root / 'GT' / 'v').mkdir(parents=True)
    write_moving_clips(root / 'GT' / 'v', num_frames=9, height=144, width=152)
    for path in sorted((root / 'GT').rglob('*.png')):
        small = root / 'LR' / path.relative_to(root / 'GT')
        small.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(small), cv2.resize(cv2.imread(str(path)), (38, 36), interpolation=cv2.INTER_AREA))
    (root / 'clips.txt').write_text(''.join(f'v/{clip} 7 (144,152,3)\n' for clip in ('first', 'second')))
    return root


def data_sets(kind: str, root: Path, num_frame: int) -> dict:
    roots = {'dataroot_gt': str(root / 'GT'), 'dataroot_lq': str(root / 'LR')}
    loading = {'num_worker_per_gpu': 0, 'batch_size_per_gpu': 1, 'gt_size': 144, 'num_frame': num_frame}
    if kind == 'ours':
        return {'train': {'name': 'train', 'type': 'STVSRClipDataset', **roots, 'temporal_scale': 1, **loading},
                'val': {'name': 'ours', 'type': 'STVSRTestDataset', **roots, 'temporal_scale': 1, 'num_frame': 3}}
    validation = {key: f'{path}/v' for key, path in roots.items()}
    return {
        'train': {'name': 'train', 'type': 'Vimeo90KRecurrentDataset', **roots, **loading, 'num_frame': 7,
                  'meta_info_file': str(root / 'clips.txt'), 'io_backend': {'type': 'disk'}, 'flip_sequence': False,
                  'random_reverse': False, 'use_hflip': True, 'use_rot': True, 'use_shuffle': True},
        'val': {'name': 'Vid4', 'type': 'VideoRecurrentTestDataset', **validation, 'cache_data': True,
                'io_backend': {'type': 'disk'}, 'num_frame': 5}}


def options(cell: Cell, root: Path) -> dict:
    """An option file with the keys of BasicSR's own for BasicVSR."""
    return {
        'name': 'loop', 'model_type': cell.model, 'scale': 4, 'num_gpu': 0, 'manual_seed': 0,
        'datasets': data_sets(cell.data, root, 3 if cell.network == 'MBNet' else 5),
        'network_g': TINY_NET if cell.network == 'MBNet' else NETWORKS[cell.network],
        'path': {'pretrain_network_g': None, 'strict_load_g': True, 'resume_state': None},
        'train': {
            'ema_decay': 0.9, 'optim_g': {'type': 'Adam', 'lr': 1e-4, 'weight_decay': 0, 'betas': [0.9, 0.99]},
            'scheduler': {'type': 'CosineAnnealingRestartLR', 'periods': [2], 'restart_weights': [1], 'eta_min': 1e-7},
            'total_iter': 2, 'warmup_iter': -1, 'pixel_opt': {'type': 'CharbonnierLoss', 'reduction': 'mean'},
            **({'fix_flow': 1, 'flow_lr_mul': 0.125} if cell.model == 'VideoRecurrentModel' else {}),
            **({'hr_flow_opt': {'type': 'MiddleFlowLoss'}} if cell.network == 'MBNet' else {})},
        'val': {'val_freq': 2, 'save_img': False, 'metrics': METRICS},
        'logger': {'print_freq': 1, 'save_checkpoint_freq': 2, 'use_tb_logger': False}}


def file_of_system(system: str, root: Path, folder: Path) -> Path:
    """What `stvsr init` writes, two steps of it, in a file with a base."""
    assert main(['init', system, '--data', str(root / 'GT'), '--output', str(folder / 'init.yml')]) == 0
    changes = {
        'base': 'init.yml', 'name': 'loop', 'num_gpu': 0, 'train': {'total_iter': 2}, 'val': {'val_freq': 2},
        'datasets': {'train': {'batch_size_per_gpu': 1, 'num_worker_per_gpu': 0, 'gt_size': 64},
                     'val': {'num_frame': 5}},
        'logger': {'print_freq': 1, 'save_checkpoint_freq': 2}}
    if system == 'adaptive-gan':
        changes['network_d'] = {'patch_size': 64}
    (folder / 'changes.yml').write_text(yaml.safe_dump(changes))
    return folder / 'changes.yml'


def run_basicsrs(file: Path, folder: Path, monkeypatch) -> Path:
    """Run BasicSR's train.py unchanged; it writes beside itself."""
    script = folder / 'BasicSR' / 'basicsr' / 'train.py'
    script.parent.mkdir(parents=True)
    shutil.copy(Path(find_spec('basicsr').origin).with_name('train.py'), script)
    monkeypatch.setattr(sys, 'argv', ['run', str(script), '-opt', str(file)])
    monkeypatch.setattr(sys, 'path', list(sys.path))
    run.main()
    return folder / 'BasicSR' / 'experiments' / 'loop'


def weights_of(folder: Path) -> dict[str, torch.Tensor]:
    return torch.load(folder / 'models' / 'net_g_2.pth', weights_only=True)['params']


@pytest.mark.parametrize('cell', WORKING, ids=lambda cell: '-'.join(cell[:3]))
def test_basicsrs_loop(cell, root, tmp_path, monkeypatch, log):
    if cell.network in SYSTEM_OF and cell.data == 'ours':
        file = file_of_system(SYSTEM_OF[cell.network], root, tmp_path)
        assert main(['options', 'flatten', str(file), '--output', str(tmp_path / 'flat.yml')]) == 0
    else:
        (tmp_path / 'flat.yml').write_text(yaml.safe_dump(options(cell, root)))
    net = weights_of(run_basicsrs(tmp_path / 'flat.yml', tmp_path, monkeypatch))
    assert net and all(value.isfinite().all() for value in net.values())
    assert re.search(r'Validation (val|ours|Vid4)', log.text) and re.search(r'psnr\w*: +(vsr )?\d+\.\d', log.text)


@pytest.mark.parametrize('cell', [cell for cell in WORKING if cell.network not in SYSTEM_OF or cell.data != 'ours'],
                         ids=lambda cell: '-'.join(cell[:3]))
def test_our_loop(cell, root, train_here, log):
    """With the five systems on our data: tests/zoo/test_new_training.py."""
    assert weights_of(train_here(options(cell, root)))
    assert re.search(r'Validation (ours|Vid4)', log.text) and re.search(r'psnr: +(vsr )?\d+\.\d', log.text)


@pytest.mark.parametrize(('model', 'network', 'change', 'message'), [
    ('EDVRModel', 'windows', {}, 'EDVRModel takes single frames or windows of BasicSR.*; set model_type: STVSRModel'),
    ('VideoRecurrentModel', 'clips', {'temporal_scale': 2}, 'needs all LR frames; set temporal_scale: 1'),
])
def test_our_data_are_refused_at_the_start(model, network, change, message, root, train_here, capsys):
    opt = options(Cell('ours', model, network), root)
    opt['datasets']['val'].update(change)
    with pytest.raises(SystemExit):
        train_here(opt)
    assert re.search(message, capsys.readouterr().err)


# ---------------------------------------------------------------- stvsr options flatten

def test_flattened_options_are_those_of_the_file_and_its_bases(tmp_path, capsys):
    file = ROOT / 'options' / 'train_mbnet_small_flow.yml'
    assert main(['options', 'flatten', str(file), '--force_yml', 'train:total_iter=7']) == 0
    flat = yaml.safe_load(capsys.readouterr().out)
    assert 'base' not in flat and flat['datasets'].keys() == {'train'} and 'val' not in flat
    assert flat['train']['optim_g']['lr'] == 2e-3 and 'lr_mul' not in flat['train'] and flat['train']['total_iter'] == 7
    assert flat['network_g'] == load_options(str(file))['network_g']


def test_flattening_refuses_what_basicsrs_loop_would_read_otherwise(tmp_path, capsys):
    (tmp_path / 'a.yml').write_text(f"base: {ROOT / 'options' / 'train_fstrn_small.yml'}\ntrain: {{unit: samples}}\n")
    assert main(['options', 'flatten', str(tmp_path / 'a.yml')]) == 2
    assert "train.unit is samples, but BasicSR's loop counts iterations" in capsys.readouterr().err
    (tmp_path / 'b.yml').write_text('x')
    assert main(['options', 'flatten', str(tmp_path / 'a.yml'), '--output', str(tmp_path / 'b.yml')]) == 2
    assert 'b.yml exists; use --overwrite' in capsys.readouterr().err
