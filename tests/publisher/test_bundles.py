"""Files about bundles are looked at before they are published, whatever way they come."""

import io
import os
from pathlib import Path

import pytest
from tests.support.stratum_zero import StratumZero
from tests.support.tars import END, member
from tests.support.ways import WAYS

from outcrop.errors import FormatError
from outcrop.formats import bundles
from outcrop.publisher import file_changes, tarball
from outcrop.publisher.errors import LimitExceeded, PathRefused, PublishError
from outcrop.publisher.options import PublishOptions
from outcrop.publisher.tarball import publish_tarball

BUNDLE = (
    b'{"name": "CVMFS_BUNDLE", "version": "1.0.0", "encoding": "UTF-8", '
    b'"dependencies": ["/bin/other"]}'
)
every_way = pytest.mark.parametrize("way", WAYS)


def made_in(place: Path) -> StratumZero:
    made = StratumZero(place / "world")
    made.create()
    return made


@pytest.fixture
def fresh(tmp_path: Path) -> StratumZero:
    return made_in(tmp_path)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> StratumZero:
    """A repository for what is refused, and so changes nothing."""
    return made_in(tmp_path_factory.mktemp("bundles"))


@pytest.fixture
def source(tmp_path: Path) -> Path:
    place = tmp_path / "source"
    (place / "bin").mkdir(parents=True)
    for name in ("python", "other"):
        (place / "bin" / name).write_text(name)
    return place


def refused(world: StratumZero, source: Path, way: str, kind: type[Exception]) -> str:
    before = (world.directory / ".cvmfspublished").read_bytes()
    with pytest.raises(kind) as error:
        WAYS[way](world, source)
    assert (world.directory / ".cvmfspublished").read_bytes() == before
    return str(error.value)


@every_way
def test_right_ones_are_published_as_they_are(fresh: StratumZero, source: Path, way: str) -> None:
    (source / ".cvmfsbundles").write_text('[{"anything": 1}]')
    (source / "bin/.cvmfsbundle-python").write_bytes(BUNDLE)
    result = WAYS[way](fresh, source)
    assert list(result.warnings) == []
    checker = fresh.checked()
    assert checker.read(b"/.cvmfsbundles") == b'[{"anything": 1}]'
    assert checker.read(b"/bin/.cvmfsbundle-python") == BUNDLE


@every_way
@pytest.mark.parametrize("name", [".cvmfsbundles", "bin/.cvmfsbundle-python"])
def test_a_wrong_one_is_named_with_what_is_wrong(
    world: StratumZero, source: Path, way: str, name: str
) -> None:
    (source / name).write_text("{'a': 1}")
    said = refused(world, source, way, FormatError)
    assert f"{name}: file bundle: no JSON" in said


@every_way
@pytest.mark.parametrize("name", [".cvmfsbundles", "bin/.cvmfsbundle-python"])
@pytest.mark.parametrize(
    "kind",
    [
        "directory",
        pytest.param("symlink", marks=pytest.mark.system),
        pytest.param("fifo", marks=pytest.mark.system),
    ],
)
def test_they_must_be_regular_files(
    world: StratumZero, source: Path, way: str, name: str, kind: str
) -> None:
    place = source / name
    if kind == "directory":
        place.mkdir()
        (place / "below").touch()
    elif kind == "symlink":
        place.symlink_to("other")
    else:
        os.mkfifo(place)
    said = refused(world, source, way, PublishError)
    assert name in said
    assert "must be a regular file" in said


@every_way
@pytest.mark.parametrize("other", ["a", "z", "bin/z"])
def test_the_one_of_the_root_has_no_other_name(
    world: StratumZero, source: Path, way: str, other: str
) -> None:
    (source / ".cvmfsbundles").write_text("[]")
    os.link(source / ".cvmfsbundles", source / other)
    assert "must not be a hard link" in refused(world, source, way, PathRefused)


@every_way
def test_the_one_of_the_root_is_refused_elsewhere(
    world: StratumZero, source: Path, way: str
) -> None:
    (source / "bin/.cvmfsbundles").write_text("[]")
    said = refused(world, source, way, PathRefused)
    assert "bin/.cvmfsbundles: such a file is for the root" in said


@every_way
def test_one_that_is_too_large_is_refused(
    world: StratumZero, source: Path, way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module, name in (
        (bundles, "MAX_BYTES"),
        (file_changes, "MAX_BUNDLE_BYTES"),
        (tarball, "MAX_BUNDLE_BYTES"),
    ):
        monkeypatch.setattr(module, name, 10)
    (source / ".cvmfsbundles").write_text("[" + " " * 20 + "]")
    kind = LimitExceeded if way == "tar" else FormatError
    assert "more than 10 bytes" in refused(world, source, way, kind)


@every_way
def test_what_they_hold_must_be_known(world: StratumZero, source: Path, way: str) -> None:
    (source / ".cvmfsbundles").write_text("[]")
    (source / ".cvmfsgraft-.cvmfsbundles").write_text(f"size=2\nchecksum={'a' * 40}\n")
    assert "cannot be grafted" in refused(world, source, way, PathRefused)


@pytest.mark.parametrize("way", [way for way in WAYS if way != "tar"])
def test_one_for_no_file_is_warned_of(fresh: StratumZero, source: Path, way: str) -> None:
    (source / "bin/.cvmfsbundle-missing").write_bytes(BUNDLE)
    (warning,) = WAYS[way](fresh, source).warnings
    assert "bin/.cvmfsbundle-missing: there is no file beside it" in warning


def test_one_for_a_file_that_is_published_already_is_not(
    fresh: StratumZero, source: Path, tmp_path: Path
) -> None:
    fresh.publish(source)
    (source / "bin/.cvmfsbundle-python").write_bytes(BUNDLE)
    upper = tmp_path / "upper"
    (upper / "bin").mkdir(parents=True)
    (upper / "bin/.cvmfsbundle-python").write_bytes(BUNDLE)
    assert list(WAYS["transaction"](fresh, upper).warnings) == []


@pytest.mark.parametrize(
    "members",
    [
        member(b".cvmfsbundles/file"),
        member(b"file") + member(b".cvmfsbundles", kind=b"1", link=b"file"),
        member(b".cvmfsbundles", b"[]") + member(b"d/file", kind=b"1", link=b".cvmfsbundles"),
        member(b"file") + member(b".cvmfsbundle-x", kind=b"1", link=b"file"),
    ],
)
def test_no_member_gets_around_it(world: StratumZero, members: bytes) -> None:
    archive = io.BytesIO(members + END)
    with pytest.raises(PublishError, match="cvmfsbundle"):
        publish_tarball(
            world.locations, world.fqrn, archive=archive, to=b"", options=PublishOptions(),
            now=world.now + 10,
        )  # fmt: skip
