"""Rules for every test run: nothing skipped unseen in CI, nothing left behind, signals as usual.

A skip that CI may see is listed in `ALLOWED_SKIPS` with the reason. At the end of a run no mount
below the run's temporary directory and no process started by a test may be left; whatever is left
is ended, named, and fails the run. Signals that were ignored when the run started (nohup, a
background job of a script) have their usual effect on the processes that tests start.
"""

import os
import signal
import subprocess
import time
import uuid
from collections.abc import Generator
from pathlib import Path

import pytest

ALLOWED_SKIPS: dict[str, str] = {}
"""Test id (or the start of one) → why CI may skip it."""

_MARK = "OUTCROP_TEST_RUN"
_SETTLE_SECONDS = 5.0
_IGNORED_BY_PYTHON = {signal.SIGPIPE, signal.SIGXFSZ}
_base: Path | None = None


def _is_refused(report: pytest.CollectReport | pytest.TestReport) -> bool:
    return (
        os.environ.get("CI") == "true"
        and report.outcome == "skipped"
        and not hasattr(report, "wasxfail")
        and not report.nodeid.startswith(tuple(ALLOWED_SKIPS))
    )


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if _is_refused(report):
        report.outcome = "failed"
        report.longrepr = f"{report.nodeid} was skipped in CI: {report.longrepr}"
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    report = yield
    if _is_refused(report):
        report.outcome = "failed"
        report.longrepr = f"{report.nodeid} was skipped in CI: {report.longrepr}"
    return report


@pytest.fixture(scope="session", autouse=True)
def _remembered_base(tmp_path_factory: pytest.TempPathFactory) -> None:
    global _base
    _base = tmp_path_factory.getbasetemp()


def pytest_sessionstart() -> None:
    os.environ[_MARK] = uuid.uuid4().hex
    for number in signal.valid_signals() - _IGNORED_BY_PYTHON:
        if signal.getsignal(number) is signal.SIG_IGN:
            # The run goes on ignoring it. A handler, unlike SIG_IGN, is not inherited at exec.
            signal.signal(number, lambda *_: None)


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    deadline = time.monotonic() + _SETTLE_SECONDS
    while (left := [*_mounts(), *_processes()]) and time.monotonic() < deadline:
        time.sleep(0.05)
    if not left:
        return
    for mountpoint in _mounts():
        subprocess.run(["umount", "-l", mountpoint], check=False)
    for pid in _processes():
        os.kill(int(pid), signal.SIGKILL)
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if reporter is not None:
        reporter.write_line(f"\nleft behind by tests: {', '.join(left)}", red=True)
    session.exitstatus = pytest.ExitCode.TESTS_FAILED


def _mounts() -> list[str]:
    """Mount points below the run's temporary directory."""
    if _base is None:
        return []
    places = [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    return [place for place in places if place.startswith(f"{_base}/")]


def _processes() -> list[str]:
    """Ids of processes that carry the run's mark in their environment, zombies left out."""
    mark = f"{_MARK}={os.environ[_MARK]}".encode()
    found = []
    for directory in Path("/proc").iterdir():
        if not directory.name.isdecimal() or int(directory.name) == os.getpid():
            continue
        try:
            if mark in (directory / "environ").read_bytes().split(b"\0"):
                found.append(directory.name)
        except OSError:  # ended meanwhile, or not ours
            continue
    return found
