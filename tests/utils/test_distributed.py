"""Several processes on the CPU, as torchrun and slurm start them."""
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from run_util import ENVIRONMENT, INTERRUPTED, run, run_ranks, train_opt, weights, write

NUM_STEPS = 5


PLAIN = INTERRUPTED.format(samples=-1, action='pass')


def launch(folder: Path, opt: dict, *flags: str, code: str = PLAIN,
           torchrun_flags: tuple[str, ...] = ()) -> subprocess.CompletedProcess:
    """Trains under torchrun, two processes."""
    script = folder / 'train.py'
    script.write_text(code)
    return subprocess.run(
        [sys.executable, '-m', 'torch.distributed.run', '--standalone', '--nproc_per_node', '2', *torchrun_flags,
         str(script), '-opt', str(write(folder / 'distributed.yml', opt)), *flags],
        cwd=folder, env=ENVIRONMENT, capture_output=True, text=True, timeout=300)


def train_together(folder: Path, opt: dict, code: str = PLAIN) -> list[subprocess.CompletedProcess]:
    """Trains in two processes as torchrun starts them, without its own imports and theirs."""
    script = folder / 'train.py'
    script.write_text(code)
    return run_ranks(script, '-opt', write(folder / 'distributed.yml', opt), cwd=folder)


@pytest.fixture(scope='module')
def three_clips(clips, tmp_path_factory) -> Path:
    """A third clip, so that two ranks have different numbers to validate."""
    folder = tmp_path_factory.mktemp('three')
    shutil.copytree(clips, folder / 'clips')
    shutil.copytree(clips / 'second', folder / 'clips' / 'third')
    for i in range(3, 8):
        (folder / 'clips' / 'third' / f'im{i}.png').unlink()
    shutil.copy(clips / 'first' / 'im1.png', folder / 'clips' / 'third' / 'im3.png')
    return folder / 'clips'


def distributed_opt(clips: Path, batch_size: int) -> dict:
    opt = train_opt(clips)
    opt['datasets']['train'].update(batch_size_per_gpu=batch_size, random_reverse=True)
    del opt['datasets']['val_2']
    # Adam would turn the rounding error of a gradient that is next to zero into a step of full length.
    opt['train'].update(total_iter=NUM_STEPS, ema_decay=0.5, grad_clip=0.1,
                        optim_g={'type': 'SGD', 'lr': 0.3, 'momentum': 0.9})
    opt['logger'].update(save_checkpoint_freq=2)
    return opt


@pytest.fixture(scope='module')
def two_processes(three_clips, tmp_path_factory) -> tuple[Path, str]:
    """Folder and log of a training by two processes with two samples each."""
    folder = tmp_path_factory.mktemp('two')
    process = launch(folder, distributed_opt(three_clips, 2))
    assert process.returncode == 0, process.stderr[-3000:]
    return folder / 'experiments' / 'tiny', process.stderr


def assert_close(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> None:
    assert first.keys() == second.keys()
    for name in first:
        torch.testing.assert_close(first[name], second[name], rtol=0, atol=1e-5)


def validation_row(folder: Path) -> dict:
    rows = [json.loads(line) for line in (folder / 'metrics.jsonl').read_text().splitlines()]
    return next(row['validation'] for row in reversed(rows) if 'validation' in row)


def test_two_processes_take_the_steps_of_one(two_processes, three_clips, train_here):
    folder, log = two_processes
    assert '(2 processes)' in log
    alone = train_here(distributed_opt(three_clips, 4))
    for key in ('params', 'params_ema'):
        assert_close(weights(folder, key=key), weights(alone, key=key))
    start = weights(alone, 'net_g_2.pth')  # which all have left behind
    assert max(float((value - start[name]).abs().max()) for name, value in weights(alone).items()) > 1e-3
    # Clips 1 and 3 on rank 0, clip 2 on rank 1: one table, the same as that of one process
    assert log.count(f'Validation both: 3 clips, iteration {NUM_STEPS}') == 1
    for group, value in validation_row(alone)['both']['psnr'].items():
        assert validation_row(folder)['both']['psnr'][group] == pytest.approx(value, abs=1e-3)
    state = torch.load(folder / 'training_states' / '4.state', weights_only=True)
    assert state['samples'] == 16 and len(state['rng']) == 2


def test_validation_shares_clips_as_one_process_scores_them(three_clips, tmp_path):
    """The very same table, clip by clip, of a network that is not trained meanwhile."""
    opt = {
        'name': 'bicubic', 'model_type': 'STVSRModel', 'scale': 4, 'num_gpu': 0,
        'datasets': {'test_1': {'name': 'three', 'type': 'STVSRTestDataset', 'dataroot_gt': str(three_clips)}},
        'network_g': {'type': 'BicubicAverage', 'scale': 4}, 'path': {'results_root': str(tmp_path / 'results')},
        'val': train_opt(three_clips)['val'] | {'val_freq': None}}
    command, results = ('basicsr/test.py', '-opt', write(tmp_path / 'test.yml', opt)), []
    for processes in ([run(*command)], run_ranks(*command)):
        assert all(process.returncode == 0 for process in processes), processes[0].stderr[-3000:]
        assert ''.join(process.stderr for process in processes).count('Validation three: 3 clips') == 1
        results.append(json.loads((tmp_path / 'results' / 'three.json').read_text()))
    assert results[0] == results[1] and list(results[0]['clips']) == ['first', 'second', 'third']


def test_a_training_goes_on_with_another_number_of_processes(two_processes, three_clips, tmp_path, train_here, log):
    """Two processes saw 16 samples in 4 steps; one with a batch of 4 takes the fifth."""
    folder, _ = two_processes
    shutil.copytree(folder, tmp_path / 'experiments' / 'tiny')
    for name in ('models/net_g_5.pth', 'models/net_g_latest.pth', 'training_states/5.state'):
        (tmp_path / 'experiments' / 'tiny' / name).unlink()
    alone = train_here(distributed_opt(three_clips, 4), '--auto_resume')
    assert 'Resuming training from epoch: 1, iter: 4.' in log.text
    assert 'saved by 2 processes, but the run now has 1' in log.text
    assert_close(weights(folder), weights(alone))


KILLED_RANK = INTERRUPTED.format(samples=3 * 4, action='''
        marker = 'killed'
        if os.environ['RANK'] == '1' and not os.path.exists(marker):
            open(marker, 'w').close()
            os.kill(os.getpid(), signal.SIGKILL)'''.strip())


@pytest.mark.parametrize('death, seen', [
    pytest.param('os.kill(os.getpid(), signal.SIGKILL)', r'Signal 9 \(SIGKILL\)', id='killed',
                 marks=pytest.mark.slow),
    pytest.param("raise RuntimeError('of the program')", r'RuntimeError: of the program', id='error',
                 marks=pytest.mark.slow)])
def test_a_rank_that_dies_ends_the_job(three_clips, tmp_path, death, seen):
    opt = distributed_opt(three_clips, 2)
    opt['datasets']['train']['num_worker_per_gpu'] = 1
    start = time.monotonic()
    process = launch(tmp_path, opt, code=KILLED_RANK.replace('os.kill(os.getpid(), signal.SIGKILL)', death))
    assert process.returncode != 0 and (tmp_path / 'killed').exists()
    assert time.monotonic() - start < 180
    assert re.search(seen, process.stderr)
    assert (tmp_path / 'experiments' / 'tiny' / 'training_states' / '2.state').is_file()


@pytest.mark.slow
def test_torchrun_restarts_a_job_and_it_carries_on(two_processes, three_clips, tmp_path):
    process = launch(tmp_path, distributed_opt(three_clips, 2), '--auto_resume', code=KILLED_RANK,
                     torchrun_flags=('--max-restarts', '1'))
    assert process.returncode == 0, process.stderr[-3000:]
    assert 'Resuming training from epoch: 0, iter: 2.' in process.stderr
    assert_close(weights(tmp_path / 'experiments' / 'tiny'), weights(two_processes[0]))


def test_all_ranks_stop_when_one_is_asked_to(three_clips, tmp_path):
    """As when a cluster takes back one of several machines."""
    code = INTERRUPTED.format(
        samples=2 * 4, action="os.environ['RANK'] == '1' and os.kill(os.getpid(), signal.SIGTERM)")
    first, second = train_together(tmp_path, distributed_opt(three_clips, 2), code)
    assert first.returncode == second.returncode == os.EX_TEMPFAIL
    assert first.stderr.count('Stopped by SIGTERM after iteration 2 of 5, and saved') == 1
    state, = (tmp_path / 'experiments' / 'tiny' / 'training_states').iterdir()
    assert state.name == '2.state'


# The first of the two parts of rank 1's batch in step 2
SPOILT_PART = INTERRUPTED.format(samples=2 * 4, action='''
        if os.environ['RANK'] == '1' and not hasattr(self, 'spoilt'):
            self.spoilt, self.lq = True, self.lq * float('nan')'''.strip())


def test_all_ranks_skip_a_step_that_is_not_finite_on_one(three_clips, tmp_path):
    opt = distributed_opt(three_clips, 2)
    opt['train']['accumulate'] = 2
    opt['logger']['save_checkpoint_freq'] = 1
    processes = train_together(tmp_path, opt, SPOILT_PART)
    assert all(process.returncode == 0 for process in processes), processes[0].stderr[-3000:]
    messages = ''.join(process.stderr for process in processes)
    assert messages.count('Iteration 2 is skipped (1 in a row, 1 in all): l_sr is nan') == 1
    assert messages.count('is skipped') == 1
    folder = tmp_path / 'experiments' / 'tiny'
    first, second, third = (weights(folder, f'net_g_{number}.pth') for number in (1, 2, 3))
    assert all(torch.equal(value, second[name]) for name, value in first.items())
    assert not all(torch.equal(value, third[name]) for name, value in first.items())


@pytest.mark.slow
def test_two_nodes(two_processes, three_clips, tmp_path):
    """A torchrun on each of two machines, which find each other at an address; here they are one."""
    with socket.socket() as free:
        free.bind(('127.0.0.1', 0))
        endpoint = f'127.0.0.1:{free.getsockname()[1]}'
    options = write(tmp_path / 'nodes.yml', distributed_opt(three_clips, 2))
    nodes = [subprocess.Popen(
        [sys.executable, '-m', 'torch.distributed.run', '--nnodes', '2', '--rdzv_backend', 'c10d',
         '--rdzv_endpoint', endpoint, '--rdzv_id', 'test', '--local_addr', '127.0.0.1', '-m', 'basicsr_stvsr.train',
         '-opt', str(options)],
        cwd=tmp_path, env=ENVIRONMENT, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    errors = [node.communicate(timeout=200)[1] for node in nodes]
    assert [node.returncode for node in nodes] == [0, 0], errors
    assert_close(weights(tmp_path / 'experiments' / 'tiny'), weights(two_processes[0]))


@pytest.mark.slow
def test_slurm(three_clips, tmp_path):
    """Two tasks as srun starts them, with slurm's environment variables; `scontrol` is ours."""
    (tmp_path / 'bin').mkdir()
    scontrol = tmp_path / 'bin' / 'scontrol'
    scontrol.write_text('#!/bin/sh\n[ "$*" = "show hostname node[1-2]" ] && printf "127.0.0.1\\nnode2\\n"\n')
    scontrol.chmod(0o755)
    opt = distributed_opt(three_clips, 2)
    opt['train']['total_iter'] = 1
    options = write(tmp_path / 'slurm.yml', opt)
    tasks = [subprocess.Popen(
        [sys.executable, '-m', 'basicsr_stvsr.train', '-opt', str(options), '--launcher', 'slurm', '--force_yml',
         'dist_params:port=29517'],
        cwd=tmp_path, stderr=subprocess.PIPE, text=True, env=ENVIRONMENT | {
            'PATH': f'{tmp_path / "bin"}:{os.environ["PATH"]}', 'SLURM_PROCID': str(rank), 'SLURM_NTASKS': '2',
            'SLURM_NODELIST': 'node[1-2]'}) for rank in range(2)]
    errors = [task.communicate(timeout=200)[1] for task in tasks]
    assert [task.returncode for task in tasks] == [0, 0], errors
    assert '(2 processes)' in errors[0] and 'Validation both: 3 clips' in errors[0]


def test_two_processes_train_against_a_discriminator(clips, tmp_path):
    """Its batch normalisation sees the samples of each process by themselves, its gradients are those of both."""
    opt = distributed_opt(clips, 2)
    opt.update(model_type='AdaptiveGANModel', network_g={'type': 'VSRResNet', 'num_feat': 4, 'num_block': 1},
               network_d={'type': 'VSRResDiscriminator', 'num_feat': 4, 'patch_size': 48})
    opt['datasets'] = {'train': opt['datasets']['train'] | {'color': 'y', 'temporal_scale': 1, 'num_frame': 5}}
    del opt['val']
    opt['train'].update(
        total_iter=2, optim_d={'type': 'SGD', 'lr': 0.1}, pixel_opt={'type': 'SpatiallyAdaptiveCharbonnierLoss'},
        gan_opt={'type': 'GANLoss', 'gan_type': 'vanilla', 'loss_weight': 0.1})
    for name in ('hr_flow_opt', 'lq_flow_opt'):
        del opt['train'][name]
    # Of what each process sees alone, they would go different ways.
    code = INTERRUPTED.format(samples=-1, action='pass').replace('train_pipeline(os.getcwd())', '''
from basicsr_stvsr.models.adaptive_gan_model import AdaptiveGANModel
import torch

save = AdaptiveGANModel.save

def save_each(self, epoch, current_iter):
    weights = [net.module.state_dict() for net in (self.net_g, self.net_d)]
    torch.save([{name: value for name, value in state.items() if 'running' not in name} for state in weights],
               f'rank{self.opt["rank"]}.pth')
    save(self, epoch, current_iter)

AdaptiveGANModel.save = save_each
train_pipeline(os.getcwd())
''')
    processes = train_together(tmp_path, opt, code)
    assert all(process.returncode == 0 for process in processes), processes[0].stderr[-3000:]
    ranks = [torch.load(tmp_path / f'rank{rank}.pth', weights_only=True) for rank in (0, 1)]
    for first, second in zip(*ranks, strict=True):
        assert first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)
    assert (tmp_path / 'experiments' / 'tiny' / 'models' / 'net_d_2.pth').is_file()
