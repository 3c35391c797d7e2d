"""Collecting garbage of a stratum 0: exactly what no kept revision needs goes, whatever happens."""

import contextlib
import json
import os
import shutil
import tempfile
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.support import reachability
from tests.support.dying import run_until
from tests.support.faults import FaultyStore, Kind
from tests.support.reachability import reachable, stored
from tests.support.stratum_zero import StratumZero

from outcrop.errors import OutcropError
from outcrop.publisher.errors import (
    CollectionInProgress,
    PublisherSettingsError,
    PublishInProgress,
    TransactionOpen,
)
from outcrop.publisher.garbage import (
    GarbageOptions,
    GarbageResult,
    collect_garbage,
    last_collected_at,
    maybe_collect,
)
from outcrop.publisher.inspection import check_stratum_zero, rebuild_reflog
from outcrop.publisher.lock import collecting_lock, publishing_lock
from outcrop.publisher.rollback import RollbackRefused, roll_back
from outcrop.publisher.tags import WantedTag, edit_tags
from outcrop.repository.check import CheckOptions
from outcrop.repository.errors import NotCollectable, ReflogMissing, RepositoryIncomplete
from outcrop.storage.errors import StorageError
from outcrop.storage.local import LocalStore

CHUNKS = {
    "CVMFS_MIN_CHUNK_SIZE": 1000,
    "CVMFS_AVG_CHUNK_SIZE": 2000,
    "CVMFS_MAX_CHUNK_SIZE": 4000,
}


class QuickStore(LocalStore):
    """Does not wait for the disk, which other tests use, too."""

    def sync(self) -> None:
        pass


class World(StratumZero):
    """A garbage collectable repository and a source directory."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.source = root / "source"

    def start(self) -> None:
        self.create(store=QuickStore(self.directory))
        self.configure(CVMFS_GARBAGE_COLLECTION="true", **CHUNKS)
        self.source.mkdir()

    def put(self, name: str, content: bytes) -> None:
        file = self.source / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)

    def step(self, **options: object) -> None:
        self.publish(self.source, store=QuickStore(self.directory), **options)

    def collect(
        self, *, store: object = None, now: int | None = None, **options: object
    ) -> GarbageResult:
        return collect_garbage(
            self.locations,
            self.fqrn,
            GarbageOptions(**options),
            now=self.now if now is None else now,
            store=store or QuickStore(self.directory),
        )

    def check(self) -> None:
        options = CheckOptions(all_tags=True, workers=2)
        result = check_stratum_zero(self.locations, self.fqrn, options, now=self.now)
        assert [str(problem) for problem in result.problems] == []


def small_history(world: World) -> None:
    """Four revisions; the first has a tag, each has content of its own."""
    world.start()
    world.put("nested/.cvmfscatalog", b"")
    world.put("always", b"always")
    for number in range(4):
        world.put("nested/file", b"nested %d" % number)
        world.put("large", bytes([number]) * 1500 + os.urandom(6000))
        world.step(tag="first" if not number else None)


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> World:
    made = World(tmp_path_factory.mktemp("garbage") / "world")
    small_history(made)
    return made


@pytest.fixture
def world(template: World, tmp_path: Path) -> World:
    return Copies(template, tmp_path / "world").take()


@dataclass
class Expected:
    """What should be left, worked out from the formats alone."""

    objects: set[str] = field(default_factory=set)
    refs: set[str] = field(default_factory=set)


def expected_after(world: World, *, revisions: int | None, since: int) -> Expected:
    place = world.directory
    manifest, refs = reachability.manifest(place), reachability.reflog(place)
    chain = [manifest["C"]]
    while (revisions is None or len(chain) <= revisions) and refs[chain[-1]][1] >= since:
        before = reachability.predecessor(place, chain[-1])
        if before is None:
            break
        chain.append(before)
    kept = {*chain, *reachability.tags(place).values()}
    found = Expected()
    for root in kept:
        found.objects |= reachable(place, root)
    oldest = min(refs[root][1] for root in chain)
    named = {manifest[letter] for letter in "XHM"}
    for text, (kind, at) in refs.items():
        if text + "C" in found.objects if kind == 0 else at >= oldest or text in named:
            found.refs.add(text)
            found.objects.add(text + "CXHM"[kind])
    return found


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


# --- failures ---


class Copies:
    """Copies of a world to break, one after the other."""

    def __init__(self, world: World, root: Path) -> None:
        self._world = world
        self._root = root
        self._numbers = count()

    def take(self) -> World:
        place = self._root / f"copy-{next(self._numbers)}"
        shutil.copytree(self._world.locations.root, place, symlinks=True)
        copy = World(place)
        copy.now = self._world.now
        file = copy.locations.server_config(copy.fqrn) / "server.conf"
        text = file.read_text()
        file.write_text(text.replace(str(self._world.locations.root), str(place)))
        return copy


def assert_next_collection_completes(copy: World, wanted: set[str]) -> None:
    served = {
        reachability.manifest(copy.directory)["C"],
        *reachability.tags(copy.directory).values(),
    }
    for root in served:
        assert reachable(copy.directory, root) <= stored(copy.directory)
    copy.check()
    copy.collect(keep_revisions=0)
    assert stored(copy.directory) == wanted
    copy.check()
    assert not list((copy.spool / "tmp").iterdir())


@pytest.mark.parametrize(
    ("kind", "step"),
    [
        (Kind.ERROR, 5),
        pytest.param(Kind.ERROR, 1, marks=pytest.mark.system),
        pytest.param(Kind.FULL, 1, marks=pytest.mark.system),
        pytest.param(Kind.FLIP, 1, marks=pytest.mark.system),
    ],
)
def test_a_store_that_fails_anywhere_loses_nothing(
    world: World, tmp_path: Path, kind: Kind, step: int
) -> None:
    copies = Copies(world, tmp_path)
    done = copies.take()
    done.collect(keep_revisions=0)
    wanted = stored(done.directory)
    for fail_at in range(1, 1000, step):
        copy = copies.take()
        store = FaultyStore(QuickStore(copy.directory), fail_at=fail_at, kind=kind)
        with contextlib.suppress(OutcropError):
            copy.collect(keep_revisions=0, store=store)
        if kind is not Kind.FLIP or store.operations < fail_at:
            assert_next_collection_completes(copy, wanted)
        shutil.rmtree(copy.locations.root)
        if store.operations < fail_at:
            break
    assert fail_at > 20


@pytest.mark.parametrize("step", [17, pytest.param(2, marks=pytest.mark.system)])
def test_a_collection_killed_anywhere_is_completed_by_the_next(
    world: World, tmp_path: Path, step: int
) -> None:
    copies = Copies(world, tmp_path)
    done = copies.take()
    done.collect(keep_revisions=0)
    wanted = stored(done.directory)
    for number in range(1, 10_000, step):
        copy = copies.take()
        is_through = run_until(number, lambda copy=copy: copy.collect(keep_revisions=0))
        assert_next_collection_completes(copy, wanted)
        shutil.rmtree(copy.locations.root)
        if is_through:
            break
    assert number > 40


def test_a_trunk_that_lacks_a_catalog_stops_everything(world: World) -> None:
    trunk = reachability.manifest(world.directory)["C"]
    catalogs = {name for name in reachable(world.directory, trunk) if name.endswith("C")}
    (other,) = catalogs - {trunk + "C"}
    (world.directory / "data" / other[:2] / other[2:]).unlink()
    before = stored(world.directory)
    with pytest.raises(RepositoryIncomplete, match="nothing is deleted"):
        world.collect(keep_revisions=0)
    assert stored(world.directory) == before


def test_a_kept_catalog_that_is_damaged_stops_everything(world: World) -> None:
    tag = reachability.tags(world.directory)["first"]
    place = world.directory / "data" / tag[:2] / (tag[2:] + "C")
    place.write_bytes(place.read_bytes()[:-5])
    before = stored(world.directory)
    with pytest.raises(StorageError):
        world.collect(keep_revisions=0)
    assert stored(world.directory) == before


def test_a_condemned_catalog_that_is_damaged_goes_and_its_objects_become_orphans(
    world: World,
) -> None:
    condemned = sorted(
        text for text, (kind, _) in reachability.reflog(world.directory).items()
        if kind == 0 and text not in (*reachability.tags(world.directory).values(),)
    )  # fmt: skip
    text = condemned[0]
    place = world.directory / "data" / text[:2] / (text[2:] + "C")
    place.write_bytes(place.read_bytes()[:-5])
    result = world.collect(keep_revisions=0)
    assert [str(found) for found in result.collected.damaged] == [text]
    world.collect(keep_revisions=0, orphans_before=1 << 40)
    kept = expected_after(world, revisions=0, since=0)
    assert stored(world.directory) == kept.objects


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
