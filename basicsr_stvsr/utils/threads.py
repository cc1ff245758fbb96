"""How threads share the cores of a machine with other processes. Imports nothing that takes long."""
import os
import sys

# Turns of the loop in which an OpenMP thread waits for more work before it goes to sleep. By default libgomp turns
# 300,000 times. If another process then takes the core of one thread, all others burn their cores until it is back, at
# each of the thousands of parallel loops of a network: 4 to 12 times slower. With 3,000 turns an idle machine is as
# fast as before. See scripts/benchmark/benchmark_busy.py.
SPIN_COUNT = 3000


def limit_spinning() -> None:
    """Make waiting OpenMP threads sleep early, in this process and those that it starts.

    Does nothing where it would have no effect, as torch has loaded libgomp, which reads the environment once; or where
    the environment says how threads wait (GOMP_SPINCOUNT or OMP_WAIT_POLICY).
    """
    if 'torch' not in sys.modules and not {'GOMP_SPINCOUNT', 'OMP_WAIT_POLICY'} & os.environ.keys():
        os.environ['GOMP_SPINCOUNT'] = str(SPIN_COUNT)


def limit_opencv_in_workers() -> None:
    """In a DataLoader worker, keep OpenCV to one thread, as torch is there."""
    import cv2
    from torch.utils.data import get_worker_info

    if get_worker_info() is not None:
        # 0, not 1: in a forked process 1 would end threads that are there in its parent only, and crash.
        cv2.setNumThreads(0)


def available_cores() -> int:
    """How many cores this process may use: fewer than the machine has under taskset, Slurm or cpusets."""
    if hasattr(os, 'sched_getaffinity'):  # not on macOS and Windows
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
