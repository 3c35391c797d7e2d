"""gc, check, scrub and reflog on the command line."""

import time
from pathlib import Path

import pytest
from tests.support.command_line import outcrop
from tests.support.stratum_zero import FQRN, StratumZero


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
