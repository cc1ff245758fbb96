"""Compare FSTRN's factorised blocks with full 3x3x3 ones of equal depth in the same network: cost per window and step.

    python scripts/benchmark/benchmark_fstrn.py --check
    python scripts/benchmark/benchmark_fstrn.py --num_feat 32 --num_frb 10

Both variants run in turns in one process, each in its faster memory layout; a ratio is the median over the turns. Peak
memory is that of fresh processes, without their libraries: the median, and the range. Multiplications are those of
convolutions, for one window. `--check` fails unless the factorised network has fewer weights and multiplications, and
a faster forward pass and training step. Memory is shown, but not checked.
"""
import argparse
import statistics
import sys
from collections.abc import Callable
from typing import NamedTuple

import torch
from benchmark_util import MIB, add_device_option, describe, in_new_process, memory_growth, seconds

import basicsr_stvsr  # noqa: F401  (before anything of basicsr, which it patches)

# isort: split
from basicsr.losses.basic_loss import CharbonnierLoss
from torch.utils.flop_counter import FlopCounterMode

from basicsr_stvsr.archs.arch_util import to_channels_last
from basicsr_stvsr.archs.fstrn_arch import FSTRN
from basicsr_stvsr.utils.cpu_memory import keep_freed_memory, return_freed_memory

BLOCKS = ('frb', 'c3d')
LAYOUTS = ('contiguous', 'channels_last')
NUM_PROCESSES = 5  # for measuring memory


class Setting(NamedTuple):
    num_feat: int
    num_frb: int
    batch: int
    patch: int  # side of the LR frames
    device: torch.device


class Row(NamedTuple):
    name: str
    values: tuple[float, float]  # for the blocks of BLOCKS
    ratio: float
    digits: int
    is_checked: bool = True
    note: str = ''


def make_net(block: str, setting: Setting, layout: str = 'contiguous') -> FSTRN:
    torch.manual_seed(0)
    net = FSTRN(num_feat=setting.num_feat, num_frb=setting.num_frb, block=block)
    return to_channels_last(net) if layout == 'channels_last' else net


def make_forward(net: FSTRN, setting: Setting) -> Callable[[], None]:
    lq = torch.rand(setting.batch, net.spec.num_frames, 1, setting.patch, setting.patch, device=setting.device)

    def forward() -> None:
        with torch.no_grad():
            net.eval()(lq)

    return forward


def make_step(net: FSTRN, setting: Setting) -> Callable[[], None]:
    """Return a function that runs a training step on noise, as in options/train_fstrn.yml."""
    lq = torch.rand(setting.batch, net.spec.num_frames, 1, setting.patch, setting.patch, device=setting.device)
    gt = torch.rand(setting.batch, 1, 1, 4 * setting.patch, 4 * setting.patch, device=setting.device)
    loss = CharbonnierLoss(eps=1e-6)
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-4, fused=True)

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        loss(net.train()(lq), gt).backward()
        optimizer.step()

    return step


MAKERS = {'forward pass': make_forward, 'training step': make_step}


def memory(what: str, block: str, setting: Setting) -> int:
    """Return the bytes of weights and one call; run this in a fresh process."""
    torch.set_num_threads(1)
    return_freed_memory()
    tiny = setting._replace(num_feat=4, num_frb=1, batch=1, patch=4)
    MAKERS[what](make_net(block, tiny).to(setting.device), tiny)()  # loads libraries
    return memory_growth(lambda: MAKERS[what](make_net(block, setting).to(setting.device), setting)(), setting.device)


def count_macs(block: str, setting: Setting) -> tuple[int, int]:
    """Return the multiplications of a window, and those in the blocks."""
    counter = FlopCounterMode(display=False)
    with torch.device('meta'), counter:
        net = make_net(block, setting).eval()
        net(torch.empty(1, net.spec.num_frames, 1, setting.patch, setting.patch))
    in_blocks = sum(sum(counts.values()) for name, counts in counter.get_flop_counts().items()
                    if name.rpartition('.')[0].endswith('.blocks'))
    return counter.get_total_flops() // 2, in_blocks // 2


def compare_times(what: str, setting: Setting, num_turn: int) -> Row:
    calls = {(block, layout): MAKERS[what](make_net(block, setting, layout).to(setting.device), setting)
             for block in BLOCKS for layout in LAYOUTS}
    times: dict[str, dict[str, list[float]]] = {block: {layout: [] for layout in LAYOUTS} for block in BLOCKS}
    for call in calls.values():
        call()
    for turn in range(num_turn):
        for block, layout in calls if turn % 2 == 0 else reversed(calls):
            times[block][layout].append(seconds(calls[block, layout], setting.device))
    layouts, best = zip(*(faster(times[block]) for block in BLOCKS), strict=True)
    ratio = statistics.median(frb / c3d for frb, c3d in zip(*best, strict=True))
    return Row(f'{what} (s)', tuple(map(statistics.median, best)), ratio, 3, note=', '.join(layouts))


def faster(times: dict[str, list[float]]) -> tuple[str, list[float]]:
    """Return the memory layout with the least median time, and its times."""
    return min(times.items(), key=lambda item: statistics.median(item[1]))


def compare_memory(what: str, setting: Setting) -> Row:
    peaks = [sorted(in_new_process(memory, what, block, setting) / MIB for _ in range(NUM_PROCESSES))
             for block in BLOCKS]
    frb, c3d = map(statistics.median, peaks)
    ranges = ', '.join(f'{each[0]:.0f} to {each[-1]:.0f}' for each in peaks)
    return Row(f'memory of a {what} (MiB)', (frb, c3d), frb / c3d, 0, is_checked=False, note=ranges)


def compare(setting: Setting, num_turn: int) -> list[Row]:
    def row(name: str, frb: float, c3d: float, digits: int) -> Row:
        return Row(name, (frb, c3d), frb / c3d, digits)

    parameters = [sum(p.numel() for p in make_net(block, setting).parameters()) for block in BLOCKS]
    macs = [[count / 1e9 for count in count_macs(block, setting)] for block in BLOCKS]
    return [
        row('parameters', *parameters, 0), *(
            row(name, *values, 2) for name, values in zip(
                ('GMACs of a window', 'GMACs of its blocks'), zip(*macs, strict=True), strict=True)),
        *(compare_times(what, setting, num_turn) for what in MAKERS),
        *(compare_memory(what, setting) for what in MAKERS)]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--num_feat', type=int, default=64, help='features (default: %(default)s)')
    parser.add_argument('--num_frb', type=int, default=5, help='blocks (default: %(default)s)')
    parser.add_argument('--batch', type=int, default=4, help='windows of five frames (default: %(default)s)')
    parser.add_argument('--patch', type=int, default=36, help='side of the LR frames (default: %(default)s)')
    parser.add_argument('--turns', type=int, default=5, help='timed calls of each row (default: %(default)s)')
    add_device_option(parser)
    parser.add_argument('--check', action='store_true', help='fail where the factorised network is not cheaper')
    args = parser.parse_args()
    setting = Setting(args.num_feat, args.num_frb, args.batch, args.patch, torch.device(args.device))
    torch.set_num_threads(1)
    if args.device == 'cpu':
        keep_freed_memory()
    print(f'FSTRN, {args.num_feat} features, {args.num_frb} blocks, batch {args.batch}, {args.patch}x{args.patch} LR; '
          f'{describe(setting.device)}\n')
    rows = compare(setting, args.turns)
    print('| | factorised | full 3x3x3 | ratio | layout or range of each |\n|---|---|---|---|---|')
    for row in rows:
        frb, c3d = (f'{value:,.{row.digits}f}' for value in row.values)
        print(f'| {row.name} | {frb} | {c3d} | {row.ratio:.2f} | {row.note} |')
    too_dear = [row.name for row in rows if row.is_checked and row.ratio >= 1]
    if too_dear:
        print(f'the factorised network is not cheaper: {", ".join(too_dear)}', file=sys.stderr)
    return int(args.check and bool(too_dear))


if __name__ == '__main__':
    sys.exit(main())
