"""Several commands on one repository at once, and commands that are killed: nothing is lost."""

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support.stratum_zero import StratumZero

pytestmark = pytest.mark.system

OUTCROP = (sys.executable, "-c", "from outcrop.cli.main import main; main()")
FQRN = "pub.example.org"


@pytest.fixture
def stratum_zero(tmp_path: Path) -> StratumZero:
    found = StratumZero(tmp_path / "world")
    found.now = int(time.time()) - 100
    found.create()
    found.configure(CVMFS_GARBAGE_COLLECTION="true")
    empty = tmp_path / "first"
    empty.mkdir()
    found.publish(empty)
    return found


_started: list[subprocess.Popen[str]] = []


@pytest.fixture(autouse=True)
def _nobody_stays() -> Iterator[None]:
    yield
    while _started:
        process = _started.pop()
        process.kill()
        process.communicate()


def start(stratum_zero: StratumZero, *arguments: object) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [*OUTCROP, *map(str, arguments)],
        env={**os.environ, "OUTCROP_ROOT": str(stratum_zero.locations.root)},
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip
    _started.append(process)
    return process


def check_whole(stratum_zero: StratumZero) -> None:
    """Nothing is wrong but, at most, that the reflog is ahead of the manifest (spec 14)."""
    problems = stratum_zero.checker().check()
    assert [problem for problem in problems if problem != "reflog: hash"] == []


def tree(place: Path, number: int, *, files: int = 60) -> Path:
    place.mkdir()
    for name in range(files):
        (place / f"f{name}").write_text(f"{number} {name} " * 200)
    return place


def ended(process: subprocess.Popen[str]) -> tuple[int, str]:
    _, stderr = process.communicate(timeout=120)
    return process.returncode, stderr


def test_publishers_that_wait_lose_nothing(stratum_zero: StratumZero, tmp_path: Path) -> None:
    sources = [tree(tmp_path / f"s{n}", n) for n in range(6)]
    running = [
        start(stratum_zero, "publish", FQRN, "--from", source, "--to", f"/{source.name}",
              "--wait", 100)
        for source in sources
    ]  # fmt: skip
    assert [ended(process) for process in running] == [(0, "")] * 6
    entries = stratum_zero.checked().entries
    for source in sources:
        assert all(b"/%s/f%d" % (os.fsencode(source.name), n) in entries for n in range(60))


def test_a_publisher_that_does_not_wait_is_told_who_is_at_it(
    stratum_zero: StratumZero, tmp_path: Path
) -> None:
    fifo = tmp_path / "slow"
    os.mkfifo(fifo)
    first = start(stratum_zero, "ingest", FQRN, "-t", fifo, "-b", "/slow")
    with fifo.open("wb"):  # the archive does not come
        source = tree(tmp_path / "s", 1)
        deadline = time.monotonic() + 60
        lock = stratum_zero.spool / "is_publishing.lock"
        while not (lock.exists() and lock.read_text() == f"{first.pid}\n"):
            assert time.monotonic() < deadline
            assert first.poll() is None, first.communicate()
            time.sleep(0.01)
        for arguments in (
            ("publish", FQRN, "--from", source),
            ("gc", FQRN, "--yes"),
            ("tag", FQRN, "--add", "v1"),
            ("rollback", FQRN, "--yes"),
            ("rmfs", FQRN, "--yes"),
        ):
            code, stderr = ended(start(stratum_zero, *arguments))
            assert code == 9, (arguments, stderr)
            assert f"process {first.pid}" in stderr, arguments
    assert first.wait(timeout=60) != 0  # an archive without a single byte is none
    assert ended(start(stratum_zero, "publish", FQRN, "--from", source)) == (0, "")
    stratum_zero.checked()


def test_publish_garbage_collection_and_tags_at_once(
    stratum_zero: StratumZero, tmp_path: Path
) -> None:
    sources = [tree(tmp_path / f"s{n}", n) for n in range(3)]
    running = []
    for number, source in enumerate(sources):
        running += [
            start(stratum_zero, "publish", FQRN, "--from", source, "--to", f"/{source.name}",
                  "-a", f"v{number}", "--wait", 100),
            start(stratum_zero, "gc", FQRN, "-r", 0, "--yes", "--wait", 100),
        ]  # fmt: skip
    tags = [start(stratum_zero, "tag", FQRN, "--add", f"t{number}") for number in range(3)]
    for process in running:
        code, stderr = ended(process)
        assert code == 0, (process.args, stderr)
    for number, process in enumerate(tags):  # these do not wait: refused, they come again
        code, stderr = ended(process)
        assert code in (0, 9), stderr
        if code:
            again = start(stratum_zero, "tag", FQRN, "--add", f"t{number}")
            assert ended(again) == (0, "")
    checker = stratum_zero.checked()
    assert all(b"/s%d/f0" % n in checker.entries for n in range(3))
    assert ended(start(stratum_zero, "check", FQRN, "--all-tags")) == (0, "")


@pytest.mark.parametrize("seed", range(2))
def test_commands_killed_at_any_moment_leave_a_whole_repository(
    stratum_zero: StratumZero, tmp_path: Path, seed: int
) -> None:
    choose = random.Random(seed)
    sources = [tree(tmp_path / f"s{n}", n, files=30) for n in range(3)]
    for round_ in range(12):
        source = choose.choice(sources)
        (source / f"f{choose.randrange(30)}").write_bytes(choose.randbytes(5000))
        commands: list[tuple[object, ...]] = [
            ("publish", FQRN, "--from", source, "--to", f"/{source.name}", "-a", f"v{round_}"),
            ("gc", FQRN, "-r", 0, "--yes"),
            ("tag", FQRN, "--add", f"t{round_}"),
            ("rollback", FQRN, "--yes"),
        ]
        command = commands[round_ % len(commands)]
        process = start(stratum_zero, *command)
        time.sleep(choose.uniform(0.05, 0.6))  # the moment is the point: any will do
        process.send_signal(signal.SIGKILL)
        process.communicate()
        check_whole(stratum_zero)
        if process.returncode == 0 or command[0] in ("rollback", "tag"):
            continue  # it may have been done, and cannot be done again then
        if command[0] == "publish":
            command = (*command[:-1], f"again{round_}")
        assert ended(start(stratum_zero, *command)) == (0, ""), command
        check_whole(stratum_zero)
