"""Scrubbing finds every file whose name is not that of its content."""

import shutil
from pathlib import Path

import pytest
from tests.support import golden

from outcrop.repository.scrub import ScrubResult, scrub
from outcrop.repository.stored import parse_object_name
from outcrop.storage.local import LocalStore


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    place = tmp_path / "repo"
    shutil.copytree(golden.directory("shake128") / "repo", place)
    return place


def scrubbed(directory: Path) -> ScrubResult:
    return scrub(LocalStore(directory), workers=2)


def objects(directory: Path) -> list[Path]:
    return sorted(place for place in (directory / "data").rglob("*") if place.is_file())


@pytest.mark.parametrize("name", ["basic", "shake128", "uncompressed", "gc", "external"])
def test_a_repository_of_upstream_is_found_to_be_right(name: str) -> None:
    place = golden.directory(name) / "repo"
    result = scrubbed(place)
    assert result.problems == []
    assert result.objects == len(objects(place))
    assert result.stored_bytes == sum(file.stat().st_size for file in objects(place))


def test_one_flipped_bit_is_found(directory: Path) -> None:
    file = objects(directory)[7]
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 4
    file.write_bytes(data)
    (problem,) = scrubbed(directory).problems
    assert problem.where == str(file.relative_to(directory))
    assert "content hash is" in problem.what


def test_a_file_in_the_wrong_directory_is_found(directory: Path) -> None:
    file = objects(directory)[3]
    other = "00" if file.parent.name != "00" else "01"
    (directory / "data" / other).mkdir(exist_ok=True)
    file.rename(directory / "data" / other / file.name)
    (problem,) = scrubbed(directory).problems
    assert problem.where == f"data/{other}/{file.name}"


def test_a_file_that_is_no_object_is_found(directory: Path) -> None:
    (directory / "data/00").mkdir(exist_ok=True)
    (directory / "data/00/README").touch()
    (problem,) = scrubbed(directory).problems
    assert str(problem) == "data/00/README: not the name of an object"


@pytest.mark.parametrize(
    "name",
    ["data/0a", "data/0a/b", "data/0A/" + "b" * 38, "data/0a/" + "b" * 38 + "Z",
     "data/0a/" + "b" * 37, "data/0a/" + "b" * 38 + "C\n", "x/0a/" + "b" * 38,
     "data/0a/" + "b" * 38 + "-md5"],
)  # fmt: skip
def test_what_is_no_object_name_is_not_taken_for_one(name: str) -> None:
    assert parse_object_name(name) is None


@pytest.mark.parametrize("ending", ["", "C", "-rmd160", "-shake128P", "-shake128"])
def test_object_names_are_read_back(ending: str) -> None:
    parsed = parse_object_name("data/0a/" + "b" * 38 + ending)
    assert parsed is not None
    assert f"{parsed.hash}{parsed.suffix}" == "0a" + "b" * 38 + ending
