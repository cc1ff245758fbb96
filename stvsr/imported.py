"""Functions that are imported when they are called."""
import argparse
from collections.abc import Callable
from pkgutil import resolve_name


def imported(name: str) -> Callable[[argparse.Namespace], int]:
    """The command of a name such as `package.module:function`."""
    return lambda args: resolve_name(name)(args)
