"""The static server: the headers of the specification, ranges, and no way out of the tree."""

import http.client
import logging
import os
import socket
import threading
import time
from collections.abc import Iterator
from email.utils import parsedate_to_datetime
from pathlib import Path

import pytest

from outcrop.storage.errors import StorageUnavailable
from outcrop.storage.serving import Served, Server, ServerLimits

FQRN = "a.example.org"
OBJECT = "data/ab/cdef0123456789"
BIG = "data/0f/00112233445566778899P"
MANIFEST = b"Cabc\n--\n\xff\x00"
BIG_BYTES = bytes(range(256)) * 2048


@pytest.fixture
def storage(tmp_path: Path) -> Path:
    root = tmp_path / "srv"
    for name, data in {
        ".cvmfspublished": MANIFEST,
        ".cvmfs_status.json": b"{}",
        OBJECT: b"0123456789",
        BIG: BIG_BYTES,
        "data/ab/00-shake128C": b"",
        "data/txn/upload": b"half",
        "README": b"not published",
    }.items():
        path = root / FQRN / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return root


@pytest.fixture
def server(storage: Path) -> Iterator[Server]:
    with Server(storage) as running:
        yield running


class Answer:
    def __init__(self, response: http.client.HTTPResponse) -> None:
        self.status = response.status
        self.headers = response.headers
        self.body = response.read()


def ask(
    server: Server,
    name: str,
    method: str = "GET",
    headers: dict[str, str] | None = None,
    *,
    fqrn: str = FQRN,
) -> Answer:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=10)
    try:
        connection.request(method, f"/cvmfs/{fqrn}/{name}", headers=headers or {})
        return Answer(connection.getresponse())
    finally:
        connection.close()


def converse(server: Server, data: bytes) -> bytes:
    """Everything the server says to these bytes until it closes."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as peer:
        peer.sendall(data)
        peer.shutdown(socket.SHUT_WR)
        return b"".join(iter(lambda: peer.recv(65536), b""))


@pytest.mark.parametrize(
    ("name", "kind", "seconds"),
    [
        (".cvmfspublished", "application/x-cvmfs", 61),
        (".cvmfs_status.json", "application/x-cvmfs", 61),
        (OBJECT, "application/octet-stream", 259200),
        ("data/ab/00-shake128C", "application/octet-stream", 259200),
    ],
)
def test_says_what_a_file_is_and_how_long_it_is_fresh(
    server: Server, storage: Path, name: str, kind: str, seconds: int
) -> None:
    answer = ask(server, name)
    assert (answer.status, answer.body) == (200, (storage / FQRN / name).read_bytes())
    assert answer.headers["Content-Type"] == kind
    assert answer.headers["Cache-Control"] == f"max-age={seconds}"
    expires = parsedate_to_datetime(answer.headers["Expires"]).timestamp()
    date = parsedate_to_datetime(answer.headers["Date"]).timestamp()
    assert abs(expires - date - seconds) <= 1
    assert abs(date - time.time()) < 60


def test_gives_no_validator_and_ignores_conditions(server: Server) -> None:
    conditions = {"If-Modified-Since": "Tue, 01 Jan 2036 00:00:00 GMT", "If-None-Match": "*"}
    answer = ask(server, OBJECT, headers=conditions)
    assert (answer.status, answer.body) == (200, b"0123456789")
    assert not {"Last-Modified", "ETag", "Content-Encoding"} & set(answer.headers)


@pytest.mark.parametrize("name", [OBJECT, BIG])
def test_head_tells_the_size_and_sends_nothing(server: Server, storage: Path, name: str) -> None:
    answer = ask(server, name, "HEAD")
    assert (answer.status, answer.body) == (200, b"")
    assert int(answer.headers["Content-Length"]) == (storage / FQRN / name).stat().st_size


@pytest.mark.parametrize(
    ("wanted", "offset", "length"),
    [("bytes=2-4", 2, 3), ("bytes=-1", 524287, 1), ("bytes=100000-", 100000, 424288)],
)
def test_a_range_is_sent_alone(server: Server, wanted: str, offset: int, length: int) -> None:
    answer = ask(server, BIG, headers={"Range": wanted})
    assert answer.status == 206
    assert answer.body == BIG_BYTES[offset : offset + length]
    assert answer.headers["Content-Range"] == f"bytes {offset}-{offset + length - 1}/524288"


def test_the_whole_file_asked_for_as_a_range_is_a_range(server: Server) -> None:
    assert ask(server, OBJECT, headers={"Range": "bytes=0-"}).status == 206


def test_several_ranges_are_answered_whole(server: Server) -> None:
    answer = ask(server, OBJECT, headers={"Range": "bytes=0-0,2-3"})
    assert (answer.status, answer.body) == (200, b"0123456789")


def test_a_range_beyond_the_end_is_unsatisfiable(server: Server) -> None:
    answer = ask(server, OBJECT, headers={"Range": "bytes=10-"})
    assert (answer.status, answer.headers["Content-Range"]) == (416, "bytes */10")


@pytest.mark.parametrize(
    "name",
    [
        "",
        "README",
        "data",
        "data/",
        "data/ab",
        "data/txn/upload",
        "data/ab/missing",
        "data/ab/0123",
        "data/ab/../../README",
        "data/ab/..%2f..%2fREADME",
        "data%2fab%2fcdef0123456789",
        "%2e%2e/secret",
        "../secret",
        ".cvmfs/../../secret",
        ".cvmfs..",
        ".cvmfspublished%00.txt",
        ".cvmfspublished/",
        "//.cvmfspublished",
        ".cvmfsmissing",
        ".cvmfs" + "a" * 300,
    ],
)
def test_finds_nothing_that_was_not_published(server: Server, storage: Path, name: str) -> None:
    (storage / "secret").write_bytes(b"secret")
    answer = ask(server, name)
    assert (answer.status, answer.body) == (404, b"")
    assert answer.headers["Cache-Control"] == "no-store"


@pytest.mark.parametrize("fqrn", ["..", ".", "", ".hidden", "b.example.org", "a" * 61, "a%2e"])
def test_serves_no_repository_of_a_wrong_name(server: Server, fqrn: str) -> None:
    assert ask(server, ".cvmfspublished", fqrn=fqrn).status == 404


def test_follows_no_link_below_the_repository(server: Server, storage: Path) -> None:
    (storage / "secret").write_bytes(b"secret")
    (storage / "objects/ab").mkdir(parents=True)
    (storage / "objects/ab/00").write_bytes(b"secret")
    repository = storage / FQRN
    (repository / ".cvmfslink").symlink_to("../secret")
    (repository / ".cvmfsdir").mkdir()
    (repository / "data/ab/01").symlink_to("../../../secret")
    (repository / "data/cd").symlink_to(storage / "objects/ab")
    (repository / ".cvmfsalt-ab").symlink_to("data/../../secret")
    os.mkfifo(repository / ".cvmfsfifo")
    for name in (
        ".cvmfslink", ".cvmfsdir", "data/ab/01", "data/cd/00", ".cvmfsalt-ab", ".cvmfsfifo",
    ):  # fmt: skip
        assert ask(server, name).status == 404, name


def test_a_shortcut_to_an_object_is_followed(server: Server, storage: Path) -> None:
    (storage / FQRN / ".cvmfsalt-abcdef0123456789").symlink_to(OBJECT)
    answer = ask(server, ".cvmfsalt-abcdef0123456789")
    assert (answer.status, answer.body) == (200, b"0123456789")


def test_the_repository_itself_may_be_a_link(server: Server, storage: Path) -> None:
    (storage / "b.example.org").symlink_to(FQRN)
    assert ask(server, OBJECT, fqrn="b.example.org").status == 200


def test_serves_only_the_repositories_named(storage: Path) -> None:
    with Server(storage, fqrns=["b.example.org"]) as server:
        assert ask(server, OBJECT).status == 404


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "TRACE"])
def test_writes_are_refused(server: Server, method: str) -> None:
    answer = ask(server, OBJECT, method)
    assert (answer.status, answer.headers["Allow"]) == (405, "GET, HEAD")


def test_one_connection_carries_many_requests(server: Server) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=10)
    connection.request("GET", f"/cvmfs/{FQRN}/{OBJECT}")
    connection.getresponse().read()
    socket_used = connection.sock
    for name in ("README", BIG, OBJECT):
        connection.request("GET", f"/cvmfs/{FQRN}/{name}")
        connection.getresponse().read()
        assert connection.sock is socket_used
    connection.close()


def test_pipelined_requests_are_answered_in_order(server: Server) -> None:
    one = f"GET /cvmfs/{FQRN}/{OBJECT} HTTP/1.1\r\nHost: x\r\n\r\n".encode()
    two = f"GET /cvmfs/{FQRN}/.cvmfspublished HTTP/1.1\r\nHost: x\r\n\r\n".encode()
    said = converse(server, one + two)
    assert said.index(b"0123456789") < said.index(MANIFEST)


def test_a_body_ends_the_connection_unread(server: Server) -> None:
    smuggled = f"GET /cvmfs/{FQRN}/README HTTP/1.1\r\nHost: x\r\n\r\n".encode()
    line = f"GET /cvmfs/{FQRN}/{OBJECT} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(smuggled)}\r\n"
    said = converse(server, line.encode() + b"\r\n" + smuggled)
    assert said.count(b"HTTP/1.1") == 1
    assert b"Connection: close" in said


def test_speaks_http_1_0(server: Server) -> None:
    said = converse(server, f"GET /cvmfs/{FQRN}/{OBJECT} HTTP/1.0\r\n\r\n".encode())
    assert said.endswith(b"\r\n\r\n0123456789")


def test_garbage_and_endless_heads_get_their_status(server: Server) -> None:
    assert converse(server, b"\x16\x03\x01 TLS hello\r\n\r\n").startswith(b"HTTP/1.1 400 ")
    assert converse(server, b"GET /" + b"a" * 20000).startswith(b"HTTP/1.1 431 ")


def test_a_client_too_slow_with_its_request_is_cut_off(storage: Path) -> None:
    limits = ServerLimits(head_seconds=0.05)
    with (
        Server(storage, limits=limits) as server,
        socket.create_connection(("127.0.0.1", server.port), timeout=10) as peer,
    ):
        peer.sendall(b"GET /cvmfs/")
        assert peer.recv(100).startswith(b"HTTP/1.1 408 ")


def test_an_idle_connection_makes_room_for_a_new_one(storage: Path) -> None:
    with Server(storage, limits=ServerLimits(connections=2)) as server:
        idle = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(5)]
        assert ask(server, OBJECT).body == b"0123456789"
        for peer in idle:
            peer.close()


def test_counts_and_tells_each_request(storage: Path) -> None:
    told: list[Served] = []
    with Server(storage, on_request=told.append) as server:
        ask(server, OBJECT, headers={"Range": "bytes=1-3"})
        ask(server, "README")
        ask(server, BIG, "HEAD")
        assert (server.requests, server.sent_bytes) == (3, 3)
    assert [(one.path.rpartition("/")[2], one.status, one.sent_bytes) for one in told] == [
        ("cdef0123456789", 206, 3),
        ("README", 404, 0),
        ("00112233445566778899P", 200, 0),
    ]


def test_the_access_log_is_one_line_of_printable_text(
    server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "outcrop.storage.serving")
    ask(server, OBJECT)
    converse(server, b"GET /\x1b[31m\n HTTP/1.1\r\nHost: x\r\n\r\n")
    lines = [record.getMessage() for record in caplog.records]
    assert lines == [f"GET /cvmfs/{FQRN}/{OBJECT} 200 10", "- - 400 0"]


def test_stopping_lets_a_running_answer_finish(storage: Path) -> None:
    big = storage / FQRN / "data/0f/00"
    big.write_bytes(b"x" * 30_000_000)
    server = Server(storage)
    server.start()
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as peer:
        peer.sendall(f"GET /cvmfs/{FQRN}/data/0f/00 HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        got = len(peer.recv(65536))
        stopping = threading.Thread(target=server.stop)
        stopping.start()
        while block := peer.recv(1 << 20):
            got += len(block)
        stopping.join(10)
    assert got > 30_000_000
    assert not stopping.is_alive()


def test_stopping_ends_idle_connections_at_once(storage: Path) -> None:
    server = Server(storage)
    server.start()
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as peer:
        ask(server, OBJECT)
        started = time.monotonic()
        server.stop()
        assert peer.recv(1) == b""
        assert time.monotonic() - started < 3


def test_a_taken_port_is_a_clear_error(server: Server, storage: Path) -> None:
    with pytest.raises(StorageUnavailable, match=f"127.0.0.1 port {server.port}") as caught:
        Server(storage, port=server.port)
    assert "--port" in (caught.value.hint or "")


def test_its_url_is_where_the_repositories_are(server: Server) -> None:
    assert server.url == f"http://127.0.0.1:{server.port}/cvmfs"
