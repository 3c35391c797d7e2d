"""The client cache: layout, hits, quota, pins, breadcrumbs, healing."""

import errno
import fcntl
import os
import shutil
import stat
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.support.faults import FaultyStore, Kind
from tests.support.objects import StoredObject, random_object, read_and_close, stored_object

from outcrop.errors import FormatError
from outcrop.formats.hashes import ContentHash, HashAlgorithm, ObjectRef, Suffix
from outcrop.formats.manifest import Breadcrumb
from outcrop.storage import temporary
from outcrop.storage.cache import Cache
from outcrop.storage.errors import (
    ObjectCorrupt,
    ObjectTooBig,
    StorageError,
    StorageFull,
    StorageReadOnly,
    StorageUnavailable,
)
from outcrop.storage.memory import MemoryStore
from outcrop.storage.store import ObjectOpener, Sink


class CountingStore(MemoryStore):
    """Counts fetches; each may first wait for a gate."""

    def __init__(self, objects: list[StoredObject]) -> None:
        super().__init__({made.ref.path: made.stored for made in objects})
        self.fetched: list[str] = []
        self.gate: threading.Event | None = None
        self.before: Callable[[], None] = lambda: None

    def fetch(self, name: str, sink: Sink, *, byte_range: tuple[int, int] | None = None) -> None:
        self.fetched.append(name)
        self.before()
        if self.gate is not None:
            assert self.gate.wait(20)
        super().fetch(name, sink, byte_range=byte_range)


def place_of(cache: Cache, ref: ObjectRef) -> Path:
    text = str(ref.hash)
    return cache.directory / text[:2] / text[2:]


def age(path: Path, seconds: float) -> None:
    then = time.time() - seconds
    os.utime(path, (then, then))


def objects_in(directory: Path) -> set[str]:
    return {f"{path.parent.name}{path.name}" for path in directory.glob("??/*")}


def leftovers(directory: Path) -> list[str]:
    return os.listdir(directory / "txn")


def fill(opener: ObjectOpener, *objects: StoredObject) -> None:
    for made in objects:
        assert read_and_close(opener.open_object(made.ref)) == made.plain


# Layout


def test_the_layout_is_cernvm_fs_s(tmp_path: Path) -> None:
    directory = tmp_path / "deep" / "cache"
    cache = Cache(directory, quota_bytes=None)
    made = [
        stored_object(b"plain"),
        stored_object(b"catalog", algorithm=HashAlgorithm.SHAKE128, suffix=Suffix.CATALOG),
        stored_object(b"chunk", algorithm=HashAlgorithm.RMD160, suffix=Suffix.CHUNK),
    ]
    fill(cache.opener(CountingStore(made)), *made)
    for name in [*(f"{number:02x}" for number in range(256)), "txn", "quarantaine"]:
        assert stat.S_IMODE((directory / name).stat().st_mode) == 0o700
    for one in made:  # no suffix letter, but the algorithm; unpacked
        assert place_of(cache, one.ref).read_bytes() == one.plain
        assert stat.S_IMODE(place_of(cache, one.ref).stat().st_mode) == 0o600
    assert place_of(cache, made[1].ref).name.endswith("-shake128")
    assert place_of(cache, made[2].ref).name.endswith("-rmd160")
    assert leftovers(directory) == []


def test_a_cache_written_by_cernvm_fs_is_read(tmp_path: Path) -> None:
    """Its files of unknown names stay alone; its objects are hits."""
    made = stored_object(b"from before")
    text = str(made.ref.hash)
    (tmp_path / text[:2]).mkdir()
    (tmp_path / text[:2] / text[2:]).write_bytes(made.plain)
    (tmp_path / "cachedb").write_bytes(b"SQLite")
    cache = Cache(tmp_path, quota_bytes=None)
    store = CountingStore([])
    fill(cache.opener(store), made)
    assert store.fetched == []
    assert cache.used_bytes == len(made.plain)
    assert (tmp_path / "cachedb").read_bytes() == b"SQLite"


def test_the_second_open_asks_nobody(tmp_path: Path) -> None:
    made = random_object(6000)
    store = CountingStore([made])
    cache = Cache(tmp_path, quota_bytes=None)
    assert not cache.has(made.ref)
    for _ in range(3):
        fill(cache.opener(store), made)
    assert store.fetched == [made.ref.path]
    assert cache.has(made.ref)
    assert cache.has(made.unsized())
    assert not cache.has(ObjectRef(made.ref.hash, size=5))


def test_another_cache_on_the_directory_finds_what_the_first_left(tmp_path: Path) -> None:
    made = random_object(6000)
    store = CountingStore([made])
    first = Cache(tmp_path, quota_bytes=None)
    fill(first.opener(store), made)
    second = Cache(tmp_path, quota_bytes=None)
    fill(second.opener(store), made)
    first.close()
    fill(Cache(tmp_path, quota_bytes=None).opener(store), made)
    assert len(store.fetched) == 1
    assert second.used_bytes == 6000


# One download at a time


def test_many_readers_make_one_download(tmp_path: Path) -> None:
    made = random_object(50_000)
    store = CountingStore([made])
    store.gate = threading.Event()
    opener = Cache(tmp_path, quota_bytes=None).opener(store)
    contents: list[bytes] = []

    def read() -> None:
        contents.append(read_and_close(opener.open_object(made.ref)))

    threads = [threading.Thread(target=read) for _ in range(12)]
    for thread in threads:
        thread.start()
    store.gate.set()
    for thread in threads:
        thread.join(20)
    assert contents == [made.plain] * 12
    assert store.fetched == [made.ref.path]


def test_a_slow_object_holds_up_no_other(tmp_path: Path) -> None:
    slow, quick = random_object(100), random_object(100)
    store = CountingStore([slow, quick])
    cache = Cache(tmp_path, quota_bytes=None)
    opener = cache.opener(store)
    fill(opener, quick)
    store.gate = threading.Event()
    thread = threading.Thread(target=fill, args=(opener, slow))
    thread.start()
    fill(opener, quick)
    assert thread.is_alive()
    store.gate.set()
    thread.join(20)
    assert cache.has(slow.ref)


# Nothing unchecked appears


@pytest.mark.parametrize("kind", [Kind.ERROR, Kind.SHORT, Kind.FLIP, Kind.FULL])
@pytest.mark.parametrize("size", [10, 3_000_000])
def test_what_failed_is_not_in_the_cache(tmp_path: Path, kind: Kind, size: int) -> None:
    made = random_object(size)
    cache = Cache(tmp_path, quota_bytes=None)
    store = FaultyStore(CountingStore([made]), fail_at=1, kind=kind)
    with pytest.raises(StorageError):
        cache.opener(store).open_object(made.ref)
    assert objects_in(tmp_path) == set()
    assert leftovers(tmp_path) == []
    assert cache.used_bytes == 0


def test_the_name_appears_only_after_the_check(tmp_path: Path) -> None:
    made = random_object(3_000_000)
    store = CountingStore([made])
    seen: list[set[str]] = []

    class Watching(MemoryStore):
        def fetch(
            self, name: str, sink: Sink, *, byte_range: tuple[int, int] | None = None
        ) -> None:
            sink.begin()
            for start in range(0, len(made.stored), 100_000):
                sink.write(made.stored[start : start + 100_000])
                seen.append(objects_in(tmp_path))
            sink.finish()
            seen.append(objects_in(tmp_path))

    fill(Cache(tmp_path, quota_bytes=None).opener(Watching()), made)
    assert len(seen) > 10
    assert all(names == set() for names in seen)
    assert objects_in(tmp_path) == {str(made.ref.hash)}
    assert store.fetched == []


def test_an_unsized_object_is_on_disk_before_it_is_believed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its truncation by a power cut could not be told later."""
    made = random_object(100)
    synced: list[int] = []
    monkeypatch.setattr(os, "fsync", synced.append)
    opener = Cache(tmp_path, quota_bytes=None).opener(CountingStore([made]))
    os.close(opener.open_object(made.unsized()))
    assert len(synced) == 1


# Healing


@pytest.mark.parametrize("keep", [0, 1, 5999])
def test_a_truncated_file_is_fetched_again(tmp_path: Path, keep: int) -> None:
    made = random_object(6000)
    store = CountingStore([made])
    cache = Cache(tmp_path, quota_bytes=None)
    fill(cache.opener(store), made)
    os.truncate(place_of(cache, made.ref), keep)
    fill(cache.opener(store), made)
    assert len(store.fetched) == 2
    assert place_of(cache, made.ref).read_bytes() == made.plain


def test_an_empty_file_of_unknown_size_is_fetched_again(tmp_path: Path) -> None:
    made = random_object(6000)
    store = CountingStore([made])
    cache = Cache(tmp_path, quota_bytes=None)
    place_of(cache, made.ref).touch()
    assert not cache.has(made.unsized())
    assert read_and_close(cache.opener(store).open_object(made.unsized())) == made.plain
    assert len(store.fetched) == 1


def test_a_truncated_file_stays_unread_while_it_cannot_be_fetched(tmp_path: Path) -> None:
    made = random_object(6000)
    cache = Cache(tmp_path, quota_bytes=None)
    place_of(cache, made.ref).write_bytes(b"half")
    with pytest.raises(StorageError):
        cache.opener(MemoryStore()).open_object(made.ref)


def test_what_is_in_the_way_of_an_object_does_not_hinder_reading(tmp_path: Path) -> None:
    folder, pipe, link = random_object(100), random_object(100), random_object(100)
    store = CountingStore([folder, pipe, link])
    cache = Cache(tmp_path, quota_bytes=None)
    place_of(cache, folder.ref).mkdir()
    os.mkfifo(place_of(cache, pipe.ref))
    secret = tmp_path / "secret"
    secret.write_bytes(bytes(100))
    place_of(cache, link.ref).symlink_to(secret)
    fill(cache.opener(store), folder, pipe, link)
    fill(cache.opener(store), folder, pipe, link)
    assert secret.read_bytes() == bytes(100)


def test_a_deleted_directory_is_made_again_under_the_same_descriptor(tmp_path: Path) -> None:
    one, other = random_object(100), random_object(200)
    store = CountingStore([one, other])
    directory = tmp_path / "cache"
    cache = Cache(directory, quota_bytes=10_000)
    opener = cache.opener(store)
    fill(opener, one)
    number = cache.directory_fd
    shutil.rmtree(directory)
    assert not cache.has(one.ref)
    fill(opener, one, other)
    assert cache.directory_fd == number
    assert not os.get_inheritable(number)
    assert objects_in(directory) == {str(one.ref.hash), str(other.ref.hash)}
    text = str(one.ref.hash)
    found = os.stat(f"{text[:2]}/{text[2:]}", dir_fd=number)
    assert found.st_size == 100
    assert cache.used_bytes == 300


def test_deleted_parts_are_made_again(tmp_path: Path) -> None:
    made = [random_object(100) for _ in range(5)]
    cache = Cache(tmp_path, quota_bytes=10_000)
    opener = cache.opener(CountingStore(made))
    for number, one in enumerate(made):
        for entry in tmp_path.iterdir():
            shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
        fill(opener, one)
        assert objects_in(tmp_path) == {str(one.ref.hash)}, number
        assert cache.used_bytes == 100


def test_a_directory_deleted_during_a_download_loses_only_the_copy(tmp_path: Path) -> None:
    made = random_object(50_000)
    directory = tmp_path / "cache"
    cache = Cache(directory, quota_bytes=None)
    store = CountingStore([made])
    store.before = lambda: shutil.rmtree(directory)
    fd = cache.opener(store).open_object(made.ref, pin=True)
    assert read_and_close(fd) == made.plain
    store.before = lambda: None
    fill(cache.opener(store), made)
    fill(cache.opener(store), made)
    assert len(store.fetched) == 2


def test_leftovers_of_the_dead_go_and_those_of_the_living_stay(tmp_path: Path) -> None:
    Cache(tmp_path, quota_bytes=None).close()
    dead, young, alive = (tmp_path / "txn" / name for name in ("dead", "young", "alive"))
    for path in (dead, young, alive):
        path.write_bytes(b"x" * 1000)
    age(dead, 3600)
    age(alive, 3600)
    with alive.open("rb") as held:
        fcntl.flock(held, fcntl.LOCK_SH)
        Cache(tmp_path, quota_bytes=None)
    assert set(leftovers(tmp_path)) == {"young", "alive"}


# Quota


def test_the_oldest_go_until_half_the_quota_is_free(tmp_path: Path) -> None:
    made = [random_object(1000) for _ in range(12)]
    cache = Cache(tmp_path, quota_bytes=10_000)
    opener = cache.opener(CountingStore(made))
    for number, one in enumerate(made[:10]):
        fill(opener, one)
        age(place_of(cache, one.ref), 500 - number)
    assert cache.used_bytes == 10_000
    fill(opener, made[10])
    assert [cache.has(one.ref) for one in made] == [False] * 5 + [True] * 6 + [False]
    assert cache.used_bytes == 6000


def test_using_an_object_keeps_it(tmp_path: Path) -> None:
    made = [random_object(1000) for _ in range(11)]
    cache = Cache(tmp_path, quota_bytes=10_000)
    opener = cache.opener(CountingStore(made))
    for number, one in enumerate(made[:10]):
        fill(opener, one)
        age(place_of(cache, one.ref), 5000 - number)
    fill(opener, made[0])
    fill(opener, made[10])
    assert cache.has(made[0].ref)
    assert not cache.has(made[1].ref)


def test_the_stamp_of_last_use_is_refreshed_only_when_old(tmp_path: Path) -> None:
    made = random_object(1000)
    cache = Cache(tmp_path, quota_bytes=None)
    opener = cache.opener(CountingStore([made]))
    fill(opener, made)
    path = place_of(cache, made.ref)
    age(path, 300)
    before = path.stat().st_mtime_ns
    fill(opener, made)
    assert path.stat().st_mtime_ns == before
    age(path, 700)
    fill(opener, made)
    assert path.stat().st_mtime > time.time() - 60


def test_an_object_above_half_the_quota_is_served_and_not_kept(tmp_path: Path) -> None:
    small, large = random_object(1000), random_object(6000)
    cache = Cache(tmp_path, quota_bytes=10_000)
    opener = cache.opener(CountingStore([small, large]))
    fill(opener, small, large)
    assert read_and_close(opener.open_object(large.unsized(), pin=True)) == large.plain
    assert cache.has(small.ref)
    assert not cache.has(large.ref)
    assert cache.used_bytes == 1000
    assert leftovers(tmp_path) == []


def test_pinned_objects_stay_and_others_go(tmp_path: Path) -> None:
    made = [random_object(1000) for _ in range(40)]
    cache = Cache(tmp_path, quota_bytes=10_000)
    opener = cache.opener(CountingStore(made))
    pins = [opener.open_object(one.ref, pin=True) for one in made[:4]]
    assert cache.pinned_bytes == 4000
    for one in made[4:]:
        fill(opener, one)
        assert cache.used_bytes <= 10_000
    assert all(cache.has(one.ref) for one in made[:4])
    assert not all(cache.has(one.ref) for one in made[4:])
    assert not cache.evict(made[0].ref)
    for fd in pins:
        os.close(fd)
    assert cache.pinned_bytes == 0
    assert cache.evict(made[0].ref)
    assert cache.cleanup(0) == 0


def test_a_pin_lasts_as_long_as_any_duplicate_of_the_descriptor(tmp_path: Path) -> None:
    made = random_object(1000)
    cache = Cache(tmp_path, quota_bytes=10_000)
    fd = cache.opener(CountingStore([made])).open_object(made.ref, pin=True)
    copy = os.dup(fd)
    os.close(fd)
    assert cache.cleanup(0) == 1000
    os.close(copy)
    assert cache.cleanup(0) == 0


def test_a_hit_is_pinned_like_a_download(tmp_path: Path) -> None:
    made = random_object(1000)
    cache = Cache(tmp_path, quota_bytes=10_000)
    opener = cache.opener(CountingStore([made]))
    fill(opener, made)
    fd = opener.open_object(made.ref, pin=True)
    assert cache.cleanup(0) == 1000
    os.close(fd)


def test_where_pins_fill_the_quota_objects_are_served_and_not_kept(tmp_path: Path) -> None:
    made = [random_object(1000) for _ in range(30)]
    cache = Cache(tmp_path, quota_bytes=10_000)
    opener = cache.opener(CountingStore(made))
    pins = [opener.open_object(one.ref, pin=True) for one in made[:10]]
    fill(opener, *made[10:])
    late = opener.open_object(made[11].ref, pin=True)
    assert os.pread(late, 1000, 0) == made[11].plain
    assert cache.used_bytes == 10_000
    for fd in [*pins, late]:
        os.close(fd)


def test_what_was_evicted_while_open_reads_on(tmp_path: Path) -> None:
    made = random_object(1000)
    cache = Cache(tmp_path, quota_bytes=10_000)
    fd = cache.opener(CountingStore([made])).open_object(made.ref)
    assert cache.evict(made.ref)
    assert not cache.evict(made.ref)
    assert read_and_close(fd) == made.plain
    assert cache.used_bytes == 0


def test_cleanup_goes_down_to_what_was_asked(tmp_path: Path) -> None:
    made = [random_object(1000) for _ in range(10)]
    cache = Cache(tmp_path, quota_bytes=None)
    fill(cache.opener(CountingStore(made)), *made)
    assert cache.cleanup(20_000) == 10_000
    assert cache.cleanup(4500) == 4000
    assert len(objects_in(tmp_path)) == 4


def test_the_unsized_are_bounded_by_the_limit_in_the_cache_too(tmp_path: Path) -> None:
    made = random_object(1000)
    opener = Cache(tmp_path, quota_bytes=None).opener(CountingStore([made]))
    os.close(opener.open_object(made.unsized()))
    with pytest.raises(ObjectTooBig):
        opener.open_object(made.unsized(), limit=10)


# The disk


def no_room(number: int, *, after: int = 0) -> Callable[[object, bytes], int]:
    """A write that takes so many bytes, then fails until `.freed` is set."""
    taken = 0
    really = temporary.OutputFile.write

    def write(self: temporary.OutputFile, data: bytes) -> int:
        nonlocal taken
        if taken + len(data) > after:
            raise OSError(number, os.strerror(number))
        taken += len(data)
        return really(self, data)

    return write  # type: ignore[return-value]


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_evicts_and_tries_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    made = [random_object(1000) for _ in range(11)]
    store = CountingStore(made)
    cache = Cache(tmp_path, quota_bytes=None)
    opener = cache.opener(store)
    fill(opener, *made[:10])
    really = temporary.OutputFile.write

    def write(self: temporary.OutputFile, data: bytes) -> int:
        if len(objects_in(tmp_path)) > 5:
            raise OSError(number, os.strerror(number))
        return really(self, data)

    monkeypatch.setattr(temporary.OutputFile, "write", write)
    fill(opener, made[10])
    assert store.fetched.count(made[10].ref.path) == 2
    assert cache.has(made[10].ref)
    assert cache.used_bytes == 6000


def test_a_full_disk_with_nothing_to_evict_is_storage_full(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = random_object(1000)
    store = CountingStore([made])
    cache = Cache(tmp_path, quota_bytes=None)
    with monkeypatch.context() as patch:
        patch.setattr(temporary.OutputFile, "write", no_room(errno.ENOSPC))
        with pytest.raises(StorageFull) as caught:
            cache.opener(store).open_object(made.ref)
    assert caught.value.errno == errno.ENOSPC
    assert len(store.fetched) == 1
    assert leftovers(tmp_path) == []
    fill(cache.opener(store), made)


def test_a_disk_that_stays_full_is_storage_full_after_one_more_try(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = [random_object(1000) for _ in range(5)]
    store = CountingStore(made)
    cache = Cache(tmp_path, quota_bytes=None)
    opener = cache.opener(store)
    fill(opener, *made[:4])
    monkeypatch.setattr(temporary.OutputFile, "write", no_room(errno.ENOSPC))
    with pytest.raises(StorageFull):
        opener.open_object(made[4].ref)
    assert store.fetched.count(made[4].ref.path) == 2
    assert cache.used_bytes == 2000


def test_a_broken_disk_is_unavailable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = random_object(1000)
    monkeypatch.setattr(temporary.OutputFile, "write", no_room(errno.EIO))
    opener = Cache(tmp_path, quota_bytes=None).opener(CountingStore([made]))
    with pytest.raises(StorageUnavailable, match="Input/output error"):
        opener.open_object(made.ref)


class ReadOnly:
    """Makes `os` behave as on a read-only file system, for paths in one directory."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self._open = os.open
        patch.setattr(os, "open", self.open)
        for name in ("mkdir", "rename", "unlink", "utime"):
            patch.setattr(os, name, self.refuse)

    def open(self, path: str, flags: int, *rest: int, dir_fd: int | None = None) -> int:
        if flags & (os.O_CREAT | os.O_RDWR | os.O_WRONLY) and dir_fd is not None:
            self.refuse()
        return self._open(path, flags, *rest, dir_fd=dir_fd)

    def refuse(self, *_: object, **__: object) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))


def test_a_read_only_cache_serves_what_it_has_and_what_it_has_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, missing, truncated = (random_object(1000) for _ in range(3))
    store = CountingStore([here, missing, truncated])
    first = Cache(tmp_path, quota_bytes=None)
    fill(first.opener(store), here, truncated)
    os.truncate(place_of(first, truncated.ref), 10)
    age(place_of(first, here.ref), 10_000)
    first.close()
    store.fetched.clear()
    with monkeypatch.context() as patch:
        ReadOnly(patch)
        cache = Cache(tmp_path, quota_bytes=500)
        opener = cache.opener(store)
        for _ in range(2):
            for made in (here, missing, truncated):
                assert read_and_close(opener.open_object(made.ref, pin=True)) == made.plain
        assert here.ref.path not in store.fetched
        assert cache.used_bytes == 1010
        assert not cache.evict(here.ref)
        cache.cleanup(0)
        crumb = Breadcrumb(here.ref.hash, 1, 2)
        with pytest.raises(StorageReadOnly):
            cache.write_breadcrumb("a.test", crumb)
        cache.close()


def test_a_place_where_no_directory_can_be_says_so(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StorageError, match="cache directory"):
        Cache(tmp_path / "file" / "cache", quota_bytes=None)


def test_txn_replaced_by_a_file_means_served_and_not_kept(tmp_path: Path) -> None:
    made = random_object(1000)
    cache = Cache(tmp_path, quota_bytes=None)
    (tmp_path / "txn").rmdir()
    (tmp_path / "txn").write_bytes(b"")
    fill(cache.opener(CountingStore([made])), made, made)


# The counter


def test_the_count_survives_closing(tmp_path: Path) -> None:
    made = random_object(1000)
    cache = Cache(tmp_path, quota_bytes=None)
    fill(cache.opener(CountingStore([made])), made)
    cache.close()
    # Nobody looks at the files: this one is not noticed.
    (tmp_path / "00" / ("0" * 38)).write_bytes(bytes(500))
    again = Cache(tmp_path, quota_bytes=None)
    assert again.used_bytes == 1000


@pytest.mark.parametrize(
    "record",
    [None, b"", b"short", b"otherkey" + bytes(16), b"outcrop1" + b"\xff" * 16, bytes(100)],
)
def test_files_are_counted_where_there_is_no_good_count(
    tmp_path: Path, record: bytes | None
) -> None:
    made = random_object(1000)
    cache = Cache(tmp_path, quota_bytes=None)
    fill(cache.opener(CountingStore([made])), made)
    cache.close()
    if record is None:
        (tmp_path / "outcrop.usage").unlink()
    else:
        (tmp_path / "outcrop.usage").write_bytes(record)
    assert Cache(tmp_path, quota_bytes=None).used_bytes == 1000


def test_files_are_counted_after_a_crash(tmp_path: Path) -> None:
    cache = Cache(tmp_path, quota_bytes=None)
    (tmp_path / "00" / ("0" * 38)).write_bytes(bytes(500))
    os.close(cache.directory_fd)  # as when the process dies: no `close`
    again = Cache(tmp_path, quota_bytes=None)
    assert again.used_bytes == 500


def test_a_wrong_count_is_put_right_by_the_next_eviction(tmp_path: Path) -> None:
    made = [random_object(1000) for _ in range(3)]
    cache = Cache(tmp_path, quota_bytes=10_000)
    opener = cache.opener(CountingStore(made))
    fill(opener, *made[:2])
    cache._contents._usage.add(8000)
    assert cache.used_bytes == 10_000
    fill(opener, made[2])
    assert cache.used_bytes == 3000
    assert all(cache.has(one.ref) for one in made)


# Breadcrumbs


def test_breadcrumbs_are_remembered_by_repository(tmp_path: Path) -> None:
    cache = Cache(tmp_path, quota_bytes=None)
    crumb = Breadcrumb(ContentHash.of(b"root", HashAlgorithm.SHAKE128), 1_700_000_000, 7)
    assert cache.read_breadcrumb("a.test") is None
    cache.write_breadcrumb("a.test", crumb)
    assert cache.read_breadcrumb("a.test") == crumb
    assert cache.read_breadcrumb("b.test") is None
    assert (tmp_path / "cvmfschecksum.a.test").read_bytes() == crumb.serialize()
    newer = Breadcrumb(crumb.root_catalog, 1_700_000_001, 8)
    cache.write_breadcrumb("a.test", newer)
    assert Cache(tmp_path, quota_bytes=None).read_breadcrumb("a.test") == newer
    assert leftovers(tmp_path) == []


@pytest.mark.parametrize("data", [b"", b"garbage", b"T1R2", b"x" * 10_000, b"\xff" * 40])
def test_a_breadcrumb_that_makes_no_sense_is_none(tmp_path: Path, data: bytes) -> None:
    cache = Cache(tmp_path, quota_bytes=None)
    (tmp_path / "cvmfschecksum.a.test").write_bytes(data)
    assert cache.read_breadcrumb("a.test") is None


def test_a_breadcrumb_that_is_a_directory_is_none(tmp_path: Path) -> None:
    cache = Cache(tmp_path, quota_bytes=None)
    (tmp_path / "cvmfschecksum.a.test").mkdir()
    assert cache.read_breadcrumb("a.test") is None
    with pytest.raises(StorageUnavailable):
        cache.write_breadcrumb("a.test", Breadcrumb(ContentHash.of(b"", HashAlgorithm.SHA1)))
    assert leftovers(tmp_path) == []


@pytest.mark.parametrize("fqrn", ["../x", "a/b", "", "."])
def test_a_name_that_is_none_gets_no_breadcrumb(tmp_path: Path, fqrn: str) -> None:
    cache = Cache(tmp_path, quota_bytes=None)
    with pytest.raises(FormatError):
        cache.read_breadcrumb(fqrn)


def test_wrong_size_in_the_catalog_leaves_nothing_and_no_loop(tmp_path: Path) -> None:
    made = random_object(1000)
    store = CountingStore([made])
    cache = Cache(tmp_path, quota_bytes=None)
    opener = cache.opener(store)
    fill(opener, made)
    with pytest.raises(ObjectCorrupt):
        opener.open_object(ObjectRef(made.ref.hash, size=999))
    fill(opener, made)
    assert len(store.fetched) == 3
    assert cache.used_bytes == 1000
