"""The reflog: added to, struck off, rebuilt; its checksum is never in doubt, whatever happens."""

from pathlib import Path

import pytest
from tests.support.dying import run_until

from outcrop.errors import FormatError
from outcrop.formats.hashes import ContentHash, HashAlgorithm
from outcrop.formats.reflog import Ref, RefType
from outcrop.repository.errors import ReflogMissing
from outcrop.repository.reflog import NAME, Reflog
from outcrop.storage.errors import ObjectCorrupt
from outcrop.storage.local import LocalStore

FQRN = "log.example.org"


def ref(number: int, kind: RefType = RefType.CATALOG, at: int = 1) -> Ref:
    return Ref(ContentHash(HashAlgorithm.SHA1, bytes([number]) * 20), kind, at)


class Scene:
    def __init__(self, root: Path) -> None:
        self.store = LocalStore(root / "store")
        self.checksum = root / "reflog.chksum"
        self.reflog = Reflog(self.store, self.checksum, FQRN, HashAlgorithm.SHA1)

    @property
    def file(self) -> Path:
        return self.store.root / NAME

    def hash(self) -> ContentHash:
        return ContentHash.of(self.file.read_bytes(), HashAlgorithm.SHA1)


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    made = Scene(tmp_path)
    made.reflog.add([ref(1), ref(2), ref(3, RefType.HISTORY)])
    return made


def test_what_is_removed_is_gone_and_the_checksum_follows(scene: Scene) -> None:
    assert scene.reflog.remove([ref(2), ref(9)]) == scene.hash()
    assert set(scene.reflog.read_complete(None)) == {ref(1), ref(3, RefType.HISTORY)}
    assert scene.checksum.read_text() == str(scene.hash())


def test_removing_gives_the_room_back(scene: Scene) -> None:
    many = [Ref(ContentHash.of(b"%d" % n, HashAlgorithm.SHA1), RefType.CATALOG, n)
            for n in range(2000)]  # fmt: skip
    small = scene.file.stat().st_size
    scene.reflog.add(many)
    assert scene.file.stat().st_size > 10 * small
    scene.reflog.remove(many)
    assert scene.file.stat().st_size == small


def test_rebuilding_needs_nothing_of_what_was_there(scene: Scene) -> None:
    scene.file.write_bytes(b"no database")
    with pytest.raises(ObjectCorrupt):
        scene.reflog.read()
    assert scene.reflog.rebuild([ref(5)]) == scene.hash()
    assert scene.reflog.read_complete(None) == [ref(5)]


def test_a_reflog_that_is_not_there_is_missed_only_by_those_who_need_it(scene: Scene) -> None:
    scene.file.unlink()
    assert scene.reflog.read() == []
    with pytest.raises(ReflogMissing, match="there is no reflog"):
        scene.reflog.read_complete(None)


def test_without_a_checksum_the_manifest_decides(scene: Scene) -> None:
    signed = scene.hash()
    scene.checksum.unlink()
    assert len(scene.reflog.read_complete(signed)) == 3
    for other in (None, ContentHash.of(b"", HashAlgorithm.SHA1)):
        with pytest.raises(ReflogMissing, match="cannot be told"):
            scene.reflog.read_complete(other)


def test_the_checksum_of_this_machine_counts_more_than_the_manifest(scene: Scene) -> None:
    older = scene.hash()
    scene.reflog.remove([ref(1)])
    assert len(scene.reflog.read_complete(older)) == 2


def test_a_reflog_of_somebody_else_is_refused(scene: Scene) -> None:
    scene.file.write_bytes(scene.file.read_bytes() + b"\0")
    for read in (scene.reflog.read, lambda: scene.reflog.read_complete(None)):
        with pytest.raises(ObjectCorrupt, match="the reflog's hash is"):
            read()
    with pytest.raises(ObjectCorrupt):
        scene.reflog.remove([ref(1)])


def test_a_file_that_is_no_database_says_so(scene: Scene) -> None:
    scene.file.write_bytes(b"SQLite format 3\0" + b"\xff" * 5000)
    scene.checksum.write_text(str(scene.hash()))
    with pytest.raises(FormatError, match="no database"):
        scene.reflog.read_complete(None)


@pytest.mark.parametrize("edit", ["remove", "rebuild"])
def test_dying_at_any_instant_leaves_the_old_or_the_new_reflog(tmp_path: Path, edit: str) -> None:
    for number in range(1, 100):
        scene = Scene(tmp_path / str(number))
        (tmp_path / str(number)).mkdir()
        scene.reflog.add([ref(1), ref(2)])
        is_through = run_until(number, lambda s=scene: getattr(s.reflog, edit)([ref(1)]))
        scene = Scene(tmp_path / str(number))
        found = set(scene.reflog.read_complete(None))
        after = {"remove": {ref(2)}, "rebuild": {ref(1)}}[edit]
        assert found == after if is_through else found in ({ref(1), ref(2)}, after)
        scene.reflog.remove([ref(1)])
        scene.reflog.read_complete(None)
        if is_through:
            break
    assert number > 5
