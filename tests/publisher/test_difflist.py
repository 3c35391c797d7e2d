"""Diff lists: how they are read, and that only what they name is looked at."""

import io
import os
from pathlib import Path

import pytest
from tests.support.materialized import tree_in_repository, tree_on_disk
from tests.support.stratum_zero import StratumZero

from outcrop.errors import FormatError
from outcrop.publisher import difflist, walk
from outcrop.publisher.difflist import parse_diff_list
from outcrop.publisher.errors import PathRefused, SourceChanged


def states(text: bytes, **options: bool) -> dict[bytes, str]:
    return {path: one.state for path, one in parse_diff_list(io.BytesIO(text), **options).items()}


def test_letters_say_what_became_of_a_path() -> None:
    assert states(b"A a/b\nM\tc\nD d e\nplain path\nDirectory\n") == {
        b"a/b": "present",
        b"c": "present",
        b"d e": "gone",
        b"plain path": "unknown",
        b"Directory": "unknown",
    }


def test_slashes_around_and_dots_before_a_path_do_not_count() -> None:
    assert set(states(b"/a\nb/\n././c\n./A d\n.\n\n")) == {b"a", b"b", b"c", b"A d", b""}


def test_null_bytes_may_separate_and_names_have_newlines_then() -> None:
    assert set(states(b"A a\nb\0D c\0", is_null_separated=True)) == {b"a\nb", b"c"}


def test_of_two_lines_for_a_path_the_last_counts() -> None:
    assert states(b"D a\nA a\n") == {b"a": "present"}


@pytest.mark.parametrize(
    "line", [b"A ../x", b"a//b", b"a/./b", b"D .", b"D ", b"x" * 256, b"a\0b", b"a/" * 2100]
)
def test_impossible_paths_are_refused_with_their_line(line: bytes) -> None:
    with pytest.raises(FormatError, match="line 2"):
        parse_diff_list(io.BytesIO(b"A fine\n" + line + b"\n"))


def test_a_list_without_end_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(difflist, "MAX_PATHS", 100)
    with pytest.raises(FormatError, match="more than 100"):
        parse_diff_list(io.BytesIO(b"".join(b"p%d\n" % number for number in range(102))))
    with pytest.raises(FormatError, match="longer"):
        parse_diff_list(io.BytesIO(b"x" * (1 << 20)))


class World:
    """A repository that has what a source directory had."""

    def __init__(self, root: Path) -> None:
        self.source = root / "source"
        (self.source / "a/deep").mkdir(parents=True)
        (self.source / "b").mkdir()
        for name in ("a/one", "a/two", "a/deep/three", "b/four", "five"):
            (self.source / name).write_bytes(name.encode())
        self.stratum_zero = StratumZero(root / "world")
        self.stratum_zero.create()
        self.stratum_zero.publish(self.source)

    def publish(self, *lines: str, **options: object) -> object:
        text = b"\0".join(map(os.fsencode, lines))
        listed = parse_diff_list(io.BytesIO(text), is_null_separated=True)
        return self.stratum_zero.publish(self.source, listed=listed, **options)

    def assert_equal(self) -> None:
        found = tree_in_repository(self.stratum_zero.checked())
        assert found == tree_on_disk(self.source)


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def test_listed_changes_are_published(world: World) -> None:
    (world.source / "a/one").write_bytes(b"other")
    (world.source / "a/deep/three").unlink()
    (world.source / "b/new").write_bytes(b"new")
    (world.source / "five").unlink()
    (world.source / "five").mkdir()
    result = world.publish("M a/one", "D a/deep/three", "b/new", "five")
    world.assert_equal()
    assert (result.changed["files"], result.added) == (1, {"files": 1, "directories": 1})
    assert result.removed == {"files": 2}


def test_what_is_not_listed_stays_as_it_is(world: World) -> None:
    (world.source / "a/one").write_bytes(b"other")
    (world.source / "b/four").write_bytes(b"not listed")
    world.publish("M a/one")
    checker = world.stratum_zero.checked()
    assert (checker.read(b"/a/one"), checker.read(b"/b/four")) == (b"other", b"b/four")


def test_only_directories_of_listed_paths_are_looked_at(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked: list[bytes] = []
    lstat = os.lstat
    monkeypatch.setattr(os, "lstat", lambda path, **rest: (looked.append(path), lstat(path))[1])
    monkeypatch.setattr(difflist, "scan_directory", lambda path: pytest.fail(f"{path} was listed"))
    monkeypatch.setattr(walk, "scan_directory", lambda path: pytest.fail(f"{path} was listed"))
    (world.source / "a/one").write_bytes(b"other")
    world.publish("M a/one")
    own = [path for path in looked if isinstance(path, bytes) and b"source" in path]
    prefix = os.fsencode(world.source)
    assert {path[len(prefix) :] for path in own} <= {b"", b"/a", b"/a/one", b"/a/.cvmfsgraft-one"}


def test_a_listed_directory_comes_with_everything_below(world: World) -> None:
    (world.source / "new/below").mkdir(parents=True)
    (world.source / "new/below/file").write_bytes(b"x")
    (world.source / "a/two").unlink()
    world.publish("A new", "M a")
    world.assert_equal()


def test_a_shallow_list_takes_directories_for_themselves(world: World) -> None:
    (world.source / "new/below").mkdir(parents=True)
    (world.source / "new/below/file").write_bytes(b"x")
    (world.source / "a").chmod(0o700)
    (world.source / "a/one").write_bytes(b"not listed")
    world.publish("A new", "M a", is_shallow=True)
    checker = world.stratum_zero.checked()
    assert checker.entries[b"/a"].row["mode"] == 0o40700
    assert checker.read(b"/a/one") == b"a/one"
    assert b"/new" in checker.entries
    assert b"/new/below" not in checker.entries


def test_the_source_itself_stands_for_everything(world: World) -> None:
    (world.source / "a/one").unlink()
    world.publish(".")
    world.assert_equal()


def test_directories_above_a_new_path_are_made(world: World) -> None:
    (world.source / "x/y").mkdir(parents=True)
    (world.source / "x/y/z").write_bytes(b"z")
    world.publish("A x/y/z")
    world.assert_equal()


def test_a_directory_goes_with_everything_below(world: World) -> None:
    for name in ("a/one", "a/two", "a/deep/three"):
        (world.source / name).unlink()
    (world.source / "a/deep").rmdir()
    (world.source / "a").rmdir()
    world.publish("D a")
    world.assert_equal()


def test_a_directory_that_went_and_came_back_has_only_what_is_listed(world: World) -> None:
    for name in ("a/one", "a/deep/three"):
        (world.source / name).unlink()
    (world.source / "a/deep").rmdir()
    world.publish("D a", "A a/two")
    world.assert_equal()


def test_paths_listed_before_their_directory_went_do_not_count(world: World) -> None:
    world.publish("M a/one", "D a")
    checker = world.stratum_zero.checked()
    assert b"/a" not in checker.entries
    assert b"/five" in checker.entries


def test_what_is_gone_already_goes_without_saying(world: World) -> None:
    assert world.publish("D nowhere", "D no/where/deep", "never").is_unchanged


def test_a_file_that_vanished_is_named_and_nothing_published(world: World) -> None:
    (world.source / "a/one").write_bytes(b"other")
    with pytest.raises(SourceChanged, match="vanished"):
        world.publish("M a/one", "A vanished")
    assert world.stratum_zero.checked().read(b"/a/one") == b"a/one"


def test_nothing_is_published_through_a_symlink(world: World) -> None:
    (world.source / "link").symlink_to("b")
    with pytest.raises(PathRefused, match="symlink"):
        world.publish("A link/four")


def test_a_marker_makes_and_ends_a_nested_catalog(world: World) -> None:
    (world.source / "a/.cvmfscatalog").touch()
    world.publish("A a/.cvmfscatalog")
    assert set(world.stratum_zero.checked().catalogs) == {b"", b"/a"}
    (world.source / "a/one").write_bytes(b"other")
    world.publish("M a/one")
    assert set(world.stratum_zero.checked().catalogs) == {b"", b"/a"}
    (world.source / "a/.cvmfscatalog").unlink()
    world.publish("D a/.cvmfscatalog")
    world.assert_equal()
    assert set(world.stratum_zero.checked().catalogs) == {b""}


def test_hard_links_of_a_listed_file_come_along(world: World) -> None:
    (world.source / "a/link").hardlink_to(world.source / "a/one")
    world.publish("A a/link")
    world.assert_equal()
    (world.source / "a/one").write_bytes(b"both")
    world.publish("M a/link")
    world.assert_equal()
    (world.source / "a/one").unlink()
    world.publish("D a/one", "M a/link")
    world.assert_equal()


def test_a_changed_dirtab_counts_for_the_whole_repository(world: World) -> None:
    (world.source / ".cvmfsdirtab").write_bytes(b"/a/*\n/b\n")
    world.publish("A .cvmfsdirtab")
    assert set(world.stratum_zero.checked().catalogs) == {b"", b"/b", b"/a/deep"}


@pytest.fixture
def old_files(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("outcrop.publisher.previous_state._RACY_NS", -(1 << 60))


def test_the_whole_directory_is_still_known_after_a_list(world: World, old_files: None) -> None:
    world.stratum_zero.publish(world.source)
    (world.source / "a/one").write_bytes(b"other")
    (world.source / "b/four").write_bytes(b"later")
    world.publish("M a/one")
    result = world.stratum_zero.publish(world.source)
    assert result.changed == {"files": 1}
    assert result.bytes_read == len(b"other") + len(b"later")
    world.assert_equal()


def test_a_list_for_a_subtree_is_relative_to_the_source(world: World) -> None:
    world.stratum_zero.publish(world.source, to=b"/sub")
    (world.source / "a/one").write_bytes(b"other")
    world.publish("M a/one", to=b"/sub")
    checker = world.stratum_zero.checked()
    assert (checker.read(b"/sub/a/one"), checker.read(b"/a/one")) == (b"other", b"a/one")
