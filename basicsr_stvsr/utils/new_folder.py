"""Make the folder of a run, and keep an older one of the same name."""
import os
import time
from contextlib import suppress
from pathlib import Path


def make_new_folder(folder: Path) -> None:
    """Make an empty folder; an older one becomes `<folder>_archived_<time>`.

    BasicSR's `mkdir_and_rename` fails for two runs in one second, and lets two that start at once share the folder.

    Raises:
        FileExistsError: another process has made the folder in this moment.
        OSError: it cannot be made.
    """
    if os.path.lexists(folder):
        with suppress(FileNotFoundError):  # another process has just moved it
            print(f'{folder} exists, and is now {moved_away(folder)}', flush=True)
    folder.parent.mkdir(parents=True, exist_ok=True)
    try:
        folder.mkdir()
    except FileExistsError as error:
        raise FileExistsError(f'{folder} was made by another run in this moment: give each its own name') from error


def moved_away(folder: Path) -> Path:
    """Rename a folder to the first free name, and return that."""
    start = f'{folder.name}_archived_{time.strftime("%Y%m%d_%H%M%S")}'
    for number in range(1, 1000):
        target = folder.with_name(start if number == 1 else f'{start}_{number}')
        if not os.path.lexists(target):
            folder.rename(target)
            return target
    raise FileExistsError(f'{folder} cannot be renamed: {start} and many like it exist')
