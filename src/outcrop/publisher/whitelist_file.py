"""Signing a whitelist that is a file on this disk: for a machine that has the master key only."""

from pathlib import Path

from outcrop.formats.signed import SignedText
from outcrop.formats.whitelist import Whitelist
from outcrop.publisher.master_key import FileMasterKey
from outcrop.publisher.private_files import write_file
from outcrop.storage.locations import Locations
from outcrop.trust.chain import verify_whitelist
from outcrop.trust.signing import sign_whitelist

_MAX_BYTES = 1 << 20
_DAY_SECONDS = 86400


def resign_file(locations: Locations, fqrn: str, file: Path, *, now: int, days: int) -> Whitelist:
    """Sign a whitelist anew with the master key of the key directory; the same certificates stay.

    It must have been signed by that key. Raises FormatError, TrustError, PublisherSettingsError (no
    master key), OSError.
    """
    with file.open("rb") as opened:
        data = opened.read(_MAX_BYTES)
    signed = SignedText.parse(data)
    master = FileMasterKey.read(locations, fqrn)
    # That it has expired does not matter; that somebody put a certificate into it would.
    at = Whitelist.parse(signed.body).created_at
    before = verify_whitelist(data, master_keys=[master.public_key()], fqrn=fqrn, now=at).whitelist
    after = Whitelist(
        created_at=now,
        expires_at=now + days * _DAY_SECONDS,
        fqrn=fqrn,
        fingerprints=before.fingerprints,
        wants_ca_chain=before.wants_ca_chain,
    )
    write_file(file, sign_whitelist(after, master.sign, signed.hash.algorithm), 0o644)
    return after
