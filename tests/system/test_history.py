"""Branches and differences with real transactions; tags and publishing at once."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support.history import revisions_of, tags_of
from tests.support.mounts import end, mount_lines, outcrop
from tests.support.stratum_zero import FQRN, StratumZero

pytestmark = pytest.mark.system


@pytest.fixture
def zero(tmp_path: Path) -> Iterator[StratumZero]:
    """Revision 2 (v1) has `/file`, revision 3 (v2) `/other`, too; the union is at `union`."""
    made = StratumZero(tmp_path / "world")
    made.now = int(tmp_path.stat().st_mtime) - 1000
    made.create()
    union = tmp_path / "union"
    made.configure(CVMFS_UNION_DIR=union)
    source = tmp_path / "source"
    source.mkdir()
    (source / "file").write_text("one\n")
    made.publish(source, tag="v1")
    (source / "other").write_text("two\n")
    made.publish(source, tag="v2")
    try:
        yield made
    finally:
        end(made.locations.root, made.spool / "rdonly")
        for place in (union, made.spool / "rdonly"):
            while mount_lines(place):
                subprocess.run(["umount", "-l", place], check=True)


def test_a_transaction_on_a_branch_shows_and_changes_the_branch(
    zero: StratumZero, tmp_path: Path
) -> None:
    root, union = zero.locations.root, tmp_path / "union"
    outcrop(root, "checkout", FQRN, "--branch", "fixes", "--tag", "v1")
    outcrop(root, "transaction", FQRN)
    assert [path.name for path in union.iterdir()] == ["file"]
    (union / "file").write_text("one and a half\n")
    (union / "patch").mkdir()
    told = outcrop(root, "diff", FQRN, "--worktree").stdout.splitlines()
    assert {"[mod] /file", "[add] /patch"} <= set(told)
    found = json.loads(outcrop(root, "diff", FQRN, "--worktree", "--json").stdout)
    assert {"path": "/patch", "change": "add"} in found
    assert "fixes" not in outcrop(root, "tag", FQRN, "--branches").stdout
    outcrop(root, "publish", FQRN, "--tag", "v1.1")
    assert (union / "file").read_text() == "one and a half\n"
    tags = tags_of(zero)
    assert (tags["v1.1"].branch, tags["v1.1"].revision, tags["trunk"].revision) == ("fixes", 3, 3)
    assert zero.checked().manifest["S"] == "3"
    outcrop(root, "transaction", FQRN)
    (union / "patch/more").write_text("x")
    outcrop(root, "publish", FQRN, "--tag", "v1.2")
    assert tags_of(zero)["v1.2"].revision == 4
    outcrop(root, "checkout", FQRN)
    assert outcrop(root, "ls", FQRN).stdout.split() == ["file", "other"]
    zero.checked()


def test_publishes_and_tag_edits_at_once_lose_nothing(zero: StratumZero, tmp_path: Path) -> None:
    root = zero.locations.root
    program = Path(sys.executable).with_name("outcrop")

    def start(*words: str) -> "subprocess.Popen[str]":
        environment = {**os.environ, "OUTCROP_ROOT": str(root)}
        return subprocess.Popen(
            [program, *words], env=environment, stderr=subprocess.PIPE, text=True
        )

    running = []
    for number in range(4):
        source = tmp_path / "source"
        words = ("publish", FQRN, "--from", str(source), "--tag", f"p{number}")
        running.append((f"p{number}", start(*words)))
        running.append((f"t{number}", start("tag", FQRN, "--add", f"t{number}")))
    done = set()
    for name, process in running:
        _, errors = process.communicate(timeout=60)
        if process.returncode == 0:
            done.add(name)
        else:
            assert process.returncode == 9, errors
            assert "is changing the repository" in errors
    assert done
    assert revisions_of(zero).keys() == {"v1", "v2", "trunk", "trunk-previous"} | done
    assert zero.checked().manifest["S"] == str(3 + sum(name[0] == "p" for name in done))
