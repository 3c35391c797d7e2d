"""The memory store's own: external data, and that it copies what it is given."""

import pytest

from outcrop.storage.errors import InvalidName, ObjectNotFound, StorageUnavailable
from outcrop.storage.memory import MemoryStore
from outcrop.storage.store import MemorySink, read_file


def test_it_keeps_a_copy_of_the_dictionary() -> None:
    files = {"file": b"x"}
    store = MemoryStore(files)
    files["other"] = b"y"
    assert list(store.iter_names()) == ["file"]


def test_bad_names_are_refused_at_once() -> None:
    with pytest.raises(InvalidName):
        MemoryStore({"../x": b""})


def test_external_data_is_found_by_path_or_said_to_be_missing() -> None:
    sink = MemorySink(100)
    MemoryStore(external={b"/a": b"data"}).fetch_external(b"/a", sink, byte_range=(1, 2))
    assert sink.data == b"at"
    with pytest.raises(ObjectNotFound):
        MemoryStore(external={}).fetch_external(b"/a", sink)
    with pytest.raises(StorageUnavailable):
        MemoryStore().fetch_external(b"/a", sink)


def test_what_is_written_after_is_read() -> None:
    store = MemoryStore()
    data = bytearray(b"abc")
    store.write("file", data)
    data[0] = 0
    assert read_file(store, "file") == b"abc"
