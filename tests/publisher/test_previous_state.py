"""What is remembered of a source, and when it is not believed."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from outcrop.formats.catalog import Chunk
from outcrop.formats.hashes import ContentHash, HashAlgorithm
from outcrop.publisher.previous_state import (
    PreviousState,
    Stamps,
    content_key,
    make_room,
    state_file,
)
from outcrop.publisher.scan import SourceEntry, scan_directory

ROOT = ContentHash.of(b"root", HashAlgorithm.SHA1)
OTHER = ContentHash.of(b"other", HashAlgorithm.SHA1)
LATE = 1 << 62
"""A scan so late that nothing is too new for it."""
KEY = b"k" * 20


@pytest.fixture
def source(tmp_path: Path) -> Path:
    source = tmp_path / "source"
    source.mkdir()
    (source / "a").write_bytes(b"a")
    (source / "b").write_bytes(b"b")
    (source / "d").mkdir()
    (source / "link").symlink_to("a")
    return source


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "state.db"


@pytest.fixture
def opened(file: Path) -> Iterator[list[PreviousState]]:
    """Collects states to be closed."""
    states: list[PreviousState] = []
    yield states
    for state in states:
        state.close()


def stamp_of(source: Path, *, at: int = LATE) -> bytes:
    own, entries = scan_directory(os.fsencode(source))
    return Stamps(at).stamp(own, entries)


def remember(file: Path, source: Path, *, at: int = LATE, root: ContentHash = ROOT) -> None:
    state = PreviousState(file, root=root, options="o")
    state.put(b"/p", stamp_of(source, at=at), [KEY, b"l" * 20])
    state.commit(root)
    state.close()


def test_an_unchanged_directory_is_proven_equal(
    file: Path, source: Path, opened: list[PreviousState]
) -> None:
    remember(file, source)
    opened.append(state := PreviousState(file, root=ROOT, options="o"))
    assert state.proves(b"/p", stamp_of(source))
    assert not state.proves(b"/q", stamp_of(source))


@pytest.mark.parametrize("mtime_ns", [0x80, -1, 0, 1 << 60])
def test_no_time_looks_like_an_uncertain_one(
    file: Path, source: Path, opened: list[PreviousState], mtime_ns: int
) -> None:
    os.truncate(source / "a", 0)
    os.utime(source / "a", ns=(0, mtime_ns))
    remember(file, source)
    opened.append(state := PreviousState(file, root=ROOT, options="o"))
    assert state.proves(b"/p", stamp_of(source))


@pytest.mark.parametrize("change", ["content", "mode", "name", "new", "gone", "own", "link"])
def test_any_change_is_no_proof(
    file: Path, source: Path, opened: list[PreviousState], change: str
) -> None:
    os.utime(source / "a", (1, 1))
    os.utime(source, (1, 1))
    remember(file, source)
    match change:
        case "content":
            os.utime(source / "a", (2, 2))
        case "mode":
            (source / "a").chmod(0o600)
        case "name":
            (source / "a").rename(source / "c")
        case "new":
            (source / "new").touch()
        case "gone":
            (source / "d").rmdir()
        case "own":
            source.chmod(0o700)
        case "link":
            (source / "link").unlink()
            (source / "link").symlink_to("b")
    opened.append(state := PreviousState(file, root=ROOT, options="o"))
    assert not state.proves(b"/p", stamp_of(source))


def test_another_trunk_or_other_options_prove_nothing(
    file: Path, source: Path, opened: list[PreviousState]
) -> None:
    remember(file, source)
    opened.append(moved := PreviousState(file, root=OTHER, options="o"))
    assert not moved.proves(b"/p", stamp_of(source))
    assert set(moved.files(b"/p")) == {b"a", b"b"}
    moved.close()
    opened.append(changed := PreviousState(file, root=ROOT, options="p"))
    assert not changed.proves(b"/p", stamp_of(source))


def test_files_are_known_by_record_and_key(
    file: Path, source: Path, opened: list[PreviousState]
) -> None:
    remember(file, source)
    opened.append(state := PreviousState(file, root=ROOT, options="o"))
    entry = SourceEntry(b"a", (source / "a").lstat())
    assert state.files(b"/p")[b"a"] == (Stamps(LATE).record(entry), KEY)
    assert state.files(b"/q") == {}


def test_a_file_too_new_for_its_scan_is_not_known(
    file: Path, source: Path, opened: list[PreviousState]
) -> None:
    now = (source / "a").stat().st_mtime_ns
    remember(file, source, at=now + 1_000_000_000)
    opened.append(state := PreviousState(file, root=ROOT, options="o"))
    assert not state.proves(b"/p", stamp_of(source, at=now + 1_000_000_000))
    assert not state.proves(b"/p", stamp_of(source))
    assert state.files(b"/p") == {}


def test_what_was_not_committed_is_forgotten(
    file: Path, source: Path, opened: list[PreviousState]
) -> None:
    remember(file, source)
    state = PreviousState(file, root=ROOT, options="o")
    state.remove(b"/p")
    state.put(b"/q", stamp_of(source), [KEY, KEY])
    state.close()
    opened.append(again := PreviousState(file, root=ROOT, options="o"))
    assert again.proves(b"/p", stamp_of(source))
    assert not again.files(b"/q")


def test_a_directory_is_forgotten_with_all_below_and_nothing_beside(
    file: Path, source: Path, opened: list[PreviousState]
) -> None:
    opened.append(state := PreviousState(file, root=ROOT, options="o"))
    for path in (b"/p", b"/p/q", b"/p/q/\xff", b"/pq", b"/p.q", b""):
        state.put(path, stamp_of(source), [KEY, KEY])
    state.remove(b"/p")
    kept = [p for p in (b"/p", b"/p/q", b"/p/q/\xff", b"/pq", b"/p.q", b"") if state.files(p)]
    assert kept == [b"/pq", b"/p.q", b""]


@pytest.mark.parametrize("content", [b"", b"no database at all", b"SQLite format 3\0" * 100])
def test_a_damaged_file_is_as_good_as_none(
    file: Path, source: Path, opened: list[PreviousState], content: bytes
) -> None:
    file.write_bytes(content)
    remember(file, source)
    opened.append(state := PreviousState(file, root=ROOT, options="o"))
    assert state.proves(b"/p", stamp_of(source))


def test_state_files_are_kept_apart_and_few(tmp_path: Path) -> None:
    first = state_file(tmp_path / "states", b"/src", b"")
    assert first != state_file(tmp_path / "states", b"/src", b"/to")
    make_room(first)
    first.touch()
    for number in range(30):
        other = state_file(tmp_path / "states", b"/src%d" % number, b"")
        make_room(other, keep=5)
        other.touch()
        os.utime(other, (number + 1, number + 1))
    assert len(list((tmp_path / "states").iterdir())) == 5


@given(st.binary(max_size=30), st.binary(max_size=30))
@settings(max_examples=50, deadline=None)
def test_contents_have_equal_keys_only_if_they_are_equal(one: bytes, two: bytes) -> None:
    hashes = [ContentHash.of(data, HashAlgorithm.SHA1) for data in (one, two)]
    assert (content_key(hashes[0], ()) == content_key(hashes[1], ())) == (one == two)
    chunks = [[Chunk(0, 5, hashes[0]), Chunk(5, 5, hashes[1])], [Chunk(0, 5, hashes[1])]]
    assert content_key(None, chunks[0]) != content_key(None, chunks[1])
