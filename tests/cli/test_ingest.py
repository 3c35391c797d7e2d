"""`outcrop ingest`: archives from the command line."""

import os
from pathlib import Path

import pytest
from tests.support.command_line import outcrop
from tests.support.tars import END, header, member

FQRN = "made.example.org"


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    place = tmp_path / "archive.tar"
    place.write_bytes(
        member(b"d/f", b"content", uid=b"0000005\0") + header(b"l", kind=b"2", link=b"d") + END
    )
    return place


@pytest.fixture(autouse=True)
def made(world: Path) -> None:
    assert outcrop("mkfs", FQRN).code == 0


def entry(path: str) -> dict:
    return outcrop("stat", FQRN, path, "--json").json


def test_ingest_publishes_an_archive_below_a_path(archive: Path) -> None:
    ended = outcrop("ingest", FQRN, "-t", archive, "-b", "sw/x", "-c", "-a", "v1", "--json")
    assert (ended.code, ended.stderr) == (0, "")
    assert ended.json["added"] == {"directories": 3, "files": 2, "symlinks": 1}
    assert ended.json["tags"] == ["v1"]
    assert outcrop("cat", FQRN, "/sw/x/d/f").stdout == b"content"
    assert entry("/sw/x/.cvmfscatalog")["size"] == 0
    assert outcrop("verify", FQRN).code == 0


def test_owners_are_the_repositorys_unless_told_otherwise(archive: Path) -> None:
    outcrop("ingest", FQRN, "-t", archive, "-b", "/default")
    outcrop("ingest", FQRN, "-t", archive, "-b", "/kept", "-k")
    outcrop("ingest", FQRN, "-t", archive, "-b", "/given", "-u", "7", "-g", "8")
    found = [entry(f"/{place}/d/f") for place in ("default", "kept", "given")]
    assert [(e["uid"], e["gid"]) for e in found] == [(os.getuid(), os.getgid()), (5, 0), (7, 8)]


def test_paths_are_deleted_with_and_without_an_archive(archive: Path) -> None:
    outcrop("ingest", FQRN, "-t", archive, "-b", "/a")
    ended = outcrop("ingest", FQRN, "-d", "a/d", "-d", "/new_repository", "-t", archive, "-b", "/b")
    assert ended.code == 0
    assert outcrop("ls", FQRN, "/").stdout.split() == [b"a", b"b"]
    assert outcrop("ls", FQRN, "/a").stdout.split() == [b"l"]
    assert (
        outcrop("ingest", FQRN, "-d", "a", "-d", "missing")
        .stderr.strip()
        .endswith("warning: /missing is not there to be deleted")
    )
    assert outcrop("ls", FQRN, "/").stdout.split() == [b"b"]


def test_a_dry_run_publishes_nothing(archive: Path) -> None:
    ended = outcrop("ingest", FQRN, "-t", archive, "-b", "/a", "--dry-run", "--json")
    assert ended.json["dry_run"] is True
    assert outcrop("info", FQRN, "--json").json["revision"] == 1


@pytest.mark.parametrize(
    "arguments",
    [[], ["-b", "/x"], ["-t", "ARCHIVE"], ["-d", "x", "-b", "/x"],
     ["-t", "ARCHIVE", "-b", "/x", "-k", "-u", "1"], ["-t", "ARCHIVE", "-b", "/x", "-g", "1"],
     ["-t", "/does/not/exist", "-b", "/x"]],
)  # fmt: skip
def test_options_that_mean_nothing_together(archive: Path, arguments: list[str]) -> None:
    given = [str(archive) if a == "ARCHIVE" else a for a in arguments]
    assert outcrop("ingest", FQRN, *given).code == 2


def test_a_bad_archive_is_told_and_changes_nothing(tmp_path: Path) -> None:
    bad = tmp_path / "bad.tar"
    bad.write_bytes(member(b"fine", b"x") + member(b"../up") + END)
    ended = outcrop("ingest", FQRN, "-t", bad, "-b", "/", "--json")
    assert (ended.code, ended.error["kind"]) == (9, "MemberRefused")
    assert "member ../up: a path with .." in ended.error["error"]
    bad.write_bytes(b"no archive at all")
    ended = outcrop("ingest", FQRN, "-t", bad, "-b", "/", "--json")
    assert ended.error["kind"] == "ArchiveInvalid"
    assert outcrop("info", FQRN, "--json").json["revision"] == 1


def test_publish_takes_archives_too(archive: Path) -> None:
    ended = outcrop("publish", FQRN, "--from-tar", archive, "--to", "/a", "--delete",
                    "/new_repository", "--json")  # fmt: skip
    assert (ended.code, ended.json["added"]["files"]) == (0, 1)
    assert outcrop("ls", FQRN, "/").stdout.split() == [b"a"]
