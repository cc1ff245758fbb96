"""A lock that several processes share."""
import os
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None


class FileLock:
    """An exclusive lock on a file of its own, which `release` removes; the lock also ends with its process."""

    def __init__(self, path: Path):
        self.path = path

    def acquire(self) -> bool:
        """Whether the lock is free, and ours now; always True on systems that have no such locks."""
        if fcntl is None:
            return True
        while True:
            self._descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT)
            try:
                fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(self._descriptor)
                return False
            except OSError:  # some network file systems
                return True
            # Its last owner may have removed it after it was opened here, and then the next run locks another file.
            if os.fstat(self._descriptor).st_nlink:
                return True
            os.close(self._descriptor)

    def release(self) -> None:
        if fcntl is not None:
            self.path.unlink(missing_ok=True)
            os.close(self._descriptor)
