"""Where to ask next: proxy groups, host chain, retries (spec 19.2, 19.3). Pure: no IO, no clock.

A `Router` is what all downloads share: the host and the proxy in use, and which proxies are burnt.
A `Journey` is one download: it is told how each attempt ended and says what to do next, until
something worked or everything was tried. Times are seconds of any clock that does not go back;
chance is a callable. Callers serialise: a router and its journeys are used under one lock.
"""

import enum
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from outcrop.errors import FormatError

DIRECT = "DIRECT"
"""How "no proxy" is written."""

Choose = Callable[[int], int]
"""Returns a random number in [0, n), as `random.randrange` does."""


class Outcome(enum.Enum):
    """How an attempt ended, by what is to be done about it; values are upstream's words."""

    OK = "ok"
    CORRUPT = "corrupted data received"
    TOO_BIG = "resource too big to download"
    NOT_FOUND = "host has no such file"
    HOST_HTTP = "host returned HTTP error"
    HOST_CONNECTION = "host connection problem"
    PROXY_HTTP = "proxy returned HTTP error"
    PROXY_CONNECTION = "proxy connection problem"

    @property
    def is_connection(self) -> bool:
        """Whether the same question, asked again a moment later, may be answered."""
        return self in (Outcome.HOST_CONNECTION, Outcome.PROXY_CONNECTION)

    @property
    def is_proxy(self) -> bool:
        """Whether the proxy is to blame."""
        return self in (Outcome.PROXY_HTTP, Outcome.PROXY_CONNECTION)


def classify_status(status: int, headers: Sequence[tuple[str, str]], *, via_proxy: bool) -> Outcome:
    """What an HTTP answer other than 2xx means. Header names are in lower case."""
    if via_proxy and _is_from_proxy(headers):
        return Outcome.PROXY_HTTP
    if status in (404, 410):
        return Outcome.NOT_FOUND
    if status == 429:
        return Outcome.HOST_CONNECTION
    if status == 400 or status >= 500 or status in _REDIRECTS or not via_proxy:
        return Outcome.HOST_HTTP
    return Outcome.PROXY_HTTP


_REDIRECTS = (301, 302, 303, 307, 308)


def _is_from_proxy(headers: Sequence[tuple[str, str]]) -> bool:
    return any(
        name == "x-squid-error" or (name == "proxy-status" and "error=" in value)
        for name, value in headers
    )


@dataclass(frozen=True, slots=True)
class ProxyGroups:
    """Groups in order of preference; load is spread over the members of a group."""

    groups: tuple[tuple[str, ...], ...]

    @classmethod
    def parse(cls, text: str, fallback: str = "") -> "ProxyGroups":
        """Read `CVMFS_HTTP_PROXY` and `CVMFS_FALLBACK_PROXY`: `a|b;c;DIRECT`.

        With fallback proxies there is no DIRECT, neither before nor among them. Raises
        FormatError.
        """
        groups = _parse_groups(text)
        fallback_groups = _without_direct(_parse_groups(fallback)) if fallback else ()
        if fallback_groups:
            groups = _without_direct(groups) + fallback_groups
        return cls(groups)

    @property
    def proxies(self) -> tuple[str, ...]:
        """All of them, in order, each once."""
        return tuple(dict.fromkeys(proxy for group in self.groups for proxy in group))


def _parse_groups(text: str) -> tuple[tuple[str, ...], ...]:
    return tuple(
        tuple(dict.fromkeys(_parse_proxy(member.strip()) for member in group.split("|")))
        for group in text.split(";")
    )


def _parse_proxy(text: str) -> str:
    if text in ("", DIRECT):
        return DIRECT
    if text == "auto":
        raise FormatError(
            "proxy `auto`: automatic proxy discovery is not supported",
            hint="name the proxies, or DIRECT",
        )
    return check_url(text if "://" in text else f"http://{text}", "proxy")


def _without_direct(groups: tuple[tuple[str, ...], ...]) -> tuple[tuple[str, ...], ...]:
    kept = (tuple(proxy for proxy in group if proxy != DIRECT) for group in groups)
    return tuple(group for group in kept if group)


_NOT_IN_URL = re.compile(r"[^!-~]")


def check_url(text: str, what: str) -> str:
    """Return an http(s) URL without its last slashes. Raises FormatError for anything else."""
    try:
        parts = urlsplit(text)
        _ = parts.port
    except ValueError as error:
        raise FormatError(f"{what} {text!r}: {error}") from error
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise FormatError(f"{what} {text!r}: expected http://… or https://… with a host name")
    if parts.query or parts.fragment or _NOT_IN_URL.search(text):
        raise FormatError(f"{what} {text!r}: no ? and # and nothing but printable ASCII is allowed")
    return text.rstrip("/")


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryPolicy:
    """How patient a download is. A reset time of 0 means never."""

    max_retries: int = 1
    backoff_init_seconds: float = 2.0
    backoff_max_seconds: float = 10.0
    proxy_reset_after_seconds: float = 300.0
    host_reset_after_seconds: float = 1800.0


@dataclass(frozen=True, slots=True)
class Attempt:
    """What to try: a host, a proxy, after how long a wait, and whether to ask past all caches."""

    host: str
    proxy: str
    no_cache: bool = False
    backoff_limit_seconds: float = 0.0
    """Wait a random time up to this first."""


class Router:
    """Which host and which proxy are in use, for all downloads of one kind."""

    def __init__(
        self, hosts: Sequence[str], proxies: ProxyGroups, policy: RetryPolicy, choose: Choose
    ) -> None:
        if not hosts:
            raise FormatError("no host to download from")
        self.hosts = tuple(dict.fromkeys(check_url(host, "host") for host in hosts))
        self.proxies = proxies
        self.policy = policy
        self._choose = choose
        self._host = self.hosts[0]
        self._host_left_at: float | None = None
        self._burnt: set[str] = set()
        self._proxy_left_at: float | None = None
        self._proxy = self._pick(frozenset()) or DIRECT

    @property
    def active_host(self) -> str:
        """The host asked first."""
        return self._host

    @property
    def active_proxy(self) -> str:
        """The proxy asked first; `DIRECT` for none."""
        return self._proxy

    def start(self, now: float) -> "Journey":
        """Begin a download."""
        self._reset_if_due(now)
        return Journey(self, self._host, self._proxy)

    def _reset_if_due(self, now: float) -> None:
        policy = self.policy
        if _is_due(self._host_left_at, policy.host_reset_after_seconds, now):
            self._host, self._host_left_at = self.hosts[0], None
        if _is_due(self._proxy_left_at, policy.proxy_reset_after_seconds, now):
            self.reset_proxies()

    def reset_proxies(self) -> None:
        """No proxy is burnt any more; one of the first group is chosen."""
        self._burnt.clear()
        self._proxy_left_at = None
        self._proxy = self._pick(frozenset()) or DIRECT

    def _pick(self, tried: frozenset[str]) -> str | None:
        """A random member of the first group that has one neither burnt nor tried."""
        for group in self.proxies.groups:
            members = [p for p in group if p not in self._burnt and p not in tried]
            if members:
                return members[self._choose(len(members))]
        return None

    def next_proxy(self, failed: str, tried: frozenset[str], now: float) -> str | None:
        """Burn a proxy; another one for a download that has tried these. None: none is left."""
        self._burnt.add(failed)
        if self._proxy_left_at is None:
            self._proxy_left_at = now
        if self._proxy == failed:
            self._proxy = self._pick(frozenset()) or self._proxy
        if self._proxy not in self._burnt and self._proxy not in tried:
            return self._proxy
        found = self._pick(tried)
        if found is None and not tried.issuperset(self.proxies.proxies):
            self.reset_proxies()  # all are burnt, but not by this download: it may ask them again
            found = self._pick(tried)
        return found

    def next_host(self, failed: str, tried: frozenset[str]) -> str | None:
        """The host to ask after one that failed; None if the download has tried them all."""
        start = self.hosts.index(failed)
        order = (self._host, *self.hosts[start:], *self.hosts[:start])
        return next((host for host in order if host not in tried), None)

    def leave_host(self, failed: str, replacement: str, now: float) -> None:
        """Let all further downloads ask the replacement first, if they still ask the failed one."""
        if self._host == failed:
            self._host = replacement
            if self._host_left_at is None:
                self._host_left_at = now


def _is_due(left_at: float | None, after: float, now: float) -> bool:
    return left_at is not None and after > 0 and now - left_at >= after


@dataclass
class Journey:
    """One download's way through hosts and proxies. Ends: nothing is tried without bound."""

    router: Router
    host: str
    proxy: str
    failures: list[tuple[Attempt, Outcome]] = field(default_factory=list)
    _tried_hosts: set[str] = field(init=False, default_factory=set)
    _tried_proxies: set[str] = field(init=False, default_factory=set)
    _retries: int = field(init=False, default=0)
    _no_cache: bool = field(init=False, default=False)

    def first(self) -> Attempt:
        """What to try first."""
        return Attempt(self.host, self.proxy)

    def next(self, attempt: Attempt, outcome: Outcome, now: float) -> Attempt | None:
        """What to try after an attempt failed; None if everything was tried."""
        self.failures.append((attempt, outcome))
        if outcome is Outcome.CORRUPT and not self._no_cache:
            self._no_cache = True
            return self._again(0.0)
        policy = self.router.policy
        if outcome.is_connection and self._retries < policy.max_retries:
            limit = policy.backoff_init_seconds * 2**self._retries
            self._retries += 1
            return self._again(min(limit, policy.backoff_max_seconds))
        self._retries = 0
        self._no_cache = False
        if outcome.is_proxy and self.proxy != DIRECT:
            return self._switch_proxy(now)
        return self._switch_host(outcome, now)

    def _again(self, backoff_limit_seconds: float) -> Attempt:
        return Attempt(self.host, self.proxy, self._no_cache, backoff_limit_seconds)

    def _switch_proxy(self, now: float) -> Attempt | None:
        self._tried_proxies.add(self.proxy)
        found = self.router.next_proxy(self.proxy, frozenset(self._tried_proxies), now)
        if found is None:  # a bad host looks like bad proxies
            self.router.reset_proxies()
            return self._switch_host(Outcome.HOST_CONNECTION, now)
        self.proxy = found
        return self._again(0.0)

    def _switch_host(self, outcome: Outcome, now: float) -> Attempt | None:
        self._tried_hosts.add(self.host)
        self._tried_proxies.clear()
        found = self.router.next_host(self.host, frozenset(self._tried_hosts))
        if found is None:
            return None
        if outcome is not Outcome.NOT_FOUND:
            self.router.leave_host(self.host, found, now)
        self.host, self.proxy = found, self.router.active_proxy
        return self._again(0.0)

    def succeeded(self, now: float) -> None:
        """The last attempt worked. A host that did not have what another has is left."""
        for attempt, outcome in self.failures:
            if outcome is Outcome.NOT_FOUND:
                self.router.leave_host(attempt.host, self.host, now)

    @property
    def is_not_found(self) -> bool:
        """Whether every host that was asked said so: it is nowhere."""
        hosts = {attempt.host for attempt, outcome in self.failures if outcome is Outcome.NOT_FOUND}
        return hosts == set(self.router.hosts)
