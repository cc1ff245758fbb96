"""Compare time and memory of pixel-adaptive convolution, forward and backward, with the usual formulation by unfolding.

The usual formulation makes all shifted copies of guide and input at once (F.unfold) and leaves gradients to autograd.
The two take turns in one process. On a CPU, peak memory comes from a fresh process for each. One thread is the default,
because its ratio does not depend on other load. Our version runs many short operations, and with more threads, each of
them waits for the slowest.

    python scripts/benchmark/benchmark_pac.py
    python scripts/benchmark/benchmark_pac.py --check    # exit code 1 if more than 40 % of the memory, or slower
"""
import argparse
import statistics
import sys
from collections.abc import Callable

import torch
from benchmark_util import MIB, describe, in_new_process, memory_growth, seconds
from torch import Tensor
from torch.nn import functional as F

import basicsr_stvsr  # noqa: F401  (before anything of basicsr, which it patches)
from basicsr_stvsr.archs.pacnet_arch import pac_conv2d, pac_kernel

KERNEL_SIZE = 5
MEMORY_LIMIT = 0.4


def ours(x: Tensor, guide: Tensor, weight: Tensor) -> Tensor:
    return pac_conv2d(x, pac_kernel(guide, KERNEL_SIZE), weight)


def unfolded(x: Tensor, guide: Tensor, weight: Tensor) -> Tensor:
    b, c, h, w = x.shape

    def windows(image: Tensor) -> Tensor:  # (B, C, H, W) -> (B, C, k*k, H*W)
        return F.unfold(image, KERNEL_SIZE, padding=KERNEL_SIZE // 2).view(b, image.shape[1], -1, h * w)

    kernel = torch.exp(-0.5 * (windows(guide) - guide.view(b, -1, 1, h * w)).square().sum(1, keepdim=True))
    return (weight.flatten(1) @ (windows(x) * kernel).flatten(1, 2)).view(b, -1, h, w)


FORMULATIONS: dict[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = {'unfold': unfolded, 'ours': ours}


def step(name: str, channels: int, guide_channels: int, height: int, width: int, device: torch.device) -> list[Tensor]:
    """Run one forward and backward pass and return the gradients; all formulations get the same random values."""
    generator = torch.Generator(device).manual_seed(0)

    def values(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, device=device).requires_grad_()

    x, guide = values(1, channels, height, width), values(1, guide_channels, height, width)
    weight = values(channels, channels, KERNEL_SIZE, KERNEL_SIZE)
    out = FORMULATIONS[name](x, 0.3 * guide, weight)
    return list(torch.autograd.grad(out.square().mean(), (x, guide, weight)))


def peak(name: str, sizes: list[int], device_name: str, num_thread: int) -> int:
    torch.set_num_threads(num_thread)
    device = torch.device(device_name)
    step(name, 4, 4, 16, 16, device)  # exclude what PyTorch loads at the first call
    return memory_growth(lambda: step(name, *sizes, device), device)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--channels', type=int, default=64, help='channels in and out (default: %(default)s)')
    parser.add_argument('--guide-channels', type=int, default=16, help='(default: %(default)s)')
    parser.add_argument('--size', type=int, default=256, help='height and width (default: %(default)s)')
    parser.add_argument('--pairs', type=int, default=5, help='alternated pairs of runs (default: %(default)s)')
    parser.add_argument('--device', default='cpu', help='(default: %(default)s)')
    parser.add_argument('--check', action='store_true', help='fail unless at most 40 %% of the memory and no slower')
    parser.add_argument('--threads', type=int, default=1, help='of a CPU (default: %(default)s)')
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    device = torch.device(args.device)
    sizes = [args.channels, args.guide_channels, args.size, args.size]

    peaks = {name: in_new_process(peak, name, sizes, args.device, args.threads) for name in FORMULATIONS}

    gradients = {name: step(name, *sizes, device) for name in FORMULATIONS}  # also warms up
    for actual, expected in zip(gradients['ours'], gradients['unfold'], strict=True):
        torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-5 * expected.abs().max().item())
    del gradients, actual, expected
    times: dict[str, list[float]] = {name: [] for name in FORMULATIONS}
    for pair in range(args.pairs):
        for name in FORMULATIONS if pair % 2 == 0 else reversed(FORMULATIONS):
            times[name].append(seconds(lambda name=name: step(name, *sizes, device), device))

    memory_ratio = peaks['ours'] / peaks['unfold']
    ratios = [mine / theirs for mine, theirs in zip(times['ours'], times['unfold'], strict=True)]
    time_ratio = statistics.median(ratios)
    print(f'forward + backward, {KERNEL_SIZE}x{KERNEL_SIZE}, {args.channels} channels, guide {args.guide_channels}, '
          f'{args.size}x{args.size}, float32; {describe(device)}')
    for name in FORMULATIONS:
        print(f'{name + ":":8}{peaks[name] / MIB:8.0f} MiB {statistics.median(times[name]):8.3f} s')
    print(f'ours / unfold: memory {memory_ratio:.2f}, time {time_ratio:.2f} (median of {args.pairs} pairs, '
          f'{min(ratios):.2f} to {max(ratios):.2f})')
    if args.check and (memory_ratio > MEMORY_LIMIT or time_ratio > 1):
        print(f'FAILED: at most {MEMORY_LIMIT:.2f} of the memory and 1.00 of the time are allowed', file=sys.stderr)
        return 1
    return 0


if __name__ == '__main__':
    sys.exit(main())
