"""Work in threads beside that of others."""
import threading
import time

import pytest

from basicsr_stvsr.utils.background import Behind, ahead, bounded_map


def test_ahead_is_not_far_ahead():
    made = []

    def numbers():
        for number in range(20):
            made.append(number)
            yield number

    seen = []
    for number in ahead(numbers(), 3):
        seen.append(number)
        time.sleep(0.002)
        assert len(made) <= number + 4
    assert seen == list(range(20))


def test_ahead_works_beside():
    """The second item is made while the first is in use."""
    second_is_made = threading.Event()

    def items():
        yield 1
        second_is_made.set()
        yield 2

    for _ in ahead(items(), 1):
        assert second_is_made.wait(timeout=20)


def test_what_fails_ahead_is_raised_in_its_place():
    def failing():
        yield 1
        yield 2
        raise ValueError('the third')

    seen = []
    with pytest.raises(ValueError, match='the third'):
        for number in ahead(failing(), 4):
            seen.append(number)
    assert seen == [1, 2]


def test_what_is_not_used_up_is_let_go():
    before = threading.active_count()
    items = ahead(iter(range(100)), 2)
    assert next(items) == 0
    items.close()
    assert threading.active_count() == before


def test_behind_calls_in_order_and_not_far_behind():
    done, started = [], []

    def work(number):
        started.append(number)
        time.sleep(0.001)
        done.append(number)

    with Behind(3) as call:
        for number in range(20):
            call(work, number)
            assert number - len(done) < 4
    assert done == started == list(range(20))


def test_bounded_map_takes_no_more_than_it_needs():
    taken = []
    results = bounded_map(lambda x: x * x, (taken.append(x) or x for x in range(100)), num_workers=2)
    assert [next(results) for _ in range(3)] == [0, 1, 4]
    assert len(taken) <= 3 + 4  # two for each worker in flight
    results.close()


def test_what_fails_behind_is_raised_and_ends_the_calls():
    done = []

    def work(number):
        if number == 2:
            raise OSError('disk full')
        done.append(number)

    calls = []
    with pytest.raises(OSError, match='disk full'), Behind(2) as call:
        for number in range(20):
            calls.append(call(work, number))
    assert done == [0, 1]
    assert [call.result() for call in calls if not call.exception()] in ([True, True], [True, True, None])


def test_an_error_of_the_caller_is_the_one_to_tell():
    with pytest.raises(KeyError), Behind(5) as call:
        call(lambda: 1 / 0)
        raise KeyError
