"""One download per object at a time, however many threads want it."""

import contextlib
import os
import threading
from collections.abc import Callable, Hashable

from outcrop.errors import OutcropError
from outcrop.storage.temporary import open_again

_LOOK_SECONDS = 1.0


class _Flight:
    """A download under way: its leader, and those who wait for what it brings."""

    def __init__(self) -> None:
        self.leader = threading.current_thread()
        self.landed: threading.Event | None = None  # made by the first who waits
        self.waiting = 0
        self.brought: int | None = None  # the leader's descriptor, which its caller may close
        self.fd: int | None = None  # a duplicate for those who wait; the last of them closes it
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
        mine = _Flight()
        try:  # from before it is known to others: an interrupt must not leave them waiting
            with self._lock:
                flight = self._flights.setdefault(key, mine)
                if flight is not mine:
                    flight.waiting += 1
                    flight.landed = flight.landed or threading.Event()
            if flight is mine:
                return self._lead(mine, download)
        finally:
            self._land(key, mine)
        return self._follow(key, flight, download)

    @staticmethod
    def _lead(flight: _Flight, download: Callable[[], int]) -> int:
        try:
            flight.brought = download()
        except OutcropError as error:
            flight.error = error
            raise
        return flight.brought

    def _land(self, key: Hashable, flight: _Flight) -> None:
        with self._lock:
            if self._flights.get(key) is flight:
                del self._flights[key]
                if flight.brought is not None and flight.waiting:
                    with contextlib.suppress(OSError):  # out of descriptors: each downloads it
                        flight.fd = os.dup(flight.brought)
            if flight.landed is not None:
                flight.landed.set()

    def _follow(self, key: Hashable, flight: _Flight, download: Callable[[], int]) -> int:
        try:
            while flight.landed is not None and not flight.landed.wait(_LOOK_SECONDS):
                if not flight.leader.is_alive():  # as after a fork: the leader stayed behind
                    self._land(key, flight)
            if flight.fd is not None:
                return open_again(flight.fd)
        finally:
            self._leave(flight)
        if flight.error is not None:
            raise _copy_of(flight.error) from flight.error
        return download()

    def _leave(self, flight: _Flight) -> None:
        with self._lock:
            flight.waiting -= 1
            if flight.waiting == 0 and flight.fd is not None:
                os.close(flight.fd)
                flight.fd = None


def _copy_of(error: OutcropError) -> OutcropError:
    """Each thread raises an exception of its own: a traceback belongs to one thread."""
    return type(error)(str(error), hint=error.hint)
