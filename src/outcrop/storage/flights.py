"""One download per object at a time, however many threads want it."""

import contextlib
import os
import threading
from collections.abc import Callable, Hashable

from outcrop.errors import OutcropError
from outcrop.storage.temporary import open_again

_LOOK_AFTER_LEADER_SECONDS = 1.0


class _Flight:
    """A download under way: its leader, and those who wait for what it brings."""

    def __init__(self) -> None:
        self.leader = threading.current_thread()
        self.landed = threading.Event()
        self.waiting = 0
        self.fd: int | None = None
        self.error: OutcropError | None = None


class Flights:
    """Merges simultaneous calls for the same key into one.

    The first caller (the leader) downloads; the others wait and get a file descriptor of their
    own of the same file. They also get the leader's error, if that is one of ours; where the
    leader ended in any other way (interrupted, out of memory, its thread gone) each of them tries
    once for itself.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._flights: dict[Hashable, _Flight] = {}

    def run(self, key: Hashable, download: Callable[[], int]) -> int:
        """A file descriptor from `download`, called here or by the leader."""
        with self._lock:
            flight = self._flights.get(key)
            if flight is None:
                flight = self._flights[key] = _Flight()
                is_leader = True
            else:
                flight.waiting += 1
                is_leader = False
        if is_leader:
            return self._lead(key, flight, download)
        return self._follow(key, flight, download)

    def _lead(self, key: Hashable, flight: _Flight, download: Callable[[], int]) -> int:
        fd = None
        try:
            fd = download()
            return fd
        except OutcropError as error:
            flight.error = error
            raise
        finally:
            with self._lock:
                if self._flights.get(key) is flight:
                    del self._flights[key]
                if fd is not None and flight.waiting:
                    with contextlib.suppress(OSError):  # out of descriptors: they download it too
                        flight.fd = os.dup(fd)
            flight.landed.set()

    def _follow(self, key: Hashable, flight: _Flight, download: Callable[[], int]) -> int:
        while not flight.landed.wait(_LOOK_AFTER_LEADER_SECONDS):
            if not flight.leader.is_alive():
                self._abandon(key, flight)
                break
        try:
            if flight.fd is not None:
                return open_again(flight.fd)
        finally:
            self._leave(flight)
        if flight.error is not None:
            raise _copy_of(flight.error) from flight.error
        return download()

    def _abandon(self, key: Hashable, flight: _Flight) -> None:
        with self._lock:
            if self._flights.get(key) is flight:
                del self._flights[key]

    def _leave(self, flight: _Flight) -> None:
        with self._lock:
            flight.waiting -= 1
            if flight.waiting == 0 and flight.fd is not None:
                os.close(flight.fd)
                flight.fd = None


def _copy_of(error: OutcropError) -> OutcropError:
    """Each thread raises an exception of its own: a traceback belongs to one thread."""
    return type(error)(str(error), hint=error.hint)
