"""A repository whose garbage can be collected, and what should be left of it afterwards."""

import os
import shutil
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path

from tests.support import reachability
from tests.support.reachability import reachable
from tests.support.stratum_zero import StratumZero

from outcrop.publisher.garbage import (
    GarbageOptions,
    GarbageResult,
    collect_garbage,
)
from outcrop.publisher.inspection import check_stratum_zero
from outcrop.repository.check import CheckOptions
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


def tiny_history(world: World) -> None:
    """Three revisions with a nested catalog, the middle one without a tag; little to delete."""
    world.start()
    world.put("nested/.cvmfscatalog", b"")
    for number, tag in enumerate(("first", None, "last")):
        world.put("nested/file", b"nested %d" % number)
        world.step(tag=tag)


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
