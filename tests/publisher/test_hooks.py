"""Hooks: run as upstream runs them, stopping what they should, and never a way to run more."""

import shutil
from pathlib import Path

import pytest

from outcrop.publisher.hooks import ACTIONS, HookFailed, hooks_around, run_hooks
from outcrop.storage.locations import Locations

FQRN = "hooks.example.org"
UPSTREAM = """\
#!/bin/bash
transaction_before_hook() { echo "transaction before $1" >> "$LOG"; }
publish_before_hook() { echo "publish before $1" >> "$LOG"; }
publish_after_hook() { echo "publish after $1" >> "$LOG"; }
abort_after_hook() { return 7; }
"""

pytestmark = pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")


@pytest.fixture
def locations(tmp_path: Path) -> Locations:
    made = Locations(tmp_path)
    made.config.mkdir(parents=True)
    return made


@pytest.fixture
def log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LOG", str(tmp_path / "log"))
    (tmp_path / "log").touch()
    return tmp_path / "log"


def script(locations: Locations, text: str) -> None:
    (locations.config / "cvmfs_server_hooks.sh").write_text(text)


def program(locations: Locations, event: str, name: str, text: str, mode: int = 0o755) -> Path:
    file = locations.config / "hooks.d" / event / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("#!/bin/sh\n" + text)
    file.chmod(mode)
    return file


def test_without_hooks_nothing_happens(locations: Locations) -> None:
    for action in ACTIONS:
        with hooks_around(locations, action, FQRN) as problems:
            pass
        assert problems == []


def test_upstreams_functions_are_called_with_the_repository(
    locations: Locations, log: Path
) -> None:
    script(locations, UPSTREAM)
    with hooks_around(locations, "publish", FQRN):
        log.write_text(log.read_text() + "work\n")
    assert log.read_text().splitlines() == [
        f"publish before {FQRN}",
        "work",
        f"publish after {FQRN}",
    ]


def test_a_function_that_is_not_there_is_not_called(locations: Locations, log: Path) -> None:
    script(locations, UPSTREAM)
    run_hooks(locations, "transaction_after", FQRN)
    assert log.read_text() == ""


def test_programs_run_in_the_order_of_their_names(locations: Locations, log: Path) -> None:
    for name in ("20-b", "10-a", "30-c"):
        program(locations, "publish_after", name, f'echo {name} $1 $OUTCROP_HOOK >> "$LOG"\n')
    program(locations, "publish_after", "no-program", 'echo bad >> "$LOG"\n', 0o644)
    program(locations, "publish_after", ".hidden", 'echo bad >> "$LOG"\n')
    program(locations, "publish_after", "15-old~", 'echo bad >> "$LOG"\n')
    run_hooks(locations, "publish_after", FQRN)
    assert log.read_text().splitlines() == [
        f"{name} {FQRN} publish_after" for name in ("10-a", "20-b", "30-c")
    ]


def test_one_that_fails_before_stops_everything(locations: Locations, log: Path) -> None:
    program(locations, "publish_before", "10-a", "exit 3\n")
    program(locations, "publish_before", "20-b", 'echo ran >> "$LOG"\n')
    with (
        pytest.raises(HookFailed, match="10-a failed: exit code 3"),
        hooks_around(locations, "publish", FQRN),
    ):
        log.write_text("work")
    assert log.read_text() == ""


def test_one_that_fails_after_is_told_only(locations: Locations) -> None:
    script(locations, UPSTREAM)
    with hooks_around(locations, "abort", FQRN) as problems:
        pass
    (problem,) = problems
    assert "abort_after_hook" in problem
    assert "exit code 7" in problem


def test_the_hooks_after_are_not_run_for_what_failed(locations: Locations, log: Path) -> None:
    script(locations, UPSTREAM)
    with pytest.raises(RuntimeError), hooks_around(locations, "publish", FQRN):
        raise RuntimeError
    assert log.read_text() == f"publish before {FQRN}\n"


def test_a_script_with_a_mistake_stops(locations: Locations) -> None:
    script(locations, "publish_before_hook() { echo \n")
    with pytest.raises(HookFailed, match="exit code"):
        run_hooks(locations, "publish_before", FQRN)


def test_nothing_in_a_name_is_read_as_shell(tmp_path: Path, log: Path) -> None:
    locations = Locations(tmp_path / "a 'b\" $(touch injected) `touch injected`")
    locations.config.mkdir(parents=True)
    script(locations, UPSTREAM)
    run_hooks(locations, "publish_before", "x; touch injected $(touch injected)")
    assert log.read_text() == "publish before x; touch injected $(touch injected)\n"
    assert not list(tmp_path.rglob("injected"))
    assert not Path("injected").exists()


def test_what_a_hook_prints_is_shown_and_never_among_the_results(
    locations: Locations, capfd: pytest.CaptureFixture[str]
) -> None:
    script(locations, "publish_before_hook() { echo to stdout; echo to stderr >&2; }\n")
    run_hooks(locations, "publish_before", FQRN)
    out, err = capfd.readouterr()
    assert out == ""
    assert err.splitlines() == ["to stdout", "to stderr"]


def test_a_program_that_cannot_run_is_named(locations: Locations) -> None:
    file = program(locations, "publish_before", "10-a", "")
    file.write_text("#!/no/such/interpreter\n")
    with pytest.raises(HookFailed, match="10-a: No such file"):
        run_hooks(locations, "publish_before", FQRN)
