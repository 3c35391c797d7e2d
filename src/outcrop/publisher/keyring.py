"""New keys for a repository that is in use, without a moment in which readers refuse it.

The new key is made next to the old one; the whitelist lists both certificates while the manifest
is signed anew; then the new files take the old ones' names. A roll-over that was interrupted goes
on with the key it had made. The next `resign` lists the new certificate alone.
"""

from dataclasses import dataclass, replace
from pathlib import Path

from outcrop.formats.hashes import Suffix
from outcrop.publisher.errors import PublisherSettingsError
from outcrop.publisher.lock import publishing_lock
from outcrop.publisher.master_key import MasterKey
from outcrop.publisher.private_files import write_file
from outcrop.publisher.session import local_errors, read_key
from outcrop.publisher.settings import StratumZeroSettings
from outcrop.publisher.whitelisting import WHITELIST, resign
from outcrop.repository.commit import Commit, SigningKeys
from outcrop.repository.object_writer import ObjectWriter
from outcrop.repository.open import RepositorySource
from outcrop.repository.reflog import Reflog
from outcrop.storage.locations import Locations
from outcrop.storage.store import WritableStore, read_file
from outcrop.storage.temporary import TransientOpener
from outcrop.trust.blacklist import Blacklist
from outcrop.trust.chain import TrustedManifest, TrustedWhitelist, verify_whitelist
from outcrop.trust.keys import Certificate, PublicKey, load_public_keys
from outcrop.trust.signing import generate_master_key, generate_repository_key, public_key_of


@dataclass(frozen=True, slots=True)
class KeyState:
    """One key file: what it is, whether it is here, and what there is to know about it."""

    file: Path
    role: str
    is_here: bool
    detail: str = ""


def describe_keys(locations: Locations, fqrn: str, settings: StratumZeroSettings) -> list[KeyState]:
    """The four key files of a repository. Raises FormatError, KeyRefused for damaged ones."""
    found = []
    for suffix, role in (
        ("pub", "public half of the master key, for readers"),
        ("masterkey", "master key, signs the whitelist"),
        ("crt", "certificate, listed in the whitelist"),
        ("key", "repository key, signs revisions"),
    ):
        file = locations.keys / f"{fqrn}.{suffix}"
        detail = ""
        if file.is_file():
            pem = read_key(locations, file.name)
            if suffix == "crt":
                detail = str(Certificate.parse(pem).fingerprint(settings.algorithm))
            elif suffix == "pub":
                detail = ", ".join(_bits(key) for key in load_public_keys(pem))
            else:
                detail = _bits(public_key_of(pem))
        found.append(KeyState(file, role, file.is_file(), detail))
    return found


def _bits(key: PublicKey) -> str:
    return f"RSA, {key.modulus.bit_length()} bits"


def make_repository_key(locations: Locations, fqrn: str, *, now: int) -> SigningKeys:
    """Make a key and certificate and write them under their final names, which must be free."""
    key, certificate = generate_repository_key(fqrn, now=now)
    _write_new(locations.keys / f"{fqrn}.key", key, 0o600)
    _write_new(locations.keys / f"{fqrn}.crt", certificate, 0o644)
    return SigningKeys(certificate, key)


def make_master_key(locations: Locations, fqrn: str) -> None:
    """Make a master key and its public half, whose names must be free."""
    master, public = generate_master_key()
    _write_new(locations.keys / f"{fqrn}.pub", public, 0o644)
    _write_new(locations.keys / f"{fqrn}.masterkey", master, 0o600)


def _write_new(file: Path, data: bytes, mode: int) -> None:
    if file.exists():
        raise PublisherSettingsError(
            f"{file} is there already", hint="move it away if it is not to be used any more"
        )
    file.parent.mkdir(parents=True, exist_ok=True)
    write_file(file, data, mode)


def roll_over(
    locations: Locations,
    settings: StratumZeroSettings,
    store: WritableStore,
    master: MasterKey,
    *,
    now: int,
    days: int,
) -> TrustedManifest:
    """Replace the repository key; readers notice nothing. Raises PublishError, TrustError."""
    fqrn = settings.fqrn
    with local_errors(fqrn):
        settings.spool.mkdir(parents=True, exist_ok=True)
        with publishing_lock(settings.spool, fqrn):
            _finish_replacing(locations, fqrn)
            old = read_key(locations, f"{fqrn}.crt")
            new = _next_keys(locations, fqrn, now)
            base = trusted_manifest(locations, settings, store, now=now)
            both = (new.certificate_pem, old)
            resign(locations, settings, store, master, now=now, days=days, certificates=both)
            whitelist = read_whitelist(locations, fqrn, store, now=now)
            trusted = sign_again(settings, store, new, whitelist, base, now=now)
            _replace_files(locations, fqrn)
    return trusted


def _next_keys(locations: Locations, fqrn: str, now: int) -> SigningKeys:
    """The key that an interrupted roll-over had made, or a new one. The key is written last."""
    key_file = locations.keys / f"{fqrn}.key.next"
    if not key_file.exists():
        key, certificate = generate_repository_key(fqrn, now=now)
        write_file(locations.keys / f"{fqrn}.crt.next", certificate, 0o644)
        write_file(key_file, key, 0o600)
    return SigningKeys(
        read_key(locations, f"{fqrn}.crt.next"), read_key(locations, f"{fqrn}.key.next")
    )


def _finish_replacing(locations: Locations, fqrn: str) -> None:
    """See through a replacement that stopped between its two renames."""
    certificate_file = locations.keys / f"{fqrn}.crt.next"
    if not certificate_file.exists() or (locations.keys / f"{fqrn}.key.next").exists():
        return
    certificate = Certificate.parse(read_key(locations, certificate_file.name))
    if public_key_of(read_key(locations, f"{fqrn}.key")) == certificate.public_key:
        certificate_file.replace(locations.keys / f"{fqrn}.crt")


def _replace_files(locations: Locations, fqrn: str) -> None:
    for suffix in ("key", "crt"):
        (locations.keys / f"{fqrn}.{suffix}.next").replace(locations.keys / f"{fqrn}.{suffix}")


def trusted_manifest(
    locations: Locations, settings: StratumZeroSettings, store: WritableStore, *, now: int
) -> TrustedManifest:
    """The trunk as readers see it. Raises TrustError, StorageError."""
    source = RepositorySource(
        settings.fqrn,
        store,
        TransientOpener(store),
        load_public_keys(read_key(locations, f"{settings.fqrn}.pub")),
        Blacklist(),
    )
    return source.fetch_manifest(now=now)


def read_whitelist(
    locations: Locations, fqrn: str, store: WritableStore, *, now: int
) -> TrustedWhitelist:
    """The whitelist in the store as readers see it at `now`. Raises TrustError, StorageError."""
    keys = load_public_keys(read_key(locations, f"{fqrn}.pub"))
    return verify_whitelist(read_file(store, WHITELIST), master_keys=keys, fqrn=fqrn, now=now)


def sign_again(
    settings: StratumZeroSettings,
    store: WritableStore,
    keys: SigningKeys,
    whitelist: TrustedWhitelist,
    base: TrustedManifest,
    *,
    now: int,
    meta_info: bytes | None = None,
) -> TrustedManifest:
    """Sign the revision that is served anew: with other keys, or with other meta info (JSON)."""
    algorithm = base.manifest.algorithm
    writer = ObjectWriter(store, algorithm, settings.compression.compressor)
    commit = Commit(
        writer=writer,
        reflog=Reflog(store, settings.spool / "reflog.chksum", settings.fqrn, algorithm),
        keys=keys,
        whitelist=whitelist,
        base=base,
        now=now,
    )
    manifest = base.manifest
    if meta_info is not None:
        stored = writer.put(meta_info, Suffix.META_INFO)
        manifest = replace(manifest, meta_info=stored.hash)
    return commit.sign_edited(manifest, _keep_history)


def _keep_history(_: object) -> None:
    pass
