"""The faulty store does to its callers what it says."""

import pytest
from tests.support.faults import FaultyStore, Kind

from outcrop.storage.errors import StorageFull, StorageUnavailable
from outcrop.storage.memory import MemoryStore
from outcrop.storage.store import read_file

NAMES = [f"file{number}" for number in range(5)]


@pytest.mark.parametrize(
    ("kind", "error"), [(Kind.ERROR, StorageUnavailable), (Kind.FULL, StorageFull)]
)
def test_the_loop_over_all_operations_ends(kind: Kind, error: type[Exception]) -> None:
    for fail_at in range(1, 100):
        inner = MemoryStore()
        store = FaultyStore(inner, fail_at=fail_at, kind=kind)
        try:
            for name in NAMES:
                store.write(name, b"data")
        except error:
            assert len(list(inner.iter_names())) == fail_at - 1
        else:
            break
    assert fail_at == len(NAMES) + 1
    assert store.operations == len(NAMES)


@pytest.mark.parametrize(("kind", "expected"), [(Kind.SHORT, b"01234"), (Kind.FLIP, b"0123446789")])
def test_bytes_are_spoilt_on_the_way_in_and_out(kind: Kind, expected: bytes) -> None:
    inner = MemoryStore()
    FaultyStore(inner, fail_at=1, kind=kind).write("file", b"0123456789")
    assert read_file(inner, "file") == expected
    inner.write("file", b"0123456789")
    assert read_file(FaultyStore(inner, fail_at=1, kind=kind), "file") == expected
    assert inner.exists("file")
