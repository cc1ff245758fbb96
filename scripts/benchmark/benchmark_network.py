"""Cost of one output frame: MBNet's presets beside BasicSR's EDVR-M and BasicVSR, all x4.

Prints a Markdown table. Each network runs in a fresh process, in inference, on a clip of random frames; multiplications
are counted on its convolutions and matrix products. The last column compares what it achieves with the best convolution
of the same run, which is measured before and after.

    python scripts/benchmark/benchmark_network.py
    python scripts/benchmark/benchmark_network.py --device cuda --size 180x320 --dtype bfloat16
"""
import argparse
from collections.abc import Callable
from typing import NamedTuple

import torch
from benchmark_util import MIB, describe, in_new_process, memory_growth, seconds
from torch import nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

import basicsr_stvsr  # noqa: F401  (before anything of basicsr, which it patches)

# isort: split
from basicsr.utils.registry import ARCH_REGISTRY

from basicsr_stvsr.archs.mbnet_arch import MBNET_PRESETS

DTYPES = {'float32': torch.float32, 'bfloat16': torch.bfloat16, 'float16': torch.float16}


class Network(NamedTuple):
    """How a network is built, and how it goes through a clip of n frames."""

    arch: str
    options: dict
    window: int | None  # frames of one call; None: the whole clip
    num_calls: Callable[[int], int]
    num_outputs: Callable[[int], int]


NETWORKS = {
    **{f'MBNet {preset}': Network('MBNet', options, 2, lambda n: n - 1, lambda n: 2 * n - 1)
       for preset, options in MBNET_PRESETS.items()},
    'EDVR-M': Network('EDVR', dict(num_feat=64, num_frame=5, num_reconstruct_block=10), 5, lambda n: n, lambda n: n),
    'BasicVSR': Network('BasicVSR', dict(num_feat=64, num_block=30), None, lambda n: 1, lambda n: n),
}


class Setting(NamedTuple):
    height: int
    width: int
    num_frame: int
    num_run: int
    num_thread: int
    device: str
    dtype: str


class Cost(NamedTuple):
    parameters: int
    seconds: float  # of one call
    memory: int  # bytes, weights and one call
    flops: float  # of one call, two for a multiplication and an addition


def deform_conv_flops(x_shape, weight_shape, *args, out_shape=None, **kwargs) -> int:
    """The matrix product of EDVR's deformable convolutions; the sampling is not counted, as for other warps."""
    o, c, kh, kw = weight_shape
    return 2 * out_shape[0] * o * out_shape[2] * out_shape[3] * c * kh * kw


def pac_conv_flops(x_shape, kernel_shape, weight_shape, *args, out_shape=None, **kwargs) -> int:
    """The matrix products of pixel-adaptive convolution; its kernel is no convolution, and not counted."""
    b, c, h, w = x_shape
    o, _, kh, kw = weight_shape
    return 2 * b * h * w * c * o * kh * kw  # every pixel that comes in meets every tap once, whatever the stride


def flop_counter() -> FlopCounterMode:
    formulas = {torch.ops.basicsr_stvsr.pac_conv: pac_conv_flops}
    # Without its compiled operators, torchvision has no deformable convolution (and EDVR does not run).
    if hasattr(torch.ops.torchvision, 'deform_conv2d'):
        formulas[torch.ops.torchvision.deform_conv2d] = deform_conv_flops
    return FlopCounterMode(display=False, custom_mapping=formulas)


@torch.no_grad()
def measure(name: str, setting: Setting) -> Cost | str:
    """Cost of one call, or why it cannot be had."""
    torch.set_num_threads(setting.num_thread)
    network, device, dtype = NETWORKS[name], torch.device(setting.device), DTYPES[setting.dtype]
    F.conv2d(torch.rand(1, 8, 16, 16, device=device, dtype=dtype), torch.rand(8, 8, 3, 3, device=device, dtype=dtype))
    clip = torch.rand(
        1, network.window or setting.num_frame, 3, setting.height, setting.width, device=device, dtype=dtype)
    nets: list[nn.Module] = []
    counter = flop_counter()

    def first_call() -> None:
        nets.append(ARCH_REGISTRY.get(network.arch)(**network.options).to(device, dtype).eval())
        with counter:
            nets[0](clip)

    try:
        memory = memory_growth(first_call, device)
    except (ImportError, NameError, NotImplementedError, RuntimeError) as error:
        if network.arch == 'MBNet':
            raise
        # The first sentence tells what is missing, here or in torchvision.
        return f'{type(error).__name__}: {error}'.splitlines()[0].split('. ')[0]
    parameters = sum(p.numel() for p in nets[0].parameters())
    best = min(seconds(lambda: nets[0](clip), device) for _ in range(setting.num_run))
    return Cost(parameters, best, memory, counter.get_total_flops())


@torch.no_grad()
def best_convolution(setting: Setting) -> float:
    """FLOP/s of the fastest of the convolutions that such networks are made of."""
    torch.set_num_threads(setting.num_thread)
    device, dtype = torch.device(setting.device), DTYPES[setting.dtype]
    best = 0.0
    for c, o, k, factor in ((64, 64, 3, 1), (64, 64, 3, 4), (64, 256, 3, 2), (256, 256, 3, 1), (576, 64, 1, 1)):
        for memory_format in (torch.contiguous_format, torch.channels_last):
            x = torch.rand(1, c, factor * setting.height, factor * setting.width, device=device, dtype=dtype)
            conv = nn.Conv2d(c, o, k, padding=k // 2).to(device, dtype, memory_format=memory_format)
            x = x.contiguous(memory_format=memory_format)
            conv(x)
            flops = 2 * c * o * k * k * x.shape[2] * x.shape[3]
            best = max(best, flops / min(seconds(lambda x=x, conv=conv: conv(x), device) for _ in range(5)))
    return best


def row(name: str, cost: Cost | str, peak_flops: float, num_frame: int) -> str:
    if isinstance(cost, str):
        return f'| {name} | cannot run here: {cost} | | | | | |'
    network = NETWORKS[name]
    share = network.num_calls(num_frame) / network.num_outputs(num_frame)  # of a call, for each output frame
    achieved = cost.flops / cost.seconds
    return (f'| {name} | {cost.parameters / 1e6:.2f} | {share * cost.seconds:.3f} | {cost.memory / MIB:.0f} '
            f'| {share * cost.flops / 2e9:.1f} | {achieved / 1e9:.0f} | {achieved / peak_flops:.0%} |')


def size(text: str) -> tuple[int, int]:
    height, _, width = text.partition('x')
    if not (height.isdecimal() and width.isdecimal()) or int(height) % 4 or int(width) % 4:
        raise argparse.ArgumentTypeError(f'expected HEIGHTxWIDTH, both divisible by 4, got {text!r}')
    return int(height), int(width)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--size', type=size, default=(64, 112), help='of the LR frames (default: 64x112)')
    parser.add_argument('--frames', type=int, default=5, help='LR frames of the clip (default: %(default)s)')
    parser.add_argument('--runs', type=int, default=2, help='timed calls; the best counts (default: %(default)s)')
    parser.add_argument('--networks', nargs='+', choices=NETWORKS, default=list(NETWORKS), metavar='NAME',
                        help=f'of {", ".join(NETWORKS)} (default: all)')
    parser.add_argument('--device', default='cpu', help='(default: %(default)s)')
    parser.add_argument('--dtype', choices=DTYPES, default='float32', help='(default: %(default)s)')
    parser.add_argument('--threads', type=int, default=torch.get_num_threads(), help='of a CPU (default: %(default)s)')
    args = parser.parse_args()
    if args.frames < 2:
        parser.error(f'--frames must be at least 2, but got {args.frames}')
    setting = Setting(*args.size, args.frames, args.runs, args.threads, args.device, args.dtype)
    torch.set_num_threads(args.threads)

    # In processes of their own, so that memory is counted from the same start for all.
    peak_flops = in_new_process(best_convolution, setting)
    costs = {name: in_new_process(measure, name, setting) for name in args.networks}
    peak_flops = max(peak_flops, in_new_process(best_convolution, setting))

    print(f'Clip of {args.frames} LR frames of {args.size[0]}x{args.size[1]}, {args.dtype}, batch 1; '
          f'{describe(torch.device(args.device))}; best convolution {peak_flops / 1e9:.0f} GFLOP/s.')
    print('Half of what MBNet puts out are frames between the given ones; the other networks make none.\n')
    print('| network | parameters (M) | s / output frame | peak memory (MiB) | GMACs / output frame | GFLOP/s '
          '| of the best convolution |')
    print('|---|---|---|---|---|---|---|')
    for name, cost in costs.items():
        print(row(name, cost, peak_flops, args.frames))


if __name__ == '__main__':
    main()
