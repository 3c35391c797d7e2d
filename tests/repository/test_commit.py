"""From an editor to a signed manifest; the files that are replaced on the way."""

from dataclasses import replace
from pathlib import Path

import pytest
from tests.support.faults import FaultyStore, Kind
from tests.support.keys import master_keys, other_keys, repository_keys

from outcrop.errors import FormatError
from outcrop.formats.catalog import NestedCatalog
from outcrop.formats.hashes import Compression, ContentHash, HashAlgorithm, ObjectRef, Suffix
from outcrop.formats.history import Tag
from outcrop.formats.manifest import Manifest
from outcrop.formats.reflog import Ref, RefType
from outcrop.formats.whitelist import Whitelist
from outcrop.publisher.compression import CompressionChoice
from outcrop.repository.commit import Commit, NewTag, SigningKeys, open_history
from outcrop.repository.errors import RevisionConflict
from outcrop.repository.object_writer import ObjectWriter
from outcrop.repository.reflog import NAME, Reflog
from outcrop.repository.shortcuts import remove_dangling
from outcrop.storage.errors import ObjectCorrupt, StorageError
from outcrop.storage.local import LocalStore
from outcrop.storage.memory import MemoryStore
from outcrop.storage.store import read_file, read_object
from outcrop.trust.chain import TrustedManifest, verify_whitelist
from outcrop.trust.errors import BadSignature, CertificateNotListed
from outcrop.trust.keys import Certificate
from outcrop.trust.signing import key_signer, sign_whitelist

FQRN = "sim.example.org"
NOW = 1_700_000_000
SHA1 = HashAlgorithm.SHA1
ROOT = NestedCatalog(b"", ContentHash.of(b"a catalog", SHA1), 9)
TEMPLATE = Manifest(root_catalog=ROOT.hash, ttl=240, revision=0, fqrn=FQRN)


class Office:
    """Everything a commit needs."""

    def __init__(self, spool: Path) -> None:
        self.store = MemoryStore()
        self.spool = spool
        self.writer = ObjectWriter(self.store, SHA1, CompressionChoice.FAST.compressor)
        self.reflog = Reflog(self.store, spool / "reflog.chksum", FQRN, SHA1)
        keys = repository_keys()
        self.keys = SigningKeys(keys.certificate_pem, keys.repository_key_pem)
        whitelist = Whitelist(
            created_at=NOW,
            expires_at=NOW + 86400,
            fqrn=FQRN,
            fingerprints=(Certificate.parse(keys.certificate_pem).fingerprint(SHA1),),
        )
        self.whitelist = verify_whitelist(
            sign_whitelist(whitelist, key_signer(keys.master_key_pem), SHA1),
            master_keys=master_keys(keys),
            fqrn=FQRN,
            now=NOW,
        )

    def commit(self, base: TrustedManifest | None, **changes: object) -> Commit:
        commit = Commit(
            writer=self.writer,
            reflog=self.reflog,
            keys=self.keys,
            whitelist=self.whitelist,
            base=base,
            now=NOW if base is None else base.manifest.published_at + 10,
        )
        return replace(commit, **changes)

    def first(self) -> TrustedManifest:
        return self.commit(None).sign(TEMPLATE, ROOT, 1, [])


@pytest.fixture
def office(tmp_path: Path) -> Office:
    return Office(tmp_path)


def test_a_signed_manifest_is_served_and_tells_all(office: Office) -> None:
    manifest = office.first().manifest
    assert read_file(office.store, ".cvmfspublished").startswith(manifest.serialize())
    assert (manifest.root_catalog, manifest.catalog_size) == (ROOT.hash, 9)
    assert (manifest.revision, manifest.published_at) == (1, NOW)
    assert manifest.certificate is not None
    ref = ObjectRef(manifest.certificate, Suffix.CERTIFICATE)
    assert read_object(office.store, ref, limit=10_000) == office.keys.certificate_pem
    assert manifest.reflog == ContentHash.of(read_file(office.store, NAME), SHA1)
    types = {ref.type for ref in office.reflog.read()}
    assert types == {RefType.CATALOG, RefType.CERTIFICATE, RefType.HISTORY}


def test_tags_are_set_and_the_trunk_moves(office: Office) -> None:
    first = office.first()
    second = office.commit(first).sign(first.manifest, ROOT, 2, [NewTag("v1", "one")])
    assert second.manifest.history is not None
    with open_history(office.writer, second.manifest.history) as history:
        trunk, before, tag = (history.find(n) for n in ("trunk", "trunk-previous", "v1"))
    assert trunk == Tag("trunk", ROOT.hash, 9, 2, NOW + 10, description="current HEAD")
    assert before == Tag("trunk-previous", ROOT.hash, 9, 1, NOW, description="default undo target")
    assert tag == Tag("v1", ROOT.hash, 9, 2, NOW + 10, description="one")


def test_a_history_names_the_one_it_succeeds(office: Office) -> None:
    first = office.first()
    second = office.commit(first).sign(first.manifest, ROOT, 2, [])
    assert second.manifest.history is not None
    data = read_object(
        office.store, ObjectRef(second.manifest.history, Suffix.HISTORY), limit=1 << 20
    )
    assert str(first.manifest.history).encode() in data


def test_a_trunk_that_is_not_the_base_any_more_is_not_replaced(office: Office) -> None:
    first = office.first()
    late = office.commit(first)
    office.commit(first).sign(first.manifest, ROOT, 2, [])
    served = read_file(office.store, ".cvmfspublished")
    with pytest.raises(RevisionConflict, match=FQRN):
        late.sign(first.manifest, ROOT, 2, [])
    assert read_file(office.store, ".cvmfspublished") == served
    with pytest.raises(RevisionConflict):
        office.first()


def test_a_result_no_client_would_accept_is_not_served(office: Office) -> None:
    stranger = other_keys()
    keys = SigningKeys(stranger.certificate_pem, stranger.repository_key_pem)
    with pytest.raises(CertificateNotListed):
        office.commit(None, keys=keys).sign(TEMPLATE, ROOT, 1, [])
    keys = SigningKeys(office.keys.certificate_pem, stranger.repository_key_pem)
    with pytest.raises(BadSignature):
        office.commit(None, keys=keys).sign(TEMPLATE, ROOT, 1, [])
    assert not office.store.exists(".cvmfspublished")


def test_bad_keys_and_clocks_are_seen_before_any_work(office: Office) -> None:
    first = office.first()
    office.commit(first).check_signing()
    keys = SigningKeys(office.keys.certificate_pem, other_keys().repository_key_pem)
    with pytest.raises(BadSignature):
        office.commit(first, keys=keys).check_signing()
    with pytest.raises(RevisionConflict, match="in the future"):
        office.commit(first, now=NOW - 1).check_signing()


def test_alternative_catalog_paths_get_their_shortcuts(office: Office) -> None:
    root = replace(ROOT, hash=office.writer.put(b"a catalog", Suffix.CATALOG).hash)
    template = replace(TEMPLATE, has_alternative_paths=True)
    assert office.commit(None).sign(template, root, 1, []).manifest.has_alternative_paths
    assert office.store.exists(f".cvmfsalt-{root.hash}C")


def test_shortcuts_to_nothing_are_removed_and_no_others(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    there, copied, dangling = (f"{pair * 20}C" for pair in ("ab", "cd", "ef"))
    for name in (there, copied):
        store.write(f"data/{name[:2]}/{name[2:]}", b"a catalog")
        store.link(f".cvmfsalt-{name}", f"data/{name[:2]}/{name[2:]}")
    store.link(f".cvmfsalt-{dangling}", f"data/{dangling[:2]}/{dangling[2:]}")
    store.write(f".cvmfsalt-{'12' * 20}-rmd160H", b"a copy of what is gone")
    store.write(".cvmfsalt-else", b"whatever it is")
    assert remove_dangling(store) == 2
    left = {name.partition("-")[2] for name in store.iter_names(".cvmfsalt-")}
    assert left == {there, copied, "else"}


def test_private_keys_are_not_shown(office: Office) -> None:
    assert "PRIVATE" not in repr(office.commit(None))


def test_an_object_that_is_there_is_not_written_again(office: Office) -> None:
    stored = office.writer.put(b"data")
    assert stored.new_bytes > 0
    assert office.writer.put(b"data") == (stored.hash, 0)
    plain = office.writer.put(b"data", Suffix.CHUNK, Compression.NONE)
    assert plain == (ContentHash.of(b"data", SHA1), 4)
    assert office.store.exists(f"data/{str(plain.hash)[:2]}/{str(plain.hash)[2:]}P")


@pytest.mark.parametrize("torn", [b"", b"half", b"x" * 1000])
def test_an_object_that_is_there_but_torn_is_written_again(office: Office, torn: bytes) -> None:
    text = str(office.writer.put(b"data").hash)
    name = f"data/{text[:2]}/{text[2:]}"
    whole = read_file(office.store, name)
    office.store.write(name, torn)
    assert office.writer.put(b"data").new_bytes == len(whole)
    assert read_file(office.store, name) == whole


def ref(data: bytes, timestamp: int = 1) -> Ref:
    return Ref(ContentHash.of(data, SHA1), RefType.CATALOG, timestamp)


def test_a_reflog_collects(office: Office) -> None:
    assert office.reflog.read() == []
    office.reflog.add([ref(b"a"), ref(b"b")])
    checksum = office.reflog.add([ref(b"a", 2), ref(b"c")])
    assert set(office.reflog.read()) == {ref(b"a", 2), ref(b"b"), ref(b"c")}
    assert (office.spool / "reflog.chksum").read_text() == str(checksum)


def test_a_reflog_somebody_else_wrote_is_refused(office: Office) -> None:
    office.reflog.add([ref(b"a")])
    (office.spool / "reflog.chksum").write_text(str(ContentHash.of(b"other", SHA1)))
    with pytest.raises(ObjectCorrupt, match=r"reflog\.chksum"):
        office.reflog.read()


def test_a_reflog_that_is_no_database_is_refused(office: Office) -> None:
    office.store.write(NAME, b"no database at all")
    with pytest.raises(FormatError, match="reflog"):
        office.reflog.add([ref(b"a")])


def test_a_reflog_written_without_its_checksum_is_known_all_the_same(office: Office) -> None:
    office.reflog.add([ref(b"a")])
    checksum = office.spool / "reflog.chksum"
    for content in (b"b", b"c"):  # twice in a row the write is the last thing that happens
        before = checksum.read_text()
        office.reflog.add([ref(content)])
        checksum.rename(office.spool / "reflog.chksum.next")
        checksum.write_text(before)
    assert set(office.reflog.read()) == {ref(b"a"), ref(b"b"), ref(b"c")}
    assert not (office.spool / "reflog.chksum.next").exists()


def test_a_reflog_that_could_not_be_written_is_the_old_one(office: Office) -> None:
    office.reflog.add([ref(b"a")])
    faulty = FaultyStore(office.store, fail_at=2, kind=Kind.ERROR)
    with pytest.raises(StorageError):
        Reflog(faulty, office.spool / "reflog.chksum", FQRN, SHA1).add([ref(b"b")])
    assert office.reflog.read() == [ref(b"a")]
    office.reflog.add([ref(b"c")])
    assert set(office.reflog.read()) == {ref(b"a"), ref(b"c")}


def test_dropped_tags_go_before_the_new_ones_are_set(office: Office) -> None:
    first = office.commit(None).sign(TEMPLATE, ROOT, 1, [NewTag("old"), NewTag("kept")])
    second = office.commit(first).sign(
        first.manifest, ROOT, 2, [NewTag("old", "again")], removed_tags=["old", "never there"]
    )
    assert second.manifest.history is not None
    with open_history(office.writer, second.manifest.history) as history:
        found = {tag.name: (tag.revision, tag.description) for tag in history.tags()}
    assert found["old"] == (2, "again")
    assert found["kept"] == (1, "")


def test_tags_change_without_a_new_revision(office: Office) -> None:
    first = office.first()
    other = ContentHash.of(b"another root", SHA1)
    tag = Tag("v1", other, 9, 7, NOW)
    second = office.commit(first).sign_edited(
        first.manifest, lambda history: history.put(tag), other_roots=[other]
    )
    manifest = second.manifest
    assert (manifest.root_catalog, manifest.revision) == (ROOT.hash, 1)
    assert manifest.published_at == NOW + 10
    assert manifest.history is not None
    with open_history(office.writer, manifest.history) as history:
        assert {tag.name: tag.revision for tag in history.tags()} == {"v1": 7, "trunk": 1}
    kinds = {ref.hash: ref.type for ref in office.reflog.read()}
    assert kinds[other] is kinds[ROOT.hash] is RefType.CATALOG
    assert kinds[manifest.history] is kinds[first.manifest.history] is RefType.HISTORY
