"""The other half of the chain: keys for a new repository, and signatures with them.

Spec: docs/reference/formats/keys.md.
"""

from collections.abc import Callable
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
    master_key, master_public = generate_master_key()
    repository_key, certificate = generate_repository_key(fqrn, now=now)
    return RepositoryKeys(master_key, master_public, repository_key, certificate)


def generate_master_key() -> tuple[bytes, bytes]:
    """A new master key and its public half, as PEM."""
    master = rsa.generate_private_key(public_exponent=65537, key_size=KEY_BITS)
    public = master.public_key()
    return (
        _private_pem(master),
        public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo),
    )


def generate_repository_key(fqrn: str, *, now: int) -> tuple[bytes, bytes]:
    """A new repository key and its certificate, as PEM."""
    check_fqrn(fqrn)
    key = rsa.generate_private_key(public_exponent=65537, key_size=KEY_BITS)
    return _private_pem(key), _certificate_pem(key, fqrn, now)


def public_key_of(private_key_pem: bytes) -> PublicKey:
    """The public half of a private key, to compare with a certificate's."""
    numbers = _load_private_key(private_key_pem).public_key().public_numbers()
    return PublicKey(numbers.n, numbers.e)


def public_key_pem(key: PublicKey) -> bytes:
    """A public key as the file that readers get."""
    numbers = rsa.RSAPublicNumbers(key.exponent, key.modulus)
    return numbers.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


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


Signer = Callable[[bytes], bytes]
"""Makes a PKCS #1 v1.5 block of type 1 around a payload with a key that may be out of reach."""


def key_signer(private_key_pem: bytes) -> Signer:
    """Sign with a private key in PEM form. Raises FormatError, KeyRefused when it signs."""
    return lambda payload: _sign(private_key_pem, payload)


def sign_whitelist(whitelist: Whitelist, sign: Signer, algorithm: HashAlgorithm) -> bytes:
    """The whole `.cvmfswhitelist`, signed with the master key. `algorithm` is the repository's."""
    body = whitelist.serialize()
    content_hash = ContentHash.of(body, algorithm)
    return SignedText(body, content_hash, sign(whitelist_payload(content_hash))).serialize()


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
