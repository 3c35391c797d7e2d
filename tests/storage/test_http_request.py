"""Request heads: read exactly or refused by a status, whatever the bytes."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from outcrop.storage.http_request import (
    MAX_HEAD_BYTES,
    Refused,
    Request,
    choose_range,
    find_head,
)

PATH = "/cvmfs/a.example.org/.cvmfspublished"


def head(line: str = f"GET {PATH} HTTP/1.1", *headers: str) -> bytes:
    return "\r\n".join([line, "Host: here", *headers, "", ""]).encode("latin-1")


def refusal(data: bytes) -> int:
    with pytest.raises(Refused) as caught:
        Request.parse(data)
    return caught.value.status


def test_reads_method_and_path() -> None:
    assert Request.parse(head()) == Request("GET", PATH, keeps_alive=True)
    assert Request.parse(head(f"HEAD {PATH} HTTP/1.1")).method == "HEAD"


@pytest.mark.parametrize(
    "target", [f"{PATH}?a=b", f"http://other:8000{PATH}", f"HTTP://other{PATH}?x"]
)
def test_host_and_query_are_not_part_of_the_path(target: str) -> None:
    assert Request.parse(head(f"GET {target} HTTP/1.1")).path == PATH


@pytest.mark.parametrize(
    ("line", "headers", "keeps_alive"),
    [
        ("GET / HTTP/1.1", [], True),
        ("GET / HTTP/1.1", ["Connection: Close"], False),
        ("GET / HTTP/1.0", [], False),
        ("GET / HTTP/1.0", ["Connection: Keep-Alive"], True),
        ("GET / HTTP/1.1", ["Content-Length: 3"], False),
        ("GET / HTTP/1.1", ["Transfer-Encoding: chunked"], False),
        ("GET / HTTP/1.1", ["Content-Length: 0"], True),
    ],
)
def test_knows_when_the_connection_goes_on(
    line: str, headers: list[str], keeps_alive: bool
) -> None:
    assert Request.parse(head(line, *headers)).keeps_alive is keeps_alive


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"\r\n\r\n", 400),
        (head("GET  / HTTP/1.1"), 400),
        (head("GET / HTTP/1.1 "), 400),
        (head("GET /\x00 HTTP/1.1"), 400),
        (head("GET /é HTTP/1.1"), 400),
        (head("GET / HTTP/2.0"), 505),
        (head("POST / HTTP/1.1"), 405),
        (head("get / HTTP/1.1"), 405),
        (b"GET / HTTP/1.1\r\n\r\n", 400),
        (head("GET / HTTP/1.1", "Broken"), 400),
        (head("GET / HTTP/1.1", " folded: x"), 400),
        (head("GET / HTTP/1.1", "Name : x"), 400),
        (head("GET / HTTP/1.1", "A: b\x00c"), 400),
        (head("GET / HTTP/1.1", "A: b\nInjected: c"), 400),
    ],
)
def test_refuses_what_is_no_request_for_a_file(data: bytes, status: int) -> None:
    assert refusal(data) == status


def test_a_range_counts_for_get_only_and_never_with_a_validator() -> None:
    assert Request.parse(head(f"GET {PATH} HTTP/1.1", "Range: bytes=0-1")).byte_range == "bytes=0-1"
    assert Request.parse(head(f"HEAD {PATH} HTTP/1.1", "Range: bytes=0-1")).byte_range is None
    both = head(f"GET {PATH} HTTP/1.1", "Range: bytes=0-1", 'If-Range: "e"')
    assert Request.parse(both).byte_range is None


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=300))
def test_any_bytes_are_a_request_or_refused(data: bytes) -> None:
    try:
        request = Request.parse(data + b"\r\n\r\n")
    except Refused as refused:
        assert refused.status in (400, 405, 505)
    else:
        assert request.method in ("GET", "HEAD")


def test_a_head_is_found_once_it_is_whole() -> None:
    data = head() + b"next"
    assert [find_head(data[:size]) for size in (0, 5, len(head()) - 1)] == [0, 0, 0]
    assert find_head(data) == len(head())


def test_an_endless_head_is_refused() -> None:
    assert find_head(b"a" * (MAX_HEAD_BYTES - 1)) == 0
    for data in (b"a" * MAX_HEAD_BYTES, b"a" * MAX_HEAD_BYTES + b"\r\n\r\n"):
        with pytest.raises(Refused) as caught:
            find_head(data)
        assert caught.value.status == 431


@pytest.mark.parametrize(
    ("wanted", "chosen"),
    [
        (None, None),
        ("bytes=0-0", (0, 1)),
        ("bytes=0-99", (0, 100)),
        ("bytes=10-", (10, 90)),
        ("bytes=90-1000", (90, 10)),
        ("bytes=-1", (99, 1)),
        ("bytes=-1000", (0, 100)),
        ("bytes=-", None),
        ("bytes=5-4", None),
        ("bytes=0-1,5-6", None),
        ("bytes= 0-1", None),
        ("lines=0-1", None),
        ("bytes=+1-2", None),
        ("bytes=1_0-20", None),
        ("bytes=0-99999999999999999999999999", None),
    ],
)
def test_chooses_the_range(wanted: str | None, chosen: tuple[int, int] | None) -> None:
    assert choose_range(wanted, 100) == chosen


@pytest.mark.parametrize("wanted", ["bytes=100-", "bytes=100-200", "bytes=-0"])
def test_a_range_beyond_the_file_is_refused(wanted: str) -> None:
    with pytest.raises(Refused) as caught:
        choose_range(wanted, 100)
    assert caught.value.status == 416


@settings(max_examples=100, deadline=None)
@given(st.from_regex(r"bytes=[0-9]{0,6}-[0-9]{0,6}", fullmatch=True), st.integers(0, 10_000))
def test_a_chosen_range_is_inside_the_file(wanted: str, size: int) -> None:
    try:
        chosen = choose_range(wanted, size)
    except Refused:
        return
    if chosen is not None:
        offset, length = chosen
        assert 0 <= offset < offset + length <= size
