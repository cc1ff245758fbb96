"""The size of values that contain each other, counted before they are copied or printed."""
import math
from collections.abc import Callable, Iterable
from typing import Any


def expanded_size(root: Any, children: Callable[[Any], Iterable[Any]]) -> float:
    """Return how many values a tree would have in which every shared value is repeated; infinite for a cycle.

    A short file can share its parts so that this is more than any memory holds.

    Args:
        root: the value.
        children: returns the values that a value directly contains.
    """
    sizes: dict[int, float] = {}
    waiting = [(root, False)]
    while waiting:
        value, is_counted = waiting.pop()
        if is_counted:
            sizes[id(value)] = 1 + sum(sizes[id(child)] for child in children(value))
        elif id(value) not in sizes:
            sizes[id(value)] = math.inf  # seen again before it is counted: a cycle
            waiting.append((value, True))
            waiting += ((child, False) for child in children(value))
    return sizes[id(root)]


def contents(value: Any) -> list[Any]:
    """Return what a list, tuple, set or dict contains."""
    if isinstance(value, dict):
        return [*value.keys(), *value.values()]
    return list(value) if isinstance(value, list | tuple | set | frozenset) else []
