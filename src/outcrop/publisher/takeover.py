"""Taking over a repository that is stored already: from another server, or without its keys.

Everything that makes this machine its stratum 0 is written anew: settings, spool area, and as many
of the keys as the caller has not got. What is stored is verified first, as far as there is a key to
verify it with, and only the whitelist and the manifest in it are replaced.
"""

from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path

from outcrop.errors import FormatError
from outcrop.formats.fqrn import check_fqrn
from outcrop.formats.hashes import ContentHash, ObjectRef, Suffix
from outcrop.formats.whitelist import Whitelist
from outcrop.publisher.create import write_settings
from outcrop.publisher.create_options import STRATUM0_URL
from outcrop.publisher.errors import PublisherSettingsError
from outcrop.publisher.keyring import (
    make_master_key,
    make_repository_key,
    read_whitelist,
    sign_again,
    trusted_manifest,
)
from outcrop.publisher.lock import publishing_lock
from outcrop.publisher.master_key import FileMasterKey
from outcrop.publisher.options import say_nothing
from outcrop.publisher.private_files import write_file
from outcrop.publisher.session import local_errors, read_key, scratch_directory
from outcrop.publisher.settings import StratumZeroSettings, user_name
from outcrop.publisher.whitelisting import DEFAULT_DAYS, resign
from outcrop.repository.commit import MANIFEST
from outcrop.repository.errors import RepositoryExists, RepositoryNotFound
from outcrop.repository.history import History, read_history
from outcrop.repository.open import MAX_MANIFEST_BYTES
from outcrop.repository.reflog import NAME as REFLOG
from outcrop.repository.reflog import Reflog
from outcrop.repository.reflog_rebuild import find_refs
from outcrop.storage.errors import ObjectNotFound
from outcrop.storage.locations import Locations
from outcrop.storage.store import WritableStore, read_file, read_object
from outcrop.storage.temporary import TransientOpener
from outcrop.storage.upstream import Upstream, open_store
from outcrop.trust.blacklist import Blacklist
from outcrop.trust.chain import (
    TrustedManifest,
    read_manifest_unverified_pointer,
    verify_manifest,
    verify_whitelist,
)
from outcrop.trust.keys import Certificate, load_public_keys
from outcrop.trust.signing import generate_master_key, key_signer, sign_whitelist

MAX_CERTIFICATE_BYTES = 1 << 20
_MAX_REFLOG_BYTES = 1 << 30
_KEY_MODES = {"pub": 0o644, "crt": 0o644, "key": 0o600, "masterkey": 0o600}


class Renewal(IntEnum):
    """How much of the chain of trust is made anew; each includes those before it."""

    NOTHING = 0
    WHITELIST = 1
    REPOSITORY_KEY = 2
    MASTER_KEY = 3
    """Readers need the new public key, and nothing vouches for what is stored but its owner."""


@dataclass(frozen=True, slots=True)
class ImportedRepository:
    """A repository that this machine is the stratum 0 of now."""

    fqrn: str
    revision: int
    root_hash: ContentHash
    public_key: Path
    renewed: Renewal


def import_repository(
    locations: Locations,
    fqrn: str,
    *,
    now: int,
    upstream: Upstream | None = None,
    keys_from: Path | None = None,
    renew: Renewal = Renewal.NOTHING,
    stratum0_url: str = "",
    days: int = DEFAULT_DAYS,
    store: WritableStore | None = None,
) -> ImportedRepository:
    """Become the stratum 0 of a stored repository (by default where `mkfs` would store it).

    `keys_from` is a directory with `FQRN.pub` and the others, unless they are in the key directory
    already. Raises RepositoryExists, RepositoryNotFound, TrustError, PublisherSettingsError,
    StorageError. Interrupted once keys were made, it goes on without `renew`: they are in use then,
    or are in the way, which is said.
    """
    upstream = upstream or Upstream.local(locations.repository(check_fqrn(fqrn)))
    if (locations.server_config(fqrn) / "server.conf").exists():
        raise RepositoryExists(f"{fqrn} is published here already")
    store = store if store is not None else open_store(upstream)
    with local_errors(fqrn):
        settings = _settings(locations, fqrn, upstream, store, stratum0_url)
        settings.spool.mkdir(parents=True, exist_ok=True)
        with publishing_lock(settings.spool, fqrn):
            if keys_from is not None:
                _copy_keys(locations, fqrn, keys_from)
            if renew is Renewal.MASTER_KEY:
                make_master_key(locations, fqrn)
            trusted = _verify(locations, settings, store, renew, now)
            _keep_reflog(settings, store, trusted, now)
            trusted = _renew(locations, settings, store, trusted, renew, now=now, days=days)
            write_settings(
                locations, fqrn, settings.serialize(), stratum0_url=settings.stratum0_url
            )
    manifest = trusted.manifest
    public_key = locations.keys / f"{fqrn}.pub"
    return ImportedRepository(fqrn, manifest.revision, manifest.root_catalog, public_key, renew)


def _settings(
    locations: Locations, fqrn: str, upstream: Upstream, store: WritableStore, url: str
) -> StratumZeroSettings:
    """What `server.conf` has to say, as far as the manifest tells."""
    try:
        data = read_file(store, MANIFEST, limit=MAX_MANIFEST_BYTES)
    except ObjectNotFound as error:
        raise RepositoryNotFound(
            f"there is no repository at {upstream}: it has no {MANIFEST}",
            hint=f"outcrop mkfs {fqrn} makes a new one",
        ) from error
    manifest = read_manifest_unverified_pointer(data)
    if manifest.fqrn != fqrn:
        raise PublisherSettingsError(
            f"the repository at {upstream} is called {manifest.fqrn}, not {fqrn}",
            hint="a repository keeps its name: import it under that one",
        )
    return StratumZeroSettings(
        fqrn=fqrn,
        upstream=upstream,
        spool=locations.spool(fqrn),
        algorithm=manifest.algorithm,
        ttl_seconds=manifest.ttl,
        garbage_collection=manifest.garbage_collectable,
        alternative_paths=manifest.has_alternative_paths,
        include_xattrs=True,
        union_directory=Path("/cvmfs", fqrn),
        stratum0_url=url or STRATUM0_URL + fqrn,
        user=user_name(),
    )


def _copy_keys(locations: Locations, fqrn: str, source: Path) -> None:
    found = 0
    for suffix, mode in _KEY_MODES.items():
        file, target = source / f"{fqrn}.{suffix}", locations.keys / f"{fqrn}.{suffix}"
        if not file.is_file():
            continue
        found += 1
        data = file.read_bytes()
        if target.exists() and target.read_bytes() != data:
            raise PublisherSettingsError(
                f"{target} is there and differs from {file}", hint="move one of them away"
            )
        target.parent.mkdir(parents=True, exist_ok=True)
        write_file(target, data, mode)
    if not found:
        raise PublisherSettingsError(f"{source} has no file {fqrn}.pub, .crt, .key or .masterkey")


def _verify(
    locations: Locations,
    settings: StratumZeroSettings,
    store: WritableStore,
    renew: Renewal,
    now: int,
) -> TrustedManifest:
    """The stored manifest, verified by the chain that is there, an expired whitelist included.

    With a new master key there is none: that it was signed by its own certificate is all.
    """
    if renew is Renewal.NOTHING:
        return trusted_manifest(locations, settings, store, now=now)
    data = read_file(store, MANIFEST, limit=MAX_MANIFEST_BYTES)
    pointer = read_manifest_unverified_pointer(data)
    if pointer.certificate is None:
        raise FormatError(f"{settings.fqrn}: the manifest names no certificate")
    certificate = read_object(
        store, ObjectRef(pointer.certificate, Suffix.CERTIFICATE), limit=MAX_CERTIFICATE_BYTES
    )
    if renew is Renewal.MASTER_KEY:
        master_pem, public_pem = generate_master_key()  # for this one look
        listed = Whitelist(
            created_at=now,
            expires_at=now + 86400,
            fqrn=settings.fqrn,
            fingerprints=(Certificate.parse(certificate).fingerprint(settings.algorithm),),
        )
        whitelist = verify_whitelist(
            sign_whitelist(listed, key_signer(master_pem), settings.algorithm),
            master_keys=load_public_keys(public_pem),
            fqrn=settings.fqrn,
            now=now,
        )
    else:
        whitelist = read_whitelist(locations, settings.fqrn, store, now=0)
    return verify_manifest(
        data,
        certificate=certificate,
        whitelist=whitelist,
        fqrn=settings.fqrn,
        blacklist=Blacklist(),
        not_before=None,
    )


def _keep_reflog(
    settings: StratumZeroSettings, store: WritableStore, trusted: TrustedManifest, now: int
) -> None:
    """Note the checksum of the reflog that is there; find what belongs into one if none is.

    The manifest's is that of its publication: garbage collection since then has changed it.
    """
    checksum_file = settings.spool / "reflog.chksum"
    if checksum_file.exists():
        return
    manifest = trusted.manifest
    try:
        data = read_file(store, REFLOG, limit=_MAX_REFLOG_BYTES)
    except ObjectNotFound:
        reflog = Reflog(store, checksum_file, settings.fqrn, manifest.algorithm)
        history = History()
        if manifest.history is not None:
            history = read_history(TransientOpener(store), manifest.history)
        with scratch_directory(settings.spool) as scratch:
            reflog.rebuild(
                find_refs(store, manifest, history, now=now, scratch=scratch, progress=say_nothing)
            )
        return
    write_file(checksum_file, str(ContentHash.of(data, manifest.algorithm)).encode(), 0o644)


def _renew(
    locations: Locations,
    settings: StratumZeroSettings,
    store: WritableStore,
    trusted: TrustedManifest,
    renew: Renewal,
    *,
    now: int,
    days: int,
) -> TrustedManifest:
    """Make what is to be new, and sign what depends on it."""
    fqrn = settings.fqrn
    if renew is Renewal.NOTHING:
        return trusted
    keys = None
    if renew >= Renewal.REPOSITORY_KEY:
        keys = make_repository_key(locations, fqrn, now=now)
    master = FileMasterKey.read(locations, fqrn)
    # The one that is replaced is listed until the next `resign`: what is served stays believed.
    listed = (read_key(locations, f"{fqrn}.crt"),) + ((trusted.certificate,) if keys else ())
    resign(locations, settings, store, master, now=now, days=days, certificates=listed)
    if keys is None:
        return trusted_manifest(locations, settings, store, now=now)
    whitelist = read_whitelist(locations, fqrn, store, now=now)
    return sign_again(settings, store, keys, whitelist, trusted, now=now)
