import contextlib
import sqlite3

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.support.golden_objects import NAMES, golden_database, golden_file
from tests.support.hostile import cells

from outcrop.errors import FormatError
from outcrop.formats import history
from outcrop.formats.hashes import ContentHash, HashAlgorithm
from outcrop.formats.history import (
    COLUMNS,
    Branch,
    Tag,
    auto_tag_name,
    check_branch_name,
    check_tag_name,
    is_auto_tag_name,
)

ROOT = ContentHash(HashAlgorithm.SHA1, bytes(20))

tags = st.builds(
    Tag,
    name=st.from_regex(r"[a-z0-9./:_-]{1,20}", fullmatch=True),
    hash=st.builds(
        ContentHash,
        st.sampled_from([HashAlgorithm.SHA1, HashAlgorithm.SHAKE128]),
        st.binary(min_size=20, max_size=20),
    ),
    size=st.integers(0, 2**40),
    revision=st.integers(0, 2**40),
    timestamp=st.integers(0, 2**40),
    description=st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0")),
    branch=st.sampled_from(["", "dev"]),
)


def new_history():
    database = sqlite3.connect(":memory:")
    for statement in history.DDL:
        database.execute(statement)
    return database


@given(st.lists(tags, max_size=5, unique_by=lambda tag: tag.name))
@settings(deadline=None, max_examples=40)
def test_reads_back_from_a_database_what_was_written(written):
    database = new_history()
    database.executemany(history.INSERT_TAG, [tag.to_row() for tag in written])
    read = [Tag.from_row(row) for row in database.execute(history.select_tags(COLUMNS))]
    assert sorted(read, key=str) == sorted(written, key=str)
    database.text_factory = bytes
    read = [Tag.from_row(row) for row in database.execute(history.select_tags(COLUMNS))]
    assert sorted(read, key=str) == sorted(written, key=str)
    database.close()


@pytest.mark.parametrize("name", NAMES)
def test_golden_histories_list_as_upstream_lists_them(name):
    rows = golden_database(name, "H").execute(history.select_tags(COLUMNS))
    lines = [Tag.from_row(row).machine_line() for row in rows]
    upstream = golden_file(name, "tags.machine.txt").decode().splitlines()
    assert sorted(lines) == sorted(upstream)


def test_the_schema_is_upstreams():
    golden = golden_database("basic", "H").execute("SELECT sql FROM sqlite_master")
    ours = {"".join(statement.split()) for statement in history.DDL}
    theirs = {b"".join(sql.split()).decode() for (sql,) in golden if sql}
    assert theirs == ours - {s for s in ours if s.startswith("INSERT")}


@pytest.mark.parametrize("missing", [(), ("branch",), ("size", "branch")])
def test_older_histories_lack_columns(missing):
    columns = [column for column in COLUMNS if column not in missing]
    database = sqlite3.connect(":memory:")
    database.execute(f"CREATE TABLE tags ({', '.join(columns)})")
    values = {"name": "v1", "hash": str(ROOT), "revision": 3, "timestamp": 100, "channel": 0,
              "description": "about", "size": 7, "branch": ""}  # fmt: skip
    row = [values[column] for column in columns]
    database.execute(f"INSERT INTO tags VALUES ({', '.join('?' * len(row))})", row)
    expected = Tag("v1", ROOT, 0 if "size" in missing else 7, 3, 100, description="about")
    for sql, parameters in (
        (history.select_tags(columns), ()),
        (history.select_tag(columns), ("v1",)),
        (history.select_tag_at(columns), (100,)),
    ):
        assert Tag.from_row(database.execute(sql, parameters).fetchone()) == expected
    database.close()


def test_finds_the_trunks_tag_at_a_time():
    database = new_history()
    database.execute("INSERT INTO branches VALUES ('dev', '', 1)")
    written = [
        Tag("old", ROOT, 0, 1, 100),
        Tag("new", ROOT, 0, 2, 200),
        Tag("newer", ROOT, 0, 3, 200),
        Tag("other", ROOT, 0, 9, 150, branch="dev"),
    ]
    database.executemany(history.INSERT_TAG, [tag.to_row() for tag in written])
    found = {
        time: [row[0] for row in database.execute(history.select_tag_at(COLUMNS), (time,))]
        for time in (99, 100, 199, 200, 10**9)
    }
    assert found == {99: [], 100: ["old"], 199: ["old"], 200: ["newer"], 10**9: ["newer"]}
    database.close()


@pytest.mark.parametrize(
    "row",
    [
        (),
        ("", str(ROOT), 1, 1, 0, "", 0, ""),
        ("a\x1b[31m", str(ROOT), 1, 1, 0, "", 0, ""),
        (5, str(ROOT), 1, 1, 0, "", 0, ""),
        ("a", "0" * 32, 1, 1, 0, "", 0, ""),
        ("a", None, 1, 1, 0, "", 0, ""),
        ("a", str(ROOT), -1, 1, 0, "", 0, ""),
        ("a", str(ROOT), 1, None, 0, "", 0, ""),
        ("a", str(ROOT), 1, 1, 0, 5, 0, ""),
        ("a", str(ROOT), 1, 1, 0, "", "x", ""),
    ],
)
def test_refuses_rows_that_are_no_tag(row):
    with pytest.raises(FormatError):
        Tag.from_row(row)


@given(st.tuples(*(
    st.one_of(cells, st.just(value)) for value in Tag("v1", ROOT, 7, 3, 100).to_row()
)))  # fmt: skip
@settings(deadline=None)
def test_any_row_gives_a_tag_or_a_format_error(row):
    try:
        Tag.from_row(row)
    except FormatError as error:
        assert str(error)


@pytest.mark.parametrize("name", ["v1.0", "a-b_c.d/e:f", "generic-2026-11-22T07:43:54Z", "x" * 255])
def test_accepts_names_for_tags(name):
    assert check_tag_name(name) == name


@pytest.mark.parametrize("name", ["", "a b", "a\n", "ä", "trunk", "trunk-previous", "x" * 256])
def test_refuses_names_for_tags(name):
    with pytest.raises(FormatError):
        check_tag_name(name)


def test_automatic_tags_are_known_by_their_names():
    assert auto_tag_name(1795335834, 0) == "generic-2026-11-22T08:23:54Z"
    assert auto_tag_name(1795335834, 2) == "generic_2-2026-11-22T08:23:54Z"
    for name in (auto_tag_name(0, 0), auto_tag_name(0, 12), "generic-2026-11-22T08:23:54.123Z"):
        assert is_auto_tag_name(name)
    for name in ("generic", "my-generic-2026-11-22T08:23:54Z", "generic-2026-11-22", "v1"):
        assert not is_auto_tag_name(name)


@pytest.mark.parametrize("name", ["dev", "a/b", "user@host", "v1.0_x-y"])
def test_names_of_branches(name):
    assert check_branch_name(name) == name


@pytest.mark.parametrize("name", ["", "(default)", "a b", "a:b", "é", "x" * 256, "a\n"])
def test_impossible_names_of_branches(name):
    with pytest.raises(FormatError, match="not a branch name"):
        check_branch_name(name)


@given(cells, cells, cells)
@settings(deadline=None)
def test_any_branch_row_is_a_branch_or_a_format_error(name, parent, revision):
    with contextlib.suppress(FormatError):
        assert Branch.from_row((name, parent, revision)).initial_revision >= 0
