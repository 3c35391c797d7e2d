"""Letters: what is signed is believed, and nothing else."""

import base64

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.support.keys import LONG_AGO, master_keys, other_keys, repository_keys

from outcrop.errors import FormatError, OutcropError
from outcrop.formats.hashes import ContentHash, HashAlgorithm
from outcrop.formats.letter import MAX_BYTES, Letter
from outcrop.formats.signed import SignedText
from outcrop.formats.whitelist import Whitelist
from outcrop.trust.chain import TrustedWhitelist, verify_whitelist
from outcrop.trust.errors import BadSignature, CertificateNotListed, WrongRepository
from outcrop.trust.keys import Certificate
from outcrop.trust.letter import LetterTooOld, check_sender, sign_letter, verify_letter
from outcrop.trust.signing import key_signer, sign_whitelist

FQRN = "sim.example.org"
NOW = LONG_AGO + 1000


def signed(
    text: bytes = b"hello", *, fqrn: str = FQRN, at: int = NOW, algorithm: str = "sha1"
) -> bytes:
    keys = repository_keys()
    letter = Letter(text, fqrn, at, keys.certificate_pem)
    return sign_letter(letter, keys.repository_key_pem, HashAlgorithm.from_label(algorithm))


def verified(data: bytes, *, max_age: int = 300, now: int = NOW) -> bytes:
    return verify_letter(data, fqrn=FQRN, now=now, max_age_seconds=max_age).text


def whitelist(certificate: bytes, fqrn: str = FQRN) -> TrustedWhitelist:
    keys = repository_keys()
    listed = Whitelist(
        created_at=LONG_AGO, expires_at=NOW + 86400, fqrn=fqrn,
        fingerprints=(Certificate.parse(certificate).fingerprint(HashAlgorithm.SHA1),),
    )  # fmt: skip
    data = sign_whitelist(listed, key_signer(keys.master_key_pem), HashAlgorithm.SHA1)
    return verify_whitelist(data, master_keys=master_keys(keys), fqrn=fqrn, now=NOW)


_LETTER = signed()


@settings(max_examples=10, deadline=None)
@given(st.binary(max_size=200), st.sampled_from(["sha1", "rmd160", "shake128"]))
def test_a_letter_arrives_as_it_was_sent_or_is_not_sent(text: bytes, algorithm: str) -> None:
    lines = text.split(b"\n")
    if b"##" in lines or b"--" in lines:
        with pytest.raises(FormatError):
            signed(text, algorithm=algorithm)
        return
    assert verified(signed(text, algorithm=algorithm)) == text


def test_its_form_is_upstreams() -> None:
    plain = base64.b64decode(signed(b"two\nlines"))
    body, _, rest = plain.partition(b"--\n")
    certificate = base64.b64encode(repository_keys().certificate_pem)
    assert body == b"two\nlines\n##\nV1\nN%s\nT%d\nX%s\n" % (FQRN.encode(), NOW, certificate)
    assert rest.partition(b"\n")[0].decode() == str(ContentHash.of(body, HashAlgorithm.SHA1))


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_no_changed_byte_goes_unnoticed(data: st.DataObject) -> None:
    plain = bytearray(base64.b64decode(_LETTER))
    place = data.draw(st.integers(0, len(plain) - 1))
    plain[place] ^= data.draw(st.integers(1, 255))
    with pytest.raises(OutcropError):
        verified(base64.b64encode(plain))


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=300))
def test_anything_else_is_refused_with_one_kind_of_error(data: bytes) -> None:
    for candidate in (data, base64.b64encode(data)):
        with pytest.raises(OutcropError):
            verified(candidate)


def test_old_letters_and_those_from_the_future_are_refused() -> None:
    letter = signed(at=NOW - 300)
    assert verified(letter) == b"hello"
    with pytest.raises(LetterTooOld):
        verified(letter, now=NOW + 1)
    with pytest.raises(LetterTooOld):
        verified(signed(at=NOW + 400))
    assert verified(letter, now=NOW + 10**8, max_age=0) == b"hello"


def test_a_letter_of_another_repository_is_refused() -> None:
    with pytest.raises(WrongRepository):
        verified(signed(fqrn="other.example.org"))


def test_a_signature_by_another_key_is_refused() -> None:
    keys = repository_keys()
    body = Letter(b"hello", FQRN, NOW, keys.certificate_pem).serialize()
    content_hash = ContentHash.of(body, HashAlgorithm.SHA1)
    by_other = key_signer(other_keys().repository_key_pem)(b"whatever")
    forged = SignedText(body, content_hash, by_other).serialize()
    with pytest.raises(BadSignature):
        verified(base64.b64encode(forged))
    with pytest.raises(FormatError, match="does not belong"):
        sign_letter(
            Letter(b"x", FQRN, NOW, keys.certificate_pem),
            other_keys().repository_key_pem,
            HashAlgorithm.SHA1,
        )


def test_the_sender_must_be_on_the_whitelist() -> None:
    found = verify_letter(signed(), fqrn=FQRN, now=NOW, max_age_seconds=0)
    check_sender(found, whitelist(repository_keys().certificate_pem))
    with pytest.raises(CertificateNotListed):
        check_sender(found, whitelist(other_keys().certificate_pem))
    with pytest.raises(WrongRepository):
        check_sender(found, whitelist(repository_keys().certificate_pem, "b.example.org"))


def test_letters_are_bounded() -> None:
    with pytest.raises(FormatError, match="the limit is"):
        verified(b"A" * (MAX_BYTES + 1))
