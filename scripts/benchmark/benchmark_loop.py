"""What the training loop costs: one `optimize_parameters` of MBNetModel beside a bare PyTorch loop.

Both train the same network from the same weights on the same batch of noise with the losses of eq. 11 and Adam, and
take turns in one process; their weights must be equal at the end. Data loading and logging are in neither.

    python scripts/benchmark/benchmark_loop.py
    python scripts/benchmark/benchmark_loop.py --net baseline --batch 16 --device cuda --check
"""
import argparse
import logging
import statistics
import sys
from collections.abc import Callable

import torch
from benchmark_util import describe, seconds
from torch.nn import functional as F

import basicsr_stvsr  # noqa: F401  (before anything of basicsr, which it patches)

# isort: split
from basicsr.models import build_model
from basicsr.utils import get_root_logger

from basicsr_stvsr.archs.mbnet_arch import MBNET_PRESETS, MBNet
from basicsr_stvsr.losses.flow_loss import MiddleFlowLoss, MultiScaleWarpLoss
from basicsr_stvsr.models.mbnet_model import MBNetModel

LEARNING_RATE = 1e-4
LQ_FLOW_WEIGHT, HR_FLOW_WEIGHT = 0.005, 0.01
TIME_LIMIT = 1.05


def make_model(net: str, device: torch.device) -> MBNetModel:
    return build_model({
        'name': 'benchmark', 'model_type': 'MBNetModel', 'num_gpu': int(device.type == 'cuda'), 'dist': False,
        'is_train': True, 'path': {}, 'network_g': {'type': 'MBNet', **MBNET_PRESETS[net]},
        'train': {
            'optim_g': {'type': 'Adam', 'lr': LEARNING_RATE},
            'scheduler': {'type': 'MultiStepLR', 'milestones': [10**6], 'gamma': 0.5},
            'pixel_opt': {'type': 'L1Loss'},
            'lq_flow_opt': {'type': 'MultiScaleWarpLoss', 'loss_weight': LQ_FLOW_WEIGHT},
            'hr_flow_opt': {'type': 'MiddleFlowLoss', 'loss_weight': HR_FLOW_WEIGHT}}})


def make_bare_step(net: MBNet, lq: torch.Tensor, gt: torch.Tensor) -> Callable[[], None]:
    """Forward, loss, backward and Adam as one would write them without a framework."""
    optimizer = torch.optim.Adam(net.parameters(), lr=LEARNING_RATE)
    lq_flow_loss, hr_flow_loss = MultiScaleWarpLoss(LQ_FLOW_WEIGHT), MiddleFlowLoss(HR_FLOW_WEIGHT)
    a, b = lq.unbind(1)

    def step() -> None:
        optimizer.zero_grad()
        output, aux = net(lq, return_aux=True)
        loss = 3 * F.l1_loss(output, gt)
        loss = loss + lq_flow_loss(a, b, aux.lq_flows_ab, aux.lq_flows_ba)
        loss = loss + hr_flow_loss(output.detach(), aux.hr_flow_a, aux.hr_flow_b)
        loss.backward()
        optimizer.step()

    return step


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--net', choices=MBNET_PRESETS, default='small', help='(default: %(default)s)')
    parser.add_argument('--batch', type=int, default=4, help='(default: %(default)s)')
    parser.add_argument('--patch', type=int, default=128, help='side of the HR crop (default: %(default)s)')
    parser.add_argument('--pairs', type=int, default=20, help='alternated pairs of steps (default: %(default)s)')
    parser.add_argument('--device', default='cpu', help='(default: %(default)s)')
    parser.add_argument('--threads', type=int, default=1, help='of a CPU (default: %(default)s)')
    parser.add_argument('--check', action='store_true', help=f'fail where the ratio is above {TIME_LIMIT}')
    args = parser.parse_args()
    if args.patch % 16:
        parser.error(f'--patch must be divisible by 16, but got {args.patch}')
    torch.set_num_threads(args.threads)
    get_root_logger(log_level=logging.WARNING)
    device = torch.device(args.device)

    torch.manual_seed(0)
    lq = torch.rand(args.batch, 2, 3, args.patch // 4, args.patch // 4, device=device)
    gt = torch.rand(args.batch, 3, 3, args.patch, args.patch, device=device)
    model = make_model(args.net, device)
    model.feed_data({'lq': lq, 'gt': gt})
    bare_net = MBNet(**MBNET_PRESETS[args.net]).to(device)
    bare_net.load_state_dict(model.net_g.state_dict())
    steps = {'bare loop': make_bare_step(bare_net, lq, gt), 'optimize_parameters': lambda: model.optimize_parameters(1)}

    for step in steps.values():  # the first step allocates
        step()
    times: dict[str, list[float]] = {name: [] for name in steps}
    for pair in range(args.pairs):
        for name in steps if pair % 2 == 0 else reversed(steps):
            times[name].append(seconds(steps[name], device))
    # To rounding; on a GPU the order of additions is not fixed, and Adam makes whole steps of that.
    tolerance = 1e-6 if device.type == 'cpu' else 2 * (args.pairs + 1) * LEARNING_RATE
    for ours, theirs in zip(model.net_g.parameters(), bare_net.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=tolerance)

    ratios = [ours / bare for ours, bare in zip(times['optimize_parameters'], times['bare loop'], strict=True)]
    ratio = statistics.median(ratios)
    print(f'MBNet {args.net}, batch {args.batch}, {args.patch}x{args.patch} HR, float32; {describe(device)}')
    for name, values in times.items():
        print(f'{name + ":":21}{statistics.median(values):8.3f} s a step')
    print(f'optimize_parameters / bare loop: {ratio:.3f} (median of {args.pairs} pairs, '
          f'{min(ratios):.3f} to {max(ratios):.3f})')
    if args.check and ratio > TIME_LIMIT:
        print(f'FAILED: at most {TIME_LIMIT:.2f} is allowed', file=sys.stderr)
        return 1
    return 0


if __name__ == '__main__':
    sys.exit(main())
