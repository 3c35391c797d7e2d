"""Hooks and statistics as commands have them."""

import json
from pathlib import Path

import pytest
from tests.support.command_line import outcrop

FQRN = "hooks.example.org"


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("OUTCROP_ROOT", str(tmp_path))
    assert outcrop("mkfs", FQRN).code == 0
    (tmp_path / "source").mkdir()
    return tmp_path


def hook(root: Path, event: str, text: str) -> None:
    file = root / "etc/cvmfs/hooks.d" / event / "10-test"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(f"#!/bin/sh\n{text}\n")
    file.chmod(0o755)


def test_a_publish_stops_at_a_hook_that_fails(root: Path) -> None:
    hook(root, "publish_before", "exit 4")
    ended = outcrop("publish", FQRN, "--from", root / "source", "--json")
    assert ended.code == 9
    assert ended.error["kind"] == "HookFailed"
    assert not (root / "var/spool/cvmfs" / FQRN / "stats.db").exists()


def test_a_hook_that_fails_afterwards_is_a_warning(root: Path) -> None:
    hook(root, "publish_after", f'echo "$1" > {root}/seen; exit 4')
    ended = outcrop("publish", FQRN, "--from", root / "source")
    assert ended.code == 0
    assert (root / "seen").read_text() == f"{FQRN}\n"
    assert "exit code 4" in ended.stderr


def test_a_dry_run_runs_no_hooks(root: Path) -> None:
    hook(root, "publish_before", "exit 4")
    assert outcrop("publish", FQRN, "--from", root / "source", "--dry-run").code == 0


def test_statistics_are_printed_where_the_settings_say_so(root: Path) -> None:
    with (root / f"etc/cvmfs/repositories.d/{FQRN}/server.conf").open("a") as conf:
        conf.write("CVMFS_PRINT_STATISTICS=true\n")
    (root / "source/file").write_bytes(b"x" * 100)
    ended = outcrop("publish", FQRN, "--from", root / "source")
    assert "  files_added: 1\n" in ended.stderr


def test_statistics_are_shown_as_text_json_and_picture(root: Path) -> None:
    missing = outcrop("statistics", FQRN, "--json")
    assert (missing.code, missing.error["kind"]) == (6, "NoStatistics")
    outcrop("publish", FQRN, "--from", root / "source")
    header, row = outcrop("statistics", FQRN, "-s", ";").lines
    assert header.startswith("publish_id;start_time;finish_time;revision;files_added")
    assert row.split(";")[3] == "2"
    (found,) = outcrop("statistics", FQRN, "--json").json
    assert found["revision"] == 2
    assert outcrop("statistics", FQRN, "-t", "gc", "--json").json == []
    assert outcrop("statistics", FQRN, "-o", root / "out.csv").code == 0
    assert (root / "out.csv").read_text().startswith("publish_id,")
    assert outcrop("statistics", FQRN, "--plot", root / "out.png").code == 0
    assert (root / "out.png").read_bytes().startswith(b"\x89PNG")
    assert outcrop("statistics", FQRN, "--plot", root / "out.txt").code == 2
    assert outcrop("statistics", FQRN, "-s", "ab").code == 2
    database = root / "var/spool/cvmfs" / FQRN / "stats.db"
    merged = outcrop("statistics", FQRN, "--merge", database, "-o", root / "all.db", "--json")
    assert merged.json["rows"] == 1
    assert outcrop("statistics", FQRN, "--merge", database).code == 2


def test_mkfs_takes_cvmfs_servers_letters(root: Path) -> None:
    ended = outcrop(
        "mkfs", "more.example.org", "-a", "shake128", "-Z", "none", "-z", "-v", "-X", "-m", "-p",
        "-G", "4 weeks ago", "-u", f"local,{root}/x/data/txn,{root}/x",
        "-w", "http://cdn.example.org/x", "-k", root / "etc/cvmfs/keys", "--json",
    )  # fmt: skip
    assert ended.code == 7  # there are no keys of that name to take
    ended = outcrop(
        "mkfs", "more.example.org", "-z", "-g", "-G", "4 weeks ago", "-u", f"file://{root}/x",
        "-w", "http://cdn.example.org/x", "--json",
    )  # fmt: skip
    assert (ended.code, ended.json["directory"]) == (0, f"{root}/x")
    conf = (root / "etc/cvmfs/repositories.d/more.example.org/server.conf").read_text()
    for line in (
        "CVMFS_AUTO_TAG=false",
        'CVMFS_AUTO_TAG_TIMESPAN="4 weeks ago"',
        "CVMFS_GARBAGE_COLLECTION=true",
        "CVMFS_STRATUM0=http://cdn.example.org/x",
    ):
        assert line in conf.replace("'", '"')
    served = json.loads((root / "srv/cvmfs/info/v1/repositories.json").read_bytes())
    assert [one["name"] for one in served["repositories"]] == [FQRN, "more.example.org"]
    assert outcrop("mkfs", "x.example.org", "-u", "ftp://x").code == 2
