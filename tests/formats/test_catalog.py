import stat
from dataclasses import fields, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.support.golden_objects import NAMES, golden_database
from tests.support.hostile import cells

from outcrop.errors import FormatError
from outcrop.formats.catalog import (
    COLUMNS,
    COUNTER_NAMES,
    DDL,
    Counters,
    DirectoryEntry,
    EntryFlags,
    Statistics,
    check_schema,
    parent_hash,
    path_hash,
    select_list,
)
from outcrop.formats.hashes import Compression, ContentHash, HashAlgorithm

SHA1 = ContentHash(HashAlgorithm.SHA1, bytes(range(20)))
SHAKE = ContentHash(HashAlgorithm.SHAKE128, bytes(range(20)))
FILE = DirectoryEntry(name=b"f", mode=stat.S_IFREG | 0o644, size=5, content=SHA1)
DIRECTORY = DirectoryEntry(name=b"d", mode=stat.S_IFDIR | 0o755, size=4096, nlink=2)
LINK = DirectoryEntry(name=b"l", mode=stat.S_IFLNK | 0o777, symlink=b"to", size=2)
FIFO = DirectoryEntry(name=b"p", mode=stat.S_IFIFO | 0o600)
DEVICE = DirectoryEntry(name=b"c", mode=stat.S_IFCHR | 0o600, rdev=0x0103)


@pytest.mark.parametrize(
    ("path", "one", "two"),
    [
        (b"", 338333539836370388, 9098107892288553193),
        (b"/foo", 5745132282796244766, -5819618580357280866),
        (b"/foo/bar", -2822516800166431715, 9048809318629099454),
        (b"/.cvmfs", -2402492567927477437, -171651727507129842),
    ],
)
def test_hashes_the_paths_of_the_specification(path, one, two):
    assert path_hash(path) == (one, two)


def test_a_parent_is_the_hash_of_the_path_above_and_zero_for_the_root():
    assert parent_hash(b"/foo/bar") == path_hash(b"/foo")
    assert parent_hash(b"/foo") == path_hash(b"")
    assert parent_hash(b"") == (0, 0)


@pytest.mark.parametrize(
    ("flags", "entry"),
    [
        (4, FILE),
        (516, replace(FILE, content=SHAKE, algorithm=HashAlgorithm.SHAKE128)),
        (2052, replace(FILE, compression=Compression.NONE)),
        (68, replace(FILE, content=None, is_chunked=True)),
        (2244, replace(FILE, content=None, is_chunked=True, is_external=True,
                       compression=Compression.NONE)),
        (65540, replace(FILE, is_direct_io=True)),
        (1, DIRECTORY),
        (3, replace(DIRECTORY, is_nested_mountpoint=True)),
        (33, replace(DIRECTORY, is_nested_root=True)),
        (16385, replace(DIRECTORY, is_bind_mountpoint=True)),
        (32771, replace(DIRECTORY, is_nested_mountpoint=True, is_hidden=True)),
        (32801, replace(DIRECTORY, is_nested_root=True, is_hidden=True)),
        (12, LINK),
        (20, FIFO),
        (20, DEVICE),
    ],
)  # fmt: skip
def test_flags_of_the_specification(flags, entry):
    assert entry.flags == flags
    assert DirectoryEntry.from_row(entry.to_row()) == entry


def test_a_directory_is_one_kind_of_mountpoint_at_most_when_written():
    everything = replace(
        DIRECTORY, is_nested_root=True, is_nested_mountpoint=True, is_bind_mountpoint=True
    )
    assert everything.flags == 33
    assert replace(everything, is_nested_root=False).flags == 3


def test_without_a_hash_no_algorithm_is_written():
    assert replace(FILE, content=None, algorithm=HashAlgorithm.SHAKE128).flags == 4


def test_kinds_exclude_each_other():
    for entry, kind in (
        (FILE, "is_regular"), (DIRECTORY, "is_directory"), (LINK, "is_symlink"),
        (FIFO, "is_special"), (DEVICE, "is_special"),
    ):  # fmt: skip
        names = ("is_regular", "is_directory", "is_symlink", "is_special")
        assert [name for name in names if getattr(entry, name)] == [kind]


def test_hard_links_are_a_group_and_a_count_in_one_number():
    entry = replace(FILE, nlink=2, hardlink_group=3)
    assert entry.to_row()[COLUMNS.index("hardlinks")] == 12884901890
    assert DirectoryEntry.from_row(entry.to_row()) == entry


def test_a_device_has_its_number_in_place_of_a_size():
    row = DEVICE.to_row()
    assert row[COLUMNS.index("size")] == 0x0103
    assert (DirectoryEntry.from_row(row).size, DirectoryEntry.from_row(row).rdev) == (0, 0x0103)


def test_large_owner_numbers_are_unsigned():
    row = changed(FILE, uid=-2, gid=4000000000)
    entry = DirectoryEntry.from_row(row)
    assert (entry.uid, entry.gid) == (0xFFFFFFFE, 4000000000)


def changed(entry, **columns):
    """An entry's row with other values in some columns."""
    values = dict(zip(COLUMNS, entry.to_row(), strict=True)) | columns
    return tuple(values[column] for column in COLUMNS)


@pytest.mark.parametrize(
    "row",
    [
        changed(FILE, name=b".."),
        changed(FILE, name=b"."),
        changed(FILE, name=b""),
        changed(FILE, name=b"a/b"),
        changed(FILE, name=b"a\0b"),
        changed(FILE, name=b"x" * 256),
        changed(FILE, name="text"),
        changed(FILE, name=None),
        changed(FILE, size=-1),
        changed(FILE, size=1.5),
        changed(FILE, size=None),
        changed(FILE, hardlinks=-1),
        changed(FILE, mode=-1),
        changed(FILE, mode=2**62),
        changed(FILE, mode=0o644),
        changed(FILE, mode=stat.S_IFDIR),
        changed(FILE, mode=stat.S_IFLNK),
        changed(FILE, flags=-1),
        changed(FILE, flags=2**32),
        changed(FILE, flags=4 | 3 << 8),
        changed(FILE, flags=4 | 2 << 11),
        changed(FILE, mtime=b"0"),
        changed(FILE, mtimens=-1),
        changed(FILE, mtimens=1_000_000_000),
        changed(FILE, mtimens="5"),
        changed(FILE, hash=bytes(19)),
        changed(FILE, hash=10**9),
        changed(FILE, xattr=10**9),
        changed(FILE, xattr="text"),
        changed(DIRECTORY, flags=4),
        changed(LINK, flags=4),
        changed(LINK, symlink=10**12),
        changed(LINK, symlink=b"a\0b"),
        changed(LINK, symlink=b"x" * 4096),
    ],
)
def test_refuses_rows_no_writer_makes(row):
    with pytest.raises(FormatError):
        DirectoryEntry.from_row(row)


def test_only_directories_are_mountpoints_and_only_files_are_chunked():
    entry = DirectoryEntry.from_row(changed(FILE, flags=4 | 2 | 32 | 0x4000))
    assert not (entry.is_nested_mountpoint or entry.is_nested_root or entry.is_bind_mountpoint)
    entry = DirectoryEntry.from_row(changed(DIRECTORY, flags=1 | 64 | 128 | 0x10000))
    assert not (entry.is_chunked or entry.is_external or entry.is_direct_io)


def test_a_file_without_hash_or_chunks_is_read_as_such():
    entry = DirectoryEntry.from_row(changed(FILE, hash=None, flags=4 | 7 << 8))
    assert (entry.content, entry.is_chunked, entry.algorithm) == (None, False, HashAlgorithm.SHA1)


def test_flags_of_newer_versions_are_passed_over():
    assert DirectoryEntry.from_row(changed(FILE, flags=4 | 1 << 20)) == FILE


@given(st.tuples(*(
    st.one_of(cells, st.just(value)) for value in changed(FILE, mtimens=5, xattr=b"x")
)))  # fmt: skip
@settings(deadline=None)
def test_any_row_gives_an_entry_or_a_format_error(row):
    try:
        entry = DirectoryEntry.from_row(row)
    except FormatError as error:
        assert str(error)
    else:
        assert DirectoryEntry.from_row(entry.to_row()) == entry


@pytest.mark.parametrize("name", NAMES)
def test_golden_rows_are_written_back_unchanged(name):
    database = golden_database(name, "C")
    rows = database.execute(f"SELECT {select_list(COLUMNS)} FROM catalog").fetchall()
    assert len(rows) > 5
    for row in rows:
        written = list(DirectoryEntry.from_row(row).to_row())
        assert tuple(written) == row


def test_columns_an_old_catalog_lacks_are_selected_as_null():
    old = [column for column in COLUMNS if column not in ("mtimens", "xattr")]
    selected = select_list(old).split(", ")
    assert selected == [c if c in old else f"NULL AS {c}" for c in COLUMNS]


def test_the_schema_is_upstreams():
    golden = golden_database("basic", "C").execute("SELECT sql FROM sqlite_master")
    ours = {"".join(statement.split()) for statement in DDL}
    assert {b"".join(sql.split()).decode() for (sql,) in golden if sql} == ours


@pytest.mark.parametrize(
    ("entry", "chunks", "expected"),
    [
        (FILE, 0, Counters(regular=1, file_size=5)),
        (replace(FILE, is_chunked=True, content=None), 3,
         Counters(regular=1, file_size=5, chunked=1, chunked_size=5, chunks=3)),
        (replace(FILE, is_external=True), 0,
         Counters(regular=1, file_size=5, external=1, external_file_size=5)),
        (replace(DIRECTORY, xattrs=b"\1\0"), 0, Counters(dir=1, xattr=1)),
        (LINK, 0, Counters(symlink=1)),
        (FIFO, 0, Counters(special=1)),
    ],
)  # fmt: skip
def test_counts_each_kind_of_entry(entry, chunks, expected):
    counted = Counters.of_entry(entry, chunks)
    assert counted == expected
    assert counted.entries == 1


counters = st.builds(Counters, *(st.integers(0, 2**40) for _ in fields(Counters)))


@given(counters, counters)
@settings(deadline=None)
def test_counters_add_and_subtract(left, right):
    assert left + right - right == left
    assert (left + right).entries == left.entries + right.entries


@given(counters, counters)
@settings(deadline=None)
def test_statistics_read_what_they_wrote(own, below):
    statistics = Statistics(own, below)
    assert len(statistics.rows()) == 24
    assert Statistics.from_rows(statistics.rows()) == statistics
    assert statistics.total == own + below


def test_counters_are_printed_as_upstreams_magic_attribute():
    lines = Counters(regular=2, xattr=1).csv().splitlines()
    assert [line.partition(",")[0] for line in lines] == sorted(COUNTER_NAMES)
    assert {"regular,2", "xattr,1", "nested,0"} < set(lines)


def test_counters_an_old_catalog_lacks_are_zero_and_text_is_read_too():
    assert Statistics.from_rows([("self_dir", "7"), ("subtree_dir", b"8"), ("new", 1)]) == (
        Statistics(Counters(dir=7), Counters(dir=8))
    )


@pytest.mark.parametrize("value", [None, 1.5, float("inf"), "1_0", " 1", "", b"\xff", "9" * 5000])
def test_counters_that_are_no_numbers_are_refused(value):
    with pytest.raises(FormatError, match="counter self_dir"):
        Statistics.from_rows([("self_dir", value)])


@pytest.mark.parametrize(("properties", "revision"), [
    ({"schema": "2.5", "schema_revision": "7"}, 7),
    ({"schema": "2.5"}, 0),
    ({"schema": "2.4", "schema_revision": "1"}, 1),
    ({"schema": "2.5", "schema_revision": "99"}, 99),
])  # fmt: skip
def test_schemas_that_are_read(properties, revision):
    assert check_schema(properties) == revision


@pytest.mark.parametrize(
    "properties",
    [{}, {"schema": "1.0"}, {"schema": "2.3"}, {"schema": "3.0"}, {"schema": "x" * 10**6},
     {"schema": "2.5", "schema_revision": "x"}, {"schema": "2.5", "schema_revision": "9" * 5000}],
)  # fmt: skip
def test_schemas_that_are_refused(properties):
    with pytest.raises(FormatError) as caught:
        check_schema(properties)
    assert len(str(caught.value)) < 200


def test_flag_names_cover_the_specification():
    assert sum(EntryFlags) == 0x1C0FF
