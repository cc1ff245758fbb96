"""Fetch weights that do not ship with the package, and verify local files."""
import http.client
import os
from pathlib import Path
from typing import BinaryIO
from urllib.error import HTTPError
from urllib.parse import urlsplit
from urllib.request import Request, urlopen

from ..archs.weight_files import check_sha256, sha256_of
from ..utils.atomic_files import move_whole
from ..utils.file_lock import locked
from ..utils.progress import progress_bar
from .table import Entry, check_file, entry_of, load

CHUNK = 1 << 18  # bytes
TIMEOUT = 30  # seconds without data


def verify(name: str) -> Path:
    """Check the sha256 of a zoo file, and then that it holds the weights of its network.

    Returns:
        path of the file.

    Raises:
        FileNotFoundError: the file is missing.
        ValueError: an unknown network, or the file is damaged or a different one.
    """
    net, entry = load(name), entry_of(name)
    parameters = sum(parameter.numel() for parameter in net.parameters())
    if parameters != entry.parameters:
        raise ValueError(f'{name} has {parameters:,} parameters, but the zoo states {entry.parameters:,}')
    return entry.path


def fetch(name: str, *, show_progress: bool = False) -> Path:
    """Fetch missing weights of a network from the folder STVSR_ZOO if it has them, else from the entry's url.

    Data is written to `<file>.part`, checked against the sha256 of the table, and then renamed. If the connection
    breaks, the next call resumes the download.

    Returns:
        path of the file.

    Raises:
        ValueError: an unknown network; or the data is a different file, and is removed.
        OSError: the file cannot be fetched or written, or another process is fetching it.
    """
    entry = entry_of(name)
    if entry.url is None:
        return check_file(name)
    if entry.path.is_file() and sha256_of(entry.path) == entry.sha256:
        return entry.path
    url = source_of(entry)
    entry.path.parent.mkdir(parents=True, exist_ok=True)
    part = entry.path.with_name(f'{entry.weights}.part')
    is_busy = OSError(f'{entry.path}: another process is downloading this file')
    with locked(entry.path.with_name(f'{entry.weights}.lock'), is_busy):
        has_begun = part.is_file()
        download(url, part, entry.size, show_progress)
        if has_begun and sha256_of(part) != entry.sha256:  # the partial download may belong to another file
            part.unlink()
            download(url, part, entry.size, show_progress)
        try:
            check_sha256(part, entry.sha256, f'the weights of {name} from {url}')
        except ValueError:
            part.unlink()
            raise
        move_whole(part, entry.path)
    return entry.path


def source_of(entry: Entry) -> str:
    """Return the address to fetch a file from.

    Raises:
        ValueError: STVSR_ZOO is not a folder, or the address has an unsupported scheme.
    """
    mirror = os.environ.get('STVSR_ZOO')
    if mirror:
        folder = Path(mirror).expanduser().resolve()
        if not folder.is_dir():
            raise ValueError(f'STVSR_ZOO must name a folder of weights, but {mirror} is not a folder')
        if (folder / entry.weights).is_file():
            return (folder / entry.weights).as_uri()
    if entry.url is None or urlsplit(entry.url).scheme not in ('http', 'https', 'file'):
        raise ValueError(f'{entry.url}: the address must begin with http://, https:// or file://')
    return entry.url


def download(url: str, part: Path, size: int, show_progress: bool) -> None:
    """Append to `part` the missing bytes of a file of `size` bytes; the caller checks the hash.

    Raises:
        ValueError: the remote file has another size; `part` is removed.
        OSError: the connection failed; received data is kept.
    """
    try:
        with open(part, 'ab') as file:
            if file.tell() < size:
                _append(url, file, size, show_progress)
    except ValueError:
        part.unlink()
        raise
    except (OSError, http.client.HTTPException) as error:
        num_kept = part.stat().st_size if part.exists() else 0
        raise OSError(f'{url}: {error}; {num_kept:,} of {size:,} bytes are in {part}; the next attempt continues from '
                      'there') from error


def _append(url: str, file: BinaryIO, size: int, show_progress: bool) -> None:
    offset = file.tell()
    headers = {'Range': f'bytes={offset}-'} if offset else {}
    try:
        response = urlopen(Request(url, headers=headers), timeout=TIMEOUT)
    except HTTPError as error:
        if error.code != http.client.REQUESTED_RANGE_NOT_SATISFIABLE:
            raise
        raise ValueError(f'{url} is another file: it has at most {offset:,} bytes, expected {size:,}') from error
    with response:
        if offset and not continues_from(offset, response):
            file.seek(0)
            file.truncate()
            offset = 0
        announced = response.headers.get('Content-Length')
        if announced and offset + int(announced) != size:
            raise ValueError(f'{url} is another file: it has {offset + int(announced):,} bytes, expected {size:,}')
        with progress_bar(unit='B', total=size, done=offset, is_shown=show_progress) as bar:
            while data := response.read(CHUNK):
                file.write(data)
                bar.update(len(data))
                if file.tell() > size:
                    raise ValueError(f'{url} is another file: it has more than {size:,} bytes')
    if file.tell() < size:
        raise OSError('the connection ended early')


def continues_from(offset: int, response: http.client.HTTPResponse) -> bool:
    """Whether the server sends the requested bytes from `offset` on. Some servers, and file urls, send everything."""
    content_range = response.headers.get('Content-Range') or ''
    return response.status == http.client.PARTIAL_CONTENT and content_range.startswith(f'bytes {offset}-')
