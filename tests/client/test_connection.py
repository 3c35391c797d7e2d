"""Where a repository is that a user names: stored, published, or configured."""

from pathlib import Path

import pytest

from outcrop.client.connection import find_target
from outcrop.storage.locations import Locations
from outcrop.storage.upstream import parse_upstream

FQRN = "known.example.org"


@pytest.fixture
def locations(tmp_path: Path) -> Locations:
    return Locations(tmp_path)


def publish_here(locations: Locations, text: str) -> None:
    directory = locations.server_config(FQRN)
    directory.mkdir(parents=True)
    (directory / "server.conf").write_text(text)


@pytest.mark.parametrize("place", ["s3://bucket/known", "S3,/tmp,known@/etc/cvmfs/s3.conf"])
def test_a_repository_published_to_a_bucket_is_found_by_name(
    locations: Locations, place: str
) -> None:
    publish_here(locations, f"# mine\nCVMFS_UPSTREAM_STORAGE='{place}'\n")
    target = find_target(FQRN, locations)
    assert (target.upstream, target.directory) == (parse_upstream(place), None)


def test_a_repository_published_to_another_directory_is_found_there(
    locations: Locations, tmp_path: Path
) -> None:
    place = tmp_path / "elsewhere"
    publish_here(locations, f"CVMFS_UPSTREAM_STORAGE=local,{place}/data/txn,{place}\n")
    assert find_target(FQRN, locations).directory is None
    place.mkdir()
    (place / ".cvmfspublished").touch()
    assert find_target(FQRN, locations).directory == place


@pytest.mark.parametrize(
    "text", ["", "if true; then\n", "CVMFS_UPSTREAM_STORAGE=gw,/tmp,http://gateway:4929/api/v1\n"]
)
def test_settings_that_say_nothing_leave_it_to_the_configured_servers(
    locations: Locations, text: str
) -> None:
    publish_here(locations, text)
    target = find_target(FQRN, locations)
    assert (target.upstream, target.directory, target.urls) == (None, None, ())
