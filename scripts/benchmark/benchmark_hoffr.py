"""Measure HOFFR frame by frame: cost per frame next to BasicVSR, and equal memory for long and short streams.

    python scripts/benchmark/benchmark_hoffr.py step
    python scripts/benchmark/benchmark_hoffr.py stream --check

`step`: seconds per 180x320 frame, the share of the flow network, and peak memory. The same for BasicSR's BasicVSR,
which processes a clip forwards and backwards, per frame of the clip. The networks take turns in one process. Memory
comes from a fresh process each, without its libraries.
`stream`: peak memory of streams of 20 and of 200 frames. `--check` fails if they differ by more than 2 %.
"""
import argparse
import statistics
import sys
from collections.abc import Iterator

import torch
from benchmark_util import MIB, add_device_option, describe, in_new_process, memory_growth, seconds
from torch import nn

import basicsr_stvsr  # noqa: F401  (before anything of basicsr, which it patches)

# isort: split
from basicsr.archs.basicvsr_arch import BasicVSR

from basicsr_stvsr.archs.hoffr_arch import HOFFR
from basicsr_stvsr.inference.windows import StreamFrame, restore_stream
from basicsr_stvsr.utils.cpu_memory import return_freed_memory

NUM_FRAMES = 5  # frames of a clip for one call of BasicVSR
LENGTHS = (20, 200)  # of streams
TOLERANCE = 0.02


def stream(num_frame: int, size: tuple[int, int], device: torch.device) -> Iterator[StreamFrame]:
    """Yield frames of moving noise."""
    noise = torch.rand(1, 3, size[0], size[1] + 16, device=device)
    for number in range(num_frame):
        yield StreamFrame(noise[..., number % 16:number % 16 + size[1]])


def run_stream(net: HOFFR, num_frame: int, size: tuple[int, int], device: torch.device) -> None:
    for _ in restore_stream(net, stream(num_frame, size, device)):
        pass


@torch.no_grad()
def run_clip(net: nn.Module, num_frame: int, size: tuple[int, int], device: torch.device) -> None:
    net(torch.stack([frame.lq for frame in stream(num_frame, size, device)], dim=1))


def make(name: str, device: torch.device) -> nn.Module:
    torch.manual_seed(0)
    return {'HOFFR': HOFFR, 'BasicVSR': BasicVSR}[name]().eval().to(device)


def memory(name: str, num_frame: int, size: tuple[int, int], device: torch.device) -> int:
    """Return the bytes of the weights and a stream or clip; run this in a fresh process."""
    torch.set_num_threads(1)
    return_freed_memory()
    run = {'HOFFR': run_stream, 'BasicVSR': run_clip}[name]
    # Loads libraries; smaller frames would vanish at the coarsest level of BasicVSR's flow.
    run(make(name, device), 2, (64, 64), device)
    return memory_growth(lambda: run(make(name, device), num_frame, size, device), device)


def step_of_flow(net: HOFFR, size: tuple[int, int], device: torch.device) -> None:
    first, second = stream(2, size, device)
    with torch.no_grad():
        net.flow_net(second.lq, first.lq)


def compare_steps(size: tuple[int, int], num_turn: int, device: torch.device) -> None:
    hoffr, basicvsr = make('HOFFR', device), make('BasicVSR', device)
    calls = {
        'HOFFR': lambda: run_stream(hoffr, NUM_FRAMES, size, device),
        'of that, the flow network': lambda: [step_of_flow(hoffr, size, device) for _ in range(NUM_FRAMES)],
        f'BasicVSR, clip of {NUM_FRAMES}': lambda: run_clip(basicvsr, NUM_FRAMES, size, device)}
    times: dict[str, list[float]] = {name: [] for name in calls}
    for call in calls.values():
        call()
    for turn in range(num_turn):
        for name in calls if turn % 2 == 0 else reversed(calls):
            times[name].append(seconds(calls[name], device) / NUM_FRAMES)
    peaks = [in_new_process(memory, name, NUM_FRAMES, size, device) / MIB for name in ('HOFFR', 'BasicVSR')]
    memories = [f'{peaks[0]:,.0f}', '', f'{peaks[1]:,.0f}']
    parameters = [f'{sum(p.numel() for p in net.parameters()):,}' for net in (hoffr, hoffr.flow_net, basicvsr)]
    print('| | parameters | seconds of a frame | share of HOFFR | memory (MiB) |\n|---|---|---|---|---|')
    for (name, values), count, peak in zip(times.items(), parameters, memories, strict=True):
        share = statistics.median(value / whole for value, whole in zip(values, times['HOFFR'], strict=True))
        print(f'| {name} | {count} | {statistics.median(values):.3f} | {share:.2f} | {peak} |')


def compare_streams(size: tuple[int, int], device: torch.device) -> bool:
    """Whether a long stream takes as much memory as a short one."""
    peaks = {length: in_new_process(memory, 'HOFFR', length, size, device) for length in LENGTHS}
    for length, peak in peaks.items():
        print(f'stream of {length} frames: {peak / MIB:,.1f} MiB')
    short, long = peaks.values()
    print(f'ratio {long / short:.3f}')
    return abs(long / short - 1) <= TOLERANCE


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('what', choices=('step', 'stream'))
    parser.add_argument('--size', type=int, nargs=2, metavar=('HEIGHT', 'WIDTH'),
                        help='of LR frames (default: 180 320, for stream 64 112)')
    parser.add_argument('--turns', type=int, default=3, help='timed calls of each network (default: %(default)s)')
    add_device_option(parser)
    parser.add_argument('--check', action='store_true', help='fail where a long stream takes more memory')
    args = parser.parse_args()
    device, size = torch.device(args.device), tuple(args.size or {'step': (180, 320), 'stream': (64, 112)}[args.what])
    torch.set_num_threads(1)
    print(f'LR frames of {size[0]}x{size[1]}; {describe(device)}\n')
    if args.what == 'step':
        compare_steps(size, args.turns, device)
        return 0
    return int(not compare_streams(size, device) and args.check)


if __name__ == '__main__':
    sys.exit(main())
