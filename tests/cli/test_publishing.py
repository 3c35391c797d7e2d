"""mkfs, publish, verify, serve: from nothing to a repository that is found right."""

import json
import os
import re
from pathlib import Path

import pytest
from tests.support.command_line import Stored, changed, outcrop

FQRN = "made.example.org"


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    root = tmp_path / "tree"
    (root / "bin").mkdir(parents=True)
    (root / "bin/tool").write_text("#!/bin/sh\n")
    (root / "README").write_text("hello\n")
    return root


@pytest.fixture
def made(world: Path) -> Path:
    assert outcrop("mkfs", FQRN).code == 0
    return world / "srv/cvmfs" / FQRN


def test_mkfs_says_where_the_key_is(world: Path) -> None:
    ended = outcrop("mkfs", FQRN, "--json")
    assert ended.code == 0
    assert Path(ended.json["public_key"]).read_bytes().startswith(b"-----BEGIN PUBLIC KEY-----")
    assert ended.json["directory"] == str(world / "srv/cvmfs" / FQRN)
    assert outcrop("info", FQRN, "--json").json["root_hash"] == ended.json["root_hash"]


def test_mkfs_does_not_touch_a_repository_that_is_there(made: Path) -> None:
    before = (made / ".cvmfspublished").read_bytes()
    ended = outcrop("mkfs", FQRN, "--json")
    assert (ended.code, ended.error["kind"]) == (6, "RepositoryExists")
    assert (made / ".cvmfspublished").read_bytes() == before


@pytest.mark.parametrize("name", ["", "a/b", "..", "a" * 61])
def test_mkfs_refuses_names_no_repository_can_have(name: str) -> None:
    assert outcrop("mkfs", name).code == 2


def test_mkfs_takes_hash_compression_and_ttl() -> None:
    outcrop("mkfs", FQRN, "--hash", "shake128", "--compression", "none", "--ttl", "60", "--gc")
    fields = outcrop("info", FQRN, "--json").json
    assert (fields["hash_algorithm"], fields["ttl_seconds"]) == ("shake128", 60)
    assert fields["garbage_collectable"] is True


def test_publish_makes_the_repository_equal_to_the_directory(made: Path, tree: Path) -> None:
    ended = outcrop("publish", FQRN, "--from", tree, "--tag", "v1", "--message", "first", "--json")
    assert (ended.code, ended.stderr) == (0, "")
    fields = ended.json
    assert (fields["revision"], fields["added"]["files"], fields["unchanged"]) == (2, 2, False)
    assert [one["path"] for one in outcrop("tree", FQRN, "--json").json] == [
        "/README",
        "/bin",
        "/bin/tool",
    ]
    tags = {tag["name"]: tag for tag in outcrop("log", FQRN, "--json").json}
    assert tags["v1"]["description"] == "first"


def test_publish_below_a_path_leaves_the_rest(made: Path, tree: Path) -> None:
    outcrop("publish", FQRN, "--from", tree)
    ended = outcrop("publish", FQRN, "--from", tree / "bin", "--to", "/more/bin/")
    assert ended.code == 0
    assert outcrop("ls", FQRN, "/").lines == ["README", "bin", "more"]
    assert outcrop("ls", FQRN, "/more/bin").lines == ["tool"]


def test_publish_says_in_one_line_what_it_did(made: Path, tree: Path) -> None:
    (line,) = outcrop("publish", FQRN, "--from", tree).lines
    # The root directory is one of the changed entries unless its times happen to be equal.
    pattern = rf"{re.escape(FQRN)} revision 2: 3 added, (1 changed, )?1 removed; read 16 B, stored "
    assert re.match(pattern, line)


def test_publish_without_a_repository_says_what_to_do(tree: Path) -> None:
    ended = outcrop("publish", FQRN, "--from", tree, "--json")
    assert ended.code == 6
    assert "mkfs" in ended.error["hint"]


def test_publish_with_a_tag_that_is_taken_changes_nothing(made: Path, tree: Path) -> None:
    outcrop("publish", FQRN, "--from", tree, "--tag", "v1")
    before = (made / ".cvmfspublished").read_bytes()
    ended = outcrop("publish", FQRN, "--from", tree, "--tag", "v1", "--json")
    assert (ended.code, ended.error["kind"]) == (9, "TagExists")
    assert (made / ".cvmfspublished").read_bytes() == before


@pytest.mark.parametrize("arguments", [["--from", "/nowhere"], ["--from", "/etc/passwd"]])
def test_publish_needs_a_directory(made: Path, arguments: list[str]) -> None:
    assert outcrop("publish", FQRN, *arguments).code == 2


def test_publish_needs_a_source_or_a_transaction(made: Path) -> None:
    ended = outcrop("publish", FQRN)
    assert ended.code == 9
    assert "--from DIR" in ended.stderr


def test_a_published_repository_verifies(made: Path, tree: Path) -> None:
    outcrop("publish", FQRN, "--from", tree, "--tag", "v1")
    ended = outcrop("verify", FQRN, "--tags")
    assert ended.code == 0
    assert ended.text.endswith("no problems\n")


def test_verify_tells_every_problem_and_fails(repository: Stored) -> None:
    with changed(repository) as simulator:
        simulator.corrupt(b"/README")
        name = simulator.object_names(b"/bin/tool")[0]
    (repository.directory / name).unlink()
    ended = repository.run("verify", "--json")
    assert ended.code == 1
    assert len(ended.json["problems"]) == 2
    text = repository.run("verify")
    assert (text.code, text.lines[-1].rpartition(", ")[2]) == (1, "2 problems")


def test_verify_of_catalogs_alone_reads_no_content(repository: Stored) -> None:
    with changed(repository) as simulator:
        simulator.corrupt(b"/README")
    assert repository.run("verify", "--catalogs").code == 0


def test_verify_names_a_damaged_root_catalog(repository: Stored) -> None:
    with changed(repository) as simulator:
        name = simulator.catalog_name()
        simulator.corrupt(name)
    ended = repository.run("verify")
    assert ended.code == 1
    assert name in ended.text


def test_verify_of_what_cannot_be_opened_is_the_error_of_opening(repository: Stored) -> None:
    (repository.directory / ".cvmfswhitelist").unlink()
    assert repository.run("verify").code == 5


def test_cp_copies_into_a_directory_or_to_a_name(repository: Stored, tmp_path: Path) -> None:
    place = tmp_path / "place"
    place.mkdir()
    ended = repository.run("cp", "/lib", place, "--json")
    assert (ended.code, ended.json["destination"]) == (0, str(place / "lib"))
    assert (ended.json["files"], ended.json["directories"]) == (5, 2)
    assert repository.run("cp", "/README", place / "name").code == 0
    assert (place / "name").read_text() == "hello\n"
    assert repository.run("cp", "/", tmp_path / "all").code == 0
    assert os.readlink(tmp_path / "all/current") == "lib"


def test_cp_of_everything_goes_into_the_directory_itself(
    repository: Stored, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "all").mkdir()
    monkeypatch.chdir(tmp_path / "all")
    ended = repository.run("cp", "/", ".")
    assert ended.text.startswith("copied 9 files, 4 directories, 3 others, ")
    assert (tmp_path / "all/README").read_text() == "hello\n"


def test_serve_refuses_a_repository_that_is_not_here(world: Path) -> None:
    ended = outcrop("serve", FQRN)
    assert (ended.code, ended.stderr.count("hint: outcrop mkfs")) == (6, 1)


def test_status_without_mounts_is_empty() -> None:
    assert json.loads(outcrop("status", "--json").stdout) == []
    assert outcrop("status").stderr == "nothing is mounted\n"


@pytest.mark.parametrize("command", ["umount", "remount", "status"])
def test_a_place_where_nothing_is_mounted_is_an_error(command: str, tmp_path: Path) -> None:
    ended = outcrop(command, tmp_path, "--json")
    assert (ended.code, ended.error["kind"]) == (8, "NotMounted")
    assert str(tmp_path) in ended.error["error"]
