"""Collecting the garbage of a stratum 0: what stays, who may, what is written down."""

import json
import os
from pathlib import Path

import pytest
from tests.support import reachability
from tests.support.collectable import Copies, QuickStore, World, small_history
from tests.support.reachability import reachable, stored

from outcrop.errors import OutcropError
from outcrop.publisher.errors import (
    CollectionInProgress,
    PublisherSettingsError,
    PublishInProgress,
    TransactionOpen,
)
from outcrop.publisher.garbage import (
    GarbageResult,
    last_collected_at,
    maybe_collect,
)
from outcrop.publisher.inspection import rebuild_reflog
from outcrop.publisher.lock import collecting_lock, publishing_lock
from outcrop.repository.errors import NotCollectable, ReflogMissing, RepositoryIncomplete


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> World:
    made = World(tmp_path_factory.mktemp("garbage") / "world")
    small_history(made)
    return made


@pytest.fixture
def world(template: World, tmp_path: Path) -> World:
    return Copies(template, tmp_path / "world").take()


def test_all_revisions_stay_that_are_young_and_the_one_before(world: World) -> None:
    result = world.collect(keep_since=world.now - 5)
    assert result.collected.preserved_revisions == 3  # trunk, the one before, the tag `first`
    world.check()


def test_without_a_choice_three_days_stay(world: World) -> None:
    assert world.collect(now=world.now + 86400).collected.objects == 0
    assert world.collect(now=world.now + 4 * 86400).collected.condemned_revisions > 0


def test_a_number_and_a_time_exclude_each_other(world: World) -> None:
    with pytest.raises(PublisherSettingsError, match="either"):
        world.collect(keep_revisions=1, keep_since=1)


def test_a_repository_that_promised_to_keep_everything_is_left_alone(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.create()
    before = stored(world.directory)
    with pytest.raises(NotCollectable, match="not garbage collectable"):
        world.collect(keep_revisions=0)
    assert stored(world.directory) == before


def test_the_deletion_log_is_upstreams(world: World, tmp_path: Path) -> None:
    log = tmp_path / "log"
    before = stored(world.directory)
    world.collect(keep_revisions=0, deletion_log=log)
    first, *names, last = log.read_text().splitlines()
    assert first == "# Garbage Collection started at 15 Jan 2027 08:00:40"
    assert last == "# Garbage Collection finished at 15 Jan 2027 08:00:40"
    assert set(names) == before - stored(world.directory)
    assert len(names) == len(set(names))
    world.collect(keep_revisions=0, deletion_log=log)
    assert len(log.read_text().splitlines()) == len(names) + 4


def test_the_status_file_tells_when_and_keeps_what_else_it_says(world: World) -> None:
    file = world.directory / ".cvmfs_status.json"
    file.write_text('{"last_snapshot": "Sun Nov 22 08:00:55 UTC 2026"}')
    assert last_collected_at(world.store) is None
    world.collect(keep_revisions=0)
    assert json.loads(file.read_text()) == {
        "last_snapshot": "Sun Nov 22 08:00:55 UTC 2026",
        "last_gc": "Fri Jan 15 08:00:40 UTC 2027",
    }
    assert last_collected_at(world.store) == world.now


@pytest.mark.parametrize("text", ["", "[]", '{"last_gc": 3}', '{"last_gc": "yesterday"}', "\xff"])
def test_a_status_file_of_another_kind_says_nothing(world: World, text: str) -> None:
    (world.directory / ".cvmfs_status.json").write_text(text, "latin-1")
    assert last_collected_at(world.store) is None
    world.collect(keep_revisions=0)
    assert last_collected_at(world.store) == world.now


# --- automatic collection ---


def collect_if_due(world: World, days: float) -> GarbageResult | None:
    now = world.now + int(days * 86400)
    store = QuickStore(world.directory)
    return maybe_collect(world.locations, world.fqrn, now=now, store=store)


def test_an_automatic_collection_must_be_wanted(world: World) -> None:
    assert collect_if_due(world, 10) is None


def test_an_automatic_collection_happens_when_the_last_one_is_old_enough(world: World) -> None:
    world.configure(CVMFS_AUTO_GC="true", CVMFS_AUTO_GC_TIMESPAN="'5 days ago'")
    first = collect_if_due(world, 4.5)
    assert first is not None
    assert first.collected.condemned_revisions == 0
    assert collect_if_due(world, 5.2) is None
    second = collect_if_due(world, 5.6)
    assert second is not None
    assert second.collected.condemned_revisions > 0
    world.check()


# --- who may ---


def test_nothing_is_collected_while_somebody_publishes(world: World) -> None:
    with publishing_lock(world.spool, world.fqrn), pytest.raises(PublishInProgress):
        world.collect(keep_revisions=0)


def test_nothing_is_collected_while_somebody_checks(world: World) -> None:
    with collecting_lock(world.spool, world.fqrn), pytest.raises(CollectionInProgress):
        world.collect(keep_revisions=0)


def test_nothing_is_collected_in_a_transaction(world: World) -> None:
    (world.spool / "in_transaction.lock").touch()
    with pytest.raises(TransactionOpen):
        world.collect(keep_revisions=0)


def test_nobody_publishes_or_checks_while_garbage_is_collected(world: World) -> None:
    refused: list[type[Exception]] = []

    class Interrupted(QuickStore):
        def remove(self, name: str) -> None:
            if not refused:
                for action in (world.step, world.check):
                    with pytest.raises(OutcropError) as refusal:
                        action()
                    refused.append(refusal.type)
            super().remove(name)

    world.collect(keep_revisions=0, store=Interrupted(world.directory))
    assert refused == [PublishInProgress, CollectionInProgress]
    world.step()
    world.check()


# --- orphans ---


def test_orphans_go_only_if_asked_for_and_only_if_they_are_old(world: World) -> None:
    world.collect(keep_revisions=0)
    clean = stored(world.directory)
    for name, at in (("aa" * 20, 1000), ("bb" * 20 + "P", 2000), ("cc" * 20, 3000)):
        file = world.directory / "data" / name[:2] / name[2:]
        file.parent.mkdir(exist_ok=True)
        file.touch()
        os.utime(file, (at, at))
    strange = world.directory / "data/aa/notes.txt"
    strange.touch()
    os.utime(strange, (1, 1))
    assert world.collect(keep_revisions=0).collected.orphans == 0
    dry = world.collect(keep_revisions=0, orphans_before=2500, dry_run=True)
    assert dry.collected.orphans == 2
    assert world.collect(keep_revisions=0, orphans_before=2500).collected.orphans == 2
    assert stored(world.directory) - clean == {"cc" * 20, "aanotes.txt"}
    world.check()


def test_what_is_condemned_is_no_orphan_in_a_dry_run(world: World) -> None:
    dry = world.collect(keep_revisions=0, orphans_before=1 << 40, dry_run=True)
    assert dry.collected.orphans == 0
    assert dry.collected.objects > 0


def test_no_orphans_are_looked_for_where_a_kept_catalog_is_missing(world: World) -> None:
    tag = reachability.tags(world.directory)["first"]
    (nested,) = [n for n in reachable(world.directory, tag) if n[-1] == "C" and n[:-1] != tag]
    (world.directory / "data" / nested[:2] / nested[2:]).unlink()
    result = world.collect(keep_revisions=0)
    assert [str(root) for root in result.collected.incomplete] == [tag]
    before = stored(world.directory)
    with pytest.raises(RepositoryIncomplete, match="orphans"):
        world.collect(keep_revisions=0, orphans_before=1 << 40)
    assert stored(world.directory) == before


def test_what_dead_writers_left_goes(world: World) -> None:
    (world.directory / "data/txn").mkdir(exist_ok=True)
    (world.directory / "data/txn/left").touch()
    assert world.collect(keep_revisions=0, dry_run=True).leftovers == 0
    assert world.collect(keep_revisions=0).leftovers == 1


# --- the reflog ---


def test_without_a_reflog_nothing_is_collected_until_it_is_rebuilt(world: World) -> None:
    before = reachability.reflog(world.directory)
    (world.directory / ".cvmfsreflog").unlink()
    with pytest.raises(ReflogMissing) as missing:
        world.collect(keep_revisions=0)
    assert missing.value.hint == f"outcrop reflog {world.fqrn} rebuild"
    rebuild_reflog(world.locations, world.fqrn, now=world.now)
    after = reachability.reflog(world.directory)
    assert all(after[text] == (kind, at) for text, (kind, at) in before.items() if not kind)
    assert {t: kind for t, (kind, _) in after.items()} == {t: k for t, (k, _) in before.items()}
    world.collect(keep_revisions=0)
    world.check()


def test_a_reflog_that_nobody_can_vouch_for_is_refused(world: World) -> None:
    world.collect(keep_revisions=1)  # now the manifest's word on it is of before
    (world.spool / "reflog.chksum").unlink()
    with pytest.raises(ReflogMissing, match="cannot be told"):
        world.collect(keep_revisions=0)


def test_the_manifest_vouches_for_the_reflog_of_the_last_publish(world: World) -> None:
    (world.spool / "reflog.chksum").unlink()
    assert world.collect(keep_revisions=0).collected.condemned_revisions > 0
