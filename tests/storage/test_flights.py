"""Many callers, one download."""

import multiprocessing
import os
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

import pytest
from tests.support.objects import read_and_close

from outcrop.storage.errors import StorageUnavailable
from outcrop.storage.flights import Flights


def opened(data: bytes) -> int:
    fd = os.memfd_create("test")
    os.write(fd, data)
    return fd


class Gate:
    """A download that says when it began and ends when told."""

    def __init__(self, then: Callable[[], int]) -> None:
        self.began = threading.Event()
        self.go = threading.Event()
        self.calls = 0
        self._then = then

    def __call__(self) -> int:
        self.calls += 1
        self.began.set()
        assert self.go.wait(20)
        return self._then()


def wait_until_waiting(flights: Flights, key: str, number: int) -> None:
    deadline = threading.Event()
    for _ in range(2000):
        flight = flights._flights.get(key)
        if flight is not None and flight.waiting == number:
            return
        deadline.wait(0.005)
    raise AssertionError(f"never saw {number} callers waiting")


def with_followers(flights: Flights, gate: Gate, followers: int) -> list[Future[int]]:
    """One leader inside the gate and so many followers behind it; then the gate opens."""
    pool = ThreadPoolExecutor(followers + 1)
    futures = [pool.submit(flights.run, "key", gate)]
    assert gate.began.wait(20)
    futures += [pool.submit(flights.run, "key", gate) for _ in range(followers)]
    wait_until_waiting(flights, "key", followers)
    gate.go.set()
    pool.shutdown()
    return futures


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def test_all_get_descriptors_of_their_own_from_one_download() -> None:
    before = descriptors()
    flights, gate = Flights(), Gate(lambda: opened(b"data"))
    fds = [future.result(20) for future in with_followers(flights, gate, 5)]
    assert gate.calls == 1
    assert len(set(fds)) == 6
    os.lseek(fds[1], 2, os.SEEK_SET)
    assert os.lseek(fds[2], 0, os.SEEK_CUR) == 0
    assert [read_and_close(fd) for fd in fds] == [b"data"] * 6
    assert descriptors() == before
    assert not flights._flights


def test_all_get_the_leaders_error_each_an_exception_of_its_own() -> None:
    def fail() -> int:
        raise StorageUnavailable("no host", hint="wait")

    flights, gate = Flights(), Gate(fail)
    errors = [future.exception(20) for future in with_followers(flights, gate, 3)]
    assert gate.calls == 1
    assert [type(error) for error in errors] == [StorageUnavailable] * 4
    assert {str(error) for error in errors} == {"no host"}
    assert {getattr(error, "hint", None) for error in errors} == {"wait"}
    assert len({id(error) for error in errors}) == 4
    assert not flights._flights


@pytest.mark.parametrize("error", [KeyboardInterrupt(), MemoryError(), SystemExit(1)])
def test_followers_try_for_themselves_where_the_leader_was_interrupted(
    error: BaseException,
) -> None:
    outcomes: list[BaseException | None] = [error, None, None, None]

    def then() -> int:
        outcome = outcomes.pop(0)
        if outcome is not None:
            raise outcome
        return opened(b"data")

    before = descriptors()
    flights, gate = Flights(), Gate(then)
    leader, *others = with_followers(flights, gate, 3)
    assert leader.exception(20) is error
    assert [read_and_close(future.result(20)) for future in others] == [b"data"] * 3
    assert descriptors() == before
    assert not flights._flights


def test_a_leader_that_is_no_more_keeps_nobody_waiting() -> None:
    flights = Flights()

    def vanish() -> None:  # as if the thread had been killed in the middle
        from outcrop.storage.flights import _Flight

        flights._flights["key"] = _Flight()

    thread = threading.Thread(target=vanish)
    thread.start()
    thread.join(20)
    with ThreadPoolExecutor(3) as pool:
        futures = [pool.submit(flights.run, "key", lambda: opened(b"data")) for _ in range(3)]
        assert [read_and_close(future.result(20)) for future in futures] == [b"data"] * 3


def test_a_download_under_way_at_a_fork_is_not_waited_for_in_the_child() -> None:
    flights, gate = Flights(), Gate(lambda: opened(b"parent"))
    leader = threading.Thread(target=lambda: os.close(flights.run("key", gate)))
    leader.start()
    assert gate.began.wait(20)

    def child() -> None:
        fd = flights.run("key", lambda: opened(b"child"))
        os._exit(0 if read_and_close(fd) == b"child" else 1)

    process = multiprocessing.get_context("fork").Process(target=child)
    process.start()
    process.join(20)
    gate.go.set()
    leader.join(20)
    assert process.exitcode == 0


def test_another_key_is_another_download() -> None:
    flights, gate = Flights(), Gate(lambda: opened(b"one"))
    with ThreadPoolExecutor(1) as pool:
        one = pool.submit(flights.run, "one", gate)
        assert gate.began.wait(20)
        assert read_and_close(flights.run("other", lambda: opened(b"other"))) == b"other"
        gate.go.set()
        assert read_and_close(one.result(20)) == b"one"


def test_what_landed_is_downloaded_anew_by_who_comes_later() -> None:
    flights = Flights()
    for data in (b"first", b"second"):
        assert read_and_close(flights.run("key", lambda data=data: opened(data))) == data
