"""What a mount shows, row by row, without a mount."""

import os
import stat
from pathlib import Path

import pytest
from tests.support.simulator import Directory, File, RepositorySimulator, Special, Symlink
from tests.support.sources import source_of

from outcrop.client.ownership import IdMap, Ownership
from outcrop.client.view import NoSuchAttribute, RepositoryView
from outcrop.errors import FormatError
from outcrop.fuse.view import OPAQUE, ROW_HAS_XATTRS, Row, StatFs
from outcrop.repository.tree import Revision


class NoMagic:
    """Mount attributes of a mount that has none."""

    def find(self, revision: Revision, path: bytes, name: bytes) -> bytes | None:
        return b"7" if name == b"user.revision" else None

    def visible(self, path: bytes) -> list[bytes]:
        return [] if path else [b"user.revision"]

    def is_magic(self, name: bytes) -> bool:
        return name == b"user.revision"

    def statfs(self, revision: Revision) -> StatFs:
        return StatFs(512, 1, 1, 1, 1)


def view_of(
    sim: RepositorySimulator, cache: Path | None = None, **owners: object
) -> RepositoryView:
    return RepositoryView(
        source_of(sim, cache_directory=cache).open_trunk(now=sim.now),
        ownership=Ownership(**owners),  # type: ignore[arg-type]
        environment={"NAME": "value"},
        attributes=NoMagic(),
    )


def rows(view: RepositoryView, path: bytes = b"") -> dict[bytes, Row]:
    return {row.name: row for row in (Row(*r) for r in view.list_directory(path))}  # type: ignore[arg-type]


def read(view: RepositoryView, path: bytes, row: Row) -> bytes:
    data = b""
    while len(data) < row.size:
        extent = view.open_extent(path, row.kind, row.content or b"", row.size, len(data))
        assert extent.offset <= len(data) < extent.offset + extent.length
        start = len(data) - extent.offset
        data += os.pread(extent.fd, extent.length - start, extent.position + start)
        os.close(extent.fd)
    return data


def test_rows_say_what_the_catalog_says() -> None:
    sim = RepositorySimulator(
        {
            b"/f": File(b"data", mode=0o4711, uid=1, gid=2, mtime=-5, mtime_ns=7),
            b"/l": Symlink(b"f"),
            b"/v": Symlink(b"a/$(NAME)/b"),
            b"/d": Directory(mode=0o700),
            b"/null": Special(stat.S_IFCHR, os.makedev(1, 3)),
            b"/fifo": Special(stat.S_IFIFO),
            b"/x": File(b"data", xattrs={b"user.a": b"1"}),
        }
    )
    found = rows(view_of(sim))
    file = found[b"f"]
    assert (file.mode, file.uid, file.gid) == (stat.S_IFREG | 0o4711, 1, 2)
    assert (file.size, file.mtime, file.mtime_ns, file.nlink) == (4, -5, 7, 1)
    assert found[b"l"].target == b"f"
    assert found[b"v"].target == b"a/value/b"
    assert (found[b"null"].rdev, found[b"null"].size) == (os.makedev(1, 3), 0)
    assert stat.S_ISFIFO(found[b"fifo"].mode)
    assert found[b"x"].bits == ROW_HAS_XATTRS
    assert file.bits == 0
    assert found[b"d"].content is None
    assert all(type(value) in (bytes, int, type(None)) for row in found.values() for value in row)


def test_inodes_are_unique_but_for_hard_links_and_the_root_is_256(tmp_path: Path) -> None:
    sim = RepositorySimulator(
        {
            b"/a": File(b"1", link_group=1),
            b"/b": File(b"1", link_group=1),
            b"/c": b"1",
            b"/n/c": b"2",
        },
        nested=[b"/n"],
    )
    view = view_of(sim, tmp_path)
    assert view.root().ino == 256
    top = rows(view)
    assert top[b"a"].ino == top[b"b"].ino
    assert top[b"a"].nlink == 2
    inodes = [256, top[b"a"].ino, top[b"c"].ino, top[b"n"].ino, rows(view, b"/n")[b"c"].ino]
    assert len(set(inodes)) == len(inodes)
    assert rows(view)[b"c"].ino == top[b"c"].ino


def test_content_is_found_by_its_key_even_when_the_tree_has_moved_on(tmp_path: Path) -> None:
    big = os.urandom(100_000)
    sim = RepositorySimulator(
        {
            b"/small": b"old",
            b"/big": File(big, chunk_bytes=30_000),
            b"/plain": File(b"not compressed", is_compressed=False),
            b"/far": File(b"external", is_external=True, is_compressed=False),
        }
    )
    view = view_of(sim, tmp_path)
    before = rows(view)
    assert before[b"big"].kind == OPAQUE
    contents = {b"small": b"old", b"big": big, b"plain": b"not compressed", b"far": b"external"}
    sim.publish({b"/small": b"new"})
    source = source_of(sim, cache_directory=tmp_path)
    view.show(source.open_trunk(now=sim.now))
    assert read(view, b"/small", rows(view)[b"small"]) == b"new"
    for name, data in contents.items():
        assert read(view, b"/" + name, before[name]) == data


def test_equal_content_has_an_equal_key_in_every_revision(tmp_path: Path) -> None:
    sim = RepositorySimulator({b"/same": b"same", b"/other": b"1"})
    view = view_of(sim, tmp_path)
    before = rows(view)
    sim.publish({b"/same": b"same", b"/other": b"2"})
    view.show(source_of(sim, cache_directory=tmp_path).open_trunk(now=sim.now))
    after = rows(view)
    assert (before[b"same"].kind, before[b"same"].content) == (
        after[b"same"].kind,
        after[b"same"].content,
    )
    assert before[b"other"].content != after[b"other"].content


def test_owners_can_be_claimed_mapped_and_widened() -> None:
    sim = RepositorySimulator({b"/f": File(b"", mode=0o600, uid=5, gid=6), b"/l": Symlink(b"f")})
    claimed = rows(view_of(sim, claim=(10, 20)))[b"f"]
    assert (claimed.uid, claimed.gid) == (10, 20)
    maps = {"uid_map": IdMap({5: 50}), "gid_map": IdMap({}, default=99)}
    mapped = rows(view_of(sim, **maps))[b"f"]
    assert (mapped.uid, mapped.gid) == (50, 99)
    wide = rows(view_of(sim, world_readable=True))
    assert stat.S_IMODE(wide[b"f"].mode) == 0o644
    assert stat.S_IMODE(view_of(sim, world_readable=True).root().mode) == 0o755


def test_attributes_stored_and_magic() -> None:
    attributes = {b"user.mine": b"1", b"user.revision": b"fake"}
    sim = RepositorySimulator({b"/f": File(b"x", xattrs=attributes)})
    view = view_of(sim)
    assert view.list_xattrs(b"/f") == [b"user.mine"]
    assert view.list_xattrs(b"") == [b"user.revision"]
    assert view.get_xattr(b"/f", b"user.mine") == b"1"
    assert view.get_xattr(b"/f", b"user.revision") == b"7"
    with pytest.raises(NoSuchAttribute):
        view.get_xattr(b"/f", b"user.none")


BROKEN_ROWS = [
    "UPDATE catalog SET flags = NULL WHERE name = 'f'",
    "UPDATE catalog SET hardlinks = 'many' WHERE name = 'f'",
    "UPDATE catalog SET hardlinks = 8589934593.5 WHERE name = 'f'",
]


@pytest.mark.parametrize("sabotage", BROKEN_ROWS)
def test_a_row_that_cannot_be_thought_about_is_refused(sabotage: str) -> None:
    sim = RepositorySimulator({b"/f": b"x"})
    sim.publish(sabotage={b"": [sabotage]})
    with pytest.raises(FormatError):
        view_of(sim).list_directory(b"")


def test_id_maps_read_upstreams_lines() -> None:
    table = IdMap.parse("# stored shown\n0 1000\n\n5\t7  # five\n* 65534\n")
    assert [table.shown(n) for n in (0, 5, 6)] == [1000, 7, 65534]
    assert not IdMap.parse("")
    for wrong in ("a b", "1", "1 2 3", "1 99999999999", "-1 2"):
        with pytest.raises(FormatError):
            IdMap.parse(wrong)
