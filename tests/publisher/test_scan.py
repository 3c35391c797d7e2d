"""What a source directory is taken for."""

import os
import stat
from pathlib import Path

import pytest

from outcrop.formats.hashes import Compression, ContentHash, HashAlgorithm
from outcrop.formats.xattrs import parse_xattrs
from outcrop.publisher.errors import SourceChanged
from outcrop.publisher.pipeline import FileContent
from outcrop.publisher.scan import SourceReader, hardlink_groups, scan_directory

READER = {"with_xattrs": True, "with_nanoseconds": True}


def test_entries_are_listed_by_name_and_not_followed(tmp_path: Path) -> None:
    (tmp_path / "b").write_bytes(b"")
    (tmp_path / "a").symlink_to("b")
    os.mkdir(os.fsencode(tmp_path) + b"/\xff")
    own, entries = scan_directory(os.fsencode(tmp_path))
    assert stat.S_ISDIR(own.st_mode)
    assert [entry.name for entry in entries] == [b"a", b"b", b"\xff"]
    assert stat.S_ISLNK(entries[0].stat.st_mode)


def test_a_symlink_is_no_directory_to_scan(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path)
    with pytest.raises(SourceChanged, match="link"):
        scan_directory(os.fsencode(tmp_path / "link"))


def test_names_of_one_file_are_grouped(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"")
    (tmp_path / "c").hardlink_to(tmp_path / "a")
    (tmp_path / "b").write_bytes(b"")
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub/elsewhere").hardlink_to(tmp_path / "b")
    _, entries = scan_directory(os.fsencode(tmp_path))
    files = [entry for entry in entries if entry.name != b"sub"]
    assert [[e.name for e in group] for group in hardlink_groups(files)] == [[b"a", b"c"], [b"b"]]


def read(path: Path, **options: bool) -> tuple:
    reader = SourceReader(**(READER | options))
    name = os.fsencode(path)
    entry = reader.read_entry(name, b"n", path.lstat())
    return entry, reader.warnings


def test_a_directory_has_a_size_that_means_nothing(tmp_path: Path) -> None:
    os.utime(tmp_path, ns=(0, -1))
    entry, _ = read(tmp_path)
    assert (entry.is_directory, entry.size, entry.nlink) == (True, 4096, 1)
    assert (entry.mtime, entry.mtime_ns) == (-1, 999_999_999)


def test_a_symlink_has_its_target_and_its_length(tmp_path: Path) -> None:
    os.symlink(b"t\xffrget", tmp_path / "link")
    entry, _ = read(tmp_path / "link")
    assert (entry.symlink, entry.size) == (b"t\xffrget", 6)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make devices")
def test_a_device_has_its_number(tmp_path: Path) -> None:
    os.mknod(tmp_path / "device", stat.S_IFCHR | 0o600, os.makedev(300, 70_000))
    entry, _ = read(tmp_path / "device")
    assert (entry.rdev, entry.size) == (os.makedev(300, 70_000), 0)


def test_a_file_has_what_was_read_of_it(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"content")
    content = FileContent(
        path.lstat(), Compression.NONE, ContentHash.of(b"content", HashAlgorithm.RMD160)
    )
    reader = SourceReader(with_xattrs=False, with_nanoseconds=False)
    entry = reader.read_file_entry(os.fsencode(path), b"f", content, nlink=2, group=-1)
    assert (entry.name, entry.size, entry.nlink, entry.hardlink_group) == (b"f", 7, 2, -1)
    assert (entry.algorithm, entry.compression) == (HashAlgorithm.RMD160, Compression.NONE)
    assert entry.mtime_ns is None
    assert not entry.is_chunked


def test_attributes_are_read_or_not_as_asked(tmp_path: Path) -> None:
    os.setxattr(tmp_path, b"user.a", b"1")
    os.setxattr(tmp_path, b"user.\xff", b"")
    entry, _ = read(tmp_path)
    assert parse_xattrs(entry.xattrs) == {b"user.a": b"1", b"user.\xff": b""}
    entry, _ = read(tmp_path, with_xattrs=False)
    assert entry.xattrs is None


def test_attributes_that_do_not_fit_are_left_out_and_named(tmp_path: Path) -> None:
    os.setxattr(tmp_path, b"user.fits", b"x" * 255)
    os.setxattr(tmp_path, b"user.large", b"x" * 256)
    entry, warnings = read(tmp_path)
    assert set(parse_xattrs(entry.xattrs)) == {b"user.fits"}
    assert len(warnings) == 1
    assert "user.large" in warnings[0]


def test_only_attributes_that_do_not_fit_make_none(tmp_path: Path) -> None:
    os.setxattr(tmp_path, b"user.large", b"x" * 256)
    assert read(tmp_path)[0].xattrs is None


def test_what_went_away_is_named(tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to("target")
    seen = link.lstat()
    link.unlink()
    with pytest.raises(SourceChanged, match="link"):
        SourceReader(**READER).read_entry(os.fsencode(link), b"link", seen)
