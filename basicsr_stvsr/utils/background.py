"""Run work in background threads, with a bound on how far they run ahead or fall behind."""
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

T = TypeVar('T')
Result = TypeVar('Result')
_END: Any = object()


def ahead(items: Iterable[T], num: int) -> Iterator[T]:
    """Iterate in a background thread, up to `num` items ahead.

    An error while making an item is raised in its place.
    """
    iterator = iter(items)
    with ThreadPoolExecutor(1) as pool:
        coming = deque(pool.submit(next, iterator, _END) for _ in range(num))
        while (item := coming.popleft().result()) is not _END:
            coming.append(pool.submit(next, iterator, _END))
            yield item


def bounded_map(function: Callable[[T], Result], items: Iterable[T], num_workers: int) -> Iterator[Result]:
    """Map in threads: results are in order, and at most two items per worker are in progress."""
    with ThreadPoolExecutor(num_workers) as pool:
        in_flight: deque[Future[Result]] = deque()
        try:
            for item in items:
                in_flight.append(pool.submit(function, item))
                if len(in_flight) == 2 * num_workers:
                    yield in_flight.popleft().result()
            while in_flight:
                yield in_flight.popleft().result()
        finally:
            for future in in_flight:
                future.cancel()


class Behind:
    """Run calls in order in a background thread, with up to `num` of them pending; a context manager.

    An error is raised by a later call or by `wait`, and further calls are skipped. At the end of the block, all calls
    are done and the thread ends.

    Args:
        num: maximum number of pending calls.
        at_end: called last in the thread, even after an error.
    """

    def __init__(self, num: int, at_end: Callable[[], Any] | None = None):
        self.num, self.at_end = num, at_end
        self._pool = ThreadPoolExecutor(1)
        self._calls: deque[Future[Any]] = deque()
        self._failed = False

    def __call__(self, function: Callable[..., Any], *args: Any) -> Future[Any]:
        """Queue a call; return a future whose result is True, or None if the call was skipped."""
        call = self._pool.submit(self._call, function, *args)
        self._calls.append(call)
        while len(self._calls) > self.num:
            self._calls.popleft().result()
        return call

    def wait(self) -> None:
        """Block until all calls are done."""
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
