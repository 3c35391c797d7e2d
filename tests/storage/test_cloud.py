"""A bucket as a store: what it sends, what it makes of failures, and that secrets stay secret."""

import random
import threading
from pathlib import Path
from typing import Any

import obstore
import pytest
from obstore.exceptions import GenericError, NotSupportedError
from obstore.store import MemoryStore as MemoryBucket
from tests.support.s3_server import Gate, free_port
from tests.support.servers import Fault, HttpServer

from outcrop.storage.cloud import CloudClients, CloudStore
from outcrop.storage.cloud_clients import create_bucket, open_bucket, open_by_settings
from outcrop.storage.errors import (
    AccessDenied,
    BucketMissing,
    FileChanged,
    InvalidName,
    ObjectNotFound,
    StorageFull,
    StorageSettingsError,
    StorageUnavailable,
)
from outcrop.storage.s3_settings import Flavor, S3Settings
from outcrop.storage.store import MemorySink, read_file


@pytest.fixture
def bucket() -> MemoryBucket:
    return MemoryBucket()


def store_in(bucket: MemoryBucket, prefix: str = "a.test", *, peeks: bool = True) -> CloudStore:
    clients = CloudClients(reader=bucket, writer=bucket)
    return CloudStore(clients, prefix=prefix, place="memory", peeks=peeks)


def settings_for(port: int, **changes: Any) -> S3Settings:
    values: dict[str, Any] = {
        "bucket": "software",
        "host": "127.0.0.1",
        "port": port,
        "access_key": "known",
        "secret_key": "hidden",
        "is_bucket_in_host": False,
        "max_retries": 0,
        "timeout_seconds": 2,
    }
    return S3Settings(**{**values, **changes})


def test_keys_are_below_the_prefix(bucket: MemoryBucket) -> None:
    store_in(bucket).write("data/aa/bb", b"x")
    store_in(bucket, "").write(".cvmfspublished", b"y")
    assert {item["path"] for page in obstore.list(bucket) for item in page} == {
        "a.test/data/aa/bb",
        ".cvmfspublished",
    }


def test_two_repositories_in_one_bucket_do_not_see_each_other(bucket: MemoryBucket) -> None:
    one, two = store_in(bucket, "a.test"), store_in(bucket, "a.test.longer")
    one.write("data/aa/bb", b"x")
    two.write("data/aa/cc", b"x")
    assert list(one.iter_names()) == ["data/aa/bb"]
    assert list(two.iter_names("data/")) == ["data/aa/cc"]


@pytest.mark.parametrize(
    ("name", "content_type", "cache_control"),
    [
        ("data/aa/bbC", "application/octet-stream", "max-age=259200"),
        (".cvmfspublished", "application/x-cvmfs", "max-age=61"),
        (".cvmfs_status.json", "application/x-cvmfs", "max-age=61"),
        ("stats/index.html", "text/html", None),
    ],
)
def test_readers_are_told_what_a_file_is_and_how_long_it_stays(
    bucket: MemoryBucket, name: str, content_type: str, cache_control: str | None
) -> None:
    store_in(bucket, "").write(name, b"x")
    attributes = obstore.get(bucket, name).attributes
    assert attributes.get("Content-Type") == content_type
    assert attributes.get("Cache-Control") == cache_control


def test_a_store_that_does_not_peek_writes_again(bucket: MemoryBucket) -> None:
    store = store_in(bucket, peeks=False)
    store.write("data/aa/bb", b"x")
    assert not store.holds("data/aa/bb", b"x")
    assert store.exists("data/aa/bb")


@pytest.mark.parametrize("can", [True, False])
def test_many_files_are_deleted_whether_the_service_can_or_not(
    bucket: MemoryBucket, monkeypatch: pytest.MonkeyPatch, can: bool
) -> None:
    store = store_in(bucket)
    names = [f"data/aa/{number}" for number in range(2500)]
    for name in names[::2]:
        store.write(name, b"x")
    store.write("data/aa/kept", b"x")
    delete, sizes = obstore.delete, []

    def bulk(client: MemoryBucket, keys: str | list[str]) -> None:
        if isinstance(keys, list):
            sizes.append(len(keys))
            if not can:
                raise ValueError("NotImplemented")
        delete(client, keys)

    monkeypatch.setattr(obstore, "delete", bulk)
    store.remove_many(names)
    assert sizes[0] == 1000
    assert list(store.iter_names()) == ["data/aa/kept"]


def test_names_that_begin_alike_are_listed_without_their_neighbours(
    bucket: MemoryBucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = store_in(bucket)
    names = {".cvmfsalt-aa", ".cvmfsalt-bb/x/y", ".cvmfspublished", "data/ab/1", "data/aa/2"}
    for name in names:
        store.write(name, b"x")
    assert set(store.iter_names("data/a")) == {"data/ab/1", "data/aa/2"}
    assert set(store.iter_names("data/ab/1")) == {"data/ab/1"}
    assert set(store.iter_names("none")) == set(store.iter_names("none/")) == set()
    list_all, listed = obstore.list, []
    monkeypatch.setattr(
        obstore, "list", lambda client, prefix: (listed.append(prefix), list_all(client, prefix))[1]
    )
    assert set(store.iter_names(".cvmfsalt-")) == {".cvmfsalt-aa", ".cvmfsalt-bb/x/y"}
    assert listed == ["a.test/.cvmfsalt-bb"]


def test_a_name_that_is_no_text_is_refused(bucket: MemoryBucket) -> None:
    store = store_in(bucket)
    with pytest.raises(InvalidName, match="UTF-8"):
        store.write("data/\udcff", b"x")
    with pytest.raises(InvalidName, match="UTF-8"):
        read_file(store, "data/\udcff")


def test_of_two_who_replace_the_same_one_wins(bucket: MemoryBucket) -> None:
    store_in(bucket).write(".cvmfspublished", b"old")
    gate = threading.Barrier(8)
    lost: list[int] = []

    def replace(number: int) -> None:
        store = store_in(bucket)
        gate.wait(timeout=10)
        try:
            store.replace(".cvmfspublished", b"new %d" % number, b"old")
        except FileChanged:
            lost.append(number)

    threads = [threading.Thread(target=replace, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=10)
    assert len(lost) == 7
    winner = int(read_file(store_in(bucket), ".cvmfspublished").split()[1])
    assert winner not in lost


def test_a_large_file_goes_in_parts_and_reads_back(
    bucket: MemoryBucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("outcrop.storage.cloud._MAX_SINGLE_PUT_BYTES", 1 << 20)
    monkeypatch.setattr("outcrop.storage.cloud._PART_BYTES", 300_000)
    data = bytes(range(256)) * 10_000
    store = store_in(bucket)
    store.write("data/aa/big", data)
    assert read_file(store, "data/aa/big") == data
    sink = MemorySink(100)
    store.fetch("data/aa/big", sink, byte_range=(1_000_000, 100))
    assert sink.data == data[1_000_000:1_000_100]


ANSWERS = [
    ("403 Forbidden", "SignatureDoesNotMatch", AccessDenied, "secret key"),
    ("403 Forbidden", "InvalidAccessKeyId", AccessDenied, "access key"),
    ("403 Forbidden", "RequestTimeTooSkewed", AccessDenied, "clock"),
    ("400 Bad Request", "AccessControlListNotSupported", AccessDenied, "X_AMZ_ACL"),
    ("401 Unauthorized", "", AccessDenied, "key"),
    ("404 Not Found", "NoSuchBucket", BucketMissing, "bucket"),
    ("404 Not Found", "NoSuchKey", ObjectNotFound, ""),
    ("507 Insufficient Storage", "", StorageFull, "quota"),
    ("403 Forbidden", "QuotaExceeded", StorageFull, "quota"),
    ("500 Internal Server Error", "InternalError", StorageUnavailable, "again"),
    ("503 Slow Down", "SlowDown", StorageUnavailable, "again"),
]


@pytest.mark.parametrize(("status", "code", "expected", "hint"), ANSWERS)
def test_an_answer_becomes_an_error_that_says_what_to_do(
    status: str, code: str, expected: type[Exception], hint: str
) -> None:
    body = f"<Error><Code>{code}</Code><Message>secret</Message></Error>".encode() if code else b""
    with Gate(1) as gate:
        store = open_by_settings(settings_for(gate.port), "a.test")
        gate.answer(status, 2, body)
        with pytest.raises(expected) as read:
            read_file(store, ".cvmfspublished")
        with pytest.raises(expected) as written:
            store.write(".cvmfspublished", b"x")
    for caught in (read, written):
        assert type(caught.value) is expected
        assert ".cvmfspublished" in str(caught.value)
        assert code in str(caught.value) or expected is ObjectNotFound
        assert "secret" not in str(caught.value)
        assert hint in (getattr(caught.value, "hint", "") or "")


def test_a_hiccup_is_retried(tmp_path: Path) -> None:
    served = {"/software/a.test/.cvmfspublished": b"manifest"}
    with HttpServer(served) as server, Gate(server.port) as gate:
        store = open_by_settings(settings_for(gate.port, max_retries=3), "a.test")
        gate.answer("503 Slow Down", 1)
        gate.answer("500 Internal Server Error", 1)
        assert not store.exists("data/aa/none")
        assert gate.connections >= 3


def test_nobody_listening_is_said_quickly() -> None:
    store = open_by_settings(settings_for(free_port()), "a.test")
    with pytest.raises(StorageUnavailable, match=r"127\.0\.0\.1.*no connection"):
        store.write("file", b"x")


def requests_of(settings: S3Settings) -> HttpServer:
    """Put a file at a server that notes what it is sent; it answers 404 to all."""
    with HttpServer({}) as server:
        store = open_by_settings(S3Settings(**{**vars_of(settings), "port": server.port}), "a.test")
        with pytest.raises(ObjectNotFound):
            store.write("data/aa/bb", b"x")
        store.exists("data/aa/bb")
    return server


def vars_of(settings: S3Settings) -> dict[str, Any]:
    return {name: getattr(settings, name) for name in S3Settings.__slots__}


def test_a_server_that_knows_no_ranges_is_read_whole() -> None:
    data = random.Random(1).randbytes(3_000_000)
    with HttpServer({"/software/a.test/file": data}) as server:
        server.fail(Fault.IGNORE_RANGE, when=lambda request: "range" in request.headers)
        store = open_by_settings(settings_for(server.port), "a.test")
        for offset, length in ((0, 1), (5, 300), (1_048_570, 20), (2_999_999, 1), (0, 3_000_000)):
            sink = MemorySink(10**9)
            store.fetch("file", sink, byte_range=(offset, length))
            assert sink.data == data[offset : offset + length]
    assert any("range" in request.headers for request in server.requests)


@pytest.mark.parametrize("fault", [Fault.TRUNCATE, Fault.STALL_IN_BODY, Fault.KILL, Fault.GARBAGE])
def test_a_body_that_does_not_arrive_whole_is_never_taken_for_one(fault: Fault) -> None:
    with HttpServer({"/software/a.test/file": b"x" * 100_000}) as server:
        server.fail(fault)
        store = open_by_settings(settings_for(server.port, timeout_seconds=1), "a.test")
        with pytest.raises(StorageUnavailable, match=r"a\.test/file"):
            read_file(store, "file")
        server.behave()
        assert len(read_file(store, "file")) == 100_000


@pytest.mark.parametrize(
    "refusal",
    [
        NotSupportedError("conditions"),
        GenericError("Server returned non-2xx status code: 501 Not Implemented: "),
    ],
)
def test_a_service_that_refuses_conditions_gets_none(
    bucket: MemoryBucket, monkeypatch: pytest.MonkeyPatch, refusal: Exception
) -> None:
    put = obstore.put

    def put_without_conditions(*arguments: Any, **options: Any) -> Any:
        if options.get("mode", "overwrite") != "overwrite":
            raise refusal
        return put(*arguments, **options)

    monkeypatch.setattr(obstore, "put", put_without_conditions)
    store = store_in(bucket)
    store.replace(".cvmfspublished", b"old", None)
    with pytest.raises(FileChanged):
        store.replace(".cvmfspublished", b"new", b"other")
    store.replace(".cvmfspublished", b"new", b"old")
    assert read_file(store, ".cvmfspublished") == b"new"


def test_a_put_whose_answer_was_lost_is_found_done(
    bucket: MemoryBucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    put = obstore.put

    def put_twice(*arguments: Any, **options: Any) -> Any:
        put(*arguments, **options)
        return put(*arguments, **options)

    store = store_in(bucket)
    store.write(".cvmfspublished", b"old")
    monkeypatch.setattr(obstore, "put", put_twice)
    store.replace(".cvmfspublished", b"new", b"old")
    assert read_file(store, ".cvmfspublished") == b"new"


def test_the_canned_acl_is_sent_with_puts_and_signed() -> None:
    put, head = requests_of(settings_for(0)).requests
    assert put.method == "PUT"
    assert put.headers["x-amz-acl"] == "public-read"
    assert "x-amz-acl" in put.headers["authorization"]
    assert "x-amz-acl" not in head.headers
    put, _ = requests_of(settings_for(0, canned_acl="")).requests
    assert "x-amz-acl" not in put.headers


def test_the_region_is_signed_and_the_secret_never_sent() -> None:
    put, head = requests_of(settings_for(0, region="eu-test-7")).requests
    for request in (put, head):
        assert "/eu-test-7/s3/aws4_request" in request.headers["authorization"]
        assert "hidden" not in str(request)
    assert put.path == "/software/a.test/data/aa/bb"


def test_a_proxy_is_asked_instead() -> None:
    with HttpServer({}) as proxy:
        settings = settings_for(80, host="s3.example.org", proxy=proxy.url)
        assert not open_by_settings(settings, "a.test").exists("file")
    assert proxy.requests[0].target == "http://s3.example.org/software/a.test/file"


def test_the_bucket_may_be_in_the_name_of_the_host() -> None:
    with HttpServer({}) as proxy:
        settings = settings_for(80, host="s3.test", is_bucket_in_host=True, proxy=proxy.url)
        assert not open_by_settings(settings, "a.test").exists("file")
    assert proxy.requests[0].target == "http://software.s3.test/a.test/file"


def test_azure_speaks_its_own_language() -> None:
    with HttpServer({}) as server:
        settings = settings_for(
            server.port, flavor=Flavor.AZURE, access_key="account", secret_key="aGlkZGVu"
        )
        assert not open_by_settings(settings, "a.test").exists("file")
    request = server.requests[0]
    assert request.path == "/software/a.test/file"
    assert request.headers["authorization"].startswith("SharedKey account:")


def test_no_credentials_anywhere_is_told_before_anything_is_asked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(StorageSettingsError, match="no access key") as caught:
        open_by_settings(settings_for(1, access_key="", secret_key=""), "a.test")
    assert "AWS_ACCESS_KEY_ID" in (caught.value.hint or "")


def test_a_url_takes_server_and_credentials_from_the_environment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with HttpServer({}) as server:
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "from-environment")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hidden")
        monkeypatch.setenv("AWS_ENDPOINT_URL", server.url)
        assert not open_bucket("s3", "software", "a.test").exists("file")
    request = server.requests[0]
    assert request.path == "/software/a.test/file"
    assert "from-environment" in request.headers["authorization"]


def test_a_missing_bucket_is_made_only_where_the_server_says_that_it_is_missing() -> None:
    body = b"<Error><Code>AccessDenied</Code></Error>"
    with Gate(1) as gate:
        gate.answer("403 Forbidden", 1, body)
        with pytest.raises(AccessDenied):
            create_bucket(settings_for(gate.port))
        gate.answer("404 Not Found", 1, b"<Error><Code>NoSuchBucket</Code></Error>")
        gate.answer("200 OK", 1)
        assert create_bucket(settings_for(gate.port))
        gate.answer("404 Not Found", 1, b"<Error><Code>NoSuchBucket</Code></Error>")
        gate.answer("403 Forbidden", 1)
        with pytest.raises(BucketMissing, match="403"):
            create_bucket(settings_for(gate.port))
