"""Shared parts of the scripts in this folder: common options, and one-line errors."""
import argparse
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

import lmdb

from basicsr_stvsr.io.lmdb_files import FolderWriter, FrameSource, LmdbWriter, write_frames
from basicsr_stvsr.utils.threads import available_cores
from stvsr.errors import EXIT_FAILED, USER_ERRORS, user_errors


def run(main: Callable[[], int]) -> None:
    """Run a script; errors that a user can fix become one line."""
    with user_errors((*USER_ERRORS, lmdb.Error), code=EXIT_FAILED):
        sys.exit(main())


def positive(text: str) -> int:
    """Parse a whole number >= 1, as an argument type."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f'expected a whole number >= 1, got {text!r}')
    return int(text)


def add_output_options(parser: argparse.ArgumentParser) -> None:
    """Add `--workers` and `--force`, for scripts that write frames."""
    parser.add_argument('--workers', type=positive, default=min(8, available_cores()), metavar='N',
                        help='threads that decode and encode (default: %(default)s)')
    parser.add_argument('--force', action='store_true', help='replace the output if it exists')


def open_writer(output: Path, inputs: Iterable[Path], *, force: bool,
                suffix: str = '.png') -> LmdbWriter | FolderWriter:
    """Open a writer: an LMDB if the name ends in `.lmdb`, otherwise a folder of images.

    Raises:
        ValueError: `output` is one of `inputs`, or contains it: replacing it would remove the input.
        FileExistsError: `output` exists, and `force` is not set.
    """
    for path in inputs:
        if path.resolve().is_relative_to(output.resolve()):
            raise ValueError(f'the output {output} would replace the input {path}')
    try:
        if output.suffix == '.lmdb':
            return LmdbWriter(output, overwrite=force)
        return FolderWriter(output, overwrite=force, suffix=suffix)
    except FileExistsError as error:
        raise FileExistsError(f'{error}; --force replaces it') from None


def write(writer: LmdbWriter | FolderWriter, frames: Iterable[FrameSource], *, num_frames: int | None,
          num_workers: int) -> None:
    """Write all frames and print their number."""
    count = write_frames(writer, frames, num_frames=num_frames, num_workers=num_workers)
    print(f'Wrote {count} frames to {writer.path}.')
