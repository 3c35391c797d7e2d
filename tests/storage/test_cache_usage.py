"""The number of bytes that processes share."""

import errno
import os
import struct
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from outcrop.storage.cache_directory import CacheDirectory
from outcrop.storage.cache_usage import UsageCounter


def counter(place: Path, count: Callable[[], int] = lambda: 0) -> UsageCounter:
    return UsageCounter(CacheDirectory(place), count)


def test_all_who_count_see_one_number(tmp_path: Path) -> None:
    one, other = counter(tmp_path), counter(tmp_path)
    assert one.add(1000) == 1000
    assert other.add(500) == 1500
    assert one.add(-700) == 800
    assert (one.total, other.total) == (800, 800)


def test_it_never_falls_below_nothing(tmp_path: Path) -> None:
    assert counter(tmp_path).add(-5) == 0


def test_no_addition_is_lost_between_threads_and_instances(tmp_path: Path) -> None:
    counters = [counter(tmp_path) for _ in range(3)]

    def add(one: UsageCounter) -> None:
        for _ in range(300):
            one.add(7)

    threads = [threading.Thread(target=add, args=(one,)) for one in counters * 2]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert counters[0].total == 6 * 300 * 7


def test_the_record_is_as_documented(tmp_path: Path) -> None:
    one = counter(tmp_path)
    one.add(4096)
    record = tmp_path / "outcrop.usage"
    assert record.read_bytes() == b"outcrop1" + struct.pack("<qq", 4096, 1)
    one.close()
    assert record.read_bytes() == b"outcrop1" + struct.pack("<qq", 4096, 0)


def test_after_a_crash_the_next_who_is_alone_counts(tmp_path: Path) -> None:
    directory = CacheDirectory(tmp_path)
    UsageCounter(directory, lambda: 0).add(10)
    beside = counter(tmp_path, lambda: 99)  # somebody else is there: nothing tells a crash
    assert beside.total == 10
    beside.close()
    directory.close()  # without `close` of its counter
    beside._directory.close()
    assert counter(tmp_path, lambda: 99).total == 99


def test_a_deleted_file_is_made_again_from_a_count(tmp_path: Path) -> None:
    one = counter(tmp_path, lambda: 42)
    one.add(1)
    (tmp_path / "outcrop.usage").unlink()
    assert one.total == 42
    assert one.add(8) == 50
    assert counter(tmp_path).total == 50


def test_a_disk_too_full_for_the_file_means_counting_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = counter(tmp_path)

    def fail(*_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", fail)
        assert one.add(5) == 5
    one.close()
