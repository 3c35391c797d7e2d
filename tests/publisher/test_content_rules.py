"""What a repository's settings make of content: grafts, external data, links, specials, owners."""

import os
import struct
from pathlib import Path

import pytest
from tests.support import golden
from tests.support.checker import Checker
from tests.support.materialized import parse_xattrs
from tests.support.stratum_zero import StratumZero

from outcrop.errors import FormatError
from outcrop.formats.catalog import Chunk
from outcrop.formats.graft import Graft
from outcrop.formats.hashes import Compression, ContentHash, HashAlgorithm
from outcrop.formats.id_map import IdMap
from outcrop.publisher.errors import LimitExceeded, PathRefused
from outcrop.publisher.scan import Owners

SMALL_CHUNKS = {
    "CVMFS_MIN_CHUNK_SIZE": 16384,
    "CVMFS_AVG_CHUNK_SIZE": 32768,
    "CVMFS_MAX_CHUNK_SIZE": 65536,
}
EXTERNAL, CHUNKED = 128, 64


@pytest.fixture
def stratum_zero(tmp_path: Path) -> StratumZero:
    world = StratumZero(tmp_path / "world")
    world.create()
    return world


@pytest.fixture
def source(tmp_path: Path) -> Path:
    root = tmp_path / "source"
    (root / "d").mkdir(parents=True)
    (root / "d/file").write_bytes(b"content")
    return root


def graft_of(data: bytes, chunk_bytes: int = 0, compression: str = "none") -> Graft:
    """A graft of uncompressed data, in chunks if there is a size of those."""
    whole = ContentHash.of(data, HashAlgorithm.SHA1)
    pieces = range(0, len(data), chunk_bytes) if chunk_bytes else ()
    return Graft(
        size=len(data),
        checksum=whole,
        compression=Compression.NONE if compression == "none" else Compression.ZLIB,
        algorithm=HashAlgorithm.SHA1,
        chunks=tuple(
            Chunk(at, len(piece), ContentHash.of(piece, HashAlgorithm.SHA1))
            for at in pieces
            for piece in (data[at : at + chunk_bytes],)
        ),
    )


def external_checker(stratum_zero: StratumZero, served: Path) -> Checker:
    """The repository, found right, its external data being below a directory."""
    checker = stratum_zero.checker()
    checker.external = served
    assert checker.check() == []
    return checker


def data_objects(stratum_zero: StratumZero) -> set[str]:
    """The objects of files, without the empty one."""
    names = set(stratum_zero.store.iter_names("data/"))
    return {name for name in names if not name.endswith(("C", "H", "X", "M"))}


# --- grafts ---


def test_external_grafts_are_what_upstream_makes_of_them(
    stratum_zero: StratumZero, tmp_path: Path
) -> None:
    """The golden repository's revisions x3 and x4: hand-written grafts, and its tool's."""
    served = golden.directory("external") / "external"
    source = tmp_path / "tree"
    (source / "graft").mkdir(parents=True)
    for name, chunk_bytes in (("plain", 0), ("chunked", 65536), ("empty", 0), ("sk", 0)):
        (source / "graft" / name).touch()
        graft = graft_of((served / "graft" / name).read_bytes(), chunk_bytes)
        (source / f"graft/.cvmfsgraft-{name}").write_bytes(graft.serialize())
    before = data_objects(stratum_zero)
    stratum_zero.publish(source, external=True)
    found = external_checker(stratum_zero, served)
    upstream = Checker(
        golden.directory("external") / "repo", "external.golden.test", golden.public_key("external")
    )
    published = (golden.directory("external") / "published.txt").read_text().splitlines()
    upstream.manifest = {line[0]: line[1:] for line in published if line != "--"}
    upstream.external = served
    upstream.load()
    for name in (b"plain", b"chunked", b"empty", b"sk"):
        ours, theirs = found.entries[b"/graft/" + name], upstream.entries[b"/graft/" + name]
        assert (ours.flags, ours.chunks) == (theirs.flags, theirs.chunks)
        for column in ("hash", "size", "hardlinks"):
            assert ours.row[column] == theirs.row[column], (name, column)
    assert not any(b".cvmfsgraft" in path for path in found.entries)
    assert data_objects(stratum_zero) == before


def test_a_graft_of_a_stored_object_is_a_file_like_any_other(
    stratum_zero: StratumZero, source: Path
) -> None:
    data = os.urandom(5000)
    (source / "d/original").write_bytes(data)
    stratum_zero.publish(source, compression_choice="none")
    (source / "d/copy").touch(mode=0o755)
    (source / "d/.cvmfsgraft-copy").write_bytes(graft_of(data).serialize())
    result = stratum_zero.publish(source)
    assert result.warnings == ()
    checker = stratum_zero.checked()
    assert checker.read(b"/d/copy") == data
    assert checker.entries[b"/d/copy"].row["mode"] == 0o100755


def test_a_graft_that_went_leaves_the_file_itself(
    stratum_zero: StratumZero, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("outcrop.publisher.previous_state._RACY_NS", -(1 << 60))
    (source / "d/stored").write_bytes(b"elsewhere")
    stratum_zero.publish(source, compression_choice="none")
    (source / "d/.cvmfsgraft-file").write_bytes(graft_of(b"elsewhere").serialize())
    (warning,) = stratum_zero.publish(source).warnings
    assert "what it holds here is not published" in warning
    assert stratum_zero.checked().read(b"/d/file") == b"elsewhere"
    (source / "d/.cvmfsgraft-file").unlink()
    stratum_zero.publish(source)
    assert stratum_zero.checked().read(b"/d/file") == b"content"


def test_a_graft_that_is_wrong_is_named_and_nothing_published(
    stratum_zero: StratumZero, source: Path
) -> None:
    (source / "d/.cvmfsgraft-file").write_bytes(b"size=1\n")
    with pytest.raises(FormatError, match=r"d/\.cvmfsgraft-file: graft: there is no checksum"):
        stratum_zero.publish(source)
    (source / "d/.cvmfsgraft-file").unlink()
    (source / "d/.cvmfsgraft-file").mkdir()
    with pytest.raises(PathRefused, match="regular file"):
        stratum_zero.publish(source)


def test_a_graft_of_an_object_nobody_has_is_told(stratum_zero: StratumZero, source: Path) -> None:
    (source / "d/new").touch()
    (source / "d/.cvmfsgraft-new").write_bytes(graft_of(b"absent").serialize())
    (warning,) = stratum_zero.publish(source, dry_run=True).warnings
    assert "the store has no object" in warning


def test_a_graft_without_its_file_is_told(stratum_zero: StratumZero, source: Path) -> None:
    (source / "d/.cvmfsgraft-other").write_bytes(graft_of(b"x").serialize())
    (warning,) = stratum_zero.publish(source).warnings
    assert "no file beside it" in warning
    assert set(stratum_zero.checked().entries) == {b"", b"/d", b"/d/file"}


# --- external data ---


def test_external_data_is_hashed_and_cut_but_not_stored(
    stratum_zero: StratumZero, source: Path
) -> None:
    stratum_zero.configure(CVMFS_EXTERNAL_DATA="true", **SMALL_CHUNKS)
    (source / "large").write_bytes(os.urandom(200_000))
    (source / "d/.cvmfscatalog").touch()
    before = data_objects(stratum_zero)
    stratum_zero.publish(source, compression_choice="none")
    checker = external_checker(stratum_zero, source)
    assert data_objects(stratum_zero) == before
    assert checker.entries[b"/large"].flags & (EXTERNAL | CHUNKED) == EXTERNAL | CHUNKED
    assert checker.entries[b"/d/file"].flags & (EXTERNAL | CHUNKED) == EXTERNAL
    assert checker.read(b"/large") == (source / "large").read_bytes()


def test_external_or_not_is_what_the_command_says(stratum_zero: StratumZero, source: Path) -> None:
    stratum_zero.configure(CVMFS_EXTERNAL_DATA="true")
    stratum_zero.publish(source, external=False)
    assert stratum_zero.checked().read(b"/d/file") == b"content"
    result = stratum_zero.publish(source, external=True, compression_choice="none")
    assert result.changed["files"] == 1
    assert external_checker(stratum_zero, source).entries[b"/d/file"].flags & EXTERNAL


def test_external_data_in_chunks_must_not_be_compressed(
    stratum_zero: StratumZero, source: Path
) -> None:
    stratum_zero.configure(**SMALL_CHUNKS)
    (source / "large").write_bytes(os.urandom(200_000))
    with pytest.raises(PathRefused, match="large"):
        stratum_zero.publish(source, external=True)


# --- kinds, links, flags ---


def test_special_files_are_left_out_where_the_settings_say_so(
    stratum_zero: StratumZero, source: Path
) -> None:
    os.mkfifo(source / "d/fifo")
    stratum_zero.publish(source)
    assert b"/d/fifo" in stratum_zero.checked().entries
    stratum_zero.configure(CVMFS_IGNORE_SPECIAL_FILES="true")
    result = stratum_zero.publish(source)
    assert result.removed == {"specials": 1}
    assert "d/fifo" in result.warnings[0]
    assert b"/d/fifo" not in stratum_zero.checked().entries


def test_links_between_directories_are_refused_where_the_settings_say_so(
    stratum_zero: StratumZero, source: Path
) -> None:
    (source / "e").mkdir()
    (source / "e/link").hardlink_to(source / "d/file")
    stratum_zero.publish(source)
    stratum_zero.configure(CVMFS_IGNORE_XDIR_HARDLINKS="false")
    with pytest.raises(PathRefused, match=r"e/link is a hard link to .*d/file"):
        stratum_zero.publish(source, to=b"/sub")


def test_large_files_are_stored_in_one_piece_too_where_the_settings_say_so(
    stratum_zero: StratumZero, source: Path
) -> None:
    stratum_zero.configure(CVMFS_GENERATE_LEGACY_BULK_CHUNKS="true", **SMALL_CHUNKS)
    (source / "large").write_bytes(os.urandom(200_000))
    stratum_zero.publish(source)
    entry = stratum_zero.checked().entries[b"/large"]
    assert entry.row["hash"]
    assert len(entry.chunks) > 2
    assert stratum_zero.publish(source).is_unchanged


def test_nanoseconds_are_kept_where_the_settings_say_so(
    stratum_zero: StratumZero, source: Path
) -> None:
    os.utime(source / "d/file", ns=(0, 1_500_000_000_123_456_789))
    stratum_zero.publish(source)
    assert stratum_zero.checked().entries[b"/d/file"].row["mtimens"] is None
    stratum_zero.configure(CVMFS_ENABLE_MTIME_NS="true")
    stratum_zero.publish(source)
    assert stratum_zero.checked().entries[b"/d/file"].row["mtimens"] == 123_456_789


def test_access_lists_are_extended_attributes(stratum_zero: StratumZero, source: Path) -> None:
    # version 2; owner rw-, user 1234 r--, group r--, mask r--, others ---
    entries = ((1, 6, 0xFFFFFFFF), (2, 4, 1234), (4, 4, 0xFFFFFFFF), (16, 4, 0xFFFFFFFF),
               (32, 0, 0xFFFFFFFF))  # fmt: skip
    blob = struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *entry) for entry in entries)
    try:
        os.setxattr(source / "d/file", "system.posix_acl_access", blob)
    except OSError:
        pytest.skip("no access lists on this file system")
    stratum_zero.configure(CVMFS_INCLUDE_XATTRS="true")
    stratum_zero.publish(source)
    row = stratum_zero.checked().entries[b"/d/file"].row
    assert parse_xattrs(row["xattr"])[b"system.posix_acl_access"] == blob


@pytest.mark.parametrize("is_strict", [True, False])
def test_large_files_are_warned_of_or_refused(
    stratum_zero: StratumZero, source: Path, is_strict: bool
) -> None:
    stratum_zero.configure(CVMFS_FILE_MBYTE_LIMIT=1, CVMFS_ENFORCE_LIMITS=str(is_strict).lower())
    (source / "large").write_bytes(bytes((1 << 20) + 1))
    if is_strict:
        with pytest.raises(LimitExceeded, match="large"):
            stratum_zero.publish(source)
    else:
        assert "large" in stratum_zero.publish(source).warnings[0]


# --- owners ---


def test_owners_are_mapped_as_they_are_read(stratum_zero: StratumZero, source: Path) -> None:
    own = (source / "d/file").stat()
    owners = Owners(IdMap({own.st_uid: 501}), IdMap({}, default=7))
    stratum_zero.publish(source, owners=owners)
    checker = stratum_zero.checked()
    for path in (b"", b"/d", b"/d/file"):
        row = checker.entries[path].row
        assert (row["uid"], row["gid"]) == (501, 7), path
    assert stratum_zero.publish(source, owners=owners).is_unchanged
    assert stratum_zero.publish(source).changed == {"files": 1, "directories": 2}
