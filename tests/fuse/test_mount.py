"""Mounting and unmounting, and knowing what is mounted."""

import contextlib
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.support.fuse_views import DictView, file_row
from tests.support.ordinary_user import OrdinaryUser, ordinary_user

from outcrop.fuse import mount as mounts
from outcrop.fuse.engine import Engine
from outcrop.fuse.errors import (
    FuseUnavailable,
    MountError,
    MountpointBusy,
    MountpointUnusable,
    NotMounted,
)
from outcrop.fuse.mount import MountOptions, MountState

ServeMount = Callable[..., tuple[Path, Engine]]


def view() -> DictView:
    return DictView({b"": [file_row(b"f", b"hello\n")]})


@contextlib.contextmanager
def unserved(mountpoint: Path, **settings: object) -> Iterator[str]:
    """A mount nobody serves; gives its line of mountinfo."""
    fd = mounts.mount(mountpoint, **settings)  # type: ignore[arg-type]
    try:
        yield next(
            line
            for line in Path("/proc/self/mountinfo").read_text().splitlines()
            if f" {mountpoint} " in line
        )
    finally:
        os.close(fd)
        mounts.unmount(mountpoint, lazy=True)


# ---- without a mount ------------------------------------------------------------------------


def test_nothing_is_mounted_at_an_ordinary_directory(tmp_path: Path) -> None:
    assert mounts.mount_state(tmp_path) is MountState.NOT_MOUNTED
    assert mounts.find_mount(tmp_path / "missing") is None
    assert not mounts.repair(tmp_path)
    for undo in (mounts.unmount, mounts.abort):
        with pytest.raises(NotMounted, match="no FUSE file system"):
            undo(tmp_path)


def test_a_mount_point_must_be_a_directory(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(MountpointUnusable, match="No such file") as caught:
        mounts.mount(tmp_path / "missing")
    assert caught.value.hint == "create the directory first"
    with pytest.raises(MountpointUnusable, match="is not a directory"):
        mounts.mount(tmp_path / "file")


def test_a_missing_device_is_told_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mounts, "DEVICE", str(tmp_path / "fuse"))
    with pytest.raises(FuseUnavailable, match="no such file") as caught:
        mounts.mount(tmp_path)
    assert caught.value.exit_code == 8
    assert "modprobe fuse" in str(caught.value.hint)


def test_a_missing_helper_is_told_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setattr("shutil.which", lambda _: None)
    with pytest.raises(FuseUnavailable, match="fusermount3 is not installed") as caught:
        mounts.mount(tmp_path)
    assert caught.value.hint == "install the fuse3 package"


@pytest.mark.parametrize(
    ("said", "kind", "wanted"),
    [
        ("option allow_other only allowed if 'user_allow_other' is set", FuseUnavailable, "root"),
        ("user has no write access to mountpoint /x", MountpointUnusable, "no write access"),
        ("mount failed: Operation not permitted", FuseUnavailable, "not permitted"),
        ("", FuseUnavailable, "did not say why"),
    ],
)
def test_what_the_helper_complains_of_is_passed_on(
    said: str, kind: type[MountError], wanted: str
) -> None:
    error = mounts._helper_error(Path("/x"), f"fusermount3: {said}\n" if said else "")
    assert type(error) is kind
    assert wanted in str(error)


def test_mountinfo_is_read_with_its_escapes(monkeypatch: pytest.MonkeyPatch) -> None:
    text = (
        "29 1 8:1 / / rw - ext4 /dev/sda1 rw\n"
        r"57 27 0:44 / /mnt/a\040b\134c ro,nosuid shared:3 master:1 - fuse.outcrop x\040y ro"
        "\n"
        "58 27 3:5 / /mnt/block ro - fuseblk /dev/x ro\n"
        "59 27 1:45 / /mnt/plain ro - fuse plain ro\n"
    )
    monkeypatch.setattr(Path, "read_text", lambda *_, **__: text)
    first, second = mounts.iter_mounts()
    assert (first.device, first.mountpoint, first.source) == (44, Path("/mnt/a b\\c"), "x y")
    assert (second.device, second.type) == ((1 << 20) + 45, "fuse")


# ---- as root --------------------------------------------------------------------------------


@pytest.mark.system
def test_a_mount_is_read_only_and_as_safe_as_can_be(tmp_path: Path) -> None:
    with unserved(tmp_path, fsname="name, with a comma") as line:
        options, _, rest = line.partition(" - ")
        assert {"ro", "nosuid", "nodev"} <= set(options.split()[5].split(","))
        assert rest.startswith("fuse.outcrop name,\\040with\\040a\\040comma ro,")
        assert rest.endswith("default_permissions")
        assert "allow_other" not in rest


@pytest.mark.system
def test_a_mount_can_be_opened_up(tmp_path: Path) -> None:
    options = MountOptions(allow_other=True, default_permissions=False, suid=True, dev=True)
    with unserved(tmp_path, options=options) as line:
        assert "nosuid" not in line
        assert "nodev" not in line
        assert "default_permissions" not in line
        assert "allow_other" in line


@pytest.mark.system
@pytest.mark.parametrize("name", ["a b", "tab\there", "new\nline", "back\\slash", "ünï", "#hash"])
def test_a_mount_point_may_have_any_name(serve_mount: ServeMount, name: str) -> None:
    mountpoint, _ = serve_mount(view(), name)
    assert (mountpoint / "f").read_bytes() == b"hello\n"
    assert mounts.mount_state(mountpoint) is MountState.ALIVE
    mounts.unmount(mountpoint)
    assert mounts.mount_state(mountpoint) is MountState.NOT_MOUNTED


@pytest.mark.system
def test_a_mount_point_is_found_through_symlinks_and_relative_paths(
    serve_mount: ServeMount, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mountpoint, _ = serve_mount(view())
    (tmp_path / "elsewhere").symlink_to(tmp_path)
    assert mounts.mount_state(tmp_path / "elsewhere" / "mnt") is MountState.ALIVE
    monkeypatch.chdir(tmp_path)
    assert mounts.mount_state(Path("mnt")) is MountState.ALIVE
    assert mounts.find_mount(mountpoint) == mounts.find_mount(Path("./mnt/"))


@pytest.mark.system
def test_a_live_mount_is_not_mounted_over(serve_mount: ServeMount) -> None:
    mountpoint, _ = serve_mount(view())
    with pytest.raises(MountpointBusy, match="mounted there already"):
        mounts.mount(mountpoint)


@pytest.mark.system
def test_a_dead_mount_is_mounted_over(tmp_path: Path) -> None:
    os.close(mounts.mount(tmp_path))
    assert mounts.mount_state(tmp_path) is MountState.DEAD
    with unserved(tmp_path):
        assert len([entry for entry in mounts.iter_mounts() if entry.mountpoint == tmp_path]) == 1


@pytest.mark.system
def test_a_mount_in_use_is_unmounted_only_lazily(serve_mount: ServeMount) -> None:
    mountpoint, _ = serve_mount(view())
    with (mountpoint / "f").open("rb") as opened:
        with pytest.raises(MountpointBusy, match="is in use"):
            mounts.unmount(mountpoint)
        mounts.unmount(mountpoint, lazy=True)
        assert mounts.mount_state(mountpoint) is MountState.NOT_MOUNTED
        assert opened.read() == b"hello\n"


# ---- as anybody -----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def user() -> Iterator[OrdinaryUser]:
    with ordinary_user() as found:
        yield found


AS_USER = """
import os, sys, threading
from pathlib import Path
from outcrop.errors import OutcropError
from outcrop.fuse import mount as mounts
from outcrop.fuse.engine import Engine
from outcrop.fuse.mount import MountOptions
from tests.support.fuse_views import DictView, file_row
mountpoint = Path.home() / sys.argv[1]
mountpoint.mkdir(exist_ok=True)
try:
    fd = mounts.mount(mountpoint, fsname="a,b", options=eval(sys.argv[2]))
except OutcropError as error:
    sys.exit(f"{type(error).__name__}: {error} ({error.hint})")
engine = Engine(DictView({b"": [file_row(b"f", b"hello")]}), fd)
serving = threading.Thread(target=engine.serve, daemon=True)
serving.start()
print((mountpoint / "f").read_text(), os.getuid(), mounts.find_mount(mountpoint).source)
print(mounts.mount_state(mountpoint))
with (mountpoint / "f").open():
    try:
        mounts.unmount(mountpoint)
    except OutcropError as error:
        print(type(error).__name__)
    mounts.unmount(mountpoint, lazy=True)
print(mounts.mount_state(mountpoint))
serving.join(10)
print(serving.is_alive())
"""


@pytest.mark.system
def test_an_ordinary_user_mounts_through_the_helper(user: OrdinaryUser) -> None:
    done = user.run(AS_USER, "mnt", "MountOptions()")
    assert done.stderr == ""
    assert done.stdout.splitlines() == [
        f"hello {user.uid} a,b",
        "MountState.ALIVE",
        "MountpointBusy",
        "MountState.NOT_MOUNTED",
        "False",
    ]


@pytest.mark.system
def test_an_ordinary_user_is_told_why_not(user: OrdinaryUser) -> None:
    done = user.run(AS_USER, "mnt", "MountOptions(allow_other=True)")
    assert done.returncode == 1
    assert "only root may use allow_other here (add user_allow_other" in done.stderr


@pytest.mark.system
def test_a_user_without_access_to_the_device_is_told_so(user: OrdinaryUser) -> None:
    program = (
        "from pathlib import Path\n"
        "from outcrop.fuse import mount as mounts\n"
        "mounts.DEVICE = '/proc/1/mem'\n" + AS_USER
    )
    done = user.run(program, "mnt", "MountOptions()")
    assert "FuseUnavailable: cannot open /proc/1/mem: permission denied" in done.stderr


@pytest.mark.system
def test_a_user_may_abort_their_own_mount(user: OrdinaryUser) -> None:
    program = AS_USER.partition("with (mountpoint")[0] + (
        "mounts.abort(mountpoint)\n"
        "serving.join(10)\n"
        "print(serving.is_alive())\n"
        "print(mounts.mount_state(mountpoint), mounts.repair(mountpoint))\n"
    )
    done = user.run(program, "mnt", "MountOptions()")
    assert done.stdout.splitlines()[-2:] == ["False", "MountState.DEAD True"], done.stderr


def test_the_probe_is_a_program_of_its_own() -> None:
    done = subprocess.run([sys.executable, "-ISc", mounts._PROBE, "/"], check=False)
    assert done.returncode == 0
