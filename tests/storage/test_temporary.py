"""Objects that are kept nowhere."""

import os
import resource
from pathlib import Path

import pytest
from tests.support.objects import random_object, read_and_close

from outcrop.storage import temporary
from outcrop.storage.errors import StorageFull, StorageReadOnly, StorageUnavailable
from outcrop.storage.memory import MemoryStore
from outcrop.storage.temporary import MAX_MEMORY_BYTES, OutputFile, TransientOpener, open_again


def test_a_large_object_is_a_file_without_a_name_in_the_directory(tmp_path: Path) -> None:
    made = random_object(MAX_MEMORY_BYTES + 1)
    opener = TransientOpener(MemoryStore({made.ref.path: made.stored}), directory=tmp_path)
    fd = opener.open_object(made.ref)
    assert os.fstat(fd).st_dev == tmp_path.stat().st_dev
    assert os.fstat(fd).st_nlink == 0
    assert os.listdir(tmp_path) == []
    assert read_and_close(fd) == made.plain


def test_a_directory_that_cannot_take_it_says_so(tmp_path: Path) -> None:
    made = random_object(MAX_MEMORY_BYTES + 1)
    store = MemoryStore({made.ref.path: made.stored})
    opener = TransientOpener(store, directory=tmp_path / "missing")
    with pytest.raises(StorageUnavailable, match=str(made.ref.hash)[2:]):
        opener.open_object(made.ref)


@pytest.mark.parametrize("size", [100, MAX_MEMORY_BYTES + 1])
def test_a_full_disk_is_storage_full(
    size: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = random_object(size)
    opener = TransientOpener(MemoryStore({made.ref.path: made.stored}), directory=tmp_path)

    def full(self: OutputFile, data: bytes) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(temporary.OutputFile, "write", full)
    with pytest.raises(StorageFull, match="No space left"):
        opener.open_object(made.ref)
    assert os.listdir(tmp_path) == []


def test_a_read_only_directory_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = random_object(MAX_MEMORY_BYTES + 1)
    opener = TransientOpener(MemoryStore({made.ref.path: made.stored}), directory=tmp_path)

    def refuse(*_: object) -> int:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(StorageReadOnly):
        opener.open_object(made.ref)


def test_an_output_file_never_takes_a_part_and_stays_silent(tmp_path: Path) -> None:
    fd = os.open(tmp_path / "out", os.O_RDWR | os.O_CREAT)
    out = OutputFile(fd)
    assert out.write(b"12345") == 5
    assert out.write(b"") == 0
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))  # the system takes 995 bytes more
    try:
        with pytest.raises(OSError, match="File too large"):
            out.write(bytes(2000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    out.close()
    assert os.fstat(fd).st_size == 1000  # and the descriptor is still the caller's
    os.close(fd)


def test_a_file_opened_again_has_a_position_of_its_own(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"0123456789")
    fd = os.open(path, os.O_RDONLY)
    path.unlink()
    os.lseek(fd, 5, os.SEEK_SET)
    assert read_and_close(open_again(fd)) == b"0123456789"
    os.close(fd)
