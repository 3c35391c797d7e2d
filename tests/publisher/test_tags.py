"""Tags: set, moved and removed by hand, set and dropped by publishing."""

from pathlib import Path

import pytest
from tests.support.dying import run_until
from tests.support.faults import FaultyStore, Kind
from tests.support.history import Tagged, revisions_of, tags_of
from tests.support.stratum_zero import FQRN, StratumZero

from outcrop.errors import FormatError
from outcrop.formats.hashes import ContentHash
from outcrop.publisher.errors import (
    PublisherSettingsError,
    PublishInProgress,
    ScratchFull,
    TagExists,
    TransactionOpen,
)
from outcrop.publisher.lock import publishing_lock
from outcrop.publisher.session import open_session
from outcrop.publisher.tags import WantedTag, edit_tags
from outcrop.repository.errors import RevisionConflict, RevisionNotFound, TagNotFound
from outcrop.storage.errors import StorageError
from outcrop.storage.local import LocalStore

ALL = {"v2": 2, "v3": 3, "v4": 4, "trunk": 4, "trunk-previous": 3}
DAY = 86400


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Tagged:
    return Tagged(tmp_path_factory.mktemp("template"))


@pytest.fixture
def tagged(template: Tagged, tmp_path: Path) -> Tagged:
    return template.copy(tmp_path)


def edit(world: StratumZero, **arguments: object):
    world.now += 10
    return edit_tags(world.locations, FQRN, now=world.now, **arguments)


def test_a_tag_names_the_trunk_and_makes_no_revision(tagged: Tagged) -> None:
    world = tagged.world
    before = world.checker()
    before.check()
    done = edit(world, add=[WantedTag(name="good", description="so far")])
    after = world.checked()
    assert (after.manifest["C"], after.manifest["S"]) == (before.manifest["C"], "4")
    assert after.manifest["H"] != before.manifest["H"]
    assert after.manifest["T"] == str(world.now)
    assert revisions_of(world) == {**ALL, "good": 4}
    (tag,) = done.added
    assert tag == tags_of(world)["good"]
    trunk = tags_of(world)["trunk"]
    assert (tag.hash, tag.size, tag.timestamp) == (trunk.hash, trunk.size, trunk.timestamp)
    assert tag.description == "so far"


def test_a_tag_names_any_revision_by_hash_or_number(tagged: Tagged) -> None:
    world = tagged.world
    old = tags_of(world)["v2"]
    edit(world, remove=["v2"])
    edit(
        world,
        add=[
            WantedTag(name="first", revision=1),
            WantedTag(name="two", root=old.hash),
            WantedTag(name="three", revision=3),
        ],
    )
    world.checked()
    tags = tags_of(world)
    assert {n: tags[n].revision for n in ("first", "two", "three")} == {
        "first": 1,
        "two": 2,
        "three": 3,
    }
    assert (tags["two"].hash, tags["two"].size) == (old.hash, old.size)
    assert tags["two"].timestamp == old.timestamp


def test_a_tag_is_moved_only_where_somebody_says_where_to(tagged: Tagged) -> None:
    world = tagged.world
    edit(world, add=[WantedTag(name="stable", description="the good one")])
    with pytest.raises(TagExists, match="revision 4"):
        edit(world, add=[WantedTag(name="stable")])
    with pytest.raises(TagExists):
        edit(world, add=[WantedTag(name="stable", revision=4)])
    done = edit(world, add=[WantedTag(name="stable", revision=2)])
    assert [tag.revision for tag in done.moved] == [4]
    assert (tags_of(world)["stable"].revision, done.added[0].description) == (2, "the good one")
    world.checked()


def test_several_tags_go_at_once_or_none(tagged: Tagged) -> None:
    world = tagged.world
    served = world.store.root.joinpath(".cvmfspublished").read_bytes()
    with pytest.raises(TagNotFound, match=r"'nothing' to remove; nothing was changed"):
        edit(world, remove=["v2", "nothing"])
    assert world.store.root.joinpath(".cvmfspublished").read_bytes() == served
    done = edit(world, remove=["v2", "v3", "v2"], add=[WantedTag(name="v3")])
    assert [tag.name for tag in done.removed] == ["v2", "v3"]
    assert revisions_of(world) == {"v3": 4, "v4": 4, "trunk": 4, "trunk-previous": 3}
    world.checked()


@pytest.mark.parametrize("name", ["trunk", "trunk-previous", "a b", ""])
def test_undo_tags_and_impossible_names_are_refused(tagged: Tagged, name: str) -> None:
    with pytest.raises(FormatError):
        edit(tagged.world, add=[WantedTag(name=name)])
    with pytest.raises(FormatError):
        edit(tagged.world, remove=[name])


def test_only_revisions_of_this_repository_are_tagged(tagged: Tagged) -> None:
    unknown = ContentHash.parse("0123456789abcdef" * 2 + "01234567")
    with pytest.raises(RevisionNotFound, match=str(unknown)):
        edit(tagged.world, add=[WantedTag(name="x", root=unknown)])
    for number in (5, 99):
        with pytest.raises(RevisionNotFound, match=f"no revision {number}"):
            edit(tagged.world, add=[WantedTag(name="x", revision=number)])


def test_a_nested_catalog_is_no_revision(tagged: Tagged) -> None:
    world = tagged.world
    (tagged.source / "sub").mkdir()
    (tagged.source / "sub/.cvmfscatalog").touch()
    world.publish(tagged.source)
    with open_session(world.locations, FQRN, now=world.now) as session:
        nested = session.editor.root.nested[b"/sub"]
    assert nested is not None
    with pytest.raises(RevisionNotFound):
        edit(world, add=[WantedTag(name="x", root=nested.hash)])


def test_editing_waits_for_nobody_unless_told_to(tagged: Tagged) -> None:
    world = tagged.world
    with publishing_lock(world.spool, FQRN), pytest.raises(PublishInProgress):
        edit(world, remove=["v2"])
    (world.spool / "in_transaction.lock").touch()
    with pytest.raises(TransactionOpen):
        edit(world, remove=["v2"])


def test_an_edit_between_a_publish_and_its_end_is_never_lost(tagged: Tagged) -> None:
    """Two machines have no lock in common: the manifest itself is what they compete for."""
    copies = tagged.copies()
    world, other = tagged.world, next(copies)
    storage = world.directory
    other.configure(CVMFS_UPSTREAM_STORAGE=f"local,{storage}/data/txn,{storage}")
    with open_session(world.locations, FQRN, now=world.now + 50) as session:
        edit(other, add=[WantedTag(name="meanwhile")])
        (other.spool / "reflog.chksum").replace(world.spool / "reflog.chksum")
        session.editor.remove(b"/f4")
        with pytest.raises(RevisionConflict):
            session.publish([], workers=1)
    assert "meanwhile" in revisions_of(world)


def served_tags(world: StratumZero, *possible: dict[str, int]) -> None:
    problems = [
        p for p in world.checker().check() if "left over" not in p and "reflog: hash" not in p
    ]
    assert problems == []
    assert revisions_of(world) in possible


NEW = {"good": 2, "v4": 4, "v2": 2, "trunk": 4, "trunk-previous": 3}
CHANGE = {"remove": ["v3"], "add": [WantedTag(name="good", revision=2)]}


@pytest.mark.parametrize(
    ("kind", "step"),
    [
        (Kind.ERROR, 4),
        (Kind.FULL, 5),
        pytest.param(Kind.ERROR, 1, marks=pytest.mark.system),
        pytest.param(Kind.FULL, 1, marks=pytest.mark.system),
    ],
)
def test_a_store_that_fails_at_any_operation_leaves_the_old_tags(
    tagged: Tagged, kind: Kind, step: int
) -> None:
    for fail_at, world in zip(range(1, 200, step), tagged.copies(), strict=False):
        store = FaultyStore(LocalStore(world.directory), fail_at=fail_at, kind=kind)
        try:
            edit(world, store=store, **CHANGE)
        except (StorageError, ScratchFull):
            served_tags(world, ALL, NEW)
            if revisions_of(world) == ALL:
                edit(world, **CHANGE)
            assert revisions_of(world) == NEW
        else:
            assert store.operations < fail_at
            served_tags(world, NEW)
            break
    assert fail_at > 8


@pytest.mark.parametrize("step", [41, pytest.param(4, marks=pytest.mark.system)])
def test_an_edit_killed_anywhere_is_done_or_not_begun(tagged: Tagged, step: int) -> None:
    for number, world in zip(range(1, 10_000, step), tagged.copies(), strict=False):
        is_through = run_until(number, lambda world=world: edit(world, **CHANGE))
        served_tags(world, ALL, NEW)
        if is_through:
            break
        world.now += 10
        if revisions_of(world) == ALL:
            edit(world, **CHANGE)
        world.publish(tagged.source)
        assert "good" in revisions_of(world)
        world.checked()
    assert number > 10


def test_automatic_tags_that_are_too_old_go_with_a_publish(tmp_path: Path) -> None:
    tagged = Tagged(tmp_path, CVMFS_AUTO_TAG="true", CVMFS_AUTO_TAG_TIMESPAN='"3 days ago"')
    world = tagged.world
    begin = world.now
    for day in range(6):
        tagged.change(10 + day)
        world.publish(tagged.source, now=begin + day * DAY + 100)
    result = world.publish(tagged.source, now=begin + 5 * DAY + 100)
    assert result.removed_tags == ()
    automatic = {n: t for n, t in tags_of(world).items() if n.startswith("generic")}
    assert sorted((t.timestamp - begin) // DAY for t in automatic.values()) == [2, 3, 4, 5, 5]
    assert {"v2", "v3", "v4"} < set(tags_of(world))
    result = world.publish(tagged.source, now=begin + 6 * DAY + 110)
    assert [name for name in result.removed_tags if name in automatic] == list(result.removed_tags)
    assert len(result.removed_tags) == 2
    world.checked()


def test_a_time_span_nobody_understands_is_told_before_anything_is_done(tagged: Tagged) -> None:
    tagged.world.configure(CVMFS_AUTO_TAG_TIMESPAN='"now and then"')
    with pytest.raises(PublisherSettingsError, match=r"CVMFS_AUTO_TAG_TIMESPAN.*now and then"):
        tagged.world.publish(tagged.source)


def test_the_virtual_directory_follows_edits_of_tags(tmp_path: Path) -> None:
    tagged = Tagged(tmp_path, CVMFS_VIRTUAL_DIR="true")
    world = tagged.world
    before = revisions_of(world)["trunk"]
    edit(world, add=[WantedTag(name="good", root=tags_of(world)["v2"].hash)], remove=["v3"])
    assert revisions_of(world)["trunk"] == before + 1
    checker = world.checked()
    shown = {path for path in checker.entries if path.startswith(b"/.cvmfs/snapshots/")}
    assert {path.rpartition(b"/")[2] for path in shown} == {b"good", b"v2", b"v4"}
