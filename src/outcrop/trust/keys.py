"""RSA keys and certificates: reading them, and the one primitive all signatures are made of.

Spec: docs/reference/formats/keys.md. Both kinds of signatures in a repository are PKCS #1 v1.5
blocks of type 1; they differ in the payload alone. So there is one check, of the whole block byte
by byte: nothing inside a signature is ever parsed, and no forged padding can pass.
"""

import base64
import binascii
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, Self

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import load_der_public_key

from outcrop.errors import FormatError
from outcrop.formats.hashes import ContentHash, HashAlgorithm
from outcrop.trust.errors import BadSignature, KeyRefused

MIN_KEY_BITS: Final = 512
MAX_KEY_BITS: Final = 16384
MAX_EXPONENT: Final = (1 << 32) - 1
MAX_PEM_BYTES: Final = 256 * 1024
"""Limit of a key file or certificate: more than any chain of certificates needs."""


@dataclass(frozen=True, slots=True)
class PublicKey:
    """An RSA public key of a size we are ready to compute with."""

    modulus: int
    exponent: int

    def __post_init__(self) -> None:
        bits = self.modulus.bit_length()
        if not MIN_KEY_BITS <= bits <= MAX_KEY_BITS:
            raise KeyRefused(
                f"an RSA key of {bits} bits: {MIN_KEY_BITS} to {MAX_KEY_BITS} are accepted"
            )
        if not 3 <= self.exponent <= MAX_EXPONENT or not self.exponent & self.modulus & 1:
            raise KeyRefused("an RSA key with an impossible modulus or public exponent")

    def __repr__(self) -> str:
        return f"PublicKey({self.modulus.bit_length()} bits)"

    @property
    def signature_bytes(self) -> int:
        """Length of every signature by this key."""
        return (self.modulus.bit_length() + 7) // 8

    def verify(self, signature: bytes, payload: bytes) -> None:
        """Check that the key's owner signed exactly this payload. Raises BadSignature."""
        size = self.signature_bytes
        if len(signature) != size:
            raise BadSignature(f"the signature has {len(signature)} bytes, the key's have {size}")
        number = int.from_bytes(signature, "big")
        if number >= self.modulus:
            raise BadSignature("the signature is no number below the key's modulus")
        block = pow(number, self.exponent, self.modulus).to_bytes(size, "big")
        if block != _padded(payload, size):
            raise BadSignature("the signature was made by another key, or over another text")


def _padded(payload: bytes, size: int) -> bytes:
    """The block of PKCS #1 v1.5, type 1: `00 01 FF … FF 00` and the payload."""
    filling = size - len(payload) - 3
    if filling < 8:
        raise KeyRefused(f"a key of {size} bytes is too short to sign {len(payload)}")
    return b"\0\1" + b"\xff" * filling + b"\0" + payload


def manifest_payload(content_hash: ContentHash) -> bytes:
    """What is signed of a manifest: the SHA-1, as a DigestInfo, of its hash's text form."""
    text = str(content_hash).encode()
    return _SHA1_DIGEST_INFO + ContentHash.of(text, HashAlgorithm.SHA1).digest


_SHA1_DIGEST_INFO: Final = bytes.fromhex("3021300906052b0e03021a05000414")


def whitelist_payload(content_hash: ContentHash) -> bytes:
    """What is signed of a whitelist: its hash's text form as it is, not hashed again."""
    return str(content_hash).encode()


def load_public_keys(pem: bytes) -> tuple[PublicKey, ...]:
    """Read every public key of a PEM file. Raises FormatError if there is none, or KeyRefused."""
    keys = []
    for der in _pem_blocks(pem, "a public key", _PUBLIC_KEY_LABELS):
        try:
            keys.append(_rsa_numbers(load_der_public_key(der)))
        except (ValueError, TypeError, UnsupportedAlgorithm) as error:
            raise FormatError(f"not a public key: {error}") from error
    return tuple(keys)


@dataclass(frozen=True, slots=True)
class Certificate:
    """What counts of a certificate: its bytes, by which it is listed, and its public key.

    Names, dates, purposes and its own signature mean nothing here; the whitelist says it all.
    """

    der: bytes
    public_key: PublicKey

    @classmethod
    def parse(cls, pem: bytes) -> Self:
        """Read the first certificate of a PEM file. Raises FormatError or KeyRefused."""
        der = next(_pem_blocks(pem, "a certificate", _CERTIFICATE_LABELS))
        try:
            key = x509.load_der_x509_certificate(der).public_key()
        except (ValueError, TypeError, UnsupportedAlgorithm, x509.InvalidVersion, Warning) as error:
            raise FormatError(f"not an X.509 certificate: {error}") from error
        return cls(der, _rsa_numbers(key))

    def fingerprint(self, algorithm: HashAlgorithm) -> ContentHash:
        """Its name in a whitelist of a repository with this hash algorithm."""
        return ContentHash.of(self.der, algorithm)


def _rsa_numbers(key: object) -> PublicKey:
    if not isinstance(key, rsa.RSAPublicKey):
        raise KeyRefused(f"{type(key).__name__} is not an RSA key")
    numbers = key.public_numbers()
    return PublicKey(numbers.n, numbers.e)


_PUBLIC_KEY_LABELS: Final = frozenset((b"PUBLIC KEY", b"RSA PUBLIC KEY"))
_CERTIFICATE_LABELS: Final = frozenset((b"CERTIFICATE", b"X509 CERTIFICATE"))
_PEM = re.compile(
    rb"^-----BEGIN (?P<label>[A-Z0-9 ]{1,40})-----[ \t]*\r?\n"
    rb"(?P<base64>[A-Za-z0-9+/=\s]*)"
    rb"^-----END (?P=label)-----",
    re.MULTILINE,
)


def _pem_blocks(pem: bytes, what: str, labels: frozenset[bytes]) -> Iterator[bytes]:
    """Content of the blocks with these labels. Raises FormatError where there is none."""
    if len(pem) > MAX_PEM_BYTES:
        raise FormatError(f"not {what}: a PEM file of {len(pem)} bytes, over {MAX_PEM_BYTES}")
    found = False
    for match in _PEM.finditer(pem):
        if match["label"] not in labels:
            continue
        found = True
        try:
            yield base64.b64decode(b"".join(match["base64"].split()), validate=True)
        except binascii.Error as error:
            raise FormatError(f"not {what}: its base64 is damaged: {error}") from error
    if not found:
        raise FormatError(f"not {what}: there is no such PEM block")
