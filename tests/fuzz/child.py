"""Read hostile files in a process with limits. A crash or a hang ends only this process."""
import io
import os
import resource
import sys
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from itertools import islice
from multiprocessing.connection import Connection
from pathlib import Path
from traceback import format_exc

import torch

from basicsr_stvsr.archs.archive import digest_of
from basicsr_stvsr.archs.weight_files import load_file
from basicsr_stvsr.config import check_options
from basicsr_stvsr.config.loading import load_options
from basicsr_stvsr.io.images import decode_image
from basicsr_stvsr.io.opening import open_reader
from basicsr_stvsr.io.video_reader import open_source
from basicsr_stvsr.training.state import check_state
from basicsr_stvsr.zoo.table import load_network
from stvsr.errors import USER_ERRORS
from stvsr.printable import printable

MOST_MEMORY = 2**30  # bytes that reading one file may take
MOST_OF_A_MESSAGE = 2500  # characters; the longest list the options of a block
NETWORK = {'type': 'VSRResNet', 'num_feat': 4, 'num_block': 1, 'num_in_ch': 3}


def read_options(path: Path) -> None:
    check_options(load_options(str(path)), is_train=False)


def read_weights(path: Path) -> str:
    return digest_of(load_network(NETWORK, path).state_dict())


def read_state(path: Path) -> str:
    folder = path.parent
    check_state(path, {'path': {'models': folder, 'training_states': folder, 'experiments_root': folder}})
    state = load_file(path, 'a training state')
    return digest_of({f'{number} {name}': value for number, moments in state['optimizers'][0]['state'].items()
                      for name, value in moments.items() if torch.is_tensor(value)})


def read_image(path: Path) -> str:
    image = decode_image(path.read_bytes())
    assert image.dtype == 'uint8' and image.ndim == 3 and image.shape[2] == 3
    return digest_of({'': torch.from_numpy(image)}) if path.suffix == '.png' else ''  # only these have a checksum


def read_lmdb(path: Path) -> None:
    with open_reader(path) as reader:
        for clip in reader.clips:
            for number in range(reader.num_frames(clip)):
                reader.frame(clip, number)


def read_video(path: Path) -> None:
    with open_source(path) as source:
        for frame in islice(source.frames(), 30):
            assert frame.image.shape == (source.info.height, source.info.width, 3)


# What reads a kind of file. Those that return a text read the same from every file that they accept, if nothing in it
# but bits were changed: they have a checksum.
READERS: dict[str, Callable[[Path], str | None]] = {
    'options': read_options, 'weights': read_weights, 'states': read_state, 'images': read_image, 'lmdbs': read_lmdb,
    'videos': read_video}


def outcome_of(kind: str, path: Path) -> tuple[str, str]:
    """Return 'accepted', 'refused' or 'traceback', and what was read or what is wrong."""
    try:
        with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
            return 'accepted', READERS[kind](path) or ''
    except USER_ERRORS as error:
        message = str(error)
        lines = printable(message).splitlines()
        if not message.strip() or len(message) > MOST_OF_A_MESSAGE or 'Traceback' in message or not lines:
            return 'traceback', f'not a line for people: {message[:300]!r}'
        return 'refused', message
    except BaseException:
        return 'traceback', format_exc()


def serve(connection: Connection) -> None:
    """Read the files that are named through a connection, and send back the outcomes."""
    torch.set_num_threads(1)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # libraries of images and videos write to stderr
    sys.setrecursionlimit(1000)
    size = int(Path('/proc/self/statm').read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (size + MOST_MEMORY, size + MOST_MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    connection.send(('ready', ''))
    while True:
        try:
            kind, path = connection.recv()
        except EOFError:
            return
        connection.send(outcome_of(kind, Path(path)))
