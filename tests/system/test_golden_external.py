"""The golden repository with external data through the Python API equals upstream's client."""

from pathlib import Path

import pytest
from tests.support import golden
from tests.support.listing import expected, lines_of_revision, listing

import outcrop
from outcrop.repository.tree import Revision

pytestmark = pytest.mark.system


def test_external_data_reads_through_the_api_as_upstreams_client_shows_it(
    external_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OUTCROP_ROOT", str(tmp_path))
    with outcrop.open(
        golden.directory("external") / "repo",
        public_keys=[golden.public_key("external")],
        parameters=[f"CVMFS_EXTERNAL_URL={external_url}"],
    ) as repository:
        revision: Revision = repository.tree
        assert listing(lines_of_revision(revision)) == expected(golden.listing_file("external", ""))
