"""What a pickle would build, worked out from its instructions before any of them runs."""
import pickletools
from typing import IO, cast

_TUPLES = {'TUPLE', 'TUPLE1', 'TUPLE2', 'TUPLE3'}
_STORE, _RECALL = {'PUT', 'BINPUT', 'LONG_BINPUT', 'MEMOIZE'}, {'GET', 'BINGET', 'LONG_BINGET'}
_MARK = -1  # on the stack; other entries are sizes


def largest_tuple(pickle: IO[bytes] | bytes) -> int:
    """Return how many values the largest tuple of a pickle has, counting shared parts once for each use.

    Hashing a tuple, such as the key of a block, visits all of them. A tuple of two equal tuples of two, and so on for
    40 levels, takes a few hundred bytes, and forever to hash.

    Raises:
        ValueError, LookupError: it is no pickle, or is damaged.
    """
    stack: list[int] = []
    memo: dict[int, int] = {}
    largest = 0
    for instruction, argument, _ in pickletools.genops(pickle):
        name = instruction.name
        if name in _STORE:
            memo[len(memo) if argument is None else argument] = stack[-1]
        elif name in _RECALL:
            stack.append(memo[cast(int, argument)])
        elif name == 'DUP':
            stack.append(stack[-1])
        elif name == 'MARK':
            stack.append(_MARK)
        else:
            taken = _take(stack, instruction)
            made = 1 + sum(taken) if name in _TUPLES else 1
            largest = max(largest, made)
            stack += [made] * len(instruction.stack_after)
    return largest


def _take(stack: list[int], instruction: pickletools.OpcodeInfo) -> list[int]:
    """Remove and return what an instruction takes from the stack."""
    before, taken = instruction.stack_before, []
    if pickletools.markobject in before:
        while (size := stack.pop()) != _MARK:
            taken.append(size)
        before = before[:before.index(pickletools.markobject)]
    return taken + [stack.pop() for _ in before]
