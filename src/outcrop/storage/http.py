"""The HTTP store: a repository behind hosts and proxies that may fail (spec 19, 24).

Connections are made by libcurl and stay open. A store must be made after a fork, not before: the
connections of a parent are no child's to use.
"""

import logging
import random
import re
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from urllib.parse import quote_from_bytes

from outcrop.storage.errors import (
    ObjectCorrupt,
    ObjectNotFound,
    ObjectTooBig,
    StorageError,
    StorageUnavailable,
)
from outcrop.storage.failover import (
    DIRECT,
    Attempt,
    Choose,
    Journey,
    Outcome,
    ProxyGroups,
    RetryPolicy,
    Router,
)
from outcrop.storage.http_handle import Answer, HttpHandle, HttpSettings, Request
from outcrop.storage.store import Sink, check_name

__all__ = ["Failover", "HttpSettings", "HttpStore"]

_log = logging.getLogger(__name__)

_UNESCAPED = "/:.@+-_~[],"
_NEEDS_NO_ESCAPING = re.compile(r"[0-9A-Za-z/:.@+\-_~\[\],]*", re.ASCII)


@dataclass(frozen=True, slots=True)
class Failover:
    """From now on another host or proxy is asked first."""

    kind: str
    """`host` or `proxy`."""

    old: str
    new: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Sources:
    """Clock and chance, replaced by tests."""

    now: Callable[[], float] = time.monotonic
    choose: Choose = random.randrange
    uniform: Callable[[float, float], float] = random.uniform


class HttpStore:
    """Reads from a chain of hosts through groups of proxies; implements `ObjectStore`."""

    def __init__(
        self,
        hosts: Sequence[str],
        *,
        proxies: str = DIRECT,
        fallback_proxies: str = "",
        settings: HttpSettings | None = None,
        external_hosts: Sequence[str] = (),
        external_proxies: str = DIRECT,
        external_fallback_proxies: str = "",
        on_failover: Callable[[Failover], None] | None = None,
        sources: Sources | None = None,
    ) -> None:
        """Hosts are whole base URLs (`http://HOST/cvmfs/FQRN`), proxies as `CVMFS_HTTP_PROXY`.

        Connects to nothing yet. Raises FormatError for what is no http(s) URL.
        """
        self._settings = settings or HttpSettings()
        self._sources = sources or Sources()
        self._on_failover = on_failover
        self._lock = threading.Lock()
        self._closed = threading.Event()
        self._slots = threading.Semaphore(self._settings.max_connections)
        self._handles: list[HttpHandle] = []
        self._idle: list[HttpHandle] = []
        self._router = self._new_router(hosts, ProxyGroups.parse(proxies, fallback_proxies))
        self._external = self._new_router(
            external_hosts, ProxyGroups.parse(external_proxies, external_fallback_proxies)
        )

    def _new_router(self, hosts: Sequence[str], proxies: ProxyGroups) -> Router | None:
        if not hosts:
            return None
        settings = self._settings
        policy = RetryPolicy(
            max_retries=settings.max_retries,
            backoff_init_seconds=settings.backoff_init_seconds,
            backoff_max_seconds=settings.backoff_max_seconds,
            proxy_reset_after_seconds=settings.proxy_reset_after_seconds,
            host_reset_after_seconds=settings.host_reset_after_seconds,
        )
        return Router(hosts, proxies, policy, self._sources.choose)

    @property
    def host_list(self) -> tuple[str, ...]:
        """All hosts, in order."""
        return self._router.hosts if self._router else ()

    @property
    def active_host(self) -> str | None:
        """The host asked first at the moment."""
        return self._router.active_host if self._router else None

    @property
    def proxy_groups(self) -> tuple[tuple[str, ...], ...]:
        """The proxies by group; `DIRECT` is none."""
        return self._router.proxies.groups if self._router else ()

    @property
    def active_proxy(self) -> str | None:
        """The proxy asked first at the moment."""
        return self._router.active_proxy if self._router else None

    @property
    def downloads(self) -> int:
        """How many requests were made, failed ones included."""
        return sum(handle.downloads for handle in self._handles)

    @property
    def received_bytes(self) -> int:
        """Bytes of all bodies."""
        return sum(handle.received_bytes for handle in self._handles)

    @property
    def transfer_seconds(self) -> float:
        """Time all requests took together."""
        return sum(handle.transfer_seconds for handle in self._handles)

    def fetch(self, name: str, sink: Sink, *, byte_range: tuple[int, int] | None = None) -> None:
        """Pour the file `name` of the repository into the sink; see `ObjectStore`."""
        if self._router is None:
            raise StorageUnavailable(f"{name}: no host is configured")
        path = check_name(name)
        if _NEEDS_NO_ESCAPING.fullmatch(path) is None:
            path = quote_from_bytes(path.encode("utf-8", "surrogateescape"), safe=_UNESCAPED)
        self._fetch(self._router, f"/{path}", sink, byte_range)

    def fetch_external(
        self, url_path: bytes, sink: Sink, *, byte_range: tuple[int, int] | None = None
    ) -> None:
        """Pour external data into the sink; see `ObjectStore`."""
        path = quote_from_bytes(b"/" + url_path.lstrip(b"/"), safe=_UNESCAPED)
        if self._external is None:
            raise StorageUnavailable(
                f"{path}: external data, and no external host is configured",
                hint="set CVMFS_EXTERNAL_URL",
            )
        self._fetch(self._external, path, sink, byte_range)

    def _fetch(
        self, router: Router, path: str, sink: Sink, byte_range: tuple[int, int] | None
    ) -> None:
        if byte_range is not None and byte_range[1] == 0:  # HTTP cannot ask for nothing
            sink.begin()
            sink.finish()
            return
        with self._lock:
            journey = router.start(self._sources.now())
        attempt: Attempt | None = journey.first()
        answers: list[Answer] = []
        while attempt is not None:
            answer = self._try(attempt, path, sink, byte_range)
            if answer.outcome is Outcome.OK:
                if answers:
                    self._conclude(router, journey)
                return
            answers.append(answer)
            attempt = self._next_attempt(router, journey, attempt, answer)
            if attempt is not None and attempt.backoff_limit_seconds > 0:
                self._closed.wait(self._sources.uniform(0, attempt.backoff_limit_seconds))
        raise _failure(path, journey, answers)

    def _try(
        self, attempt: Attempt, path: str, sink: Sink, byte_range: tuple[int, int] | None
    ) -> Answer:
        request = Request(attempt.host + path, attempt.proxy, attempt.no_cache, byte_range)
        with self._borrow_handle() as handle:
            sink.begin()
            answer = handle.get(request, sink)
        if self._closed.is_set():
            raise StorageUnavailable(f"{path}: the store was closed")
        if answer.outcome is Outcome.OK:
            try:
                sink.finish()
            except ObjectCorrupt as error:
                return Answer(Outcome.CORRUPT, str(error), error)
        return answer

    @contextmanager
    def _borrow_handle(self) -> Iterator[HttpHandle]:
        with self._slots:
            if self._closed.is_set():
                raise StorageUnavailable("the store was closed")
            handle = self._take_handle()
            try:
                yield handle
            finally:
                with self._lock:
                    self._idle.append(handle)
                    self._close_idle_if_closed()

    def _take_handle(self) -> HttpHandle:
        with self._lock:
            if self._idle:
                return self._idle.pop()
            handle = HttpHandle(self._settings)
            self._handles.append(handle)
            return handle

    def _next_attempt(
        self, router: Router, journey: Journey, attempt: Attempt, answer: Answer
    ) -> Attempt | None:
        with self._lock:
            before = router.active_host, router.active_proxy
            found = journey.next(attempt, answer.outcome, self._sources.now())
            after = router.active_host, router.active_proxy
        self._tell(before, after, answer.outcome.value)
        return found

    def _conclude(self, router: Router, journey: Journey) -> None:
        with self._lock:
            before = router.active_host, router.active_proxy
            journey.succeeded(self._sources.now())
            after = router.active_host, router.active_proxy
        self._tell(before, after, Outcome.NOT_FOUND.value)

    def _tell(self, before: tuple[str, str], after: tuple[str, str], reason: str) -> None:
        for kind, old, new in zip(("host", "proxy"), before, after, strict=True):
            if old == new:
                continue
            _log.warning("%s %s: %s; switched to %s", kind, old, reason, new, extra={"host": new})
            if self._on_failover is not None:
                self._on_failover(Failover(kind, old, new, reason))

    def switch_host(self) -> bool:
        """Ask the next host first from now on: this one's answers could not be believed.

        Returns whether there is another one.
        """
        router = self._router
        if router is None or len(router.hosts) < 2:
            return False
        with self._lock:
            old = router.active_host
            new = router.hosts[(router.hosts.index(old) + 1) % len(router.hosts)]
            router.leave_host(old, new, self._sources.now())
        self._tell((old, ""), (new, ""), "its answers are not believed")
        return True

    def close(self) -> None:
        """Break off what is under way (it raises StorageUnavailable) and close connections."""
        self._closed.set()
        with self._lock:
            for handle in self._handles:
                handle.is_cancelled = True
            self._close_idle_if_closed()

    def _close_idle_if_closed(self) -> None:
        if self._closed.is_set():
            while self._idle:
                self._idle.pop().close()


def _failure(path: str, journey: Journey, answers: Sequence[Answer]) -> StorageError:
    """What to raise after everything was tried; says what each place answered."""
    told = "; ".join(
        f"{attempt.host}{'' if attempt.proxy == DIRECT else f' through {attempt.proxy}'}: "
        f"{answer.outcome.value} ({answer.detail})"
        for (attempt, _), answer in zip(journey.failures, answers, strict=True)
    )
    message = f"{path[1:]}: {told}"
    if journey.is_not_found:
        return ObjectNotFound(message)
    last = answers[-1]
    if last.outcome is Outcome.CORRUPT:
        return ObjectCorrupt(message)
    if last.outcome is Outcome.TOO_BIG:
        return ObjectTooBig(message)
    return StorageUnavailable(message)
