"""Automatic catalogs and `.cvmfsdirtab`: catalogs are divided as wanted, content is untouched."""

import shutil
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.support.checker import Checker
from tests.support.stratum_zero import StratumZero

from outcrop.errors import FormatError
from outcrop.publisher.options import PublishOptions
from outcrop.publisher.subtrees import clone_subtree, move_subtree

MARKERS = (b".cvmfscatalog", b".cvmfsautocatalog")


def made(place: Path, **parameters: object) -> StratumZero:
    world = StratumZero(place / "world")
    world.create()
    world.configure(**parameters)
    return world


def content_of(checker: Checker) -> dict[bytes, object]:
    """All entries but markers: what `row` says of them, without link counts of directories."""
    own = ("mode", "size", "uid", "gid", "hash")
    return {
        path: [entry.row[column] for column in own]
        for path, entry in checker.entries.items()
        if path.rpartition(b"/")[2] not in MARKERS
    }


def weights_of(checker: Checker, catalog: bytes) -> dict[bytes, int]:
    """For each directory that one catalog has the rows of: itself and all below it there."""
    weights = dict.fromkeys((p for p, e in checker.entries.items() if e.flags & 1), 0)
    for path, entry in checker.entries.items():
        if entry.catalog.mountpoint != catalog:
            continue
        above = path
        while True:
            if above in weights:
                weights[above] += 1
            if above == catalog or not above:
                break
            above = above.rpartition(b"/")[0]
    return {
        path: weight for path, weight in weights.items()
        if weight and checker.entries[path].catalog.mountpoint == catalog
        and path not in checker.catalogs
    }  # fmt: skip


@settings(max_examples=8, deadline=None)
@given(
    st.dictionaries(
        st.lists(st.integers(0, 3), max_size=3).map(tuple), st.integers(0, 12), max_size=25
    )
)
def test_no_catalog_is_too_large_that_could_be_divided(files: dict[tuple[int, ...], int]) -> None:
    with tempfile.TemporaryDirectory() as place:
        world = made(Path(place))
        source = Path(place, "source")
        for names, number in {(): 0, **files}.items():
            directory = source.joinpath(*map(str, names))
            directory.mkdir(parents=True, exist_ok=True)
            for name in range(number):
                (directory / f"f{name}").touch()
        world.publish(source)
        before = content_of(world.checked())
        world.configure(
            CVMFS_AUTOCATALOGS="true", CVMFS_AUTOCATALOGS_MAX_WEIGHT=20,
            CVMFS_AUTOCATALOGS_MIN_WEIGHT=4,
        )  # fmt: skip
        for _ in range(2):
            result = world.publish(source)
            checker = world.checked()
            assert content_of(checker) == before
            for mountpoint, catalog in checker.catalogs.items():
                if len(catalog.rows) > 20 + len(MARKERS):
                    assert result.warnings or mountpoint
                    assert max(weights_of(checker, mountpoint).values(), default=0) <= 20
                if mountpoint:
                    assert len(catalog.rows) >= 4
            for directory in [source, *source.rglob("*")]:
                directory.touch()  # so that each one is looked at again


def test_a_catalog_that_became_small_is_merged(tmp_path: Path) -> None:
    world = made(
        tmp_path, CVMFS_AUTOCATALOGS="true", CVMFS_AUTOCATALOGS_MAX_WEIGHT=20,
        CVMFS_AUTOCATALOGS_MIN_WEIGHT=8,
    )  # fmt: skip
    source = tmp_path / "source"
    (source / "d").mkdir(parents=True)
    for number in range(30):
        (source / "d" / str(number)).touch()
    world.publish(source)
    checker = world.checked()
    assert set(checker.catalogs) == {b"", b"/d"}
    for name in MARKERS:
        entry = checker.entries[b"/d/" + name]
        assert (entry.row["mode"], entry.row["size"]) == (0o100600, 0)
    (source / "d/0").write_text("changed")
    world.publish(source)
    assert set(world.checked().catalogs) == {b"", b"/d"}
    for number in range(4, 30):
        (source / "d" / str(number)).unlink()
    world.publish(source)
    checker = world.checked()
    assert set(checker.catalogs) == {b""}
    assert not any(path.endswith(MARKERS) for path in checker.entries)


def test_a_large_flat_directory_is_told_of(tmp_path: Path) -> None:
    world = made(tmp_path, CVMFS_AUTOCATALOGS="true", CVMFS_AUTOCATALOGS_MAX_WEIGHT=5)
    source = tmp_path / "source"
    source.mkdir()
    for number in range(10):
        (source / str(number)).touch()
    (warning,) = world.publish(source).warnings
    assert warning.startswith("/ holds 11 entries and no subdirectory of 1000 or more")


@pytest.fixture
def dirtab_world(tmp_path: Path) -> tuple[StratumZero, Path]:
    world = made(tmp_path)
    source = tmp_path / "source"
    for place in ("sw/a/lib", "sw/b/lib", "sw/c", "other"):
        (source / place).mkdir(parents=True)
        (source / place / "file").write_text(place)
    world.publish(source)
    return world, source


def test_new_rules_reach_directories_that_nobody_touched(
    dirtab_world: tuple[StratumZero, Path], tmp_path: Path
) -> None:
    world, _ = dirtab_world
    only = tmp_path / "only"
    only.mkdir()
    (only / ".cvmfsdirtab").write_text("/sw/*\n! */c\n")
    listed = tmp_path / "changes.tar"
    shutil.make_archive(str(listed.with_suffix("")), "tar", only)
    from outcrop.publisher.tarball import publish_tarball

    world.now += 10
    with listed.open("rb") as archive:
        publish_tarball(
            world.locations, world.fqrn, archive=archive, to=b"",
            options=PublishOptions(), now=world.now,
        )  # fmt: skip
    checker = world.checked()
    assert set(checker.catalogs) == {b"", b"/sw/a", b"/sw/b"}
    assert checker.entries[b"/sw/a/.cvmfscatalog"].row["mode"] == 0o100644


def test_rules_in_force_reach_clones_and_moves(dirtab_world: tuple[StratumZero, Path]) -> None:
    world, source = dirtab_world
    (source / ".cvmfsdirtab").write_text("/sw/*\n")
    world.publish(source)
    for function, target in ((clone_subtree, b"/sw/d"), (move_subtree, b"/sw/e")):
        world.now += 10
        function(
            world.locations, world.fqrn, b"/other", target,
            options=PublishOptions(), now=world.now,
        )  # fmt: skip
    assert set(world.checked().catalogs) == {
        b"",
        *(b"/sw/" + n for n in (b"a", b"b", b"c", b"d", b"e")),
    }


def test_rules_that_contradict_each_other_are_refused(
    dirtab_world: tuple[StratumZero, Path],
) -> None:
    world, source = dirtab_world
    (source / ".cvmfsdirtab").write_text("/sw/*\n!/sw/*\n")
    with pytest.raises(FormatError, match="both wanted and excluded"):
        world.publish(source)
