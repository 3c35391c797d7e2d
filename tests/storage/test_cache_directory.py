"""Locks and temporary files of a cache directory."""

import errno
import fcntl
import os
import time
from pathlib import Path

import pytest

from outcrop.storage.cache_directory import CacheDirectory, try_lock, wait_for_lock


def opened(path: Path) -> int:
    return os.open(path, os.O_RDONLY | os.O_CREAT)


def test_a_lock_somebody_holds_is_waited_for_no_longer_than_allowed(tmp_path: Path) -> None:
    holder, waiter = opened(tmp_path / "file"), opened(tmp_path / "file")
    assert try_lock(holder, fcntl.LOCK_SH)
    assert try_lock(waiter, fcntl.LOCK_SH)
    started = time.monotonic()
    assert not wait_for_lock(waiter, fcntl.LOCK_EX, seconds=0.1)
    assert 0.1 <= time.monotonic() - started < 5
    os.close(holder)
    assert wait_for_lock(waiter, fcntl.LOCK_EX, seconds=0.1)
    os.close(waiter)


def test_a_file_system_without_locks_is_used_without(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.EOPNOTSUPP, "Operation not supported")

    monkeypatch.setattr(fcntl, "flock", refuse)
    directory = CacheDirectory(tmp_path)
    name, fd = directory.create_temporary()
    directory.rename(name, "00/object")
    os.close(fd)
    assert [file.name for file in directory.iter_objects()] == ["00/object"]
    assert directory.remove_if_idle(next(directory.iter_objects()))
    directory.close()


def test_only_the_first_is_alone(tmp_path: Path) -> None:
    first, second = CacheDirectory(tmp_path), CacheDirectory(tmp_path)
    assert first.is_sole_user
    assert not second.is_sole_user
    first.close()
    second.close()
    assert CacheDirectory(tmp_path).is_sole_user


def test_temporary_files_in_use_are_told_from_leftovers(tmp_path: Path) -> None:
    directory = CacheDirectory(tmp_path)
    _, writer = directory.create_temporary()
    os.write(writer, b"12345")
    dead, old_fd = directory.create_temporary()
    os.close(old_fd)
    os.utime(tmp_path / dead, (0, 0))
    assert directory.sweep_temporaries() == 5
    assert len(os.listdir(tmp_path / "txn")) == 1
    os.close(writer)
    assert directory.sweep_temporaries() == 0
    assert len(os.listdir(tmp_path / "txn")) == 1  # too young to be sure


def test_what_was_used_since_it_was_looked_at_stays(tmp_path: Path) -> None:
    directory = CacheDirectory(tmp_path)
    (tmp_path / "00/object").write_bytes(b"x")
    os.utime(tmp_path / "00/object", (1, 1))
    seen = next(directory.iter_objects())
    os.utime(tmp_path / "00/object")
    assert not directory.remove_if_idle(seen)
    assert directory.remove_if_idle(next(directory.iter_objects()))
    assert not directory.remove_if_idle(seen)


def test_links_lead_nowhere(tmp_path: Path) -> None:
    directory = CacheDirectory(tmp_path / "cache")
    (tmp_path / "outside").write_bytes(b"x")
    (tmp_path / "cache/00/link").symlink_to(tmp_path / "outside")
    assert directory.open_file("00/link") is None
    assert list(directory.iter_objects()) == []
