"""The commands themselves, as a user types them, on a tiny MBNet and tiny clips."""
import json
import re
import runpy
import shutil
import sys
from importlib.util import find_spec
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from run_util import NUM_ITER, run, small_train_opt, succeed, train_opt, weights, write

from basicsr_stvsr.archs.baseline_arch import BicubicAverage
from basicsr_stvsr.config.loading import load_options
from basicsr_stvsr.data.degradations import build_degradation
from basicsr_stvsr.io.lmdb_files import FrameSource, write_lmdb
from basicsr_stvsr.test import test_pipeline as run_test_pipeline


@pytest.fixture(scope='module')
def trained(clips, tmp_path_factory) -> tuple[Path, str]:
    """Folder and log of a run of basicsr/train.py."""
    folder = tmp_path_factory.mktemp('trained')
    options = write(folder / 'train.yml', train_opt(clips, experiments_root=str(folder / 'experiment')))
    return folder, succeed('basicsr/train.py', '-opt', options)


def test_train(trained):
    folder, log = trained
    experiment = folder / 'experiment'
    for iteration in range(1, NUM_ITER + 1):
        assert re.search(rf'iter: +{iteration}, .*l_sr: .*l_flow_lr: .*l_flow_hr: ', log)
    assert f'Validation both: 2 clips, iteration {NUM_ITER}' in log
    assert f'Validation one: 1 clips, iteration {NUM_ITER}' in log
    assert len(list(experiment.glob('train_tiny_*.log'))) == 1
    assert (experiment / 'train.yml').is_file()
    state = torch.load(experiment / 'training_states' / f'{NUM_ITER}.state', weights_only=True)
    assert state['iter'] == NUM_ITER
    latest = weights(experiment)
    numbered = torch.load(experiment / 'models' / f'net_g_{NUM_ITER}.pth', weights_only=True)['params']
    assert all(torch.equal(latest[name], numbered[name]) for name in numbered)


def test_auto_resume_goes_on_without_a_gpu(trained, clips, tmp_path):
    shutil.copytree(trained[0] / 'experiment', tmp_path / 'experiment')
    opt = train_opt(clips, experiments_root=str(tmp_path / 'experiment'))
    opt['manual_seed'] = 1  # a different network, unless the saved one is loaded
    opt['train']['total_iter'] = NUM_ITER + 2
    opt['logger']['save_checkpoint_freq'] = 1
    del opt['datasets']['val'], opt['datasets']['val_2']
    log = succeed('basicsr/train.py', '-opt', write(tmp_path / 'more.yml', opt), '--auto_resume')
    assert re.search(rf'Resuming training from epoch: \d+, iter: {NUM_ITER}\.', log)
    assert re.findall(r'iter: +(\d+), lr', log) == [str(NUM_ITER + 1), str(NUM_ITER + 2)]
    before, after = weights(trained[0] / 'experiment'), weights(tmp_path / 'experiment')
    moved = max(float((after[name] - before[name]).abs().max()) for name in before)
    assert 1e-4 < moved < 5e-3  # two steps of Adam at a learning rate of 1e-3
    state = torch.load(tmp_path / 'experiment' / 'training_states' / f'{NUM_ITER + 2}.state', weights_only=True)
    assert {int(adam['step']) for adam in state['optimizers'][0]['state'].values()} == {NUM_ITER + 2}


def test_module_and_script_train_alike(trained, clips, tmp_path):
    """`python -m basicsr_stvsr.train` writes under the working directory, and what it learns is the same."""
    opt = train_opt(clips)
    del opt['datasets']['val'], opt['datasets']['val_2']
    succeed('-m', 'basicsr_stvsr.train', '-opt', write(tmp_path / 'train.yml', opt), cwd=tmp_path)
    by_script, by_module = weights(trained[0] / 'experiment'), weights(tmp_path / 'experiments' / 'tiny')
    assert by_script.keys() == by_module.keys()
    assert all(torch.equal(by_script[name], by_module[name]) for name in by_script)


def test_test(trained, clips, tmp_path):
    opt = train_opt(clips, pretrain_network_g=str(trained[0] / 'experiment' / 'models' / 'net_g_latest.pth'),
                    results_root=str(tmp_path / 'results'))
    opt['datasets'] = {'test_1': opt['datasets']['val']}
    opt['val']['save_img'] = True
    del opt['train'], opt['logger']
    succeed('basicsr/test.py', '-opt', write(tmp_path / 'test.yml', opt))
    scores = json.loads((tmp_path / 'results' / 'both.json').read_text())
    # The last line of the training has the score of the same network on the same clips, by the other command.
    logged = re.search(r'Validation both: .*\n.*# psnr: vsr ([\d.]+)  vfi ([\d.]+)  all ([\d.]+)', trained[1])
    for group, value in zip(('vsr', 'vfi', 'all'), logged.groups(), strict=True):
        assert scores['average']['psnr'][group] == pytest.approx(float(value), abs=1e-4)
    images = sorted((tmp_path / 'results' / 'visualization' / 'both').rglob('*.png'))
    assert [f'{path.parent.name}/{path.name}' for path in images] == [
        f'{clip}/im{i}_tiny.png' for clip in ('first', 'second') for i in (1, 2, 3)]
    assert cv2.imread(str(images[0])).shape == (64, 72, 3)


# ---------------------------------------------------------------- BasicSR's own script and data

@pytest.fixture
def septuplets(tmp_path) -> Path:
    """Two clips as BasicSR's Vimeo-90K data set wants them: GT.lmdb, LR.lmdb and a list."""
    rng = np.random.default_rng(0)
    shrink = build_degradation(None, 4)
    frames = {f'00001/000{clip}/im{i}': rng.integers(0, 256, (64, 72, 3), np.uint8)
              for clip in (1, 2) for i in range(1, 8)}
    for name, make in (('GT', lambda frame: frame), ('LR', shrink)):
        write_lmdb(tmp_path / f'{name}.lmdb', [
            FrameSource(key, key, lambda frame=frame, make=make: make(frame)) for key, frame in frames.items()])
    (tmp_path / 'meta_info.txt').write_text('00001/0001 7 (64,72,3)\n00001/0002 7 (64,72,3)\n')
    return tmp_path


def test_basicsrs_own_script_and_data_drive_mbnet(septuplets, clips, tmp_path):
    """BasicSR's data set gives all LR frames; the model drops every second one and cuts three windows a clip."""
    checkout = tmp_path / 'BasicSR'
    (checkout / 'basicsr').mkdir(parents=True)
    shutil.copy(Path(find_spec('basicsr').origin).with_name('train.py'), checkout / 'basicsr')
    opt = train_opt(clips, pretrain_network_g=None)
    opt['datasets']['train'] = {
        'name': 'vimeo', 'type': 'Vimeo90KRecurrentDataset', 'dataroot_gt': str(septuplets / 'GT.lmdb'),
        'dataroot_lq': str(septuplets / 'LR.lmdb'), 'meta_info_file': str(septuplets / 'meta_info.txt'),
        'io_backend': {'type': 'lmdb'}, 'num_frame': 7, 'gt_size': 48, 'random_reverse': True, 'use_hflip': True,
        'use_rot': True, 'flip_sequence': False, 'num_worker_per_gpu': 0, 'batch_size_per_gpu': 1}
    log = succeed('-m', 'basicsr_stvsr.run', checkout / 'basicsr' / 'train.py', '-opt',
                  write(tmp_path / 'train.yml', opt), cwd=tmp_path)
    assert re.search(rf'iter: +{NUM_ITER}, .*l_sr: ', log) and 'Validation both: 2 clips' in log
    net = weights(checkout / 'experiments' / 'tiny')
    assert 'vfi_net.head.2.weight' in net and all(value.isfinite().all() for value in net.values())


@pytest.mark.parametrize('argument', [[], ['no/such/script.py']])
def test_run_tells_its_usage(monkeypatch, argument):
    monkeypatch.setattr(sys, 'argv', ['basicsr_stvsr.run', *argument])
    with pytest.raises(SystemExit, match=r'^usage: python -m basicsr_stvsr.run SCRIPT') as error:
        runpy.run_module('basicsr_stvsr.run', run_name='__main__', alter_sys=True)
    assert error.value.code not in (None, 0)  # a message becomes exit code 1


# ---------------------------------------------------------------- what the user got wrong

@pytest.mark.parametrize('command', ['train', 'test'])
def test_a_missing_data_set_is_one_clear_message(command, clips, tmp_path):
    missing = tmp_path / 'vimeo90k_train_GT.lmdb'
    opt = train_opt(clips, experiments_root=str(tmp_path / 'experiment'), results_root=str(tmp_path / 'results'))
    opt['datasets'] = {command: {**opt['datasets']['train' if command == 'train' else 'val'],
                                 'dataroot_gt': str(missing)}}
    process = run(f'basicsr/{command}.py', '-opt', write(tmp_path / 'options.yml', opt))
    assert process.returncode == 2
    assert 'Traceback' not in process.stderr
    message = process.stderr[process.stderr.rindex('error: '):]
    assert f'(datasets.{command}): dataroot_gt does not exist: {missing}\n' in message
    assert 'python scripts/data_preparation/create_lmdb.py --dataset' in message and f'--output {missing}' in message


def test_epochs_of_a_few_windows_do_not_end_the_training_early(train_here, clips):
    """5 windows and batches of 4 make epochs of one step; BasicSR counts two and stops at half of the iterations."""
    opt = small_train_opt(clips)
    opt['datasets']['train'].update(clips='first', batch_size_per_gpu=4)
    opt['train']['total_iter'] = 5
    opt['logger']['save_checkpoint_freq'] = 5
    assert (train_here(opt) / 'models' / 'net_g_5.pth').is_file()


def test_less_than_a_batch_of_windows_is_refused(train_here, clips, capsys):
    opt = small_train_opt(clips)
    opt['datasets']['train'].update(clips='first', batch_size_per_gpu=8)
    with pytest.raises(SystemExit):
        train_here(opt)
    assert 'datasets.train has 5 windows, fewer than one batch of 8' in capsys.readouterr().err


def test_a_failed_start_leaves_older_experiments_alone(train_here, clips, tmp_path):
    opt = small_train_opt(clips)
    folder = train_here(opt)
    written = sorted(folder.rglob('*'))
    opt['datasets']['train']['dataroot_gt'] = str(tmp_path / 'mistyped')
    with pytest.raises(SystemExit):
        train_here(opt)
    assert sorted(folder.rglob('*')) == written
    assert [path.name for path in folder.parent.iterdir()] == ['tiny']


def test_auto_resume_passes_over_a_truncated_state(train_here, clips, log):
    opt = small_train_opt(clips)
    opt['logger']['save_checkpoint_freq'] = 2
    folder = train_here(opt)
    newest = folder / 'training_states' / '4.state'
    newest.write_bytes(newest.read_bytes()[:1000])
    opt['train']['total_iter'] = 6
    train_here(opt, '--auto_resume')
    assert f'--auto_resume passes over {newest}: {newest} is cut off after 1,000 bytes' in log.text
    state = torch.load(folder / 'training_states' / '6.state', weights_only=True)
    assert {int(adam['step']) for adam in state['optimizers'][0]['state'].values()} == {6}


def test_a_run_keeps_its_options_in_one_file(train_here, clips):
    opt = small_train_opt(clips)
    folder = train_here(opt, '--force_yml', 'train:optim_g:lr=2e-4')
    kept = load_options(str(folder / 'options.yml'))
    opt['train']['optim_g']['lr'] = 2e-4
    assert kept == opt


# ---------------------------------------------------------------- a network that gives no numbers

def test_a_test_of_a_network_whose_frames_are_not_finite(clips, tmp_path, monkeypatch, log):
    """Without the check, it reports a PSNR of nan and ends with 0."""
    def forward(net, lq):
        return restore(net, lq) + torch.inf

    restore = BicubicAverage.forward
    monkeypatch.setattr(BicubicAverage, 'forward', forward)
    opt = {
        'name': 'nan', 'model_type': 'STVSRModel', 'scale': 4, 'num_gpu': 0, 'network_g': {'type': 'BicubicAverage'},
        'datasets': {'test': {'name': 'both', 'type': 'STVSRTestDataset', 'dataroot_gt': str(clips)}},
        'val': {'metrics': {'psnr': {'type': 'calculate_psnr', 'crop_border': 0}}},
        'path': {'results_root': str(tmp_path / 'results')}}
    with pytest.raises(SystemExit) as exit_:
        run_test_pipeline(str(tmp_path), ['-opt', str(write(tmp_path / 'test.yml', opt))])
    assert exit_.value.code == 1
    assert log.messages[-1] == "both, clip 'first', frame im1: BicubicAverage gives values that are not finite"
    assert not (tmp_path / 'results' / 'both.json').exists()
