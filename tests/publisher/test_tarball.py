"""Tar archives as revisions: the repository equals the tree, whatever wrote the archive."""

import io
import itertools
import os
import shutil
import stat
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.support.dying import run_until
from tests.support.faults import FaultyStore, Kind
from tests.support.materialized import tree_in_repository, tree_on_disk
from tests.support.stratum_zero import StratumZero, options_from
from tests.support.tars import COMPRESSORS, END, extended, gnu_tar, header, member, pack

from outcrop.errors import FormatError, OutcropError
from outcrop.formats.hashes import ObjectRef, Suffix
from outcrop.publisher import tar_tree
from outcrop.publisher.errors import (
    ArchiveInvalid,
    LimitExceeded,
    MemberRefused,
    PathRefused,
    PublisherSettingsError,
    ScratchFull,
)
from outcrop.publisher.publish import PublishResult
from outcrop.publisher.tarball import publish_tarball
from outcrop.repository.editor import CatalogEditor
from outcrop.storage.errors import StorageError
from outcrop.storage.local import LocalStore

SMALL_CHUNKS = {
    "CVMFS_MIN_CHUNK_SIZE": 1000,
    "CVMFS_AVG_CHUNK_SIZE": 2000,
    "CVMFS_MAX_CHUNK_SIZE": 4000,
}
MARKER = b".cvmfscatalog"


def ingest(world: StratumZero, data: bytes | None, **arguments: object) -> PublishResult:
    world.now += 10
    arguments.setdefault("now", world.now)
    arguments.setdefault("to", b"")
    arguments["options"] = options_from(arguments)
    archive = None if data is None else io.BytesIO(data)
    return publish_tarball(world.locations, world.fqrn, archive=archive, **arguments)


def tree(world: StratumZero, below: bytes = b"") -> dict[bytes, tuple]:
    found = tree_in_repository(world.checked())
    return {
        path[len(below) :]: value
        for path, value in found.items()
        if path == below or path.startswith(below + b"/")
    }


def names(world: StratumZero) -> set[bytes]:
    return set(world.checked().entries) - {b"", b"/new_repository"}


@pytest.fixture
def world(tmp_path: Path) -> StratumZero:
    stratum_zero = StratumZero(tmp_path / "world")
    stratum_zero.create()
    stratum_zero.configure(**SMALL_CHUNKS)
    return stratum_zero


# --- what an archive says is what the repository has ---

NAMES = st.sampled_from(["a", "b", "c d", "\udcff", "ü", "n" * 120, MARKER.decode()])
PATHS = st.lists(NAMES, min_size=1, max_size=4).map(tuple)
CONTENTS = st.sampled_from([b"", b"x", b"one", bytes(2500), b"ab" * 3000, bytes(range(256)) * 60])
KINDS = st.sampled_from(["file", "directory", "symlink", "hard link", "fifo", "xattr", "mode"])


def plant(root: Path, kind: str, path: tuple[str, ...], content: bytes, other: int) -> None:
    """Put something into a tree, or change it, where that is possible."""
    place = root.joinpath(*path)
    is_marker = path[-1] == MARKER.decode()
    if MARKER.decode() in path[:-1] or (is_marker and (len(path) == 1 or kind != "file")):
        return
    if any(p.is_symlink() or (p.exists() and not p.is_dir()) for p in place.parents):
        return
    if os.path.lexists(place):
        if not place.is_symlink():
            change(place, kind, content)
        return
    place.parent.mkdir(parents=True, exist_ok=True)
    files = sorted(p for p in root.rglob("*") if p.is_file() and not p.is_symlink())
    if kind == "file":
        place.write_bytes(content)
    elif kind == "directory":
        place.mkdir()
    elif kind == "symlink":
        place.symlink_to("x" * (1 + len(content) % 200))
    elif kind == "fifo":
        os.mkfifo(place)
    elif kind == "hard link" and files:
        place.hardlink_to(files[other % len(files)])


def change(place: Path, kind: str, content: bytes) -> None:
    if kind == "xattr" and place.is_file():
        os.setxattr(place, "user.test", content[:200])
    elif kind == "mode":
        place.chmod(0o710)


@settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    st.lists(st.tuples(KINDS, PATHS, CONTENTS, st.integers(0, 9)), max_size=25),
    st.sampled_from(["pax", "gnu", "ustar", "tar-gnu", "tar-posix"]),
    st.sampled_from(sorted(COMPRESSORS)),
    st.sampled_from([b"", b"/t", b"/t/u"]),
)
def test_the_repository_equals_the_tree(
    steps: list[tuple], writer: str, compression: str, target: bytes
) -> None:
    with tempfile.TemporaryDirectory(prefix="outcrop-test-") as place:
        source = Path(place) / "source"
        source.mkdir()
        for step in steps:
            plant(source, *step)
        if writer == "ustar":  # no room for long names
            for path in sorted(source.rglob("n" * 120), reverse=True):
                shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
            for path in source.rglob("*"):
                if path.is_symlink() and len(path.readlink().name) > 100:
                    path.unlink()
        world = StratumZero(Path(place) / "world")
        world.create()
        world.configure(**SMALL_CHUNKS, CVMFS_ENABLE_MTIME_NS="true")
        data = write(writer, source)
        ingest(world, COMPRESSORS[compression](data), to=target, delete=[b"/new_repository"])
        expected = tree_on_disk(source)
        if writer in ("gnu", "ustar", "tar-gnu"):
            expected = {p: (*v[:5], {}, v[6]) for p, v in expected.items()}
        assert tree(world, target) == expected


def write(writer: str, source: Path) -> bytes:
    formats = {
        "pax": tarfile.PAX_FORMAT, "gnu": tarfile.GNU_FORMAT, "ustar": tarfile.USTAR_FORMAT
    }  # fmt: skip
    if writer in formats:
        return pack(source, formats[writer])
    if writer == "tar-gnu":
        return gnu_tar(source, "--format=gnu")
    return gnu_tar(source, "--format=posix", "--xattrs", "--xattrs-include=*")


def test_the_same_content_as_of_a_published_directory(tmp_path: Path, world: StratumZero) -> None:
    source = tmp_path / "source"
    (source / "nested/inner").mkdir(parents=True)
    (source / "nested/.cvmfscatalog").touch()
    (source / "nested/inner/file").write_bytes(os.urandom(9000))
    (source / "link").symlink_to("nested")
    for name in ("a", "b", "c"):
        (source / name).hardlink_to(source / "nested/inner/file")
    other = StratumZero(tmp_path / "other")
    other.create()
    other.configure(**SMALL_CHUNKS)
    other.publish(source, to=b"/t")
    ingest(world, pack(source), to=b"/t")
    rows = [
        {path: {k: v for k, v in e.row.items() if k != "rowid"} for path, e in c.entries.items()}
        for c in (world.checked(), other.checked())
    ]
    for table in rows:
        for row in table.values():
            row["hardlinks"] &= 0xFFFFFFFF  # groups may have other numbers
    assert rows[0] == rows[1]
    assert ingest(world, pack(source), to=b"/t").added == {}


def test_counts_tell_what_is_new_different_and_gone(world: StratumZero) -> None:
    first = ingest(world, member(b"d/a", b"1") + member(b"d/b", b"2") + END)
    assert (first.added, first.changed) == ({"directories": 1, "files": 2}, {})
    assert first.bytes_read == 2
    again = ingest(world, member(b"d/a", b"1") + member(b"d/b", b"2") + END)
    assert again.is_unchanged
    later = ingest(world, member(b"d/a", b"9") + header(b"d/b", kind=b"2", link=b"a") + END)
    assert (later.added, later.changed, later.removed) == (
        {"symlinks": 1},
        {"files": 1},
        {"files": 1},
    )


def test_several_archives_onto_one_place(world: StratumZero) -> None:
    ingest(world, member(b"a", b"1") + member(b"d/b", b"2") + END, to=b"/x")
    ingest(world, member(b"a", b"3") + member(b"d/c", b"4") + END, to=b"/x")
    found = tree(world, b"/x")
    assert {p: v[4] for p, v in found.items() if stat.S_ISREG(v[0])} == {
        b"/a": b"3", b"/d/b": b"2", b"/d/c": b"4",
    }  # fmt: skip


def test_large_members_come_in_chunks(world: StratumZero) -> None:
    data = os.urandom(2_500_000)
    ingest(world, member(b"large", data) + member(b"small", b"x") + END)
    checker = world.checked()
    assert checker.read(b"/large") == data
    assert len(checker.entries[b"/large"].chunks) > 100


def test_metadata_of_a_member(world: StratumZero) -> None:
    world.configure(CVMFS_ENABLE_MTIME_NS="true")
    archive = extended(
        [(b"uid", b"100000"), (b"gid", b"7"), (b"mtime", b"12.5"), (b"SCHILY.xattr.user.a", b"\0b")]
    ) + member(b"f", mode=b"0004751\0")
    devices = header(b"null", kind=b"3", device=(1, 3)) + header(
        b"disk", kind=b"4", device=(8, 300)
    )
    ingest(world, archive + devices + header(b"pipe", kind=b"6") + END)
    entries = world.checked().entries
    row = entries[b"/f"].row
    assert (row["mode"], row["uid"], row["gid"]) == (0o104751, 100000, 7)
    assert (row["mtime"], row["mtimens"]) == (12, 500_000_000)
    assert row["xattr"] == b"\1\1\6\2user.a\0b"
    assert (entries[b"/null"].row["mode"], entries[b"/null"].row["size"]) == (
        0o20644,
        os.makedev(1, 3),
    )
    assert (entries[b"/disk"].row["mode"], entries[b"/disk"].row["size"]) == (
        0o60644,
        os.makedev(8, 300),
    )
    assert entries[b"/pipe"].kind == stat.S_IFIFO


def test_special_files_are_left_out_if_the_settings_say_so(world: StratumZero) -> None:
    world.configure(CVMFS_IGNORE_SPECIAL_FILES="true")
    result = ingest(world, header(b"pipe", kind=b"6") + member(b"f") + END)
    assert names(world) == {b"/f"}
    assert result.warnings == ("member pipe is a special file: left out",)


def test_attributes_that_have_no_room_are_warned_of(world: StratumZero) -> None:
    archive = extended([(b"SCHILY.xattr.user.big", b"x" * 256), (b"SCHILY.xattr.user.a", b"b")])
    result = ingest(world, archive + member(b"f") + END)
    assert "user.big' of 256 bytes left out" in result.warnings[0]
    assert world.checked().entries[b"/f"].row["xattr"] == b"\1\1\6\1user.ab"


# --- owners ---


def owners(world: StratumZero) -> dict[bytes, tuple[int, int]]:
    return {
        path: (entry.row["uid"], entry.row["gid"])
        for path, entry in world.checked().entries.items()
        if path not in (b"", b"/new_repository")
    }


def test_owners_may_be_given(world: StratumZero) -> None:
    archive = member(b"d/f", uid=b"0000005\0") + END
    ingest(world, archive, uid=7, gid=8)
    assert owners(world) == {b"/d": (7, 8), b"/d/f": (7, 8)}
    ingest(world, archive, to=b"/x", uid=9)
    assert owners(world)[b"/x/d/f"] == (9, 0)
    ingest(world, archive, to=b"/y")
    assert owners(world)[b"/y/d/f"] == (5, 0)


def test_owners_may_be_the_one_of_the_repository(world: StratumZero) -> None:
    world.configure(CVMFS_USER="daemon")
    ingest(world, member(b"f", uid=b"0000005\0") + END, keep_ownership=False)
    user = __import__("pwd").getpwnam("daemon")
    assert owners(world) == {b"/f": (user.pw_uid, user.pw_gid)}
    world.configure(CVMFS_USER="nobody-of-that-name")
    with pytest.raises(PublisherSettingsError, match="no user of this machine"):
        ingest(world, member(b"f") + END, keep_ownership=False)


# --- order ---


def test_later_members_replace_earlier_ones_of_any_kind(world: StratumZero) -> None:
    def kinds(place: bytes) -> dict[bytes, bytes]:
        return {
            b"file": member(place + b"x", b"file"),
            b"other": member(place + b"x", bytes(range(250)) * 20),
            b"symlink": header(place + b"x", kind=b"2", link=b"target"),
            b"fifo": header(place + b"x", kind=b"6"),
            b"directory": header(place + b"x/", kind=b"5") + member(place + b"x/below/f", b"y"),
            b"link": member(place + b"y", b"y")
            + header(place + b"x", kind=b"1", link=place + b"y"),
        }

    names = list(kinds(b""))
    archive = b"".join(kinds(b"alone/%s/" % second)[second] for second in names)
    for first, second in itertools.product(names, names):
        both = kinds(b"%s/%s/" % (first, second))
        archive += both[first] + both[second]
    ingest(world, archive + END)
    found = {path: value[4:] for path, value in tree(world).items()}
    for first, second in itertools.product(names, names):
        expected = below(found, b"/alone/" + second)
        after = below(found, b"/%s/%s" % (first, second))
        if first == b"link":
            after.pop(b"/y")
            expected.pop(b"/y", None)
        assert after == expected, (first, second)


def below(found: dict[bytes, tuple], directory: bytes) -> dict[bytes, tuple]:
    return {
        path[len(directory) :]: value
        for path, value in found.items()
        if path.startswith(directory + b"/")
    }


def test_parents_that_are_missing_are_made_and_replaced_by_the_real_ones(
    world: StratumZero,
) -> None:
    archive = (
        member(b"a/b/c")
        + header(b"a/b", kind=b"5", mode=b"0000700\0", mtime=b"00000000144\0")
        + END
    )
    ingest(world, archive, to=b"/t")
    rows = {path: entry.row for path, entry in world.checked().entries.items()}
    assert (rows[b"/t/a"]["mode"], rows[b"/t/a"]["mtime"]) == (0o40755, world.now)
    assert (rows[b"/t/a/b"]["mode"], rows[b"/t/a/b"]["mtime"]) == (0o40700, 100)


def test_the_place_itself_gets_the_metadata_of_the_archives_root(world: StratumZero) -> None:
    ingest(world, header(b"./", kind=b"5", mode=b"0000711\0") + member(b"./f") + END, to=b"/t")
    assert world.checked().entries[b"/t"].row["mode"] == 0o40711


def test_a_directory_that_is_replaced_takes_its_nested_catalogs_along(world: StratumZero) -> None:
    ingest(world, member(b"d/n/.cvmfscatalog") + member(b"d/n/f", b"x") + END)
    assert set(world.checked().catalogs) == {b"", b"/d/n"}
    ingest(world, member(b"d", b"now a file") + END)
    assert set(world.checked().catalogs) == {b""}
    assert names(world) == {b"/d"}


def test_many_files_under_way_while_their_directory_goes(world: StratumZero) -> None:
    files = b"".join(member(b"d/%d" % n, b"%d" % n) for n in range(300))
    ingest(world, files + member(b"d", b"file") + END)
    assert names(world) == {b"/d"}
    again = header(b"d", kind=b"2", link=b"x") + header(b"d", kind=b"5") + files
    ingest(world, header(b"d", kind=b"5") + files + again + END)
    assert len(names(world)) == 301


def test_a_thousand_files_of_one_name(world: StratumZero) -> None:
    ingest(world, b"".join(member(b"f", b"%d" % n) for n in range(1000)) + END)
    assert tree(world)[b"/f"][4] == b"999"


def test_directories_forgotten_and_found_again(
    world: StratumZero, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tar_tree, "_MAX_KNOWN_DIRECTORIES", 3)
    monkeypatch.setattr(tar_tree, "_ROWS_AT_ONCE", 5)
    ingest(world, b"".join(member(b"%d/%d/%d" % (n % 7, n % 3, n), b"x") for n in range(100)) + END)
    assert len([v for v in tree(world).values() if v[4] == b"x"]) == 100


# --- hard links ---


def test_links_in_one_directory_are_a_group_and_others_copies(world: StratumZero) -> None:
    def link(name: bytes, target: bytes) -> bytes:
        return header(name, kind=b"1", link=target)

    archive = (
        member(b"d/a", b"content") + link(b"d/b", b"d/a") + link(b"./d/c", b"./d/b")
        + link(b"e/a", b"d/a") + link(b"e/b", b"d/c") + link(b"f/a", b"/d/a") + END
    )  # fmt: skip
    ingest(world, archive, to=b"/t")
    found = tree(world, b"/t")
    assert {p: v[6] for p, v in found.items() if v[4] == b"content"} == {
        b"/d/a": {b"a", b"b", b"c"}, b"/d/b": {b"a", b"b", b"c"}, b"/d/c": {b"a", b"b", b"c"},
        b"/e/a": {b"a", b"b"}, b"/e/b": {b"a", b"b"}, b"/f/a": {b"a"},
    }  # fmt: skip
    ingest(world, header(b"d/x", kind=b"1", link=b"d/a") + END, to=b"/t")
    assert tree(world, b"/t")[b"/d/b"][6] == {b"a", b"b", b"c", b"x"}


def test_a_link_keeps_its_content_when_the_other_name_is_written_again(world: StratumZero) -> None:
    archive = member(b"a", b"1") + header(b"b", kind=b"1", link=b"a") + member(b"a", b"2") + END
    ingest(world, archive)
    assert {p: (v[4], v[6]) for p, v in tree(world).items() if p in (b"/a", b"/b")} == {
        b"/a": (b"2", {b"a"}), b"/b": (b"1", {b"b"}),
    }  # fmt: skip


def test_links_to_symlinks_and_chunked_files(world: StratumZero) -> None:
    data = os.urandom(9000)
    archive = (
        member(b"big", data) + header(b"big2", kind=b"1", link=b"big")
        + header(b"s", kind=b"2", link=b"big") + header(b"s2", kind=b"1", link=b"s") + END
    )  # fmt: skip
    ingest(world, archive)
    checker = world.checked()
    assert checker.read(b"/big2") == data
    assert checker.entries[b"/s2"].row["symlink"] == b"big"


@pytest.mark.parametrize("target", [b"missing", b"later", b"d", b"../x"])
def test_links_to_what_is_no_file_are_refused(world: StratumZero, target: bytes) -> None:
    archive = (
        header(b"d", kind=b"5") + header(b"link", kind=b"1", link=target)
        + header(b"again", kind=b"1", link=b"d") + END
    )  # fmt: skip
    with pytest.raises(MemberRefused, match="link"):
        ingest(world, archive)
    assert names(world) == set()


def test_links_between_directories_may_be_forbidden(world: StratumZero) -> None:
    world.configure(CVMFS_IGNORE_XDIR_HARDLINKS="false")
    ingest(world, member(b"a", b"x") + header(b"b", kind=b"1", link=b"a") + END)
    with pytest.raises(MemberRefused, match="in another directory"):
        ingest(world, member(b"a", b"y") + header(b"d/b", kind=b"1", link=b"a") + END)


def test_many_links_are_written_in_portions(
    world: StratumZero, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tar_tree, "_MAX_WAITING_LINKS", 10)
    links = b"".join(header(b"l%d" % n, kind=b"1", link=b"a") for n in range(95))
    ingest(world, member(b"a", b"x") + links + END)
    assert len(tree(world)[b"/l94"][6]) == 96


# --- nested catalogs ---


@pytest.mark.parametrize("order", [0, 1, 2])
def test_markers_make_catalogs_in_any_order(world: StratumZero, order: int) -> None:
    members = [member(b"n/.cvmfscatalog"), member(b"n/d/f", b"x"), member(b"n/g", b"y")]
    members = members[order:] + members[:order]
    ingest(world, b"".join(members) + member(b"other") + END, to=b"/t")
    catalogs = world.checked().catalogs
    assert {m: len(c.rows) for m, c in catalogs.items()}.keys() == {b"", b"/t/n"}
    assert len(catalogs[b"/t/n"].rows) == 5


def test_a_marker_may_be_a_hard_link(world: StratumZero) -> None:
    archive = member(b"a/.cvmfscatalog") + header(
        b"b/.cvmfscatalog", kind=b"1", link=b"a/.cvmfscatalog"
    )
    ingest(world, archive + member(b"b/f") + END)
    assert set(world.checked().catalogs) == {b"", b"/a", b"/b"}


def test_the_place_may_become_a_catalog(world: StratumZero) -> None:
    ingest(world, member(b"f") + END, to=b"/t", nest_target=True)
    assert set(world.checked().catalogs) == {b"", b"/t"}
    assert names(world) == {b"/t", b"/t/f", b"/t/.cvmfscatalog"}
    ingest(world, member(b"g") + END, to=b"/t", nest_target=True)
    with pytest.raises(PathRefused, match="root"):
        ingest(world, member(b"f") + END, nest_target=True)


def test_the_dirtab_of_the_repository_is_heeded(world: StratumZero) -> None:
    ingest(world, member(b".cvmfsdirtab", b"/t/*\n! */no\n") + END)
    ingest(world, member(b"a/b/f") + member(b"no/f") + header(b"c", kind=b"5") + END, to=b"/t")
    assert set(world.checked().catalogs) == {b"", b"/t/a", b"/t/c"}
    assert b"/t/a/.cvmfscatalog" in names(world)


@pytest.mark.parametrize("is_first", [True, False])
def test_a_dirtab_in_the_archive_is_for_everything(world: StratumZero, is_first: bool) -> None:
    ingest(world, member(b"old/f") + END)
    members = [member(b".cvmfsdirtab", b"/*\n"), member(b"new/deep/f")]
    ingest(world, b"".join(members if is_first else reversed(members)) + END)
    assert set(world.checked().catalogs) == {b"", b"/old", b"/new"}


# --- deletions ---


def test_paths_are_deleted_first(world: StratumZero) -> None:
    ingest(world, member(b"d/a", b"old") + member(b"d/b", b"old") + member(b"e") + END)
    result = ingest(world, member(b"d/a", b"new") + END, delete=[b"/d", b"/e", b"/not/there"])
    assert names(world) == {b"/d", b"/d/a"}
    assert (result.added["files"], result.removed["files"]) == (1, 3)
    assert result.warnings == ("/not/there is not there to be deleted",)


def test_nothing_but_deletions(world: StratumZero) -> None:
    ingest(world, member(b"n/.cvmfscatalog") + member(b"n/f") + member(b"m/f") + END)
    ingest(world, None, delete=[b"/m/f", b"/n/.cvmfscatalog"])
    assert names(world) == {b"/m", b"/n", b"/n/f"}
    assert set(world.checked().catalogs) == {b""}
    ingest(world, None, delete=[b"/n", b"/m"])
    assert names(world) == set()


@pytest.mark.parametrize("path", [b"", b"/", b"/.cvmfs/snapshots", b"/a/../b", b"relative"])
def test_what_cannot_be_deleted(world: StratumZero, path: bytes) -> None:
    with pytest.raises(PathRefused):
        ingest(world, None, delete=[path])


# --- hostile archives: each its own error, nothing published ---


@pytest.mark.parametrize(
    ("archive", "error", "message"),
    [
        (member(b"../up"), MemberRefused, "member ../up: a path with .. leads out"),
        (member(b"a/../../up"), MemberRefused, "leads out"),
        (member(b".cvmfs/x"), MemberRefused, "member .cvmfs/x: /.cvmfs in a repo"),
        (header(b"/.cvmfs/", kind=b"5"), MemberRefused, "reserved"),
        (member(b".cvmfscatalog"), MemberRefused, "is not for the root"),
        (header(b"d/.cvmfscatalog", kind=b"5"), MemberRefused, "must be a regular file"),
        (header(b"d/.cvmfscatalog", kind=b"2", link=b"x"), MemberRefused, "must be a regular file"),
        (header(b"s", kind=b"2", link=b"x")
         + header(b"d/.cvmfscatalog", kind=b"1", link=b"s"), MemberRefused, "must be a regular"),
        (header(b".cvmfsdirtab", kind=b"2", link=b"x"), MemberRefused, "must be a regular file"),
        (member(b".cvmfsgraft-x", b"size=1"), FormatError, "member .cvmfsgraft-x: graft"),
        (header(b".cvmfsgraft-x", kind=b"2", link=b"x"), MemberRefused, "must be a regular file"),
        (member(b"."), MemberRefused, "member .: the place of all members must be a directory"),
        (extended([(b"path", b"n" * 256)]) + member(b"x"), MemberRefused, "longer than 255"),
        (header(b"l", kind=b"2", link=b"/etc") + member(b"l/passwd"), MemberRefused,
         "/t/l/passwd cannot be put below /t/l, which is no directory"),
        (member(b"l", b"x") + member(b"l/f"), MemberRefused, "which is no directory"),
        (header(b"l", kind=b"2", link=b".") + header(b"l/x/", kind=b"5"), MemberRefused, "below"),
        (header(b"link/f", kind=b"2", link=b"x"), MemberRefused, "below /t/link, which is no"),
        (header(b"big", size=5000) + b"short", ArchiveInvalid, "cut short"),
        (header(b"weird", kind=b"Q"), MemberRefused, "member weird is of the unknown type b'Q'"),
        (b"x" * 512, ArchiveInvalid, "should be a header"),
        (header(b"d", kind=b"4", device=(0o7777777, 1)), MemberRefused, "no number of a device"),
    ],
)  # fmt: skip
def test_hostile_archives(
    world: StratumZero, archive: bytes, error: type[OutcropError], message: str
) -> None:
    ingest(world, header(b"link", kind=b"2", link=b"/") + member(b"f") + END, to=b"/t")
    before = tree(world)
    to = b"" if b".cvmfs" in archive and b"d/.cvmfs" not in archive[:2000] else b"/t"
    with pytest.raises(error) as caught:
        ingest(world, member(b"innocent", b"x") + archive + END, to=to)
    assert message in str(caught.value)
    assert tree(world) == before


def test_absolute_names_are_below_the_place(world: StratumZero) -> None:
    ingest(world, member(b"/etc/passwd") + member(b"//./x//y") + END, to=b"/t")
    assert names(world) == {b"/t", b"/t/etc", b"/t/etc/passwd", b"/t/x", b"/t/x/y"}


def test_files_beyond_the_limit(world: StratumZero) -> None:
    world.configure(CVMFS_FILE_MBYTE_LIMIT=1)
    archive = member(b"big", bytes(1_100_000)) + END
    assert "/big has 1100000 bytes" in ingest(world, archive).warnings[0]
    world.configure(CVMFS_ENFORCE_LIMITS="true")
    with pytest.raises(LimitExceeded, match="/big has 1100000 bytes"):
        ingest(world, archive)


def test_a_place_below_a_file(world: StratumZero) -> None:
    ingest(world, member(b"f") + END)
    with pytest.raises(MemberRefused, match="/f/d cannot be put below /f"):
        ingest(world, member(b"x") + END, to=b"/f/d")


# --- rules of the repository ---


def test_external_data_is_hashed_and_not_stored(tmp_path: Path, world: StratumZero) -> None:
    data = os.urandom(9000)
    before = set(world.store.iter_names("data/"))
    with pytest.raises(PathRefused, match="member f: external data in chunks"):
        ingest(world, member(b"f", data) + END, external=True)
    result = ingest(world, member(b"f", data) + END, external=True, compression_choice="none")
    assert result.bytes_stored < 5000
    new = set(world.store.iter_names("data/")) - before
    assert all(name[-1] in "CHXM" for name in new)
    root = ObjectRef(result.root_hash, Suffix.CATALOG)
    with CatalogEditor.open(world.store, tmp_path, root) as editor:
        entry = editor.get(b"/f")
        assert entry.is_external
        assert sum(chunk.size for chunk in editor.chunks(b"/f", entry)) == 9000


@pytest.mark.parametrize("is_first", [True, False])
def test_graft_files_say_what_the_file_beside_them_holds(
    world: StratumZero, is_first: bool
) -> None:
    ingest(world, member(b"real", b"content") + END)
    digest = world.checked().entries[b"/real"].row["hash"].hex().encode()
    text = b"size=7\ncompression=zlib\nchecksum=" + digest
    members = [member(b"d/.cvmfsgraft-f", text), member(b"d/f", mode=b"0000755\0")]
    archive = b"".join(members if is_first else reversed(members))
    result = ingest(world, archive + member(b".cvmfsgraft-none", text) + END)
    checker = world.checked()
    assert checker.read(b"/d/f") == b"content"
    assert checker.entries[b"/d/f"].row["mode"] == 0o100755
    assert names(world) == {b"/real", b"/d", b"/d/f"}
    assert result.warnings == ("/none has a graft file, but is no file",)


def test_a_dry_run_tells_and_leaves_all_as_it_was(world: StratumZero) -> None:
    before = set(world.store.iter_names())
    changes = []
    result = ingest(
        world, member(b"d/f", b"x") + END, dry_run=True,
        on_change=lambda kind, path: changes.append((kind, path)),
    )  # fmt: skip
    assert result.added == {"directories": 1, "files": 1}
    assert sorted(changes) == [("add", b"/d"), ("add", b"/d/f")]
    assert set(world.store.iter_names()) == before


# --- faults ---


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return (
        member(b"n/.cvmfscatalog") + member(b"n/large", os.urandom(9000)) + member(b"a", b"1")
        + header(b"n/link", kind=b"1", link=b"n/large") + member(b"m/.cvmfscatalog") + END
    )  # fmt: skip


def worlds(root: Path) -> Iterator[StratumZero]:
    template = StratumZero(root / "template")
    template.create()
    template.configure(**SMALL_CHUNKS)
    ingest(template, member(b"n/old", b"old") + member(b"a", b"old") + END)
    number = 0
    while True:
        number += 1
        place = root / f"world-{number}"
        shutil.copytree(root / "template", place, symlinks=True)
        copy = StratumZero(place)
        copy.now = template.now
        conf = copy.locations.server_config(copy.fqrn) / "server.conf"
        conf.write_text(conf.read_text().replace(str(root / "template"), str(place)))
        yield copy
        shutil.rmtree(place)


def assert_old_is_served(world: StratumZero) -> None:
    checker = world.checker()
    problems = [p for p in checker.check() if "left over" not in p and "reflog: hash" not in p]
    assert problems == []
    assert checker.read(b"/a") == b"old"
    assert b"/m" not in checker.entries


@pytest.mark.parametrize(
    ("kind", "step"),
    [(Kind.ERROR, 11), (Kind.FULL, 13), pytest.param(Kind.ERROR, 1, marks=pytest.mark.system)],
)
def test_a_store_that_fails_leaves_the_old_revision(
    tmp_path: Path, archive: bytes, kind: Kind, step: int
) -> None:
    for fail_at, world in zip(range(1, 1000, step), worlds(tmp_path), strict=False):
        store = FaultyStore(LocalStore(world.directory), fail_at=fail_at, kind=kind)
        try:
            ingest(world, archive, store=store)
        except (StorageError, ScratchFull):
            if world.checker().load().keys() >= {b"/m"}:
                continue  # the manifest was out already
            assert_old_is_served(world)
            ingest(world, archive)
            assert tree(world)[b"/a"][4] == b"1"
        else:
            assert store.operations < fail_at
            break
    assert fail_at > 12


@pytest.mark.parametrize("compression", ["plain", "zstd"])
def test_an_archive_cut_anywhere_leaves_the_old_revision(
    tmp_path: Path, archive: bytes, compression: str
) -> None:
    data = COMPRESSORS[compression](archive)
    step = 1 + len(data) // 6
    for size, world in zip(range(0, len(data) - 1024, step), worlds(tmp_path), strict=False):
        with pytest.raises(ArchiveInvalid):
            ingest(world, data[:size])
        assert_old_is_served(world)


@pytest.mark.parametrize("step", [67, pytest.param(3, marks=pytest.mark.system)])
def test_an_ingest_killed_anywhere_can_be_repeated(
    tmp_path: Path, archive: bytes, step: int
) -> None:
    for number, world in zip(range(1, 10_000, step), worlds(tmp_path), strict=False):
        is_through = run_until(number, lambda world=world: ingest(world, archive))
        world.now += 100
        if is_through:
            break
        ingest(world, archive)
        assert tree(world)[b"/a"][4] == b"1"
    assert number > 80


@settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    st.lists(
        st.tuples(
            st.sampled_from([b"0", b"1", b"2", b"5", b"6", b"Z", b"S", b"x", b"g"]),
            st.sampled_from([b"a", b"a/b", b"b", b"./", b"../x", b"a/.cvmfscatalog", b".cvmfs/x"]),
            st.sampled_from([b"a", b"b", b"a/b", b""]),
            st.binary(max_size=30),
        ),
        max_size=12,
    )
)
def test_any_members_are_published_whole_or_not_at_all(members: list[tuple]) -> None:
    data = b"".join(
        header(name, kind=kind, link=link, size=len(text)) + (text + bytes(-len(text) % 512))
        if kind in b"0Sxg"
        else header(name, kind=kind, link=link)
        for kind, name, link, text in members
    )
    with tempfile.TemporaryDirectory(prefix="outcrop-test-") as place:
        world = StratumZero(Path(place))
        world.create()
        try:
            ingest(world, data + END)
        except OutcropError:
            assert world.checked().manifest["S"] == "1"
        else:
            assert world.checked().manifest["S"] == "2"
