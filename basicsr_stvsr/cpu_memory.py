"""How the C library of Linux deals with the memory of tensors on the CPU."""
import ctypes
import sys

# Of mallopt(3), in malloc.h of glibc
_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4


def keep_freed_memory() -> bool:
    """Lets the process keep what it frees for what it allocates next.

    By default glibc maps every buffer of more than 32 MiB afresh, and the kernel fills its pages with zeros at the
    first touch: again in each step of a training, and in each frame of a test, which make the same tensors. What the
    process has once taken, it then holds until it ends.

    Returns:
        whether it could be set: by glibc only.
    """
    if not sys.platform.startswith('linux'):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except AttributeError:  # such as musl's
        return False
    return bool(mallopt(_M_MMAP_MAX, 0) and mallopt(_M_TRIM_THRESHOLD, -1))
