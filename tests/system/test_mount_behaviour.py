"""A mount in daily life: requests counted at the server, new revisions, repair, special cases."""

import contextlib
import errno
import os
import signal
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support.mounts import Mount, is_running, mount_lines, mounted, outcrop, wait_until
from tests.support.servers import Fault, HttpServer
from tests.support.simulator import Directory, File, RepositorySimulator, Special, Symlink

pytestmark = pytest.mark.system

BIG = os.urandom(3_000_000)
QUICK = ("-o", "CVMFS_TIMEOUT_DIRECT=1", "-o", "CVMFS_BACKOFF_INIT=0", "-o", "CVMFS_MAX_RETRIES=1")


class World:
    """A simulated repository behind a real web server, and mounts of it."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.sim = RepositorySimulator(
            {
                b"/bin/hello": File(b"#!/bin/sh\necho hello $1\n", mode=0o755),
                b"/a": File(b"linked", link_group=1),
                b"/b": File(b"linked", link_group=1),
                b"/big": File(BIG, chunk_bytes=300_000),
                b"/nested/deep/file": b"in nested",
                b"/variant": Symlink(b"bin/$(CVMFS_FLAVOUR:-hello)"),
                b"/private": File(b"secret", mode=0o600, uid=1),
                b"/fifo": Special(stat.S_IFIFO),
                b"/null": Special(stat.S_IFCHR, os.makedev(1, 3)),
                b"/empty": b"",
                b"/quiet": Directory(mode=0o700),
            },
            nested=[b"/nested"],
        )
        self.server = HttpServer(self.served())
        self.key = directory / "key.pub"
        self.key.write_bytes(self.sim.public_key)

    def served(self) -> dict[str, bytes]:
        return {f"/cvmfs/{self.sim.fqrn}/{name}": d for name, d in self.sim.objects.items()}

    def publish(self, changes: dict[bytes, object], *remove: bytes) -> None:
        files = {p: c for p, c in self.sim.files.items() if p not in remove}
        self.sim.publish({**files, **changes})  # type: ignore[dict-item]
        self.server.files = self.served()

    @property
    def url(self) -> str:
        return f"{self.server.address}/cvmfs/{self.sim.fqrn}"

    @contextlib.contextmanager
    def mount(self, *options: str, name: str = "mnt") -> Iterator[Mount]:
        with mounted(
            self.directory,
            self.url,
            self.directory / name,
            "--key",
            str(self.key),
            *QUICK,
            *options,
        ) as mount:
            yield mount

    def asked(self) -> list[str]:
        prefix = f"/cvmfs/{self.sim.fqrn}/"
        return [path.removeprefix(prefix) for path in self.server.paths]


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path)
    yield made
    made.server.stop()


def test_a_cold_mount_asks_four_times_and_then_for_what_is_touched(world: World) -> None:
    with world.mount() as mount:
        assert sorted(world.asked()) == sorted(
            [
                ".cvmfspublished",
                ".cvmfswhitelist",
                world.sim.certificate_name,
                world.sim.catalog_name(),
            ]
        )
        world.server.requests.clear()
        assert "nested" in os.listdir(mount.mountpoint)
        os.stat(mount.mountpoint / "nested")
        assert world.asked() == []
        assert os.listdir(mount.mountpoint / "nested/deep") == ["file"]
        assert world.asked() == [world.sim.catalog_name(b"/nested")]
        world.server.requests.clear()
        with open(mount.mountpoint / "big", "rb", buffering=0) as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_RANDOM)
            assert os.pread(file.fileno(), 1, 1_000_000) == BIG[1_000_000:1_000_001]
        assert world.asked() == [world.sim.object_names(b"/big")[3]]


def test_programs_run_and_everything_is_what_it_is(world: World) -> None:
    with world.mount("-o", "CVMFS_CLAIM_OWNERSHIP=no") as mount:
        top = mount.mountpoint
        ran = subprocess.run([top / "bin/hello", "you"], capture_output=True, check=True)
        assert ran.stdout == b"hello you\n"
        assert (top / "big").read_bytes() == BIG
        assert (top / "a").stat().st_ino == (top / "b").stat().st_ino
        assert (top / "a").stat().st_nlink == 2
        assert stat.S_ISFIFO((top / "fifo").stat().st_mode)
        assert (top / "null").stat().st_rdev == os.makedev(1, 3)
        assert os.readlink(top / "variant") == "bin/hello"
        assert (top / "empty").read_bytes() == b""
        assert (top / "private").stat().st_uid == 1
        assert os.statvfs(top).f_files >= 15
        with pytest.raises(FileNotFoundError):
            (top / "nothing").stat()
        with pytest.raises(OSError, match="Read-only") as caught:
            (top / "new").write_bytes(b"")
        assert caught.value.errno == errno.EROFS


def test_variables_in_links_come_from_the_configuration(world: World) -> None:
    config = world.directory / "etc/cvmfs/default.local"
    config.parent.mkdir(parents=True)
    config.write_text("CVMFS_FLAVOUR=other\n")
    with world.mount() as mount:
        assert os.readlink(mount.mountpoint / "variant") == "bin/other"


def test_permissions_are_checked_for_others(world: World) -> None:
    with world.mount("-o", "CVMFS_CLAIM_OWNERSHIP=no") as mount:
        world.directory.chmod(0o755)
        for parent in list(world.directory.parents)[:3]:
            parent.chmod(0o755)
        script = (
            "import os, sys\nos.setgid(65534); os.setuid(65534)\n"
            "for name in sys.argv[1:]:\n"
            "    try: open(name).read(1); print('read')\n"
            "    except PermissionError: print('denied')\n"
        )
        names = [str(mount.mountpoint / name) for name in ("private", "a")]
        done = subprocess.run(
            [sys.executable, "-c", script, *names], capture_output=True, text=True, check=True
        )
        assert done.stdout.split() == ["denied", "read"]


def test_a_new_revision_appears_and_open_files_keep_their_content(world: World) -> None:
    with world.mount() as mount, contextlib.ExitStack() as files:
        top = mount.mountpoint
        inode = (top / "a").stat().st_ino
        kept = files.enter_context(open(top / "big", "rb"))
        directory = os.open(top / "nested", os.O_RDONLY)
        assert (top / "empty").read_bytes() == b""
        assert not (top / "new").exists()
        world.publish({b"/big": b"small now", b"/new": b"new", b"/empty": b"full"}, b"/fifo")
        assert "New revision applied" in mount.remount()
        assert (top / "big").read_bytes() == b"small now"
        assert (top / "new").read_bytes() == b"new"
        assert (top / "empty").read_bytes() == b"full"
        assert not (top / "fifo").exists()
        assert "fifo" not in os.listdir(top)
        assert (top / "a").stat().st_ino == inode
        assert kept.read() == BIG
        assert sorted(os.listdir(directory)) == [".cvmfscatalog", "deep"]
        os.close(directory)
        assert mount.status()["revision"] == 2
        assert "Catalog up to date" in mount.remount()


def test_a_new_revision_appears_by_itself_when_the_ttl_is_over(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.sim.ttl = 1
    world.sim.publish({**world.sim.files, b"/first": b""})
    world.server.files = world.served()
    with world.mount() as mount:
        world.publish({b"/new": b"new"})
        wait_until((mount.mountpoint / "new").exists)
    world.server.stop()


def test_two_mounts_share_a_cache(world: World) -> None:
    with world.mount(name="one") as one, world.mount(name="two") as two:
        world.server.requests.clear()
        assert (one.mountpoint / "nested/deep/file").read_bytes() == b"in nested"
        asked = len(world.asked())
        assert (two.mountpoint / "nested/deep/file").read_bytes() == b"in nested"
        assert len(world.asked()) == asked


def test_a_warm_cache_serves_with_no_server_at_all(world: World) -> None:
    with world.mount() as mount:
        assert (mount.mountpoint / "nested/deep/file").read_bytes() == b"in nested"
    world.server.stop()
    with world.mount() as mount:
        assert (mount.mountpoint / "nested/deep/file").read_bytes() == b"in nested"
        assert mount.status()["offline"]
        with pytest.raises(OSError) as caught:
            (mount.mountpoint / "a").read_bytes()
        assert caught.value.errno == errno.EIO
    world.server.start()


def test_umount_ends_the_server_and_leaves_nothing(world: World) -> None:
    with world.mount() as mount:
        outcrop(world.directory, "umount", str(mount.mountpoint))
        wait_until(lambda: not is_running(mount.pid))
        assert mount_lines(mount.mountpoint) == []
        assert outcrop(world.directory, "umount", str(mount.mountpoint), check=False).returncode


def test_a_killed_server_leaves_no_hanging_mount_and_mount_repairs_it(world: World) -> None:
    with world.mount() as mount:
        assert (mount.mountpoint / "a").read_bytes() == b"linked"
        mount.kill()
        with pytest.raises(OSError) as caught:
            os.listdir(mount.mountpoint)
        # The second for who was inside when the server died.
        assert caught.value.errno in (errno.ENOTCONN, errno.ECONNABORTED)
        with world.mount() as again:
            assert (again.mountpoint / "a").read_bytes() == b"linked"


def test_umount_cleans_up_after_a_killed_server(world: World) -> None:
    with world.mount() as mount:
        mount.kill()
        outcrop(world.directory, "umount", str(mount.mountpoint))
        assert mount_lines(mount.mountpoint) == []


@pytest.mark.parametrize("signal_name", ["SIGTERM", "SIGINT", "SIGHUP"])
def test_a_signal_unmounts(signal_name: str, world: World) -> None:
    with world.mount() as mount:
        os.kill(mount.pid, getattr(signal, signal_name))
        wait_until(lambda: not is_running(mount.pid))
        assert mount_lines(mount.mountpoint) == []


def test_what_cannot_be_mounted_is_said_at_once(world: World) -> None:
    world.sim.expire_whitelist()
    world.server.files = world.served()
    mountpoint = world.directory / "mnt"
    mountpoint.mkdir()
    done = outcrop(
        world.directory, "mount", world.url, str(mountpoint), "--key", str(world.key), check=False
    )
    assert done.returncode == 4
    assert "whitelist" in done.stderr
    assert mount_lines(mountpoint) == []


# --- faults ------------------------------------------------------------------------------------

NETWORK_FAULTS = [
    Fault.KILL,
    Fault.STALL,
    Fault.STALL_IN_BODY,
    Fault.SLOW_BODY,
    Fault.SLOW_HEADERS,
    Fault.GARBAGE,
    Fault.GARBAGE_HEADERS,
    Fault.ERROR_500,
    Fault.ERROR_503,
    Fault.ERROR_ENDLESS,
    Fault.TRUNCATE,
    Fault.FLIP,
    Fault.WRONG_BODY,
    Fault.OVERSIZED,
    Fault.REDIRECT_LOOP,
]


@pytest.mark.parametrize("fault", NETWORK_FAULTS)
def test_a_server_that_misbehaves_is_an_error_and_then_it_works_again(
    fault: Fault, world: World
) -> None:
    with world.mount() as mount:
        world.server.fail(fault, path="/data/")
        with pytest.raises(OSError) as caught:
            # A small body may come as slowly as it likes; a large one may not.
            (mount.mountpoint / ("big" if fault is Fault.SLOW_BODY else "a")).read_bytes()
        assert caught.value.errno == errno.EIO
        assert "nested" in os.listdir(mount.mountpoint)
        world.server.behave()
        assert (mount.mountpoint / "a").read_bytes() == b"linked"
        assert (mount.mountpoint / "nested/deep/file").read_bytes() == b"in nested"


def test_a_fault_that_passes_is_not_noticed(world: World) -> None:
    with world.mount() as mount:
        for fault in (Fault.KILL, Fault.FLIP, Fault.TRUNCATE):
            world.server.fail(fault, path="/data/", times=1)
            outcrop(world.directory, "status")
        assert (mount.mountpoint / "a").read_bytes() == b"linked"


def test_killing_a_process_that_waits_for_a_download_works(world: World) -> None:
    with world.mount("-o", "CVMFS_TIMEOUT_DIRECT=20") as mount:
        world.server.requests.clear()
        world.server.fail(Fault.STALL, path="/data/")
        reader = subprocess.Popen(["cat", mount.mountpoint / "bin/hello"])
        wait_until(lambda: bool(world.asked()))
        reader.kill()
        assert reader.wait(timeout=5) == -9
        assert "nested" in os.listdir(mount.mountpoint)
        world.server.behave()


def test_others_read_on_while_many_wait(world: World) -> None:
    with world.mount("-o", "CVMFS_TIMEOUT_DIRECT=20") as mount:
        assert (mount.mountpoint / "a").read_bytes() == b"linked"
        world.server.requests.clear()
        world.server.fail(Fault.STALL, path="/data/")
        readers = [
            subprocess.Popen(["cat", mount.mountpoint / name])
            for name in ("bin/hello", "private", "big", "nested/deep/file") * 5
        ]
        wait_until(lambda: len(world.asked()) >= 3)
        assert (mount.mountpoint / "b").read_bytes() == b"linked"
        assert len(os.listdir(mount.mountpoint)) > 5
        for reader in readers:
            reader.kill()
        for reader in readers:
            assert reader.wait(timeout=10) == -9
    # Unmounted long before the downloads would have given up.
    assert not is_running(mount.pid)


def test_umount_does_not_wait_for_downloads(world: World) -> None:
    with world.mount("-o", "CVMFS_TIMEOUT_DIRECT=300") as mount:
        world.server.requests.clear()
        world.server.fail(Fault.STALL, path="/data/")
        reader = subprocess.Popen(["cat", mount.mountpoint / "bin/hello"])
        wait_until(lambda: bool(world.asked()))
        reader.kill()
        reader.wait()
        outcrop(world.directory, "umount", str(mount.mountpoint))
        assert not is_running(mount.pid)


def test_a_full_cache_disk_is_an_honest_error(world: World) -> None:
    small = world.directory / "small"
    small.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1500k", "tmpfs", small], check=True)
    try:
        with world.mount("--cache", str(small / "cache")) as mount:
            with contextlib.suppress(OSError), open(small / "filler", "wb") as filler:
                while filler.write(b"x" * 4096):
                    filler.flush()
            with pytest.raises(OSError) as caught:
                (mount.mountpoint / "big").read_bytes()
            assert caught.value.errno in (errno.ENOSPC, errno.EIO)
            assert "nested" in os.listdir(mount.mountpoint)
            (small / "filler").unlink()
            assert (mount.mountpoint / "bin/hello").read_bytes().startswith(b"#!")
    finally:
        subprocess.run(["umount", "-l", small], check=True)


def test_a_quota_smaller_than_the_files_still_reads_them(world: World) -> None:
    with world.mount("-o", "CVMFS_QUOTA_LIMIT=1") as mount:
        assert (mount.mountpoint / "big").read_bytes() == BIG
        assert (mount.mountpoint / "a").read_bytes() == b"linked"


def test_a_cache_deleted_under_the_mount_is_made_again(world: World) -> None:
    cache = world.directory / "cache"
    with world.mount("--cache", str(cache)) as mount:
        assert (mount.mountpoint / "a").read_bytes() == b"linked"
        subprocess.run(["rm", "-rf", cache], check=True)
        assert (mount.mountpoint / "bin/hello").read_bytes().startswith(b"#!")
        assert (mount.mountpoint / "nested/deep/file").read_bytes() == b"in nested"
        assert (mount.mountpoint / "big").read_bytes() == BIG


def test_a_truncated_file_in_the_cache_heals(world: World) -> None:
    cache = world.directory / "cache"
    with world.mount("--cache", str(cache)) as mount:
        assert (mount.mountpoint / "bin/hello").read_bytes().startswith(b"#!")
    for path in cache.glob("??/*"):
        if path.read_bytes().startswith(b"#!"):
            os.truncate(path, 3)
    with world.mount("--cache", str(cache)) as mount:
        assert (mount.mountpoint / "bin/hello").read_bytes().endswith(b"$1\n")


def test_a_read_only_cache_serves_what_it_has(world: World) -> None:
    cache = world.directory / "cache"
    with world.mount("--cache", str(cache)) as mount:
        assert (mount.mountpoint / "a").read_bytes() == b"linked"
    frozen = world.directory / "frozen"
    frozen.mkdir()
    subprocess.run(["mount", "--bind", cache, frozen], check=True)
    try:
        subprocess.run(["mount", "-o", "remount,ro,bind", frozen], check=True)
        with world.mount("--cache", str(frozen)) as mount:
            world.server.requests.clear()
            assert (mount.mountpoint / "a").read_bytes() == b"linked"
            assert world.asked() == []
            assert (mount.mountpoint / "bin/hello").read_bytes().startswith(b"#!")
    finally:
        subprocess.run(["umount", "-l", frozen], check=True)


def test_the_server_killed_at_any_time_leaves_a_cache_that_works(world: World) -> None:
    cache = world.directory / "cache"
    for delay in range(8):
        with world.mount("--cache", str(cache)) as mount:
            stop = threading.Timer(delay / 100, mount.kill)
            stop.start()
            with contextlib.suppress(OSError):
                for path in sorted(mount.mountpoint.rglob("*")):
                    if path.is_file():
                        path.read_bytes()
            stop.join()
    with world.mount("--cache", str(cache)) as mount:
        assert (mount.mountpoint / "big").read_bytes() == BIG
        assert (mount.mountpoint / "nested/deep/file").read_bytes() == b"in nested"
