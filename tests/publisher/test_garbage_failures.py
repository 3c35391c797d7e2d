"""Collections that fail or die lose nothing, and the next one does the rest."""

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support import reachability
from tests.support.collectable import (
    Copies,
    QuickStore,
    World,
    expected_after,
    small_history,
    tiny_history,
)
from tests.support.dying import run_until
from tests.support.faults import FaultyStore, Kind
from tests.support.reachability import reachable, stored

from outcrop.errors import OutcropError
from outcrop.formats.hashes import ContentHash
from outcrop.publisher.rollback import roll_back
from outcrop.publisher.tags import WantedTag, edit_tags
from outcrop.repository.errors import ReflogMissing, RepositoryIncomplete, RevisionNotFound
from outcrop.storage.errors import StorageError


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> World:
    made = World(tmp_path_factory.mktemp("garbage") / "world")
    small_history(made)
    return made


@pytest.fixture
def world(template: World, tmp_path: Path) -> World:
    return Copies(template, tmp_path / "world").take()


def assert_next_collection_completes(copy: World, wanted: set[str]) -> None:
    served = {
        reachability.manifest(copy.directory)["C"],
        *reachability.tags(copy.directory).values(),
    }
    for root in served:
        assert reachable(copy.directory, root) <= stored(copy.directory)
    copy.check()
    copy.collect(keep_revisions=0)
    assert stored(copy.directory) == wanted
    copy.check()
    assert not list((copy.spool / "tmp").iterdir())


@pytest.mark.parametrize(
    ("kind", "step"),
    [
        (Kind.ERROR, 5),
        pytest.param(Kind.ERROR, 1, marks=pytest.mark.system),
        pytest.param(Kind.FULL, 1, marks=pytest.mark.system),
        pytest.param(Kind.FLIP, 1, marks=pytest.mark.system),
    ],
)
def test_a_store_that_fails_anywhere_loses_nothing(
    world: World, tmp_path: Path, kind: Kind, step: int
) -> None:
    copies = Copies(world, tmp_path)
    done = copies.take()
    done.collect(keep_revisions=0)
    wanted = stored(done.directory)
    for fail_at in range(1, 1000, step):
        copy = copies.take()
        store = FaultyStore(QuickStore(copy.directory), fail_at=fail_at, kind=kind)
        with contextlib.suppress(OutcropError):
            copy.collect(keep_revisions=0, store=store)
        if kind is not Kind.FLIP or store.operations < fail_at:
            assert_next_collection_completes(copy, wanted)
        shutil.rmtree(copy.locations.root)
        if store.operations < fail_at:
            break
    assert fail_at > 20


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> World:
    made = World(tmp_path_factory.mktemp("tiny") / "world")
    tiny_history(made)
    return made


def killed_collections(world: World, root: Path, step: int) -> Iterator[tuple[World, bool]]:
    """Worlds whose collections were killed at every so many-th operation, and whether not."""
    copies = Copies(world, root)
    for number in range(1, 10_000, step):
        copy = copies.take()
        is_through = run_until(number, lambda copy=copy: copy.collect(keep_revisions=0))
        yield copy, is_through
        shutil.rmtree(copy.locations.root)
        if is_through:
            assert number > 30
            return


@pytest.mark.parametrize("step", [23, pytest.param(1, marks=pytest.mark.system)])
def test_a_collection_killed_anywhere_is_completed_by_the_next(
    tiny: World, tmp_path: Path, step: int
) -> None:
    done = Copies(tiny, tmp_path / "done").take()
    done.collect(keep_revisions=0)
    wanted = stored(done.directory)
    for copy, _ in killed_collections(tiny, tmp_path, step):
        assert_next_collection_completes(copy, wanted)


@pytest.mark.parametrize("step", [37, pytest.param(5, marks=pytest.mark.system)])
def test_what_a_killed_collection_has_begun_to_delete_gets_no_tag(
    tiny: World, tmp_path: Path, step: int
) -> None:
    roots = {
        text for text, (kind, _) in reachability.reflog(tiny.directory).items() if kind == 0
    } - set(reachability.tags(tiny.directory).values())
    refused = set()
    for copy, is_through in killed_collections(tiny, tmp_path, step):
        for number, text in enumerate(sorted(roots)):
            is_whole = is_reachable(copy, text)
            wanted = WantedTag(name=f"tag{number}", root=ContentHash.parse(text))
            try:
                edit_tags(copy.locations, copy.fqrn, add=[wanted], now=copy.now + 1)
            except (RepositoryIncomplete, RevisionNotFound, ReflogMissing) as error:
                assert not is_whole, error
                refused.add(type(error))
            else:
                assert is_whole
        if not is_through:
            copy.collect(keep_revisions=0)
        copy.check()
    assert RepositoryIncomplete in refused or step > 5


def is_reachable(world: World, root: str) -> bool:
    """Whether all of a revision is there; asked of the formats alone."""
    try:
        return reachable(world.directory, root) <= stored(world.directory)
    except FileNotFoundError:
        return False


@pytest.mark.parametrize("suffix", ["", "C", "P"])
def test_a_revision_that_lacks_an_object_gets_no_tag_and_is_not_rolled_back_to(
    world: World, suffix: str
) -> None:
    tag = reachability.tags(world.directory)["first"]
    trunk = reachable(world.directory, reachability.manifest(world.directory)["C"])
    lost = min(
        name for name in reachable(world.directory, tag) - trunk - {tag + "C"}
        if name[40:] == suffix
    )  # fmt: skip
    (world.directory / "data" / lost[:2] / lost[2:]).unlink()
    before = (world.directory / ".cvmfspublished").read_bytes()
    shown = f"data/{lost[:2]}/{lost[2:]} is missing"
    with pytest.raises(RepositoryIncomplete, match=shown):
        roll_back(world.locations, world.fqrn, tag="first", now=world.now + 1)
    assert (world.directory / ".cvmfspublished").read_bytes() == before
    edit_tags(world.locations, world.fqrn, remove=["first"], now=world.now + 1)
    before = (world.directory / ".cvmfspublished").read_bytes()
    wanted = WantedTag(name="again", root=ContentHash.parse(tag))
    with pytest.raises(RepositoryIncomplete, match=shown):
        edit_tags(world.locations, world.fqrn, add=[wanted], now=world.now + 2)
    assert (world.directory / ".cvmfspublished").read_bytes() == before


def test_a_trunk_that_lacks_a_catalog_stops_everything(world: World) -> None:
    trunk = reachability.manifest(world.directory)["C"]
    catalogs = {name for name in reachable(world.directory, trunk) if name.endswith("C")}
    (other,) = catalogs - {trunk + "C"}
    (world.directory / "data" / other[:2] / other[2:]).unlink()
    before = stored(world.directory)
    with pytest.raises(RepositoryIncomplete, match="nothing is deleted"):
        world.collect(keep_revisions=0)
    assert stored(world.directory) == before


def test_a_kept_catalog_that_is_damaged_stops_everything(world: World) -> None:
    tag = reachability.tags(world.directory)["first"]
    place = world.directory / "data" / tag[:2] / (tag[2:] + "C")
    place.write_bytes(place.read_bytes()[:-5])
    before = stored(world.directory)
    with pytest.raises(StorageError):
        world.collect(keep_revisions=0)
    assert stored(world.directory) == before


def test_a_condemned_catalog_that_is_damaged_goes_and_its_objects_become_orphans(
    world: World,
) -> None:
    condemned = sorted(
        text for text, (kind, _) in reachability.reflog(world.directory).items()
        if kind == 0 and text not in (*reachability.tags(world.directory).values(),)
    )  # fmt: skip
    text = condemned[0]
    place = world.directory / "data" / text[:2] / (text[2:] + "C")
    place.write_bytes(place.read_bytes()[:-5])
    result = world.collect(keep_revisions=0)
    assert [str(found) for found in result.collected.damaged] == [text]
    world.collect(keep_revisions=0, orphans_before=1 << 40)
    kept = expected_after(world, revisions=0, since=0)
    assert stored(world.directory) == kept.objects
