"""rm, mv, clone, list-catalogs and the maintenance of catalogs, from the command line."""

from pathlib import Path

import pytest
from tests.support.command_line import Stored, outcrop

FQRN = "made.example.org"


@pytest.fixture
def made(world: Path, tmp_path: Path) -> Path:
    assert outcrop("mkfs", FQRN).code == 0
    tree = tmp_path / "tree"
    (tree / "a/b").mkdir(parents=True)
    (tree / "a/b/file").write_text("hello\n")
    (tree / "a/b/same").hardlink_to(tree / "a/b/file")
    (tree / "a/b/.cvmfscatalog").touch()
    assert outcrop("publish", FQRN, "--from", tree).code == 0
    return world / "srv/cvmfs" / FQRN


def cat(path: str) -> str:
    return outcrop("cat", FQRN, path).text


def test_a_subtree_is_cloned_moved_and_removed(made: Path) -> None:
    ended = outcrop("clone", FQRN, "/a", "/c", "--tag", "cloned", "--json")
    assert (ended.code, ended.json["tags"], ended.json["revision"]) == (0, ["cloned"], 3)
    assert outcrop("mv", FQRN, "c", "/d").code == 0
    assert (cat("/d/b/file"), cat("/a/b/file")) == ("hello\n", "hello\n")
    assert outcrop("rm", FQRN, "/a", "/d/b/file", "--yes").code == 0
    assert outcrop("tree", FQRN).text.count("same") == 1
    assert outcrop("verify", FQRN).code == 0


def test_a_layer_is_laid_over_a_directory(made: Path, tmp_path: Path) -> None:
    (tmp_path / "layer").mkdir()
    (tmp_path / "layer/new").write_text("new\n")
    (tmp_path / "layer/.wh.b").touch()
    assert outcrop("publish", FQRN, "--from", tmp_path / "layer", "--to", "/layer").code == 0
    assert outcrop("clone", FQRN, "/a", "/c").code == 0
    assert outcrop("merge", FQRN, "/layer", "/a").code == 0
    assert outcrop("merge", FQRN, "/layer", "/c", "--whiteouts").code == 0
    assert outcrop("ls", FQRN, "/c").lines == ["new"]
    assert sorted(outcrop("ls", FQRN, "/a").lines) == [".wh.b", "b", "new"]
    assert outcrop("verify", FQRN).code == 0


def test_nothing_happens_in_a_dry_run(made: Path) -> None:
    before = (made / ".cvmfspublished").read_bytes()
    assert outcrop("rm", FQRN, "/a", "--dry-run", "--json").json["removed"]["files"] == 3
    assert (made / ".cvmfspublished").read_bytes() == before


def test_what_is_not_possible_is_said(made: Path) -> None:
    for arguments, kind in (
        (("rm", FQRN, "/none"), "PathNotFound"),
        (("mv", FQRN, "/a", "/a/b/c"), "PathNotMovable"),
        (("clone", FQRN, "/a/b", "/a"), "PathExists"),
    ):
        ended = outcrop(*arguments, "--json")
        assert (ended.code, ended.error["kind"]) == (6, kind)
    assert outcrop("chown", FQRN).code == 2


def test_catalogs_are_listed_as_a_tree_flat_and_as_json(made: Path) -> None:
    assert outcrop("clone", FQRN, "/a/b", "/a/b/../x").code != 0
    assert outcrop("clone", FQRN, "/a/b", "/a/x").code == 0
    assert outcrop("list-catalogs", FQRN).lines == ["/", "├─ /a/b", "├─ /a/x"]
    flat = outcrop("list-catalogs", "-x", "-e", FQRN).lines
    assert flat == ["4 /", "4 /a/b", "4 /a/x"]
    fields = outcrop("list-catalogs", "--json", FQRN).json
    hashes = outcrop("list-catalogs", "-x", "-h", "-s", FQRN).lines
    assert hashes == [f"{c['hash']} {c['size']}B {c['path']}" for c in fields]


def test_levels_of_catalogs_are_drawn(repository: Stored) -> None:
    assert repository.run("list-catalogs").lines == ["/", "├─ /lib"]


def test_owners_are_changed_by_map_files(made: Path, tmp_path: Path) -> None:
    users = tmp_path / "users"
    users.write_text("# everybody\n* 77\n")
    assert outcrop("chown", FQRN, "-u", users).code == 0
    assert outcrop("stat", FQRN, "/a/b/file", "--json").json["uid"] == 77
    users.write_text("seven 8\n")
    ended = outcrop("chown", FQRN, "-u", users, "--json")
    assert (ended.error["kind"], str(users) in ended.error["error"]) == ("FormatError", True)


@pytest.mark.parametrize(
    ("name", "unchanged"),
    [("eliminate-hardlinks", False), ("eliminate-bulk-hashes", True), ("fix-stats", True)],
)
def test_maintenance_is_one_revision(made: Path, name: str, unchanged: bool) -> None:
    fields = outcrop(name, FQRN, "--json").json
    assert (fields["revision"], fields["unchanged"]) == (3, unchanged)
    assert outcrop("verify", FQRN).code == 0
