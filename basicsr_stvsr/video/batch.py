"""Many videos into one folder, shared by all processes of a job of torchrun, on one node or several."""
import os
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType

from ..io.containers import CONTAINERS
from ..io.video_info import VideoError

_POLL = 1  # seconds


def outputs_of(inputs: Sequence[Path], folder: Path, *, codec: str | None = None, suffix: str | None = None) -> (
        list[Path]):
    """Where each of several videos goes: by its own name, into one folder.

    Args:
        inputs: video files, or folders of images.
        folder: where they go.
        codec: of the outputs; 'png' makes a folder of each. Default: a file of a file, a folder of a folder.
        suffix: of files; default: that of the input, or where that is none that can be written, '.mkv'.

    Raises:
        VideoError: two outputs would have the same name, or one would be its input.
        ValueError: a suffix that is none of a video file.
    """
    if suffix and suffix.lower() not in CONTAINERS:
        raise ValueError(f'expected one of {", ".join(CONTAINERS)} as suffix, but got {suffix!r}')
    sources: dict[Path, Path] = {}
    for path in inputs:
        is_folder = path.is_dir()
        name = path.resolve().name if is_folder else path.stem
        if codec != 'png' and (suffix or codec or not is_folder):
            own = path.suffix.lower()
            name += suffix or (own if own in CONTAINERS and not is_folder else '.mkv')
        output = folder / name
        if output.exists() and path.exists() and output.samefile(path):
            raise VideoError(f'{output}: is the source itself; restore it into another folder')
        if output in sources:
            raise VideoError(f'{sources[output]} and {path} would both become {output}; restore them into different '
                             'folders')
        sources[output] = path
    return list(sources)


class Ranks:
    """The processes of a job of torchrun, each of which takes the next piece of work when it is done with one.

    Elsewhere there is one process, which does all. A context manager, at the end of whose block rank 0, which may hold
    what they share, leaves last. It alone should then leave with an error, as torchrun ends the others at once.
    """

    def __init__(self):
        self.rank, self.size = int(os.environ.get('RANK', 0)), int(os.environ.get('WORLD_SIZE', 1))
        self._store = None
        self._alone: dict[str, int] = {}
        if 'WORLD_SIZE' in os.environ:
            from torch.distributed import rendezvous

            self._store, _, _ = next(rendezvous('env://'))

    def add(self, name: str, number: int = 0) -> int:
        """Adds to a counter that all share, and returns it."""
        if self._store is not None:
            return self._store.add(f'stvsr/{name}', number)
        self._alone[name] = self._alone.get(name, 0) + number
        return self._alone[name]

    def share(self, count: int) -> Iterator[int]:
        """The numbers from 0 to `count` - 1 that this process is to work on."""
        while (number := self.add('next', 1) - 1) < count:
            yield number

    def __enter__(self) -> 'Ranks':
        return self

    def __exit__(self, exc_type: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        if exc_type is None:
            self.add('left', 1)
            while self.rank == 0 and self.add('left') < self.size:
                time.sleep(_POLL)

    def wait(self) -> None:
        """Returns when all have come here."""
        self.add('here', 1)
        while self.add('here') < self.size:
            time.sleep(_POLL)
