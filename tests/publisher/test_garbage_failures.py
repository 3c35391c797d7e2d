"""Collections that fail or die lose nothing, and the next one does the rest."""

import contextlib
import shutil
from pathlib import Path

import pytest
from tests.support import reachability
from tests.support.collectable import Copies, QuickStore, World, expected_after, small_history
from tests.support.dying import run_until
from tests.support.faults import FaultyStore, Kind
from tests.support.reachability import reachable, stored

from outcrop.errors import OutcropError
from outcrop.repository.errors import RepositoryIncomplete
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


@pytest.mark.parametrize("step", [17, pytest.param(2, marks=pytest.mark.system)])
def test_a_collection_killed_anywhere_is_completed_by_the_next(
    world: World, tmp_path: Path, step: int
) -> None:
    copies = Copies(world, tmp_path)
    done = copies.take()
    done.collect(keep_revisions=0)
    wanted = stored(done.directory)
    for number in range(1, 10_000, step):
        copy = copies.take()
        is_through = run_until(number, lambda copy=copy: copy.collect(keep_revisions=0))
        assert_next_collection_completes(copy, wanted)
        shutil.rmtree(copy.locations.root)
        if is_through:
            break
    assert number > 40


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
