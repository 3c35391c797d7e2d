"""Every link of the chain is broken on purpose; each break has its own error."""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from tests.support.hostile import flipped, inputs, truncated
from tests.support.keys import master_keys, other_keys, repository_keys
from tests.support.simulator import FQRN, MANIFEST, WHITELIST, RepositorySimulator

from outcrop.errors import FormatError
from outcrop.formats import manifest as manifest_format
from outcrop.formats import whitelist as whitelist_format
from outcrop.formats.hashes import ContentHash, HashAlgorithm
from outcrop.formats.manifest import Breadcrumb
from outcrop.formats.signed import SignedText
from outcrop.formats.whitelist import fingerprint_text
from outcrop.trust.blacklist import Blacklist
from outcrop.trust.chain import (
    read_manifest_unverified_pointer,
    verify_manifest,
    verify_whitelist,
)
from outcrop.trust.errors import (
    BadSignature,
    Blacklisted,
    CertificateNotListed,
    NoMasterKey,
    RevisionRolledBack,
    TrustError,
    WhitelistExpired,
    WhitelistUnsupported,
    WrongRepository,
)
from outcrop.trust.keys import Certificate
from outcrop.trust.signing import key_signer, sign_manifest, sign_whitelist

NOW = 1_800_000_000
KEYS, OTHERS = repository_keys(), other_keys()
SIM = RepositorySimulator(now=NOW)
GOOD_MANIFEST, GOOD_WHITELIST = SIM.objects[MANIFEST], SIM.objects[WHITELIST]
REFUSALS = (FormatError, TrustError)


def whitelist(data=GOOD_WHITELIST, **changes):
    """Verify a whitelist."""
    arguments = {"master_keys": master_keys(KEYS), "fqrn": FQRN, "now": NOW}
    return verify_whitelist(data, **arguments | changes)


TRUSTED = whitelist()


def manifest(data=GOOD_MANIFEST, **changes):
    """Verify a manifest."""
    arguments = {
        "certificate": KEYS.certificate_pem,
        "whitelist": TRUSTED,
        "fqrn": FQRN,
        "blacklist": Blacklist(),
        "not_before": None,
    }
    return verify_manifest(data, **arguments | changes)


def resigned_whitelist(**changes):
    """The whitelist changed, and properly signed again."""
    changed = replace(TRUSTED.whitelist, **changes)
    return sign_whitelist(changed, key_signer(KEYS.master_key_pem), HashAlgorithm.SHA1)


def resigned_manifest(keys=KEYS, **changes):
    """The manifest changed, and properly signed again."""
    changed = replace(SIM.manifest, **changes)
    return sign_manifest(changed, keys.repository_key_pem, HashAlgorithm.SHA1)


def rehashed(data, old, new):
    """A text changed, with the hash line made to fit, under the old signature."""
    signed = SignedText.parse(data)
    body = signed.body.replace(old, new)
    assert body != signed.body
    return SignedText(body, ContentHash.of(body, HashAlgorithm.SHA1), signed.signature).serialize()


# The whitelist


def test_whitelist_signed_by_another_master_key():
    with pytest.raises(BadSignature, match="no known master key"):
        whitelist(
            sign_whitelist(TRUSTED.whitelist, key_signer(OTHERS.master_key_pem), HashAlgorithm.SHA1)
        )


def test_whitelist_signed_by_the_repository_key():
    data = sign_whitelist(
        TRUSTED.whitelist, key_signer(KEYS.repository_key_pem), HashAlgorithm.SHA1
    )
    with pytest.raises(BadSignature):
        whitelist(data)


def test_whitelist_without_any_master_key():
    with pytest.raises(NoMasterKey) as caught:
        whitelist(master_keys=())
    assert caught.value.hint is not None


def test_whitelist_changed_under_its_old_hash():
    with pytest.raises(BadSignature, match="was changed"):
        whitelist(GOOD_WHITELIST.replace(b"E20", b"E21"))


def test_whitelist_changed_with_the_hash_made_to_fit():
    with pytest.raises(BadSignature, match="another key, or over another text"):
        whitelist(rehashed(GOOD_WHITELIST, b"E20", b"E21"))


def test_whitelist_expired():
    expires_at = TRUSTED.whitelist.expires_at
    for now in (expires_at, expires_at + 10**9):
        with pytest.raises(WhitelistExpired):
            whitelist(now=now)


def test_whitelist_of_another_repository():
    with pytest.raises(WrongRepository, match=r"other\.org"):
        whitelist(resigned_whitelist(fqrn="other.org"))


@pytest.mark.parametrize("option", ["wants_pkcs7", "wants_ca_chain"])
def test_whitelist_that_asks_for_more_than_is_built(option):
    with pytest.raises(WhitelistUnsupported, match="not supported yet"):
        whitelist(resigned_whitelist(**{option: True}))


def test_whitelist_too_large():
    data = GOOD_WHITELIST + bytes(whitelist_format.MAX_BYTES)
    with pytest.raises(FormatError, match="limit"):
        whitelist(data)


def test_whitelist_with_bytes_after_its_signature():
    for tail in (b"\n", b"\0", b"x" * 1000, GOOD_WHITELIST):
        with pytest.raises(BadSignature):
            whitelist(GOOD_WHITELIST + tail)


def test_whitelist_with_text_before_it():
    with pytest.raises(REFUSALS):
        whitelist(b"20990101000000\nE20991231000000\nNevil.org\n" + GOOD_WHITELIST)


def test_whitelist_with_a_second_text_behind_a_second_separator():
    """The first separator line counts, for reader and hash alike."""
    signed = SignedText.parse(GOOD_WHITELIST)
    data = signed.body + b"--\n" + GOOD_WHITELIST
    with pytest.raises(REFUSALS):
        whitelist(data)


def test_whitelist_with_any_byte_flipped():
    for data in flipped(GOOD_WHITELIST):
        with pytest.raises(REFUSALS):
            whitelist(data)


def test_whitelist_cut_short_anywhere():
    for data in truncated(GOOD_WHITELIST):
        with pytest.raises(REFUSALS):
            whitelist(data)


@given(inputs(GOOD_WHITELIST))
@settings(deadline=None)
def test_whitelist_of_any_other_bytes(data):
    if data != GOOD_WHITELIST:
        with pytest.raises(REFUSALS):
            whitelist(data)


def test_the_manifests_kind_of_signature_under_a_whitelist():
    """Both sign the same line, with different payloads: one must not pass for the other."""
    signed = SignedText.parse(GOOD_WHITELIST)
    swapped = SignedText(signed.body, signed.hash, SignedText.parse(GOOD_MANIFEST).signature)
    with pytest.raises(BadSignature):
        whitelist(swapped.serialize(), master_keys=(Certificate.parse(
            KEYS.certificate_pem).public_key,))  # fmt: skip


# The manifest


def test_manifest_signed_by_another_key_under_the_listed_certificate():
    with pytest.raises(BadSignature):
        manifest(resigned_manifest(OTHERS))


def test_manifest_signed_by_a_certificate_that_is_not_listed():
    with pytest.raises(CertificateNotListed):
        manifest(resigned_manifest(OTHERS), certificate=OTHERS.certificate_pem)


def test_manifest_under_an_empty_whitelist():
    with pytest.raises(CertificateNotListed, match="empty"):
        manifest(whitelist=whitelist(resigned_whitelist(fingerprints=())))


def test_manifest_whose_certificate_is_listed_under_another_algorithm_only():
    digest = Certificate.parse(KEYS.certificate_pem).fingerprint(HashAlgorithm.SHA1).digest
    relabelled = ContentHash(HashAlgorithm.SHAKE128, digest)
    with pytest.raises(CertificateNotListed):
        manifest(whitelist=whitelist(resigned_whitelist(fingerprints=(relabelled,))))


def test_manifest_changed_under_its_old_hash():
    with pytest.raises(BadSignature, match="was changed"):
        manifest(GOOD_MANIFEST.replace(b"\nS1\n", b"\nS2\n"))


def test_manifest_changed_with_the_hash_made_to_fit():
    with pytest.raises(BadSignature, match="another key, or over another text"):
        manifest(rehashed(GOOD_MANIFEST, b"\nS1\n", b"\nS2\n"))


def test_manifest_with_a_field_repeated_to_override_the_signed_one():
    with pytest.raises(BadSignature):
        manifest(rehashed(GOOD_MANIFEST, b"\nS1\n", b"\nS1\nS2\n"))


@pytest.mark.parametrize("name", ["other.org", None, "SIM.example.org"])
def test_manifest_of_another_repository(name):
    changed = replace(SIM.manifest, fqrn=name or "x")
    body = changed.serialize() if name else changed.serialize().replace(b"Nx\n", b"")
    signed = SignedText.parse(GOOD_MANIFEST)
    with pytest.raises(WrongRepository):
        manifest(replace(signed, body=body).serialize())


def test_manifest_with_a_whitelist_of_another_repository():
    other = whitelist(resigned_whitelist(fqrn="other.org"), fqrn="other.org")
    with pytest.raises(WrongRepository):
        manifest(whitelist=other)


@pytest.mark.parametrize(
    "known",
    [
        Breadcrumb(SIM.manifest.root_catalog, SIM.manifest.published_at + 1, 0),
        Breadcrumb(SIM.manifest.root_catalog, 0, SIM.manifest.revision + 1),
    ],
)
def test_manifest_older_than_the_last_one(known):
    with pytest.raises(RevisionRolledBack):
        manifest(not_before=known)


def test_a_lower_revision_of_a_later_time_is_told_apart():
    """As after a repository was made anew under the old keys: the hint says what to remove."""
    known = Breadcrumb(SIM.manifest.root_catalog, 0, SIM.manifest.revision + 1)
    with pytest.raises(RevisionRolledBack) as caught:
        manifest(not_before=known)
    assert "cvmfschecksum" in str(caught.value.hint)


def test_manifest_without_a_time_after_one_that_had_it():
    with pytest.raises(RevisionRolledBack):
        manifest(resigned_manifest(published_at=0, revision=9), not_before=Breadcrumb.of(
            SIM.manifest))  # fmt: skip


@pytest.mark.parametrize("algorithm", [HashAlgorithm.SHA1, HashAlgorithm.SHAKE128])
def test_manifest_by_a_blacklisted_certificate(algorithm):
    fingerprint = Certificate.parse(KEYS.certificate_pem).fingerprint(algorithm)
    with pytest.raises(Blacklisted, match="certificate"):
        manifest(blacklist=Blacklist.parse(fingerprint_text(fingerprint).encode()))


def test_manifest_of_a_blacklisted_revision():
    with pytest.raises(Blacklisted, match="revision 1"):
        manifest(blacklist=Blacklist.parse(b"<sim.example.org 2\n"))


def test_manifest_too_large():
    with pytest.raises(FormatError, match="limit"):
        manifest(GOOD_MANIFEST + bytes(manifest_format.MAX_BYTES))


def test_manifest_with_bytes_after_its_signature():
    for tail in (b"\n", b"\0", b"x" * 1000):
        with pytest.raises(BadSignature):
            manifest(GOOD_MANIFEST + tail)


def test_manifest_with_any_byte_flipped():
    for data in flipped(GOOD_MANIFEST):
        with pytest.raises(REFUSALS):
            manifest(data)


def test_manifest_cut_short_anywhere():
    for data in truncated(GOOD_MANIFEST):
        with pytest.raises(REFUSALS):
            manifest(data)


@given(inputs(GOOD_MANIFEST))
@settings(deadline=None)
def test_manifest_of_any_other_bytes(data):
    if data != GOOD_MANIFEST:
        with pytest.raises(REFUSALS):
            manifest(data)


def test_manifest_with_a_certificate_that_is_none():
    for certificate in (b"", KEYS.master_public_pem, KEYS.certificate_pem[:200]):
        with pytest.raises(FormatError):
            manifest(certificate=certificate)


def test_certificate_with_any_byte_flipped():
    """A changed certificate is unreadable, has another key, or is not on the list."""
    pem = KEYS.certificate_pem
    for data in flipped(pem):
        try:
            manifest(certificate=data)
        except REFUSALS:
            continue
        # A byte of the armour that carries nothing: the certificate itself is the same.
        assert Certificate.parse(data) == Certificate.parse(pem)


def test_manifest_hashed_with_md5():
    signed = SignedText.parse(GOOD_MANIFEST)
    data = signed.body + b"--\n" + b"0" * 32 + b"\n" + signed.signature
    with pytest.raises(FormatError, match="md5"):
        manifest(data)


def test_the_pointer_is_readable_without_any_proof_but_not_without_limit():
    assert read_manifest_unverified_pointer(GOOD_MANIFEST) == SIM.manifest
    with pytest.raises(FormatError):
        read_manifest_unverified_pointer(GOOD_MANIFEST + bytes(manifest_format.MAX_BYTES))


def test_every_refusal_says_which_repository_and_why():
    with pytest.raises(BadSignature) as caught:
        manifest(GOOD_MANIFEST[:-1])
    assert FQRN in str(caught.value)
    assert caught.value.exit_code == 4
