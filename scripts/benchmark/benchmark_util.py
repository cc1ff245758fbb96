"""Shared parts of the network benchmarks: peak memory and time of a step, and device selection."""
import argparse
import contextlib
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
    """Return the wall-clock seconds of one call."""
    synchronize(device)
    start = time.perf_counter()
    step()
    synchronize(device)
    return time.perf_counter() - start


def resident_peak() -> int:
    """Return the largest resident set of this process so far, in bytes."""
    if sys.platform == 'linux':  # ru_maxrss starts at the parent's resident set there, which hides as much growth
        (peak,) = re.findall(r'VmHWM:\s+(\d+) kB', Path('/proc/self/status').read_text())
        return int(peak) * 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == 'darwin' else peak * 1024  # KiB everywhere except on macOS


def reset_peak() -> None:
    """Reset `resident_peak` to the current resident set; works only on Linux."""
    if sys.platform == 'linux':
        Path('/proc/self/clear_refs').write_text('5')


def memory_growth(step: Callable[[], Any], device: torch.device) -> int:
    """Return the bytes by which one call raises the peak of this process over its current memory.

    On a CPU, memory that was freed but not returned to the system hides as much growth. Hence use `in_new_process`.
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
    """Call a top-level function of a script in a fresh Python, and return its result; arguments must be picklable."""
    with ProcessPoolExecutor(1, mp_context=get_context('spawn')) as pool:
        return pool.submit(function, *args).result()


def add_device_option(parser: argparse.ArgumentParser) -> None:
    """Add `--device`: 'cpu' or 'cuda'; default: 'cuda' if available."""
    def named(device: str) -> str:
        return ('cuda' if torch.cuda.is_available() else 'cpu') if device == 'auto' else device

    parser.add_argument('--device', type=named, choices=('cpu', 'cuda'), metavar='{auto,cpu,cuda}', default='auto',
                        help='(default: %(default)s)')


def describe(device: torch.device) -> str:
    if device.type == 'cuda':
        return f'{torch.cuda.get_device_name(device)}, torch {torch.__version__}'
    threads = torch.get_num_threads()
    return f'CPU, {threads} thread{"s" if threads > 1 else ""}, torch {torch.__version__}'


def resolve(*names: str) -> Any:
    """Return the first of these objects, given as `package.module:name`, that the revision has."""
    for name in names:
        module, _, attribute = name.partition(':')
        with contextlib.suppress(ImportError, AttributeError):
            return getattr(__import__(module, fromlist=[attribute]), attribute)
    raise SystemExit(f'none of {", ".join(names)} exists in this revision')
