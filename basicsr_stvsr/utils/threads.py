"""Share the cores of a machine with other processes. Importing this module is fast."""
import contextlib
import os
import sys
from collections.abc import Iterator

# Turns of the loop in which an OpenMP thread waits for work before it sleeps. libgomp defaults to 300,000. If another
# process takes the core of one thread, all other threads then burn their cores until it is back. This happens at each
# of a network's thousands of parallel loops, and makes it 4 to 12 times slower. With 3,000 turns, an idle machine is as
# fast as before. See scripts/benchmark/benchmark_busy.py.
SPIN_COUNT = 3000


def limit_spinning() -> None:
    """Make waiting OpenMP threads sleep early, in this process and its children.

    Does nothing after torch has loaded libgomp, which reads the environment only once. Also does nothing if the
    environment already sets how threads wait (GOMP_SPINCOUNT or OMP_WAIT_POLICY).
    """
    if 'torch' not in sys.modules and not {'GOMP_SPINCOUNT', 'OMP_WAIT_POLICY'} & os.environ.keys():
        os.environ['GOMP_SPINCOUNT'] = str(SPIN_COUNT)


def limit_opencv_in_workers() -> None:
    """In a DataLoader worker, limit OpenCV to one thread, as PyTorch limits itself."""
    import cv2
    from torch.utils.data import get_worker_info

    if get_worker_info() is not None:
        # 0, not 1: in a forked process, 1 would end threads that exist only in its parent, and crash.
        cv2.setNumThreads(0)


def available_cores() -> int:
    """Return how many cores this process may use; taskset, Slurm and cpusets can reduce them."""
    if hasattr(os, 'sched_getaffinity'):  # not on macOS and Windows
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@contextlib.contextmanager
def same_priority() -> Iterator[None]:
    """Give all threads of this process the priority that the caller had before the block.

    SVT-AV1 gives its threads, and the one that opens the encoder, the highest real-time priority if it runs as root.
    They and their child processes would then keep all other programs from running, for hours if one of them spins.
    """
    if sys.platform != 'linux':
        yield
        return
    policy, parameters = os.sched_getscheduler(0), os.sched_getparam(0)
    try:
        yield
    finally:
        for thread in map(int, os.listdir('/proc/self/task')):
            with contextlib.suppress(OSError):  # a thread that has ended
                if os.sched_getscheduler(thread) != policy:
                    os.sched_setscheduler(thread, policy, parameters)
