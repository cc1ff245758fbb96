"""Measure how much another busy process slows MBNet small, with libgomp's default spinning and with this package's.

Each turn measures both settings in fresh processes, bound to as many cores as the network has threads: first alone,
then next to a process that counts on one of these cores.

`restore`: seconds per pair of frames. `train`: seconds per training step (batch 4, 128x128 HR) with two data workers
that make LR frames from PNG files; these compete for the cores, too.

    python scripts/benchmark/benchmark_busy.py --check
    python scripts/benchmark/benchmark_busy.py --what restore --spin-counts 1000 3000 10000
"""
import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

LIBGOMP, OURS = 'libgomp', 'ours'  # settings; others are numbers for GOMP_SPINCOUNT
BUSY_LIMIT, IDLE_LIMIT = 3.0, 1.10


@contextmanager
def busy_process() -> Iterator[None]:
    process = subprocess.Popen([sys.executable, '-c', 'while True: pass'])
    try:
        yield
    finally:
        process.kill()
        process.wait()


def median_time(step: Callable[[], Any], runs: int) -> float:
    times = []
    for _ in range(runs):
        start = time.perf_counter()
        step()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


# ---------------------------------------------------------------- in the measured process

def restoring(size: int) -> Callable[[], Any]:
    """Return a function that runs MBNet small on a pair of LR frames."""
    import torch

    from basicsr_stvsr.archs.mbnet_arch import MBNET_PRESETS, MBNet

    net, lq = MBNet(**MBNET_PRESETS['small']).eval(), torch.rand(1, 2, 3, size, size)

    @torch.no_grad()
    def step() -> None:
        net(lq)

    return step


def training(folder: str) -> Callable[[], Any]:
    """Return a training step of MBNet small, with the wait for its samples; two workers read clips below `folder`."""
    import cv2
    import numpy as np
    import torch

    import basicsr_stvsr  # noqa: F401  (before anything of basicsr, which it patches)

    # isort: split
    from basicsr_stvsr.archs.mbnet_arch import MBNET_PRESETS, MBNet
    from basicsr_stvsr.data.clip_dataset import STVSRClipDataset
    from basicsr_stvsr.training.loader import make_train_loader

    rng = np.random.default_rng(0)
    for number in range(7):
        path = Path(folder) / 'clip' / f'im{number}.png'
        path.parent.mkdir(exist_ok=True)
        cv2.imwrite(str(path), cv2.GaussianBlur(rng.integers(0, 255, (256, 448, 3), np.uint8), (0, 0), 2))
    dataset_opt = {'name': 'noise', 'type': 'STVSRClipDataset', 'dataroot_gt': folder, 'scale': 4, 'num_frame': 3,
                   'gt_size': 128, 'random_reverse': True, 'use_hflip': True, 'use_rot': True,
                   'batch_size_per_gpu': 4, 'num_worker_per_gpu': 2, 'dataset_enlarge_ratio': 1000}
    opt = {'datasets': {'train': dataset_opt}, 'rank': 0, 'world_size': 1, 'num_gpu': 0, 'dist': False,
           'manual_seed': 0}
    batches = iter(make_train_loader(opt, STVSRClipDataset(dataset_opt)))
    net = MBNet(**MBNET_PRESETS['small'])
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-4)

    def step() -> None:
        batch = next(batches)
        optimizer.zero_grad()
        torch.nn.functional.l1_loss(net(batch['lq']), batch['gt']).backward()
        optimizer.step()

    return step


def measure(what: str, setting: str, args: argparse.Namespace) -> dict[str, float]:
    """Return the seconds per step in this process, 'idle' and 'busy'."""
    if hasattr(os, 'sched_setaffinity'):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:args.threads])
    if setting == LIBGOMP:
        import torch  # first, so that the package has no effect
    import basicsr_stvsr  # noqa: F401

    # isort: split
    import torch

    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as folder:
        step = restoring(args.size) if what == 'restore' else training(folder)
        median_time(step, 2)
        idle = median_time(step, args.runs)
        with busy_process():
            return {'idle': idle, 'busy': median_time(step, args.runs)}


# ---------------------------------------------------------------- in the measuring process

def in_new_process(what: str, setting: str, args: argparse.Namespace) -> dict[str, float]:
    """Run `measure` in a fresh Python whose environment configures no threads except the spin count of `setting`."""
    env = {name: value for name, value in os.environ.items()
           if name not in ('GOMP_SPINCOUNT', 'OMP_WAIT_POLICY', 'OMP_NUM_THREADS')}
    if setting.isdecimal():
        env['GOMP_SPINCOUNT'] = setting
    command = [sys.executable, __file__, '--what', what, '--measure', setting, '--threads', str(args.threads),
               '--size', str(args.size), '--runs', str(args.runs)]
    return json.loads(subprocess.run(command, env=env, stdout=subprocess.PIPE, check=True).stdout)


def compare(what: str, args: argparse.Namespace) -> list[str]:
    """Print the table of one kind of step; return the missed limits."""
    settings = [LIBGOMP, *(args.spin_counts or [OURS])]
    turns: dict[str, list[dict[str, float]]] = defaultdict(list)
    for turn in range(args.turns):
        for setting in settings if turn % 2 == 0 else reversed(settings):
            turns[setting].append(in_new_process(what, setting, args))

    def median(setting: str, number: Callable[[dict[str, float], dict[str, float]], float]) -> float:
        return statistics.median(map(number, turns[setting], turns[LIBGOMP]))

    print(f'\n| {what} | idle (s) | busy (s) | busy / idle | idle / idle of libgomp |\n|---|---|---|---|---|')
    ratios = {}
    for setting in settings:
        idle, busy = (median(setting, lambda own, _, key=key: own[key]) for key in ('idle', 'busy'))
        ratios[setting] = (median(setting, lambda own, _: own['busy'] / own['idle']),
                           median(setting, lambda own, default: own['idle'] / default['idle']))
        print(f'| {setting} | {idle:.3f} | {busy:.3f} | {ratios[setting][0]:.2f} | {ratios[setting][1]:.2f} |',
              flush=True)
    found = zip(('busy / idle', 'idle / idle of libgomp'), ratios.get(OURS, ()), (BUSY_LIMIT, IDLE_LIMIT), strict=False)
    return [f'{what}: {name} is {value:.2f}, at most {limit} is allowed'
            for name, value, limit in found if value > limit]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--what', choices=('restore', 'train', 'all'), default='all', help='(default: %(default)s)')
    parser.add_argument('--spin-counts', nargs='+', metavar='N', help='try these instead of the one of the package')
    parser.add_argument('--threads', type=int, default=2, help='(default: %(default)s)')
    parser.add_argument('--size', type=int, default=64, help='side of LR frames (default: %(default)s)')
    parser.add_argument('--runs', type=int, default=5, help='timed steps in a process (default: %(default)s)')
    parser.add_argument('--turns', type=int, default=3, help='processes for each setting (default: %(default)s)')
    parser.add_argument('--check', action='store_true',
                        help=f'fail where, with the setting of the package, a busy process makes a step take more than '
                        f'{BUSY_LIMIT} of its idle time, or the idle time is more than {IDLE_LIMIT} of that of libgomp')
    parser.add_argument('--measure', metavar='SETTING', help=argparse.SUPPRESS)  # used by the fresh processes
    args = parser.parse_args()
    if args.measure:
        print(json.dumps(measure(args.what, args.measure, args)))
        return 0
    print(f'MBNet small, {args.threads} threads, {args.size}x{args.size}; median of {args.turns} processes each')
    missed = [line for what in (('restore', 'train') if args.what == 'all' else (args.what,))
              for line in compare(what, args)]
    for line in missed:
        print(f'FAILED: {line}', file=sys.stderr)
    return int(bool(missed) and args.check)


if __name__ == '__main__':
    sys.exit(main())
