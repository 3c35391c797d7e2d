"""The sink that checks objects, and the functions that read through it."""

import io
import os
import tracemalloc
import zlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.support.objects import StoredObject, stored_object

from outcrop.formats.hashes import Compression, ContentHash, HashAlgorithm, ObjectRef, Suffix
from outcrop.storage.errors import InvalidName, ObjectCorrupt, ObjectTooBig
from outcrop.storage.memory import MemoryStore
from outcrop.storage.store import (
    MemorySink,
    ObjectSink,
    check_name,
    fetch_object,
    read_file,
    read_object,
    read_plain_object,
)

STEP = 1 << 20
ALGORITHMS = [HashAlgorithm.SHA1, HashAlgorithm.RMD160, HashAlgorithm.SHAKE128]


def pour(ref: ObjectRef, stored: bytes, *, block: int = STEP, limit: int = 10**9) -> bytes:
    out = io.BytesIO()
    sink = ObjectSink(ref, out, limit=limit)
    sink.begin()
    for start in range(0, len(stored), block):
        sink.write(stored[start : start + block])
    sink.finish()
    return out.getvalue()


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("compression", list(Compression))
@pytest.mark.parametrize("plain", [b"", b"hello\n", bytes(range(256)) * 1000])
def test_an_object_comes_out_plain(
    algorithm: HashAlgorithm, compression: Compression, plain: bytes
) -> None:
    made = stored_object(plain, algorithm=algorithm, compression=compression)
    assert pour(made.ref, made.stored) == plain
    assert pour(made.unsized(), made.stored) == plain


@settings(max_examples=60, deadline=None)
@given(plain=st.binary(max_size=5000), block=st.integers(1, 600), repeat=st.integers(1, 40))
def test_how_the_bytes_are_split_makes_no_difference(plain: bytes, block: int, repeat: int) -> None:
    made = stored_object(plain * repeat)
    assert pour(made.ref, made.stored, block=block) == plain * repeat


@pytest.mark.parametrize("size", [STEP - 1, STEP, STEP + 1, 3 * STEP, 10 * STEP])
@pytest.mark.parametrize("block", [1, 100, STEP])
def test_nothing_is_lost_where_little_unpacks_to_much(size: int, block: int) -> None:
    made = stored_object(bytes(size))
    assert pour(made.unsized(), made.stored, block=block) == bytes(size)


def test_an_empty_block_means_nothing() -> None:
    made = stored_object(b"hello")
    out = io.BytesIO()
    sink = ObjectSink(made.ref, out, limit=10)
    for block in (b"", made.stored[:3], b"", made.stored[3:], b""):
        sink.write(block)
    sink.finish()
    assert out.getvalue() == b"hello"


def test_an_object_of_no_bytes_at_all_is_right_where_that_is_its_hash() -> None:
    made = stored_object(b"", compression=Compression.NONE)
    assert pour(made.ref, b"") == b""


def test_begin_forgets_what_came_before() -> None:
    made = stored_object(b"hello")
    out = io.BytesIO(b"what another left here, longer than the object")
    sink = ObjectSink(made.ref, out, limit=10)
    sink.begin()
    with pytest.raises(ObjectCorrupt):
        sink.write(b"garbage")
    sink.begin()
    sink.write(made.stored)
    sink.finish()
    assert out.getvalue() == b"hello"


@pytest.mark.parametrize("sized", [True, False])
@pytest.mark.parametrize("compression", list(Compression))
@given(data=st.data())
@settings(max_examples=40, deadline=None)
def test_changed_bytes_are_corrupt(
    sized: bool, compression: Compression, data: st.DataObject
) -> None:
    made = stored_object(bytes(range(100)) * 7, compression=compression)
    ref = made.ref if sized else made.unsized()
    position = data.draw(st.integers(0, len(made.stored) - 1))
    bit = data.draw(st.integers(0, 7))
    changed = bytearray(made.stored)
    changed[position] ^= 1 << bit
    with pytest.raises(ObjectCorrupt):
        pour(ref, bytes(changed))


@pytest.mark.parametrize("compression", list(Compression))
@pytest.mark.parametrize("keep", [0, 1, 2, 20, -4, -1])
def test_truncated_bytes_are_corrupt(compression: Compression, keep: int) -> None:
    made = stored_object(os.urandom(100), compression=compression)
    with pytest.raises(ObjectCorrupt):
        pour(made.ref, made.stored[:keep])


@pytest.mark.parametrize("block", [1, 7, STEP])
def test_a_zlib_stream_cut_short_is_corrupt_even_under_its_own_hash(block: int) -> None:
    cut = zlib.compress(b"hello" * 100)[:-4]
    ref = ObjectRef(ContentHash.of(cut, HashAlgorithm.SHA1), size=500)
    with pytest.raises(ObjectCorrupt, match="cut short"):
        pour(ref, cut, block=block)


@pytest.mark.parametrize("block", [1, 7, STEP])
def test_bytes_after_the_zlib_stream_are_corrupt_even_under_their_own_hash(block: int) -> None:
    trailed = zlib.compress(b"hello") + b"x"
    ref = ObjectRef(ContentHash.of(trailed, HashAlgorithm.SHA1), size=5)
    with pytest.raises(ObjectCorrupt, match="after the end"):
        pour(ref, trailed, block=block)


@pytest.mark.parametrize(
    "stored",
    [
        pytest.param(b"<html>not zlib</html>", id="page"),
        pytest.param(b"\x1f\x8b\x08\0\0\0\0\0\0\0abc", id="gzip"),
        pytest.param(b"\x78\xbb\x01\x02\x03\x04abcd", id="preset dictionary"),
        pytest.param(zlib.compress(b"hello" * 9)[:-1] + b"\0", id="checksum"),
        pytest.param(b"\x78\x9c\x07", id="reserved block type"),
    ],
)
def test_what_is_no_zlib_stream_is_corrupt_even_under_its_own_hash(stored: bytes) -> None:
    ref = ObjectRef(ContentHash.of(stored, HashAlgorithm.SHA1))
    with pytest.raises(ObjectCorrupt):
        pour(ref, stored)


def test_another_size_than_the_catalog_says_is_corrupt() -> None:
    made = stored_object(b"hello")
    for size in (0, 4, 6):
        with pytest.raises(ObjectCorrupt):
            pour(ObjectRef(made.ref.hash, size=size), made.stored)


def test_another_algorithm_or_hash_is_corrupt() -> None:
    made = stored_object(b"hello")
    other = ContentHash.of(made.stored, HashAlgorithm.RMD160)
    for wrong in (other, ContentHash(HashAlgorithm.SHA1, other.digest)):
        if wrong == other:
            assert pour(ObjectRef(wrong, size=5), made.stored) == b"hello"
        else:
            with pytest.raises(ObjectCorrupt, match="content hash is"):
                pour(ObjectRef(wrong, size=5), made.stored)


def bomb(size: int) -> StoredObject:
    return stored_object(bytes(size))


def test_a_decompression_bomb_stops_at_the_limit() -> None:
    made = bomb(64 * STEP)
    tracemalloc.start()
    try:
        with pytest.raises(ObjectTooBig, match="too many plain bytes"):
            pour(made.unsized(), made.stored, block=1000, limit=1000)
        with pytest.raises(ObjectCorrupt, match="too many plain bytes"):
            pour(ObjectRef(made.ref.hash, size=1000), made.stored, block=1000)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 8 * STEP


def test_stored_bytes_without_end_stop_too() -> None:
    """A stream of empty blocks unpacks to nothing, for ever."""
    empty_block = b"\x00\x00\x00\xff\xff"
    made = stored_object(b"hello")
    for ref, expected in ((made.ref, ObjectCorrupt), (made.unsized(), ObjectTooBig)):
        sink = ObjectSink(ref, io.BytesIO(), limit=10)
        sink.begin()
        sink.write(b"\x78\x9c")
        with pytest.raises(expected, match="stored bytes"):
            for _ in range(100):
                sink.write(empty_block * 100)


def test_incompressible_bytes_are_not_too_many() -> None:
    for size in (1, 100, 65536, 300_000):
        plain = os.urandom(size)
        stored = zlib.compress(plain, 0)
        ref = ObjectRef(ContentHash.of(stored, HashAlgorithm.SHA1), size=size)
        assert pour(ref, stored) == plain


def test_the_limit_does_not_bind_where_the_catalog_tells_the_size() -> None:
    made = stored_object(b"hello" * 100)
    assert pour(made.ref, made.stored, limit=3) == b"hello" * 100


def test_a_memory_sink_holds_no_more_than_its_limit() -> None:
    sink = MemorySink(5)
    sink.begin()
    sink.write(b"12345")
    with pytest.raises(ObjectTooBig):
        sink.write(b"6")
    sink.begin()
    sink.write(b"abc")
    sink.finish()
    assert sink.data == b"abc"


def test_files_and_objects_are_read_from_a_store() -> None:
    made = stored_object(b"certificate", suffix=Suffix.CERTIFICATE)
    store = MemoryStore({made.ref.path: made.stored, ".cvmfsreflog": b"reflog"})
    assert read_object(store, made.ref, limit=100) == b"certificate"
    assert read_file(store, ".cvmfsreflog") == b"reflog"
    with pytest.raises(ObjectTooBig):
        read_file(store, ".cvmfsreflog", limit=5)


def test_a_plain_file_is_checked_against_its_hash() -> None:
    store = MemoryStore({".cvmfsreflog": b"reflog"})
    wanted = ContentHash.of(b"reflog", HashAlgorithm.SHA1)
    assert read_plain_object(store, ".cvmfsreflog", wanted, limit=100) == b"reflog"
    other = ContentHash.of(b"other", HashAlgorithm.SHA1)
    with pytest.raises(ObjectCorrupt, match=str(other)):
        read_plain_object(store, ".cvmfsreflog", other, limit=100)


def test_external_data_is_fetched_by_its_path() -> None:
    plain = b"0123456789"
    hash_of_middle = ContentHash.of(b"345", HashAlgorithm.SHA1)
    store = MemoryStore(external={b"/a b": plain})
    whole = ObjectRef(
        ContentHash.of(plain, HashAlgorithm.SHA1),
        compression=Compression.NONE,
        size=10,
        url_path=b"/a b",
    )
    part = ObjectRef(
        hash_of_middle, Suffix.CHUNK, Compression.NONE, size=3, url_path=b"/a b", offset=3
    )
    for ref, expected in ((whole, plain), (part, b"345")):
        out = io.BytesIO()
        fetch_object(store, ref, out, limit=100)
        assert out.getvalue() == expected


@pytest.mark.parametrize(
    "name",
    [
        "",
        "/",
        "/etc/passwd",
        "..",
        "data/../../x",
        "data//x",
        "data/",
        "./x",
        "a\0b",
        "data/..",
        "\ud800",
    ],
)
def test_names_that_lead_elsewhere_are_refused(name: str) -> None:
    with pytest.raises(InvalidName):
        check_name(name)


@pytest.mark.parametrize(
    "name", [".cvmfspublished", "data/00/ab-shake128C", "...", "a..b/..c", "ü", "\udcff"]
)
def test_ordinary_names_are_let_through(name: str) -> None:
    assert check_name(name) == name
