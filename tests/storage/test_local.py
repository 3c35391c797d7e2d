"""What a directory store does on disk, beyond the contract of all stores."""

import errno
import os
import stat
from pathlib import Path

import pytest

from outcrop.storage.errors import (
    ObjectNotFound,
    StorageFull,
    StorageReadOnly,
    StorageUnavailable,
)
from outcrop.storage.local import LocalStore
from outcrop.storage.store import MemorySink, read_file


def test_files_are_where_the_web_server_looks(tmp_path: Path) -> None:
    store = LocalStore(tmp_path / "not" / "yet")
    store.write("data/aa/bbC", b"catalog")
    store.write(".cvmfspublished", b"manifest")
    assert (tmp_path / "not/yet/data/aa/bbC").read_bytes() == b"catalog"
    assert (tmp_path / "not/yet/.cvmfspublished").read_bytes() == b"manifest"


def test_modes_are_upstreams_less_the_umask(tmp_path: Path) -> None:
    old = os.umask(0o027)
    try:
        LocalStore(tmp_path).write("data/aa/bb", b"x")
    finally:
        os.umask(old)
    assert stat.S_IMODE((tmp_path / "data/aa/bb").stat().st_mode) == 0o640
    assert stat.S_IMODE((tmp_path / "data/aa").stat().st_mode) == 0o750


def test_unfinished_writes_are_not_listed_and_can_be_cleared_away(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    store.write("data/aa/bb", b"x")
    (tmp_path / "data/txn/left-by-a-dead-writer").write_bytes(b"half")
    assert list(store.iter_names()) == ["data/aa/bb"]
    assert list(store.iter_names("data/txn/")) == []
    assert store.remove_leftovers() == 1
    assert os.listdir(tmp_path / "data/txn") == []
    assert store.remove_leftovers() == 0
    assert LocalStore(tmp_path / "nowhere").remove_leftovers() == 0


@pytest.mark.parametrize(
    ("number", "expected"),
    [
        (errno.ENOSPC, StorageFull),
        (errno.EDQUOT, StorageFull),
        (errno.EROFS, StorageReadOnly),
        (errno.EACCES, StorageReadOnly),
        (errno.EIO, StorageUnavailable),
    ],
)
@pytest.mark.parametrize("call", ["write", "rename"])
def test_a_write_that_fails_leaves_the_old_and_no_rest(
    call: str,
    number: int,
    expected: type[Exception],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    store = LocalStore(tmp_path)
    store.write("file", b"old")

    def fail(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as patch:
        patch.setattr(os, call, fail)
        with pytest.raises(expected, match=str(tmp_path)) as caught:
            store.write("file", b"new")
    assert getattr(caught.value, "errno", None) in (number, errno.EIO, errno.ENOSPC, errno.EROFS)
    assert read_file(store, "file") == b"old"
    assert os.listdir(tmp_path / "data/txn") == []


def test_bytes_are_written_whole_though_the_system_takes_parts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    really = os.write
    monkeypatch.setattr(os, "write", lambda fd, data: really(fd, bytes(data[:7])))
    LocalStore(tmp_path).write("file", b"0123456789" * 5)
    assert (tmp_path / "file").read_bytes() == b"0123456789" * 5


def test_a_named_pipe_hangs_nobody(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ObjectNotFound, match="not a regular file"):
        read_file(LocalStore(tmp_path), "pipe")


def test_a_link_inside_the_store_is_followed(tmp_path: Path) -> None:
    """`.cvmfsalt-…` are symlinks to objects."""
    store = LocalStore(tmp_path)
    store.write("data/aa/bbC", b"catalog")
    (tmp_path / ".cvmfsalt-aabbC").symlink_to("data/aa/bbC")
    assert read_file(store, ".cvmfsalt-aabbC") == b"catalog"


def test_a_disk_that_cannot_be_read_is_unavailable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = LocalStore(tmp_path)
    store.write("file", b"x")

    def fail(*_: object) -> bytes:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "pread", fail)
    with pytest.raises(StorageUnavailable, match="Input/output error"):
        read_file(store, "file")


def test_external_data_is_nowhere_in_a_directory(tmp_path: Path) -> None:
    with pytest.raises(StorageUnavailable, match="/d/f"):
        LocalStore(tmp_path).fetch_external(b"/d/f", MemorySink(10))


def test_sync_tells_of_a_disk_that_failed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("outcrop.storage.local._sync_file_system", _fail_sync)
    with pytest.raises(StorageUnavailable, match="Input/output"):
        LocalStore(tmp_path).sync()


def _fail_sync(fd: int) -> None:
    raise OSError(errno.EIO, "Input/output error")
