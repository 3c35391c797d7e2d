"""Every link of the trust chain broken in turn: its own error, nothing cached, nothing shown."""

import zlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from tests.support.keys import other_keys
from tests.support.simulator import File, RepositorySimulator, Symlink
from tests.support.sources import cached_names, source_of

from outcrop.errors import FormatError, OutcropError
from outcrop.formats.hashes import ContentHash, HashAlgorithm
from outcrop.repository.errors import PathNotFound, TooManyLinks
from outcrop.storage.errors import ObjectCorrupt, ObjectNotFound, ObjectTooBig
from outcrop.trust.errors import (
    BadSignature,
    Blacklisted,
    CertificateNotListed,
    RevisionRolledBack,
    TrustError,
    WhitelistExpired,
    WrongRepository,
)
from outcrop.trust.keys import Certificate

TEXT = b"the content of a file, long enough to flip a bit in\n" * 20


def make_sim() -> RepositorySimulator:
    return RepositorySimulator(
        {b"/file": TEXT, b"/nested/inner": b"inner" * 100, b"/link": Symlink(b"file")},
        nested=[b"/nested"],
    )


Attack = Callable[[RepositorySimulator], None]

ON_OPEN: dict[str, tuple[Attack, type[OutcropError]]] = {
    "whitelist signed by another master key": (
        lambda sim: sim.sign_whitelist(keys=other_keys()),
        BadSignature,
    ),
    "whitelist expired": (lambda sim: sim.expire_whitelist(), WhitelistExpired),
    "whitelist of another repository": (
        lambda sim: sim.sign_whitelist(fqrn="other.example.org"),
        WrongRepository,
    ),
    "whitelist gone": (lambda sim: sim.remove(".cvmfswhitelist"), ObjectNotFound),
    "whitelist oversized": (
        lambda sim: sim.replace(".cvmfswhitelist", b"x" * (2 << 20)),
        ObjectTooBig,
    ),
    "manifest signed by somebody not listed": (
        lambda sim: sim.resign_with(other_keys()),
        CertificateNotListed,
    ),
    "manifest of another repository": (
        lambda sim: sim.edit_manifest(fqrn="other.example.org"),
        WrongRepository,
    ),
    "manifest with a flipped bit": (lambda sim: sim.corrupt(".cvmfspublished"), OutcropError),
    "manifest truncated": (lambda sim: sim.truncate(".cvmfspublished"), FormatError),
    "manifest empty": (lambda sim: sim.replace(".cvmfspublished", b""), FormatError),
    "manifest oversized": (
        lambda sim: sim.replace(".cvmfspublished", b"C" * (1 << 20)),
        ObjectTooBig,
    ),
    "certificate with a flipped bit": (
        lambda sim: sim.corrupt(sim.certificate_name),
        ObjectCorrupt,
    ),
    "certificate swapped for another": (
        lambda sim: sim.replace(
            sim.certificate_name, zlib.compress(other_keys().certificate_pem, 6)
        ),
        ObjectCorrupt,
    ),
    "root catalog with a flipped bit": (lambda sim: sim.corrupt(sim.catalog_name()), ObjectCorrupt),
    "root catalog truncated": (lambda sim: sim.truncate(sim.catalog_name()), ObjectCorrupt),
    "root catalog empty": (lambda sim: sim.replace(sim.catalog_name(), b""), ObjectCorrupt),
    "root catalog larger than the manifest says": (
        lambda sim: sim.edit_manifest(catalog_size=1024),
        ObjectCorrupt,
    ),
    "root catalog smaller than the manifest says": (
        lambda sim: sim.edit_manifest(catalog_size=1 << 30),
        ObjectCorrupt,
    ),
}


@pytest.mark.parametrize("name", ON_OPEN)
def test_a_broken_link_stops_the_opening_with_its_own_error(name: str, tmp_path: Path) -> None:
    attack, error = ON_OPEN[name]
    sim = make_sim()
    attack(sim)
    with pytest.raises(error):
        source_of(sim, cache_directory=tmp_path).open_trunk(now=sim.now)
    catalog = sim.catalog_name().removeprefix("data/").removesuffix("C")
    assert catalog not in cached_names(tmp_path)


def test_the_unbroken_repository_opens(tmp_path: Path) -> None:
    sim = make_sim()
    revision = source_of(sim, cache_directory=tmp_path).open_trunk(now=sim.now)
    assert [entry.name for entry in revision.entries(b"")] == [b"file", b"link", b"nested"]


def test_a_master_key_of_somebody_else_believes_nothing() -> None:
    sim = make_sim()
    source = source_of(sim, public_key=other_keys().master_public_pem)
    with pytest.raises(BadSignature):
        source.open_trunk(now=sim.now)


def test_a_wrong_name_is_noticed() -> None:
    sim = make_sim()
    with pytest.raises(WrongRepository):
        source_of(sim, fqrn="other.example.org").open_trunk(now=sim.now)


def test_a_blacklisted_certificate_is_refused() -> None:
    sim = make_sim()
    certificate = Certificate.parse(sim.keys.certificate_pem)
    fingerprint = certificate.fingerprint(HashAlgorithm.SHA1).digest.hex(":").upper()
    with pytest.raises(Blacklisted):
        source_of(sim, blacklist=fingerprint.encode()).open_trunk(now=sim.now)


def test_a_blacklisted_revision_is_refused() -> None:
    sim = make_sim()
    with pytest.raises(Blacklisted):
        source_of(sim, blacklist=b"<sim.example.org 2\n").open_trunk(now=sim.now)


def test_an_older_manifest_is_not_followed(tmp_path: Path) -> None:
    sim = make_sim()
    sim.publish({b"/new": b"new"})
    source = source_of(sim, cache_directory=tmp_path)
    seen = source.open_trunk(now=sim.now)
    sim.roll_back(1)
    known = source.breadcrumbs.read_breadcrumb(sim.fqrn) if source.breadcrumbs else None
    with pytest.raises(RevisionRolledBack):
        source.fetch_manifest(now=sim.now, not_before=known)
    assert source.open_trunk(now=sim.now).root_hash == seen.root_hash


def test_a_replay_to_a_newcomer_shows_a_consistent_old_revision() -> None:
    sim = make_sim()
    sim.publish({b"/new": b"new"})
    sim.roll_back(1)
    revision = source_of(sim).open_trunk(now=sim.now)
    assert revision.number == 1
    assert revision.find(b"/new") is None


BROKEN_OBJECTS = {
    "flipped bit": lambda sim, path: sim.corrupt(path),
    "truncated": lambda sim, path: sim.truncate(path),
    "emptied": lambda sim, path: sim.replace(path, b""),
    "other content": lambda sim, path: sim.replace(path, zlib.compress(TEXT[::-1], 6)),
    "bytes after the end": lambda sim, path: sim.replace(path, zlib.compress(TEXT, 6) + b"x"),
    "not compressed": lambda sim, path: sim.replace(path, TEXT),
    "bomb": lambda sim, path: sim.replace(path, zlib.compress(b"\0" * (64 << 20), 9)),
}


@pytest.mark.parametrize("name", BROKEN_OBJECTS)
def test_a_broken_file_object_is_never_shown_nor_cached(name: str, tmp_path: Path) -> None:
    sim = make_sim()
    revision = source_of(sim, cache_directory=tmp_path).open_trunk(now=sim.now)
    before = cached_names(tmp_path)
    BROKEN_OBJECTS[name](sim, b"/file")
    with pytest.raises((ObjectCorrupt, ObjectTooBig)), revision.open(b"/file") as file:
        file.read()
    assert cached_names(tmp_path) == before
    assert not list((tmp_path / "txn").iterdir())


@pytest.mark.parametrize("kind", ["chunk", "nested catalog", "history"])
def test_every_kind_of_object_is_checked(kind: str, tmp_path: Path) -> None:
    sim = RepositorySimulator(
        {b"/big": File(bytes(range(256)) * 300, chunk_bytes=10_000), b"/nested/f": b"x"},
        nested=[b"/nested"],
    )
    source = source_of(sim, cache_directory=tmp_path)
    revision = source.open_trunk(now=sim.now)
    if kind == "chunk":
        sim.corrupt(sim.object_names(b"/big")[3])
        with revision.open(b"/big") as file:
            assert file.read(100) == bytes(range(100))
            with pytest.raises(ObjectCorrupt):
                file.read()
    elif kind == "nested catalog":
        sim.corrupt(sim.catalog_name(b"/nested"))
        with pytest.raises(ObjectCorrupt):
            revision.entries(b"/nested")
        assert revision.get(b"/nested").is_nested_mountpoint
    else:
        sim.corrupt(sim.history_name)
        assert revision.manifest is not None
        with pytest.raises(ObjectCorrupt):
            source.history(revision.manifest)


SABOTAGED_ROOT = {
    "a view in place of the rows": [
        "ALTER TABLE catalog RENAME TO real",
        "CREATE VIEW catalog AS SELECT * FROM real",
    ],
    "a trigger": [
        "CREATE TRIGGER t AFTER INSERT ON catalog BEGIN SELECT 1; END",
    ],
    "a computed column": ["ALTER TABLE properties ADD COLUMN x AS (hex(zeroblob(1000000)))"],
    "no table of chunks": ["DROP TABLE chunks"],
    "a schema of the future": ["UPDATE properties SET value = '3.0' WHERE key = 'schema'"],
    "a schema that is too old": ["UPDATE properties SET value = '2.3' WHERE key = 'schema'"],
    "a nested catalog with a broken hash": ["UPDATE nested_catalogs SET sha1 = '../../etc'"],
    "a nested catalog without a path": ["UPDATE nested_catalogs SET path = x'00'"],
}


@pytest.mark.parametrize("name", SABOTAGED_ROOT)
def test_a_signed_catalog_that_is_not_a_catalog_is_refused(name: str) -> None:
    sim = make_sim()
    sim.publish(sabotage={b"": SABOTAGED_ROOT[name]})
    with pytest.raises(FormatError):
        source_of(sim).open_trunk(now=sim.now)


SABOTAGED_ROWS = {
    "a slash in a name": "UPDATE catalog SET name = 'a/b' WHERE name = 'file'",
    "a name of two dots": "UPDATE catalog SET name = '..' WHERE name = 'file'",
    "a zero byte in a name": "UPDATE catalog SET name = CAST(x'610062' AS TEXT) WHERE name='file'",
    "a size of text": "UPDATE catalog SET size = 'big' WHERE name = 'file'",
    "a negative size": "UPDATE catalog SET size = -1 WHERE name = 'file'",
    "no mode": "UPDATE catalog SET mode = NULL WHERE name = 'file'",
    "a short hash": "UPDATE catalog SET hash = x'00' WHERE name = 'file'",
    "flags of a directory": "UPDATE catalog SET flags = 1 WHERE name = 'file'",
    "an unknown compression": "UPDATE catalog SET flags = 4 | (5 << 11) WHERE name = 'file'",
    "an unknown algorithm": "UPDATE catalog SET flags = 4 | (6 << 8) WHERE name = 'file'",
}


@pytest.mark.parametrize("name", SABOTAGED_ROWS)
def test_a_signed_row_that_makes_no_sense_is_refused(name: str) -> None:
    sim = make_sim()
    sim.publish(sabotage={b"": [SABOTAGED_ROWS[name]]})
    revision = source_of(sim).open_trunk(now=sim.now)
    with pytest.raises(FormatError):
        revision.entries(b"")


def test_a_nested_catalog_of_another_place_is_refused() -> None:
    sim = make_sim()
    move = "UPDATE properties SET value = '/elsewhere' WHERE key = 'root_prefix'"
    sim.publish(sabotage={b"/nested": [move]})
    with pytest.raises(FormatError):
        source_of(sim).open_trunk(now=sim.now).entries(b"/nested")


def test_a_nested_catalog_that_points_outside_of_itself_is_refused() -> None:
    sim = make_sim()
    null = "INSERT INTO nested_catalogs VALUES ('/file', '" + "0" * 40 + "', 1)"
    sim.publish(sabotage={b"/nested": [null]})
    with pytest.raises(FormatError):
        source_of(sim).open_trunk(now=sim.now).entries(b"/nested")


SABOTAGED_CHUNKS = {
    "a gap": "DELETE FROM chunks WHERE offset = 10000",
    "no beginning": "DELETE FROM chunks WHERE offset = 0",
    "no end": "DELETE FROM chunks WHERE offset = 70000",
    "an overlap": "UPDATE chunks SET size = 10001 WHERE offset = 0",
    "an empty chunk": "UPDATE chunks SET size = 0 WHERE offset = 0",
    "no hash": "UPDATE chunks SET hash = NULL WHERE offset = 0",
}


@pytest.mark.parametrize("name", SABOTAGED_CHUNKS)
def test_chunks_that_do_not_make_a_file_are_refused(name: str) -> None:
    sim = RepositorySimulator({b"/big": File(bytes(range(256)) * 300, chunk_bytes=10_000)})
    sim.publish(sabotage={b"": [SABOTAGED_CHUNKS[name]]})
    with pytest.raises(FormatError):
        source_of(sim).open_trunk(now=sim.now).open(b"/big")


@pytest.mark.parametrize("target", [b"/etc/passwd", b"/cvmfs/other.example.org/x", b"/cvmfs"])
def test_a_symlink_out_of_the_repository_leads_nowhere(target: bytes) -> None:
    sim = RepositorySimulator({b"/out": Symlink(target)})
    with pytest.raises(PathNotFound):
        source_of(sim).open_trunk(now=sim.now).resolve(b"/out", {})


def test_dot_dot_stays_inside() -> None:
    sim = RepositorySimulator({b"/d/up": Symlink(b"../../../../f"), b"/f": b"inside"})
    revision = source_of(sim).open_trunk(now=sim.now)
    assert revision.resolve(b"/d/up", {}) == b"/f"


def test_symlinks_in_a_circle_end_with_an_error() -> None:
    sim = RepositorySimulator({b"/a": Symlink(b"b"), b"/b": Symlink(b"a")})
    with pytest.raises(TooManyLinks):
        source_of(sim).open_trunk(now=sim.now).resolve(b"/a", {})


def test_what_a_fixed_root_hash_names_needs_no_signature_but_must_match(tmp_path: Path) -> None:
    sim = make_sim()
    sim.expire_whitelist()
    source = source_of(sim, cache_directory=tmp_path)
    assert source.open_root_hash(sim.manifest.root_catalog).number == 1
    wrong = replace(sim.manifest.root_catalog, digest=b"\1" * 20)
    with pytest.raises(ObjectNotFound):
        source.open_root_hash(wrong)
    assert isinstance(wrong, ContentHash)


def test_a_failed_look_at_the_trunk_leaves_what_was_seen_last(tmp_path: Path) -> None:
    sim = make_sim()
    first = source_of(sim, cache_directory=tmp_path).open_trunk(now=sim.now)
    sim.remove(".cvmfspublished")
    again = source_of(sim, cache_directory=tmp_path).open_trunk(now=sim.now)
    assert again.root_hash == first.root_hash
    assert again.manifest is None
    with pytest.raises(ObjectNotFound):
        source_of(sim, cache_directory=tmp_path / "empty").open_trunk(now=sim.now)


def test_all_trust_errors_have_the_exit_code_of_their_family() -> None:
    assert TrustError.exit_code == 4
