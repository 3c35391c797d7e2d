"""What every store promises, tried on each of them and on what wraps them."""

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from obstore.store import MemoryStore as MemoryBucket
from tests.support.faults import FaultyStore, Kind
from tests.support.objects import random_object, stored_object
from tests.support.servers import Fault, HttpProxy, HttpServer

from outcrop.storage.cloud import CloudClients, CloudStore
from outcrop.storage.errors import (
    FileChanged,
    InvalidName,
    ObjectCorrupt,
    ObjectNotFound,
    ObjectTooBig,
)
from outcrop.storage.external import WithExternal
from outcrop.storage.http import HttpSettings, HttpStore
from outcrop.storage.local import LocalStore
from outcrop.storage.memory import MemoryStore
from outcrop.storage.store import MemorySink, ObjectStore, WritableStore, read_file, read_object

Files = dict[str, bytes]
Make = Callable[[Files, Path, ExitStack], ObjectStore]

QUICK = HttpSettings(
    timeout_seconds=1, timeout_direct_seconds=1, backoff_init_seconds=0, max_retries=0
)


def memory(files: Files, place: Path, stack: ExitStack) -> ObjectStore:
    return MemoryStore(files)


def local(files: Files, place: Path, stack: ExitStack) -> ObjectStore:
    store = LocalStore(place)
    for name, data in files.items():
        store.write(name, data)
    return store


def http(files: Files, place: Path, stack: ExitStack) -> ObjectStore:
    served = {f"/cvmfs/a.test/{name}": data for name, data in files.items()}
    server = stack.enter_context(HttpServer(served))
    return HttpStore([f"{server.url}/cvmfs/a.test"], settings=QUICK)


def http_without_ranges(files: Files, place: Path, stack: ExitStack) -> ObjectStore:
    served = {f"/{name}": data for name, data in files.items()}
    server = stack.enter_context(HttpServer(served))
    server.fail(Fault.IGNORE_RANGE, when=lambda request: "range" in request.headers)
    return HttpStore([server.url], settings=QUICK)


def http_through_proxy(files: Files, place: Path, stack: ExitStack) -> ObjectStore:
    served = {f"/{name}": data for name, data in files.items()}
    server = stack.enter_context(HttpServer(served))
    proxy = stack.enter_context(HttpProxy())
    return HttpStore([server.url], proxies=proxy.address, settings=QUICK)


def with_external(files: Files, place: Path, stack: ExitStack) -> ObjectStore:
    return WithExternal(MemoryStore(files), MemoryStore(external={}))


def faulty(files: Files, place: Path, stack: ExitStack) -> ObjectStore:
    return FaultyStore(MemoryStore(files), fail_at=0, kind=Kind.ERROR)


def cloud(files: Files, place: Path, stack: ExitStack) -> ObjectStore:
    bucket = MemoryBucket()
    clients = CloudClients(reader=bucket, writer=bucket)
    store = CloudStore(clients, prefix="cvmfs/a.test", place="memory")
    for name, data in files.items():
        store.write(name, data)
    return store


STORES: dict[str, Make] = {
    "cloud": cloud,
    "memory": memory,
    "local": local,
    "http": http,
    "http without ranges": http_without_ranges,
    "http through proxy": http_through_proxy,
    "with external": with_external,
    "faulty without fault": faulty,
}


@pytest.fixture(params=STORES, ids=lambda name: name)
def make(
    request: pytest.FixtureRequest, tmp_path: Path
) -> Iterator[Callable[[Files], ObjectStore]]:
    with ExitStack() as stack:

        def made(files: Files) -> ObjectStore:
            store = STORES[request.param](files, tmp_path / "store", stack)
            stack.callback(store.close)
            return store

        yield made


def test_a_file_is_read_whole(make: Callable[[Files], ObjectStore]) -> None:
    big = random_object(3_000_000).stored
    store = make({".cvmfspublished": b"manifest", "data/aa/empty": b"", "data/bb/big": big})
    assert read_file(store, ".cvmfspublished") == b"manifest"
    assert read_file(store, "data/aa/empty") == b""
    assert read_file(store, "data/bb/big") == big


def test_an_object_is_read_checked(make: Callable[[Files], ObjectStore]) -> None:
    right, wrong = stored_object(b"right" * 100), stored_object(b"wrong" * 100)
    store = make({right.ref.path: right.stored, wrong.ref.path: right.stored})
    assert read_object(store, right.ref, limit=10) == right.plain
    with pytest.raises(ObjectCorrupt, match=str(wrong.ref.hash)[2:]):
        read_object(store, wrong.ref, limit=10)


def test_a_missing_file_says_so(make: Callable[[Files], ObjectStore]) -> None:
    store = make({"data/aa/here": b"x"})
    for name in ("data/aa/there", "data/bb/here", "data/aa/here/below", "data/aa"):
        with pytest.raises(ObjectNotFound, match=name):
            read_file(store, name)


def test_a_name_cannot_lead_out_of_the_store(
    make: Callable[[Files], ObjectStore], tmp_path: Path
) -> None:
    (tmp_path / "secret").write_bytes(b"secret")
    store = make({"data/aa/here": b"x"})
    for name in ("../secret", "data/../../secret", f"{tmp_path}/secret", "data//x", ""):
        with pytest.raises(InvalidName):
            read_file(store, name)


def test_more_than_the_reader_takes_is_too_big(make: Callable[[Files], ObjectStore]) -> None:
    store = make({"file": b"x" * 100_000})
    with pytest.raises(ObjectTooBig):
        read_file(store, "file", limit=99_999)
    assert len(read_file(store, "file", limit=100_000)) == 100_000


def read_range(store: ObjectStore, name: str, offset: int, length: int) -> bytes:
    sink = MemorySink(10**9)
    store.fetch(name, sink, byte_range=(offset, length))
    return sink.data


def test_a_range_is_read_exactly(make: Callable[[Files], ObjectStore]) -> None:
    data = bytes(range(256)) * 8000
    store = make({"file": data, "empty": b""})
    for offset, length in ((0, 1), (0, len(data)), (5, 300), (1_500_001, 7), (len(data) - 1, 1)):
        assert read_range(store, "file", offset, length) == data[offset : offset + length]
    assert read_range(store, "file", 100, 0) == b""


@pytest.mark.parametrize(("offset", "length"), [(90, 11), (100, 1), (500, 1), (0, 101)])
def test_a_range_the_file_does_not_hold_is_corrupt(
    make: Callable[[Files], ObjectStore], offset: int, length: int
) -> None:
    store = make({"file": b"x" * 100})
    with pytest.raises(ObjectCorrupt):
        read_range(store, "file", offset, length)


class Breaking:
    """A sink whose place for the bytes breaks."""

    def begin(self) -> None:
        pass

    def write(self, block: bytes) -> None:
        raise RuntimeError("the sink broke")

    def finish(self) -> None:
        raise AssertionError("finished what broke")


def test_what_the_sink_raises_goes_through(make: Callable[[Files], ObjectStore]) -> None:
    store = make({"file": b"x"})
    with pytest.raises(RuntimeError, match="the sink broke"):
        store.fetch("file", Breaking())
    assert read_file(store, "file") == b"x"


def test_names_of_odd_bytes_are_names(make: Callable[[Files], ObjectStore]) -> None:
    names = ["data/a b", "a%2Fb", "ü+é?x#y", "[x],~:@"]
    store = make({name: name.encode() for name in names})
    for name in names:
        assert read_file(store, name) == name.encode()


def test_many_threads_read_at_once(make: Callable[[Files], ObjectStore]) -> None:
    made = [random_object(20_000) for _ in range(8)]
    store = make({one.ref.path: one.stored for one in made})
    wrong: list[object] = []

    def read_all() -> None:
        for one in made:
            if read_object(store, one.ref, limit=1) != one.plain:
                wrong.append(one)

    threads = [threading.Thread(target=read_all) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=30)
    assert not wrong
    assert not any(thread.is_alive() for thread in threads)


def test_closing_twice_is_closing(make: Callable[[Files], ObjectStore]) -> None:
    store = make({"file": b"x"})
    read_file(store, "file")
    store.close()
    store.close()


WRITABLE = {name: STORES[name] for name in ("memory", "local", "cloud", "faulty without fault")}


@pytest.fixture(params=WRITABLE, ids=lambda name: name)
def store(request: pytest.FixtureRequest, tmp_path: Path) -> WritableStore:
    with ExitStack() as stack:
        return WRITABLE[request.param]({}, tmp_path / "store", stack)  # type: ignore[return-value]


def test_what_was_written_reads_back(store: WritableStore) -> None:
    for data in (b"first", b"", b"second and longer" * 100_000):
        store.write("data/aa/bb", data)
        assert read_file(store, "data/aa/bb") == data


def test_a_file_exists_from_write_to_remove(store: WritableStore) -> None:
    assert not store.exists("data/aa/bb")
    assert not store.exists("data/aa/bb/cc")
    store.write("data/aa/bb", b"x")
    assert store.exists("data/aa/bb")
    assert not store.exists("data/aa")
    store.remove("data/aa/bb")
    assert not store.exists("data/aa/bb")
    store.remove("data/aa/bb")


def test_names_are_listed_below_a_prefix(store: WritableStore) -> None:
    names = {".cvmfspublished", "data/aa/b1", "data/aa/b2", "data/ab/c", "database"}
    for name in names:
        store.write(name, b"x")
    assert set(store.iter_names()) == names
    assert set(store.iter_names("data/")) == {"data/aa/b1", "data/aa/b2", "data/ab/c"}
    assert set(store.iter_names("data/aa/")) == {"data/aa/b1", "data/aa/b2"}
    assert set(store.iter_names("data/a")) == {"data/aa/b1", "data/aa/b2", "data/ab/c"}
    assert set(store.iter_names("data")) == names - {".cvmfspublished"}
    assert list(store.iter_names("nothing/here")) == []


def test_names_may_be_removed_while_they_are_listed(store: WritableStore) -> None:
    for number in range(50):
        store.write(f"data/{number:02x}/x", b"x")
    for name in store.iter_names("data/"):
        store.remove(name)
    assert list(store.iter_names()) == []


def test_nothing_is_written_or_removed_outside(store: WritableStore, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.write_bytes(b"x")
    for name in ("../outside", str(outside), "data/../../outside"):
        with pytest.raises(InvalidName):
            store.write(name, b"bad")
        with pytest.raises(InvalidName):
            store.remove(name)
        with pytest.raises(InvalidName):
            store.exists(name)
    assert outside.read_bytes() == b"x"


def test_sync_returns(store: WritableStore) -> None:
    store.sync()
    store.write("data/aa/bb", b"x")
    store.sync()


def test_a_reader_sees_the_old_or_the_new_never_half(store: WritableStore) -> None:
    old, new = b"o" * 200_000, b"n" * 300_000
    store.write("file", old)
    stop = threading.Event()

    def write() -> None:
        while not stop.is_set():
            store.write("file", new)
            store.write("file", old)

    writer = threading.Thread(target=write)
    writer.start()
    try:
        seen = {read_file(store, "file") for _ in range(200)}
    finally:
        stop.set()
        writer.join(timeout=30)
    assert seen <= {old, new}


def test_a_file_is_replaced_only_where_it_is_what_was_expected(store: WritableStore) -> None:
    with pytest.raises(FileChanged, match=r"\.cvmfspublished"):
        store.replace(".cvmfspublished", b"one", b"zero")
    store.replace(".cvmfspublished", b"one", None)
    with pytest.raises(FileChanged):
        store.replace(".cvmfspublished", b"other one", None)
    store.replace(".cvmfspublished", b"two", b"one")
    with pytest.raises(FileChanged):
        store.replace(".cvmfspublished", b"other two", b"one")
    assert read_file(store, ".cvmfspublished") == b"two"


def test_a_store_holds_what_was_written_and_nothing_like_it(store: WritableStore) -> None:
    assert not store.holds("data/aa/bb", b"content")
    store.write("data/aa/bb", b"content")
    assert store.holds("data/aa/bb", b"content")
    assert not store.holds("data/aa/bb", b"content and more")
    assert not store.holds("data/aa/bb", b"con")
    with pytest.raises(InvalidName):
        store.holds("../outside", b"x")
