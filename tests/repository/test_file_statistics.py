"""File statistics and lists of referenced objects, against what an independent reader counts."""

import sqlite3
from pathlib import Path

import pytest
from tests.support import golden
from tests.support.checker import Checker
from tests.support.stratum_zero import StratumZero

from outcrop.formats.hashes import ContentHash
from outcrop.repository.errors import ReflogMissing
from outcrop.repository.file_statistics import write_file_statistics
from outcrop.repository.reachable import CatalogReader
from outcrop.repository.referenced import iter_referenced
from outcrop.storage.local import LocalStore


def statistics(store: LocalStore, root: ContentHash, place: Path) -> sqlite3.Connection:
    reader = CatalogReader(store, place)
    write_file_statistics(reader, root, place / "db", progress=lambda *_: None)
    return sqlite3.connect(place / "db")


def count(database: sqlite3.Connection, table: str) -> int:
    ((number,),) = database.execute(f"SELECT count(*) FROM {table}")
    return int(number)


def test_what_upstreams_own_test_asks_for(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    for name, text in {
        "testfile": "test file2\n", "testfile2": "test file\n", "testfile3": "test file3\n",
        "testfile4": "test file\n",
    }.items():  # fmt: skip
        (source / name).write_text(text)
    world = StratumZero(tmp_path / "world")
    world.create()
    root = world.publish(source).root_hash
    database = statistics(world.store, root, tmp_path)
    assert [count(database, t) for t in ("catalogs", "files", "objects")] == [1, 4, 3]
    sizes = database.execute("SELECT size FROM objects ORDER BY size").fetchall()
    assert sizes == [(10,), (11,), (11,)]


@pytest.mark.parametrize("name", ["basic", "shake128", "uncompressed"])
def test_every_file_is_made_of_its_objects(name: str, tmp_path: Path) -> None:
    directory = golden.directory(name) / "repo"
    trusted = golden.source(name).fetch_manifest(now=golden.now())
    database = statistics(LocalStore(directory), trusted.manifest.root_catalog, tmp_path)
    checker = Checker(directory, golden.fqrn(name), golden.public_key(name).read_bytes())
    assert checker.check() == []
    entries = [e for e in checker.entries.values() if e.kind in (0o100000, 0o120000)]
    files = [e for e in entries if e.kind == 0o100000]
    assert count(database, "files") == len(files)
    assert count(database, "symlinks") == len(entries) - len(files)
    assert count(database, "files_objects") == sum(len(e.chunks) or 1 for e in files)
    ((total,),) = database.execute(
        "SELECT sum(size) FROM files_objects JOIN objects USING (object_id)"
    )
    assert total == sum(e.row["size"] for e in files)


def test_everything_stored_is_referenced_and_named_once(tmp_path: Path) -> None:
    directory = golden.directory("basic") / "repo"
    trusted = golden.source("basic").fetch_manifest(now=golden.now())
    found = list(
        iter_referenced(
            LocalStore(directory), golden.fqrn("basic"), trusted.manifest.reflog, tmp_path
        )
    )
    stored = {f.parent.name + f.name[:38] for f in directory.glob("data/??/*")}
    assert len(found) == len(set(found))
    assert {str(one) for one in found} == stored


def test_a_reflog_that_is_not_the_signed_one_is_refused(tmp_path: Path) -> None:
    store = LocalStore(golden.directory("basic") / "repo")
    with pytest.raises(ReflogMissing):
        list(iter_referenced(store, "basic.golden.test", ContentHash.parse("0" * 40), tmp_path))
