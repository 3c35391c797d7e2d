"""Upper directories made by hand: every note the kernel, fuse-overlayfs or aufs can leave."""

import os
import stat
from pathlib import Path

import pytest
from tests.support.overlays import publish_upper
from tests.support.stratum_zero import StratumZero

from outcrop.publisher.errors import PathRefused, SourceUnreadable


@pytest.fixture
def zero(tmp_path: Path) -> StratumZero:
    made = StratumZero(tmp_path / "world")
    made.create()
    source = tmp_path / "source"
    for path in ("d/f", "d/sub/g", "e/h", "top"):
        place = source / path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(path)
    (source / "d/link").hardlink_to(source / "d/f")
    made.publish(source)
    return made


@pytest.fixture
def upper(tmp_path: Path) -> Path:
    place = tmp_path / "upper"
    place.mkdir()
    return place


def paths(zero: StratumZero) -> set[str]:
    return {path.decode() for path in zero.checked().entries}


ALL = {"", "/d", "/d/f", "/d/link", "/d/sub", "/d/sub/g", "/e", "/e/h", "/top"}


def test_an_empty_upper_directory_changes_no_name(zero: StratumZero, upper: Path) -> None:
    publish_upper(zero, upper)
    assert paths(zero) == ALL


@pytest.mark.parametrize("how", ["prefix", "symlink"])
def test_whiteouts_of_other_union_file_systems_are_understood(
    zero: StratumZero, upper: Path, how: str
) -> None:
    for name in ("top", "d"):
        if how == "prefix":
            (upper / f".wh.{name}").touch()
        else:
            (upper / name).symlink_to("(overlay-whiteout)")
    publish_upper(zero, upper)
    assert paths(zero) == {"", "/e", "/e/h"}


def test_a_file_with_the_name_of_a_whiteout_and_content_is_a_file(
    zero: StratumZero, upper: Path
) -> None:
    (upper / ".wh.top").write_text("notes about white horses")
    publish_upper(zero, upper)
    assert paths(zero) == ALL | {"/.wh.top"}


def test_a_marker_of_opacity_hides_what_is_beneath(zero: StratumZero, upper: Path) -> None:
    (upper / "d/sub").mkdir(parents=True)
    (upper / "d/.wh..wh..opq").touch()
    (upper / "d/new").touch()
    publish_upper(zero, upper)
    assert paths(zero) == (ALL - {"/d/f", "/d/link", "/d/sub/g"}) | {"/d/new"}


def test_a_directory_takes_the_place_of_a_file_and_back(zero: StratumZero, upper: Path) -> None:
    (upper / "top").mkdir()
    (upper / "top/below").touch()
    (upper / "d").touch()
    publish_upper(zero, upper)
    assert paths(zero) == {"", "/d", "/e", "/e/h", "/top", "/top/below"}


def test_a_link_that_was_changed_leaves_its_group(zero: StratumZero, upper: Path) -> None:
    (upper / "d").mkdir()
    (upper / "d/f").write_text("changed")
    publish_upper(zero, upper)
    checker = zero.checked()
    assert checker.read(b"/d/f") == b"changed"
    assert checker.read(b"/d/link") == b"d/f"
    assert checker.entries[b"/d/link"].nlink == checker.entries[b"/d/f"].nlink == 1


def test_links_made_in_a_transaction_are_links(zero: StratumZero, upper: Path) -> None:
    (upper / "one").write_text("1")
    (upper / "two").hardlink_to(upper / "one")
    publish_upper(zero, upper)
    entries = zero.checked().entries
    assert entries[b"/one"].group == entries[b"/two"].group != 0


def test_what_is_there_keeps_its_owner_where_owners_cannot_be_told(
    zero: StratumZero, upper: Path
) -> None:
    (upper / "d").mkdir()
    (upper / "d/f").write_text("changed")
    (upper / "new").touch()
    before = zero.checked().entries[b"/d/f"].row["uid"]
    if os.geteuid() == 0:
        for path in (upper, upper / "d", upper / "d/f", upper / "new"):
            os.chown(path, 1234, 1234)
    publish_upper(zero, upper, for_user=True, keeps_owners=True)
    entries = zero.checked().entries
    assert entries[b"/d/f"].row["uid"] == entries[b"/d"].row["uid"] == before
    assert entries[b"/new"].row["uid"] == (upper / "new").stat().st_uid


@pytest.mark.parametrize("change", ["directory", "file"])
def test_the_reserved_directory_is_refused(zero: StratumZero, upper: Path, change: str) -> None:
    (upper / ".cvmfs").mkdir() if change == "directory" else (upper / ".cvmfs").touch()
    with pytest.raises(PathRefused, match="reserved"):
        publish_upper(zero, upper)
    assert paths(zero) == ALL


def test_rules_of_the_transaction_are_those_of_the_new_revision(
    zero: StratumZero, upper: Path
) -> None:
    (upper / ".cvmfsdirtab").write_text("/d\n/made\n")
    (upper / "made").mkdir()
    publish_upper(zero, upper)
    found = paths(zero)
    assert {"/d/.cvmfscatalog", "/made/.cvmfscatalog"} <= found
    assert "/e/.cvmfscatalog" not in found


# --- what only root can make, on a file system that has such attributes --------------------------

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root writes trusted attributes")


def note(path: Path, name: str, value: bytes) -> None:
    os.setxattr(path, f"trusted.overlay.{name}", value)


@pytest.mark.system
@as_root
def test_character_devices_are_whiteouts_if_they_have_no_number(
    zero: StratumZero, upper: Path
) -> None:
    os.mknod(upper / "top", stat.S_IFCHR, os.makedev(0, 0))
    os.mknod(upper / "null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    publish_upper(zero, upper)
    assert paths(zero) == (ALL - {"/top"}) | {"/null"}


@pytest.mark.system
@as_root
def test_whiteouts_by_attribute_count_where_the_directory_says_so(
    zero: StratumZero, upper: Path
) -> None:
    for name in ("d", "e"):
        (upper / name).mkdir()
    for path in ("d/f", "e/h"):
        (upper / path).touch()
        note(upper / path, "whiteout", b"y")
    note(upper / "d", "opaque", b"x")
    publish_upper(zero, upper)
    assert paths(zero) == ALL - {"/d/f"}
    assert zero.checker().load()[b"/e/h"].row["size"] == 0


@pytest.mark.system
@as_root
@pytest.mark.parametrize("redirect", [b"/d", b"d"])
def test_a_redirect_moves_a_directory_unread(
    zero: StratumZero, upper: Path, redirect: bytes
) -> None:
    (upper / "moved").mkdir()
    note(upper / "moved", "redirect", redirect)
    os.mknod(upper / "d", stat.S_IFCHR, 0)
    assert publish_upper(zero, upper).bytes_read == 0
    assert paths(zero) == {"", "/moved", "/moved/f", "/moved/link", "/moved/sub",
                           "/moved/sub/g", "/e", "/e/h", "/top"}  # fmt: skip


@pytest.mark.system
@as_root
def test_a_redirect_whose_source_is_still_to_be_seen_is_a_copy(
    zero: StratumZero, upper: Path
) -> None:
    (upper / "copied").mkdir()
    note(upper / "copied", "redirect", b"/d/sub")
    publish_upper(zero, upper)
    assert paths(zero) == ALL | {"/copied", "/copied/g"}


@pytest.mark.system
@as_root
def test_two_directories_change_places(zero: StratumZero, upper: Path) -> None:
    for name, other in (("d", b"e"), ("e", b"d")):
        (upper / name).mkdir()
        note(upper / name, "redirect", other)
    publish_upper(zero, upper)
    assert paths(zero) == {"", "/e", "/e/f", "/e/link", "/e/sub", "/e/sub/g", "/d", "/d/h", "/top"}


@pytest.mark.system
@as_root
@pytest.mark.parametrize("redirect", [b"/../etc", b"/d//x", b"..", b"/", b"a/b"])
def test_a_redirect_to_nowhere_is_an_error(zero: StratumZero, upper: Path, redirect: bytes) -> None:
    (upper / "moved").mkdir()
    note(upper / "moved", "redirect", redirect)
    with pytest.raises(SourceUnreadable, match="redirect"):
        publish_upper(zero, upper)


@pytest.mark.system
@as_root
def test_a_metacopy_keeps_the_content_and_takes_the_rest(zero: StratumZero, upper: Path) -> None:
    (upper / "e").mkdir()
    for path, content in (("e/h", None), ("elsewhere", b"/top")):
        with (upper / path).open("wb") as file:
            file.truncate(3)
        (upper / path).chmod(0o600)
        note(upper / path, "metacopy", b"")
        if content is not None:
            note(upper / path, "redirect", content)
    os.mknod(upper / "top", stat.S_IFCHR, 0)
    assert publish_upper(zero, upper).bytes_read == 0
    checker = zero.checked()
    assert checker.read(b"/e/h") == b"e/h"
    assert checker.read(b"/elsewhere") == b"top"
    assert stat.S_IMODE(checker.entries[b"/e/h"].row["mode"]) == 0o600
    assert b"/top" not in checker.entries


@pytest.mark.system
@as_root
def test_a_metacopy_of_nothing_is_an_error(zero: StratumZero, upper: Path) -> None:
    (upper / "lost").write_bytes(b"\0\0\0")
    note(upper / "lost", "metacopy", b"")
    with pytest.raises(SourceUnreadable, match="lost"):
        publish_upper(zero, upper)
