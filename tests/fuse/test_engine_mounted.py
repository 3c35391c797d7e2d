"""The engine behind the kernel: what programs see, and what they never have to wait for."""

import contextlib
import errno
import os
import signal
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.support.fuse_views import DictView, directory_row, file_row, symlink_row

from outcrop.fuse import mount as mounts
from outcrop.fuse.engine import Engine
from outcrop.fuse.errors import MountError
from outcrop.fuse.mount import MountState

pytestmark = pytest.mark.system

ServeMount = Callable[..., tuple[Path, Engine]]


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.005)


def walk(top: Path) -> None:
    """Everything `ls -lR` asks for."""
    for directory, directories, files in os.walk(os.fsencode(top)):
        for name in directories + files:
            path = os.path.join(directory, name)
            if stat.S_ISLNK(os.lstat(path).st_mode):
                os.readlink(path)


def test_a_listing_asks_for_attributes_once_not_for_each_file(serve_mount: ServeMount) -> None:
    view = example()
    view.tree[b"/d"] = [file_row(b"%d" % number, b"") for number in range(100)]
    mountpoint, engine = serve_mount(view)
    command = ["ls", "-l", str(mountpoint / "d")]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, timeout=30)
    assert engine.statistics()["requests_getxattr"] < 10


def end(server: "subprocess.Popen[str]", mountpoint: Path) -> None:
    with contextlib.suppress(MountError):
        mounts.abort(mountpoint)  # whatever the two wait for
    server.kill()
    server.wait()
    if server.stdout is not None:
        server.stdout.close()
    if mounts.find_mount(mountpoint):
        mounts.unmount(mountpoint, lazy=True)


def example() -> DictView:
    view = DictView(
        {
            b"": [
                file_row(b"f", b"hello\n", mode=0o100640, uid=5, gid=6, nlink=2, ino=500),
                file_row(b"hard", b"hello\n", mode=0o100640, uid=5, gid=6, nlink=2, ino=500),
                directory_row(b"d", ino=501, mode=0o41777),
                symlink_row(b"link", b"d/g", ino=502),
                file_row(b"pipe", b"", mode=0o10600, ino=503),
                file_row(b"null", b"", mode=0o20666, rdev=os.makedev(1, 3), ino=504),
                file_row(b"big", b"0123456789abcdef" * 4000, ino=505),
            ],
            b"/d": [file_row(b"g", b"world\n", ino=506), directory_row(b"sub", ino=507)],
            b"/d/sub": [file_row(b"\xff\n '", b"odd\n", ino=508)],
        }
    )
    view.xattrs[b"/f"] = {b"user.colour": b"blue"}
    return view


# ---- what programs see ----------------------------------------------------------------------


def test_a_mounted_tree_is_the_views_tree(serve_mount: ServeMount) -> None:
    mountpoint, _ = serve_mount(example())
    found = (mountpoint / "f").stat()
    assert (found.st_ino, found.st_mode, found.st_nlink) == (500, 0o100640, 2)
    assert (found.st_uid, found.st_gid, found.st_size, found.st_mtime_ns) == (
        5,
        6,
        6,
        5 * 10**9 + 7,
    )
    assert (mountpoint / "hard").stat().st_ino == 500
    assert stat.S_ISFIFO((mountpoint / "pipe").stat().st_mode)
    assert (mountpoint / "null").stat().st_rdev == os.makedev(1, 3)
    assert os.readlink(mountpoint / "link") == "d/g"
    assert (mountpoint / "link").read_bytes() == b"world\n"
    assert (mountpoint / "big").read_bytes() == b"0123456789abcdef" * 4000
    assert sorted(os.listdir(os.fsencode(mountpoint / "d" / "sub"))) == [b"\xff\n '"]
    assert sorted(os.listdir(mountpoint)) == ["big", "d", "f", "hard", "link", "null", "pipe"]
    assert os.getxattr(mountpoint / "f", "user.colour") == b"blue"
    assert os.listxattr(mountpoint / "f") == ["user.colour"]
    assert os.statvfs(mountpoint).f_blocks == 100


def test_nothing_can_be_changed(serve_mount: ServeMount) -> None:
    mountpoint, _ = serve_mount(example())
    for change in (
        lambda: (mountpoint / "new").write_text("x"),
        lambda: (mountpoint / "f").write_text("x"),
        lambda: (mountpoint / "f").unlink(),
        lambda: (mountpoint / "f").chmod(0o777),
        lambda: (mountpoint / "n").mkdir(),
        lambda: (mountpoint / "f").rename(mountpoint / "g"),
    ):
        with pytest.raises(OSError, match="Read-only file system"):
            change()


def test_a_second_walk_and_a_second_reading_ask_nothing(serve_mount: ServeMount) -> None:
    def use() -> None:
        walk(mountpoint)
        for name in ("f", "d/g"):
            fd = os.open(mountpoint / name, os.O_RDONLY)  # open() would ask whether it is a tty
            os.read(fd, 100)
            os.close(fd)
        assert not (mountpoint / "missing").exists()

    mountpoint, engine = serve_mount(example())
    use()
    before = engine.statistics()
    use()
    assert engine.statistics() == before


def test_permissions_are_the_kernels_business(serve_mount: ServeMount, tmp_path: Path) -> None:
    mountpoint, _ = serve_mount(example())
    assert not os.access(mountpoint / "f", os.W_OK)
    assert os.access(mountpoint / "f", os.R_OK)
    assert not os.access(mountpoint / "f", os.X_OK)


# ---- waiting, and being killed --------------------------------------------------------------

READ = "import sys; open(sys.argv[1], 'rb').read()"
LIST = "import os, sys; os.listdir(sys.argv[1])"


@pytest.mark.parametrize(("program", "path"), [(READ, "f"), (LIST, "d")])
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_a_program_that_waits_for_a_download_can_be_killed(
    serve_mount: ServeMount, program: str, path: str, how: signal.Signals
) -> None:
    view = example()
    view.gates[b"/" + path.encode()] = threading.Event()
    mountpoint, _ = serve_mount(view)
    # -S: without Python's own handler SIGINT ends a program
    code = f"import signal; signal.signal(signal.SIGINT, signal.SIG_DFL); {program}"
    waiting = subprocess.Popen([sys.executable, "-c", code, str(mountpoint / path)])
    try:
        assert view.waiting.acquire(timeout=20)
        waiting.send_signal(how)
        assert waiting.wait(10) == -how
        assert (mountpoint / "d").is_dir()
    finally:
        view.gates[b"/" + path.encode()].set()
        waiting.kill()
        waiting.wait()
    if path == "d":
        assert os.listdir(mountpoint / "d")


def test_a_timer_does_not_disturb_a_program_that_waits(serve_mount: ServeMount) -> None:
    view = example()
    view.gates[b"/d"] = threading.Event()
    mountpoint, engine = serve_mount(view)
    code = (
        "import os, signal, sys\n"
        "signal.signal(signal.SIGALRM, lambda *_: None)\n"
        "signal.siginterrupt(signal.SIGALRM, False)\n"
        "signal.setitimer(signal.ITIMER_REAL, 0.01, 0.01)\n"
        "print(os.stat(sys.argv[1]).st_size)"
    )
    waiting = subprocess.Popen(
        [sys.executable, "-c", code, str(mountpoint / "d" / "g")], stdout=subprocess.PIPE
    )
    try:
        assert view.waiting.acquire(timeout=20)
        wait_until(lambda: engine.statistics()["requests_interrupt"] > 0)
        view.gates[b"/d"].set()
        assert waiting.communicate(timeout=10)[0] == b"6\n"
    finally:
        view.gates[b"/d"].set()
        waiting.kill()
        waiting.communicate()


def test_a_timer_does_not_protect_a_program_from_being_killed(serve_mount: ServeMount) -> None:
    view = example()
    view.gates[b"/d"] = threading.Event()
    mountpoint, engine = serve_mount(view)
    code = (
        "import os, signal, sys\n"
        "signal.signal(signal.SIGALRM, lambda *_: None)\n"
        "signal.setitimer(signal.ITIMER_REAL, 0.01, 0.01)\n"
        "os.stat(sys.argv[1])"
    )
    waiting = subprocess.Popen([sys.executable, "-c", code, str(mountpoint / "d" / "g")])
    try:
        assert view.waiting.acquire(timeout=20)
        wait_until(lambda: engine.statistics()["requests_interrupt"] > 0)
        waiting.kill()
        assert waiting.wait(10) == -signal.SIGKILL
    finally:
        view.gates[b"/d"].set()
        waiting.kill()
        waiting.wait()


def test_sixty_programs_that_wait_leave_the_mount_usable(serve_mount: ServeMount) -> None:
    view = example()
    names = [b"%d" % number for number in range(60)]
    view.tree[b"/d"] = [file_row(name, name * 10) for name in names]
    gate = threading.Event()
    for name in names:
        view.gates[b"/d/" + name] = gate
    mountpoint, engine = serve_mount(view)
    readers = [
        threading.Thread(target=(mountpoint / "d" / name.decode()).read_bytes) for name in names
    ]
    try:
        for reader in readers:
            reader.start()
        for _ in names:
            assert view.waiting.acquire(timeout=20)
        assert (mountpoint / "f").read_bytes() == b"hello\n"
        assert engine.statistics()["threads"] > 60
    finally:
        gate.set()
        for reader in readers:
            reader.join(20)


# ---- another tree ---------------------------------------------------------------------------


def test_a_new_tree_shows_at_once(serve_mount: ServeMount) -> None:
    view = example()
    mountpoint, engine = serve_mount(view)
    walk(mountpoint)
    assert not (mountpoint / "d" / "new").exists()
    assert (mountpoint / "d" / "g").read_bytes() == b"world\n"
    view.tree = {
        b"": [directory_row(b"d", ino=601), symlink_row(b"link", b"d/new", ino=602)],
        b"/d": [file_row(b"g", b"WORLD!\n", ino=603), file_row(b"new", b"new\n", ino=604)],
    }
    engine.tree_changed()
    assert sorted(os.listdir(mountpoint)) == ["d", "link"]
    assert sorted(os.listdir(mountpoint / "d")) == ["g", "new"]
    assert (mountpoint / "d" / "g").read_bytes() == b"WORLD!\n"
    assert (mountpoint / "link").read_bytes() == b"new\n"
    assert not (mountpoint / "f").exists()
    assert (mountpoint / "d").stat().st_mode == 0o40755
    with pytest.raises(FileNotFoundError):
        (mountpoint / "d" / "sub").stat()


def test_unchanged_files_keep_their_cached_pages(serve_mount: ServeMount) -> None:
    view = example()
    mountpoint, engine = serve_mount(view)
    for name in ("f", "big", "d/g"):
        (mountpoint / name).read_bytes()
    before = engine.statistics()["requests_read"]
    for _ in range(3):
        engine.tree_changed()
        for name in ("f", "big", "d/g"):
            (mountpoint / name).read_bytes()
    assert engine.statistics()["requests_read"] == before


def test_an_open_file_keeps_its_content(serve_mount: ServeMount) -> None:
    view = example()
    content = b"0123456789abcdef" * 4000
    mountpoint, engine = serve_mount(view)
    with (mountpoint / "big").open("rb") as opened:
        assert opened.read(16) == content[:16]
        view.tree = {b"": [file_row(b"big", b"short", ino=700)]}
        engine.tree_changed()
        assert (mountpoint / "big").read_bytes() == b"short"
        os.posix_fadvise(opened.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        opened.seek(0)
        assert opened.read() == content
        assert os.fstat(opened.fileno()).st_size == len(content)


def test_a_working_directory_survives_and_shows_the_new_tree(serve_mount: ServeMount) -> None:
    view = example()
    mountpoint, engine = serve_mount(view)
    here = os.open(mountpoint / "d" / "sub", os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.listdir(here)
        view.tree[b"/d/sub"] = [file_row(b"later", b"later\n", ino=800)]
        view.tree[b"/d"] = [directory_row(b"sub", ino=801, mtime=77)]
        engine.tree_changed()
        assert os.readlink(f"/proc/self/fd/{here}") == str(mountpoint / "d" / "sub")
        assert os.listdir(here) == ["later"]
        assert os.fstat(here).st_mtime_ns == 77 * 10**9 + 7
        assert os.stat("later", dir_fd=here).st_size == 6
        assert os.readlink(f"/proc/self/fd/{here}") == str(mountpoint / "d" / "sub")
    finally:
        os.close(here)


def test_a_working_directory_that_is_gone_is_like_any_removed_directory(
    serve_mount: ServeMount,
) -> None:
    view = example()
    mountpoint, engine = serve_mount(view)
    here = os.open(mountpoint / "d" / "sub", os.O_RDONLY | os.O_DIRECTORY)
    try:
        view.tree = {b"": [file_row(b"f", b"hello\n", ino=500)]}
        engine.tree_changed()
        assert os.listdir(here) == []
        with pytest.raises(FileNotFoundError):
            os.stat("anything", dir_fd=here)
        assert stat.S_ISDIR(os.fstat(here).st_mode)
    finally:
        os.close(here)


def test_the_tree_can_change_while_programs_wait_for_it(serve_mount: ServeMount) -> None:
    view = example()
    view.gates[b"/d"] = threading.Event()
    mountpoint, engine = serve_mount(view)
    found: list[list[str]] = []
    reader = threading.Thread(target=lambda: found.append(os.listdir(mountpoint / "d")))
    reader.start()
    assert view.waiting.acquire(timeout=20)
    changer = threading.Thread(target=engine.tree_changed)
    changer.start()
    view.gates[b"/d"].set()
    changer.join(20)
    reader.join(20)
    assert not changer.is_alive()
    assert not reader.is_alive()
    assert sorted(found[0]) == ["g", "sub"]


def test_many_changes_under_load_show_no_mixture(serve_mount: ServeMount) -> None:
    def tree(number: int) -> dict[bytes, list[tuple[object, ...]]]:
        content = b"%06d" % number
        return {
            b"": [directory_row(b"d%d" % index, ino=10 + index) for index in range(5)],
            **{
                b"/d%d" % index: [file_row(b"f", content, ino=100 + index + 10 * number)]
                for index in range(5)
            },
        }

    view = DictView(dict(tree(0)))
    mountpoint, engine = serve_mount(view)
    done = threading.Event()
    failures: list[str] = []
    newest = 0

    def read() -> None:
        while not done.is_set():
            oldest = newest
            for index in range(5):
                seen = int((mountpoint / f"d{index}" / "f").read_bytes())
                if seen < oldest:
                    failures.append(f"saw {seen} after {oldest} was shown")

    readers = [threading.Thread(target=read) for _ in range(3)]
    for reader in readers:
        reader.start()
    for number in range(1, 100):
        view.tree = dict(tree(number))
        engine.tree_changed()
        newest = number
    done.set()
    for reader in readers:
        reader.join(20)
    assert failures == []


# ---- the end --------------------------------------------------------------------------------


def test_an_unmount_ends_serving(serve_mount: ServeMount) -> None:
    mountpoint, engine = serve_mount(example())
    (mountpoint / "f").read_bytes()
    assert mounts.mount_state(mountpoint) is MountState.ALIVE
    mounts.unmount(mountpoint)
    assert mounts.mount_state(mountpoint) is MountState.NOT_MOUNTED
    wait_until(lambda: engine.statistics()["threads"] == 0)


def test_an_abort_frees_everybody_who_waits(serve_mount: ServeMount) -> None:
    view = example()
    view.gates[b"/f"] = threading.Event()
    mountpoint, engine = serve_mount(view)
    failures: list[OSError] = []

    def read() -> None:
        try:
            (mountpoint / "f").read_bytes()
        except OSError as error:
            failures.append(error)

    reader = threading.Thread(target=read)
    reader.start()
    assert view.waiting.acquire(timeout=20)
    mounts.abort(mountpoint)
    reader.join(10)
    assert failures
    with pytest.raises(OSError, match="Transport endpoint"):
        (mountpoint / "d").stat()
    assert mounts.mount_state(mountpoint) is MountState.DEAD
    view.gates[b"/f"].set()
    wait_until(lambda: engine.statistics()["threads"] == 0)


SERVER = """
import sys, threading
from pathlib import Path
from outcrop.fuse.engine import Engine
from outcrop.fuse.mount import mount
from tests.support.fuse_views import DictView, directory_row, file_row
view = DictView({b"": [file_row(b"f", b"x"), file_row(b"stuck", b"x")]})
view.gates[b"/stuck"] = threading.Event()
engine = Engine(view, mount(Path(sys.argv[1])))
print("ready", flush=True)
def tell():
    view.waiting.acquire()
    print("waiting", flush=True)
threading.Thread(target=tell, daemon=True).start()
engine.serve()
"""


def test_a_killed_server_leaves_an_error_and_no_hang(tmp_path: Path) -> None:
    mountpoint = tmp_path / "mnt"
    mountpoint.mkdir()
    server = subprocess.Popen(
        [sys.executable, "-c", SERVER, str(mountpoint)], stdout=subprocess.PIPE, text=True
    )
    failures: list[int | None] = []

    def read() -> None:
        try:
            (mountpoint / "stuck").read_bytes()
        except OSError as error:
            failures.append(error.errno)

    reader = threading.Thread(target=read)
    try:
        assert server.stdout is not None
        assert server.stdout.readline() == "ready\n"
        assert (mountpoint / "f").read_bytes() == b"x"
        assert mounts.mount_state(mountpoint) is MountState.ALIVE
        reader.start()
        assert server.stdout.readline() == "waiting\n"
        server.kill()
        server.wait()
        reader.join(10)
        assert failures
        assert failures[0] in (errno.ENOTCONN, errno.ECONNABORTED, errno.EIO)
        with pytest.raises(OSError, match="Transport endpoint"):
            os.statvfs(mountpoint)
        assert mounts.mount_state(mountpoint) is MountState.DEAD
        mounts.abort(mountpoint)
        assert mounts.repair(mountpoint)
        assert mounts.mount_state(mountpoint) is MountState.NOT_MOUNTED
        assert not mounts.repair(mountpoint)
    finally:
        end(server, mountpoint)


def test_a_server_killed_while_it_tells_of_a_change_leaves_no_hang(tmp_path: Path) -> None:
    """Telling takes a lock that the waiting client holds; whoever waits for it cannot be killed."""
    program = SERVER.replace(
        'file_row(b"stuck", b"x")]}', 'directory_row(b"stuck")], b"/stuck": []}'
    ).replace("    view.waiting.acquire()\n", "    view.waiting.acquire()\n    CHANGE\n")
    program = program.replace(
        "CHANGE", "threading.Thread(target=engine.tree_changed, daemon=True).start()"
    )
    mountpoint = tmp_path / "mnt"
    mountpoint.mkdir()
    server = subprocess.Popen(
        [sys.executable, "-c", program, str(mountpoint)], stdout=subprocess.PIPE, text=True
    )
    failures: list[int | None] = []

    def look() -> None:
        try:
            (mountpoint / "stuck" / "x").stat()
        except OSError as error:
            failures.append(error.errno)

    client = threading.Thread(target=look)
    watchdog = threading.Timer(20, mounts.abort, [mountpoint])
    try:
        watchdog.start()
        assert server.stdout is not None
        assert server.stdout.readline() == "ready\n"
        client.start()
        assert server.stdout.readline() == "waiting\n"
        time.sleep(0.1)  # for the teller to get as far as it can
        server.kill()
        assert server.wait(10) == -signal.SIGKILL
        client.join(10)
        assert not client.is_alive()
        assert failures
    finally:
        watchdog.cancel()
        end(server, mountpoint)


def test_a_stopped_server_counts_as_alive_and_keeps_nobody_waiting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mounts, "_PROBE_SECONDS", 0.5)
    mountpoint = tmp_path / "mnt"
    mountpoint.mkdir()
    server = subprocess.Popen(
        [sys.executable, "-c", SERVER, str(mountpoint)], stdout=subprocess.PIPE, text=True
    )
    try:
        assert server.stdout is not None
        assert server.stdout.readline() == "ready\n"
        assert (mountpoint / "f").read_bytes() == b"x"
        server.send_signal(signal.SIGSTOP)
        assert mounts.mount_state(mountpoint) is MountState.ALIVE
        mounts.abort(mountpoint)
        assert mounts.mount_state(mountpoint) is MountState.DEAD
    finally:
        end(server, mountpoint)


SIGNALLED = """
import signal, sys
class Ended(Exception): pass
def end(*_): raise Ended
signal.signal(signal.SIGTERM, end)
try:
    exec(sys.argv[2])
except Ended:
    print("ended")
"""


def test_a_signal_handler_runs_while_serving_and_may_end_it(tmp_path: Path) -> None:
    mountpoint = tmp_path / "mnt"
    mountpoint.mkdir()
    server = subprocess.Popen(
        [sys.executable, "-c", SIGNALLED, str(mountpoint), SERVER],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert server.stdout is not None
        assert server.stdout.readline() == "ready\n"
        assert (mountpoint / "f").read_bytes() == b"x"
        server.terminate()
        assert server.communicate(timeout=10)[0] == "ended\n"
        assert mounts.mount_state(mountpoint) is MountState.DEAD
    finally:
        end(server, mountpoint)
