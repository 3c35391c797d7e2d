"""Transactions through the commands, as root: in place, in a shell, with everything dying."""

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from tests.support.mounts import is_running, mount_lines, outcrop, wait_until
from tests.support.stratum_zero import FQRN, StratumZero

from outcrop.publisher.lock import publishing_lock

pytestmark = pytest.mark.system


@dataclass
class World:
    """A repository with its union directory at `union`."""

    zero: StratumZero
    union: Path

    def run(self, *words: str, check: bool = True) -> "subprocess.CompletedProcess[str]":
        return outcrop(self.zero.locations.root, *words, check=check)

    def begin(self, *words: str) -> None:
        self.run("transaction", FQRN, *words)

    def start(self, *words: str) -> "subprocess.Popen[str]":
        return subprocess.Popen(
            [Path(sys.executable).with_name("outcrop"), *words],
            env={**os.environ, "OUTCROP_ROOT": str(self.zero.locations.root)},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def published(self, *, is_checked: bool = True) -> dict[bytes, bytes]:
        """Content of all regular files, by the independent checker."""
        checker = self.zero.checked() if is_checked else self.zero.checker()
        entries = checker.entries if is_checked else checker.load()
        return {path: checker.read(path) for path, e in entries.items() if e.kind == 0o100000}

    def shown(self) -> dict[bytes, bytes]:
        """The same as the union directory has it."""
        return {
            b"/" + os.fsencode(file.relative_to(self.union)): file.read_bytes()
            for file in self.union.rglob("*")
            if file.is_file() and not file.is_symlink()
        }

    def server(self) -> int:
        """The process that serves what is beneath."""
        records = (self.zero.locations.run).glob("*/state.json")
        found = [json.loads(record.read_text()) for record in records]
        return next(each["pid"] for each in found if each["mountpoint"].endswith("/rdonly"))

    def unmount(self) -> None:
        for place in (self.union, self.zero.spool / "rdonly"):
            while mount_lines(place):
                subprocess.run(["umount", "-l", place], check=True)


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    zero = StratumZero(tmp_path / "world")
    zero.now = int(tmp_path.stat().st_mtime) - 1000
    zero.create()
    made = World(zero, tmp_path / "union")
    zero.configure(CVMFS_UNION_DIR=made.union)
    source = tmp_path / "source"
    (source / "v1/bin").mkdir(parents=True)
    (source / "v1/bin/tool").write_text("tool 1\n")
    (source / "v1/.cvmfscatalog").touch()
    (source / "v1/data").write_bytes(os.urandom(100_000))
    (source / "old").write_text("old\n")
    zero.publish(source)
    try:
        yield made
    finally:
        records = zero.locations.run.glob("*/state.json")
        servers = [json.loads(record.read_text())["pid"] for record in records]
        made.unmount()
        wait_until(lambda: not any(is_running(pid) for pid in servers))


def test_what_is_changed_in_place_is_published_and_to_be_seen_there(world: World) -> None:
    world.begin()
    (world.union / "v1/bin/tool").write_text("tool 1.1\n")
    (world.union / "v1").rename(world.union / "v1.1")
    (world.union / "old").unlink()
    (world.union / "new").write_text("new\n")
    changed = world.shown()
    assert (world.union / "v1.1/data").exists()
    done = json.loads(world.run("publish", FQRN, "-a", "v1.1", "--json").stdout)
    assert done["tags"] == ["v1.1"]
    assert done["bytes_read"] < 100  # the large file was moved, not read
    assert world.published() == world.shown() == changed
    with pytest.raises(OSError, match="Read-only"):
        (world.union / "more").touch()
    assert not (world.zero.spool / "in_transaction.lock").exists()


def test_transactions_follow_one_another(world: World) -> None:
    for number in range(3):
        world.begin()
        (world.union / f"file-{number}").write_text(str(number))
        world.run("publish", FQRN)
    assert {b"/file-0", b"/file-1", b"/file-2"} <= world.published().keys()
    assert world.shown() == world.published()


def test_aborting_leaves_everything_as_it_was(world: World) -> None:
    before = world.published()
    world.begin()
    (world.union / "new").write_text("new\n")
    world.run("abort", FQRN)
    assert world.published() == world.shown() == before
    assert world.run("abort", FQRN, check=False).returncode == 9


def test_while_a_transaction_is_open_nobody_else_publishes(world: World, tmp_path: Path) -> None:
    world.begin()
    for words in (["publish", FQRN, "--from", str(tmp_path / "source")], ["transaction", FQRN]):
        refused = world.run(*words, check=False)
        assert refused.returncode == 9
        assert "a transaction is open" in refused.stderr
    status = json.loads(world.run("transaction", FQRN, "--status", "--json").stdout)
    assert status["open"] is True
    assert status["directory"] == str(world.union)


def test_a_transaction_of_another_tool_is_left_alone(world: World) -> None:
    (world.zero.spool / "in_transaction.lock").write_text("")
    for words in (["publish", FQRN], ["abort", FQRN, "-f"], ["transaction", FQRN]):
        refused = world.run(*words, check=False)
        assert refused.returncode == 9
        assert "with" in refused.stderr
    assert (world.zero.spool / "in_transaction.lock").exists()


def test_waiting_for_the_transaction_before(world: World) -> None:
    world.begin()
    waiting = world.start("transaction", FQRN, "-t", "60")
    world.run("publish", FQRN)
    _, errors = waiting.communicate(timeout=60)
    assert waiting.returncode == 0, errors


def test_files_that_are_still_written_are_named_and_nothing_is_published(world: World) -> None:
    world.begin()
    with (world.union / "unfinished").open("w") as file:
        file.write("half")
        file.flush()
        refused = world.run("publish", FQRN, check=False)
        assert refused.returncode == 9
        assert f"process {os.getpid()}" in refused.stderr
        assert f"{world.union}/unfinished" in refused.stderr
        assert world.run("abort", FQRN, check=False).returncode == 9
        (world.union / "goes-on").write_text("it does")
        world.run("publish", FQRN, "-f")
    assert world.published()[b"/unfinished"] == b"half"
    assert b"/goes-on" in world.published()


def test_a_template_is_there_at_once_and_no_file_of_it_is_read(world: World) -> None:
    world.begin("-T", "/v1=/v2")
    assert (world.union / "v2/bin/tool").read_text() == "tool 1\n"
    (world.union / "v2/bin/tool").write_text("tool 2\n")
    changed = world.shown()
    assert json.loads(world.run("publish", FQRN, "--json").stdout)["bytes_read"] == 7
    assert world.published() == changed
    assert world.published()[b"/v1/bin/tool"] == b"tool 1\n"


def test_a_dry_run_says_what_would_change_and_the_transaction_goes_on(world: World) -> None:
    before = world.published()
    world.begin()
    (world.union / "new").write_text("new\n")
    (world.union / "v1").rename(world.union / "v3")
    lines = world.run("publish", FQRN, "--dry-run").stdout.splitlines()
    assert {"[add] /new", "[rem] /v1", "[add] /v3"} <= set(lines)
    (world.union / "more").write_text("more\n")
    assert world.published() == before


def test_the_reserved_directory_cannot_be_changed(world: World) -> None:
    world.begin()
    (world.union / ".cvmfs").mkdir()
    refused = world.run("publish", FQRN, check=False)
    assert refused.returncode == 9
    assert "/.cvmfs" in refused.stderr
    (world.union / ".cvmfs").rmdir()
    world.run("publish", FQRN)


def test_a_repository_with_its_mounts_can_be_removed(world: World) -> None:
    world.begin()
    world.run("publish", FQRN)
    server = world.server()
    world.run("rmfs", FQRN, "-f")
    assert not world.zero.spool.exists()
    assert not mount_lines(world.union)
    wait_until(lambda: not is_running(server))


# --- everything dies ---------------------------------------------------------------------------


def test_a_dead_mount_server_costs_nothing(world: World) -> None:
    world.begin()
    (world.union / "new").write_text("new\n")
    os.kill(world.server(), signal.SIGKILL)
    with pytest.raises(OSError, match=r"not connected|connection abort"):
        (world.union / "v1/data").read_bytes()
    world.run("transaction", FQRN, "--resume")
    assert (world.union / "v1/data").stat().st_size == 100_000
    assert (world.union / "new").read_text() == "new\n"
    os.kill(world.server(), signal.SIGKILL)
    world.run("publish", FQRN)
    assert world.published() == world.shown()
    assert b"/new" in world.published()


def test_after_a_reboot_the_transaction_is_still_there(world: World) -> None:
    world.begin()
    (world.union / "new").write_text("new\n")
    (world.union / "old").unlink()
    expected = world.shown()
    server = world.server()
    world.unmount()
    wait_until(lambda: not is_running(server))
    assert world.run("transaction", FQRN, check=False).returncode == 9
    world.run("transaction", FQRN, "--resume")
    assert world.shown() == expected
    world.unmount()
    world.run("publish", FQRN)
    assert world.published() == expected


def test_a_publish_killed_anywhere_loses_nothing(world: World) -> None:
    before = world.published()
    world.begin()
    for number in range(200):
        (world.union / f"file-{number}").write_bytes(os.urandom(2000))
    expected = world.shown()
    for delay in (0.2, 0.3, 0.35, 0.4, 0.45, 0.5, 0.6):
        publishing = world.start("publish", FQRN)
        with contextlib.suppress(subprocess.TimeoutExpired):
            publishing.wait(delay)
        publishing.kill()
        publishing.communicate()
        # The reflog may be a step ahead of the manifest (spec 34.3), content may not.
        assert world.published(is_checked=False) in (before, expected)
        status = json.loads(world.run("transaction", FQRN, "--status", "--json").stdout)
        if not status["open"]:
            break
    last = world.run("publish", FQRN, check=False)
    is_settled = "was published" in last.stderr or "no transaction" in last.stderr
    assert last.returncode == 0 or is_settled
    assert world.published() == world.shown() == expected
    world.begin()
    world.run("abort", FQRN)


def test_nothing_is_published_that_the_repository_refuses(world: World) -> None:
    world.begin()
    (world.union / "new").write_text("new\n")
    (world.zero.locations.keys / f"{FQRN}.key").rename(world.zero.locations.keys / "away")
    assert world.run("publish", FQRN, check=False).returncode == 7
    (world.zero.locations.keys / "away").rename(world.zero.locations.keys / f"{FQRN}.key")
    (world.union / "goes-on").write_text("it does")
    world.run("publish", FQRN)
    assert {b"/new", b"/goes-on"} <= world.published().keys()


def test_a_full_disk_leaves_the_transaction_as_it_is(world: World) -> None:
    spool = world.zero.spool
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=6m", "tmpfs", spool / "tmp"], check=True)
    try:
        world.begin()
        (world.union / "new").write_text("new\n")
        ballast = (spool / "tmp/ballast").open("wb", buffering=0)
        with ballast as file, contextlib.suppress(OSError):
            while True:
                file.write(bytes(1 << 16))
        refused = world.run("publish", FQRN, check=False)
        assert refused.returncode == 9
        assert "make room" in refused.stderr
        (spool / "tmp/ballast").unlink()
        (world.union / "goes-on").write_text("it does")
        world.run("publish", FQRN)
    finally:
        subprocess.run(["umount", "-l", spool / "tmp"], check=True)
    assert {b"/new", b"/goes-on"} <= world.published().keys()


def test_who_holds_the_lock_is_waited_for_or_named(world: World) -> None:
    world.begin()
    (world.union / "new").write_text("new\n")
    with publishing_lock(world.zero.spool, FQRN, within_transaction=True):
        for command in ("publish", "abort"):
            refused = world.run(command, FQRN, check=False)
            assert refused.returncode == 9
            assert f"process {os.getpid()}" in refused.stderr
        waiting = world.start("publish", FQRN, "-t", "60")
        with pytest.raises(subprocess.TimeoutExpired):
            waiting.wait(1)
    _, errors = waiting.communicate(timeout=60)
    assert waiting.returncode == 0, errors
    assert b"/new" in world.published()


# --- in a shell --------------------------------------------------------------------------------


def test_a_command_that_succeeds_is_published(world: World) -> None:
    script = f"cd {world.union} && echo new > new && rm old && mv v1/bin v1/tools"
    world.run("transaction", FQRN, "--shell", "-a", "s", "--", "sh", "-c", script)
    found = world.published()
    assert found[b"/new"] == b"new\n"
    assert b"/old" not in found
    assert found[b"/v1/tools/tool"] == b"tool 1\n"
    assert not mount_lines(world.union)


def test_a_command_that_fails_changes_nothing(world: World) -> None:
    before = world.published()
    script = f"rm -r {world.union}/*; exit 5"
    done = world.run("transaction", FQRN, "--shell", "--", "sh", "-c", script, check=False)
    assert done.returncode == 5
    assert world.published() == before
    world.begin()


def test_a_killed_shell_leaves_its_changes_to_be_published(world: World) -> None:
    script = f"echo new > {world.union}/new; echo ready; exec sleep 60"
    shell = world.start("transaction", FQRN, "--shell", "--", "sh", "-c", script)
    assert shell.stdout is not None
    assert shell.stdout.readline() == "ready\n"
    refused = world.run("publish", FQRN, check=False)
    assert refused.returncode == 9
    assert f"process {shell.pid}" in refused.stderr
    shell.kill()
    shell.communicate()
    script = f"cat {world.union}/new && touch {world.union}/more"
    done = world.run("transaction", FQRN, "--resume", "--on-exit", "ask", "--", "sh", "-c", script)
    assert "new\n" in done.stdout
    world.run("publish", FQRN)
    assert {b"/new", b"/more"} <= world.published().keys()


def test_entering_changes_nothing_for_others_and_can_be_gone_on_with(
    world: World, tmp_path: Path
) -> None:
    before = world.published()
    place = f"/cvmfs/{FQRN}"
    kept = str(tmp_path / "kept")
    script = f"rm -r {place}/v1 && echo mine > {place}/mine"
    world.run("enter", FQRN, "--session", kept, "--", "sh", "-c", script)
    done = world.run("enter", FQRN, "--session", kept, "--", "ls", place)
    assert done.stdout.split() == ["mine", "old"]
    assert "v1" in world.run("enter", FQRN, "--", "ls", place).stdout
    assert world.published() == before
