"""Targets for the chain of trust: nothing but the very bytes that were signed is believed."""

import zlib
from contextlib import suppress

from tests.support.simulator import MANIFEST, WHITELIST, RepositorySimulator

from fuzz.targets import KEYS, Target, require
from outcrop.errors import FormatError
from outcrop.formats.hashes import ContentHash
from outcrop.formats.signed import SignedText
from outcrop.trust.blacklist import Blacklist
from outcrop.trust.chain import verify_manifest, verify_whitelist
from outcrop.trust.errors import TrustError
from outcrop.trust.keys import load_public_keys

NOW = 1_700_000_000
SIMULATOR = RepositorySimulator(now=NOW)
MASTER_KEYS = load_public_keys(KEYS.master_public_pem)
GENUINE_WHITELIST = SIMULATOR.objects[WHITELIST]
GENUINE_MANIFEST = SIMULATOR.objects[MANIFEST]
TRUSTED = verify_whitelist(GENUINE_WHITELIST, master_keys=MASTER_KEYS, fqrn=SIMULATOR.fqrn, now=NOW)


def rehashed(data: bytes) -> bytes:
    """With the hash line made to fit, so that the signature is what decides."""
    with suppress(FormatError):
        signed = SignedText.parse(data)
        content_hash = ContentHash.of(signed.body, signed.hash.algorithm)
        return SignedText(signed.body, content_hash, signed.signature).serialize()
    return data


def whitelist(data: bytes) -> None:
    """Verify a whitelist."""
    for text in (data, rehashed(data)):
        with suppress(FormatError, TrustError):
            verify_whitelist(text, master_keys=MASTER_KEYS, fqrn=SIMULATOR.fqrn, now=NOW)
            require(text == GENUINE_WHITELIST, "believed what was never signed")


def manifest(data: bytes) -> None:
    """Verify a manifest."""
    for text in (data, rehashed(data)):
        with suppress(FormatError, TrustError):
            verify_manifest(
                text,
                certificate=KEYS.certificate_pem,
                whitelist=TRUSTED,
                fqrn=SIMULATOR.fqrn,
                blacklist=Blacklist(),
                not_before=None,
            )
            require(text == GENUINE_MANIFEST, "believed what was never signed")


def certificate(data: bytes) -> None:
    """Verify a genuine manifest with any certificate."""
    with suppress(FormatError, TrustError):
        verify_manifest(
            GENUINE_MANIFEST,
            certificate=data,
            whitelist=TRUSTED,
            fqrn=SIMULATOR.fqrn,
            blacklist=Blacklist(),
            not_before=None,
        )
        genuine = b"".join(KEYS.certificate_pem.split(b"-----")[2].split())
        require(genuine in b"".join(data.split()), "believed another certificate")


TRUST_TARGETS = {
    "verify_whitelist": Target(
        "no bytes but the signed ones are believed; FormatError or TrustError says why",
        whitelist,
        (GENUINE_WHITELIST,),
    ),
    "verify_manifest": Target(
        "no bytes but the signed ones are believed; FormatError or TrustError says why",
        manifest,
        (GENUINE_MANIFEST,),
    ),
    "verify_certificate": Target(
        "a manifest is believed with the listed certificate only",
        certificate,
        (KEYS.certificate_pem, zlib.decompress(SIMULATOR.objects[SIMULATOR.certificate_name])),
    ),
}
