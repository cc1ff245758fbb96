"""Report errors that a user can fix as one line on stderr, without a traceback. Importing this module is fast."""
import sys
from collections.abc import Iterator
from contextlib import contextmanager

EXIT_FAILED, EXIT_REFUSED, EXIT_INTERRUPTED = 1, 2, 130
USER_ERRORS = OSError, ValueError  # includes FileNotFoundError, FrameReadError and VideoError


@contextmanager
def user_errors(types: tuple[type[Exception], ...] = USER_ERRORS, *, code: int = EXIT_REFUSED) -> Iterator[None]:
    """Report errors of these types, and exit with status `code`.

    Use it for the setup. There, the default types are about the user's input. Later errors, and errors of other types,
    keep their traceback.
    """
    try:
        yield
    except types as error:
        # Messages of other libraries may go on with a traceback
        print_error(error if isinstance(error, USER_ERRORS) else str(error).partition('\n')[0])
        sys.exit(code)


def print_error(message: object) -> None:
    print(f'error: {message}', file=sys.stderr)
