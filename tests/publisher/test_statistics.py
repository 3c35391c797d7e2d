"""The statistics database: upstream's tables to the letter, and never in a publish's way."""

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from tests.support.stratum_zero import FQRN, NOW, StratumZero

from outcrop.errors import FormatError
from outcrop.publisher.garbage import GarbageOptions, collect_garbage
from outcrop.publisher.statistics import (
    GarbageStatistics,
    PublishStatistics,
    merge,
    read_table,
    record,
)

PUBLISH_COLUMNS = [
    "publish_id", "start_time", "finish_time", "revision", "files_added", "files_removed",
    "files_changed", "chunks_added", "chunks_duplicated", "catalogs_added", "directories_added",
    "directories_removed", "directories_changed", "symlinks_added", "symlinks_removed",
    "symlinks_changed", "sz_bytes_added", "sz_bytes_removed", "sz_bytes_uploaded",
    "sz_catalog_bytes_uploaded", "success",
]  # fmt: skip
GC_COLUMNS = [
    "gc_id", "start_time", "finish_time", "n_preserved_catalogs", "n_condemned_catalogs",
    "n_condemned_objects", "sz_condemned_bytes", "n_duplicate_delete_requests", "success",
]  # fmt: skip


@pytest.fixture
def world(tmp_path: Path) -> StratumZero:
    made = StratumZero(tmp_path)
    made.create()
    (tmp_path / "source").mkdir()
    return made


def rows(world: StratumZero, kind: str = "publish") -> list[dict[str, object]]:
    table = read_table(world.spool / "stats.db", kind)
    return [dict(zip(table.columns, row, strict=True)) for row in table.rows]


def put(file: Path, **changes: int) -> None:
    record(
        file,
        FQRN,
        PublishStatistics(**changes),
        started_at=NOW,
        finished_at=NOW + 5,
        is_success=True,
    )


def test_chunks_of_external_data_count_and_their_bytes_do_not(world: StratumZero) -> None:
    world.configure(CVMFS_EXTERNAL_DATA="true", CVMFS_COMPRESSION_ALGORITHM="none")
    source = world.locations.root / "source"
    for name in ("one", "two"):
        (source / name).write_bytes(name.encode())
    world.publish(source)
    found = rows(world)[-1]
    assert (found["chunks_added"], found["sz_bytes_uploaded"]) == (2, 0)


def test_a_new_database_has_upstreams_tables(tmp_path: Path) -> None:
    file = tmp_path / "stats.db"
    put(file, revision=7)
    assert list(read_table(file, "publish").columns) == PUBLISH_COLUMNS
    assert list(read_table(file, "gc").columns) == GC_COLUMNS
    with closing(sqlite3.connect(file)) as database:
        properties = dict(database.execute("SELECT key, value FROM properties"))
    assert properties == {"schema": "1.0", "schema_revision": "4", "repo_name": FQRN}
    row = read_table(file, "publish").rows[0]
    assert row[:4] == (1, "2027-01-15 08:00:00", "2027-01-15 08:00:05", 7)
    assert row[-1] == 1


def test_a_publish_is_counted(world: StratumZero, tmp_path: Path) -> None:
    source = tmp_path / "source"
    (source / "sub").mkdir()
    (source / "sub/one").write_bytes(b"1" * 1000)
    (source / "sub/same").write_bytes(b"1" * 1000)
    (source / "link").symlink_to("sub")
    world.publish(source)
    (source / "sub/one").write_bytes(b"2" * 1500)
    (source / "sub/same").unlink()
    (source / "link").unlink()
    world.publish(source)
    first, second = rows(world)
    # new_repository, which mkfs made, goes
    names = ("revision", "files_added", "files_removed", "files_changed", "success")
    assert [first[name] for name in names] == [2, 2, 1, 0, 1]
    assert [second[name] for name in names] == [3, 0, 1, 1, 1]
    assert (first["directories_added"], first["symlinks_added"]) == (1, 1)
    assert second["symlinks_removed"] == 1
    assert (first["chunks_added"], first["chunks_duplicated"]) == (1, 1)
    assert (first["sz_bytes_added"], second["sz_bytes_added"]) == (2000, 500)
    greeting = len(f"New CernVM-FS repository for {FQRN}\n")
    assert (first["sz_bytes_removed"], second["sz_bytes_removed"]) == (greeting, 1000)
    assert second["sz_bytes_uploaded"] > 0
    assert second["sz_catalog_bytes_uploaded"] > 0
    assert second["catalogs_added"] == 1


def test_a_publish_that_failed_is_recorded_as_that(world: StratumZero, tmp_path: Path) -> None:
    (tmp_path / "source/.cvmfs").mkdir()
    (tmp_path / "source/.cvmfs/x").write_bytes(b"x")
    (tmp_path / "source/.cvmfsdirtab").mkdir()
    with pytest.raises(Exception, match="regular file"):
        world.publish(tmp_path / "source")
    assert [(row["success"], row["revision"]) for row in rows(world)] == [(0, 0)]


def test_a_dry_run_leaves_no_row(world: StratumZero, tmp_path: Path) -> None:
    world.publish(tmp_path / "source", dry_run=True)
    assert not (world.spool / "stats.db").exists()


def test_a_collection_is_recorded(world: StratumZero, tmp_path: Path) -> None:
    world.configure(CVMFS_GARBAGE_COLLECTION="true", CVMFS_EXTENDED_GC_STATS="true")
    for number in range(3):
        (tmp_path / "source/file").write_bytes(b"%d" % number * 1000)
        world.publish(tmp_path / "source")
    options = GarbageOptions(keep_revisions=0)
    collect_garbage(world.locations, FQRN, options, now=world.now + 1)
    (row,) = rows(world, "gc")
    assert row["success"] == 1
    assert row["n_preserved_catalogs"] + row["n_condemned_catalogs"] == 5
    assert row["n_condemned_objects"] > row["n_condemned_catalogs"] > 0
    assert row["sz_condemned_bytes"] > 0


def test_bytes_nobody_measured_are_null(tmp_path: Path) -> None:
    file = tmp_path / "stats.db"
    record(file, FQRN, GarbageStatistics(), started_at=1, finished_at=2, is_success=True)
    row = dict(zip(GC_COLUMNS, read_table(file, "gc").rows[0], strict=True))
    assert row["sz_condemned_bytes"] is None


def test_old_rows_go(tmp_path: Path) -> None:
    file, day = tmp_path / "stats.db", 86400
    for age in (400, 366, 364, 1):
        record(
            file, FQRN, PublishStatistics(revision=age), started_at=NOW - age * day,
            finished_at=NOW - age * day, is_success=True,
        )  # fmt: skip
    put(file)
    assert len(read_table(file, "publish").rows) == 5
    record(
        file, FQRN, GarbageStatistics(), started_at=NOW, finished_at=NOW, is_success=True,
        days_to_keep=365,
    )  # fmt: skip
    assert [row[3] for row in read_table(file, "publish").rows] == [364, 1, 0]


def test_an_older_revision_of_the_schema_is_brought_up_to_date(tmp_path: Path) -> None:
    file = tmp_path / "stats.db"
    put(file, revision=1)
    with closing(sqlite3.connect(file)) as database:
        for table in ("publish_statistics", "gc_statistics"):
            database.execute(f"ALTER TABLE {table} DROP COLUMN success")
        database.execute("ALTER TABLE publish_statistics DROP COLUMN chunks_added")
        database.execute("UPDATE properties SET value='3' WHERE key='schema_revision'")
        database.commit()
    put(file, revision=2, chunks_added=5)
    table = read_table(file, "publish")
    place = table.columns.index("chunks_added")
    assert [(row[3], row[place]) for row in table.rows] == [(1, None), (2, 5)]


@pytest.mark.parametrize("content", [b"no database at all" * 100, b"SQLite format 3\0broken"])
def test_a_database_that_is_none_is_a_warning_and_no_failed_publish(
    world: StratumZero, tmp_path: Path, content: bytes
) -> None:
    (world.spool / "stats.db").write_bytes(content)
    result = world.publish(tmp_path / "source")
    assert any("statistics were not recorded" in warning for warning in result.warnings)
    assert world.checked().manifest["S"] == "2"
    assert (world.spool / "stats.db").read_bytes() == content
    with pytest.raises(FormatError):
        read_table(world.spool / "stats.db", "publish")


def test_statistics_of_another_repository_are_left_alone(
    world: StratumZero, tmp_path: Path
) -> None:
    record(
        world.spool / "stats.db", "other.example.org", PublishStatistics(), started_at=1,
        finished_at=1, is_success=True,
    )  # fmt: skip
    (warning,) = world.publish(tmp_path / "source").warnings
    assert "other.example.org" in warning


def test_a_missing_database_is_no_new_one(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        read_table(tmp_path / "stats.db", "publish")
    assert list(tmp_path.iterdir()) == []


def test_the_database_and_its_picture_are_stored_where_the_settings_say(
    world: StratumZero, tmp_path: Path
) -> None:
    world.configure(
        CVMFS_UPLOAD_STATS_DB="true",
        CVMFS_UPLOAD_STATS_PLOTS="true",
        CVMFS_STATISTICS_DB=tmp_path / "elsewhere.db",
    )
    assert world.publish(tmp_path / "source").warnings == ()
    stored = world.directory / "stats/stats.db"
    assert len(read_table(stored, "publish").rows) == 1
    assert read_table(stored, "publish") == read_table(tmp_path / "elsewhere.db", "publish")
    assert b"<svg" in (world.directory / "stats/stats.svg").read_bytes()
    assert FQRN in (world.directory / "stats/index.html").read_text()
    world.checked()


def test_databases_are_merged_without_repeating_rows(tmp_path: Path) -> None:
    one, two, merged = (tmp_path / f"{name}.db" for name in ("one", "two", "merged"))
    put(one, revision=1)
    two.write_bytes(one.read_bytes())
    put(two, revision=2)
    assert merge([one, two], merged) == 2
    assert [row[3] for row in read_table(merged, "publish").rows] == [1, 2]
    with pytest.raises(FileExistsError):
        merge([one, two], merged)
    record(
        tmp_path / "x.db", "other.example.org", PublishStatistics(), started_at=1, finished_at=1,
        is_success=True,
    )  # fmt: skip
    with pytest.raises(FormatError, match="different repositories"):
        merge([one, tmp_path / "x.db"], tmp_path / "y.db")
    assert not (tmp_path / "y.db").exists()
