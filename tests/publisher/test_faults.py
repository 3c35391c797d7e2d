"""Publishing that fails or dies: the old revision is served on, and the next attempt succeeds."""

import io
import random
import shutil
from collections.abc import Generator
from itertools import count
from pathlib import Path

import pytest
from tests.support.checker import Checker
from tests.support.dying import run_until
from tests.support.faults import FaultyStore, Kind
from tests.support.materialized import tree_in_repository, tree_on_disk
from tests.support.privileges import permissions_hold
from tests.support.stratum_zero import StratumZero

from outcrop.publisher.difflist import parse_diff_list
from outcrop.publisher.errors import ScratchFull, SourceUnreadable
from outcrop.publisher.publish import PublishResult
from outcrop.repository.errors import RepositoryExists, RevisionConflict
from outcrop.storage.errors import StorageError
from outcrop.storage.local import LocalStore

SMALL_CHUNKS = {
    "CVMFS_MIN_CHUNK_SIZE": 1000,
    "CVMFS_AVG_CHUNK_SIZE": 2000,
    "CVMFS_MAX_CHUNK_SIZE": 4000,
}


def make_source(root: Path) -> Path:
    source = root / "source"
    (source / "nested/inner").mkdir(parents=True)
    (source / "nested/.cvmfscatalog").touch()
    (source / "nested/inner/file").write_bytes(b"inner")
    (source / "large").write_bytes(random.Random(1).randbytes(12000))
    (source / "link").symlink_to("large")
    return source


def change(source: Path) -> None:
    (source / "large").write_bytes(random.Random(2).randbytes(20000))  # as many chunks every time
    (source / "nested/inner/file").unlink()
    (source / "nested/new").write_bytes(b"new")
    (source / "other").mkdir()
    (source / "other/.cvmfscatalog").touch()


CHANGED = b"M large\nD nested/inner/file\nA nested/new\nA other\n"


class Scene:
    """A published source that has changed since; copies of it to break."""

    def __init__(self, root: Path, **parameters: str) -> None:
        self.root = root
        self.stratum_zero = StratumZero(root / "template")
        self.stratum_zero.create()
        self.source = make_source(root)
        self.stratum_zero.configure(**SMALL_CHUNKS, **parameters)
        self.old_revision = str(self.stratum_zero.publish(self.source, tag="old").revision)
        self.old_tree = tree_on_disk(self.source)
        change(self.source)
        self.new_tree = tree_on_disk(self.source)

    def copies(self) -> Generator[StratumZero]:
        """Worlds like the first one, each gone when the next is asked for."""
        for number in count():
            place = self.root / f"world-{number}"
            shutil.copytree(self.root / "template", place, symlinks=True)
            world = StratumZero(place)
            world.now = self.stratum_zero.now
            conf = world.locations.server_config(world.fqrn) / "server.conf"
            text = conf.read_text().replace(str(self.root / "template"), str(place))
            conf.write_text(text)
            try:
                yield world
            finally:
                shutil.rmtree(place)

    def publish(self, world: StratumZero, way: str, **options: object) -> PublishResult:
        """Publish the change to a world: the whole directory, or a list of what is different."""
        if way == "list":
            options["listed"] = parse_diff_list(io.BytesIO(CHANGED))
        return world.publish(self.source, **options)

    def assert_old_or_new_is_served(self, world: StratumZero) -> None:
        checker = world.checker()
        problems = [p for p in checker.check() if "left over" not in p and "reflog: hash" not in p]
        assert problems == []
        is_old = checker.manifest["S"] == self.old_revision
        assert published_tree(checker) == (self.old_tree if is_old else self.new_tree)
        if "CVMFS_VIRTUAL_DIR=true" in settings_of(world):
            assert snapshots_in(checker) == ({b"old"} if is_old else {b"old", b"new"})
        if "CVMFS_CATALOG_ALT_PATHS=true" in settings_of(world):
            for key, suffix in (("C", "C"), ("H", "H"), ("X", "X")):
                shortcut = world.directory / f".cvmfsalt-{checker.manifest[key]}{suffix}"
                assert shortcut.read_bytes()

    def assert_next_publish_succeeds(self, world: StratumZero) -> None:
        world.publish(self.source)
        assert published_tree(world.checked()) == self.new_tree
        assert not list((world.spool / "tmp").iterdir())


def settings_of(world: StratumZero) -> str:
    return (world.locations.server_config(world.fqrn) / "server.conf").read_text()


def published_tree(checker: Checker) -> dict[bytes, tuple]:
    """What was published, without what the publisher itself adds."""
    tree = tree_in_repository(checker)
    return {path: entry for path, entry in tree.items() if not path.startswith(b"/.cvmfs/")
            and path != b"/.cvmfs"}  # fmt: skip


def snapshots_in(checker: Checker) -> set[bytes]:
    place = b"/.cvmfs/snapshots/"
    return {path[len(place) :] for path in checker.entries if path.startswith(place)}


@pytest.fixture(scope="module")
def followed(tmp_path_factory: pytest.TempPathFactory) -> Scene:
    """A scene in which each revision is followed by another, and has shortcuts."""
    return Scene(
        tmp_path_factory.mktemp("followed"),
        CVMFS_VIRTUAL_DIR="true",
        CVMFS_CATALOG_ALT_PATHS="true",
    )


@pytest.mark.parametrize(
    ("kind", "step"),
    [
        (Kind.ERROR, 6),
        *(pytest.param(k, 1, marks=pytest.mark.system) for k in (Kind.ERROR, Kind.FULL)),
    ],
)
def test_a_revision_that_fails_to_be_followed_is_not_served(
    followed: Scene, kind: Kind, step: int
) -> None:
    for fail_at, world in zip(range(1, 1000, step), followed.copies(), strict=False):
        store = FaultyStore(LocalStore(world.directory), fail_at=fail_at, kind=kind)
        try:
            followed.publish(world, "directory", store=store, tag="new")
        except (StorageError, ScratchFull):
            followed.assert_old_or_new_is_served(world)
            followed.assert_next_publish_succeeds(world)
        else:
            assert store.operations < fail_at
            followed.assert_old_or_new_is_served(world)
            break
    assert fail_at > 25


@pytest.mark.parametrize("step", [41, pytest.param(1, marks=pytest.mark.system)])
def test_a_publish_killed_before_it_is_followed_leaves_the_old_revision(
    followed: Scene, step: int
) -> None:
    for number, world in zip(range(1, 100_000, step), followed.copies(), strict=False):
        is_through = run_until(
            number, lambda world=world: followed.publish(world, "directory", tag="new")
        )
        followed.assert_old_or_new_is_served(world)
        if is_through:
            break
        world.now += 10
        followed.assert_next_publish_succeeds(world)
    assert number > 80


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Scene:
    return Scene(tmp_path_factory.mktemp("faults"))


@pytest.mark.parametrize(
    ("way", "kind", "step"),
    [
        ("directory", Kind.ERROR, 4),
        ("directory", Kind.FULL, 7),
        ("list", Kind.FULL, 5),
        *(
            pytest.param(way, kind, 1, marks=pytest.mark.system)
            for way in ("directory", "list")
            for kind in (Kind.ERROR, Kind.FULL)
        ),
    ],
)
def test_a_store_that_fails_at_any_operation_leaves_the_old_revision(
    scene: Scene, way: str, kind: Kind, step: int
) -> None:
    for fail_at, world in zip(range(1, 1000, step), scene.copies(), strict=False):
        store = FaultyStore(LocalStore(world.directory), fail_at=fail_at, kind=kind)
        try:
            scene.publish(world, way, store=store)
        except (StorageError, ScratchFull):
            scene.assert_old_or_new_is_served(world)
            scene.assert_next_publish_succeeds(world)
        else:
            assert store.operations < fail_at
            break
    assert fail_at > 20


@pytest.mark.parametrize(
    ("way", "step"),
    [
        ("directory", 23),
        ("list", 37),
        pytest.param("directory", 1, marks=pytest.mark.system),
        pytest.param("list", 2, marks=pytest.mark.system),
    ],
)
def test_a_publish_killed_anywhere_leaves_the_old_revision(
    scene: Scene, way: str, step: int
) -> None:
    for number, world in zip(range(1, 100_000, step), scene.copies(), strict=False):
        is_through = run_until(number, lambda world=world: scene.publish(world, way))
        scene.assert_old_or_new_is_served(world)
        if is_through:
            break
        world.now += 10
        scene.assert_next_publish_succeeds(world)
    assert number > 50


@pytest.mark.parametrize("way", ["directory", "list"])
def test_a_dry_run_writes_to_no_store(scene: Scene, way: str) -> None:
    class ReadOnly(LocalStore):
        def write(self, name: str, data: bytes) -> None:
            pytest.fail(f"{name} was written")

        def remove(self, name: str) -> None:
            pytest.fail(f"{name} was removed")

        def sync(self) -> None:
            pytest.fail("a dry run has nothing to sync")

    worlds = scene.copies()
    world = next(worlds)
    result = scene.publish(world, way, store=ReadOnly(world.directory), dry_run=True)
    assert result.bytes_stored > 9000
    assert tree_in_repository(world.checked()) == scene.old_tree
    worlds.close()


def test_a_listed_file_nobody_may_read_is_named_and_nothing_published(scene: Scene) -> None:
    worlds = scene.copies()
    world = next(worlds)
    (scene.source / "large").chmod(0)
    try:
        with permissions_hold(), pytest.raises(SourceUnreadable, match="large"):
            scene.publish(world, "list")
    finally:
        (scene.source / "large").chmod(0o644)
    scene.assert_old_or_new_is_served(world)
    scene.assert_next_publish_succeeds(world)
    worlds.close()


@pytest.mark.parametrize("step", [11, pytest.param(1, marks=pytest.mark.system)])
def test_mkfs_killed_anywhere_leaves_no_repository_and_can_be_repeated(
    tmp_path: Path, step: int
) -> None:
    for number in range(1, 1000, step):
        world = StratumZero(tmp_path / str(number))
        is_through = run_until(number, world.create)
        if not (world.directory / ".cvmfspublished").exists():
            world.create()
        with pytest.raises(RepositoryExists):
            world.create()
        world.checked()
        if is_through:
            break
    assert number > 30


def test_a_trunk_that_moved_meanwhile_is_not_overwritten(scene: Scene) -> None:
    class Meddling(LocalStore):
        """Somebody publishes the moment our objects are safe."""

        def sync(self) -> None:
            super().sync()
            manifest = self.root / ".cvmfspublished"
            manifest.write_bytes(manifest.read_bytes() + b" ")

    worlds = scene.copies()
    world = next(worlds)
    with pytest.raises(RevisionConflict, match="somebody else"):
        world.publish(scene.source, store=Meddling(world.directory))
    worlds.close()
