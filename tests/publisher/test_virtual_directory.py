"""`/.cvmfs/snapshots`: tags as directories, written as upstream does and read by our client."""

import stat
from pathlib import Path

import pytest
from tests.support.stratum_zero import StratumZero

from outcrop.formats.hashes import ContentHash, ObjectRef, Suffix
from outcrop.formats.id_map import IdMap
from outcrop.publisher.migrate import change_owners, maintain
from outcrop.publisher.options import PublishOptions
from outcrop.publisher.rollback import roll_back
from outcrop.publisher.tags import WantedTag, edit_tags
from outcrop.repository.catalogs import CatalogTree
from outcrop.repository.tag_database import TagDatabase
from outcrop.repository.tree import Revision
from outcrop.storage.store import read_object
from outcrop.storage.temporary import TransientOpener

SNAPSHOTS = b"/.cvmfs/snapshots"


@pytest.fixture
def world(tmp_path: Path) -> StratumZero:
    world = StratumZero(tmp_path / "world")
    world.create()
    world.configure(CVMFS_VIRTUAL_DIR="true")
    return world


@pytest.fixture
def source(tmp_path: Path) -> Path:
    root = tmp_path / "source"
    (root / "sub/deep").mkdir(parents=True)
    (root / "file").write_text("one")
    (root / "sub/deep/inner").write_text("inner")
    (root / "sub/.cvmfscatalog").touch()
    return root


def trunk(world: StratumZero) -> Revision:
    root = ContentHash.parse(world.checked().manifest["C"])
    opener = TransientOpener(world.store)
    return Revision(world.fqrn, opener, CatalogTree(opener, ObjectRef(root, Suffix.CATALOG)))


def snapshots(world: StratumZero) -> set[bytes]:
    return {entry.name for entry in trunk(world).entries(SNAPSHOTS)}


def test_tags_are_directories_of_the_revision_after(world: StratumZero, source: Path) -> None:
    before = int(world.checked().manifest["S"])
    result = world.publish(source, tag="v1")
    assert result.revision == before + 2
    checker = world.checked()
    assert (checker.manifest["S"], checker.manifest["C"]) == (
        str(before + 2), str(result.root_hash),
    )  # fmt: skip
    entries = checker.entries
    for path in (b"/.cvmfs", SNAPSHOTS):
        row = entries[path].row
        assert (row["mode"], row["size"], row["uid"], row["gid"]) == (0o40555, 97, 0, 0)
    assert entries[b"/.cvmfs"].flags == 32771
    assert checker.catalogs[b"/.cvmfs"].rows[0]["flags"] == 32801
    assert entries[b"/.cvmfs/.cvmfscatalog"].row["mode"] == 0o100444
    tag = entries[SNAPSHOTS + b"/v1"]
    assert (tag.flags, tag.nlink) == (16385, 3)
    tagged = result.revision - 1
    assert checker.catalogs[b"/.cvmfs"].statistics["self_nested"] == 0
    assert checker.catalogs[b""].properties["revision"] == str(tagged + 1)


def test_a_snapshot_is_read_to_its_last_file(world: StratumZero, source: Path) -> None:
    world.publish(source, tag="v1")
    (source / "file").write_text("two")
    (source / "sub/deep/inner").unlink()
    world.publish(source, tag="v2")
    revision = trunk(world)
    assert {entry.name for entry in revision.entries(SNAPSHOTS)} == {b"v1", b"v2"}
    for path, content in (
        (b"/file", b"two"),
        (SNAPSHOTS + b"/v1/file", b"one"),
        (SNAPSHOTS + b"/v2/file", b"two"),
        (SNAPSHOTS + b"/v1/sub/deep/inner", b"inner"),
    ):
        with revision.open(path) as opened:
            assert opened.read() == content
    assert revision.find(SNAPSHOTS + b"/v2/sub/deep/inner") is None
    assert revision.find(SNAPSHOTS + b"/v2/.cvmfs/snapshots/v2") is None
    assert stat.S_ISDIR(revision.get(SNAPSHOTS + b"/v2/.cvmfs/snapshots/v1/sub").mode)


def test_tags_with_slashes_are_in_directories(world: StratumZero, source: Path) -> None:
    world.publish(source, tag="lhc/atlas/21")
    assert world.publish(source, tag="lhc/cms").warnings == ()
    revision = trunk(world)
    assert {entry.name for entry in revision.entries(SNAPSHOTS + b"/lhc")} == {b"atlas", b"cms"}
    with revision.open(SNAPSHOTS + b"/lhc/atlas/21/sub/deep/inner") as opened:
        assert opened.read() == b"inner"
    world.now += 10
    edit_tags(world.locations, world.fqrn, remove=["lhc/atlas/21"], now=world.now)
    assert {entry.name for entry in trunk(world).entries(SNAPSHOTS + b"/lhc")} == {b"cms"}


def test_of_tags_in_each_others_way_one_is_told_of(world: StratumZero, source: Path) -> None:
    world.publish(source, tag="a/b")
    assert snapshots(world) == {b"a"}
    for tag, told in (("a", "a/b"), ("x//y", "x//y")):
        assert any(f"the tag {told} gets no" in w for w in world.publish(source, tag=tag).warnings)
    checker = world.checked()
    assert checker.entries[SNAPSHOTS + b"/a"].flags == 16385
    assert SNAPSHOTS + b"/a/b" not in checker.entries
    world.now += 10
    edit_tags(world.locations, world.fqrn, remove=["a"], now=world.now)
    assert SNAPSHOTS + b"/a/b" in world.checked().entries


def test_publishing_a_directory_leaves_it_alone(world: StratumZero, source: Path) -> None:
    world.publish(source, tag="v1")
    result = world.publish(source)
    assert result.is_unchanged
    assert int(world.checked().manifest["S"]) == result.revision
    assert snapshots(world) == {b"v1"}


def test_the_intermediate_root_is_in_the_reflog(world: StratumZero, source: Path) -> None:
    world.publish(source, tag="v1")
    revision = trunk(world)
    previous = revision.catalogs.root.previous
    assert previous == revision.catalogs.listing(SNAPSHOTS).nested[SNAPSHOTS + b"/v1"].hash
    world.checked()  # all tagged roots are there and in the reflog


def test_tags_set_and_removed_come_and_go(world: StratumZero, source: Path) -> None:
    world.publish(source)
    world.now += 10
    edited = edit_tags(world.locations, world.fqrn, add=[WantedTag(name="late")], now=world.now)
    assert snapshots(world) == {b"late"}
    with TagDatabase.open(
        read_object(
            world.store,
            ObjectRef(edited.manifest.manifest.history, Suffix.HISTORY),
            limit=1 << 20,
        )
    ) as history:
        tag = history.find("trunk")
    assert (tag.hash, tag.timestamp) == (edited.manifest.manifest.root_catalog, world.now)
    world.now += 10
    edit_tags(
        world.locations, world.fqrn, add=[WantedTag(name="a/b"), WantedTag(name="x")],
        remove=["late"], now=world.now,
    )  # fmt: skip
    assert snapshots(world) == {b"a", b"x"}


def test_a_moved_tag_shows_what_it_is_on(world: StratumZero, source: Path) -> None:
    world.publish(source, tag="v1")
    (source / "file").write_text("two")
    revision = world.publish(source).revision
    world.now += 10
    moved = WantedTag(name="v1", revision=revision)
    edit_tags(world.locations, world.fqrn, add=[moved], now=world.now)
    with trunk(world).open(SNAPSHOTS + b"/v1/file") as opened:
        assert opened.read() == b"two"


def test_a_rollback_shows_the_tags_there_are_then(world: StratumZero, source: Path) -> None:
    world.publish(source, tag="v1")
    (source / "file").write_text("two")
    world.publish(source, tag="v2")
    world.now += 10
    roll_back(world.locations, world.fqrn, tag="v1", now=world.now)
    assert snapshots(world) == {b"v1"}
    with trunk(world).open(b"/file") as opened:
        assert opened.read() == b"one"


def test_switched_off_it_goes(world: StratumZero, source: Path) -> None:
    world.publish(source, tag="v1")
    world.configure(CVMFS_VIRTUAL_DIR="false")
    revision = world.publish(source).revision
    checker = world.checked()
    assert int(checker.manifest["S"]) == revision
    assert set(checker.catalogs) == {b"", b"/sub"}


def test_no_rule_divides_it(world: StratumZero, source: Path) -> None:
    (source / ".cvmfsdirtab").write_text("/*\n/*/*\n/.cvmfs/*\n")
    world.publish(source, tag="v1")
    world.now += 10
    owners = change_owners(IdMap({}, 7), IdMap())
    maintain(world.locations, world.fqrn, owners, options=PublishOptions(), now=world.now)
    assert set(world.checked().catalogs) == {b"", b"/.cvmfs", b"/sub", b"/sub/deep"}
    assert snapshots(world) == {b"v1"}


def test_a_dry_run_makes_none(world: StratumZero, source: Path) -> None:
    world.publish(source, tag="v1", dry_run=True)
    assert b"/.cvmfs" not in world.checked().entries


def test_shortcuts_lead_readers_to_what_they_need_first(world: StratumZero, source: Path) -> None:
    world.configure(CVMFS_CATALOG_ALT_PATHS="true", CVMFS_VOMS_AUTHZ="'cvmfs:/cvmfs/Role=r'")
    world.publish(source)
    assert world.checked().catalogs[b""].properties["voms_authz"] == "cvmfs:/cvmfs/Role=r"
    manifest = world.checked().manifest
    assert manifest["A"] == "yes"
    for key, suffix in (("C", "C"), ("X", "X"), ("H", "H"), ("M", "M")):
        shortcut = world.directory / f".cvmfsalt-{manifest[key]}{suffix}"
        text = manifest[key]
        assert shortcut.samefile(world.directory / "data" / text[:2] / (text[2:] + suffix))
    (source / "file").write_text("two")
    assert not world.publish(source).is_unchanged
    manifest = world.checked().manifest
    for suffix in "CX":
        text = manifest[suffix]
        place = world.directory / "data" / text[:2] / (text[2:] + suffix)
        shortcut = world.directory / f".cvmfsalt-{text}{suffix}"
        shortcut.unlink()
        place.rename(shortcut)
    from tests.support.keys import repository_keys

    from outcrop.repository.open import RepositorySource
    from outcrop.trust.blacklist import Blacklist
    from outcrop.trust.keys import load_public_keys

    keys = load_public_keys(repository_keys().master_public_pem)
    opener = TransientOpener(world.store)
    reader = RepositorySource(world.fqrn, world.store, opener, keys, Blacklist())
    with reader.open_trunk(now=world.now).open(b"/file") as opened:
        assert opened.read() == b"two"
