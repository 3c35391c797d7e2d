"""Signing the whitelist anew, before it expires: the cron job of every stratum 0."""

from dataclasses import dataclass
from typing import Final

from outcrop.formats.hashes import HashAlgorithm
from outcrop.formats.whitelist import Whitelist
from outcrop.publisher.errors import PublisherSettingsError
from outcrop.publisher.master_key import MasterKey, check_pair
from outcrop.publisher.session import read_key
from outcrop.publisher.settings import StratumZeroSettings
from outcrop.storage.locations import Locations
from outcrop.storage.store import WritableStore
from outcrop.trust.chain import verify_whitelist
from outcrop.trust.keys import Certificate, load_public_keys
from outcrop.trust.signing import sign_whitelist

WHITELIST: Final = ".cvmfswhitelist"
DEFAULT_DAYS: Final = 30
_MAX_DAYS: Final = 50 * 365
_DAY_SECONDS: Final = 86400


@dataclass(frozen=True, slots=True)
class SignedWhitelist:
    """What was signed: who may sign manifests, until when (unix time)."""

    fqrn: str
    expires_at: int
    fingerprints: tuple[str, ...]


def resign(
    locations: Locations,
    settings: StratumZeroSettings,
    store: WritableStore,
    master: MasterKey,
    *,
    now: int,
    days: int = DEFAULT_DAYS,
    certificates: tuple[bytes, ...] = (),
) -> SignedWhitelist:
    """Write a whitelist that lists the certificate of the key directory (`certificates`: these).

    Only what is in the key directory is ever listed, nothing that the store says: whoever could
    write to the store could have himself listed. Needs no lock: a whitelist is replaced at once.
    Raises PublisherSettingsError, TokenError, StorageError.
    """
    fqrn = settings.fqrn
    if not 0 < days <= _MAX_DAYS:
        raise PublisherSettingsError(f"a whitelist cannot be good for {days} days")
    public_keys = load_public_keys(read_key(locations, f"{fqrn}.pub"))
    check_pair(master, public_keys, fqrn)
    listed = certificates or (read_key(locations, f"{fqrn}.crt"),)
    algorithm: HashAlgorithm = settings.algorithm
    whitelist = Whitelist(
        created_at=now,
        expires_at=now + days * _DAY_SECONDS,
        fqrn=fqrn,
        fingerprints=tuple(Certificate.parse(pem).fingerprint(algorithm) for pem in listed),
    )
    data = sign_whitelist(whitelist, master.sign, algorithm)
    trusted = verify_whitelist(data, master_keys=public_keys, fqrn=fqrn, now=now)
    store.write(WHITELIST, data)
    store.sync()
    fingerprints = tuple(str(found) for found in trusted.whitelist.fingerprints)
    return SignedWhitelist(fqrn, trusted.whitelist.expires_at, fingerprints)
