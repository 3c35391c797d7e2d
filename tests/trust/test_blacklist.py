import pytest
from hypothesis import given, settings
from tests.support.hostile import inputs
from tests.support.keys import other_keys, repository_keys

from outcrop.errors import FormatError
from outcrop.formats.hashes import HashAlgorithm
from outcrop.formats.whitelist import fingerprint_text
from outcrop.trust.blacklist import MAX_BYTES, Blacklist
from outcrop.trust.errors import Blacklisted
from outcrop.trust.keys import Certificate

CERTIFICATE = Certificate.parse(repository_keys().certificate_pem)
OTHER = Certificate.parse(other_keys().certificate_pem)


def listed(algorithm=HashAlgorithm.SHA1):
    """A blacklist line for the certificate."""
    return fingerprint_text(CERTIFICATE.fingerprint(algorithm)).encode()


@pytest.mark.parametrize(
    "algorithm", [HashAlgorithm.SHA1, HashAlgorithm.RMD160, HashAlgorithm.SHAKE128]
)
@pytest.mark.parametrize("after", [b"", b" # stolen", b"#stolen", b"\t"])
def test_refuses_a_listed_certificate_under_any_algorithm(algorithm, after):
    blacklist = Blacklist.parse(b"# revoked\n\n" + listed(algorithm) + after + b"\n")
    blacklist.check_certificate(OTHER)
    with pytest.raises(Blacklisted):
        blacklist.check_certificate(CERTIFICATE)


@pytest.mark.parametrize(
    ("text", "lowest"),
    [
        (b"<a.org 5", 5),
        (b"<a.org \t 5\n<b.org 9", 5),
        (b"<a.org 5\n<a.org 3", 5),
        (b"<a.org 3\r\n<a.org 5\r\n", 5),
        (b"<a.org 0", 0),
        (b"", 0),
    ],
)
def test_refuses_revisions_below_the_highest_floor(text, lowest):
    blacklist = Blacklist.parse(text)
    blacklist.check_revision("a.org", lowest)
    blacklist.check_revision("A.org", 0)
    if lowest:
        with pytest.raises(Blacklisted):
            blacklist.check_revision("a.org", lowest - 1)


@pytest.mark.parametrize(
    "line",
    [
        b"< a.org 5",
        b"<a.org",
        b"<a.org 5 ",
        b"<a.org 5x",
        b"<a.org -5",
        b"<a/b 5",
        b"<a.org 99999999999999999999",
        b"00:11",
        b"gibberish",
        b"\xff\xfe",
    ],
)
def test_lines_that_are_neither_are_kept_for_a_warning(line):
    blacklist = Blacklist.parse(b"<a.org 5\n" + line + b"\n# comment\n   \n")
    assert blacklist.unreadable == (line,)
    assert dict(blacklist.lowest_revisions) == {"a.org": 5}
    assert not blacklist.fingerprints


def test_files_are_joined_with_a_newline():
    both = Blacklist.parse(b"\n".join([listed(), b"<a.org 5"]))
    assert len(both.fingerprints) == len(both.lowest_revisions) == 1


def test_has_a_size_limit():
    with pytest.raises(FormatError, match="limit"):
        Blacklist.parse(b"\n" * (MAX_BYTES + 1))


@given(inputs(b"<a.org 5\n" + listed() + b" # x\n"))
@settings(deadline=None)
def test_any_bytes_give_a_blacklist(data):
    blacklist = Blacklist.parse(data)
    blacklist.check_certificate(OTHER)
    assert all(revision >= 0 for revision in blacklist.lowest_revisions.values())
