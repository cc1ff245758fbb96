"""Restore many videos into one folder, shared by all processes of a torchrun job on one or more nodes."""
import os
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from types import TracebackType

from ..io.containers import CONTAINERS
from ..io.frame_folder import videos_in
from ..io.images import is_image
from ..io.video_info import VideoError

_POLL = 1  # seconds


def each_video(inputs: Iterable[Path]) -> list[Path]:
    """Return inputs, with the videos of a folder instead of the folder.

    Raises:
        VideoError: a folder holds videos and images.
    """
    return [video for path in inputs for video in (path.is_dir() and videos_in(path)) or [path]]


def outputs_of(inputs: Sequence[Path], folder: Path, *, codec: str | None = None, suffix: str | None = None) -> (
        list[Path]):
    """Return an output path in `folder` for each input, named after the input.

    Args:
        inputs: video files, or folders of images.
        folder: the output folder.
        codec: of the outputs; 'png' writes a folder for each. Default: files become files, folders become folders.
        suffix: of output files. Default: the suffix of the input, or '.mkv' if that format cannot be written.

    Raises:
        VideoError: two outputs would have the same name, or an output would overwrite its input.
        ValueError: `suffix` is not that of a video file.
    """
    if suffix and suffix.lower() not in CONTAINERS:
        raise ValueError(f'expected one of {", ".join(CONTAINERS)} as suffix, but got {suffix!r}')
    sources: dict[Path, Path] = {}
    for path in inputs:
        is_folder = path.is_dir()
        name = path.resolve().name if is_folder else path.stem
        if is_image(path) and not is_folder:
            name += path.suffix
        elif codec != 'png' and (suffix or codec or not is_folder):
            own = path.suffix.lower()
            name += suffix or (own if own in CONTAINERS and not is_folder else '.mkv')
        output = folder / name
        if output.exists() and path.exists() and output.samefile(path):
            raise VideoError(f'{output}: is the source itself; restore it into another folder')
        if output in sources:
            raise VideoError(f'{sources[output]} and {path} would both be restored to {output}; restore them into '
                             'different folders')
        sources[output] = path
    return list(sources)


class Ranks:
    """The processes of a torchrun job; each takes the next piece of work when it becomes idle.

    Without torchrun, a single process does all the work. As a context manager, rank 0 leaves the block last, because it
    may host the shared store. Only rank 0 should exit with an error, because torchrun then ends the others at once.
    """

    def __init__(self) -> None:
        self.rank, self.size = int(os.environ.get('RANK', 0)), int(os.environ.get('WORLD_SIZE', 1))
        self._store = None
        self._alone: dict[str, int] = {}
        if 'WORLD_SIZE' in os.environ:
            from torch.distributed.rendezvous import rendezvous

            self._store, _, _ = next(rendezvous('env://'))

    def add(self, name: str, number: int = 0) -> int:
        """Add `number` to a counter shared by all processes, and return the counter."""
        if self._store is not None:
            return int(self._store.add(f'stvsr/{name}', number))
        self._alone[name] = self._alone.get(name, 0) + number
        return self._alone[name]

    def share(self, count: int) -> Iterator[int]:
        """Yield the numbers from 0 to `count` - 1 that this process should work on."""
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
        """Block until all processes have called this method."""
        self.add('here', 1)
        while self.add('here') < self.size:
            time.sleep(_POLL)
