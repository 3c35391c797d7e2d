from dataclasses import replace
from datetime import UTC, datetime

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, padding
from cryptography.hazmat.primitives.hashes import SHA1
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from tests.support.keys import LONG_AGO, repository_keys

from outcrop.errors import FormatError
from outcrop.formats.hashes import ContentHash, HashAlgorithm
from outcrop.formats.manifest import Manifest
from outcrop.formats.signed import SignedText
from outcrop.formats.whitelist import Whitelist
from outcrop.trust.errors import KeyRefused
from outcrop.trust.keys import Certificate, load_public_keys, manifest_payload, whitelist_payload
from outcrop.trust.signing import (
    generate_keys,
    key_signer,
    public_key_of,
    sign_manifest,
    sign_whitelist,
)

KEYS = repository_keys()
NULL = ContentHash(HashAlgorithm.SHA1, bytes(20))
MANIFEST = Manifest(root_catalog=NULL, ttl=240, revision=1, fqrn="a.org", certificate=NULL)
WHITELIST = Whitelist(created_at=0, expires_at=3600, fqrn="a.org")
ALGORITHMS = [HashAlgorithm.SHA1, HashAlgorithm.RMD160, HashAlgorithm.SHAKE128]


def test_generated_keys_fit_together():
    (master,) = load_public_keys(KEYS.master_public_pem)
    certificate = Certificate.parse(KEYS.certificate_pem)
    assert public_key_of(KEYS.master_key_pem) == master
    assert public_key_of(KEYS.repository_key_pem) == certificate.public_key
    assert master != certificate.public_key
    assert (master.modulus.bit_length(), master.exponent) == (2048, 65537)


def test_keys_do_not_show_in_logs():
    assert repr(KEYS) == str(KEYS) == "RepositoryKeys(…)"


def test_a_certificate_is_named_and_dated_as_upstream_does():
    certificate = x509.load_pem_x509_certificate(KEYS.certificate_pem)
    name = "CN=sim.example.org CernVM-FS Release Managers"
    assert certificate.subject.rfc4514_string() == certificate.issuer.rfc4514_string() == name
    assert certificate.not_valid_before_utc == datetime.fromtimestamp(LONG_AGO, UTC)
    assert (certificate.not_valid_after_utc - certificate.not_valid_before_utc).days == 365


def test_the_longest_repository_name_fits_into_a_certificate():
    fqrn = "x" * 60
    certificate = x509.load_pem_x509_certificate(generate_keys(fqrn, now=0).certificate_pem)
    assert certificate.subject.rfc4514_string() == f"CN={fqrn}"


def test_an_impossible_repository_name_gets_no_keys():
    with pytest.raises(FormatError):
        generate_keys("../x", now=0)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_signed_manifest_verifies_by_an_independent_library(algorithm):
    signed = SignedText.parse(sign_manifest(MANIFEST, KEYS.repository_key_pem, algorithm))
    assert signed.body == MANIFEST.serialize()
    assert signed.hash == ContentHash.of(signed.body, algorithm)
    key = x509.load_pem_x509_certificate(KEYS.certificate_pem).public_key()
    key.verify(signed.signature, str(signed.hash).encode(), padding.PKCS1v15(), SHA1())
    Certificate.parse(KEYS.certificate_pem).public_key.verify(
        signed.signature, manifest_payload(signed.hash)
    )


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_signed_whitelist_is_the_raw_operation_on_the_padded_hash(algorithm):
    signed = SignedText.parse(sign_whitelist(WHITELIST, key_signer(KEYS.master_key_pem), algorithm))
    (key,) = load_public_keys(KEYS.master_public_pem)
    block = pow(int.from_bytes(signed.signature, "big"), key.exponent, key.modulus)
    text = str(signed.hash).encode()
    expected = b"\0\1" + b"\xff" * (253 - len(text)) + b"\0" + text
    assert block.to_bytes(256, "big") == expected
    key.verify(signed.signature, whitelist_payload(signed.hash))


def test_signing_is_deterministic():
    once, again = (
        sign_whitelist(WHITELIST, key_signer(KEYS.master_key_pem), HashAlgorithm.SHA1)
        for _ in range(2)
    )
    assert once == again


@pytest.mark.parametrize("lacking", [{"fqrn": None}, {"certificate": None}])
def test_a_manifest_no_client_could_verify_is_not_signed(lacking):
    with pytest.raises(FormatError):
        sign_manifest(replace(MANIFEST, **lacking), KEYS.repository_key_pem, HashAlgorithm.SHA1)


def test_refuses_private_keys_that_cannot_sign():
    encrypted = load_pem_private_key(KEYS.master_key_pem, password=None).private_bytes(
        Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"secret")
    )
    elliptic = ec.generate_private_key(ec.SECP256R1()).private_bytes(
        Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()
    )
    for key, error, message in (
        (encrypted, KeyRefused, "encrypted"),
        (elliptic, KeyRefused, "not an RSA key"),
        (KEYS.master_public_pem, FormatError, "not a private key"),
        (b"", FormatError, "not a private key"),
    ):
        with pytest.raises(error, match=message):
            sign_whitelist(WHITELIST, key_signer(key), HashAlgorithm.SHA1)


def test_reads_keys_in_the_older_form_openssl_writes():
    older = load_pem_private_key(KEYS.master_key_pem, password=None).private_bytes(
        Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption()
    )
    assert public_key_of(older) == public_key_of(KEYS.master_key_pem)
