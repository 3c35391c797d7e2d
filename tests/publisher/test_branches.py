"""Branches: revisions that are only tagged, while the trunk stays."""

from pathlib import Path

import pytest
from tests.support.dying import run_until
from tests.support.history import Tagged, files_of, history_of, revisions_of, tags_of
from tests.support.stratum_zero import FQRN, StratumZero

from outcrop.errors import FormatError
from outcrop.formats.history import Branch
from outcrop.publisher.branches import (
    BranchCheckedOut,
    Checkout,
    TagRequired,
    read_checkout,
    write_checkout,
)
from outcrop.publisher.checkout import BranchExists, BranchNotFound, check_out
from outcrop.publisher.errors import TagExists
from outcrop.publisher.rollback import RollbackRefused, roll_back
from outcrop.publisher.tags import WantedTag, edit_tags
from outcrop.repository.errors import TagNotFound


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Tagged:
    return Tagged(tmp_path_factory.mktemp("template"), CVMFS_AUTO_TAG="true")


@pytest.fixture
def tagged(template: Tagged, tmp_path: Path) -> Tagged:
    return template.copy(tmp_path)


def out(world: StratumZero, **arguments: str | None) -> Checkout | None:
    return check_out(world.locations, FQRN, now=world.now, **arguments)


def branches_of(world: StratumZero) -> dict[str, str | None]:
    return {branch.name: branch.parent for branch in history_of(world).branches if branch.name}


def test_a_revision_of_a_branch_is_tagged_and_the_trunk_stays(tagged: Tagged) -> None:
    world = tagged.world
    trunk = world.checked().manifest["C"]
    here = out(world, branch="fixes", tag="v2")
    assert here == Checkout("v2", tags_of(world)["v2"].hash, "fixes", "")
    (tagged.source / "patch").write_text("on top of two")
    result = world.publish(tagged.source, tag="v2.1")
    checker = world.checked()
    assert (checker.manifest["C"], checker.manifest["S"]) == (trunk, "4")
    tag = tags_of(world)["v2.1"]
    assert (tag.revision, tag.branch, tag.timestamp) == (3, "fixes", world.now)
    assert (result.revision, result.root_hash) == (3, tag.hash)
    assert files_of(world, tag.hash) == {b"/f4", b"/patch"}
    assert revisions_of(world)["trunk"] == 4
    assert history_of(world).branches == (Branch("", None, 0), Branch("fixes", "", 3))
    assert read_checkout(world.spool) == Checkout("v2.1", tag.hash, "fixes", "")


def test_publishing_goes_on_at_the_newest_revision_of_a_branch(tagged: Tagged) -> None:
    world = tagged.world
    out(world, branch="fixes", tag="v2")
    world.publish(tagged.source, tag="v2.1")
    out(world)
    assert read_checkout(world.spool) is None
    tagged.change(7)
    assert world.publish(tagged.source).revision == 5
    assert files_of(world) == {b"/f7"}
    here = out(world, branch="fixes")
    assert here is not None and here.tag == "v2.1"
    tagged.change(8)
    result = world.publish(tagged.source, tag="v2.2")
    assert (result.revision, files_of(world, result.root_hash)) == (4, {b"/f8"})
    assert (files_of(world), world.checked().manifest["S"]) == ({b"/f7"}, "5")


def test_an_unchanged_source_is_compared_with_the_branch_and_not_with_the_trunk(
    tagged: Tagged,
) -> None:
    world = tagged.world
    out(world, branch="fixes", tag="v2")
    result = world.publish(tagged.source, tag="same-as-four")
    assert files_of(world, result.root_hash) == {b"/f4"}
    assert not result.is_unchanged
    assert world.publish(tagged.source, tag="again").is_unchanged
    out(world)
    assert world.publish(tagged.source).is_unchanged
    assert files_of(world) == {b"/f4"}


def test_a_branch_can_begin_on_a_branch(tagged: Tagged) -> None:
    world = tagged.world
    out(world, branch="a", tag="v2")
    world.publish(tagged.source, tag="a1")
    out(world, branch="b", tag="a1")
    world.publish(tagged.source, tag="b1")
    out(world)
    assert branches_of(world) == {"a": "", "b": "a"}
    tree = [(level, branch.name) for level, branch in history_of(world).branch_tree()]
    assert tree == [(0, ""), (1, "a"), (2, "b")]
    edit_tags(world.locations, FQRN, remove=["a1"], now=world.now)
    assert branches_of(world) == {"b": ""}
    edit_tags(world.locations, FQRN, remove=["b1"], now=world.now)
    assert branches_of(world) == {}
    world.checked()


def test_a_tag_keeps_its_branch_when_it_moves(tagged: Tagged) -> None:
    world = tagged.world
    out(world, branch="a", tag="v2")
    world.publish(tagged.source, tag="a1")
    out(world)
    moved = WantedTag(name="a1", revision=3)
    edit_tags(world.locations, FQRN, add=[moved], now=world.now)
    assert (tags_of(world)["a1"].branch, tags_of(world)["a1"].revision) == ("a", 3)
    with pytest.raises(RollbackRefused, match="on the branch a"):
        roll_back(world.locations, FQRN, tag="a1", now=world.now)


def test_a_revision_of_a_branch_needs_a_new_tag(tagged: Tagged) -> None:
    world = tagged.world
    out(world, branch="fixes", tag="v2")
    with pytest.raises(TagRequired, match="fixes"):
        world.publish(tagged.source)
    with pytest.raises(TagExists):
        world.publish(tagged.source, tag="v3")
    assert branches_of(world) == {}


def test_the_trunks_business_is_refused_on_a_branch(tagged: Tagged) -> None:
    world = tagged.world
    out(world, branch="fixes", tag="v2")
    with pytest.raises(BranchCheckedOut, match="fixes"):
        edit_tags(world.locations, FQRN, remove=["v2"], now=world.now)
    with pytest.raises(BranchCheckedOut):
        roll_back(world.locations, FQRN, now=world.now)


def test_only_what_makes_sense_is_checked_out(tagged: Tagged) -> None:
    world = tagged.world
    out(world, branch="there", tag="v2")
    world.publish(tagged.source, tag="t1")
    with pytest.raises(BranchExists, match="at the tag t1"):
        out(world, branch="there", tag="v3")
    with pytest.raises(BranchNotFound, match="no branch elsewhere"):
        out(world, branch="elsewhere")
    with pytest.raises(BranchNotFound, match="alone"):
        out(world, tag="v2")
    with pytest.raises(TagNotFound):
        out(world, branch="new", tag="v99")
    with pytest.raises(FormatError, match="branch name"):
        out(world, branch="no way", tag="v2")
    assert read_checkout(world.spool) is not None


def test_a_dry_run_on_a_branch_changes_nothing(tagged: Tagged) -> None:
    world = tagged.world
    out(world, branch="fixes", tag="v2")
    here = read_checkout(world.spool)
    world.publish(tagged.source, tag="v2.1", dry_run=True)
    assert read_checkout(world.spool) == here
    assert "v2.1" not in tags_of(world)


def test_a_checkout_that_is_gone_does_not_keep_anybody_from_the_trunk(tagged: Tagged) -> None:
    world = tagged.world
    out(world, branch="fixes", tag="v2")
    here = read_checkout(world.spool)
    assert here is not None
    root = str(here.root)
    (world.directory / f"data/{root[:2]}/{root[2:]}C").unlink()
    out(world)
    assert world.publish(tagged.source).revision == 5


def test_the_checkout_file_is_upstreams(tmp_path: Path) -> None:
    root = "0123456789abcdef0123456789abcdef01234567"
    for text, parent in ((f"v1 {root} dev \n", ""), (f"v1 {root} dev main\n", "main")):
        (tmp_path / "checkout").write_text(text)
        found = read_checkout(tmp_path)
        assert found is not None
        assert (found.tag, str(found.root), found.branch, found.parent) == (
            "v1", root, "dev", parent,
        )  # fmt: skip
        write_checkout(tmp_path, found)
        assert (tmp_path / "checkout").read_text() == text.replace(" \n", "\n")
    for text in ("", "v1", f"v1 {root} a b c", "v1 nohash dev"):
        (tmp_path / "checkout").write_text(text)
        with pytest.raises(FormatError):
            read_checkout(tmp_path)


@pytest.mark.parametrize("step", [101, pytest.param(7, marks=pytest.mark.system)])
def test_a_publish_on_a_branch_killed_anywhere_loses_nothing(tagged: Tagged, step: int) -> None:
    out(tagged.world, branch="fixes", tag="v2")
    tagged.world.publish(tagged.source, tag="first")
    tagged.change(6)
    for number, world in zip(range(1, 10_000, step), tagged.copies(), strict=False):
        is_through = run_until(
            number, lambda world=world: world.publish(tagged.source, tag="second")
        )
        problems = [
            p for p in world.checker().check() if "left over" not in p and "reflog: hash" not in p
        ]
        assert problems == []
        if is_through:
            break
        world.now += 10
        is_there = "second" in tags_of(world)
        result = world.publish(tagged.source, tag="third" if is_there else "second")
        assert result.revision == (5 if is_there else 4)
        assert files_of(world, result.root_hash) == {b"/f6"}
        world.checked()
    assert number > 10
