"""Signing letters with a repository's key, and believing those of others (spec 5.5)."""

import base64

from outcrop.errors import FormatError
from outcrop.formats.hashes import ContentHash, HashAlgorithm
from outcrop.formats.letter import Letter, open_envelope
from outcrop.formats.signed import SignedText
from outcrop.trust.chain import TrustedWhitelist, check_listed
from outcrop.trust.errors import BadSignature, TrustError, WrongRepository
from outcrop.trust.keys import Certificate, manifest_payload
from outcrop.trust.signing import key_signer, public_key_of


class LetterTooOld(TrustError):
    """A letter was sent too long ago, or claims to be from the future."""


def sign_letter(letter: Letter, repository_key_pem: bytes, algorithm: HashAlgorithm) -> bytes:
    """The letter as it is sent: one line of base64.

    Raises FormatError if its certificate is not that of the key.
    """
    if public_key_of(repository_key_pem) != Certificate.parse(letter.certificate).public_key:
        raise FormatError("the certificate does not belong to the key")
    body = letter.serialize()
    content_hash = ContentHash.of(body, algorithm)
    signature = key_signer(repository_key_pem)(manifest_payload(content_hash))
    return base64.b64encode(SignedText(body, content_hash, signature).serialize())


def verify_letter(data: bytes, *, fqrn: str, now: int, max_age_seconds: int) -> Letter:
    """Read a letter that is for `fqrn`, whole, and signed with the certificate it brings along.

    That says nothing yet about who signed it: `check_sender` does. With a `max_age_seconds` of 0
    any age will do. Raises FormatError, BadSignature, WrongRepository, LetterTooOld, KeyRefused.
    """
    signed = SignedText.parse(open_envelope(data))
    letter = Letter.parse(signed.body)
    if max_age_seconds and abs(now - letter.sent_at) > max_age_seconds:
        raise LetterTooOld(f"{fqrn}: the letter is {now - letter.sent_at} seconds old")
    if letter.fqrn != fqrn:
        raise WrongRepository(f"the letter is of {letter.fqrn}, not of {fqrn}")
    if not signed.body_hash_matches:
        raise BadSignature(f"{fqrn}: the letter was changed: its content hash is not {signed.hash}")
    signer = Certificate.parse(letter.certificate)
    signer.public_key.verify(signed.signature, manifest_payload(signed.hash))
    return letter


def check_sender(letter: Letter, whitelist: TrustedWhitelist) -> None:
    """See that a letter's certificate is on the repository's whitelist.

    Raises CertificateNotListed, WrongRepository.
    """
    if whitelist.whitelist.fqrn != letter.fqrn:
        raise WrongRepository(f"the whitelist is of {whitelist.whitelist.fqrn}")
    check_listed(Certificate.parse(letter.certificate), whitelist.whitelist)
