"""The other half of the chain: keys for a new repository, and signatures with them.

Spec: docs/reference/formats/keys.md.
"""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import NoDigestInfo
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import NameOID

from outcrop.errors import FormatError
from outcrop.formats.fqrn import check_fqrn
from outcrop.formats.hashes import ContentHash, HashAlgorithm
from outcrop.formats.manifest import Manifest
from outcrop.formats.signed import SignedText
from outcrop.formats.whitelist import Whitelist
from outcrop.trust.errors import KeyRefused
from outcrop.trust.keys import PublicKey, manifest_payload, whitelist_payload

KEY_BITS: Final = 2048
_CERTIFICATE_DAYS: Final = 365
_MAX_COMMON_NAME: Final = 64


@dataclass(frozen=True, slots=True)
class RepositoryKeys:
    """All keys of a repository, as the PEM files they are kept in.

    Both private keys are unencrypted: file permissions protect them. `master_public_pem` is what
    clients get; the certificate is public, too.
    """

    master_key_pem: bytes
    master_public_pem: bytes
    repository_key_pem: bytes
    certificate_pem: bytes

    def __repr__(self) -> str:
        return "RepositoryKeys(…)"


def generate_keys(fqrn: str, *, now: int) -> RepositoryKeys:
    """Make the keys of a new repository; `now` is the unix time the certificate begins at."""
    check_fqrn(fqrn)
    master = rsa.generate_private_key(public_exponent=65537, key_size=KEY_BITS)
    repository = rsa.generate_private_key(public_exponent=65537, key_size=KEY_BITS)
    return RepositoryKeys(
        master_key_pem=_private_pem(master),
        master_public_pem=master.public_key().public_bytes(
            Encoding.PEM, PublicFormat.SubjectPublicKeyInfo
        ),
        repository_key_pem=_private_pem(repository),
        certificate_pem=_certificate_pem(repository, fqrn, now),
    )


def public_key_of(private_key_pem: bytes) -> PublicKey:
    """The public half of a private key, to compare with a certificate's."""
    numbers = _load_private_key(private_key_pem).public_key().public_numbers()
    return PublicKey(numbers.n, numbers.e)


def sign_manifest(manifest: Manifest, repository_key_pem: bytes, algorithm: HashAlgorithm) -> bytes:
    """The whole `.cvmfspublished`. `algorithm` is the repository's.

    Raises FormatError if no client could verify the result.
    """
    if manifest.fqrn is None or manifest.certificate is None:
        raise FormatError("a manifest needs the repository's name and certificate to be signed")
    body = manifest.serialize()
    content_hash = ContentHash.of(body, algorithm)
    signature = _sign(repository_key_pem, manifest_payload(content_hash))
    return SignedText(body, content_hash, signature).serialize()


def sign_whitelist(whitelist: Whitelist, master_key_pem: bytes, algorithm: HashAlgorithm) -> bytes:
    """The whole `.cvmfswhitelist`. `algorithm` is the repository's."""
    body = whitelist.serialize()
    content_hash = ContentHash.of(body, algorithm)
    signature = _sign(master_key_pem, whitelist_payload(content_hash))
    return SignedText(body, content_hash, signature).serialize()


def _sign(private_key_pem: bytes, payload: bytes) -> bytes:
    """A PKCS #1 v1.5 block of type 1 around the payload: the other side of `PublicKey.verify`."""
    return _load_private_key(private_key_pem).sign(payload, padding.PKCS1v15(), NoDigestInfo())


def _load_private_key(pem: bytes) -> rsa.RSAPrivateKey:
    try:
        key = load_pem_private_key(pem, password=None)
    except TypeError as error:
        raise KeyRefused("the private key is encrypted, which is not supported") from error
    except (ValueError, UnsupportedAlgorithm) as error:
        raise FormatError("not a private key in PEM form") from error
    if not isinstance(key, rsa.RSAPrivateKey):
        raise KeyRefused(f"{type(key).__name__} is not an RSA key")
    return key


def _private_pem(key: rsa.RSAPrivateKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def _certificate_pem(key: rsa.RSAPrivateKey, fqrn: str, now: int) -> bytes:
    long_name = f"{fqrn} CernVM-FS Release Managers"
    common_name = long_name if len(long_name) <= _MAX_COMMON_NAME else fqrn
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])
    begin = datetime.fromtimestamp(now, UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(begin)
        .not_valid_after(begin + timedelta(days=_CERTIFICATE_DAYS))
        .sign(key, SHA256())
    )
    return certificate.public_bytes(Encoding.PEM)
