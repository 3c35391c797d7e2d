"""What every opener promises, tried on each: with a cache, and with none."""

import os
import stat
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.support.faults import FaultyStore, Kind
from tests.support.objects import random_object, read_and_close, stored_object

from outcrop.formats.hashes import Compression, HashAlgorithm, ObjectRef, Suffix
from outcrop.storage.cache import Cache
from outcrop.storage.errors import (
    ObjectCorrupt,
    ObjectNotFound,
    ObjectTooBig,
    StorageFull,
    StorageUnavailable,
)
from outcrop.storage.memory import MemoryStore
from outcrop.storage.store import ObjectOpener, ObjectStore
from outcrop.storage.temporary import MAX_MEMORY_BYTES, TransientOpener

Make = Callable[[ObjectStore, Path], ObjectOpener]


def cached(store: ObjectStore, place: Path) -> ObjectOpener:
    return Cache(place / "cache", quota_bytes=None).opener(store)


def cached_within_quota(store: ObjectStore, place: Path) -> ObjectOpener:
    return Cache(place / "cache", quota_bytes=100_000).opener(store)


def cached_without_room(store: ObjectStore, place: Path) -> ObjectOpener:
    return Cache(place / "cache", quota_bytes=0).opener(store)


def transient(store: ObjectStore, place: Path) -> ObjectOpener:
    return TransientOpener(store)


OPENERS: dict[str, Make] = {
    "cache": cached,
    "cache within quota": cached_within_quota,
    "cache without room": cached_without_room,
    "transient": transient,
}


@pytest.fixture(params=OPENERS, ids=lambda name: name)
def make(
    request: pytest.FixtureRequest, tmp_path: Path
) -> Iterator[Callable[[ObjectStore], ObjectOpener]]:
    before = open_descriptors()
    yield lambda store: OPENERS[request.param](store, tmp_path)
    extra = 2 if request.param.startswith("cache") else 0  # the directory and its counter
    assert open_descriptors() <= before + extra


def open_descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


@pytest.mark.parametrize("size", [0, 1, 6000, MAX_MEMORY_BYTES, MAX_MEMORY_BYTES + 1])
def test_an_object_opens_as_a_plain_regular_file(
    make: Callable[[ObjectStore], ObjectOpener], size: int
) -> None:
    made = random_object(size)
    opener = make(MemoryStore({made.ref.path: made.stored}))
    for ref in (made.ref, made.unsized()):
        for _ in range(2):
            fd = opener.open_object(ref)
            status = os.fstat(fd)
            assert stat.S_ISREG(status.st_mode)
            assert status.st_size == size
            assert os.lseek(fd, 0, os.SEEK_CUR) == 0
            assert not os.get_inheritable(fd)
            assert read_and_close(fd) == made.plain


def test_an_open_object_cannot_be_written_to(make: Callable[[ObjectStore], ObjectOpener]) -> None:
    small, large = random_object(10), random_object(MAX_MEMORY_BYTES + 10)
    files = {small.ref.path: small.stored, large.ref.path: large.stored}
    opener = make(MemoryStore(files))
    for made in (small, large):
        for pin in (False, True):
            fd = opener.open_object(made.ref, pin=pin)
            with pytest.raises(OSError):
                os.pwrite(fd, b"x", 0)
            with pytest.raises(OSError):
                os.ftruncate(fd, 0)
            assert read_and_close(fd) == made.plain


def test_descriptors_have_positions_of_their_own(
    make: Callable[[ObjectStore], ObjectOpener],
) -> None:
    made = random_object(100)
    opener = make(MemoryStore({made.ref.path: made.stored}))
    one, other = opener.open_object(made.ref), opener.open_object(made.ref)
    os.read(one, 50)
    assert os.read(other, 100) == made.plain
    os.close(one)
    os.close(other)


@pytest.mark.parametrize("algorithm", [HashAlgorithm.SHA1, HashAlgorithm.SHAKE128])
@pytest.mark.parametrize("compression", list(Compression))
@pytest.mark.parametrize("suffix", [Suffix.FILE, Suffix.CATALOG, Suffix.CHUNK])
def test_every_kind_of_object_opens(
    make: Callable[[ObjectStore], ObjectOpener],
    algorithm: HashAlgorithm,
    compression: Compression,
    suffix: Suffix,
) -> None:
    made = stored_object(b"some" * 99, algorithm=algorithm, compression=compression, suffix=suffix)
    opener = make(MemoryStore({made.ref.path: made.stored}))
    assert read_and_close(opener.open_object(made.ref, pin=True)) == made.plain


def test_external_data_opens_whole_and_in_parts(
    make: Callable[[ObjectStore], ObjectOpener],
) -> None:
    whole = stored_object(bytes(range(200)), compression=Compression.NONE)
    part = stored_object(bytes(range(50, 80)), compression=Compression.NONE)
    opener = make(MemoryStore(external={b"/d/f": whole.stored}))
    ref = ObjectRef(whole.ref.hash, Suffix.FILE, Compression.NONE, 200, b"/d/f")
    assert read_and_close(opener.open_object(ref)) == whole.plain
    ref = ObjectRef(part.ref.hash, Suffix.CHUNK, Compression.NONE, 30, b"/d/f", 50)
    assert read_and_close(opener.open_object(ref)) == part.plain


def test_an_unsized_object_above_the_limit_is_too_big(
    make: Callable[[ObjectStore], ObjectOpener],
) -> None:
    made = random_object(1000)
    opener = make(MemoryStore({made.ref.path: made.stored}))
    for _ in range(2):
        with pytest.raises(ObjectTooBig):
            opener.open_object(made.unsized(), limit=999)
        assert read_and_close(opener.open_object(made.unsized(), limit=1000)) == made.plain
        assert read_and_close(opener.open_object(made.ref, limit=1)) == made.plain


def test_a_missing_object_is_not_found_until_it_is_there(
    make: Callable[[ObjectStore], ObjectOpener],
) -> None:
    made = random_object(1000)
    store = MemoryStore()
    opener = make(store)
    for pin in (False, True):
        with pytest.raises(ObjectNotFound, match=str(made.ref.hash)[2:]):
            opener.open_object(made.ref, pin=pin)
    store.write(made.ref.path, made.stored)
    assert read_and_close(opener.open_object(made.ref)) == made.plain


@pytest.mark.parametrize("size", [1000, 3 * MAX_MEMORY_BYTES])
@pytest.mark.parametrize(
    ("kind", "error"),
    [
        (Kind.ERROR, StorageUnavailable),
        (Kind.SHORT, ObjectCorrupt),
        (Kind.FLIP, ObjectCorrupt),
        (Kind.FULL, StorageFull),
    ],
)
def test_a_bad_read_gives_an_error_and_the_next_read_is_good(
    make: Callable[[ObjectStore], ObjectOpener], kind: Kind, error: type[Exception], size: int
) -> None:
    made = random_object(size)
    store = FaultyStore(MemoryStore({made.ref.path: made.stored}), fail_at=1, kind=kind)
    opener = make(store)
    with pytest.raises(error):
        opener.open_object(made.ref)
    assert read_and_close(opener.open_object(made.ref)) == made.plain


def test_many_threads_open_many_objects(make: Callable[[ObjectStore], ObjectOpener]) -> None:
    objects = [random_object(5000) for _ in range(30)]
    opener = make(MemoryStore({made.ref.path: made.stored for made in objects}))
    wrong: list[object] = []

    def work(offset: int) -> None:
        for number in range(60):
            made = objects[(number * 7 + offset) % len(objects)]
            if read_and_close(opener.open_object(made.ref, pin=number % 5 == 0)) != made.plain:
                wrong.append(made)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    assert not any(thread.is_alive() for thread in threads)
    assert not wrong
