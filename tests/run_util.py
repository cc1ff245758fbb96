"""What tests of whole runs share: the commands, and options of a training that takes seconds."""
import faulthandler
import multiprocessing
import os
import runpy
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from copy import deepcopy
from multiprocessing import forkserver
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch
import yaml
from conftest import ROOT, TINY_NET, empty_figure

from basicsr_stvsr.training import curves

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


# A server that has imported what commands import, which takes most of their time, and forks a process for each of them
PREPARED = multiprocessing.get_context('forkserver')


def begin_anew() -> None:
    """Let the next command start the server, also where a test has started one with other imports."""
    forkserver._forkserver._stop()  # type: ignore[attr-defined]
    PREPARED.set_forkserver_preload(['basicsr_stvsr.train', 'basicsr_stvsr.test', 'basicsr_stvsr.training.curves'])


begin_anew()


def run(*command: object, cwd: Path = ROOT) -> subprocess.CompletedProcess:
    """Run `python *command` on one core without a GPU, in a separate process that has done the imports already."""
    result, = _run_together(command, cwd, [{}])
    return result


def run_ranks(*command: object, cwd: Path = ROOT) -> list[subprocess.CompletedProcess]:
    """Runs `python *command` as two processes with the variables that torchrun sets. Returns one result per rank."""
    with socket.socket() as free:
        free.bind(('127.0.0.1', 0))
        address = {'MASTER_ADDR': '127.0.0.1', 'MASTER_PORT': str(free.getsockname()[1]), 'WORLD_SIZE': '2',
                   'TORCHELASTIC_RUN_ID': 'test'}
    return _run_together(command, cwd, [address | {'RANK': str(rank), 'LOCAL_RANK': str(rank)} for rank in (0, 1)])


def _run_together(command: Sequence[object], cwd: Path,
                  environments: Sequence[dict[str, str]]) -> list[subprocess.CompletedProcess]:
    """Runs the command once per environment, side by side."""
    words = [str(word) for word in command]
    end = time.monotonic() + 300
    with tempfile.TemporaryDirectory() as folder:
        outputs = [[Path(folder) / f'{name}{i}' for name in ('stdout', 'stderr')] for i in range(len(environments))]
        processes = [PREPARED.Process(target=_execute, args=(words, str(cwd), [str(file) for file in files], extra))
                     for files, extra in zip(outputs, environments, strict=True)]
        for process in processes:
            process.start()
        for process in processes:
            process.join(timeout=max(0, end - time.monotonic()))
        if any(process.exitcode is None for process in processes):
            for process in processes:
                process.kill()
                process.join()
            raise subprocess.TimeoutExpired(words, 300)
        return [subprocess.CompletedProcess(words, process.exitcode, *(file.read_text() for file in files))
                for process, files in zip(processes, outputs, strict=True)]


def _execute(command: list[str], cwd: str, files: list[str], environment: dict[str, str]) -> None:
    """What Python does with its command line."""
    # Otherwise its own processes would come from the server too, and outlive it
    multiprocessing.set_start_method(None, force=True)
    curves.plot_metrics = empty_figure
    os.setsid()  # a group that the command may kill
    for descriptor, file in enumerate(files, 1):
        os.dup2(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND), descriptor)
    os.chdir(cwd)
    os.environ |= ENVIRONMENT | environment
    kind, *rest = command
    if kind == '-m':
        sys.argv, sys.path[0] = rest, cwd
        sys.modules.pop(rest[0], None)  # Python warns of a module that is run and was imported
        runpy.run_module(rest[0], run_name='__main__', alter_sys=True)
    elif kind == '-c':
        sys.argv, sys.path[0] = ['-c', *rest[1:]], cwd
        exec(rest[0], {'__name__': '__main__'})
    else:
        sys.argv, sys.path[0] = command, str((Path(cwd) / kind).parent)
        runpy.run_path(kind, run_name='__main__')


def in_forks(function: Callable[..., Any], calls: Sequence[tuple], num_processes: int = 2) -> list[Any]:
    """The results of `function(*call)` for each of the calls, from forked processes that run side by side.

    multiprocessing.Pool would wait for ever where a fork hangs. This prints where it stands, and fails.
    """
    context = multiprocessing.get_context('fork')

    def work(sender: Connection, share: Sequence[tuple]) -> None:
        faulthandler.dump_traceback_later(50, file=sys.__stderr__)
        sender.send([function(*call) for call in share])
        faulthandler.cancel_dump_traceback_later()

    results: list[Any] = [None] * len(calls)
    running = []
    for i in range(num_processes):
        receiver, sender = context.Pipe(duplex=False)
        process = context.Process(target=work, args=(sender, calls[i::num_processes]))
        process.start()
        sender.close()
        running.append((process, receiver))
    try:
        for i, (_, receiver) in enumerate(running):
            assert receiver.poll(60), 'a forked process hangs'
            results[i::num_processes] = receiver.recv()
    finally:
        for process, _ in running:
            process.kill()
            process.join()
    return results


def run_fresh(*command: object, cwd: Path = ROOT, **options: object) -> subprocess.CompletedProcess:
    """Runs `python *command` on one core without a GPU, from its first import on.

    Args:
        options: of subprocess.run.
    """
    return subprocess.run([sys.executable, *map(str, command)], cwd=cwd, capture_output=True, text=True, timeout=300,
                          env=ENVIRONMENT, **options)


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
