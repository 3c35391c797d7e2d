"""The rules in tests/conftest.py hold: a run that breaks one fails, and says why."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from tests.support.mounts import is_running, wait_until

pytestmark = pytest.mark.system

CONFTEST = Path(__file__).parent.parent / "conftest.py"


def run(place: Path, test: str, *, is_ci: bool = True) -> "subprocess.CompletedProcess[str]":
    """A run of one test file under our rules, in a directory of its own."""
    (place / "conftest.py").write_text(CONFTEST.read_text())
    (place / "test_it.py").write_text(test)
    environment = {k: v for k, v in os.environ.items() if k not in ("CI", "OUTCROP_TEST_RUN")}
    if is_ci:
        environment["CI"] = "true"
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(place)],
        cwd=place, env=environment, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip


SKIPPED = "import pytest\ndef test_it(): pytest.skip('no tools here')\n"


def test_a_skip_is_a_skip_on_a_laptop(tmp_path: Path) -> None:
    ended = run(tmp_path, SKIPPED, is_ci=False)
    assert ended.returncode == 0
    assert "1 skipped" in ended.stdout


@pytest.mark.parametrize(
    "test", [SKIPPED, "import pytest\npytest.skip('no tools here', allow_module_level=True)\n"]
)
def test_a_skip_fails_in_ci(tmp_path: Path, test: str) -> None:
    ended = run(tmp_path, test)
    assert ended.returncode != 0
    assert "was skipped in CI" in ended.stdout
    assert "no tools here" in ended.stdout


def test_what_is_expected_to_fail_may_fail(tmp_path: Path) -> None:
    test = "import pytest\n@pytest.mark.xfail(strict=True)\ndef test_it(): assert False\n"
    assert run(tmp_path, test).returncode == 0


def test_a_process_left_behind_fails_the_run_and_is_ended(tmp_path: Path) -> None:
    test = (
        "import subprocess, conftest\n"
        "def test_it():\n"
        "    conftest._SETTLE_SECONDS = 0.2\n"
        "    left = subprocess.Popen(['sleep', '600'], stdout=subprocess.DEVNULL,\n"
        "                            stderr=subprocess.DEVNULL, start_new_session=True)\n"
        "    open('pid', 'w').write(str(left.pid))\n"
        "    left.returncode = 0  # nobody warns of it\n"
    )
    ended = run(tmp_path, test)
    pid = (tmp_path / "pid").read_text()
    assert ended.returncode == 1
    assert f"left behind by tests: {pid}" in ended.stdout
    wait_until(lambda: not is_running(int(pid)))
