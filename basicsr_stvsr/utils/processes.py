"""Start worker processes and control how they end."""
import multiprocessing
import os
import signal
import threading
from multiprocessing.connection import wait
from typing import TYPE_CHECKING

import cv2
import torch

if TYPE_CHECKING:
    from multiprocessing.context import ForkServerContext, SpawnContext


def server_context(*preload: str) -> 'ForkServerContext | SpawnContext':
    """Return a context that starts processes from a clean server, because CUDA does not survive a fork.

    Args:
        preload: the only modules that the server imports; their slow import happens once for all processes.
    """
    if 'forkserver' not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context('spawn')
    context = multiprocessing.get_context('forkserver')
    context.set_forkserver_preload([*preload])
    return context


def prepare_worker(num_threads: int = 1) -> None:
    """Begin a process of `server_context`: it ends with its parent, leaves signals to it, and uses a few threads."""
    end_with_parent()
    ignore_signals()
    torch.set_num_threads(num_threads)
    cv2.setNumThreads(num_threads)


def ignore_signals() -> None:
    """Ignore signals in a worker; its parent handles them and asks it to end."""
    for number in (signal.SIGINT, *ending_signals()):
        signal.signal(number, signal.SIG_IGN)


def end_with_parent() -> None:
    """End this process when its parent ends, even if the parent is killed."""
    def watch() -> None:
        parent = multiprocessing.parent_process()
        assert parent is not None
        wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def ending_signals() -> list[signal.Signals]:
    """Return the signals besides SIGINT that ask to end: SIGTERM, and SIGHUP of a closed terminal unless ignored."""
    hangup: signal.Signals | None = getattr(signal, 'SIGHUP', None)  # not on Windows
    if hangup is None or signal.getsignal(hangup) == signal.SIG_IGN:  # started by nohup
        return [signal.SIGTERM]
    return [signal.SIGTERM, hangup]
