"""Publishing to a bucket from two machines: one gets through, nothing is lost."""

import shutil
from collections.abc import Callable
from pathlib import Path

import obstore
import pytest
from obstore.store import MemoryStore as MemoryBucket
from tests.support.checker import Checker
from tests.support.keys import repository_keys
from tests.support.stratum_zero import FQRN, StratumZero

from outcrop.publisher.publish import PublishResult
from outcrop.repository.errors import RepositoryExists, RevisionConflict
from outcrop.storage.cloud import CloudClients, CloudStore
from outcrop.storage.errors import FileChanged, ObjectCorrupt
from outcrop.storage.store import read_file


class Interrupted(CloudStore):
    """A bucket that something happens to just before a file is replaced."""

    def __init__(
        self, bucket: MemoryBucket, name: str, before_replace: Callable[[], object]
    ) -> None:
        super().__init__(CloudClients(reader=bucket, writer=bucket), prefix=FQRN, place="memory")
        self._name = name
        self._before_replace = before_replace

    def _read_version(self, key: str) -> tuple[bytes | None, "obstore.UpdateVersion"]:
        found = super()._read_version(key)
        if key.endswith(self._name):
            self._before_replace()
        return found


@pytest.fixture
def bucket() -> MemoryBucket:
    return MemoryBucket()


def store_in(bucket: MemoryBucket) -> CloudStore:
    return CloudStore(CloudClients(reader=bucket, writer=bucket), prefix=FQRN, place="memory")


def check(bucket: MemoryBucket, place: Path) -> Checker:
    """The repository in the bucket, found to be right in every respect."""
    for page in obstore.list(bucket, prefix=FQRN):
        for found in page:
            file = place / found["path"].removeprefix(f"{FQRN}/")
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(bytes(obstore.get(bucket, found["path"]).bytes()))
    checker = Checker(place, FQRN, repository_keys().master_public_pem)
    assert checker.check() == []
    return checker


def test_of_two_machines_that_publish_at_once_one_gets_through(
    tmp_path: Path, bucket: MemoryBucket
) -> None:
    one = StratumZero(tmp_path / "one")
    one.create(store=store_in(bucket))
    shutil.copytree(tmp_path / "one", tmp_path / "two")
    two = StratumZero(tmp_path / "two")
    two.configure(CVMFS_SPOOL_DIR=two.spool)
    for world in (one, two):
        source = world.locations.root / "source"
        source.mkdir()
        (source / world.locations.root.name).write_bytes(world.locations.root.name.encode())
    won: list[PublishResult] = []

    def publish_other() -> None:
        if not won:
            won.append(two.publish(tmp_path / "two/source", store=store_in(bucket)))

    with pytest.raises(FileChanged, match="somebody else wrote it"):
        one.publish(
            tmp_path / "one/source", store=Interrupted(bucket, ".cvmfsreflog", publish_other)
        )
    assert [result.revision for result in won] == [2]
    checker = check(bucket, tmp_path / "downloaded")
    assert checker.read(b"/two") == b"two"
    assert b"/one" not in checker.entries
    # The reflog's checksum is on the machine that published: the other one is refused from now on.
    with pytest.raises(ObjectCorrupt, match="reflog"):
        one.publish(tmp_path / "one/source", store=store_in(bucket))
    assert two.publish(tmp_path / "two/source", store=store_in(bucket)).revision == 3


def test_a_manifest_that_changed_at_the_last_moment_stays(
    tmp_path: Path, bucket: MemoryBucket
) -> None:
    world = StratumZero(tmp_path)
    world.create(store=store_in(bucket))
    (tmp_path / "source").mkdir()

    def change() -> None:
        store_in(bucket).write(".cvmfspublished", b"of somebody else")

    with pytest.raises(RevisionConflict, match="somebody else published"):
        world.publish(tmp_path / "source", store=Interrupted(bucket, ".cvmfspublished", change))
    assert read_file(store_in(bucket), ".cvmfspublished") == b"of somebody else"


def test_a_repository_is_not_made_over_another(tmp_path: Path, bucket: MemoryBucket) -> None:
    StratumZero(tmp_path / "one").create(store=store_in(bucket))
    with pytest.raises(RepositoryExists):
        StratumZero(tmp_path / "two").create(store=store_in(bucket))
    check(bucket, tmp_path / "downloaded")
