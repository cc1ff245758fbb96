"""`stvsr app`."""
import argparse
import secrets
import signal
import socket
from contextlib import suppress
from importlib.util import find_spec

from ..utils.processes import ending_signals
from .browser import open_in_browser

FIRST_PORT = 8765  # if it is free


def run(args: argparse.Namespace) -> int:
    if missing := [name for name in ('starlette', 'uvicorn') if find_spec(name) is None]:
        raise ValueError(f"stvsr app needs {' and '.join(missing)}: pip install 'basicsr_stvsr[app]'")
    from ..app.folder import own_folder
    from ..app.guard import LOCAL
    from ..app.jobs import Jobs
    from ..app.server import make_server

    if not args.max_upload > 0 or not args.keep_hours > 0:
        raise ValueError('expected --max-upload and --keep-hours above 0')
    host = args.host or LOCAL
    listener = listen(host, args.port)
    token = secrets.token_urlsafe(24) if args.host else None
    with own_folder() as folder, suppress(KeyboardInterrupt):
        for ending in ending_signals():
            signal.signal(ending, signal.default_int_handler)
        jobs = Jobs(folder, keep_seconds=3600 * args.keep_hours)
        try:
            server = make_server(jobs, listener, host=host, max_bytes=round(1e9 * args.max_upload), token=token)
            address = address_of(listener) + (f'?token={token}' if token else '')
            print(f'{address}\nCtrl-C stops the app and removes uploads and results.', flush=True)
            if args.open:
                open_in_browser(address)
            server.run(sockets=[listener])
        finally:
            jobs.close()
    return 0


def listen(host: str, port: int | None) -> socket.socket:
    """Return a socket of the host; without a port, one at FIRST_PORT or, if that is taken, at any free port."""
    family = socket.AF_INET6 if ':' in host else socket.AF_INET
    if port is None:
        with suppress(OSError):
            return socket.create_server((host, FIRST_PORT), family=family)
    try:
        return socket.create_server((host, port or 0), family=family)
    except OSError as error:
        raise OSError(f'the app cannot use {host} port {port or "0"}: {error.strerror or error}') from error


def address_of(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    if host in ('0.0.0.0', '::'):
        host = socket.gethostname()
    return f'http://[{host}]:{port}/' if ':' in host else f'http://{host}:{port}/'
