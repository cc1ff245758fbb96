"""Run commands of `stvsr` in child processes, so that a crash, such as in a decoder, never ends the server.

The processes come from a server of `multiprocessing` that has imported this module, so that each starts at once.
"""
import os
import sys
from collections.abc import Callable
from contextlib import suppress
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from stvsr.main import main

from ..io import video_reader  # noqa: F401  (imported once for all children; torch comes with the package)
from ..utils.processes import end_with_parent, server_context


def start_command(arguments: list[str], log: Path) -> BaseProcess:
    """Start `stvsr *arguments`; its standard output goes to `<log>.out`, its errors to `<log>.err`."""
    for name in (f'{log}.out', f'{log}.err'):
        Path(name).unlink(missing_ok=True)  # of an earlier process
    return _start(_run, arguments, str(log))


def warm_up() -> None:
    """Start the server of processes, which takes seconds, before the first command."""
    _start(int).join()


def _start(function: Callable[..., Any], *arguments: Any) -> BaseProcess:
    process: BaseProcess = server_context('stvsr.networks_only', __name__).Process(target=function, args=arguments)
    process.start()
    return process


def _run(arguments: list[str], log: str) -> None:
    end_with_parent()
    if hasattr(os, 'setsid'):
        os.setsid()  # Ctrl-C reaches the server alone, which then stops this process
    for descriptor, name in ((1, f'{log}.out'), (2, f'{log}.err')):
        os.dup2(os.open(name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), descriptor)
    sys.exit(main(arguments))


def end_process(process: BaseProcess, seconds: float = 10) -> None:
    """Ask a process to end, and kill it if it does not."""
    process.terminate()
    process.join(seconds)
    process.kill()
    process.join()


def error_in(log: Path) -> str:
    """Return the last error that a command printed; '' if there is none."""
    with suppress(OSError):
        lines = Path(f'{log}.err').read_text(encoding='utf-8', errors='replace').splitlines()
        errors = [line.removeprefix('error: ') for line in lines if line.startswith('error: ')]
        return errors[-1] if errors else ''
    return ''
