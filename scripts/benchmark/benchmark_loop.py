"""Compare iterations of train.py with a bare PyTorch loop, and measure the cost of saving a checkpoint.

Both train the same network from the same weights on the same samples of noise in memory, with the losses of eq. 11,
Adam, gradient clipping by norm and a moving average of the weights. They take turns in one process, and their weights
must be equal at the end. For train.py, an iteration includes the seeded sample stream, the check that loss and gradient
are finite, the progress log with a line every ten iterations, metrics.jsonl, tensorboard, and the signal check. A
checkpoint holds weights, their average, optimiser and random states, is written atomically and synced to disk.

    python scripts/benchmark/benchmark_loop.py
    python scripts/benchmark/benchmark_loop.py --net baseline --batch 16 --device cuda --check
"""
import argparse
import logging
import statistics
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from benchmark_util import describe, seconds
from torch import Tensor
from torch.nn import functional as F
from torch.nn.utils import clip_grad_norm_
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.data import DataLoader, Dataset
from torch.utils.tensorboard import SummaryWriter

import basicsr_stvsr  # noqa: F401  (before anything of basicsr, which it patches)

# isort: split
from basicsr.models import build_model
from basicsr.utils import get_root_logger

from basicsr_stvsr.archs.mbnet_arch import MBNET_PRESETS, MBNet
from basicsr_stvsr.losses.flow_loss import MiddleFlowLoss, MultiScaleWarpLoss
from basicsr_stvsr.train import Position, StopRequest, Training
from basicsr_stvsr.training.loader import make_train_loader, open_batches
from basicsr_stvsr.training.log import TrainingLog
from basicsr_stvsr.utils.distributed import any_rank

LEARNING_RATE, GRAD_CLIP, EMA_DECAY = 1e-4, 0.5, 0.999
LQ_FLOW_WEIGHT, HR_FLOW_WEIGHT = 0.005, 0.01
TIME_LIMIT, SAVE_LIMIT = 1.05, 2.0
NUM_SAVES = 5


class Noise(Dataset):
    """Samples of noise, in the order of their numbers, repeated as often as requested."""

    def __init__(self, num_samples: int, patch: int):
        self.lq = torch.rand(num_samples, 2, 3, patch // 4, patch // 4)
        self.gt = torch.rand(num_samples, 3, 3, patch, patch)

    def __len__(self) -> int:
        return len(self.lq)

    def __getitem__(self, index: int) -> dict[str, Tensor | str]:
        return {'lq': self.lq[index], 'gt': self.gt[index], 'key': str(index)}


def make_opt(net: str, batch: int, device: torch.device, folder: Path) -> dict:
    for name in ('models', 'training_states'):
        (folder / name).mkdir()
    return {
        'name': 'benchmark', 'model_type': 'MBNetModel', 'num_gpu': int(device.type == 'cuda'), 'dist': False,
        'rank': 0, 'world_size': 1, 'is_train': True, 'manual_seed': 0,
        'path': {'experiments_root': str(folder), 'models': str(folder / 'models'),
                 'training_states': str(folder / 'training_states')},
        'datasets': {'train': {'batch_size_per_gpu': batch, 'use_shuffle': False}},
        'network_g': {'type': 'MBNet', **MBNET_PRESETS[net]},
        'train': {
            'optim_g': {'type': 'Adam', 'lr': LEARNING_RATE},
            'scheduler': {'type': 'MultiStepLR', 'milestones': [10**6], 'gamma': 0.5}, 'total_iter': 10**6,
            'pixel_opt': {'type': 'L1Loss'}, 'grad_clip': GRAD_CLIP, 'ema_decay': EMA_DECAY,
            'lq_flow_opt': {'type': 'MultiScaleWarpLoss', 'loss_weight': LQ_FLOW_WEIGHT},
            'hr_flow_opt': {'type': 'MiddleFlowLoss', 'loss_weight': HR_FLOW_WEIGHT}},
        'logger': {'print_freq': 10, 'save_checkpoint_freq': 10**6},
    }


def make_bare_step(net: MBNet, batches: Iterator[dict], device: torch.device) -> Callable[[], None]:
    """Return a step with forward, loss, backward, Adam and the average, written without a framework."""
    optimizer = torch.optim.Adam(net.parameters(), lr=LEARNING_RATE)
    average = AveragedModel(net, multi_avg_fn=get_ema_multi_avg_fn(EMA_DECAY))
    lq_flow_loss, hr_flow_loss = MultiScaleWarpLoss(LQ_FLOW_WEIGHT), MiddleFlowLoss(HR_FLOW_WEIGHT)

    def step() -> None:
        batch = next(batches)
        lq, gt = batch['lq'].to(device), batch['gt'].to(device)
        a, b = lq.unbind(1)
        optimizer.zero_grad()
        output, aux = net(lq, return_aux=True)
        loss = 3 * F.l1_loss(output, gt)
        loss = loss + lq_flow_loss(a, b, aux.lq_flows_ab, aux.lq_flows_ba)
        loss = loss + hr_flow_loss(output.detach(), aux.hr_flow_ta, aux.hr_flow_tb)
        loss.backward()
        clip_grad_norm_(net.parameters(), GRAD_CLIP)
        optimizer.step()
        average.update_parameters(net)

    return step


def for_ever(loader: DataLoader) -> Iterator[dict]:
    while True:
        yield from loader


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--net', choices=MBNET_PRESETS, default='small', help='(default: %(default)s)')
    parser.add_argument('--batch', type=int, default=4, help='(default: %(default)s)')
    parser.add_argument('--patch', type=int, default=128, help='side of the HR crop (default: %(default)s)')
    parser.add_argument('--pairs', type=int, default=20, help='alternated pairs of iterations (default: %(default)s)')
    parser.add_argument('--device', default='cpu', help='(default: %(default)s)')
    parser.add_argument('--threads', type=int, default=1, help='of a CPU (default: %(default)s)')
    parser.add_argument('--check', action='store_true',
                        help=f'fail where the loop takes more than {TIME_LIMIT} of the time of the bare one, or a '
                             f'checkpoint {SAVE_LIMIT} steps')
    args = parser.parse_args()
    if args.patch % 16:
        parser.error(f'--patch must be divisible by 16, but got {args.patch}')
    torch.set_num_threads(args.threads)
    get_root_logger(log_level=logging.WARNING)
    device = torch.device(args.device)

    torch.manual_seed(0)
    samples = Noise(4 * args.batch, args.patch)
    with tempfile.TemporaryDirectory() as folder, StopRequest() as stop, SummaryWriter(folder) as tb_logger:
        opt = make_opt(args.net, args.batch, device, Path(folder))
        loader = make_train_loader(opt, samples)
        with TrainingLog(opt, start_iter=0, total_iter=10**6, tb_logger=tb_logger) as log, \
                open_batches(loader, opt) as batches:
            position = Position(opt, loader.batch_sampler, None)
            training = Training(opt, build_model(opt), batches, position, [], log, tb_logger)
            bare_net = MBNet(**MBNET_PRESETS[args.net]).to(device)
            bare_net.load_state_dict(training.model.net_g.state_dict())
            times, ratios = compare(training, bare_net, stop, for_ever(DataLoader(samples, args.batch)), args.pairs)
        saves = [seconds(lambda i=i: training.model.save(0, i), device) for i in range(NUM_SAVES)]
        size = sum(path.stat().st_size for name in ('models/net_g_0.pth', 'training_states/0.state')
                   for path in [Path(folder) / name])

    ratio, step = statistics.median(ratios), statistics.median(times['bare loop'])
    save_ratio = statistics.median(saves) / step
    print(f'MBNet {args.net}, batch {args.batch}, {args.patch}x{args.patch} HR, float32; {describe(device)}')
    for name, values in times.items():
        print(f'{name + ":":11}{statistics.median(values):8.3f} s per iteration')
    print(f'train.py / bare loop: {ratio:.3f} (median of {args.pairs} pairs, {min(ratios):.3f} to {max(ratios):.3f})')
    print(f'checkpoint: {statistics.median(saves):.3f} s for {size / 2**20:.1f} MiB = {save_ratio:.2f} steps '
          f'(median of {NUM_SAVES})')
    bars = (('train.py / bare loop', ratio, TIME_LIMIT), ('a checkpoint in steps', save_ratio, SAVE_LIMIT))
    failed = [f'at most {limit} is allowed, but {name} is {value:.3f}' for name, value, limit in bars if value > limit]
    if args.check and failed:
        print(f'FAILED: {"; ".join(failed)}', file=sys.stderr)
        return 1
    return 0


def compare(training: Training, bare_net: MBNet, stop: StopRequest, batches: Iterator[dict],
            num_pairs: int) -> tuple[dict[str, list[float]], list[float]]:
    """Return the seconds of each side's iterations, and the ratio of each pair."""
    device = training.model.device

    def step() -> None:
        training.step()
        any_rank(bool(stop), device)

    steps = {'bare loop': make_bare_step(bare_net, batches, device), 'train.py': step}
    for step in steps.values():  # the first step allocates
        step()
    times: dict[str, list[float]] = {name: [] for name in steps}
    for pair in range(num_pairs):
        for name in steps if pair % 2 == 0 else reversed(steps):
            times[name].append(seconds(steps[name], device))
    # Equal up to rounding, but Adam turns gradients that are only rounding into full steps; GPUs are not exact.
    for ours, theirs in zip(training.model.net_g.parameters(), bare_net.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=2 * (num_pairs + 1) * LEARNING_RATE)
        assert (ours - theirs).abs().mean() < LEARNING_RATE / 10
    return times, [ours / bare for ours, bare in zip(times['train.py'], times['bare loop'], strict=True)]


if __name__ == '__main__':
    sys.exit(main())
