"""Measure the cost of training options: time and memory of one MBNetModel step with each option, and without any.

A step is forward, the losses of eq. 11, backward and Adam on a batch of noise, as in `optimize_parameters`. Prints a
Markdown table. The steps take turns in one process, and each time is divided by that of the float32 step in its turn.
Memory includes weights, gradients and Adam's state, and comes from a fresh process for each row.

    python scripts/benchmark/benchmark_training.py
    python scripts/benchmark/benchmark_training.py --preset headline --batch 16 --check
    python scripts/benchmark/benchmark_training.py --rows bf16 compile
"""
import argparse
import logging
import math
import statistics
import sys
from typing import NamedTuple

import torch
from benchmark_util import MIB, add_device_option, describe, in_new_process, memory_growth, seconds

import basicsr_stvsr  # noqa: F401  (before anything of basicsr, which it patches)

# isort: split
from basicsr.models import build_model
from basicsr.utils import get_root_logger

from basicsr_stvsr.archs.mbnet_arch import MBNET_PRESETS
from basicsr_stvsr.models.mbnet_model import MBNetModel
from basicsr_stvsr.utils.cpu_memory import keep_freed_memory

BASE = 'float32'
# Row -> options of `network_g`, options of `train`
ROWS: dict[str, tuple[dict, dict]] = {
    BASE: ({}, {}),
    'bf16': ({}, {'amp': 'bf16'}),
    'fp16': ({}, {'amp': 'fp16'}),
    'channels_last': ({}, {'channels_last': True}),
    'bf16, channels_last': ({}, {'amp': 'bf16', 'channels_last': True}),
    'Adam not fused': ({}, {'optim_g': {'fused': False}}),
    'accumulate 2': ({}, {'accumulate': 2}),
    'accumulate 4': ({}, {'accumulate': 4}),
    'checkpoint': ({'checkpoint': True}, {}),
    'bf16, checkpoint': ({'checkpoint': True}, {'amp': 'bf16'}),
    'compile': ({}, {'compile': True}),
    'bf16, compile': ({}, {'amp': 'bf16', 'compile': True}),
}
# Row -> limits relative to float32: of time, of memory.
LIMITS = {'checkpoint': (1.6, 0.6), 'accumulate 4': (1.3, 0.6)}
GPU_LIMITS = {'bf16': (1.0, 0.75), 'bf16, checkpoint': (1.3, 0.5)}  # CPUs may lack bfloat16
# Largest relative difference of the loss from float32; above it, a row computes something else.
LOSS_TOLERANCE = 0.05


class Setting(NamedTuple):
    preset: str
    batch: int
    patch: int  # side of the LR frames
    num_thread: int
    device: str


class Cost(NamedTuple):
    seconds: float  # median
    time_ratio: float  # median over the turns
    memory: int | None  # bytes
    loss: float


def make_model(row: str, setting: Setting) -> MBNetModel:
    """Build the model of a row with a batch; all rows start from the same weights."""
    network, train = ROWS[row]
    device = torch.device(setting.device)
    torch.manual_seed(0)
    model = build_model({
        'name': 'benchmark', 'model_type': 'MBNetModel', 'num_gpu': int(device.type == 'cuda'), 'dist': False,
        'rank': 0, 'world_size': 1, 'is_train': True, 'manual_seed': 0, 'path': {}, 'datasets': {'train': {}},
        'network_g': {'type': 'MBNet', **MBNET_PRESETS[setting.preset], **network},
        'train': {
            'scheduler': {'type': 'MultiStepLR', 'milestones': [10**6], 'gamma': 0.5}, 'total_iter': 10**6,
            'pixel_opt': {'type': 'L1Loss'},
            'lq_flow_opt': {'type': 'MultiScaleWarpLoss', 'loss_weight': 0.005},
            'hr_flow_opt': {'type': 'MiddleFlowLoss', 'loss_weight': 0.01},
            **train, 'optim_g': {'type': 'Adam', 'lr': 1e-4, **train.get('optim_g', {})}}})
    model.feed_data({
        'lq': torch.rand(setting.batch, 2, 3, setting.patch, setting.patch),
        'gt': torch.rand(setting.batch, 3, 3, 4 * setting.patch, 4 * setting.patch)})
    return model


def peak_memory(row: str, setting: Setting) -> int:
    """Return the bytes of a training: the model and two steps, because Adam's state appears with the first."""
    prepare(setting)
    device = torch.device(setting.device)
    torch.nn.Conv2d(1, 1, 3, device=device)(torch.rand(1, 1, 8, 8, device=device)).sum().backward()  # loads libraries

    def run() -> None:
        model = make_model(row, setting)
        for step in (1, 2):
            model.optimize_parameters(step)

    return memory_growth(run, device)


def prepare(setting: Setting) -> None:
    torch.set_num_threads(setting.num_thread)
    if setting.device == 'cpu':
        keep_freed_memory()  # as every training does
    get_root_logger(log_level=logging.WARNING)


def measure(rows: list[str], setting: Setting, num_turn: int) -> dict[str, Cost]:
    prepare(setting)
    device = torch.device(setting.device)
    memory = {}
    for row in rows:
        # A CPU's resident set would include the compiler.
        compiles_on_cpu = ROWS[row][1].get('compile') and device.type == 'cpu'
        memory[row] = None if compiles_on_cpu else in_new_process(peak_memory, row, setting)

    models, times = {row: make_model(row, setting) for row in rows}, {row: [] for row in rows}
    for model in models.values():  # the first steps allocate, compile, and find the loss scale for float16
        for step in (1, 2):
            model.optimize_parameters(step)
    for turn in range(num_turn):
        for row in rows if turn % 2 == 0 else reversed(rows):
            times[row].append(seconds(lambda model=models[row], step=turn + 3: model.optimize_parameters(step), device))
    return {
        row: Cost(
            statistics.median(times[row]),
            statistics.median(own / base for own, base in zip(times[row], times[BASE], strict=True)),
            memory[row], sum(float(value) for value in models[row].losses.values()))
        for row in rows}


def failures(costs: dict[str, Cost], device: torch.device) -> list[str]:
    """Return messages for rows that exceed a limit or differ in the loss."""
    base, problems = costs[BASE], []
    for row, cost in costs.items():
        if not math.isclose(cost.loss, base.loss, rel_tol=LOSS_TOLERANCE):
            problems.append(f'{row}: the loss is {cost.loss:.4f}, that of {BASE} {base.loss:.4f}')
        limits = LIMITS | GPU_LIMITS if device.type == 'cuda' else LIMITS
        time_limit, memory_limit = limits.get(row, (math.inf, math.inf))
        if cost.time_ratio > time_limit:
            problems.append(f'{row}: {cost.time_ratio:.2f} of the time, at most {time_limit:.2f} is allowed')
        if cost.memory is not None and cost.memory > memory_limit * base.memory:
            problems.append(f'{row}: {cost.memory / base.memory:.2f} of the memory, at most {memory_limit:.2f} is '
                            'allowed')
    return problems


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--preset', choices=MBNET_PRESETS, default='small', help='(default: %(default)s)')
    parser.add_argument('--batch', type=int, default=4, help='divisible by 4 (default: %(default)s)')
    parser.add_argument('--patch', type=int, default=32, help='side of the LR frames (default: %(default)s)')
    parser.add_argument('--rows', nargs='+', choices=ROWS, metavar='ROW',
                        help=f'of {" | ".join(ROWS)} (default: all; on a CPU without amp, which most emulate, and '
                             'compile, which takes minutes)')
    parser.add_argument('--turns', type=int, default=5, help='timed steps of each row (default: %(default)s)')
    add_device_option(parser)
    parser.add_argument('--threads', type=int, default=1, help='of a CPU (default: %(default)s)')
    parser.add_argument('--check', action='store_true', help='fail where a row takes more than its limit')
    args = parser.parse_args()
    if args.batch % 4 or args.patch % 4:
        parser.error(f'--batch and --patch must be divisible by 4, but got {args.batch} and {args.patch}')
    rows = args.rows or [row for row in ROWS if args.device == 'cuda' or not ROWS[row][1].keys() & {'amp', 'compile'}]
    rows = [BASE, *(row for row in rows if row != BASE)]
    costs = measure(rows, Setting(args.preset, args.batch, args.patch, args.threads, args.device), args.turns)

    device, base = torch.device(args.device), costs[BASE]
    print(f'MBNet {args.preset}, batch {args.batch}, {args.patch}x{args.patch} LR; {describe(device)}\n')
    print('| step | s | of the time | peak memory (MiB) | of the memory |')
    print('|---|---|---|---|---|')
    for row, cost in costs.items():
        memory = '| | ' if cost.memory is None else f'| {cost.memory / MIB:.0f} | {cost.memory / base.memory:.2f} '
        print(f'| {row} | {cost.seconds:.3f} | {cost.time_ratio:.2f} {memory}|')
    problems = failures(costs, device)
    if args.check and problems:
        print('FAILED: ' + '; '.join(problems), file=sys.stderr)
        return 1
    return 0


if __name__ == '__main__':
    sys.exit(main())
