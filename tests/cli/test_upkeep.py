"""gc, check, scrub and reflog on the command line."""

import hashlib
import json
import time
from pathlib import Path

import pytest
from tests.support.command_line import outcrop
from tests.support.stratum_zero import FQRN, StratumZero

from outcrop.publisher.inspection import list_reflog


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> StratumZero:
    monkeypatch.setenv("OUTCROP_ROOT", str(tmp_path / "world"))
    made = StratumZero(tmp_path / "world")
    made.now = int(time.time()) - 100  # the commands have the real clock
    made.create()
    made.configure(CVMFS_GARBAGE_COLLECTION="true")
    source = tmp_path / "source"
    source.mkdir()
    for number in range(3):
        (source / "file").write_text(str(number))
        made.publish(source)
    return made


def test_gc_needs_to_know_which_repository_and_only_one_choice(world: StratumZero) -> None:
    assert outcrop("gc").code == 2
    assert outcrop("gc", FQRN, "--all").code == 2
    assert outcrop("gc", FQRN, "--keep", "1", "--since", "now").code == 2
    assert outcrop("gc", FQRN, "--since", "some day").code == 2


def test_check_and_scrub_end_with_code_1_where_something_is_wrong(world: StratumZero) -> None:
    file = next(f for f in (world.directory / "data").rglob("*") if len(f.name) == 38)
    file.write_bytes(b"damaged")
    ended = outcrop("scrub", FQRN, "--json")
    assert ended.code == 1
    assert ended.json["problems"][0]["where"] == str(file.relative_to(world.directory))
    assert outcrop("scrub", "-r", world.directory / "data").code == 1
    assert outcrop("scrub", "-r", world.directory).code == 9


def test_check_takes_choices_that_fit_together(world: StratumZero) -> None:
    assert outcrop("check", FQRN, "-i", "-c").code == 2
    assert outcrop("check", FQRN, "-t", "trunk", "-T").code == 2
    assert outcrop("check", FQRN, "-s", "/missing").code == 6


def last_check(world: StratumZero) -> object:
    file = world.directory / ".cvmfs_status.json"
    return json.loads(file.read_text()).get("last_check") if file.exists() else None


def test_check_of_all_checks_those_that_are_due(world: StratumZero, tmp_path: Path) -> None:
    assert outcrop("check").code == 2
    assert outcrop("check", FQRN, "--all").code == 2
    assert outcrop("check", "--all", "-t", "trunk").code == 2
    other = StratumZero(tmp_path / "world", fqrn="other.example.org")
    other.now = world.now
    other.create()
    ended = outcrop("check", "--all", "--json")
    assert (ended.code, [one["fqrn"] for one in ended.json]) == (0, ["other.example.org", FQRN])
    assert last_check(world)
    assert outcrop("check", "--all", "--json").json == []
    other.configure(CVMFS_CHECK_ALL_MIN_DAYS=0)
    for file in (other.directory / "data").rglob("*C"):
        file.write_bytes(b"damaged")
    ended = outcrop("check", "--all", "--json")
    assert (ended.code, [one["fqrn"] for one in ended.json]) == (1, ["other.example.org"])
    status = json.loads((other.directory / ".cvmfs_status.json").read_text())
    assert status["check_status"] == "failed"


def test_check_of_all_goes_on_after_a_repository_that_cannot_be_checked(
    world: StratumZero, tmp_path: Path
) -> None:
    other = StratumZero(tmp_path / "world", fqrn="a.example.org")
    other.now = world.now
    other.create()
    other.configure(CVMFS_CHECK_ALL_MIN_DAYS="monthly")
    ended = outcrop("check", "--all")
    assert ended.code == 1
    assert "CVMFS_CHECK_ALL_MIN_DAYS: 'monthly' is no number of days" in ended.stderr
    assert f"{FQRN} revision".encode() in ended.stdout
    assert last_check(world)
    assert not last_check(other)


@pytest.mark.parametrize("damage", ["missing", "damaged", "no database"])
def test_check_writes_a_bad_reflog_anew_if_it_is_to(world: StratumZero, damage: str) -> None:
    file = world.directory / ".cvmfsreflog"
    before = sorted(map(str, list_reflog(world.locations, FQRN, now=world.now)))
    if damage == "missing":
        file.unlink()
    else:
        file.write_bytes(b"no database" if damage == "no database" else file.read_bytes()[:-1])
    if damage == "no database":
        (world.spool / "reflog.chksum").write_text(hashlib.sha1(file.read_bytes()).hexdigest())
    assert outcrop("check", FQRN).code == 1
    ended = outcrop("check", FQRN, "-r")
    assert ended.code == 0
    assert "the reflog was written anew" in ended.stderr
    assert "written anew" not in outcrop("check", FQRN, "-r").stderr
    after = [str(ref) for ref in list_reflog(world.locations, FQRN, now=world.now)]
    assert len(after) == len(before)
