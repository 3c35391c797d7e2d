"""The HTTP store against a real server and a real proxy, behaving and misbehaving."""

import datetime
import ipaddress
import logging
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from tests.support.objects import StoredObject, random_object, stored_object
from tests.support.servers import Fault, HttpProxy, HttpServer

from outcrop.errors import FormatError
from outcrop.formats.hashes import Compression, ObjectRef, Suffix
from outcrop.storage.errors import (
    ObjectCorrupt,
    ObjectNotFound,
    ObjectTooBig,
    StorageError,
    StorageUnavailable,
)
from outcrop.storage.http import Failover, HttpSettings, HttpStore
from outcrop.storage.store import MemorySink, read_file, read_object

QUICK = HttpSettings(
    timeout_seconds=1,
    timeout_direct_seconds=1,
    low_speed_limit=10_000,
    max_retries=0,
    backoff_init_seconds=0.01,
)
RETRYING = replace(QUICK, max_retries=1)


@pytest.fixture
def made() -> StoredObject:
    return random_object(6000)


@pytest.fixture
def server(made: StoredObject) -> Iterator[HttpServer]:
    with HttpServer(files_of(made)) as started:
        yield started


@pytest.fixture
def other(made: StoredObject) -> Iterator[HttpServer]:
    with HttpServer(files_of(made)) as started:
        yield started


@pytest.fixture
def proxy() -> Iterator[HttpProxy]:
    with HttpProxy() as started:
        yield started


def files_of(made: StoredObject) -> dict[str, bytes]:
    return {
        f"/{made.ref.path}": made.stored,
        "/.cvmfspublished": b"manifest",
        "/external/file": bytes(range(256)) * 40,
    }


@contextmanager
def store_of(*hosts: HttpServer | str, **options: object) -> Iterator[HttpStore]:
    urls = [host if isinstance(host, str) else host.url for host in hosts]
    options.setdefault("settings", QUICK)
    store = HttpStore(urls, **options)  # type: ignore[arg-type]
    try:
        yield store
    finally:
        store.close()


@contextmanager
def within(seconds: float) -> Iterator[None]:
    started = time.monotonic()
    yield
    assert time.monotonic() - started < seconds


def closed_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


# Requests


def test_a_request_looks_like_upstreams(server: HttpServer, made: StoredObject) -> None:
    with store_of(server) as store:
        read_object(store, made.ref, limit=1)
    (request,) = server.requests
    assert request.method == "GET"
    assert request.target == f"/{made.ref.path}"
    assert request.headers["user-agent"].startswith("cvmfs Fuse ")
    assert request.headers["accept"] == "*/*"
    assert request.headers["connection"].lower() == "keep-alive"
    assert set(request.headers) == {"host", "user-agent", "accept", "connection"}


def test_a_connection_is_used_again_also_after_an_error(
    server: HttpServer, made: StoredObject
) -> None:
    with store_of(server) as store:
        for _ in range(5):
            read_object(store, made.ref, limit=1)
            with pytest.raises(ObjectNotFound):
                read_file(store, "nothing")
        assert store.downloads == 10
        assert store.received_bytes > 5 * len(made.stored)
        assert store.transfer_seconds > 0
    assert {request.connection for request in server.requests} == {1}


@pytest.mark.parametrize(
    ("path", "target"),
    [
        (b"/a/b-_.~:@+[],", "/a/b-_.~:@+[],"),
        (b"/a b", "/a%20b"),
        (b"/a%20b", "/a%2520b"),
        (b"/a?b#c&d=e;f", "/a%3Fb%23c%26d%3De%3Bf"),
        (b"/\xff\xc3\xa9", "/%FF%C3%A9"),
        (b"/(x)!*'$", "/%28x%29%21%2A%27%24"),
        (b"relative", "/relative"),
        (b"/a/../b/./c", "/a/../b/./c"),
        (b"/new\nline\r\nX: y", "/new%0Aline%0D%0AX:%20y"),
    ],
)
def test_urls_are_escaped_byte_for_byte(server: HttpServer, path: bytes, target: str) -> None:
    with store_of(server, external_hosts=[server.url]) as store, pytest.raises(ObjectNotFound):
        store.fetch_external(path, MemorySink(10))
    assert server.requests[0].target == target


def test_no_proxy_of_the_environment_is_asked(
    server: HttpServer, proxy: HttpProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("http_proxy", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, proxy.address)
    with store_of(server) as store:
        assert read_file(store, ".cvmfspublished") == b"manifest"
    assert proxy.requests == []
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with store_of(server, proxies=proxy.address) as store:
        assert read_file(store, ".cvmfspublished") == b"manifest"
    assert len(proxy.requests) == 1


def test_what_is_no_web_server_is_refused(tmp_path: Path) -> None:
    for url in (f"file://{tmp_path}", "ftp://a.test", "gopher://a", "a.test"):
        with pytest.raises(FormatError):
            HttpStore([url])


def test_without_hosts_nothing_is_available() -> None:
    with store_of() as store:
        with pytest.raises(StorageUnavailable):
            read_file(store, "file")
        with pytest.raises(StorageUnavailable):
            store.fetch_external(b"/f", MemorySink(1))
        assert (store.active_host, store.active_proxy, store.host_list) == (None, None, ())


# Every way to misbehave

HARMFUL = [
    (Fault.KILL, StorageUnavailable),
    (Fault.RESET, StorageUnavailable),
    (Fault.STALL, StorageUnavailable),
    (Fault.STALL_IN_BODY, StorageUnavailable),
    (Fault.SLOW_HEADERS, StorageUnavailable),
    (Fault.SLOW_BODY, StorageUnavailable),
    (Fault.GARBAGE, StorageUnavailable),
    (Fault.GARBAGE_HEADERS, StorageUnavailable),
    (Fault.ERROR_400, StorageUnavailable),
    (Fault.ERROR_403, StorageUnavailable),
    (Fault.ERROR_404, ObjectNotFound),
    (Fault.ERROR_429, StorageUnavailable),
    (Fault.ERROR_500, StorageUnavailable),
    (Fault.ERROR_503, StorageUnavailable),
    (Fault.ERROR_ENDLESS, StorageUnavailable),
    (Fault.TRUNCATE, StorageUnavailable),
    (Fault.SHORT, ObjectCorrupt),
    (Fault.EMPTY, ObjectCorrupt),
    (Fault.FLIP, ObjectCorrupt),
    (Fault.WRONG_BODY, ObjectCorrupt),
    (Fault.OVERSIZED, ObjectCorrupt),
    (Fault.REDIRECT, StorageUnavailable),
    (Fault.REDIRECT_LOOP, StorageUnavailable),
]


@pytest.mark.parametrize(("fault", "error"), HARMFUL, ids=lambda value: getattr(value, "name", ""))
def test_the_only_server_misbehaves_and_it_ends_soon_with_its_error(
    server: HttpServer, made: StoredObject, fault: Fault, error: type[StorageError]
) -> None:
    server.fail(fault)
    with store_of(server) as store, within(8):
        with pytest.raises(error, match=server.url) as caught:
            read_object(store, made.ref, limit=1)
        assert made.ref.path in str(caught.value)
        server.behave()
        assert read_object(store, made.ref, limit=1) == made.plain


@pytest.mark.parametrize(("fault", "error"), HARMFUL, ids=lambda value: getattr(value, "name", ""))
def test_one_server_misbehaves_and_the_other_serves(
    server: HttpServer,
    other: HttpServer,
    made: StoredObject,
    fault: Fault,
    error: type[StorageError],
) -> None:
    server.fail(fault)
    with store_of(server, other) as store, within(8):
        assert read_object(store, made.ref, limit=1) == made.plain
        assert store.active_host == other.url
        asked = len(server.requests)
        assert read_object(store, made.ref, limit=1) == made.plain
        assert len(server.requests) == asked


PROXY_FAULTS = [
    Fault.KILL,
    Fault.RESET,
    Fault.STALL,
    Fault.STALL_IN_BODY,
    Fault.SLOW_HEADERS,
    Fault.GARBAGE,
    Fault.GARBAGE_HEADERS,
    Fault.ERROR_403,
    Fault.ERROR_502_SQUID,
    Fault.TRUNCATE,
]


@pytest.mark.parametrize("fault", PROXY_FAULTS, ids=lambda fault: fault.name)
def test_one_proxy_misbehaves_and_the_other_serves(
    server: HttpServer, proxy: HttpProxy, made: StoredObject, fault: Fault
) -> None:
    proxy.fail(fault)
    with (
        within(8),
        HttpProxy() as spare,
        store_of(server, proxies=f"{proxy.address};{spare.address}") as store,
    ):
        assert read_object(store, made.ref, limit=1) == made.plain
        assert store.active_proxy == spare.address
        assert store.active_host == server.url
        asked = len(proxy.requests)
        assert read_object(store, made.ref, limit=1) == made.plain
        assert len(proxy.requests) == asked


@pytest.mark.parametrize("fault", [Fault.KILL, Fault.ERROR_429, Fault.TRUNCATE, Fault.GARBAGE])
def test_a_passing_failure_is_tried_again_at_the_same_place(
    server: HttpServer, other: HttpServer, made: StoredObject, fault: Fault
) -> None:
    server.fail(fault, times=1)
    with store_of(server, other, settings=RETRYING) as store:
        assert read_object(store, made.ref, limit=1) == made.plain
    assert len(server.requests) == 2
    assert other.requests == []


def test_a_server_that_is_gone_and_comes_back(server: HttpServer, made: StoredObject) -> None:
    with store_of(server) as store, within(8):
        assert read_object(store, made.ref, limit=1) == made.plain
        server.stop()
        with pytest.raises(StorageUnavailable) as caught:
            read_object(store, made.ref, limit=1)
        assert caught.value.is_retryable
        server.start()
        assert read_object(store, made.ref, limit=1) == made.plain


def test_a_dead_proxy_and_no_other_is_unavailable_and_tells_both(
    server: HttpServer, made: StoredObject
) -> None:
    dead = f"http://127.0.0.1:{closed_port()}"
    with (
        within(8),
        store_of(server, proxies=dead) as store,
        pytest.raises(StorageUnavailable) as caught,
    ):
        read_object(store, made.ref, limit=1)
    assert dead in str(caught.value)
    assert server.url in str(caught.value)
    assert server.requests == []


def test_direct_is_a_way_out_if_allowed(server: HttpServer, made: StoredObject) -> None:
    dead = f"http://127.0.0.1:{closed_port()}"
    with store_of(server, proxies=f"{dead};DIRECT") as store, within(8):
        assert read_object(store, made.ref, limit=1) == made.plain
        assert store.active_proxy == "DIRECT"
        assert store.proxy_groups == ((dead,), ("DIRECT",))


def test_fallback_proxies_come_last(
    server: HttpServer, proxy: HttpProxy, made: StoredObject
) -> None:
    dead = f"http://127.0.0.1:{closed_port()}"
    with store_of(server, proxies=f"{dead};DIRECT", fallback_proxies=proxy.address) as store:
        assert read_object(store, made.ref, limit=1) == made.plain
    assert len(proxy.requests) == 1


def test_a_host_the_proxy_cannot_reach_is_left(
    server: HttpServer, proxy: HttpProxy, made: StoredObject
) -> None:
    gone = f"http://127.0.0.1:{closed_port()}"
    with store_of(gone, server, proxies=proxy.address) as store, within(8):
        assert read_object(store, made.ref, limit=1) == made.plain
        assert store.active_host == server.url
        assert store.host_list == (gone, server.url)
        assert store.active_proxy == proxy.address


def test_a_host_name_that_does_not_exist_is_left(server: HttpServer, made: StoredObject) -> None:
    with store_of("http://nowhere.invalid/cvmfs/x", server) as store, within(20):
        assert read_object(store, made.ref, limit=1) == made.plain


# Corruption


def test_a_poisoned_cache_on_the_way_is_asked_past(
    server: HttpServer, proxy: HttpProxy, made: StoredObject
) -> None:
    proxy.poisoned[f"/{made.ref.path}"] = b"poison"
    with store_of(server, proxies=proxy.address) as store:
        assert read_object(store, made.ref, limit=1) == made.plain
    first, second = proxy.requests
    assert "cache-control" not in first.headers
    assert second.headers["cache-control"] == "no-cache"
    assert second.headers["pragma"] == "no-cache"
    with store_of(server, proxies=proxy.address) as store:
        read_file(store, ".cvmfspublished")
    assert "pragma" not in proxy.requests[-1].headers


def test_corrupt_everywhere_is_corrupt_after_every_host_was_asked_twice(
    server: HttpServer, other: HttpServer, made: StoredObject
) -> None:
    server.fail(Fault.FLIP)
    other.fail(Fault.FLIP)
    with store_of(server, other) as store, pytest.raises(ObjectCorrupt, match=other.url):
        read_object(store, made.ref, limit=1)
    assert [len(server.requests), len(other.requests)] == [2, 2]


def test_too_big_here_may_be_right_elsewhere(server: HttpServer, other: HttpServer) -> None:
    server.fail(Fault.OVERSIZED)
    with store_of(server, other) as store, within(8):
        assert read_file(store, ".cvmfspublished", limit=1000) == b"manifest"
    with store_of(server) as store, within(8), pytest.raises(ObjectTooBig):
        read_file(store, ".cvmfspublished", limit=1000)


def test_no_transfer_is_larger_than_the_settings_allow(
    server: HttpServer, made: StoredObject
) -> None:
    with store_of(server, settings=replace(QUICK, max_bytes=1000)) as store:
        with pytest.raises(ObjectTooBig):
            read_object(store, made.ref, limit=1)
        assert read_file(store, ".cvmfspublished") == b"manifest"
        server.fail(Fault.OVERSIZED)
        with within(8), pytest.raises(ObjectTooBig):
            read_file(store, ".cvmfspublished")


# Not found


def test_what_one_host_lacks_another_may_have(
    server: HttpServer, other: HttpServer, made: StoredObject
) -> None:
    server.fail(Fault.ERROR_404)
    with store_of(server, other) as store:
        assert read_object(store, made.ref, limit=1) == made.plain
        assert store.active_host == other.url


def test_what_is_nowhere_is_not_found_and_nobody_is_left_for_it(
    server: HttpServer, other: HttpServer
) -> None:
    with store_of(server, other) as store:
        with pytest.raises(ObjectNotFound, match=r"\.cvmfs_status\.json"):
            read_file(store, ".cvmfs_status.json")
        assert store.active_host == server.url
    assert server.paths == other.paths == ["/.cvmfs_status.json"]


def test_not_found_is_uncertain_while_a_host_is_silent(
    server: HttpServer, other: HttpServer
) -> None:
    other.fail(Fault.KILL)
    with store_of(server, other) as store, pytest.raises(StorageUnavailable):
        read_file(store, "nothing")


# Redirects


def test_redirects_are_followed_only_where_allowed(
    server: HttpServer, other: HttpServer, made: StoredObject
) -> None:
    server.fail(Fault.REDIRECT)
    server.redirect_to = other.url
    with store_of(server) as store, pytest.raises(StorageUnavailable, match="302"):
        read_object(store, made.ref, limit=1)
    assert other.requests == []
    with store_of(server, settings=replace(QUICK, follow_redirects=True)) as store:
        assert read_object(store, made.ref, limit=1) == made.plain
    assert len(other.requests) == 1


def test_redirects_do_not_go_round_for_ever_nor_to_files(
    server: HttpServer, tmp_path: Path
) -> None:
    following = replace(QUICK, follow_redirects=True)
    server.fail(Fault.REDIRECT_LOOP, path="loop")
    server.fail(Fault.REDIRECT, path="cvmfspublished")
    (tmp_path / ".cvmfspublished").write_bytes(b"local file")
    server.redirect_to = f"file://{tmp_path}"
    with store_of(server, settings=following) as store, within(8):
        with pytest.raises(StorageUnavailable):
            read_file(store, "loop")
        assert len(server.requests) == 5
        with pytest.raises(StorageUnavailable):
            read_file(store, ".cvmfspublished")


# External data


def external(store: HttpStore, offset: int | None, size: int) -> bytes:
    whole = bytes(range(256)) * 40
    start = offset or 0
    part = stored_object(whole[start : start + size], compression=Compression.NONE)
    ref = ObjectRef(part.ref.hash, Suffix.CHUNK, Compression.NONE, size, b"/external/file", offset)
    return read_object(store, ref, limit=1)


@pytest.mark.parametrize("fault", [None, Fault.IGNORE_RANGE], ids=["206", "200"])
def test_parts_of_external_data_come_with_ranges_or_without(
    server: HttpServer, fault: Fault | None
) -> None:
    if fault:
        server.fail(fault)
    whole = bytes(range(256)) * 40
    with store_of(external_hosts=[server.url]) as store:
        assert external(store, None, len(whole)) == whole
        assert external(store, 0, 100) == whole[:100]
        assert external(store, 5000, 5240) == whole[5000:]
        assert external(store, 77, 1) == whole[77:78]
    assert [request.headers.get("range") for request in server.requests] == [
        None,
        "bytes=0-99",
        "bytes=5000-10239",
        "bytes=77-77",
    ]


def test_a_whole_file_instead_of_a_range_is_read_no_further_than_needed(
    server: HttpServer,
) -> None:
    server.fail(Fault.OVERSIZED)
    sink = MemorySink(1000)
    with store_of(external_hosts=[server.url]) as store, within(8):
        store.fetch_external(b"/external/file", sink, byte_range=(100_000, 1000))
        assert sink.data == b"x" * 1000
        assert store.received_bytes < 10_000_000


def test_another_range_than_asked_for_is_corrupt(server: HttpServer) -> None:
    server.fail(Fault.WRONG_RANGE)
    with store_of(external_hosts=[server.url]) as store, pytest.raises(ObjectCorrupt):
        external(store, 100, 50)


def test_external_data_has_hosts_and_proxies_of_its_own(
    server: HttpServer, other: HttpServer, proxy: HttpProxy
) -> None:
    options = {"proxies": proxy.address, "external_hosts": [other.url]}
    with store_of(server, **options) as store:
        assert read_file(store, ".cvmfspublished") == b"manifest"
        assert external(store, 10, 10) == bytes(range(10, 20))
    assert proxy.paths == server.paths == ["/.cvmfspublished"]
    assert other.paths == ["/external/file"]


# Threads, time, closing


def test_no_more_transfers_at_a_time_than_the_settings_allow(made: StoredObject) -> None:
    with HttpServer(files_of(made)) as server:
        settings = replace(QUICK, max_connections=3)
        with store_of(server, settings=settings) as store:
            wrong: list[bytes] = []

            def read() -> None:
                for _ in range(20):
                    data = read_object(store, made.ref, limit=1)
                    if data != made.plain:
                        wrong.append(data)

            threads = [threading.Thread(target=read) for _ in range(10)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join(30)
        assert not wrong
        assert len(server.requests) == 200
        assert max(request.connection for request in server.requests) <= 3


def in_thread(call: Callable[[], object]) -> tuple[threading.Thread, list[BaseException]]:
    errors: list[BaseException] = []

    def run() -> None:
        try:
            call()
        except StorageError as error:
            errors.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    return thread, errors


def wait_for(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_close_breaks_off_a_stalled_transfer(server: HttpServer, made: StoredObject) -> None:
    server.fail(Fault.STALL)
    patient = replace(QUICK, timeout_direct_seconds=60)
    with store_of(server, settings=patient) as store:
        thread, errors = in_thread(lambda: read_object(store, made.ref, limit=1))
        wait_for(lambda: server.requests)
        with within(5):
            store.close()
            thread.join(10)
    assert [type(error) for error in errors] == [StorageUnavailable]
    with pytest.raises(StorageUnavailable, match="closed"):
        read_file(store, ".cvmfspublished")


def test_close_ends_a_wait_between_two_tries(server: HttpServer, made: StoredObject) -> None:
    server.fail(Fault.KILL)
    patient = replace(QUICK, max_retries=5, backoff_init_seconds=3600, backoff_max_seconds=3600)
    with store_of(server, settings=patient) as store:
        thread, errors = in_thread(lambda: read_object(store, made.ref, limit=1))
        wait_for(lambda: server.requests)
        with within(5):
            store.close()
            thread.join(10)
    assert [type(error) for error in errors] == [StorageUnavailable]


class Interrupting:
    """A sink that is interrupted."""

    def begin(self) -> None:
        pass

    def write(self, block: bytes) -> None:
        raise KeyboardInterrupt

    def finish(self) -> None:
        pass


def test_an_interrupt_goes_through_and_the_store_stays_usable(
    server: HttpServer, made: StoredObject, capsys: pytest.CaptureFixture[str]
) -> None:
    with store_of(server) as store:
        for _ in range(20):  # more than there are connections
            with pytest.raises(KeyboardInterrupt):
                store.fetch(made.ref.path, Interrupting())
        assert read_object(store, made.ref, limit=1) == made.plain
    assert capsys.readouterr().err == ""


def test_a_failover_is_told_once(
    server: HttpServer, other: HttpServer, made: StoredObject, caplog: pytest.LogCaptureFixture
) -> None:
    server.stop()
    told: list[Failover] = []
    caplog.set_level(logging.WARNING)
    with store_of(server, other, on_failover=told.append) as store:
        for _ in range(3):
            read_object(store, made.ref, limit=1)
    assert told == [Failover("host", server.url, other.url, "host connection problem")]
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert other.url in caplog.text


# TLS


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A self-signed certificate for 127.0.0.1 with its key, in one file."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.datetime.now(datetime.UTC)
    address = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([address]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    path = tmp_path_factory.mktemp("tls") / "both.pem"
    path.write_bytes(
        certificate.public_bytes(serialization.Encoding.PEM)
        + key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return path


class TlsServer(HttpServer):
    """The same over TLS."""

    def __init__(self, files: dict[str, bytes], certificate: Path) -> None:
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(certificate)
        super().__init__(files)

    def _serve(self, connection: socket.socket, number: int, stopping: threading.Event) -> None:
        try:
            connection = self._context.wrap_socket(connection, server_side=True)
        except OSError:
            connection.close()
            return
        super()._serve(connection, number, stopping)


def test_https_is_checked_against_the_given_authorities(
    made: StoredObject, authority: Path
) -> None:
    with TlsServer(files_of(made), authority) as server:
        url = f"https://127.0.0.1:{server.port}"
        with store_of(url, settings=replace(QUICK, ca_bundle=authority)) as store:
            assert read_object(store, made.ref, limit=1) == made.plain
        with store_of(url) as store, pytest.raises(StorageUnavailable):
            read_object(store, made.ref, limit=1)
        assert len(server.requests) == 1
