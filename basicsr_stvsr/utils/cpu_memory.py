"""How the C library of Linux deals with the memory of tensors on the CPU."""
import ctypes
import sys

# Of mallopt(3), in malloc.h of glibc
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_MMAP_MAX = -1, -3, -4
_KIB = 2**10


def keep_freed_memory() -> bool:
    """Lets the process keep what it frees for what it allocates next.

    By default glibc maps every buffer of more than 32 MiB afresh, and the kernel fills its pages with zeros at the
    first touch: again in each step of a training, and in each frame of a test, which make the same tensors. What the
    process has once taken, it then holds until it ends.

    Returns:
        whether it could be set: by glibc only.
    """
    return _set((_M_MMAP_MAX, 0), (_M_TRIM_THRESHOLD, -1))


def return_freed_memory() -> bool:
    """Lets the process return every buffer of 64 KiB and more to the system as soon as it frees it.

    By default glibc does so at first, and keeps larger and larger ones the more it has freed, in a heap whose holes
    do not always fit what is allocated next: the peak is then up to twice what is held at once, and another each time.

    Returns:
        whether it could be set: by glibc only.
    """
    return _set((_M_MMAP_THRESHOLD, 64 * _KIB))


def _set(*values: tuple[int, int]) -> bool:
    if not sys.platform.startswith('linux'):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except AttributeError:  # such as musl's
        return False
    return all(mallopt(parameter, value) for parameter, value in values)
