"""Editing histories: tags, branches, rollback, and what older and hostile ones become."""

import sqlite3
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.support.golden_objects import NAMES, golden_database

from outcrop.errors import FormatError
from outcrop.formats.hashes import ContentHash, HashAlgorithm
from outcrop.formats.history import DDL, Branch, Tag
from outcrop.repository.tag_database import TagDatabase

FQRN = "sim.example.org"
ROOT = ContentHash.of(b"a catalog", HashAlgorithm.SHA1)
TRUNK_BRANCH = Branch("", None, 0)


def tag(name: str, revision: int = 1, branch: str = "") -> Tag:
    root = ContentHash.of(b"%d" % revision, HashAlgorithm.SHA1)
    return Tag(name, root, 9, revision, 1000 + revision, branch=branch)


def names(history: TagDatabase) -> set[str]:
    return {found.name for found in history.tags()}


def test_tags_are_replaced_and_removed() -> None:
    with TagDatabase.create(FQRN) as history:
        history.put(tag("v1"))
        history.put(tag("v1", 2))
        data = history.serialize(None)
    with TagDatabase.open(data) as history:
        assert history.find("v1") == tag("v1", 2)
        history.remove("v1")
        history.remove("v1")
        assert history.find("v1") is None


def test_moving_the_trunk_remembers_the_one_before() -> None:
    with TagDatabase.create(FQRN) as history:
        for revision in (1, 2, 3):
            history.move_trunk(tag("ignored", revision))
        assert {t.name: (t.revision, t.description) for t in history.tags()} == {
            "trunk": (3, "current HEAD"),
            "trunk-previous": (2, "default undo target"),
        }


def test_a_rollback_forgets_what_is_newer_and_spares_other_branches() -> None:
    with TagDatabase.create(FQRN) as history:
        history.put_branch(Branch("dev", "", 4))
        for found in (tag("v1", 1), tag("v2", 2), tag("two", 2), tag("v3", 3), tag("d", 9, "dev")):
            history.put(found)
        history.move_trunk(tag("", 3))
        gone = history.roll_back(tag("v2", 2), tag("v2", 5))
        assert [found.name for found in gone] == ["v2", "trunk", "v3"]
        assert names(history) == {"v1", "v2", "two", "d"}
        assert history.find("v2") == tag("v2", 5)


def test_a_branch_without_tags_goes_and_its_children_move_up() -> None:
    with TagDatabase.create(FQRN) as history:
        for branch in (Branch("a", "", 1), Branch("b", "a", 2), Branch("c", "b", 3)):
            history.put_branch(branch)
        history.put_branch(Branch("c", "", 9))  # is there: stays as it is
        history.put(tag("on-c", 3, "c"))
        history.prune_branches()
        assert history.branches() == [TRUNK_BRANCH, Branch("c", "", 3)]
        history.remove("on-c")
        history.prune_branches()
        assert history.branches() == [TRUNK_BRANCH]


def test_a_tag_on_an_unknown_branch_is_refused() -> None:
    with TagDatabase.create(FQRN) as history, pytest.raises(FormatError, match="FOREIGN KEY"):
        history.put(tag("v1", branch="nowhere"))


@pytest.mark.parametrize("revision", [0, 1, 2])
def test_an_older_history_is_brought_up_to_date(revision: int) -> None:
    missing = {"branch"} if revision else {"branch", "size"}
    columns = [
        c for c in ("name", "hash", "revision", "timestamp", "channel", "description", "size")
        if c not in missing
    ]  # fmt: skip
    old = sqlite3.connect(":memory:", isolation_level=None)
    old.execute(DDL[0])
    old.execute(f"CREATE TABLE tags ({', '.join(columns)}, CONSTRAINT pk PRIMARY KEY (name))")
    values = ["v1", str(ROOT), 3, 100, 0, "about", 7][: len(columns)]
    old.execute(f"INSERT INTO tags VALUES ({', '.join('?' * len(values))})", values)
    properties = {"schema": "1.0", "schema_revision": str(revision), "fqrn": FQRN}
    old.executemany("INSERT INTO properties VALUES (?, ?)", properties.items())
    with TagDatabase.open(old.serialize()) as history:
        expected = Tag("v1", ROOT, 7 if revision else 0, 3, 100, description="about")
        assert history.tags() == [expected]
        history.put_branch(Branch("dev", "", 3))
        history.put(replace(expected, name="v2", branch="dev"))
        data = history.serialize(None)
    with TagDatabase.open(data) as history:
        assert names(history) == {"v1", "v2"}
        assert history.branches() == [TRUNK_BRANCH, Branch("dev", "", 3)]


@pytest.mark.parametrize("name", NAMES)
def test_golden_histories_are_edited_without_losing_anything(name: str) -> None:
    data = golden_database(name, "H").serialize()
    with TagDatabase.open(data) as history:
        before = history.tags()
        history.put(tag("new", 99))
        history.prune_branches()
        data = history.serialize(ROOT)
    with TagDatabase.open(data) as history:
        assert set(history.tags()) == {*before, tag("new", 99)}
        assert history.branches() == [TRUNK_BRANCH]
    assert str(ROOT).encode() in data


def damaged(*statements: str) -> bytes:
    with TagDatabase.create(FQRN) as history:
        data = history.serialize(None)
    database = sqlite3.connect(":memory:", isolation_level=None)
    database.deserialize(data)
    for statement in statements:
        database.execute(statement)
    return database.serialize()


@pytest.mark.parametrize(
    ("data", "match"),
    [
        (b"x" * 1000, "no database"),
        (damaged("UPDATE properties SET value = '4' WHERE key = 'schema_revision'"), "revision 4"),
        (damaged("UPDATE properties SET value = 'x' WHERE key = 'schema_revision'"), "revision x"),
        (damaged("UPDATE properties SET value = '2.0' WHERE key = 'schema'"), "schema 2.0"),
        (damaged("CREATE VIEW v AS SELECT 1"), "view"),
        (damaged("CREATE TRIGGER t AFTER INSERT ON tags BEGIN SELECT 1; END"), "trigger"),
        (damaged("DROP TABLE properties"), "properties"),
    ],
)
def test_a_history_of_another_kind_is_not_written_to(data: bytes, match: str) -> None:
    with pytest.raises(FormatError, match=match):
        TagDatabase.open(data)


def test_a_damaged_table_is_a_format_error_whatever_is_done() -> None:
    with TagDatabase.open(damaged("DROP TABLE tags")) as history:
        for act in (history.tags, lambda: history.find("x"), lambda: history.remove("x")):
            with pytest.raises(FormatError, match="tags"):
                act()


model_names = st.sampled_from(["a", "b", "c", "d"])
steps = st.lists(
    st.one_of(
        st.tuples(st.just("put"), model_names, st.integers(1, 9)),
        st.tuples(st.just("remove"), model_names, st.just(0)),
        st.tuples(st.just("roll_back"), model_names, st.just(0)),
    ),
    max_size=12,
)


@given(steps)
@settings(deadline=None, max_examples=60)
def test_behaves_like_a_dictionary(actions) -> None:
    model: dict[str, int] = {}
    with TagDatabase.create(FQRN) as history:
        for step, (action, name, revision) in enumerate(actions):
            if action == "put":
                history.put(tag(name, revision))
                model[name] = revision
            elif action == "remove":
                history.remove(name)
                model.pop(name, None)
            elif name in model:
                history.roll_back(tag(name, model[name]), tag(name, 10 + step))
                kept = {n: r for n, r in model.items() if r <= model[name] and n != name}
                model = {**kept, name: 10 + step}
            assert {t.name: t.revision for t in history.tags()} == model
