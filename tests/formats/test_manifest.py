from dataclasses import fields

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.support.golden_objects import NAMES, golden_file
from tests.support.hostile import gives_value_or, inputs

from outcrop.errors import FormatError
from outcrop.formats.hashes import ContentHash, HashAlgorithm
from outcrop.formats.manifest import ROOT_PATH_HASH, Breadcrumb, Manifest, parse_decimal
from outcrop.formats.signed import SignedText

SAMPLE = b"""\
C600230b0ba7620426f2e898f1e1f43c5466efe59
B28672
Rd41d8cd98f00b204e9800998ecf8427e
D240
S2
Gyes
Ano
Ntest.cern.ch
Xe8ec3d88b62ebf526e4e5a4ff6162a3aa48a6b78
H0123456789abcdef0123456789abcdef01234567
T1700000000
Yfedcba9876543210fedcba9876543210fedcba98
"""
SAMPLE_HASH = "08c70a0356675792f68795c8d54e3c0eba58c1b4"

REQUIRED = b"C" + b"0" * 40 + b"\nR" + ROOT_PATH_HASH.encode() + b"\nD1\nS1\n"

hashes = st.builds(
    ContentHash,
    st.sampled_from([HashAlgorithm.SHA1, HashAlgorithm.RMD160, HashAlgorithm.SHAKE128]),
    st.binary(min_size=20, max_size=20),
)
counts = st.integers(0, 2**63 - 1)
manifests = st.builds(
    Manifest,
    root_catalog=hashes,
    ttl=st.integers(0, 2**32 - 1),
    revision=counts,
    catalog_size=counts,
    garbage_collectable=st.booleans(),
    has_alternative_paths=st.booleans(),
    micro_catalog=st.none() | hashes,
    fqrn=st.none() | st.from_regex(r"[a-z0-9][a-z0-9.-]{0,20}", fullmatch=True),
    certificate=st.none() | hashes,
    history=st.none() | hashes,
    published_at=counts,
    meta_info=st.none() | hashes,
    reflog=st.none() | hashes,
    unknown=st.lists(st.from_regex(rb"[ZQa-z][^\n]{0,20}", fullmatch=True)).map(tuple),
)


def test_reads_the_sample_of_the_specification():
    manifest = Manifest.parse(SAMPLE)
    assert manifest == Manifest(
        root_catalog=ContentHash.parse("600230b0ba7620426f2e898f1e1f43c5466efe59"),
        catalog_size=28672,
        ttl=240,
        revision=2,
        garbage_collectable=True,
        fqrn="test.cern.ch",
        certificate=ContentHash.parse("e8ec3d88b62ebf526e4e5a4ff6162a3aa48a6b78"),
        history=ContentHash.parse("0123456789abcdef0123456789abcdef01234567"),
        published_at=1700000000,
        reflog=ContentHash.parse("fedcba9876543210fedcba9876543210fedcba98"),
    )
    assert manifest.algorithm is HashAlgorithm.SHA1
    assert str(ContentHash.of(SAMPLE, HashAlgorithm.SHA1)) == SAMPLE_HASH


def test_writes_the_sample_of_the_specification_byte_for_byte():
    assert Manifest.parse(SAMPLE).serialize() == SAMPLE


@pytest.mark.parametrize("name", NAMES)
def test_writes_golden_manifests_back_byte_for_byte(name):
    body = SignedText.parse(golden_file(name, "repo/.cvmfspublished")).body
    assert body == golden_file(name, "published.txt").removesuffix(b"--\n")
    assert Manifest.parse(body).serialize() == body


@given(manifests)
@settings(deadline=None)
def test_reads_what_it_wrote(manifest):
    assert Manifest.parse(manifest.serialize()) == manifest


def test_the_order_of_lines_does_not_matter():
    lines = SAMPLE.splitlines(keepends=True)
    assert Manifest.parse(b"".join(reversed(lines))) == Manifest.parse(SAMPLE)


def test_of_a_field_given_twice_the_last_counts():
    assert Manifest.parse(SAMPLE + b"S9\n").revision == 9


def test_unknown_lines_are_kept_for_writing_back_and_empty_ones_dropped():
    parsed = Manifest.parse(b"Znext\n\n" + SAMPLE + b"Zlast\n?\xff\n")
    assert parsed.unknown == (b"Znext", b"Zlast", b"?\xff")
    assert parsed.serialize() == SAMPLE + b"Znext\nZlast\n?\xff\n"


def test_optional_fields_have_defaults():
    manifest = Manifest.parse(REQUIRED)
    unset = {f.name: getattr(manifest, f.name) for f in fields(manifest)} | {"unknown": None}
    assert [name for name, value in unset.items() if value] == ["root_catalog", "ttl", "revision"]


@pytest.mark.parametrize("letter", [b"C", b"R", b"D", b"S"])
def test_a_required_field_must_be_there(letter):
    body = b"".join(
        line for line in SAMPLE.splitlines(keepends=True) if not line.startswith(letter)
    )
    with pytest.raises(FormatError):
        Manifest.parse(body)


@pytest.mark.parametrize(
    "line",
    [
        b"C",
        b"C" + b"0" * 32,
        b"C" + b"0" * 40 + b"C",
        b"C" + b"G" * 40,
        b"Rffffffffffffffffffffffffffffffff",
        b"D-1",
        b"D4294967296",
        b"S",
        b"S+1",
        b"S1_0",
        b"S 1",
        b"S1\r",
        b"S\xd9\xa3",
        b"S9223372036854775808",
        b"S" + b"0" * 5000,
        b"Gmaybe",
        b"Gyes ",
        b"Atrue",
        b"N",
        b"N../x",
        b"N\xff",
        b"Tnow",
        b"Xnone",
    ],
)
def test_a_field_with_an_impossible_value_is_refused_and_named(line):
    with pytest.raises(FormatError, match=f"manifest field {chr(line[0])}"):
        Manifest.parse(SAMPLE + line + b"\n")


@given(inputs(SAMPLE))
@settings(deadline=None)
def test_any_bytes_give_a_value_or_a_format_error(data):
    gives_value_or(FormatError, Manifest.parse, data)


@given(inputs(SAMPLE))
@settings(deadline=None)
def test_whatever_was_read_is_stable_when_written_and_read_again(data):
    if gives_value_or(FormatError, Manifest.parse, data):
        once = Manifest.parse(data)
        assert Manifest.parse(once.serialize()) == once


def test_decimals_have_a_range():
    assert parse_decimal(b"007", maximum=7) == 7
    with pytest.raises(FormatError):
        parse_decimal(b"8", maximum=7)


def test_breadcrumb_is_hash_time_and_revision():
    crumb = Breadcrumb.parse(b"600230b0ba7620426f2e898f1e1f43c5466efe59T1700000000R2")
    assert crumb == Breadcrumb(Manifest.parse(SAMPLE).root_catalog, 1700000000, 2)
    assert crumb == Breadcrumb.of(Manifest.parse(SAMPLE))


@pytest.mark.parametrize(
    ("tail", "published_at", "revision"),
    [(b"", 0, 0), (b"T5", 5, 0), (b"R6", 0, 6), (b"-rmd160T5R6", 5, 6), (b"-shake128", 0, 0)],
)
def test_breadcrumbs_of_old_clients_lack_fields(tail, published_at, revision):
    crumb = Breadcrumb.parse(b"0" * 40 + tail)
    assert (crumb.published_at, crumb.revision) == (published_at, revision)


@pytest.mark.parametrize(
    "data", [b"", b"0" * 32, b"0" * 40 + b"T", b"0" * 40 + b"T1\n", b"0" * 40 + b"R1T2", b"0" * 41]
)
def test_refuses_what_is_no_breadcrumb(data):
    with pytest.raises(FormatError):
        Breadcrumb.parse(data)


@given(st.builds(Breadcrumb, hashes, counts, counts))
@settings(deadline=None)
def test_breadcrumb_reads_what_it_wrote(crumb):
    data = crumb.serialize()
    assert len(data) <= Breadcrumb.MAX_BYTES
    assert Breadcrumb.parse(data) == crumb


@given(inputs(b"600230b0ba7620426f2e898f1e1f43c5466efe59T1700000000R2"))
@settings(deadline=None)
def test_any_bytes_give_a_breadcrumb_or_a_format_error(data):
    gives_value_or(FormatError, Breadcrumb.parse, data)
