"""Trainings that are killed, stopped or fed nonsense, on a tiny MBNet: nothing is lost, and they go on exactly."""
import errno
import io
import json
import math
import multiprocessing
import os
import random
import re
import resource
import shutil
import signal
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from run_util import INTERRUPTED, run, run_fresh, small_train_opt, train_opt, weights, write

from basicsr_stvsr.models.mbnet_model import MBNetModel
from basicsr_stvsr.utils import atomic_files
from basicsr_stvsr.utils.atomic_files import CheckpointError, write_whole
from basicsr_stvsr.utils.random_state import restore_rng, rng_state


def train_interrupted(folder: Path, opt: dict, iteration: int, action: str, *, fresh: bool = False) -> (
        subprocess.CompletedProcess):
    """Train in a separate process under `folder`, with `action` in the middle of the given iteration."""
    samples = iteration * opt['datasets']['train']['batch_size_per_gpu']
    command = '-c', INTERRUPTED.format(samples=samples, action=action), '-opt', write(folder / 'interrupted.yml', opt)
    if fresh:
        return run_fresh(*command, cwd=folder, start_new_session=True)
    return run(*command, cwd=folder)


def assert_equal(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> None:
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)


# ---------------------------------------------------------------- exact resuming

def long_train_opt(clips: Path) -> dict:
    """40 iterations with all that has a state: epochs of 5 iterations, random crops and flips, schedule, EMA."""
    opt = small_train_opt(clips)
    opt['datasets']['train'].update(num_frame=3, random_reverse=True)
    opt['train'].update(
        total_iter=40, ema_decay=0.9, grad_clip=0.5, warmup_iter=25,
        scheduler={'type': 'CosineAnnealingRestartLR', 'periods': [24, 16], 'restart_weights': [1, 0.5]})
    opt['logger'].update(print_freq=10, save_checkpoint_freq=20)
    return opt


@pytest.fixture(scope='module')
def straight(clips, tmp_path_factory) -> Path:
    """Folder of an experiment of 40 iterations that nothing disturbs."""
    folder = tmp_path_factory.mktemp('straight')
    assert train_interrupted(folder, long_train_opt(clips), 10**6, 'pass').returncode == 0
    return folder / 'experiments' / 'tiny'


@pytest.mark.parametrize('num_workers', [pytest.param(0, marks=pytest.mark.slow), 2])
def test_killed_and_resumed_is_bit_identical(straight, clips, tmp_path, train_here, log, num_workers):
    opt = long_train_opt(clips)
    opt['datasets']['train']['num_worker_per_gpu'] = num_workers
    killed = train_interrupted(tmp_path, opt, 27, 'os.kill(os.getpid(), signal.SIGKILL)')
    assert killed.returncode == -signal.SIGKILL
    folder = tmp_path / 'experiments' / 'tiny'
    assert sorted(path.name for path in (folder / 'training_states').iterdir()) == ['20.state']

    torch.manual_seed(123)  # nothing may follow from where the generators of this process are
    random.seed(123)
    train_here(opt, '--auto_resume')
    assert 'Resuming training from epoch: 4, iter: 20.' in log.text
    for key in ('params', 'params_ema'):
        assert_equal(weights(folder, key=key), weights(straight, key=key))
    states = [torch.load(path / 'training_states' / '40.state', weights_only=True) for path in (straight, folder)]
    for moments, expected in zip(*(state['optimizers'][0]['state'].values() for state in states), strict=True):
        assert torch.equal(moments['exp_avg_sq'], expected['exp_avg_sq'])
    assert [state['samples'] for state in states] == [80, 80]


def test_random_numbers_go_on_where_they_were():
    """Through a file, as in a checkpoint."""
    def draw() -> list[float]:
        return [random.random(), random.gauss(0, 1), np.random.rand(), np.random.randn(), float(torch.randn(1))]

    draw()  # gauss and randn keep a second number for the next call
    buffer = io.BytesIO()
    torch.save(rng_state(), buffer)
    expected = draw() + draw()
    buffer.seek(0)
    restore_rng(torch.load(buffer, weights_only=True))
    assert draw() + draw() == expected


# ---------------------------------------------------------------- files are written whole or not at all

@pytest.mark.parametrize('name', ['net_g_4.pth', pytest.param('4.state', marks=pytest.mark.slow)])
def test_killed_while_writing(clips, tmp_path, train_here, log, name):
    """The process dies when the new file is complete in part; the checkpoint before is the one to go on from."""
    opt = small_train_opt(clips)
    opt['logger']['save_checkpoint_freq'] = 2
    die_writing = f'''
        import io
        def write(path, content):
            if str(path).endswith({name!r}):
                with open(str(path) + '.part', 'wb') as file:
                    file.write(b'half')
                    file.flush()
                    os.kill(os.getpid(), signal.SIGKILL)
            return whole(path, content)
        import basicsr_stvsr.models.model_files as module
        whole = module.write_whole
        globals().update(whole=whole)
        module.write_whole = write'''
    killed = train_interrupted(tmp_path, opt, 3, die_writing.strip())
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    folder = tmp_path / 'experiments' / 'tiny'
    assert not (folder / 'training_states' / '4.state').exists()
    train_here(opt, '--auto_resume')
    assert 'Resuming training from epoch: 0, iter: 2.' in log.text
    assert not list(folder.rglob('*.part'))
    opt['name'] = 'undisturbed'
    assert_equal(weights(folder), weights(train_here(opt)))


def test_a_file_that_is_too_large_leaves_the_old_one(tmp_path):
    """The system's own limit on the size of files stands for a disk that is full."""
    path = tmp_path / 'net.pth'
    write_whole(path, {'w': torch.ones(4)})
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, hard))
    try:
        with pytest.raises(CheckpointError, match=r'net.pth cannot be written: File too large \(3.8 MiB needed'):
            write_whole(path, {'w': torch.ones(10**6)})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert torch.equal(torch.load(path, weights_only=True)['w'], torch.ones(4))
    assert [file.name for file in tmp_path.iterdir()] == ['net.pth']


def test_a_full_disk_stops_the_training_with_a_message(train_here, clips, tmp_path, monkeypatch, log):
    replace = os.replace

    def full(source, target):
        if str(target).endswith('net_g_4.pth'):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        replace(source, target)

    monkeypatch.setattr(atomic_files.os, 'replace', full)
    opt = small_train_opt(clips)
    opt['logger']['save_checkpoint_freq'] = 2
    with pytest.raises(SystemExit) as exit_:
        train_here(opt)
    assert exit_.value.code == 1
    assert 'net_g_4.pth cannot be written: No space left on device' in log.text
    folder = tmp_path / 'experiments' / 'tiny'
    assert [path.name for path in (folder / 'models').iterdir()] == ['net_g_2.pth']
    monkeypatch.setattr(atomic_files.os, 'replace', replace)
    train_here(opt, '--auto_resume')  # goes on once there is room
    assert 'iter: 2.' in log.text and (folder / 'models' / 'net_g_latest.pth').is_file()


def test_a_folder_that_cannot_be_written(tmp_path):
    (tmp_path / 'models').write_text('a file in its place')
    with pytest.raises(CheckpointError, match='models/net_g_1.pth cannot be written: Not a directory'):
        write_whole(tmp_path / 'models' / 'net_g_1.pth', {})


# ---------------------------------------------------------------- which state is gone on from

@pytest.fixture
def two_checkpoints(train_here, clips) -> tuple[dict, Path]:
    """Options and folder of an experiment with states at iterations 2 and 4."""
    opt = small_train_opt(clips)
    opt['logger']['save_checkpoint_freq'] = 2
    folder = train_here(opt)
    opt['train']['total_iter'] = 5
    return opt, folder


def alter(path: Path, **values: object) -> None:
    torch.save(torch.load(path, weights_only=True) | values, path)


@pytest.mark.parametrize('spoil, message', [
    (lambda weights, state: weights.unlink(), r'net_g_4.pth, which does not exist$'),
    (lambda weights, state: weights.write_bytes(b'other'), 'net_g_4.pth is damaged, or not the file'),
    (lambda weights, state: state.write_bytes(b''), '4.state is empty; expected a training state'),
    (lambda weights, state: torch.save({'iter': 4}, state), 'holds no training state: expected'),
    (lambda weights, state: alter(state, networks=None), r'4.state is damaged, .*: networks must be a block, but'),
    (lambda weights, state: alter(state, seed=-1, skipped=[1]), r'seed must be >= 0, but is -1, and 1 more problems$'),
], ids=['no weights', 'other weights', 'empty', 'no state', 'no networks', 'two values'])
def test_auto_resume_takes_the_newest_that_is_whole(two_checkpoints, train_here, log, spoil, message):
    opt, folder = two_checkpoints
    spoil(folder / 'models' / 'net_g_4.pth', folder / 'training_states' / '4.state')
    train_here(opt, '--auto_resume')
    assert log.messages.count('Resuming training from epoch: 0, iter: 2.') == 1
    warning, = [record.message for record in log.records if record.message.startswith('--auto_resume passes over')]
    assert str(folder / 'training_states' / '4.state') in warning
    assert re.search(message, warning)


def test_a_state_of_another_experiment_is_refused(two_checkpoints, train_here, tmp_path, capsys):
    opt, folder = two_checkpoints
    opt['name'] = 'another'
    opt['path']['resume_state'] = str(folder / 'training_states' / '4.state')
    with pytest.raises(SystemExit) as exit_:
        train_here(opt)
    assert exit_.value.code == 2
    error, = re.findall(r'^error: (.*)$', capsys.readouterr().err, re.M)
    assert error.startswith('path.resume_state: ') and 'another/models/net_g_4.pth, which does not exist' in error
    assert error.endswith('to begin anew with its weights, use path.pretrain_network_g')
    assert not (tmp_path / 'experiments' / 'another').exists()


def test_a_state_of_another_network_is_refused(two_checkpoints, train_here, capsys):
    opt, _ = two_checkpoints
    opt['network_g']['vsr_net']['num_feat'] = 32
    with pytest.raises(SystemExit) as exit_:
        train_here(opt, '--auto_resume')
    assert exit_.value.code == 2
    assert 'net_g_4.pth does not hold the weights of MBNet with these options' in capsys.readouterr().err


def longer_rows(state: dict) -> None:
    moments = state['state'][0]
    moments['exp_avg'] = torch.zeros(7, *moments['exp_avg'].shape[1:])


@pytest.mark.parametrize('spoil, message', [
    (longer_rows, r'does not fit the network: exp_avg of net_g\.\S+ has the shape \(7, .*\), but \(.*\) is needed$'),
    (lambda state: state['state'][0].update(step=torch.zeros(3)), r'step of net_g\.\S+ has the shape \(3,\), but \('),
    (lambda state: state['state'][0].pop('exp_avg_sq'), r'is damaged: it holds exp_avg_sq of .*, but not of net_g\.'),
    (lambda state: state['state'][0].update(exp_avg=0.5), r'is damaged: exp_avg of net_g\.\S+ is a float instead of'),
    (lambda state: state['state'].update({9999: {}}), r'is damaged: it holds moments of parameters \[9999\], but its '),
    (lambda state: state['param_groups'][0].pop('betas'), r'is damaged, or of another optimiser: betas is missing,'),
    (lambda state: state['param_groups'][0].update(betas=[0.9]), r'optimiser: betas is \[0\.9\], but '),
    (lambda state: state['param_groups'][0].update(eps=float('nan')), r'another optimiser: eps is nan, but 1e-08 be'),
], ids=['shape', 'step', 'missing', 'type', 'parameter', 'no setting', 'other setting', 'nan'])
def test_moments_that_do_not_fit_are_refused(two_checkpoints, train_here, capsys, spoil, message):
    """Fused Adam would read beyond their end."""
    opt, folder = two_checkpoints
    path = folder / 'training_states' / '4.state'
    state = torch.load(path, weights_only=True)
    spoil(state['optimizers'][0])
    torch.save(state, path)
    with pytest.raises(SystemExit) as exit_:
        train_here(opt, '--auto_resume')
    assert exit_.value.code == 2
    error, = re.findall(r'^error: (.*)$', capsys.readouterr().err, re.M)
    assert error.startswith(f'{path} ') and re.search(message, error)


@pytest.mark.parametrize('kind', ['SGD', *(
    pytest.param(kind, marks=pytest.mark.slow) for kind in ('RMSprop', 'NAdam', 'ASGD', 'Adafactor'))])
def test_moments_of_other_optimisers_are_taken(train_here, clips, kind):
    opt = small_train_opt(clips)
    opt['train'].update(total_iter=1, optim_g={'type': kind, 'lr': 1e-4})
    if kind == 'SGD':
        opt['train']['optim_g']['momentum'] = 0.9
    train_here(opt)
    opt['train']['total_iter'] = 2
    assert weights(train_here(opt, '--auto_resume'), 'net_g_2.pth')


def test_a_longer_schedule_on_resuming(train_here, clips):
    """The options say what comes, the state where the training is."""
    opt = small_train_opt(clips)
    opt['train'].update(total_iter=4, scheduler={'type': 'CosineAnnealingRestartLR', 'periods': [4]})
    train_here(opt)
    opt['train'].update(total_iter=8, scheduler={'type': 'CosineAnnealingRestartLR', 'periods': [8]})
    rows = json_rows(train_here(opt, '--auto_resume'))
    assert [row['lr'] for row in rows] == pytest.approx(
        [1e-3 * (1 + math.cos(math.pi * i / n)) / 2 for n, steps in ((4, range(4)), (8, range(4, 8))) for i in steps])


def test_resuming_with_the_options_that_were_kept(two_checkpoints, train_here, tmp_path, monkeypatch):
    _, folder = two_checkpoints
    arguments = ['-opt', str(folder / 'options.yml'), '--force_yml', 'train:total_iter=5']
    train_here({'name': 'tiny'}, *arguments, '--auto_resume')
    assert (folder / 'training_states' / '5.state').is_file()
    train_here({'name': 'tiny'}, *arguments)  # anew; the old folder is moved away, with the file in it
    assert (folder / 'options.yml').is_file() and len(list(folder.parent.glob('tiny_archived_*'))) == 1


def json_rows(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / 'metrics.jsonl').read_text().splitlines()]


def test_resuming_a_finished_training_changes_nothing(two_checkpoints, train_here):
    opt, folder = two_checkpoints
    opt['train']['total_iter'] = 4
    before = weights(folder)
    train_here(opt, '--auto_resume')
    assert_equal(weights(folder), before)


# ---------------------------------------------------------------- asked to stop

@pytest.mark.usefixtures('heard_hangup')
@pytest.mark.parametrize('number', [
    signal.SIGTERM, pytest.param(signal.SIGINT, marks=pytest.mark.slow), signal.SIGHUP])
def test_asked_to_stop_it_finishes_the_step_and_saves(train_here, clips, tmp_path, monkeypatch, capsys, number):
    opt = small_train_opt(clips)
    compute_losses = MBNetModel.compute_losses

    def asked_in_step_2(model):
        if model.samples == 4:
            os.kill(os.getpid(), number)
        return compute_losses(model)

    monkeypatch.setattr(MBNetModel, 'compute_losses', asked_in_step_2)
    signals = signal.SIGTERM, signal.SIGINT, signal.SIGHUP
    handlers = [*map(signal.getsignal, signals)]
    with pytest.raises(SystemExit) as exit_:
        train_here(opt)
    assert exit_.value.code == os.EX_TEMPFAIL
    assert f'Stopped by {number.name} after iteration 2 of 4, and saved; --auto_resume' in capsys.readouterr().err
    assert [*map(signal.getsignal, signals)] == handlers
    folder = tmp_path / 'experiments' / 'tiny'
    assert [path.name for path in (folder / 'training_states').iterdir()] == ['2.state']

    monkeypatch.setattr(MBNetModel, 'compute_losses', compute_losses)
    train_here(opt, '--auto_resume')
    stopped = weights(folder)
    opt['name'] = 'undisturbed'
    assert_equal(stopped, weights(train_here(opt)))


@pytest.mark.parametrize('num_worker', [0, 1])
def test_a_damaged_image_in_the_middle(train_here, clips, tmp_path, log, num_worker):
    """One line, and what was trained is saved; --auto_resume goes on after the image is mended."""
    shutil.copytree(clips, tmp_path / 'clips')
    opt = small_train_opt(tmp_path / 'clips')
    opt['datasets']['train'] |= {'num_worker_per_gpu': num_worker, 'use_shuffle': False, 'batch_size_per_gpu': 2}
    image = tmp_path / 'clips' / 'first' / 'im7.png'
    image.write_bytes(b'')
    with pytest.raises(SystemExit) as exit_:
        train_here(opt)
    assert exit_.value.code == 1
    error, = [record.getMessage() for record in log.records if record.levelname == 'ERROR']
    assert re.fullmatch(r".*clips: clip 'first', frame 6 \(im7\): .*im7.png: expected an image, got no bytes", error)
    state, = (tmp_path / 'experiments' / 'tiny' / 'training_states').iterdir()
    shutil.copy(clips / 'first' / 'im7.png', image)
    train_here(opt, '--auto_resume')
    assert f'Resuming training from epoch: 0, iter: {state.stem}.' in log.messages


def test_a_second_interrupt_ends_it_at_once(train_here, clips, tmp_path, monkeypatch):
    def asked_twice(model):
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(10)

    monkeypatch.setattr(MBNetModel, 'compute_losses', asked_twice)
    with pytest.raises(KeyboardInterrupt):
        train_here(small_train_opt(clips))
    assert not list((tmp_path / 'experiments' / 'tiny' / 'training_states').iterdir())


def test_asked_to_stop_while_validating(train_here, clips, tmp_path, monkeypatch, log):
    opt = train_opt(clips)
    opt['val']['val_freq'] = 2
    validate_clip = MBNetModel.validate_clip

    def asked(model, *args):
        os.kill(os.getpid(), signal.SIGTERM)
        return validate_clip(model, *args)

    monkeypatch.setattr(MBNetModel, 'validate_clip', asked)
    with pytest.raises(SystemExit) as exit_:
        train_here(opt)
    assert exit_.value.code == os.EX_TEMPFAIL
    assert 'Validation both at iteration 2 is skipped.' in log.messages
    assert (tmp_path / 'experiments' / 'tiny' / 'training_states' / '2.state').is_file()


@pytest.mark.slow
def test_workers_outlive_a_signal_to_all_processes(clips, tmp_path):
    """As a cluster, or Ctrl-C, sends it: to the workers of the loader too."""
    opt = small_train_opt(clips)
    opt['datasets']['train']['num_worker_per_gpu'] = 2
    opt['train']['total_iter'] = 10**6
    stopped = train_interrupted(tmp_path, opt, 20, 'os.killpg(0, signal.SIGTERM)', fresh=True)
    assert stopped.returncode == os.EX_TEMPFAIL, stopped.stderr[-2000:]
    state, = (tmp_path / 'experiments' / 'tiny' / 'training_states').glob('20.state')
    assert 'Traceback' not in stopped.stderr and state.stat().st_size > 0


@pytest.mark.parametrize('action, code', [
    pytest.param("raise RuntimeError('of the program')", 1, marks=pytest.mark.slow),
    ('os.killpg(0, signal.SIGINT); time.sleep(1); os.killpg(0, signal.SIGINT); time.sleep(900)', -signal.SIGINT),
], ids=['error', 'second interrupt'])
def test_workers_do_not_outlive_the_training(clips, tmp_path, action, code):
    opt = small_train_opt(clips)
    opt['datasets']['train']['num_worker_per_gpu'] = 2
    # It is given 300 seconds, less than the program would sleep.
    ended = train_interrupted(tmp_path, opt, 2, f'import time; {action}', fresh=True)
    assert ended.returncode == code, ended.stderr[-2000:]
    assert subprocess.run(['pgrep', '-f', str(tmp_path)], capture_output=True).returncode == 1


def test_prefetching_changes_nothing_and_ends(clips, tmp_path, train_here):
    opt = small_train_opt(clips)
    plain = weights(train_here(opt))
    for name, num_workers in (('one', 0), ('two', 2)):
        opt['name'] = name
        opt['datasets']['train'].update(prefetch_mode='cpu', num_worker_per_gpu=num_workers, num_prefetch_queue=3)
        assert_equal(weights(train_here(opt)), plain)
    assert not multiprocessing.active_children()


# ---------------------------------------------------------------- losses that are not finite

class SpoiltLoss:
    """MBNet's losses, one of which is NaN in the given steps."""

    def __init__(self, monkeypatch, steps: set[int]):
        compute_losses = MBNetModel.compute_losses

        def spoilt(model):
            losses = compute_losses(model)
            if model.samples // 2 in steps:
                losses['l_flow_hr'] = losses['l_flow_hr'] * float('nan')
            return losses

        monkeypatch.setattr(MBNetModel, 'compute_losses', spoilt)


def test_steps_that_are_not_finite_are_skipped_and_told(train_here, clips, monkeypatch, log):
    SpoiltLoss(monkeypatch, {2, 3})
    opt = small_train_opt(clips)
    opt['train']['ema_decay'] = 0.5
    opt['logger']['save_checkpoint_freq'] = 1
    folder = train_here(opt)
    for key in ('params', 'params_ema'):
        first, third = weights(folder, 'net_g_1.pth', key), weights(folder, 'net_g_3.pth', key)
        assert_equal(first, third)
        assert any(not torch.equal(value, third[name]) for name, value in weights(folder, 'net_g_4.pth', key).items())
    assert [record.message.split(': l_flow_hr')[0] for record in log.records if 'is skipped' in record.message] == [
        'Iteration 2 is skipped (1 in a row, 1 in all)', 'Iteration 3 is skipped (2 in a row, 2 in all)']
    message = next(record.message for record in log.records if 'Iteration 3 is skipped' in record.message)
    assert re.search(r': l_flow_hr is nan on (first|second)/im\d, (first|second)/im\d$', message)
    assert torch.load(folder / 'training_states' / '4.state', weights_only=True)['skipped'] == [2, 0]


def test_too_many_in_a_row_stop_the_training(train_here, clips, tmp_path, monkeypatch, log):
    SpoiltLoss(monkeypatch, {2, 3, 4})
    opt = small_train_opt(clips)
    opt['train'].update(max_nonfinite=2)
    opt['logger']['save_checkpoint_freq'] = 1
    with pytest.raises(SystemExit) as exit_:
        train_here(opt)
    assert exit_.value.code == 1
    assert 'Iteration 3 is skipped (2 in a row, 2 in all): l_flow_hr is nan on' in log.text
    assert 'train.max_nonfinite is 2' in log.text
    folder = tmp_path / 'experiments' / 'tiny'
    assert_equal(weights(folder, 'net_g_1.pth'), weights(folder, 'net_g_3.pth'))  # from before
    assert (folder / 'training_states' / '3.state').is_file() and not (folder / 'models' / 'net_g_latest.pth').exists()


def test_a_gradient_that_is_not_finite_is_skipped(train_here, clips, monkeypatch, log):
    init_losses = MBNetModel.init_losses

    def with_hook(model):
        init_losses(model)
        model.net_g.vfi_net.head[-1].bias.register_hook(lambda grad: grad / 0 if model.samples == 4 else grad)

    monkeypatch.setattr(MBNetModel, 'init_losses', with_hook)
    opt = small_train_opt(clips)
    opt['logger']['save_checkpoint_freq'] = 1
    folder = train_here(opt)
    assert_equal(weights(folder, 'net_g_1.pth'), weights(folder, 'net_g_2.pth'))
    message, = [record.message for record in log.records if 'is skipped' in record.message]
    assert 'Iteration 2 is skipped (1 in a row, 1 in all): all losses are finite, but the norm of the gra' in message
    assert message.count('first/') + message.count('second/') == 2


def test_a_training_that_diverges_ends_with_a_message_and_a_checkpoint(clips, tmp_path):
    """Its flows are NaN, which once ended the process by a segmentation fault in the backward pass."""
    opt = small_train_opt(clips)
    opt['train']['max_nonfinite'] = 2
    ended = train_interrupted(
        tmp_path, opt, 2, "[p.data.fill_(float('nan')) for p in self.net_g.flow_net.parameters()]")
    assert ended.returncode == 1, ended.stderr[-2000:]
    assert re.search(r'Iteration 2 is skipped \(1 in a row, 1 in all\): l_sr is nan.* on ', ended.stderr)
    assert re.search(r'Iteration 3 is skipped \(2 in a row, 2 in all\): .* train.max_nonfinite is 2: ', ended.stderr)
    assert 'Traceback' not in ended.stderr
    folder = tmp_path / 'experiments' / 'tiny'
    assert (folder / 'models' / 'net_g_3.pth').is_file() and (folder / 'training_states' / '3.state').is_file()
