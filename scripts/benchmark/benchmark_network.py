"""Measure the cost per output frame of the five systems, their small presets, and BasicSR's EDVR-M and BasicVSR.

Each network runs inference in a fresh process on a clip of random frames. It uses the path of `stvsr restore`: windows,
shared features, memory layout and autocast. The small networks are those of `options/train_*_small.yml`.
Multiplications are those of convolutions and matrix products. The last column compares the throughput of a network with
that of the best convolution in the same precision, measured before and after. Prints a Markdown table, or with `--json`
a line that `compare_revisions.py` reads.

    python scripts/benchmark/benchmark_network.py
    python scripts/benchmark/benchmark_network.py --networks FSTRN 'FSTRN small' --dtype bfloat16
    python scripts/benchmark/benchmark_network.py --device cuda --size 180x320 --dtype bfloat16
    python scripts/benchmark/compare_revisions.py v1 . --json 'seconds.FSTRN small' -- \\
        python scripts/benchmark/benchmark_network.py --json --networks 'FSTRN small' --dtype default
"""
import argparse
import importlib
import json
import logging
from collections.abc import Callable
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import Any, NamedTuple

import torch
from benchmark_util import MIB, describe, in_new_process, memory_growth, resolve, seconds
from torch import nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

import basicsr_stvsr  # noqa: F401  (before anything of basicsr, which it patches)

# isort: split
from basicsr.utils import get_root_logger
from basicsr.utils.registry import ARCH_REGISTRY

from basicsr_stvsr.archs.arch_util import to_channels_last
from basicsr_stvsr.archs.mbnet_arch import MBNET_PRESETS

# Also where earlier revisions have them, which compare_revisions.py may run
load_options = resolve('basicsr_stvsr.config.loading:load_options', 'basicsr_stvsr.options:load_options')
Tiles = resolve('basicsr_stvsr.inference.tiles:Tiles', 'basicsr_stvsr.inference:Tiles')
StreamFrame = resolve('basicsr_stvsr.inference.windows:StreamFrame', 'basicsr_stvsr.inference:StreamFrame')
restore_stream = resolve('basicsr_stvsr.inference.windows:restore_stream', 'basicsr_stvsr.inference:restore_stream')
keep_freed_memory = resolve('basicsr_stvsr.utils.cpu_memory:keep_freed_memory',
                            'basicsr_stvsr.cpu_memory:keep_freed_memory')
load_network = resolve('basicsr_stvsr.zoo.table:load_network', 'basicsr_stvsr.zoo:load_network')

DTYPES = {'float32': None, 'bfloat16': torch.bfloat16, 'float16': torch.float16}  # of autocast
LAYOUTS = ('default', 'contiguous', 'channels_last')
OPTIONS = Path('options')
# BasicSR networks, which have no `spec`: arguments, frames per call (None: the whole clip)
OTHERS: dict[str, tuple[dict[str, Any], int | None]] = {
    'EDVR-M': ({'type': 'EDVR', 'num_feat': 64, 'num_frame': 5, 'num_reconstruct_block': 10}, 5),
    'BasicVSR': ({'type': 'BasicVSR', 'num_feat': 64, 'num_block': 30}, None),
}
# Name -> option file, or `network_g`
NETWORKS: dict[str, str | dict[str, Any]] = {
    **{f'MBNet {preset}': {'type': 'MBNet', **MBNET_PRESETS[preset]} for preset in ('headline', 'baseline')},
    'MBNet small': 'train_mbnet_small.yml',
    'FSTRN': 'train_fstrn.yml', 'FSTRN small': 'train_fstrn_small.yml',
    'HOFFR': 'train_hoffr_reds.yml', 'HOFFR small': 'train_hoffr_small.yml',
    'FISR': 'train_fisr.yml', 'FISR small': 'train_fisr_small.yml',
    'VSRResNet': 'train_vsrresnet_x4.yml', 'VSRResNet small': 'train_vsrresnet_small.yml',
    **{name: network for name, (network, _) in OTHERS.items()},
}


class Setting(NamedTuple):
    height: int
    width: int
    num_frame: int
    num_run: int
    num_thread: int
    device: str
    dtype: str
    layout: str


class Cost(NamedTuple):
    """Cost of a network; all but the first two are per output frame."""

    parameters: int
    memory: int  # bytes, weights and one clip
    seconds: float
    flops: float  # a multiplication and an addition count as two


def network_of(name: str) -> dict[str, Any]:
    """Return `network_g` of a row."""
    network = NETWORKS[name]
    return dict(load_options(str(OPTIONS / network))['network_g'] if isinstance(network, str) else network)


def deform_conv_flops(x_shape, weight_shape, *args, out_shape=None, **kwargs) -> int:
    """Return the FLOPs of the matrix product in EDVR's deformable convolutions, without sampling (as for warps)."""
    o, c, kh, kw = weight_shape
    return 2 * out_shape[0] * o * out_shape[2] * out_shape[3] * c * kh * kw


def pac_conv_flops(x_shape, kernel_shape, weight_shape, *args, out_shape=None, **kwargs) -> int:
    """Return the FLOPs of the matrix products in pixel-adaptive convolution; its kernel is not counted."""
    b, c, h, w = x_shape
    o, _, kh, kw = weight_shape
    return 2 * b * h * w * c * o * kh * kw  # every input pixel meets every tap once, for any stride


def flop_counter() -> FlopCounterMode:
    formulas = {torch.ops.basicsr_stvsr.pac_conv: pac_conv_flops}
    # Without its compiled operators, torchvision has no deformable convolution, and EDVR does not run.
    if hasattr(torch.ops.torchvision, 'deform_conv2d'):
        formulas[torch.ops.torchvision.deform_conv2d] = deform_conv_flops
    return FlopCounterMode(display=False, custom_mapping=formulas)


def build(name: str, setting: Setting) -> nn.Module:
    network = network_of(name)
    if name in OTHERS:
        net = ARCH_REGISTRY.get(network.pop('type'))(**network).to(setting.device).eval()
    else:
        net = load_network(network, None, setting.device)  # with the memory layout used for restoring
    if setting.layout == 'contiguous':
        for parameter in net.parameters():
            parameter.data = parameter.data.contiguous()
    return to_channels_last(net) if setting.layout == 'channels_last' else net


def dtype_of(net: nn.Module, setting: Setting) -> torch.dtype | None:
    """Return the dtype of convolutions; 'default': that of `stvsr restore`."""
    if setting.dtype != 'default':
        return DTYPES[setting.dtype]
    for name in ('basicsr_stvsr.inference.precision', 'basicsr_stvsr.precision'):
        with suppress(ImportError):  # older revisions, which compare_revisions.py may run, compute in float32
            precision = importlib.import_module(name)
            return precision.PRECISIONS[precision.fastest_precision(net, [setting.device])]
    return None


def make_call(name: str, net: nn.Module, setting: Setting) -> Callable[[], int]:
    """Return a function that restores a clip and returns the number of output frames."""
    device, dtype = torch.device(setting.device), dtype_of(net, setting)
    if name in OTHERS:
        clip = torch.rand(1, OTHERS[name][1] or setting.num_frame, 3, setting.height, setting.width, device=device)

        def call() -> int:
            with torch.autocast(device.type, dtype) if dtype else nullcontext():
                return net(clip).shape[1] if OTHERS[name][1] is None else len(net(clip))

        return call

    channels = 1 if getattr(net, 'spec', net).color == 'y' else 3
    frames = [torch.rand(1, channels, setting.height, setting.width, device=device) for _ in range(setting.num_frame)]
    flow = torch.zeros(1, 2, 2, setting.height, setting.width, device=device)
    given = [StreamFrame(frame, flow if number and getattr(getattr(net, 'spec', net), 'needs_flow', False) else None)
             for number, frame in enumerate(frames)]
    return lambda: sum(1 for _ in restore_stream(Tiles(net, dtype=dtype), given, complete=True))


@torch.no_grad()
def measure(name: str, setting: Setting) -> Cost | str:
    """Return the cost per output frame, or a message if the network cannot run."""
    torch.set_num_threads(setting.num_thread)
    get_root_logger(log_level=logging.WARNING)
    device = torch.device(setting.device)
    F.conv2d(torch.rand(1, 8, 16, 16, device=device), torch.rand(8, 8, 3, 3, device=device))  # loads libraries
    nets: list[nn.Module] = []
    counter = flop_counter()

    def first_call() -> int:
        nets.append(build(name, setting))
        with counter:
            return make_call(name, nets[0], setting)()

    outputs: list[int] = []
    try:
        memory = memory_growth(lambda: outputs.append(first_call()), device)
    except (ImportError, NameError, NotImplementedError, RuntimeError) as error:
        if name not in OTHERS:
            raise
        # The first sentence says what is missing, here or in torchvision.
        return f'{type(error).__name__}: {error}'.splitlines()[0].split('. ')[0]
    if device.type == 'cpu':
        keep_freed_memory()  # as restoring does
    call = make_call(name, nets[0], setting)
    call()
    best = min(seconds(call, device) for _ in range(setting.num_run))
    parameters = sum(p.numel() for p in nets[0].parameters())
    return Cost(parameters, memory, best / outputs[0], counter.get_total_flops() / outputs[0])


@torch.no_grad()
def best_convolution(setting: Setting) -> float:
    """Return the FLOP/s of the fastest convolution typical of such networks."""
    torch.set_num_threads(setting.num_thread)
    device, dtype = torch.device(setting.device), DTYPES.get(setting.dtype) or torch.float32
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


def row(name: str, cost: Cost | str, peak_flops: float) -> str:
    if isinstance(cost, str):
        return f'| {name} | cannot run here: {cost} | | | | | |'
    achieved = cost.flops / cost.seconds
    return (f'| {name} | {cost.parameters / 1e6:.2f} | {cost.seconds:.3f} | {cost.memory / MIB:.0f} '
            f'| {cost.flops / 2e9:.1f} | {achieved / 1e9:.0f} | {achieved / peak_flops:.0%} |')


def size(text: str) -> tuple[int, int]:
    height, _, width = text.partition('x')
    if not (height.isdecimal() and width.isdecimal()) or int(height) % 4 or int(width) % 4:
        raise argparse.ArgumentTypeError(f'expected HEIGHTxWIDTH, both divisible by 4, got {text!r}')
    return int(height), int(width)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--size', type=size, default=(64, 64), help='of the LR frames (default: 64x64)')
    parser.add_argument('--frames', type=int, default=5, help='LR frames of the clip (default: %(default)s)')
    parser.add_argument('--runs', type=int, default=2, help='timed runs; the best counts (default: %(default)s)')
    parser.add_argument('--networks', nargs='+', choices=NETWORKS, default=list(NETWORKS), metavar='NAME',
                        help=f'of {", ".join(NETWORKS)} (default: all)')
    parser.add_argument('--device', default='cpu', help='(default: %(default)s)')
    parser.add_argument('--dtype', choices=('default', *DTYPES), default='float32',
                        help='of convolutions; default: what `stvsr restore` chooses (default: %(default)s)')
    parser.add_argument('--layout', choices=LAYOUTS, default='default',
                        help='of weights; default: that of `stvsr restore` (default: %(default)s)')
    parser.add_argument('--threads', type=int, default=torch.get_num_threads(), help='of a CPU (default: %(default)s)')
    parser.add_argument('--json', action='store_true',
                        help='print one JSON object with seconds per output frame, and measure no best convolution')
    args = parser.parse_args()
    if args.frames < 3:
        parser.error(f'--frames must be at least 3, but got {args.frames}')
    setting = Setting(*args.size, args.frames, args.runs, args.threads, args.device, args.dtype, args.layout)
    torch.set_num_threads(args.threads)

    # In separate processes, so that memory is measured from the same start for all.
    peak_flops = 0 if args.json else in_new_process(best_convolution, setting)
    costs = {name: in_new_process(measure, name, setting) for name in args.networks}
    if args.json:
        print(json.dumps({'seconds': {name: cost.seconds for name, cost in costs.items() if isinstance(cost, Cost)}}))
        return
    peak_flops = max(peak_flops, in_new_process(best_convolution, setting))

    height, width = args.size
    print(f'Clip of {args.frames} LR frames of {height}x{width}, {args.dtype}, layout {args.layout}, batch 1; '
          f'{describe(torch.device(args.device))}; best convolution {peak_flops / 1e9:.0f} GFLOP/s.')
    print('Half of what MBNet and FISR put out are frames between the given ones; the other networks make none.\n')
    print('| network | parameters (M) | s / output frame | peak memory (MiB) | GMACs / output frame | GFLOP/s '
          '| of the best convolution |')
    print('|---|---|---|---|---|---|---|')
    for name, cost in costs.items():
        print(row(name, cost, peak_flops))


if __name__ == '__main__':
    main()
