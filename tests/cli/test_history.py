"""tag, rollback, checkout, log and diff: what a release manager does to names of revisions."""

import os
from pathlib import Path

import pytest
from tests.support import golden
from tests.support.command_line import Stored, outcrop

FQRN = "made.example.org"


@pytest.fixture
def made(tmp_path: Path) -> Path:
    """A repository with the revisions 2 (v1), 3 (v2) and 4; its source directory."""
    assert outcrop("mkfs", FQRN).code == 0
    source = tmp_path / "tree"
    source.mkdir()
    for number, tag in ((1, ("--tag", "v1", "-m", "first of all")), (2, ("--tag", "v2")), (3, ())):
        (source / "file").write_text("x" * number)
        (source / f"new{number}").mkdir()
        for path in (source, *source.iterdir()):
            os.utime(path, (1_500_000_000, 1_500_000_000))
        assert outcrop("publish", FQRN, "--from", source, *tag).code == 0
    return source


def names() -> dict[str, int]:
    return {tag["name"]: tag["revision"] for tag in outcrop("tag", FQRN, "--json").json}


ALL = {"v1": 2, "v2": 3, "trunk": 4, "trunk-previous": 3}


def test_tags_are_listed_as_a_table(made: Path) -> None:
    ended = outcrop("tag", FQRN)
    assert ended.code == 0
    heads = ["Name", "Revision", "Timestamp", "Branch", "Description"]
    assert [cell.strip() for cell in ended.lines[0].split("│")] == heads
    assert ended.lines[1].count("┼") == ended.lines[-2].count("┴") == 4
    assert ended.lines[-1] == "listing contains 4 tags"
    row = next(line for line in ended.lines if line.startswith("v1 "))
    assert [cell.strip() for cell in row.split("│")][::4] == ["v1", "first of all"]
    assert outcrop("tag", FQRN, "-l").lines == ended.lines


def test_lists_for_programs_are_upstreams() -> None:
    stored = golden.directory("basic")
    key = golden.public_key("basic")
    fields = outcrop("log", stored / "repo", "--key", key, "--no-cache", "--json").json
    upstream = (stored / "tags.machine.txt").read_text().splitlines()
    assert sorted(f["root_hash"] for f in fields) == sorted(line.split()[1] for line in upstream)
    assert {str(f["catalog_size"]) for f in fields} == {line.split()[2] for line in upstream}


def test_one_tag_is_inspected(made: Path) -> None:
    lines = outcrop("tag", FQRN, "--inspect", "v1").lines
    assert lines[:2] == ["Name:         v1", "Revision:     2"]
    assert lines[5].startswith("Catalog Size: ") and lines[5].endswith(" kiB")
    assert lines[6] == "first of all"
    (line,) = outcrop("tag", FQRN, "-i", "v1", "-x").lines
    fields = outcrop("tag", FQRN, "-i", "v1", "--json").json
    assert line.split(" ", 6)[0:4] == [
        "v1", fields["root_hash"], str(fields["catalog_size"]), "2",
    ]  # fmt: skip
    assert line.split(" ", 6)[5:] == ["(default)", "first of all"]
    ended = outcrop("tag", FQRN, "-i", "nothing", "--json")
    assert (ended.code, ended.error["kind"]) == (6, "TagNotFound")


def test_tags_are_added_moved_and_removed(made: Path) -> None:
    assert outcrop("tag", FQRN, "--add", "good", "-m", "so far").lines == ["good is revision 4"]
    assert names() == {**ALL, "good": 4}
    ended = outcrop("tag", FQRN, "--add", "good", "--revision", "2", "--json")
    assert [tag["revision"] for tag in ended.json["moved"]] == [4]
    root = outcrop("tag", FQRN, "-i", "v2", "--json").json["root_hash"]
    assert outcrop("tag", FQRN, "-a", "good", "-h", root).lines == [
        "moved good from revision 2 to 3"
    ]
    ended = outcrop("tag", FQRN, "-f", "--remove", "good", "v1")
    assert ended.lines == ["removed good (revision 3)", "removed v1 (revision 2)"]
    assert names() == {"v2": 3, "trunk": 4, "trunk-previous": 3}


@pytest.mark.parametrize(
    ("arguments", "code", "kind"),
    [
        (["--add", "trunk"], 2, "UsageError"),
        (["--add", "a b"], 2, "UsageError"),
        (["stray"], 2, "UsageError"),
        (["--hash", "0" * 40], 2, "UsageError"),
        (["-m", "about nothing"], 2, "UsageError"),
        (["--add", "x", "--hash", "0" * 40, "--revision", "1"], 2, "UsageError"),
        (["--add", "x", "--list"], 2, "UsageError"),
        (["--add", "v1"], 9, "TagExists"),
        (["--add", "x", "--hash", "1" * 40], 6, "RevisionNotFound"),
        (["--add", "x", "--revision", "77"], 6, "RevisionNotFound"),
        (["-f", "--remove", "v1", "nothing"], 6, "TagNotFound"),
    ],
)
def test_wrong_edits_change_nothing(made: Path, arguments, code: int, kind: str) -> None:
    ended = outcrop("tag", FQRN, *arguments, "--json")
    assert (ended.code, ended.error["kind"]) == (code, kind)
    assert names() == ALL


def test_removing_and_rolling_back_ask_first(made: Path) -> None:
    assert outcrop("tag", FQRN, "--remove", "v1").code != 0
    assert outcrop("rollback", FQRN).code != 0
    assert names() == ALL


def test_a_rollback_undoes_the_last_publish(made: Path) -> None:
    ended = outcrop("rollback", FQRN, "--yes")
    assert ended.lines == [f"{FQRN} revision 5 is what revision 3 was; removed: trunk"]
    assert outcrop("cat", FQRN, "/file").text == "xx"
    assert names() == {"v1": 2, "v2": 3, "trunk": 5}
    ended = outcrop("rollback", FQRN, "--yes", "--json")
    assert (ended.code, ended.error["kind"]) == (9, "RollbackRefused")
    ended = outcrop("rollback", FQRN, "-f", "-t", "v1", "--json")
    assert (ended.json["revision"], ended.json["target"]["revision"]) == (6, 2)
    assert {tag["name"] for tag in ended.json["removed"]} == {"v2", "trunk"}
    assert names() == {"v1": 6, "trunk": 6}


def test_a_branch_is_checked_out_published_to_and_left(made: Path) -> None:
    ended = outcrop("checkout", FQRN, "--branch", "fixes", "--tag", "v1")
    assert ended.lines[0].startswith(f"{FQRN} is on the branch fixes, at v1 (")
    assert outcrop("publish", FQRN, "--from", made, "--json").error["kind"] == "TagRequired"
    assert outcrop("publish", FQRN, "--from", made, "--tag", "v1.1").code == 0
    assert outcrop("tag", FQRN, "--add", "x", "--json").error["kind"] == "BranchCheckedOut"
    assert outcrop("checkout", FQRN, "--json").json == {"fqrn": FQRN, "branch": None}
    assert outcrop("tag", FQRN, "--branches").lines == ["(default) @0", "├ fixes @3"]
    assert outcrop("tag", FQRN, "-b", "-x").lines == ["[0] (default) @0", "[1]  fixes @3"]
    assert [b["name"] for b in outcrop("tag", FQRN, "-b", "--json").json] == ["", "fixes"]
    (line,) = outcrop("log", FQRN, "--branch", "fixes").lines
    assert line.split()[::2] == ["3", "v1.1"] and line.endswith("[fixes]")
    assert outcrop("info", FQRN, "--json").json["revision"] == 4
    ended = outcrop("checkout", FQRN, "--branch", "none", "--json")
    assert (ended.code, ended.error["kind"]) == (9, "BranchNotFound")


def test_log_lists_revisions_without_a_tag(made: Path) -> None:
    outcrop("publish", FQRN, "--from", made)
    fields = outcrop("log", FQRN, "--revisions", "--json").json
    assert [one["revision"] for one in fields] == [5, 4, 3, 2, 1, 0]
    assert [one["tags"] for one in fields[:3]] == [["trunk"], ["trunk-previous"], ["v2"]]
    lines = outcrop("log", FQRN, "--revisions", "-n", "2").lines
    assert [line.split()[::2] for line in lines] == [["5", fields[0]["root_hash"]], ["4", fields[1]["root_hash"]]]  # fmt: skip  # noqa: E501


def test_differences_for_people(made: Path) -> None:
    ended = outcrop("diff", FQRN, "--from", "v1", "--to", "v2", "--header")
    assert ended.code == 0
    assert ended.lines[0].startswith("DELTA: v1/r2 (") and " --> v2/r3 (" in ended.lines[0]
    assert ended.lines[1:] == [
        "d(# regular files): 0",
        "d(# symlinks): 0",
        "d(# directories): 1",
        "d(# catalogs): 0",
        "/ modify directory [link-count]",
        "/file modify file [size, content]",
        "/new2 add directory +" + ended.lines[-1].split("+")[1],
    ]


def test_differences_for_programs_are_upstreams(made: Path) -> None:
    assert outcrop("diff", FQRN, "-m", "-s", "v1", "-d", "v2").lines[:5] == [
        "S F 0",
        "S S 0",
        "S D 1",
        "S N 0",
        "M[SC] F /file",
    ]
    (line, *_) = outcrop("diff", FQRN, "-m", "-h").lines
    assert line.startswith("# line descriptor: A - add, R - remove")
    (made / "file").unlink()
    (made / "file").symlink_to("nowhere")
    outcrop("publish", FQRN, "--from", made)
    assert "M[SMTLC] FS /file" in outcrop("diff", FQRN, "-m").lines
    outcrop("publish", FQRN, "--from", made / "new1")
    assert "R S /file -7" in outcrop("diff", FQRN, "-m").lines


def test_any_two_revisions_are_compared(made: Path) -> None:
    tags = {tag["name"]: tag for tag in outcrop("tag", FQRN, "--json").json}
    wanted = outcrop("diff", FQRN, "--from", "v1", "--to", "v2", "--json").json
    assert [(one["path"], one["change"]) for one in wanted] == [
        ("/", "modified"),
        ("/file", "modified"),
        ("/new2", "added"),
    ]
    assert wanted[1]["modified"] == ["size", "content"]
    for old, new in (
        (tags["v1"]["root_hash"], "3"),
        ("#" + tags["v1"]["root_hash"], tags["v2"]["root_hash"]),
        ("2", "v2"),
    ):
        assert outcrop("diff", FQRN, "--from", old, "--to", new, "--json").json == wanted
    assert outcrop("diff", FQRN, "--from", "trunk", "--to", "now", "--json").json == []
    fields = outcrop("diff", FQRN, "-s", "v1", "-d", "v2", "--statistics", "--json").json
    assert fields["statistics"] == {"files": 0, "symlinks": 0, "directories": 1, "catalogs": 0}
    ended = outcrop("diff", FQRN, "--from", "no such thing", "--json")
    assert (ended.code, ended.error["kind"]) == (6, "TagNotFound")
    assert outcrop("diff", FQRN, "--from", "1999-01-01").code == 6


def test_times_can_be_ignored(made: Path) -> None:
    os.utime(made / "file", (5, 5))
    outcrop("publish", FQRN, "--from", made)
    assert outcrop("diff", FQRN, "-m").lines[4:] == ["M[T] F /file"]
    assert outcrop("diff", FQRN, "-m", "-i").lines[4:] == []


def test_a_diff_of_any_repository_needs_no_publisher(repository: Stored) -> None:
    repository.publish({b"/only": b"this"}, tag="v2")
    lines = repository.run("diff", "-m", "--from", "1", "--to", "v2").lines
    assert "A F /only +4" in lines
    assert any(line.startswith("R U /pipe") for line in lines)
