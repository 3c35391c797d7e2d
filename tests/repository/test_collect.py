"""Garbage collection deletes what upstream's deletes, and never what a kept revision needs."""

import re
import shutil
from pathlib import Path

import pytest
from tests.support import golden

from outcrop.formats.hashes import ContentHash, HashAlgorithm
from outcrop.formats.reflog import Ref, RefType
from outcrop.repository.collect import Collected, CollectOptions, collect
from outcrop.repository.mark import Keep
from outcrop.repository.open import RepositorySource
from outcrop.repository.reflog import Reflog
from outcrop.storage.local import LocalStore
from outcrop.storage.temporary import TransientOpener
from outcrop.trust.blacklist import Blacklist
from outcrop.trust.keys import load_public_keys

TAG_EDITED_AT = 1795334455


def files_below(directory: Path) -> set[str]:
    return {str(p.relative_to(directory)) for p in directory.rglob("*") if p.is_file()}


def listed(name: str) -> set[str]:
    """The stored files by one of the golden repository's listings."""
    lines = (golden.directory("gc") / name).read_text().splitlines()
    return {line.split(" ", 1)[1] for line in lines}


def swept_by_upstream() -> set[str]:
    text = (golden.directory("gc") / "gc-output.txt").read_text()
    return set(re.findall(r"[Ss]weep: ([0-9a-f]{40}[CHMPX]?)", text))


class GoldenScene:
    """The golden repository as it was the moment before upstream collected garbage."""

    def __init__(self, root: Path) -> None:
        origin = golden.directory("gc")
        self.directory = root / "repo"
        shutil.copytree(origin / "repo-before-gc", self.directory)
        self.store = LocalStore(self.directory)
        # Between the listing and the collection a tag was removed: a new history, signed.
        for name in (".cvmfspublished", "data/07/83f17d79851a5dcbc51402c2a3eb1a5a5e0773H"):
            (self.directory / name).parent.mkdir(exist_ok=True)
            shutil.copy(origin / "repo" / name, self.directory / name)
        self.scratch = root / "scratch"
        self.scratch.mkdir()
        self.reflog = Reflog(
            self.store, root / "reflog.chksum", golden.fqrn("gc"), HashAlgorithm.SHA1
        )
        history = ContentHash.parse("0783f17d79851a5dcbc51402c2a3eb1a5a5e0773")
        self.reflog.add([Ref(history, RefType.HISTORY, TAG_EDITED_AT)])
        source = RepositorySource(
            golden.fqrn("gc"),
            self.store,
            TransientOpener(self.store),
            load_public_keys(golden.public_key("gc").read_bytes()),
            Blacklist(),
        )
        trusted = source.fetch_manifest(now=golden.now())
        self.manifest = trusted.manifest
        self.tagged = [tag.hash for tag in source.history(trusted).tags]

    def collect(self, keep: Keep, **options: object) -> Collected:
        return collect(
            self.store,
            self.reflog,
            self.manifest,
            self.tagged,
            CollectOptions(keep=keep, workers=2, **options),
            scratch=self.scratch,
            log=self.log.append,
        )

    @property
    def log(self) -> list[str]:
        return self.__dict__.setdefault("_log", [])


@pytest.fixture
def scene(tmp_path: Path) -> GoldenScene:
    return GoldenScene(tmp_path)


def test_what_upstream_sweeps_is_swept_and_nothing_else(scene: GoldenScene) -> None:
    result = scene.collect(Keep(revisions=1))
    assert set(scene.log) == swept_by_upstream()
    assert len(scene.log) == len(set(scene.log)) == result.objects
    stored = files_below(scene.directory)
    assert stored == listed("objects.txt")
    assert (result.preserved_revisions, result.condemned_revisions) == (3, 5)
    assert (result.condemned_catalogs, result.auxiliary) == (6, 4)
    assert not list(scene.scratch.iterdir())


def test_the_reflog_lists_what_is_left(scene: GoldenScene) -> None:
    before = scene.reflog.read()
    scene.collect(Keep(revisions=1))
    after = scene.reflog.read()
    assert set(after) < set(before)
    gone = {str(ref.hash) + ref.type.suffix for ref in set(before) - set(after)}
    nested = {"ac00a4d4efb93fd086c5d43504abb143227c66ffC"}
    assert gone == {name for name in scene.log if name[-1] in "CHMX"} - nested


def test_a_dry_run_tells_the_same_and_deletes_nothing(scene: GoldenScene) -> None:
    before = {name: (scene.directory / name).read_bytes() for name in files_below(scene.directory)}
    dry = scene.collect(Keep(revisions=1), dry_run=True, measure=True)
    assert set(scene.log) == swept_by_upstream()
    after = {name: (scene.directory / name).read_bytes() for name in files_below(scene.directory)}
    assert after == before
    scene.log.clear()
    assert scene.collect(Keep(revisions=1), measure=True) == dry
    gone = set(before) - files_below(scene.directory)
    assert dry.condemned_bytes == sum(len(before[name]) for name in gone)
