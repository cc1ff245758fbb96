"""Log of a run that creates its folder only after all checks have passed."""
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from logging.handlers import MemoryHandler
from typing import Any

from basicsr.utils.logger import get_root_logger

from stvsr.printable import printable


def log_to_file(opt: dict[str, Any], level: int) -> tuple[logging.Logger, MemoryHandler]:
    """Set up BasicSR's logger, and buffer its messages until there is a folder for the log, see `open_log_file`."""
    logger = get_root_logger(logger_name='basicsr')
    logger.addFilter(without_escape_sequences)  # the same function again changes nothing
    memory = MemoryHandler(capacity=10**6, flushLevel=logging.CRITICAL + 1)
    memory.setFormatter(logger.handlers[0].formatter)
    if opt['rank'] == 0:
        logger.setLevel(level)
        logger.addHandler(memory)
    return logger, memory


def without_escape_sequences(record: logging.LogRecord) -> bool:
    """Replace control characters in a message, such as those in the names of files, and keep the message."""
    record.msg, record.args = printable(record.getMessage()), ()
    return True


@contextmanager
def details_to_file(logger: logging.Logger) -> Iterator[None]:
    """Within the block, send all messages to the log file, and only warnings and errors to the terminal."""
    levels = {handler: handler.level for handler in logger.handlers if type(handler) is logging.StreamHandler}
    for handler in levels:
        handler.setLevel(logging.WARNING)
    try:
        yield
    finally:
        for handler, level in levels.items():
            handler.setLevel(level)


class LogFile(logging.FileHandler):
    def handleError(self, _record: logging.LogRecord) -> None:  # noqa: N802  (logging's name)
        """Ignore errors: on a full disk, the next checkpoint reports them."""


def open_log_file(logger: logging.Logger, memory: MemoryHandler, path: str) -> None:
    file = LogFile(path, 'w')
    file.setFormatter(memory.formatter)
    memory.setTarget(file)
    memory.flush()
    logger.removeHandler(memory)
    logger.addHandler(file)
