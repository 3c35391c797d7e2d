"""Copies equal the repository, and nothing in a repository decides where a copy goes."""

import os
import stat
from collections.abc import Mapping
from pathlib import Path

import pytest
from tests.support import golden
from tests.support.listing import expected, lines_of_directory, listing
from tests.support.simulator import Directory, File, RepositorySimulator, Special, Symlink
from tests.support.tree import Content

from outcrop.client.copying import MAX_DEPTH, CopyFailed, CopyResult, copy_tree
from outcrop.errors import OutcropError
from outcrop.repository.open import RepositorySource
from outcrop.repository.tree import Revision
from outcrop.storage.errors import ObjectCorrupt
from outcrop.storage.temporary import TransientOpener
from outcrop.trust.blacklist import Blacklist
from outcrop.trust.keys import load_public_keys


def opened(simulator: RepositorySimulator) -> Revision:
    source = RepositorySource(
        simulator.fqrn,
        simulator,
        TransientOpener(simulator),
        load_public_keys(simulator.public_key),
        Blacklist.parse(b""),
    )
    return source.open_trunk(now=simulator.now)


def revision(files: Mapping[bytes, Content], nested: tuple[bytes, ...] = ()) -> Revision:
    return opened(RepositorySimulator(files, nested=nested))


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return tmp_path / "copy"


def test_files_keep_content_mode_and_times(place: Path) -> None:
    big = os.urandom(20_000)
    tree = revision(
        {
            b"/a/tool": File(b"#!", mode=0o555, mtime=-5, mtime_ns=7),
            b"/big": File(big, chunk_bytes=4096),
            b"/empty": b"",
        }
    )
    result = copy_tree(tree, b"", place)
    assert (place / "big").read_bytes() == big
    assert (place / "empty").read_bytes() == b""
    found = (place / "a/tool").stat()
    assert (stat.S_IMODE(found.st_mode), found.st_mtime_ns) == (0o555, -5_000_000_000 + 7)
    assert result == CopyResult(files=3, directories=2, bytes=20_002)


def test_a_single_file_goes_to_the_name_given(place: Path) -> None:
    copy_tree(revision({b"/dir/f": b"data"}), b"/dir/f", place)
    assert place.read_bytes() == b"data"


def test_a_subtree_goes_to_the_name_given(place: Path) -> None:
    copy_tree(revision({b"/a/b/f": b"data"}, nested=(b"/a/b",)), b"/a", place)
    assert (place / "b/f").read_bytes() == b"data"


def test_links_stay_links(place: Path) -> None:
    tree = revision(
        {
            b"/f": b"data",
            b"/loop": Symlink(b"loop"),
            b"/out": Symlink(b"/etc/passwd"),
            b"/x": File(b"one", link_group=1),
            b"/y": File(b"one", link_group=1),
        }
    )
    copy_tree(tree, b"", place)
    assert os.readlink(place / "loop") == "loop"
    assert os.readlink(place / "out") == "/etc/passwd"
    assert (place / "x").stat().st_ino == (place / "y").stat().st_ino


def test_directories_keep_mode_and_times_even_if_unwritable(place: Path) -> None:
    tree = revision({b"/d": Directory(mode=0o500, mtime=1000), b"/d/e/f": b"data"})
    copy_tree(tree, b"", place)
    found = (place / "d").stat()
    assert (stat.S_IMODE(found.st_mode), found.st_mtime) == (0o500, 1000)
    assert (place / "d/e/f").read_bytes() == b"data"
    (place / "d").chmod(0o700)


def test_names_that_are_not_text_are_copied(place: Path) -> None:
    copy_tree(revision({b"/\xff\n": b"data", b"/" + b"n" * 255: b"long"}), b"", place)
    assert sorted(os.listdir(os.fsencode(place))) == [b"n" * 255, b"\xff\n"]


def test_extended_attributes_are_copied(place: Path) -> None:
    copy_tree(revision({b"/f": File(b"x", xattrs={b"user.note": b"\0said"})}), b"", place)
    assert os.getxattr(place / "f", "user.note") == b"\0said"


def test_what_is_there_is_merged_and_replaced(place: Path) -> None:
    (place / "d").mkdir(parents=True)
    (place / "d/own").write_text("stays")
    (place / "f").write_text("old")
    (place / "l").symlink_to("f")
    copy_tree(revision({b"/d/new": b"n", b"/f": b"new", b"/l": b"file"}), b"", place)
    assert (place / "d/own").read_text() == "stays"
    assert (place / "f").read_text() == "new"
    assert not (place / "l").is_symlink()


def test_a_file_that_is_open_keeps_its_content(place: Path) -> None:
    place.mkdir()
    (place / "f").write_text("old")
    with (place / "f").open() as file:
        copy_tree(revision({b"/f": b"new"}), b"", place)
        assert file.read() == "old"


def test_a_link_at_the_destination_leads_nowhere_else(tmp_path: Path, place: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "f").write_text("mine")
    place.mkdir()
    (place / "d").symlink_to(outside)
    (place / "g").symlink_to(outside / "f")
    with pytest.raises(CopyFailed, match="'d'"):
        copy_tree(revision({b"/d/f": b"theirs"}), b"", place)
    copy_tree(revision({b"/g": b"theirs"}), b"", place)
    assert (outside / "f").read_text() == "mine"


def test_a_directory_is_not_replaced_by_a_file(place: Path) -> None:
    (place / "f/own").mkdir(parents=True)
    with pytest.raises(CopyFailed, match="'f'"):
        copy_tree(revision({b"/f": b"data"}), b"", place)
    assert os.listdir(place) == ["f"]


def test_a_missing_parent_is_named(tmp_path: Path) -> None:
    with pytest.raises(CopyFailed, match="missing: No such file"):
        copy_tree(revision({b"/f": b""}), b"", tmp_path / "missing/place")


@pytest.mark.parametrize("name", [b"/f", b"/big"])
def test_a_corrupt_object_leaves_no_file_behind(place: Path, name: bytes) -> None:
    simulator = RepositorySimulator({b"/f": b"data", b"/big": File(b"0123" * 9, chunk_bytes=36)})
    simulator.corrupt(name)
    with pytest.raises(ObjectCorrupt):
        copy_tree(opened(simulator), b"", place)
    assert name[1:] not in os.listdir(os.fsencode(place))
    assert not [left for left in os.listdir(place) if left.startswith(".outcrop-")]


def test_a_tree_without_end_is_refused(place: Path) -> None:
    with pytest.raises(CopyFailed, match="deeper than"):
        copy_tree(revision({b"/d" * (MAX_DEPTH + 3): b""}), b"", place)


def test_fifos_are_made(place: Path) -> None:
    copy_tree(revision({b"/pipe": Special(stat.S_IFIFO, mode=0o640)}), b"", place)
    assert (place / "pipe").is_fifo()


def test_who_is_not_root_gets_no_set_id_bits_and_no_devices(
    place: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refused(*arguments: object, **options: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setattr(os, "mknod", refused)
    files = {b"/dev": Special(stat.S_IFCHR, rdev=259), b"/su": File(b"x", mode=0o4755, uid=4)}
    result = copy_tree(revision(files), b"", place)
    assert stat.S_IMODE((place / "su").stat().st_mode) == 0o755
    assert (place / "su").stat().st_uid == os.getuid()
    assert (result.skipped, result.files) == (1, 1)
    assert "not copied: dev" in caplog.text


def test_progress_is_told(place: Path) -> None:
    seen: list[int] = []
    files = {b"/%d" % number: b"x" for number in range(20)}
    copy_tree(revision(files), b"", place, progress=lambda result: seen.append(result.files))
    assert seen == [*range(1, 21), 20]


def test_a_path_that_is_not_there_is_an_error(place: Path) -> None:
    with pytest.raises(OutcropError, match="/none"):
        copy_tree(revision({}), b"/none", place)


def _comparable(lines: list[str]) -> list[str]:
    """Without what a disk decides: link count and size of directories."""
    split = [line.split("\t") for line in lines]
    for columns in split:
        if columns[1] == "d":
            columns[3] = columns[6] = "-"
    return ["\t".join(columns) for columns in split]


@pytest.mark.system
@pytest.mark.parametrize(("name", "tag"), [one for one in golden.LISTINGS if one[0] != "external"])
def test_a_copy_of_a_golden_repository_is_what_upstream_shows(
    name: str, tag: str, place: Path
) -> None:
    source = golden.source(name)
    tree = source.open_tag(tag, now=golden.now()) if tag else source.open_trunk(now=golden.now())
    copy_tree(tree, b"", place)
    found = listing(lines_of_directory(place))
    wanted = expected(golden.listing_file(name, tag))
    assert _comparable(found) == _comparable([line for line in wanted if "\t" in line])
