import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.support.golden_objects import NAMES, golden_file
from tests.support.hostile import gives_value_or, inputs

from outcrop.errors import FormatError
from outcrop.formats.hashes import ContentHash, HashAlgorithm
from outcrop.formats.signed import SignedText, parse_content_hash

BODY = b"line\n"
SHA1 = ContentHash.of(BODY, HashAlgorithm.SHA1)
EXAMPLE = SignedText(BODY, SHA1, b"\0\n--\nsignature")


def test_splits_at_the_first_separator_line():
    parsed = SignedText.parse(b"a\nb--\n--x\n--\n" + str(SHA1).encode() + b"\nsig\n--\nrest")
    assert (parsed.body, parsed.signature) == (b"a\nb--\n--x\n", b"sig\n--\nrest")


def test_tells_whether_the_hash_line_is_right():
    assert EXAMPLE.body_hash_matches
    assert not SignedText(b"other\n", SHA1, b"").body_hash_matches


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"--\n" + b"0" * 40 + b"\n",
        b"no separator",
        b"a\n--",
        b"a\n--\n",
        b"a\n--\n" + b"0" * 40,
        b"a\n--\n" + b"0" * 39 + b"\n",
        b"a\n--\n" + b"0" * 32 + b"\n",
        b"a\n--\n" + b"A" * 40 + b"\n",
        b"a\n--\n" + b"0" * 40 + b"-md5\n",
        b"a\n--\n" + b" " * 100 + b"0" * 40 + b"\n",
        b"a\r\n--\r\n" + b"0" * 40 + b"\n",
    ],
)
def test_refuses_what_has_no_hash_line(data):
    with pytest.raises(FormatError):
        SignedText.parse(data)


@pytest.mark.parametrize("body", [b"", b"no newline", b"a\n--\nb\n"])
def test_refuses_to_write_a_body_that_would_be_read_differently(body):
    with pytest.raises(FormatError):
        SignedText(body, SHA1, b"").serialize()


@given(
    st.binary().map(lambda body: body.replace(b"--", b"") + b"\n"),
    st.binary(),
    st.sampled_from([HashAlgorithm.SHA1, HashAlgorithm.RMD160, HashAlgorithm.SHAKE128]),
)
@settings(deadline=None)
def test_reads_what_it_wrote(body, signature, algorithm):
    text = SignedText(body, ContentHash.of(body, algorithm), signature)
    assert SignedText.parse(text.serialize()) == text


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("file", [".cvmfspublished", ".cvmfswhitelist"])
def test_golden_texts_have_the_right_hash_and_are_written_back_unchanged(name, file):
    data = golden_file(name, f"repo/{file}")
    parsed = SignedText.parse(data)
    assert parsed.body_hash_matches
    assert parsed.serialize() == data


@given(inputs(EXAMPLE.serialize()))
@settings(deadline=None)
def test_any_bytes_give_a_value_or_a_format_error(data):
    gives_value_or(FormatError, SignedText.parse, data)


def test_md5_is_no_content_hash():
    with pytest.raises(FormatError, match="md5"):
        parse_content_hash(b"0" * 32)
