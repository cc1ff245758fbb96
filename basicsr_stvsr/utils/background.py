"""Work in threads beside that of others, which neither runs ahead of it nor falls behind without bound."""
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

T = TypeVar('T')
_END: Any = object()


def ahead(items: Iterable[T], num: int) -> Iterator[T]:
    """The items, made in a thread of their own, up to `num` before they are asked for.

    What goes wrong while an item is made is raised in its place.
    """
    iterator = iter(items)
    with ThreadPoolExecutor(1) as pool:
        coming = deque(pool.submit(next, iterator, _END) for _ in range(num))
        while (item := coming.popleft().result()) is not _END:
            coming.append(pool.submit(next, iterator, _END))
            yield item


class Behind:
    """Makes calls in a thread of its own, in order, up to `num` of them behind.

    What goes wrong is raised by a later call, or by `wait`; calls after it are left out. A context manager: at the end
    of its block all calls are made, and the thread ends.

    Args:
        num: how many.
        at_end: is called in the thread as the last of all, whatever went wrong.
    """

    def __init__(self, num: int, at_end: Callable[[], Any] | None = None):
        self.num, self.at_end = num, at_end
        self._pool = ThreadPoolExecutor(1)
        self._calls: deque[Future] = deque()
        self._failed = False

    def __call__(self, function: Callable[..., Any], *args: Any) -> Future:
        """Returns what will be True when the call is done; None where it is left out."""
        call = self._pool.submit(self._call, function, *args)
        self._calls.append(call)
        while len(self._calls) > self.num:
            self._calls.popleft().result()
        return call

    def wait(self) -> None:
        """Returns when all calls are done."""
        while self._calls:
            self._calls.popleft().result()

    def _call(self, function: Callable[..., Any], *args: Any) -> bool | None:
        if self._failed:
            return None
        try:
            function(*args)
        except BaseException:
            self._failed = True
            raise
        return True

    def __enter__(self) -> 'Behind':
        return self

    def __exit__(self, exc_type: type[BaseException] | None, *exc_info: object) -> None:
        try:
            if exc_type is None:
                self.wait()
        finally:
            if self.at_end is not None:
                self._pool.submit(self.at_end)
            self._pool.shutdown()
