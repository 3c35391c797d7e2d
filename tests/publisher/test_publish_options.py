"""What can be asked of any publish: a dry run, a base, a number, the paths that change, waiting."""

import io
import os
import threading
from pathlib import Path

import pytest
from tests.support.stratum_zero import FQRN, StratumZero
from tests.support.tars import END, member

from outcrop.publisher.difflist import parse_diff_list
from outcrop.publisher.errors import LimitExceeded, PublishInProgress
from outcrop.publisher.lock import publishing_lock
from outcrop.publisher.options import PublishOptions
from outcrop.publisher.publish import PublishResult
from outcrop.publisher.tarball import publish_tarball
from outcrop.repository.errors import RevisionConflict

SMALL_CHUNKS = {
    "CVMFS_MIN_CHUNK_SIZE": 1000,
    "CVMFS_AVG_CHUNK_SIZE": 2000,
    "CVMFS_MAX_CHUNK_SIZE": 4000,
}


@pytest.fixture
def stratum_zero(tmp_path: Path) -> StratumZero:
    world = StratumZero(tmp_path / "world")
    world.create()
    world.configure(**SMALL_CHUNKS)
    return world


@pytest.fixture
def source(tmp_path: Path, stratum_zero: StratumZero) -> Path:
    """A directory that was published and has changed since."""
    root = tmp_path / "source"
    (root / "a").mkdir(parents=True)
    (root / "a/.cvmfscatalog").touch()
    (root / "a/kept").write_bytes(b"kept")
    (root / "a/gone").write_bytes(b"gone")
    stratum_zero.publish(root, tag="first")
    (root / "a/gone").unlink()
    (root / "a/kept").write_bytes(b"changed")
    for name in ("twice", "again"):
        (root / name).write_bytes(b"the same content")
    (root / "large").write_bytes(os.urandom(9000))
    return root


def everything(*roots: Path) -> dict[Path, tuple[bytes, int]]:
    """All files there are, with their content and times, but for the empty lock."""
    return {
        path: (path.read_bytes(), path.stat().st_mtime_ns)
        for root in roots
        for path in root.rglob("*")
        if path.is_file() and path.name != "is_publishing.lock"
    }


def test_a_dry_run_says_what_a_publish_then_does(stratum_zero: StratumZero, source: Path) -> None:
    stratum_zero.configure(CVMFS_AUTO_TAG="true")
    foretold = stratum_zero.publish(source, dry_run=True, now=stratum_zero.now + 10)
    done = stratum_zero.publish(source, now=stratum_zero.now)
    assert foretold.is_dry_run
    assert not done.is_dry_run
    for name in ("revision", "root_hash", "added", "changed", "removed", "bytes_read",
                 "bytes_stored", "catalogs", "tags"):  # fmt: skip
        assert getattr(foretold, name) == getattr(done, name), name
    assert done.added == {"files": 3}
    stratum_zero.checked()


def repeated(stratum_zero: StratumZero, source: Path, way: str, *, dry_run: bool) -> PublishResult:
    """Publish a new file of rules, and it alone but from a directory, in one of three ways."""
    options = PublishOptions(dry_run=dry_run)
    if way == "archive":
        archive = io.BytesIO(member(b".cvmfsdirtab", b"/deep/*\n") + END)
        return publish_tarball(
            stratum_zero.locations, FQRN, archive=archive, to=b"", options=options,
            now=stratum_zero.now + 10,
        )  # fmt: skip
    listed = parse_diff_list(io.BytesIO(b"A .cvmfsdirtab\n")) if way == "list" else None
    return stratum_zero.publish(
        source, dry_run=dry_run, listed=listed, now=stratum_zero.now + (10 if dry_run else 0)
    )


@pytest.mark.parametrize("way", ["directory", "list", "archive"])
def test_a_dry_run_knows_what_new_rules_make_of_all_that_is_there(
    stratum_zero: StratumZero, source: Path, way: str
) -> None:
    for name in ("one", "two"):
        (source / "deep" / name / "below").mkdir(parents=True)
    stratum_zero.publish(source)
    (source / ".cvmfsdirtab").write_bytes(b"/deep/*\n")
    foretold = repeated(stratum_zero, source, way, dry_run=True)
    done = repeated(stratum_zero, source, way, dry_run=False)
    assert (foretold.warnings, foretold.catalogs, foretold.added["files"]) == ((), 3, 3)
    for name in ("added", "changed", "removed", "catalogs", "bytes_stored"):
        assert getattr(foretold, name) == getattr(done, name), name
    assert {b"/deep/one", b"/deep/two"} < set(stratum_zero.checked().catalogs)


def test_a_dry_run_changes_nothing(stratum_zero: StratumZero, source: Path) -> None:
    before = everything(stratum_zero.locations.root)
    stratum_zero.publish(source, dry_run=True)
    stratum_zero.publish(source, dry_run=True, to=b"/elsewhere", tag="second")
    assert everything(stratum_zero.locations.root) == before
    assert list((stratum_zero.spool / "tmp").iterdir()) == []


def test_a_dry_run_that_fails_changes_nothing(stratum_zero: StratumZero, source: Path) -> None:
    stratum_zero.configure(CVMFS_ENFORCE_LIMITS="true", CVMFS_FILE_MBYTE_LIMIT="0")
    before = everything(stratum_zero.locations.root)
    with pytest.raises(LimitExceeded):
        stratum_zero.publish(source, dry_run=True)
    assert everything(stratum_zero.locations.root) == before


def test_paths_are_told_as_they_change(stratum_zero: StratumZero, source: Path) -> None:
    told: list[tuple[str, bytes]] = []
    for path in [source, *source.rglob("*")]:
        os.utime(path, (1_500_000_000, 1_500_000_000))
    stratum_zero.publish(source, dry_run=True, on_change=lambda *change: told.append(change))
    assert sorted(told) == [
        ("add", b"/again"),
        ("add", b"/large"),
        ("add", b"/twice"),
        ("mod", b""),
        ("mod", b"/a"),
        ("mod", b"/a/.cvmfscatalog"),
        ("mod", b"/a/kept"),
        ("rem", b"/a/gone"),
    ]


@pytest.mark.parametrize("base", ["2", "first", "trunk", "hash"])
def test_a_base_that_is_the_trunk_is_published_on(
    stratum_zero: StratumZero, source: Path, base: str
) -> None:
    if base == "hash":
        base = stratum_zero.checker().load() and stratum_zero.checked().manifest["C"]
    assert stratum_zero.publish(source, base=base).revision == 3


@pytest.mark.parametrize("base", ["1", "99", "other", "a" * 40])
def test_another_base_is_refused_before_any_work(
    stratum_zero: StratumZero, source: Path, base: str
) -> None:
    before = everything(stratum_zero.directory)
    with pytest.raises(RevisionConflict, match="revision 2") as caught:
        stratum_zero.publish(source, base=base)
    assert base in str(caught.value)
    assert everything(stratum_zero.directory) == before


def test_a_diff_list_on_a_base_that_moved_is_refused(
    stratum_zero: StratumZero, source: Path
) -> None:
    listed = parse_diff_list(io.BytesIO(b"M a/kept\n"))
    stratum_zero.publish(source / "a", to=b"/b")
    with pytest.raises(RevisionConflict):
        stratum_zero.publish(source, listed=listed, base="first")
    assert stratum_zero.checked().read(b"/a/kept") == b"kept"


def test_a_revision_has_the_number_asked_for(stratum_zero: StratumZero, source: Path) -> None:
    assert stratum_zero.publish(source, revision=70).revision == 70
    assert stratum_zero.checker().load()
    assert stratum_zero.publish(source).revision == 71
    with pytest.raises(RevisionConflict, match="not larger"):
        stratum_zero.publish(source, revision=71)


def test_a_publish_waits_for_another_as_long_as_asked(
    stratum_zero: StratumZero, source: Path
) -> None:
    with publishing_lock(stratum_zero.spool, FQRN):
        with pytest.raises(PublishInProgress):
            stratum_zero.publish(source, wait_seconds=0.06)
        results: list[object] = []
        waiting = threading.Thread(
            target=lambda: results.append(stratum_zero.publish(source, wait_seconds=60.0))
        )
        waiting.start()
    waiting.join()
    assert len(results) == 1
    stratum_zero.checked()
