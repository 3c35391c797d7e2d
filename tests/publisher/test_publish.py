"""Publishing a directory, seen from the outside: what readers find afterwards."""

import itertools
import os
from pathlib import Path

import pytest
from tests.support.keys import other_keys
from tests.support.materialized import tree_in_repository, tree_on_disk
from tests.support.privileges import permissions_hold
from tests.support.stratum_zero import FQRN, StratumZero

from outcrop.errors import FormatError
from outcrop.publisher.errors import (
    LimitExceeded,
    PathRefused,
    PublisherSettingsError,
    PublishInProgress,
    SourceUnreadable,
    TagExists,
    TransactionOpen,
)
from outcrop.publisher.lock import publishing_lock
from outcrop.repository.errors import RepositoryNotFound, RevisionConflict
from outcrop.trust.errors import BadSignature, WhitelistExpired

SMALL_CHUNKS = {
    "CVMFS_MIN_CHUNK_SIZE": 1000,
    "CVMFS_AVG_CHUNK_SIZE": 2000,
    "CVMFS_MAX_CHUNK_SIZE": 4000,
}


@pytest.fixture
def stratum_zero(tmp_path: Path) -> StratumZero:
    world = StratumZero(tmp_path / "world")
    world.create()
    return world


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A directory with a bit of everything an ordinary user can make."""
    root = tmp_path / "source"
    (root / "bin").mkdir(parents=True)
    (root / "bin/tool").write_bytes(b"#!/bin/sh\n")
    (root / "bin/tool").chmod(0o755)
    (root / "bin/link").symlink_to("tool")
    (root / "bin/same").hardlink_to(root / "bin/tool")
    (root / "lib").mkdir()
    (root / "lib/elsewhere").hardlink_to(root / "bin/tool")
    (root / "lib/empty").touch()
    (root / "lib/large").write_bytes(os.urandom(50_000))
    os.mkfifo(root / "lib/fifo")
    os.setxattr(root / "lib/large", b"user.origin", b"random")
    (root / "sub/deep").mkdir(parents=True)
    (root / "sub/deep/file").write_bytes(b"deep")
    for path in [*root.rglob("*"), root]:
        os.utime(path, (1_500_000_000, 1_500_000_000), follow_symlinks=False)
    return root


@pytest.fixture
def no_file_is_too_new(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have files that were written a moment ago count as old ones."""
    monkeypatch.setattr("outcrop.publisher.previous_state._RACY_NS", -(1 << 60))


def assert_published(stratum_zero: StratumZero, source: Path) -> None:
    checker = stratum_zero.checked()
    assert tree_in_repository(checker) == tree_on_disk(source)


def test_a_published_directory_is_in_the_repository_with_everything(
    stratum_zero: StratumZero, source: Path
) -> None:
    result = stratum_zero.publish(source)
    on_disk = tree_on_disk(source)
    for name in (b"/bin/tool", b"/bin/same"):  # the link from lib/ is a file of its own
        assert on_disk[name][6] == {b"tool", b"same"}
    assert_published(stratum_zero, source)
    assert result.revision == 2
    assert result.added == {"files": 6, "directories": 4, "symlinks": 1, "specials": 1}
    assert result.removed == {"files": 1}  # new_repository
    assert not result.is_unchanged


def test_publishing_the_same_again_reads_no_file_and_changes_nothing(
    stratum_zero: StratumZero, source: Path, no_file_is_too_new: None
) -> None:
    stratum_zero.configure(**SMALL_CHUNKS)
    stratum_zero.publish(source)
    result = stratum_zero.publish(source)
    assert result.is_unchanged
    assert result.bytes_read == 0
    assert result.catalogs == 1
    assert result.revision == 3
    assert_published(stratum_zero, source)


def test_only_changed_files_are_read_again(
    stratum_zero: StratumZero, source: Path, no_file_is_too_new: None
) -> None:
    stratum_zero.configure(**SMALL_CHUNKS)
    stratum_zero.publish(source)
    (source / "lib/added").write_bytes(b"1234567")
    (source / "lib/large").chmod(0o600)  # its change time is new, so it counts as changed
    result = stratum_zero.publish(source)
    assert result.bytes_read == 50_007
    assert_published(stratum_zero, source)


def test_files_known_from_before_are_not_read_though_the_trunk_moved(
    stratum_zero: StratumZero, source: Path, no_file_is_too_new: None
) -> None:
    stratum_zero.configure(**SMALL_CHUNKS)
    stratum_zero.publish(source, to=b"/a")
    stratum_zero.publish(source, to=b"/b")
    result = stratum_zero.publish(source, to=b"/a")
    assert result.is_unchanged
    assert result.bytes_read == 0


def test_what_another_source_put_in_place_is_found_different(
    stratum_zero: StratumZero, source: Path, tmp_path: Path, no_file_is_too_new: None
) -> None:
    stratum_zero.publish(source)
    stratum_zero.publish(source / "sub")
    stratum_zero.publish(source)
    assert_published(stratum_zero, source)


def test_a_file_just_written_is_read_again_whatever_its_times_say(
    stratum_zero: StratumZero, source: Path
) -> None:
    file = source / "sub/deep/file"
    file.write_bytes(b"one")
    os.utime(file, (1_500_000_000, 1_500_000_000))
    before = file.stat()
    stratum_zero.publish(source)
    file.write_bytes(b"two")
    os.utime(file, (1_500_000_000, 1_500_000_000))
    assert (file.stat().st_size, file.stat().st_mtime) == (before.st_size, before.st_mtime)
    stratum_zero.publish(source)
    assert stratum_zero.checked().read(b"/sub/deep/file") == b"two"


def test_a_subtree_is_published_below_directories_made_for_it(
    stratum_zero: StratumZero, source: Path
) -> None:
    stratum_zero.publish(source, to=b"/software/x86/1.0")
    checker = stratum_zero.checked()
    assert b"/new_repository" in checker.entries
    assert checker.read(b"/software/x86/1.0/sub/deep/file") == b"deep"
    assert checker.entries[b"/software"].row["mode"] == 0o40755
    assert checker.entries[b"/software/x86/1.0"].row["mtime"] == 1_500_000_000


def test_two_subtrees_do_not_touch_each_other(stratum_zero: StratumZero, source: Path) -> None:
    stratum_zero.publish(source, to=b"/a")
    stratum_zero.publish(source / "sub", to=b"/b")
    (source / "sub/deep/file").write_bytes(b"changed")
    stratum_zero.publish(source / "sub", to=b"/b")
    checker = stratum_zero.checked()
    assert checker.read(b"/a/sub/deep/file") == b"deep"
    assert checker.read(b"/b/deep/file") == b"changed"
    stratum_zero.publish(source, to=b"/a")
    assert stratum_zero.checked().read(b"/a/sub/deep/file") == b"changed"


def make(kind: str, path: Path) -> None:
    """Put something of a kind in a place."""
    if kind in ("directory", "nested"):
        path.mkdir()
        (path / "inside").write_bytes(b"x")
    if kind == "nested":
        (path / ".cvmfscatalog").touch()
        (path / "more").mkdir()
        (path / "more/.cvmfscatalog").touch()
    elif kind == "file":
        path.write_bytes(b"content")
    elif kind == "chunked":
        path.write_bytes(bytes(9000))
    elif kind == "symlink":
        path.symlink_to("target")
    elif kind == "fifo":
        os.mkfifo(path)


def test_every_kind_can_take_the_place_of_every_other(
    stratum_zero: StratumZero, tmp_path: Path
) -> None:
    stratum_zero.configure(**SMALL_CHUNKS)
    kinds = ["file", "chunked", "symlink", "fifo", "directory", "nested", "nothing"]
    for step in range(len(kinds)):
        source = tmp_path / f"source-{step}"
        source.mkdir()
        # Place `first` goes through the kinds in steps of `stride`, so that all pairs follow
        # each other somewhere.
        for first, stride in itertools.product(range(len(kinds)), range(1, len(kinds))):
            kind = kinds[(first + stride * step) % len(kinds)]
            make(kind, source / f"place-{first}-{stride}")
        stratum_zero.publish(source)
        assert_published(stratum_zero, source)


def test_marked_directories_have_catalogs_that_come_and_go_with_the_marker(
    stratum_zero: StratumZero, source: Path
) -> None:
    (source / "sub/.cvmfscatalog").touch()
    (source / "sub/deep/.cvmfscatalog").touch()
    stratum_zero.publish(source)
    assert set(stratum_zero.checked().catalogs) == {b"", b"/sub", b"/sub/deep"}
    (source / "sub/.cvmfscatalog").unlink()
    (source / "lib/.cvmfscatalog").touch()
    stratum_zero.publish(source)
    assert set(stratum_zero.checked().catalogs) == {b"", b"/lib", b"/sub/deep"}
    assert_published(stratum_zero, source)
    (source / "sub/deep/.cvmfscatalog").unlink()
    (source / "sub/.cvmfscatalog").touch()
    stratum_zero.publish(source)
    assert set(stratum_zero.checked().catalogs) == {b"", b"/lib", b"/sub"}
    assert_published(stratum_zero, source)


def test_catalogs_nothing_changed_in_keep_their_object(
    stratum_zero: StratumZero, source: Path
) -> None:
    (source / "sub/.cvmfscatalog").touch()
    (source / "lib/.cvmfscatalog").touch()
    stratum_zero.publish(source)
    before = stratum_zero.checked().catalogs
    (source / "sub/deep/file").write_bytes(b"other")
    result = stratum_zero.publish(source)
    after = stratum_zero.checked().catalogs
    assert after[b"/lib"].text == before[b"/lib"].text
    assert after[b"/sub"].text != before[b"/sub"].text
    assert after[b"/sub"].properties["previous_revision"] == before[b"/sub"].text
    assert after[b"/sub"].properties["revision"] == "2"
    assert result.catalogs == 2
    assert result.changed == {"files": 1}


def test_a_dirtab_makes_catalogs_with_markers_that_stay(
    stratum_zero: StratumZero, source: Path
) -> None:
    (source / ".cvmfsdirtab").write_bytes(b"/su?\n/*b\n!/lib\n")
    stratum_zero.publish(source)
    checker = stratum_zero.checked()
    assert set(checker.catalogs) == {b"", b"/sub"}
    marker = checker.entries[b"/sub/.cvmfscatalog"].row
    assert (marker["mode"], marker["size"]) == (0o100644, 0)
    assert not (source / "sub/.cvmfscatalog").exists()
    (source / "sub/new").write_bytes(b"new")
    result = stratum_zero.publish(source)
    assert result.added == {"files": 1}
    assert stratum_zero.checked().entries[b"/sub/.cvmfscatalog"].row["mtime"] == marker["mtime"]
    (source / ".cvmfsdirtab").write_bytes(b"/bin\n")
    result = stratum_zero.publish(source)
    checker = stratum_zero.checked()
    assert set(checker.catalogs) == {b"", b"/bin"}
    assert b"/sub/.cvmfscatalog" not in checker.entries


def test_the_dirtab_of_the_root_counts_for_subtrees_too(
    stratum_zero: StratumZero, source: Path
) -> None:
    (source / ".cvmfsdirtab").write_bytes(b"/opt/*\n")
    stratum_zero.publish(source)
    stratum_zero.publish(source / "sub", to=b"/opt")
    assert set(stratum_zero.checked().catalogs) == {b"", b"/opt/deep"}


def test_a_wrong_dirtab_is_refused(stratum_zero: StratumZero, source: Path) -> None:
    (source / ".cvmfsdirtab").write_bytes(b"relative\n")
    with pytest.raises(FormatError, match="line 1"):
        stratum_zero.publish(source)


@pytest.mark.parametrize("name", [".cvmfscatalog", ".cvmfs"])
def test_names_that_mean_something_else_are_refused_in_the_root(
    stratum_zero: StratumZero, source: Path, name: str
) -> None:
    (source / name).touch()
    with pytest.raises(PathRefused, match=name):
        stratum_zero.publish(source)
    assert stratum_zero.checked().manifest["S"] == "1"


def test_a_marker_that_is_no_file_is_refused(stratum_zero: StratumZero, source: Path) -> None:
    (source / "sub/.cvmfscatalog").mkdir()
    with pytest.raises(PathRefused, match="regular file"):
        stratum_zero.publish(source)


@pytest.mark.parametrize("path", [b"a", b"/a/", b"/a//b", b"/a/../b", b"/.", b"/.cvmfs/x"])
def test_impossible_targets_are_refused(
    stratum_zero: StratumZero, source: Path, path: bytes
) -> None:
    with pytest.raises(PathRefused):
        stratum_zero.publish(source, to=path)


def test_nothing_can_be_published_below_a_file(stratum_zero: StratumZero, source: Path) -> None:
    with pytest.raises(PathRefused, match="/new_repository"):
        stratum_zero.publish(source, to=b"/new_repository/below")


def test_a_tag_names_the_revision_and_undo_tags_follow(
    stratum_zero: StratumZero, source: Path
) -> None:
    first = stratum_zero.publish(source, tag="v1", message="the first")
    second = stratum_zero.publish(source)
    stratum_zero.checked()
    assert first.tags == ("v1",)
    assert second.tags == ()
    with pytest.raises(TagExists, match="v1"):
        stratum_zero.publish(source, tag="v1")
    with pytest.raises(FormatError):
        stratum_zero.publish(source, tag="trunk")


def test_automatic_tags_are_made_where_the_settings_ask(
    stratum_zero: StratumZero, source: Path
) -> None:
    stratum_zero.configure(CVMFS_AUTO_TAG="true")
    now = 1_800_000_100
    assert stratum_zero.publish(source, now=now).tags == ("generic-2027-01-15T08:01:40Z",)
    assert stratum_zero.publish(source, now=now).tags == ("generic_1-2027-01-15T08:01:40Z",)
    stratum_zero.checked()


def test_settings_decide_about_xattrs_and_nanoseconds(
    stratum_zero: StratumZero, source: Path
) -> None:
    os.utime(source / "lib/large", ns=(0, 1_500_000_000_123_456_789))
    stratum_zero.configure(CVMFS_INCLUDE_XATTRS="false", CVMFS_ENABLE_MTIME_NS="true")
    stratum_zero.publish(source)
    row = stratum_zero.checked().entries[b"/lib/large"].row
    assert row["xattr"] is None
    assert row["mtimens"] == 123_456_789


def test_an_attribute_too_long_is_left_out_with_a_warning(
    stratum_zero: StratumZero, source: Path
) -> None:
    os.setxattr(source / "lib/large", b"user.long", b"x" * 256)
    result = stratum_zero.publish(source)
    assert any("user.long" in warning for warning in result.warnings)
    row = stratum_zero.checked().entries[b"/lib/large"].row
    assert b"user.origin" in row["xattr"]
    assert b"user.long" not in row["xattr"]


def test_limits_warn_or_refuse_as_the_settings_say(stratum_zero: StratumZero, source: Path) -> None:
    with (source / "lib/large").open("wb") as file:
        file.truncate(2 << 20)
    stratum_zero.configure(CVMFS_FILE_MBYTE_LIMIT=1, CVMFS_ROOT_KCATALOG_LIMIT=1)
    result = stratum_zero.publish(source)
    assert any("lib/large" in warning for warning in result.warnings)
    (source / "lib/large").write_bytes(bytes(3 << 20))
    stratum_zero.configure(CVMFS_ENFORCE_LIMITS="true")
    with pytest.raises(LimitExceeded, match="lib/large"):
        stratum_zero.publish(source)
    assert stratum_zero.checked().manifest["S"] == "2"


def test_a_catalog_over_the_limit_is_refused_where_limits_are_enforced(
    stratum_zero: StratumZero, tmp_path: Path
) -> None:
    source = tmp_path / "many"
    source.mkdir()
    for number in range(1001):
        (source / str(number)).touch()
    stratum_zero.configure(CVMFS_ROOT_KCATALOG_LIMIT=1, CVMFS_ENFORCE_LIMITS="true")
    with pytest.raises(LimitExceeded, match="catalog at /"):
        stratum_zero.publish(source)


def test_a_missing_source_is_named(stratum_zero: StratumZero, tmp_path: Path) -> None:
    with pytest.raises(SourceUnreadable, match="nowhere"):
        stratum_zero.publish(tmp_path / "nowhere")


def test_a_repository_is_not_published_into_itself(
    stratum_zero: StratumZero, tmp_path: Path
) -> None:
    with pytest.raises(PathRefused, match="storage"):
        stratum_zero.publish(tmp_path)


def test_an_unreadable_file_is_named_and_nothing_published(
    stratum_zero: StratumZero, source: Path
) -> None:
    (source / "lib/large").chmod(0)
    with permissions_hold(), pytest.raises(SourceUnreadable, match="lib/large"):
        stratum_zero.publish(source)
    assert stratum_zero.checked().manifest["S"] == "1"


def test_an_unknown_repository_is_told(stratum_zero: StratumZero, source: Path) -> None:
    stratum_zero.fqrn = "other.example.org"
    with pytest.raises(RepositoryNotFound, match=r"other\.example\.org"):
        stratum_zero.publish(source)


def test_two_at_a_time_exclude_each_other_and_the_other_is_named(
    stratum_zero: StratumZero, source: Path
) -> None:
    with (
        publishing_lock(stratum_zero.spool, FQRN),
        pytest.raises(PublishInProgress, match=str(os.getpid())),
    ):
        stratum_zero.publish(source)
    stratum_zero.publish(source)


def test_an_open_transaction_of_cvmfs_server_excludes_us(
    stratum_zero: StratumZero, source: Path
) -> None:
    (stratum_zero.spool / "in_transaction.lock").touch()
    with pytest.raises(TransactionOpen):
        stratum_zero.publish(source)


def test_an_expired_whitelist_is_told_before_any_work(
    stratum_zero: StratumZero, source: Path
) -> None:
    with pytest.raises(WhitelistExpired) as caught:
        stratum_zero.publish(source, now=stratum_zero.now + 31 * 86400)
    assert caught.value.hint


def test_a_clock_behind_the_trunk_is_told(stratum_zero: StratumZero, source: Path) -> None:
    with pytest.raises(RevisionConflict, match="future"):
        stratum_zero.publish(source, now=stratum_zero.now - 100_000)


def test_a_key_that_is_not_the_certificates_is_told_before_any_work(
    stratum_zero: StratumZero, source: Path
) -> None:
    key = stratum_zero.locations.keys / f"{FQRN}.key"
    key.write_bytes(other_keys().repository_key_pem)
    with pytest.raises(BadSignature):
        stratum_zero.publish(source)


def test_a_missing_key_is_named(stratum_zero: StratumZero, source: Path) -> None:
    (stratum_zero.locations.keys / f"{FQRN}.key").unlink()
    with pytest.raises(PublisherSettingsError, match=r"\.key"):
        stratum_zero.publish(source)


def test_progress_is_told(stratum_zero: StratumZero, source: Path) -> None:
    seen: list[tuple[str, int, int | None]] = []
    stratum_zero.publish(source, progress=lambda *what: seen.append(what))
    assert ("entries", 12, None) in seen
    assert seen[-1][0] == "catalogs"


@pytest.mark.parametrize("choice", ["balanced", "fast", "zlib", "none", "default"])
def test_every_compression_reads_back(stratum_zero: StratumZero, source: Path, choice: str) -> None:
    stratum_zero.configure(**SMALL_CHUNKS)
    stratum_zero.publish(source, compression_choice=choice)
    assert_published(stratum_zero, source)


def test_an_unknown_compression_is_refused(stratum_zero: StratumZero, source: Path) -> None:
    with pytest.raises(PublisherSettingsError, match="lzma"):
        stratum_zero.publish(source, compression_choice="lzma")
