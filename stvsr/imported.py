"""Import functions when they are called."""
import argparse
from collections.abc import Callable
from pkgutil import resolve_name

from . import mode


def imported(name: str, *, needs_networks_only: bool = False) -> Callable[[argparse.Namespace], int]:
    """Return the command named `package.module:function`, imported when it runs.

    Args:
        needs_networks_only: whether it works without the data sets, losses, metrics and models of the package.
    """
    def run(args: argparse.Namespace) -> int:
        mode.needs_networks_only = needs_networks_only
        return int(resolve_name(name)(args))

    return run
