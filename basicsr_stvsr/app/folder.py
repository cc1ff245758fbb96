"""The temporary folder of an app. A killed app leaves it behind, so the next app removes it."""
import os
import shutil
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory, gettempdir

from ..utils.file_lock import is_free, locked

PREFIX = 'stvsr-app-'
LOCK = 'lock'
YOUNGEST = 60  # seconds; a folder may be younger than its lock


@contextmanager
def own_folder() -> Iterator[Path]:
    """Remove the folders of killed apps, make a new one, and remove it at the end."""
    remove_abandoned(Path(gettempdir()))
    with TemporaryDirectory(prefix=PREFIX, ignore_cleanup_errors=True) as name:
        folder = Path(name)
        with locked(folder / LOCK, OSError(f'{folder} is locked by another process')):
            yield folder


def remove_abandoned(root: Path) -> None:
    """Remove folders of apps that have ended; a running app holds the lock in its folder."""
    for folder in root.glob(f'{PREFIX}*'):
        if _is_ours(folder) and time.time() - folder.stat().st_mtime > YOUNGEST and is_free(folder / LOCK):
            shutil.rmtree(folder, ignore_errors=True)


def _is_ours(folder: Path) -> bool:
    """Return whether this user made the folder. Others may put links of such names in the root."""
    found = folder.lstat()
    return stat.S_ISDIR(found.st_mode) and (os.name == 'nt' or found.st_uid == os.getuid())
