"""The commands as processes: real mounts, real servers, real signals."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from tests.support.command_line import Stored, store
from tests.support.keys import other_keys
from tests.support.mounts import is_running, mounted, outcrop, wait_until
from tests.support.simulator import File, RepositorySimulator

COMMAND = Path(sys.executable).with_name("outcrop")
TOOLS = Path(__file__).parent.parent.parent / "tools"

pytestmark = pytest.mark.system


@pytest.fixture
def world(tmp_path: Path) -> Path:
    return tmp_path / "world"


@pytest.fixture
def repository(tmp_path: Path) -> Stored:
    tool = File(b"#!/bin/sh\necho $0 $*\n", mode=0o755)
    return store(RepositorySimulator({b"/README": b"hello\n", b"/bin/tool": tool}), tmp_path)


@contextlib.contextmanager
def running(
    root: Path, *arguments: str, command: Sequence[str] = (str(COMMAND),)
) -> Iterator["subprocess.Popen[bytes]"]:
    """A command that stays; killed at the end if it did not end by itself."""
    process = subprocess.Popen(
        [*command, *arguments],
        env={**os.environ, "OUTCROP_ROOT": str(root)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def read_json(process: "subprocess.Popen[bytes]") -> Any:
    """The JSON document a command prints before it goes on."""
    assert process.stdout is not None
    text = b""
    while not text.endswith(b"}\n"):
        line = process.stdout.readline()
        assert line, process.communicate()
        text += line
    return json.loads(text)


def serve_simulated(world: Path, repository: Stored) -> None:
    repository.simulator.dump(world / "srv/cvmfs" / repository.simulator.fqrn)


# --- serve -----------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_serve_serves_until_it_is_told_to_end(
    number: signal.Signals, world: Path, repository: Stored
) -> None:
    serve_simulated(world, repository)
    with running(world, "serve", "--port", "0", "--json", "--log-level", "info") as process:
        url = read_json(process)["url"]
        with urllib.request.urlopen(f"{url}/sim.example.org/.cvmfspublished") as answer:
            assert answer.read() == repository.simulator.objects[".cvmfspublished"]
        process.send_signal(number)
        _, stderr = process.communicate(timeout=20)
    assert process.returncode == 0
    assert b"GET /cvmfs/sim.example.org/.cvmfspublished 200 " in stderr


def test_serve_says_that_a_port_is_taken(world: Path) -> None:
    with running(world, "serve", "--port", "0", "--json") as process:
        port = read_json(process)["port"]
        ended = outcrop(world, "serve", "--port", str(port), check=False)
    assert ended.returncode == 5
    assert f"cannot listen on 127.0.0.1 port {port}" in ended.stderr


# --- mount -----------------------------------------------------------------------------------


def test_mount_returns_when_the_mount_is_ready(world: Path, repository: Stored) -> None:
    place = world.parent / "mnt"
    with mounted(world, str(repository.directory), place, "--key", str(repository.key)) as mount:
        assert (place / "README").read_text() == "hello\n"
        assert is_running(mount.pid)
        outcrop(world, "umount", str(place))
        assert not is_running(mount.pid)
        assert not os.path.ismount(place)


def test_paths_given_to_mount_are_relative_to_the_caller(world: Path, repository: Stored) -> None:
    here = repository.directory.parent
    (here / "mnt").mkdir()
    arguments = ["mount", f"./{repository.directory.name}", "mnt", "--key", repository.key.name]
    subprocess.run(
        [COMMAND, *arguments, "--cache", "cache"],
        cwd=here, env={**os.environ, "OUTCROP_ROOT": str(world)}, check=True, capture_output=True,
    )  # fmt: skip
    try:
        assert (here / "mnt/README").read_text() == "hello\n"
        assert (here / "cache").is_dir()
    finally:
        outcrop(world, "umount", str(here / "mnt"))


@pytest.mark.parametrize(
    ("options", "code", "kind"),
    [
        (["--key", "{other}"], 4, "BadSignature"),
        (["--tag", "none", "--key", "{key}"], 6, "TagNotFound"),
        ([], 7, "SettingsError"),
    ],
)
def test_mount_fails_as_reading_does_and_mounts_nothing(
    options: list[str], code: int, kind: str, world: Path, repository: Stored, tmp_path: Path
) -> None:
    other = tmp_path / "other.pub"
    other.write_bytes(other_keys().master_public_pem)
    place = tmp_path / "mnt"
    place.mkdir()
    options = [option.format(other=other, key=repository.key) for option in options]
    ended = outcrop(
        world, "mount", str(repository.directory), str(place), "--json", *options, check=False
    )
    assert (ended.returncode, json.loads(ended.stderr)["kind"]) == (code, kind)
    assert not os.path.ismount(place)
    assert outcrop(world, "status").stdout == ""


def test_mount_on_a_missing_directory_says_so(world: Path, repository: Stored) -> None:
    ended = outcrop(
        world, "mount", str(repository.directory), "/nowhere/mnt", "--key", str(repository.key),
        check=False,
    )  # fmt: skip
    assert ended.returncode == 8
    assert "/nowhere/mnt" in ended.stderr


def test_mount_in_the_foreground_unmounts_at_ctrl_c(world: Path, repository: Stored) -> None:
    place = world.parent / "mnt"
    place.mkdir()
    options = ("-f", "--key", str(repository.key))
    with running(world, "mount", str(repository.directory), str(place), *options) as process:
        wait_until(lambda: os.path.ismount(place))
        assert (place / "README").read_text() == "hello\n"
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=20)
    assert process.returncode == 0
    assert not os.path.ismount(place)


def test_mount_in_the_foreground_survives_a_hangup_under_nohup(
    world: Path, repository: Stored
) -> None:
    place = world.parent / "mnt"
    place.mkdir()
    options = ("-f", "--key", str(repository.key))
    nohup = ("sh", "-c", 'trap "" HUP; exec "$@"', "sh", str(COMMAND))
    with running(
        world, "mount", str(repository.directory), str(place), *options, command=nohup
    ) as process:
        wait_until(lambda: os.path.ismount(place))
        process.send_signal(signal.SIGHUP)
        assert (place / "README").read_text() == "hello\n"
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(timeout=0.5)
        process.terminate()
        process.communicate(timeout=20)
    assert process.returncode == 0
    assert not os.path.ismount(place)


def test_a_mount_can_be_named_through_a_link(world: Path, repository: Stored) -> None:
    place = world.parent / "mnt"
    (world.parent / "link").symlink_to("mnt")
    with mounted(world, str(repository.directory), place, "--key", str(repository.key)):
        shown = json.loads(outcrop(world, "status", str(world.parent / "link"), "--json").stdout)
        assert shown[0]["mountpoint"] == str(place)
        outcrop(world, "umount", str(world.parent / "link"))
        assert not os.path.ismount(place)


def test_a_dead_mount_is_shown_and_cleared_away(world: Path, repository: Stored) -> None:
    place = world.parent / "mnt"
    with mounted(world, str(repository.directory), place, "--key", str(repository.key)) as mount:
        mount.kill()
        (shown,) = json.loads(outcrop(world, "status", "--json").stdout)
        assert shown["alive"] is False
        assert f"outcrop umount {place}" in outcrop(world, "status").stdout
        outcrop(world, "umount", str(place))
        assert not os.path.ismount(place)
        assert json.loads(outcrop(world, "status", "--json").stdout) == []


def test_a_busy_mount_is_unmounted_only_lazily(world: Path, repository: Stored) -> None:
    place = world.parent / "mnt"
    target = (str(repository.directory), place, "--key", str(repository.key))
    with mounted(world, *target), (place / "README").open():
        ended = outcrop(world, "umount", str(place), "--json", check=False)
        assert (ended.returncode, json.loads(ended.stderr)["kind"]) == (8, "MountpointBusy")
        assert (place / "README").exists()
        outcrop(world, "umount", "--lazy", str(place))
        assert not os.path.ismount(place)


def test_remount_shows_the_new_revision(world: Path, repository: Stored) -> None:
    place = world.parent / "mnt"
    with mounted(world, str(repository.directory), place, "--key", str(repository.key)) as mount:
        assert mount.remount() == f"{place}: Catalog up to date, revision 1\n"
        repository.publish({b"/README": b"changed\n"})
        assert mount.remount() == f"{place}: New revision applied, revision 2\n"
        assert (place / "README").read_text() == "changed\n"
        (repository.directory / ".cvmfspublished").write_bytes(b"garbage")
        failed = outcrop(world, "remount", check=False)
        assert (failed.returncode, failed.stdout.count("Failed")) == (1, 1)


def test_status_tells_revision_cache_and_requests(world: Path, repository: Stored) -> None:
    place = world.parent / "mnt"
    with mounted(world, str(repository.directory), place, "--key", str(repository.key)):
        (place / "README").read_text()
        text = outcrop(world, "status").stdout
    assert f"{place}  sim.example.org  revision 1\n" in text
    assert str(repository.directory) in text
    assert " requests\n" in text


# --- exec ------------------------------------------------------------------------------------


def test_exec_runs_a_command_that_sees_the_repository(world: Path, repository: Stored) -> None:
    tool = "/cvmfs/sim.example.org/bin/tool"
    target = (str(repository.directory), "--key", str(repository.key))
    ended = outcrop(world, "exec", *target, "--", tool, "--json", "a b")
    assert ended.stdout == f"{tool} --json a b\n"
    assert not Path(tool).exists()


def test_exec_ends_with_the_code_of_the_command(world: Path, repository: Stored) -> None:
    target = (str(repository.directory), "--key", str(repository.key), "--")
    assert outcrop(world, "exec", *target, "sh", "-c", "exit 42", check=False).returncode == 42
    assert outcrop(world, "exec", *target, "no-such-tool", check=False).returncode == 127


def test_exec_shows_several_repositories(world: Path, tmp_path: Path) -> None:
    (world / "etc/cvmfs/keys").mkdir(parents=True)
    names = ["one.example.org", "two.example.org"]
    for name in names:
        simulator = RepositorySimulator({b"/name": name.encode()}, fqrn=name)
        simulator.dump(world / "srv/cvmfs" / name)
        (world / f"etc/cvmfs/keys/{name}.pub").write_bytes(simulator.public_key)
    ended = outcrop(world, "exec", ",".join(names), "--", "sh", "-c", "cat /cvmfs/*/name")
    assert ended.stdout == "".join(names)


# --- all of it -------------------------------------------------------------------------------


def test_the_demonstration_succeeds_and_leaves_nothing(tmp_path: Path) -> None:
    ended = subprocess.run(
        [sys.executable, TOOLS / "demo.py"],
        env={**os.environ, "TMPDIR": str(tmp_path), "NO_COLOR": "1"},
        capture_output=True, text=True, timeout=150, check=False,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "hello from revision 2" in ended.stdout
    assert "4 requests" in ended.stdout
    assert os.listdir(tmp_path) == []


SMALL_DEMO = """
import signal, sys, time
sys.path.insert(0, sys.argv[1])
import demo

demo.collect_library = lambda tree: tree.mkdir() or tree
demo.Demo.run_program = lambda self, root: None
time.sleep = lambda seconds: None
#MORE
sys.exit(demo.main())
"""


def small_demo(tmp_path: Path, more: str = "", **options: Any) -> "subprocess.Popen[str]":
    """The demonstration without its large tree."""
    return subprocess.Popen(
        [sys.executable, "-c", SMALL_DEMO.replace("#MORE", more), TOOLS],
        env={**os.environ, "TMPDIR": str(tmp_path), "PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE, text=True, **options,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("step", "number"),
    [
        ("Serve it", signal.SIGINT),
        ("Mount it", signal.SIGINT),
        ("Publish a second", signal.SIGINT),
        ("Publish a second", signal.SIGTERM),
        ("Publish a second", signal.SIGHUP),
        ("Unmount", signal.SIGINT),
    ],
)
def test_the_demonstration_cleans_up_when_interrupted(
    step: str, number: signal.Signals, tmp_path: Path
) -> None:
    with small_demo(tmp_path) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if step in line:
                break
        for _ in range(3):  # somebody impatient
            process.send_signal(number)
            time.sleep(0.05)
        rest = process.stdout.read()
    # While all is being unmounted there is nothing left to interrupt.
    assert process.returncode == (0 if step == "Unmount" else 130), rest
    assert os.listdir(tmp_path) == []


INTERRUPTED_AT_A_START = """
class Popen(demo.subprocess.Popen):
    def __init__(self, command, **options):
        if command[0] == "sleep":
            super().__init__(command, **options)
            signal.raise_signal(signal.SIGINT)
        else:
            super().__init__(command, **options)

demo.subprocess.Popen = Popen
demo.Demo.run_program = lambda self, root: demo.run(["sleep", "600"], cwd=root)
"""


def test_the_demonstration_ends_a_program_that_was_starting_when_interrupted(
    tmp_path: Path,
) -> None:
    with small_demo(tmp_path, INTERRUPTED_AT_A_START) as process:
        output, _ = process.communicate(timeout=60)
    assert process.returncode == 130, output
    assert os.listdir(tmp_path) == []


GUEST = "demo.Demo.walk = lambda self: globals().update(guest=open(self.place / 'mnt/greeting'))"


def test_the_demonstration_unmounts_while_somebody_reads_and_says_so(tmp_path: Path) -> None:
    with small_demo(tmp_path, GUEST, stderr=subprocess.PIPE) as process:
        output, errors = process.communicate(timeout=60)
    assert (process.returncode, errors) == (1, "umount mnt … ended with 8\n")
    assert "is in use" in output.replace("\n", "")
    assert os.listdir(tmp_path) == []


def test_the_demonstration_cleans_up_when_nobody_reads_what_it_says(tmp_path: Path) -> None:
    with small_demo(tmp_path, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if "Look at all" in line:
                break
        process.stdout.close()
        assert process.wait(timeout=60) == 1
    assert os.listdir(tmp_path) == []


# --- Ctrl-C ----------------------------------------------------------------------------------


def test_an_interrupted_publish_changes_nothing_and_leaves_no_lock(
    world: Path, tmp_path: Path
) -> None:
    outcrop(world, "mkfs", "made.example.org")
    manifest = world / "srv/cvmfs/made.example.org/.cvmfspublished"
    before = manifest.read_bytes()
    tree = tmp_path / "tree"
    tree.mkdir()
    for number in range(60):
        (tree / f"{number}").write_bytes(os.urandom(1 << 20))
    stored = world / "srv/cvmfs/made.example.org/data"
    known = sum(1 for _ in stored.rglob("*"))
    with running(world, "publish", "made.example.org", "--from", str(tree)) as process:
        wait_until(lambda: sum(1 for _ in stored.rglob("*")) > known + 3)
        process.send_signal(signal.SIGINT)
        _, stderr = process.communicate(timeout=30)
    assert (process.returncode, stderr) == (130, b"outcrop: interrupted\n")
    assert manifest.read_bytes() == before
    assert outcrop(world, "publish", "made.example.org", "--from", str(tree)).returncode == 0


def test_an_interrupted_copy_leaves_no_half_file(world: Path, tmp_path: Path) -> None:
    files = {b"/%d" % number: os.urandom(1 << 18) for number in range(100)}
    repository = store(RepositorySimulator(files), tmp_path)
    copy = tmp_path / "copy"
    arguments = ("cp", str(repository.directory), "/", str(copy), "--key", str(repository.key))
    with running(world, *arguments) as process:
        wait_until(lambda: copy.exists() and len(os.listdir(copy)) > 5)
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=30)
    assert process.returncode in (130, 0)
    for name in os.listdir(os.fsencode(copy)):
        assert (copy / os.fsdecode(name)).read_bytes() == files[b"/" + name]
