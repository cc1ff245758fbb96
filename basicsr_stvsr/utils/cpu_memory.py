"""Configure how glibc allocates the memory of tensors on the CPU."""
import ctypes
import sys

# Constants of mallopt(3), from glibc's malloc.h
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_MMAP_MAX = -1, -3, -4
_KIB = 2**10


def keep_freed_memory() -> bool:
    """Let the process keep freed memory for later allocations.

    By default glibc maps every buffer above 32 MiB anew, and the kernel fills its pages with zeros at the first touch.
    This repeats in each training step and each test frame, which allocate the same tensors. With this setting, the
    process keeps its memory until it ends.

    Returns:
        whether it was set; only glibc supports it.
    """
    return _set((_M_MMAP_MAX, 0), (_M_TRIM_THRESHOLD, -1))


def return_freed_memory() -> bool:
    """Let the process return every buffer of 64 KiB and more to the system as soon as it is freed.

    By default glibc does so only at first. It then keeps larger and larger buffers in a heap, whose holes do not always
    fit the next allocation. The peak then reaches up to twice the memory in use, and varies between runs.

    Returns:
        whether it was set; only glibc supports it.
    """
    return _set((_M_MMAP_THRESHOLD, 64 * _KIB))


def _set(*values: tuple[int, int]) -> bool:
    if not sys.platform.startswith('linux'):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except AttributeError:  # such as musl
        return False
    return all(mallopt(parameter, value) for parameter, value in values)
