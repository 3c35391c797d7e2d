"""Subtrees removed, moved and cloned: one revision each, content untouched, all else as it was."""

from pathlib import Path

import pytest
from tests.support.stratum_zero import FQRN, StratumZero

from outcrop.formats.id_map import IdMap
from outcrop.publisher.errors import PathRefused
from outcrop.publisher.migrate import change_owners, fix_statistics, maintain
from outcrop.publisher.options import PublishOptions
from outcrop.publisher.publish import PublishResult
from outcrop.publisher.subtrees import (
    clone_subtree,
    merge_subtree,
    move_subtree,
    remove_subtrees,
)
from outcrop.repository.errors import PathExists, PathNotFound, RevisionConflict
from outcrop.repository.maintenance import break_hard_links, drop_bulk_hashes


class World(StratumZero):
    """A stratum 0 whose subtrees are edited."""

    def edit(self, function: object, *arguments: object, **options: object) -> PublishResult:
        self.now += 10
        return function(  # type: ignore[operator]
            self.locations, FQRN, *arguments, options=PublishOptions(**options), now=self.now
        )

    @property
    def objects(self) -> set[str]:
        """Names of all objects but those that every revision writes."""
        return {name for name in self.store.iter_names("data/") if name[-1] not in "CHMX"}


@pytest.fixture
def world(tmp_path: Path) -> World:
    world = World(tmp_path / "world")
    world.create()
    source = tmp_path / "source"
    for place in ("a/b/c", "d"):
        (source / place).mkdir(parents=True)
        (source / place / "file").write_bytes(place.encode())
        (source / place / "same").hardlink_to(source / place / "file")
    for place in ("a", "a/b/c"):
        (source / place / ".cvmfscatalog").touch()
    world.publish(source)
    return world


def test_a_removed_subtree_is_gone_and_the_rest_is_there(world: World) -> None:
    result = world.edit(remove_subtrees, [b"/a/b/", b"/a/b/c", b"/d/same"], tag="less")
    assert (result.tags, result.removed) == (("less",), {"files": 4, "directories": 2})
    entries = world.checked().entries
    assert set(entries) == {b"", b"/a", b"/a/.cvmfscatalog", b"/d", b"/d/file"}
    assert entries[b"/d/file"].nlink == 1


def test_a_removed_marker_takes_its_catalog_along(world: World) -> None:
    world.edit(remove_subtrees, [b"/a/.cvmfscatalog"])
    checker = world.checked()
    assert set(checker.catalogs) == {b"", b"/a/b/c"}


def test_a_moved_subtree_is_at_its_new_place_only(world: World) -> None:
    before = world.objects
    old = world.checked().entries
    result = world.edit(move_subtree, b"/a", b"/d/moved")
    assert (dict(result.added), result.removed, result.changed) == ({}, {}, {"directories": 1})
    assert not result.is_unchanged
    checker = world.checked()
    assert {b"/d/moved" + path[2:] for path in old if path.startswith(b"/a")} == {
        path for path in checker.entries if path.startswith(b"/d/moved")
    }
    assert set(checker.catalogs) == {b"", b"/d/moved", b"/d/moved/b/c"}
    assert checker.entries[b"/d/moved/b/c/same"].nlink == 2
    assert world.objects == before


def test_a_layer_is_merged_without_its_content(world: World) -> None:
    before = world.objects
    told: list[tuple[str, bytes]] = []
    result = world.edit(
        merge_subtree, b"/a/b/c", b"/d", on_change=lambda kind, path: told.append((kind, path))
    )
    assert (result.bytes_read, result.added, result.changed["files"]) == (0, {"files": 1}, 2)
    assert set(told) - {("mod", b"/d")} == {
        ("add", b"/d/.cvmfscatalog"), ("mod", b"/d/file"), ("mod", b"/d/same"),
    }  # fmt: skip
    checker = world.checked()
    assert set(checker.catalogs) == {b"", b"/a", b"/a/b/c", b"/d"}
    same = [checker.entries[path].row["hash"] for path in (b"/a/b/c/file", b"/d/file")]
    assert same[0] == same[1]
    assert world.objects == before
    with pytest.raises(PathRefused):
        world.edit(merge_subtree, b"/a", b"/")


def test_a_cloned_subtree_is_there_twice_with_its_content_once(world: World) -> None:
    before = world.objects
    result = world.edit(clone_subtree, b"/a/b", b"/e")
    assert (result.added, result.bytes_read) == ({"directories": 2, "files": 3}, 0)
    checker = world.checked()
    assert set(checker.catalogs) == {b"", b"/a", b"/a/b/c", b"/e/c"}
    assert checker.read(b"/e/c/file") == b"a/b/c"
    assert checker.entries[b"/e/c/file"].nlink == 1
    assert world.objects == before


def test_only_the_right_base_is_edited(world: World) -> None:
    with pytest.raises(RevisionConflict):
        world.edit(clone_subtree, b"/a", b"/e", base="1")
    world.edit(clone_subtree, b"/a", b"/e", base="2", dry_run=True)
    assert b"/e" not in world.checked().entries


def test_what_cannot_be_is_refused_and_nothing_is_published(world: World) -> None:
    for function, arguments, error in (
        (remove_subtrees, ([b"/d", b"/none"],), PathNotFound),
        (remove_subtrees, ([b"/"],), PathRefused),
        (remove_subtrees, ([b"/.cvmfs"],), PathRefused),
        (remove_subtrees, ([b"d"],), PathRefused),
        (move_subtree, (b"/a", b"/d"), PathExists),
        (move_subtree, (b"/a", b"/.cvmfs/a"), PathRefused),
        (move_subtree, (b"/a/.cvmfscatalog", b"/d/x"), PathRefused),
        (clone_subtree, (b"/d/file", b"/d/.cvmfscatalog"), PathRefused),
        (clone_subtree, (b"/", b"/x"), PathRefused),
    ):
        with pytest.raises(error):
            world.edit(function, *arguments)
    assert world.checked().manifest["S"] == "2"


def test_owners_follow_maps_all_at_once(world: World) -> None:
    uid = world.checked().entries[b"/d"].row["uid"]
    swap = IdMap({uid: 7, 7: uid})
    result = world.edit(maintain, change_owners(swap, IdMap({}, 9)))
    assert result.changed["rows"] > 0
    rows = [entry.row for entry in world.checked().entries.values()]
    assert {(row["uid"], row["gid"]) for row in rows} == {(7, 9)}
    world.edit(maintain, change_owners(swap, IdMap()))
    assert {entry.row["uid"] for entry in world.checked().entries.values()} == {uid}


def test_hard_links_become_files(world: World) -> None:
    assert world.edit(maintain, break_hard_links).changed["rows"] == 4
    assert {e.nlink for e in world.checked().entries.values() if not e.flags & 1} == {1}
    assert world.edit(maintain, break_hard_links).is_unchanged


def test_bulk_hashes_go_where_there_are_chunks(tmp_path: Path, world: World) -> None:
    world.configure(
        CVMFS_GENERATE_LEGACY_BULK_CHUNKS="true", CVMFS_MIN_CHUNK_SIZE=1000,
        CVMFS_AVG_CHUNK_SIZE=2000, CVMFS_MAX_CHUNK_SIZE=4000,
    )  # fmt: skip
    source = tmp_path / "large"
    source.mkdir()
    (source / "large").write_bytes(bytes(range(256)) * 100)
    (source / "small").write_bytes(b"small")
    world.publish(source, to=b"/l")
    assert world.checker().load()[b"/l/large"].row["hash"] is not None
    assert world.edit(maintain, drop_bulk_hashes).changed["rows"] == 1
    checker = world.checked()
    assert checker.entries[b"/l/large"].row["hash"] is None
    assert checker.read(b"/l/large") == bytes(range(256)) * 100
    assert checker.read(b"/l/small") == b"small"


def test_wrong_counters_are_made_right(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr("outcrop.repository.tally.Tally.add_row", lambda *_, **__: None)
        world.edit(remove_subtrees, [b"/a/b/c/file"])
    assert world.checker().check() != []
    assert world.edit(fix_statistics).changed["rows"] == 3  # those above it, too
    checker = world.checker()
    checker.load()  # the trunk: the tag of the revision before still has the wrong ones
    assert checker.problems == []
    assert world.edit(fix_statistics).is_unchanged
