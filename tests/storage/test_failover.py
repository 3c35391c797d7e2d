"""The choice of the next proxy and host: a pure machine against invented worlds."""

import random
from collections.abc import Callable, Mapping

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from outcrop.errors import FormatError
from outcrop.storage.failover import (
    DIRECT,
    Attempt,
    Journey,
    Outcome,
    ProxyGroups,
    RetryPolicy,
    Router,
    check_url,
    classify_status,
)

A, B, C = "http://a.test/cvmfs/x", "http://b.test/cvmfs/x", "http://c.test/cvmfs/x"
P, Q, R, S = "http://p:3128", "http://q:3128", "http://r:3128", "http://s:3128"
HOST, PROXY = Outcome.HOST_CONNECTION, Outcome.PROXY_CONNECTION
NO_RETRY = RetryPolicy(max_retries=0)


def first_of(n: int) -> int:
    return 0


def router(
    hosts: tuple[str, ...] = (A,),
    proxies: str = DIRECT,
    policy: RetryPolicy = NO_RETRY,
    choose: Callable[[int], int] = first_of,
) -> Router:
    return Router(hosts, ProxyGroups.parse(proxies), policy, choose)


World = Callable[[Attempt], Outcome]


def travel(machine: Router, world: World, now: float = 0.0) -> tuple[list[Attempt], bool, Journey]:
    """One download in a world: what was tried, and whether it worked."""
    journey = machine.start(now)
    attempt: Attempt | None = journey.first()
    tried = []
    while attempt is not None:
        tried.append(attempt)
        assert len(tried) < 1000, "no end in sight"
        outcome = world(attempt)
        if outcome is Outcome.OK:
            journey.succeeded(now)
            return tried, True, journey
        attempt = journey.next(attempt, outcome, now)
    return tried, False, journey


def places(tried: list[Attempt]) -> list[tuple[str, str]]:
    return [(attempt.host, attempt.proxy) for attempt in tried]


def down(*dead: str) -> World:
    """These hosts and proxies do not answer, all others are well."""

    def world(attempt: Attempt) -> Outcome:
        if attempt.proxy in dead:
            return PROXY
        return HOST if attempt.host in dead else Outcome.OK

    return world


# Proxy lists


@pytest.mark.parametrize(
    ("text", "fallback", "expected"),
    [
        ("DIRECT", "", ((DIRECT,),)),
        ("", "", ((DIRECT,),)),
        ("http://p:3128", "", ((P,),)),
        ("p:3128", "", ((P,),)),
        ("http://p:3128/", "", ((P,),)),
        ("p:3128|q:3128;r:3128;DIRECT", "", ((P, Q), (R,), (DIRECT,))),
        (" p:3128 | q:3128 ; DIRECT ", "", ((P, Q), (DIRECT,))),
        ("p:3128|p:3128", "", ((P,),)),
        ("p:3128;;r:3128", "", ((P,), (DIRECT,), (R,))),
        ("p:3128;DIRECT", "q:3128;r:3128", ((P,), (Q,), (R,))),
        ("p:3128|DIRECT", "q:3128|DIRECT", ((P,), (Q,))),
        ("DIRECT", "q:3128", ((Q,),)),
        ("p:3128;DIRECT", "DIRECT", ((P,), (DIRECT,))),
        ("http://[::1]:3128", "", (("http://[::1]:3128",),)),
        ("https://p:3128", "", (("https://p:3128",),)),
    ],
)
def test_proxy_lists_are_read_as_upstream_reads_them(
    text: str, fallback: str, expected: tuple[tuple[str, ...], ...]
) -> None:
    assert ProxyGroups.parse(text, fallback).groups == expected


@pytest.mark.parametrize(
    "text",
    ["auto", "socks5://p:1080", "http://", "file:///etc/passwd", "http://p:x", "p q", "p\nq"],
)
def test_what_is_no_proxy_is_refused(text: str) -> None:
    with pytest.raises(FormatError):
        ProxyGroups.parse(f"q:3128;{text}|r:3128")


@given(st.text(max_size=60), st.text(max_size=20))
@settings(max_examples=100, deadline=None)
def test_any_text_is_a_proxy_list_or_refused(text: str, fallback: str) -> None:
    try:
        groups = ProxyGroups.parse(text, fallback).groups
    except FormatError:
        return
    assert groups
    assert all(groups)


@pytest.mark.parametrize(
    "url",
    [
        "ftp://a",
        "file:///srv",
        "a.test/cvmfs",
        "http://",
        "http://a b",
        "http://a?x",
        "http://a#x",
        "http://ü.test",
    ],
)
def test_hosts_are_http_urls(url: str) -> None:
    with pytest.raises(FormatError):
        router((url,))


def test_a_url_loses_its_last_slash() -> None:
    assert check_url("http://a.test/cvmfs/x/", "host") == A
    assert router((A, f"{A}/")).hosts == (A,)


def test_there_is_always_a_host() -> None:
    with pytest.raises(FormatError):
        router(())


# What answers mean


@pytest.mark.parametrize(
    ("status", "direct", "via_proxy"),
    [
        (404, Outcome.NOT_FOUND, Outcome.NOT_FOUND),
        (400, Outcome.HOST_HTTP, Outcome.HOST_HTTP),
        (500, Outcome.HOST_HTTP, Outcome.HOST_HTTP),
        (503, Outcome.HOST_HTTP, Outcome.HOST_HTTP),
        (429, HOST, HOST),
        (301, Outcome.HOST_HTTP, Outcome.HOST_HTTP),
        (302, Outcome.HOST_HTTP, Outcome.HOST_HTTP),
        (403, Outcome.HOST_HTTP, Outcome.PROXY_HTTP),
        (407, Outcome.HOST_HTTP, Outcome.PROXY_HTTP),
        (0, Outcome.HOST_HTTP, Outcome.PROXY_HTTP),
    ],
)
def test_a_status_blames_host_or_proxy(status: int, direct: Outcome, via_proxy: Outcome) -> None:
    assert classify_status(status, (), via_proxy=False) is direct
    assert classify_status(status, (), via_proxy=True) is via_proxy


@pytest.mark.parametrize(
    "header", [("x-squid-error", "ERR_DNS_FAIL 0"), ("proxy-status", "squid; error=dns_timeout")]
)
@pytest.mark.parametrize("status", [404, 429, 500, 503])
def test_a_proxy_that_speaks_for_itself_is_blamed(header: tuple[str, str], status: int) -> None:
    assert classify_status(status, [header], via_proxy=True) is Outcome.PROXY_HTTP
    assert classify_status(status, [header], via_proxy=False) is not Outcome.PROXY_HTTP
    assert classify_status(500, [("proxy-status", "squid")], via_proxy=True) is Outcome.HOST_HTTP


# One download


def test_what_works_is_asked_once() -> None:
    tried, worked, _ = travel(router((A, B), "p:3128|q:3128"), down())
    assert worked
    assert places(tried) == [(A, P)]


def test_connection_failures_are_tried_again_after_a_growing_wait() -> None:
    policy = RetryPolicy(max_retries=4, backoff_init_seconds=2, backoff_max_seconds=9)
    tried, worked, _ = travel(router(policy=policy), down(A))
    assert not worked
    assert [attempt.backoff_limit_seconds for attempt in tried] == [0, 2, 4, 8, 9]


@pytest.mark.parametrize("outcome", [Outcome.HOST_HTTP, Outcome.NOT_FOUND, Outcome.TOO_BIG])
def test_what_will_not_change_is_not_asked_again(outcome: Outcome) -> None:
    machine = router((A, B), policy=RetryPolicy(max_retries=3))
    tried, _, _ = travel(machine, lambda _: outcome)
    assert places(tried) == [(A, DIRECT), (B, DIRECT)]


def test_each_place_gets_its_own_retries() -> None:
    tried, _, _ = travel(router((A, B), policy=RetryPolicy(max_retries=1)), down(A, B))
    assert places(tried) == [(A, DIRECT)] * 2 + [(B, DIRECT)] * 2


def test_corrupt_bytes_are_asked_for_past_the_caches_then_elsewhere() -> None:
    tried, worked, _ = travel(router((A, B), "p:3128"), lambda _: Outcome.CORRUPT)
    assert not worked
    assert [(attempt.host, attempt.no_cache) for attempt in tried] == [
        (A, False),
        (A, True),
        (B, False),
        (B, True),
    ]


def test_a_burnt_group_gives_way_to_the_next() -> None:
    machine = router((A,), "p:3128|q:3128;r:3128|s:3128")
    tried, worked, _ = travel(machine, down(P, Q, R))
    assert worked
    assert places(tried) == [(A, P), (A, Q), (A, R), (A, S)]
    assert machine.active_proxy == S


def test_a_bad_host_looks_like_bad_proxies() -> None:
    machine = router((A, B), "p:3128|q:3128")
    tried, worked, _ = travel(
        machine, lambda attempt: Outcome.OK if attempt.host == B else Outcome.PROXY_HTTP
    )
    assert worked
    assert places(tried) == [(A, P), (A, Q), (B, P)]
    assert (machine.active_host, machine.active_proxy) == (B, P)


def test_a_host_that_fails_burns_no_proxy() -> None:
    machine = router((A, B), "p:3128|q:3128")
    tried, _, _ = travel(machine, down(A))
    assert places(tried) == [(A, P), (B, P)]
    assert machine.active_proxy == P


def test_with_direct_only_the_host_can_fail() -> None:
    tried, worked, _ = travel(router((A, B)), lambda _: PROXY)
    assert not worked
    assert places(tried) == [(A, DIRECT), (B, DIRECT)]


# Many downloads


def test_the_next_download_starts_where_the_last_one_succeeded() -> None:
    machine = router((A, B), "p:3128|q:3128;r:3128")
    world = down(A, P, Q)
    travel(machine, world)
    tried, _, _ = travel(machine, world)
    assert places(tried) == [(B, R)]


def test_after_a_while_the_first_group_and_the_first_host_are_back() -> None:
    policy = RetryPolicy(
        max_retries=0, proxy_reset_after_seconds=300, host_reset_after_seconds=1800
    )
    machine = router((A, B), "p:3128;r:3128", policy)
    travel(machine, down(A, P), now=1000)
    for now, expected in (
        (1299, (B, R)),
        (1300, (B, P)),
        (2799, (B, P)),
        (2800, (A, P)),
    ):
        tried, _, _ = travel(machine, down(), now=now)
        assert places(tried) == [expected]


def test_a_reset_time_of_zero_means_never() -> None:
    policy = RetryPolicy(max_retries=0, proxy_reset_after_seconds=0, host_reset_after_seconds=0)
    machine = router((A, B), "p:3128;r:3128", policy)
    travel(machine, down(A, P), now=0)
    assert places(travel(machine, down(), now=1e9)[0]) == [(B, R)]


def test_within_a_group_the_load_is_spread_and_a_choice_sticks() -> None:
    chosen = {
        router(proxies="p:3128|q:3128|r:3128", choose=random.Random(seed).randrange).active_proxy
        for seed in range(50)
    }
    assert chosen == {P, Q, R}
    machine = router(proxies="p:3128|q:3128|r:3128", choose=random.Random(1).randrange)
    assert len({places(travel(machine, down())[0])[0] for _ in range(50)}) == 1


def test_many_downloads_failing_at_once_switch_once() -> None:
    machine = router((A, B, C))
    journeys = [machine.start(0) for _ in range(10)]
    for journey in journeys:
        following = journey.next(journey.first(), Outcome.HOST_HTTP, 0)
        assert following is not None
        assert following.host == B
    assert machine.active_host == B


def test_a_host_that_lacks_what_another_has_is_left() -> None:
    machine = router((A, B))
    _, worked, _ = travel(
        machine, lambda attempt: Outcome.OK if attempt.host == B else Outcome.NOT_FOUND
    )
    assert worked
    assert machine.active_host == B


def test_what_is_nowhere_moves_nobody() -> None:
    machine = router((A, B))
    _, worked, journey = travel(machine, lambda _: Outcome.NOT_FOUND)
    assert not worked
    assert journey.is_not_found
    assert machine.active_host == A


def test_not_found_is_certain_only_if_every_host_said_so() -> None:
    outcomes: Mapping[str, Outcome] = {A: Outcome.NOT_FOUND, B: Outcome.HOST_HTTP}
    _, _, journey = travel(router((A, B)), lambda attempt: outcomes[attempt.host])
    assert not journey.is_not_found


# Any world

HOSTS = (A, B, C)
PROXIES = (P, Q, R, S, DIRECT)
FAILURES = [outcome for outcome in Outcome if outcome is not Outcome.OK]

proxy_texts = st.lists(
    st.lists(st.sampled_from(PROXIES), min_size=1, max_size=3).map("|".join),
    min_size=1,
    max_size=3,
).map(";".join)
policies = st.builds(
    RetryPolicy,
    max_retries=st.integers(0, 3),
    proxy_reset_after_seconds=st.sampled_from([0.0, 10.0]),
    host_reset_after_seconds=st.sampled_from([0.0, 30.0]),
)


@settings(max_examples=100, deadline=None)
@given(
    hosts=st.integers(1, 3),
    proxies=proxy_texts,
    policy=policies,
    downloads=st.lists(st.tuples(st.floats(0, 20), st.integers()), min_size=1, max_size=8),
)
def test_every_download_ends_soon_whatever_happens(
    hosts: int, proxies: str, policy: RetryPolicy, downloads: list[tuple[float, int]]
) -> None:
    machine = router(HOSTS[:hosts], proxies, policy)
    number = len(machine.proxies.proxies)
    now = 0.0
    for passed, seed in downloads:
        now += passed
        chance = random.Random(seed)
        tried, _, _ = travel(machine, lambda _, c=chance: c.choice(list(Outcome)), now)
        assert len(tried) <= hosts * number * (policy.max_retries + 3)
        assert machine.active_host in HOSTS[:hosts]
        assert machine.active_proxy in machine.proxies.proxies


@settings(max_examples=100, deadline=None)
@given(
    hosts=st.integers(1, 3),
    proxies=proxy_texts,
    policy=policies,
    broken=st.lists(st.sets(st.sampled_from([*HOSTS, *PROXIES[:-1]])), min_size=1, max_size=6),
    seed=st.integers(),
)
def test_nothing_is_given_up_before_everything_was_tried(
    hosts: int, proxies: str, policy: RetryPolicy, broken: list[set[str]], seed: int
) -> None:
    """Where one way works it is found, whatever happened before."""
    machine = router(HOSTS[:hosts], proxies, policy, random.Random(seed).randrange)
    ways = machine.proxies.proxies
    for number, dead in enumerate(broken):
        tried, worked, _ = travel(machine, down(*dead), now=float(number))
        has_way = bool(set(machine.hosts) - dead) and bool(set(ways) - dead)
        if has_way:
            assert worked
        elif not worked and set(machine.hosts) <= dead and not set(ways) & dead:
            assert {attempt.host for attempt in tried} == set(machine.hosts)
        elif not worked and set(ways) <= dead:
            assert {attempt.proxy for attempt in tried} == set(ways)


@settings(max_examples=100, deadline=None)
@given(proxies=proxy_texts, seed=st.integers(), downloads=st.integers(1, 10))
def test_a_burnt_proxy_is_not_asked_again_while_another_is_left(
    proxies: str, seed: int, downloads: int
) -> None:
    chance = random.Random(seed)
    machine = router((A,), proxies, choose=chance.randrange)
    alive = chance.choice(machine.proxies.proxies)
    failed: list[str] = []

    def world(attempt: Attempt) -> Outcome:
        if attempt.proxy == alive:
            return Outcome.OK
        failed.append(attempt.proxy)
        return PROXY if attempt.proxy != DIRECT else Outcome.OK

    for _ in range(downloads):
        travel(machine, world, now=1.0)
    assert len(failed) - failed.count(DIRECT) == len(set(failed) - {DIRECT})
