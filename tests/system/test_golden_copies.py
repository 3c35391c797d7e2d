"""Golden repositories through `outcrop cp`: the copy is what upstream's client shows."""

import os
from pathlib import Path

import pytest
from tests.support import golden
from tests.support.listing import expected, lines_of_directory, listing
from tests.support.mounts import outcrop

pytestmark = pytest.mark.system


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can copy owners and devices")
@pytest.mark.parametrize(("name", "tag"), golden.LISTINGS)
def test_a_copy_is_what_upstreams_client_shows(
    name: str, tag: str, external_url: str, tmp_path: Path
) -> None:
    options = ["--key", str(golden.public_key(name)), "-o", f"CVMFS_EXTERNAL_URL={external_url}"]
    copy = tmp_path / "copy"
    source = str(golden.directory(name) / "repo")
    outcrop(tmp_path, "cp", source, "/", str(copy), *options, *(["--tag", tag] if tag else []))
    found = listing(lines_of_directory(copy))
    assert portable(found) == portable(expected(golden.listing_file(name, tag)))


def portable(lines: list[str]) -> list[str]:
    """Listing lines without what the file system of the copy decides: directories' size, nlink."""
    found = []
    for line in lines:
        columns = line.split("\t")
        if columns[1] == "d":
            columns[3] = columns[6] = "-"
        found.append("\t".join(columns))
    return found
