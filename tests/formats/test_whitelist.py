import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.support.golden_objects import NAMES, golden_file
from tests.support.hostile import gives_value_or, inputs

from outcrop.errors import FormatError
from outcrop.formats.hashes import ContentHash, HashAlgorithm
from outcrop.formats.signed import SignedText
from outcrop.formats.whitelist import Whitelist, fingerprint_text, parse_fingerprint

COUNTING = bytes(range(20))
COLONS = b"00:01:02:03:04:05:06:07:08:09:0A:0B:0C:0D:0E:0F:10:11:12:13"
SAMPLE = b"20240101000000\nE20240131000000\nNtest.cern.ch\n" + COLONS + b" # comment\n"
SAMPLE_HASH = "1aa4dfb94fb282f711305db12523f3c147e539c5"
JANUARY_1ST, JANUARY_31ST = 1704067200, 1706659200

fingerprints = st.builds(
    ContentHash,
    st.sampled_from([HashAlgorithm.SHA1, HashAlgorithm.RMD160, HashAlgorithm.SHAKE128]),
    st.binary(min_size=20, max_size=20),
)
whitelists = st.builds(
    Whitelist,
    created_at=st.integers(0, 253402300799),
    expires_at=st.integers(0, 70389527).map(lambda hour: hour * 3600),
    fqrn=st.from_regex(r"[a-z0-9][a-z0-9.-]{0,20}", fullmatch=True),
    fingerprints=st.lists(fingerprints, max_size=4).map(tuple),
    wants_pkcs7=st.booleans(),
    wants_ca_chain=st.booleans(),
)


def test_reads_the_sample_of_the_specification():
    assert Whitelist.parse(SAMPLE) == Whitelist(
        created_at=JANUARY_1ST,
        expires_at=JANUARY_31ST,
        fqrn="test.cern.ch",
        fingerprints=(ContentHash(HashAlgorithm.SHA1, COUNTING),),
    )
    assert str(ContentHash.of(SAMPLE, HashAlgorithm.SHA1)) == SAMPLE_HASH


def test_expiry_is_told_to_the_hour():
    body = SAMPLE.replace(b"E20240131000000", b"E20240131015959")
    assert Whitelist.parse(body).expires_at == JANUARY_31ST + 3600


def test_options_may_stand_between_the_name_and_the_fingerprints():
    body = SAMPLE.replace(COLONS, b"Vpkcs7\nWcachain\n" + COLONS)
    whitelist = Whitelist.parse(body)
    assert whitelist.wants_pkcs7
    assert whitelist.wants_ca_chain
    assert len(whitelist.fingerprints) == 1


def test_lines_that_are_no_fingerprints_are_passed_over():
    body = SAMPLE + b"\n# nothing\nVother\nzz:zz\n" + COLONS + b"-SHAKE128\n" + b"0" * 32 + b"\n"
    algorithms = [f.algorithm for f in Whitelist.parse(body).fingerprints]
    assert algorithms == [HashAlgorithm.SHA1, HashAlgorithm.SHAKE128]


@pytest.mark.parametrize("name", NAMES)
def test_writes_golden_whitelists_back_but_for_the_minutes_of_expiry(name):
    body = SignedText.parse(golden_file(name, "repo/.cvmfswhitelist")).body
    whitelist = Whitelist.parse(body)
    lines = body.splitlines(keepends=True)
    lines[1] = lines[1][:11] + b"0000\n"
    assert whitelist.serialize() == b"".join(lines)
    assert whitelist.fqrn == f"{name}.golden.test"


@given(whitelists)
@settings(deadline=None)
def test_reads_what_it_wrote(whitelist):
    assert Whitelist.parse(whitelist.serialize()) == whitelist


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"20240101000000\nE20240131000000\n",
        SAMPLE.replace(b"2024010", b"2024X10"),
        SAMPLE.replace(b"20240101000000", b"20241301000000"),
        SAMPLE.replace(b"20240101000000", b"00000101000000"),
        SAMPLE.replace(b"E20240131000000", b"E20240230000000"),
        SAMPLE.replace(b"E20240131000000", b"20240131000000"),
        SAMPLE.replace(b"E20240131000000", b"E2024013100000"),
        SAMPLE.replace(b"E20240131000000", b"E20240131000000 "),
        SAMPLE.replace(b"Ntest", b"test"),
        SAMPLE.replace(b"Ntest", b"N/test"),
    ],
)
def test_refuses_a_head_that_is_damaged(body):
    with pytest.raises(FormatError):
        Whitelist.parse(body)


@pytest.mark.parametrize("time", [-1, 253402300800])
def test_refuses_to_write_a_year_that_has_not_four_digits(time):
    with pytest.raises(FormatError):
        Whitelist(created_at=0, expires_at=time, fqrn="x").serialize()


@given(inputs(SAMPLE))
@settings(deadline=None)
def test_any_bytes_give_a_value_or_a_format_error(data):
    gives_value_or(FormatError, Whitelist.parse, data)


@pytest.mark.parametrize(
    ("algorithm", "tail"),
    [
        (HashAlgorithm.SHA1, ""),
        (HashAlgorithm.RMD160, "-RMD160"),
        (HashAlgorithm.SHAKE128, "-SHAKE128"),
    ],
)
def test_a_fingerprint_is_upper_case_bytes_with_colons_and_the_algorithm(algorithm, tail):
    fingerprint = ContentHash(algorithm, COUNTING)
    assert fingerprint_text(fingerprint) == COLONS.decode() + tail
    assert parse_fingerprint(COLONS + tail.encode()) == fingerprint


@pytest.mark.parametrize("after", [b" # x", b"\tx", b"#x", b" "])
def test_a_fingerprint_ends_at_a_blank_or_number_sign(after):
    assert parse_fingerprint(COLONS.lower() + after).digest == COUNTING
    assert parse_fingerprint(COUNTING.hex().encode() + after).digest == COUNTING


@pytest.mark.parametrize("line", [b"", b" " + COLONS, COLONS + b":14", b"0" * 32, b":" * 100000])
def test_refuses_what_is_no_fingerprint(line):
    with pytest.raises(FormatError):
        parse_fingerprint(line)
