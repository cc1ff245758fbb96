"""A lock shared by several processes."""
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]  # not a module


class FileLock:
    """An exclusive lock on a dedicated file. `release` removes the file; the lock also ends with its process."""

    def __init__(self, path: Path):
        self.path = path

    def acquire(self) -> bool:
        """Try to take the lock, and return whether it succeeded; always True on systems without such locks."""
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
            # A previous owner may have removed the file after it was opened here; the next process would lock another
            # file.
            if os.fstat(self._descriptor).st_nlink:
                return True
            os.close(self._descriptor)

    def release(self) -> None:
        if fcntl is not None:
            self.path.unlink(missing_ok=True)
            os.close(self._descriptor)


@contextmanager
def locked(path: Path, error: Exception) -> Iterator[None]:
    """Hold a `FileLock` during the block; raise `error` if another process holds it."""
    lock = FileLock(path)
    if not lock.acquire():
        raise error
    try:
        yield
    finally:
        lock.release()


def is_free(path: Path) -> bool:
    """Return whether a lock file exists and no process holds its lock; False on systems without such locks."""
    if fcntl is None:
        return False
    with suppress(OSError), path.open('rb') as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return True
    return False
