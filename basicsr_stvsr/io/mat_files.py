"""Read MATLAB files of version 7.3, which are HDF5."""
from pathlib import Path
from typing import TYPE_CHECKING

from .frames import FrameReadError

if TYPE_CHECKING:
    import h5py


def open_mat(path: Path) -> dict[str, 'h5py.Dataset']:
    """Return the arrays of a file by name, not read yet. Their axes are in reverse order of MATLAB's.

    Raises:
        FrameReadError: the file is missing, damaged, or not HDF5.
    """
    import h5py  # here, so that importing the package stays cheap; only this needs it

    try:
        file = h5py.File(path)
    except OSError as error:
        reason = f'cannot be read as HDF5, which MATLAB writes with -v7.3 ({error})'
        if path.is_file():
            with open(path, 'rb') as other:
                if other.read(8) == b'MATLAB 5':
                    reason = 'was saved by MATLAB as version 5 to 7; save it with -v7.3, which is HDF5'
        raise FrameReadError(f'{path} {reason}') from error
    return {name: array for name, array in file.items() if isinstance(array, h5py.Dataset)}
