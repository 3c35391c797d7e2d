"""One cache directory, several processes, some of them killed in the middle of anything."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from tests.storage.cache_worker import make_objects
from tests.support.objects import random_object, read_and_close

from outcrop.formats.hashes import hash_file_name
from outcrop.storage.cache import Cache
from outcrop.storage.memory import MemoryStore

WORKER = Path(__file__).with_name("cache_worker.py")
OBJECTS = 120
QUOTA = 100_000  # they have about 300,000


@contextmanager
def worker(directory: Path, seed: int) -> Iterator[subprocess.Popen[str]]:
    """A worker that is at work."""
    command = [sys.executable, str(WORKER), str(directory), str(QUOTA), str(seed), str(OBJECTS)]
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        yield process
    finally:
        process.kill()
        process.communicate(timeout=20)


def finish(process: subprocess.Popen[str]) -> None:
    """Let it end, and see that nothing was wrong."""
    output, _ = process.communicate("", timeout=30)
    assert output == ""
    assert process.returncode == 0


def check_files(directory: Path) -> int:
    """Every file under an object's name is that object, whole; the bytes of all of them."""
    plain_of = {hash_file_name(ref.hash): plain for ref, plain, _ in make_objects(OBJECTS)}
    total = 0
    for path in directory.glob("??/*"):
        try:
            data = path.read_bytes()
        except FileNotFoundError:  # evicted meanwhile
            continue
        assert data == plain_of[f"{path.parent.name}/{path.name}"], path
        total += len(data)
    return total


def test_processes_killed_at_any_time_leave_only_whole_objects(tmp_path: Path) -> None:
    directory = tmp_path / "cache"
    with worker(directory, 1) as steady, worker(directory, 2) as other:
        for seed in range(3, 11):
            with worker(directory, seed) as victim:
                deadline = time.monotonic() + 0.02 * seed
                while time.monotonic() < deadline:
                    check_files(directory)
                victim.kill()
                victim.wait(20)
        finish(steady)
        finish(other)
    cache = Cache(directory, quota_bytes=QUOTA)
    total = check_files(directory)
    assert total <= QUOTA
    assert cache.used_bytes == total
    assert cache.cleanup(0) == 0  # the pins of the dead are gone with them
    assert check_files(directory) == 0


def test_leftovers_of_the_killed_are_cleared_away_once_old(tmp_path: Path) -> None:
    directory = tmp_path / "cache"
    for seed in range(6):
        with worker(directory, seed) as victim:
            victim.kill()
    for path in (directory / "txn").iterdir():
        os.utime(path, (0, 0))
    Cache(directory, quota_bytes=QUOTA).close()
    assert os.listdir(directory / "txn") == []


def test_a_pin_holds_against_the_eviction_of_another_process(tmp_path: Path) -> None:
    directory = tmp_path / "cache"
    made = random_object(2000)
    cache = Cache(directory, quota_bytes=QUOTA)
    fd = cache.opener(MemoryStore({made.ref.path: made.stored})).open_object(made.ref, pin=True)
    path = directory / hash_file_name(made.ref.hash)
    os.utime(path, (0, 0))  # the first to go
    evict = "import sys; from pathlib import Path; from outcrop.storage.cache import Cache; " + (
        "cache = Cache(Path(sys.argv[1]), quota_bytes=1); print(cache.cleanup(0))"
    )
    for expected in ("2000\n", "0\n"):
        done = subprocess.run(
            [sys.executable, "-c", evict, str(directory)],
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        )
        assert done.stdout == expected
        if expected == "2000\n":
            os.close(fd)
    assert not path.exists()


FULL_DISK = """
import os, sys, zlib
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from tests.support.objects import random_object, read_and_close
from outcrop.storage.cache import Cache
from outcrop.storage.errors import StorageFull
from outcrop.storage.memory import MemoryStore
place = Path(sys.argv[1])
assert os.system(f"mount -t tmpfs -o size=4m,nr_inodes=2000 tmpfs {place}") == 0
store = MemoryStore()
cache = Cache(place / "cache", quota_bytes=None)
opener = cache.opener(store)
def put(made):
    store.write(made.ref.path, made.stored)
    return opener.open_object(made.ref, pin=False)
for _ in range(60):  # 12 MB through 4 MB
    made = random_object(200_000)
    assert read_and_close(put(made)) == made.plain
assert cache.used_bytes < 4_000_000
for _ in range(3000):  # more files than the disk has room for
    made = random_object(10)
    assert read_and_close(put(made)) == made.plain
try:
    put(random_object(5_000_000))
except StorageFull as error:
    print("full:", error.errno)
made = random_object(100_000)
assert read_and_close(put(made)) == made.plain
(place / "filler").write_bytes(b"")
cache.cleanup(0)
with open(place / "filler", "wb", buffering=0) as filler:
    try:
        while filler.write(bytes(4096)) == 4096: pass
    except OSError: pass
try:
    put(random_object(100_000))
except StorageFull as error:
    print("full:", error.errno)
(place / "filler").unlink()
assert read_and_close(put(made)) == made.plain
cache.close()
assert os.system(f"mount -o remount,bind,ro {place}") == 0
cache = Cache(place / "cache", quota_bytes=1000)
opener = cache.opener(store)
assert cache.has(made.ref)
fresh = random_object(3_000_000)
for one in (made, fresh, fresh):
    assert read_and_close(put(one)) == one.plain
print("leftovers:", os.listdir(place / "cache/txn"))
"""


@pytest.mark.system
def test_a_disk_that_is_really_full_and_one_that_is_really_read_only(tmp_path: Path) -> None:
    own_namespace = ["unshare", "--mount"] if os.geteuid() == 0 else ["unshare", "-rm"]
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [*own_namespace, sys.executable, "-c", FULL_DISK, str(tmp_path), str(root)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert (done.stdout, done.returncode) == ("full: 28\nfull: 28\nleftovers: []\n", 0), done.stderr


def test_a_stopped_process_hinders_nobody(tmp_path: Path) -> None:
    """Stopped while holding any lock, perhaps: the others go on."""
    directory = tmp_path / "cache"
    made = [random_object(3000) for _ in range(20)]
    store = MemoryStore({one.ref.path: one.stored for one in made})
    with worker(directory, 1) as stopped:
        opener = Cache(directory, quota_bytes=QUOTA).opener(store)
        for one in made:
            stopped.send_signal(signal.SIGSTOP)
            started = time.monotonic()
            assert read_and_close(opener.open_object(one.ref)) == one.plain
            assert time.monotonic() - started < 15
            stopped.send_signal(signal.SIGCONT)
