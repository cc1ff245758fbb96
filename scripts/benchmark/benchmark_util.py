"""What the benchmarks of networks share: peak memory and time of a step, and what is at hand to run them on."""
import argparse
import re
import resource
import sys
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch

MIB = 2**20


def synchronize(device: torch.device) -> None:
    if device.type == 'cuda':
        torch.cuda.synchronize(device)


def seconds(step: Callable[[], Any], device: torch.device) -> float:
    """Wall-clock seconds of one call."""
    synchronize(device)
    start = time.perf_counter()
    step()
    synchronize(device)
    return time.perf_counter() - start


def resident_peak() -> int:
    """Bytes of the largest resident set that this process has had."""
    if sys.platform == 'linux':  # where ru_maxrss starts at what the parent process held, which hides as much
        (peak,) = re.findall(r'VmHWM:\s+(\d+) kB', Path('/proc/self/status').read_text())
        return int(peak) * 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == 'darwin' else peak * 1024  # KiB everywhere but on macOS


def reset_peak() -> None:
    """Begins `resident_peak` anew, with what the process holds now; on Linux, which can."""
    if sys.platform == 'linux':
        Path('/proc/self/clear_refs').write_text('5')


def memory_growth(step: Callable[[], Any], device: torch.device) -> int:
    """Bytes by which one call raises the peak of this process over what it holds already.

    On a CPU it sees growth only: what the process has freed before, but not returned, hides as much. Hence
    `in_new_process`.
    """
    if device.type == 'cuda':
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        step()
        synchronize(device)
        return torch.cuda.max_memory_allocated(device) - before
    reset_peak()
    before = resident_peak()
    step()
    return resident_peak() - before


def in_new_process(function: Callable[..., Any], *args: Any) -> Any:
    """Result of a top-level function of a script, called in a fresh Python; all arguments must be picklable."""
    with ProcessPoolExecutor(1, mp_context=get_context('spawn')) as pool:
        return pool.submit(function, *args).result()


def add_device_option(parser: argparse.ArgumentParser) -> None:
    """`--device`: 'cpu' or 'cuda', by default the latter where there is one."""
    def named(device: str) -> str:
        return ('cuda' if torch.cuda.is_available() else 'cpu') if device == 'auto' else device

    parser.add_argument('--device', type=named, choices=('cpu', 'cuda'), metavar='{auto,cpu,cuda}', default='auto',
                        help='(default: %(default)s)')


def describe(device: torch.device) -> str:
    if device.type == 'cuda':
        return f'{torch.cuda.get_device_name(device)}, torch {torch.__version__}'
    threads = torch.get_num_threads()
    return f'CPU, {threads} thread{"s" if threads > 1 else ""}, torch {torch.__version__}'
