"""That a file is to be opened with direct I/O no source can say, so no publish forgets it."""

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from tests.support.stratum_zero import StratumZero
from tests.support.ways import WAYS

from outcrop.publisher.session import open_session

DIRECT_IO = 0x10000
every_way = pytest.mark.parametrize("way", WAYS)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    place = tmp_path / "source"
    (place / "d").mkdir(parents=True)
    (place / "d/file").write_bytes(b"before")
    (place / "d/other").write_bytes(b"other")
    return place


@pytest.fixture
def world(tmp_path: Path, source: Path) -> StratumZero:
    """A repository with a file that has the flag, as the original's publisher can set it."""
    made = StratumZero(tmp_path / "world")
    made.create()
    made.configure(CVMFS_MIN_CHUNK_SIZE=1000, CVMFS_AVG_CHUNK_SIZE=2000,
                   CVMFS_MAX_CHUNK_SIZE=4000)  # fmt: skip
    made.publish(source)
    made.now += 10
    with open_session(made.locations, made.fqrn, now=made.now) as session:
        row = session.editor.get(b"/d/file")
        session.editor.put(b"/d", [(replace(row, is_direct_io=True), ())])
        session.publish([], workers=1)
    assert flagged(made) == {b"/d/file"}
    return made


def flagged(world: StratumZero) -> set[bytes]:
    entries = world.checked().entries
    return {path for path, entry in entries.items() if entry.flags & DIRECT_IO}


CHANGES: dict[str, Callable[[Path], object]] = {
    "nothing": lambda source: None,
    "permissions": lambda source: (source / "d/file").chmod(0o600),
    "time": lambda source: os.utime(source / "d/file", (1000, 1000)),
    "content": lambda source: (source / "d/file").write_bytes(b"after"),
    "content in chunks": lambda source: (source / "d/file").write_bytes(os.urandom(9000)),
    "nothing of it in it": lambda source: (source / "d/file").write_bytes(b""),
    "another inode": lambda source: (
        (source / "d/file").unlink(), (source / "d/file").write_bytes(b"anew"))
}  # fmt: skip


ALWAYS_TRIED = ("permissions", "content")


@every_way
@pytest.mark.parametrize(
    "change",
    [
        pytest.param(name, marks=() if name in ALWAYS_TRIED else pytest.mark.system)
        for name in CHANGES
    ],
)
def test_the_flag_stays_whatever_else_changes(
    world: StratumZero, source: Path, way: str, change: str
) -> None:
    CHANGES[change](source)
    WAYS[way](world, source)
    assert flagged(world) == {b"/d/file"}
    checker = world.checker()
    entry = checker.load()[b"/d/file"]
    assert checker.read(b"/d/file") == (source / "d/file").read_bytes()
    assert entry.row["mode"] == (source / "d/file").stat().st_mode


@every_way
@pytest.mark.parametrize("name", ["a", pytest.param("z", marks=pytest.mark.system)])
def test_all_names_of_one_file_have_it(
    world: StratumZero, source: Path, way: str, name: str
) -> None:
    os.link(source / "d/file", source / "d" / name)
    WAYS[way](world, source)
    assert flagged(world) == {b"/d/file", b"/d/" + name.encode()}


@every_way
def test_what_is_no_file_any_more_loses_it(world: StratumZero, source: Path, way: str) -> None:
    (source / "d/file").unlink()
    (source / "d/file").symlink_to("other")
    WAYS[way](world, source)
    (source / "d/file").unlink()
    (source / "d/file").write_bytes(b"a new file")
    WAYS[way](world, source)
    assert flagged(world) == set()


@pytest.mark.system
@pytest.mark.skipif(os.geteuid() != 0, reason="only root writes trusted attributes")
def test_a_file_of_which_only_the_metadata_was_copied_up_has_it(
    world: StratumZero, tmp_path: Path
) -> None:
    upper = tmp_path / "upper"
    (upper / "d").mkdir(parents=True)
    (upper / "d/file").touch(0o600)
    os.truncate(upper / "d/file", 6)
    os.setxattr(upper / "d/file", "trusted.overlay.metacopy", b"")
    WAYS["transaction"](world, upper)
    assert flagged(world) == {b"/d/file"}
    checker = world.checker()
    assert checker.load()[b"/d/file"].row["mode"] == 0o100600
    assert checker.read(b"/d/file") == b"before"
