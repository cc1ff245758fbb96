"""Progress bars on stderr, and messages above them."""
import sys
from collections.abc import Iterable
from typing import Any

from tqdm import tqdm


def progress_bar(items: Iterable[Any] | None = None, *, unit: str, about: str | None = None, total: int | None = None,
                 done: int = 0, is_shown: bool = True) -> tqdm:
    """Return a bar that fits the terminal; iterate over it, or `update` it.

    Args:
        items: what to iterate over.
        unit: what is counted, such as 'frame'; numbers of bytes, 'B', are abbreviated.
        about: text before the bar.
        total: expected count; default: the length of `items`, if it has one.
        done: count before the start, without effect on the speed.
    """
    return tqdm(items, desc=about, total=total, initial=done, unit=unit, unit_scale=unit == 'B', dynamic_ncols=True,
                disable=not is_shown)


def say(message: str) -> None:
    """Print a line on stderr, above all bars."""
    tqdm.write(message, file=sys.stderr)
