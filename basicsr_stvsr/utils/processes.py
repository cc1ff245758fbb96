"""Processes that work beside this one."""
import multiprocessing
import os
import signal
import threading
from multiprocessing.connection import wait


def server_context(preload: str) -> multiprocessing.context.BaseContext:
    """How processes are started: CUDA does not survive a fork, so they come from one that has only imported a module.

    Args:
        preload: the module, whose import takes seconds, here once for all.
    """
    if 'forkserver' not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context('spawn')
    context = multiprocessing.get_context('forkserver')
    context.set_forkserver_preload([preload])
    return context


def ignore_signals() -> None:
    """Leaves signals to the process that started this one, which asks it to end."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)


def end_with_parent() -> None:
    """Ends this process when the one that started it has, killed maybe, which nothing else would tell it."""
    def watch() -> None:
        wait([multiprocessing.parent_process().sentinel])
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
