"""Rolling back: what was published before becomes the newest revision."""

from pathlib import Path

import pytest
from tests.support.dying import run_until
from tests.support.faults import FaultyStore, Kind
from tests.support.history import Tagged, files_of, revisions_of, tags_of
from tests.support.stratum_zero import FQRN, StratumZero

from outcrop.publisher.errors import PublishInProgress, ScratchFull
from outcrop.publisher.lock import publishing_lock
from outcrop.publisher.rollback import RollbackRefused, roll_back
from outcrop.publisher.tags import WantedTag, edit_tags
from outcrop.repository.errors import TagNotFound
from outcrop.repository.revisions import iter_revisions
from outcrop.storage.errors import StorageError
from outcrop.storage.local import LocalStore
from outcrop.storage.temporary import TransientOpener


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Tagged:
    return Tagged(tmp_path_factory.mktemp("template"))


@pytest.fixture
def tagged(template: Tagged, tmp_path: Path) -> Tagged:
    return template.copy(tmp_path)


def back(world: StratumZero, **arguments: object):
    world.now += 10
    return roll_back(world.locations, FQRN, now=world.now, **arguments)


def test_without_a_tag_the_last_publish_is_undone(tagged: Tagged) -> None:
    world = tagged.world
    done = back(world)
    checker = world.checked()
    assert (checker.manifest["S"], checker.manifest["T"]) == ("5", str(world.now))
    assert files_of(world) == {b"/f3"}
    assert revisions_of(world) == {"v2": 2, "v3": 3, "trunk": 5}
    assert (done.target.revision, [tag.name for tag in done.removed]) == (3, ["trunk", "v4"])
    trunk = tags_of(world)["trunk"]
    assert str(trunk.hash) == checker.manifest["C"]
    assert trunk.timestamp == world.now


def test_an_undo_cannot_be_undone_without_a_tag(tagged: Tagged) -> None:
    back(tagged.world)
    with pytest.raises(RollbackRefused, match="cannot be repeated"):
        back(tagged.world)
    tagged.change(9)
    tagged.world.publish(tagged.source)
    back(tagged.world)
    assert files_of(tagged.world) == {b"/f3"}


def test_a_rollback_to_a_tag_forgets_newer_ones_and_moves_it(tagged: Tagged) -> None:
    world = tagged.world
    edit_tags(
        world.locations, FQRN, add=[WantedTag(name="also-two", revision=2)], now=world.now + 1
    )
    before = tags_of(world)
    back(world, tag="v2")
    world.checked()
    assert files_of(world) == {b"/f2"}
    assert revisions_of(world) == {"v2": 5, "also-two": 2, "trunk": 5}
    assert tags_of(world)["also-two"].hash == before["v2"].hash != tags_of(world)["v2"].hash
    assert files_of(world, before["v2"].hash) == {b"/f2"}


def test_the_chain_of_revisions_goes_on_through_a_rollback(tagged: Tagged) -> None:
    world = tagged.world
    back(world, tag="v2")
    chain = list(iter_revisions(TransientOpener(world.store), tags_of(world)["trunk"].hash))
    assert [root.revision for root in chain] == [5, 4, 3, 2, 1, 0]
    assert (chain[0].published_at, chain[0].size) == (world.now, tags_of(world)["trunk"].size)


def test_publishing_goes_on_after_a_rollback(tagged: Tagged) -> None:
    world = tagged.world
    back(world)
    result = world.publish(tagged.source, tag="v6")
    assert result.revision == 6
    world.checked()
    assert files_of(world) == {b"/f4"}
    assert revisions_of(world) == {"v2": 2, "v3": 3, "v6": 6, "trunk": 6, "trunk-previous": 5}


def test_what_cannot_be_rolled_back_to_is_refused(tagged: Tagged) -> None:
    world = tagged.world
    for name in ("trunk", "v4"):
        with pytest.raises(RollbackRefused, match="which the trunk is now"):
            back(world, tag=name)
    with pytest.raises(TagNotFound, match="'nothing'"):
        back(world, tag="nothing")
    with publishing_lock(world.spool, FQRN), pytest.raises(PublishInProgress):
        back(world)
    assert world.checked().manifest["S"] == "4"


OLD = {"v2": 2, "v3": 3, "v4": 4, "trunk": 4, "trunk-previous": 3}
NEW = {"v2": 5, "trunk": 5}


def assert_old_or_new_is_served(world: StratumZero) -> bool:
    problems = [
        p for p in world.checker().check() if "left over" not in p and "reflog: hash" not in p
    ]
    assert problems == []
    found = revisions_of(world)
    assert (found, files_of(world)) in ((OLD, {b"/f4"}), (NEW, {b"/f2"}))
    return found == NEW


@pytest.mark.parametrize(
    ("kind", "step"),
    [
        (Kind.ERROR, 4),
        (Kind.FULL, 5),
        pytest.param(Kind.ERROR, 1, marks=pytest.mark.system),
        pytest.param(Kind.FULL, 1, marks=pytest.mark.system),
    ],
)
def test_a_store_that_fails_at_any_operation_leaves_the_old_revision(
    tagged: Tagged, kind: Kind, step: int
) -> None:
    for fail_at, world in zip(range(1, 200, step), tagged.copies(), strict=False):
        store = FaultyStore(LocalStore(world.directory), fail_at=fail_at, kind=kind)
        try:
            back(world, tag="v2", store=store)
        except (StorageError, ScratchFull):
            if not assert_old_or_new_is_served(world):
                back(world, tag="v2")
            assert revisions_of(world) == NEW
        else:
            assert store.operations < fail_at
            break
    assert fail_at > 10


@pytest.mark.parametrize("step", [43, pytest.param(5, marks=pytest.mark.system)])
def test_a_rollback_killed_anywhere_is_done_or_not_begun(tagged: Tagged, step: int) -> None:
    for number, world in zip(range(1, 10_000, step), tagged.copies(), strict=False):
        is_through = run_until(number, lambda world=world: back(world, tag="v2"))
        is_done = assert_old_or_new_is_served(world)
        if is_through:
            assert is_done
            break
        world.now += 10
        if not is_done:
            back(world, tag="v2")
        world.publish(tagged.source)
        world.checked()
        assert not list((world.spool / "tmp").iterdir())
    assert number > 10
