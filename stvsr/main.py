"""Entry point of the command `stvsr`.

Exit codes: 0, success; 1, failed midway, finished work is kept; 2, invalid request, nothing was started; 130,
interrupted.
"""
import importlib
import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from .errors import EXIT_FAILED, EXIT_INTERRUPTED, EXIT_REFUSED, print_error
from .parser import make_parser
from .pipeline_parser import make_pipeline_parser
from .printable import printable


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code."""
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    # These take the options of BasicSR, except for `test --protocol`
    if arguments[:1] == ['train'] or arguments[:1] == ['test'] and not {'--protocol', '-h', '--help'} & set(arguments):
        action, *rest = arguments
        make_pipeline_parser(action, f'stvsr {action}').parse_args(rest)  # help and usage errors, before the imports
        pipeline = importlib.import_module(f'basicsr_stvsr.{action}')
        getattr(pipeline, f'{action}_pipeline')(os.getcwd(), rest)
        return 0
    parser = make_parser()
    args, others = parser.parse_known_args(arguments)
    if others and (not hasattr(args, 'paths') or any(other.startswith('-') for other in others)):
        args.parser.refuse(others)
    if others:  # argparse assigns all paths before an option to it
        args.paths += map(Path, others)
    try:
        return int(args.run(args))
    except BrokenPipeError:  # the reader has exited; avoid a second failure at exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_FAILED
    except KeyboardInterrupt as interrupt:
        with suppress(OSError):  # the terminal may be gone
            print(f'interrupted; {printable(str(interrupt))}; go on with --resume' if interrupt.args else 'interrupted',
                  file=sys.stderr)
        return EXIT_INTERRUPTED
    except (OSError, ValueError) as error:
        print_error(error)
        return EXIT_REFUSED
