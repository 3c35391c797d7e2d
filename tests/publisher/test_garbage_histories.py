"""Exactly what no kept revision needs goes, whatever was published, tagged and rolled back."""

import contextlib
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.support import reachability
from tests.support.collectable import QuickStore, World, expected_after
from tests.support.reachability import stored

from outcrop.publisher.rollback import RollbackRefused, roll_back
from outcrop.publisher.tags import WantedTag, edit_tags

operation = st.one_of(
    st.tuples(st.just("publish"), st.lists(st.tuples(st.sampled_from(
        ["a", "b", "c", "nested/a", "nested/b", "nested/.cvmfscatalog", "nested/deep/.cvmfscatalog",
         "nested/deep/a", "other/a"]), st.integers(0, 3)), max_size=4)),
    st.tuples(st.just("tag"), st.integers(0, 2)),
    st.tuples(st.just("untag"), st.integers(0, 2)),
    st.tuples(st.just("rollback"), st.integers(0, 2)),
    st.tuples(st.just("gc"), st.integers(0, 2)),
    st.tuples(st.just("gc since"), st.integers(0, 60)),
)  # fmt: skip


def perform(world: World, step: tuple) -> None:
    name, argument = step
    store = QuickStore(world.directory)
    present = reachability.tags(world.directory)
    if name == "publish":
        for file, content in argument:
            place = world.source / file
            if content == 3 or file.endswith("catalog"):
                place.unlink(missing_ok=True)
            if content < 3:
                world.put(file, b"" if file.endswith("catalog") else b"%d" % content * 1400)
        world.step()
        return
    world.now += 10
    tag = f"tag{argument}"
    if name == "tag" and tag not in present:
        edit_tags(
            world.locations, world.fqrn, add=[WantedTag(name=tag)], now=world.now, store=store
        )
    elif name == "untag" and tag in present:
        edit_tags(world.locations, world.fqrn, remove=[tag], now=world.now, store=store)
    elif name == "rollback" and tag in present:
        with contextlib.suppress(RollbackRefused):  # to what it is
            roll_back(world.locations, world.fqrn, tag=tag, now=world.now, store=store)
    elif name.startswith("gc"):
        since = world.now - argument if name == "gc since" else 0
        revisions = argument if name == "gc" else None
        expected = expected_after(world, revisions=revisions, since=since)
        keep = {"keep_revisions": revisions} if revisions is not None else {"keep_since": since}
        world.collect(**keep)
        assert stored(world.directory) == expected.objects
        assert set(reachability.reflog(world.directory)) == expected.refs


def run_history(steps: list[tuple]) -> None:
    with tempfile.TemporaryDirectory() as directory:
        world = World(Path(directory))
        world.start()
        world.put("always", b"always")
        world.step()
        for step in steps:
            perform(world, step)
        world.collect(keep_revisions=0)
        world.check()


@settings(max_examples=8, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(operation, min_size=4, max_size=9))
def test_exactly_what_no_kept_revision_reaches_is_deleted(steps: list[tuple]) -> None:
    run_history(steps)


@pytest.mark.system
@settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(operation, min_size=5, max_size=20))
def test_exactly_what_no_kept_revision_reaches_is_deleted_over_long_histories(
    steps: list[tuple],
) -> None:
    run_history(steps)
