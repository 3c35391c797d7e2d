"""Golden repositories through the Python reader: equal to upstream's client, line by line."""

import pytest
from tests.support import golden
from tests.support.listing import expected, lines_of_revision, listing

NATIVE = [(name, tag) for name, tag in golden.LISTINGS if name != "external"]


@pytest.mark.parametrize(("name", "tag"), NATIVE)
def test_a_revision_reads_as_upstreams_client_shows_it(name: str, tag: str) -> None:
    source = golden.source(name)
    if tag:
        revision = source.open_tag(tag, now=golden.now())
    else:
        revision = source.open_trunk(now=golden.now())
    assert listing(lines_of_revision(revision)) == expected(golden.listing_file(name, tag))
