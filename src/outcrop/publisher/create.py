"""Making a repository: keys, whitelist, settings, and revision 1 with a file that greets.

Everything but the manifest is written first, so a repository is either there or not; making it
again after a failure finds the keys of the first attempt and goes on with them.
"""

import stat
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from outcrop.formats.catalog import DirectoryEntry, NestedCatalog, Statistics
from outcrop.formats.fqrn import check_fqrn
from outcrop.formats.hashes import ContentHash, HashAlgorithm, Suffix
from outcrop.formats.manifest import Manifest
from outcrop.formats.meta_info import SKELETON, serialize_meta_info
from outcrop.formats.reflog import Ref, RefType
from outcrop.formats.whitelist import Whitelist
from outcrop.publisher.compression import CompressionChoice
from outcrop.publisher.create_options import (
    STRATUM0_URL,
    CreateOptions,
    choose_upstream,
    default_url,
    find_owner,
    give_away,
    read_keys,
)
from outcrop.publisher.errors import PublisherSettingsError
from outcrop.publisher.lock import publishing_lock
from outcrop.publisher.private_files import write_file
from outcrop.publisher.scan import DIRECTORY_BYTES
from outcrop.publisher.session import local_errors, scratch_directory
from outcrop.publisher.settings import (
    DEFAULT_TTL_SECONDS,
    StratumZeroSettings,
    serialize_client_settings,
    user_name,
)
from outcrop.repository.commit import MANIFEST, Commit, SigningKeys, store_catalogs
from outcrop.repository.editor import CatalogEditor
from outcrop.repository.errors import RepositoryExists
from outcrop.repository.object_writer import ObjectWriter
from outcrop.repository.reflog import Reflog
from outcrop.storage.local import LocalStore
from outcrop.storage.locations import Locations
from outcrop.storage.store import WritableStore, read_file
from outcrop.storage.upstream import open_store, prepare_store
from outcrop.trust.chain import TrustedWhitelist, verify_whitelist
from outcrop.trust.keys import Certificate, load_public_keys
from outcrop.trust.signing import RepositoryKeys, generate_keys, key_signer, sign_whitelist

WHITELIST: Final = ".cvmfswhitelist"
WHITELIST_SECONDS: Final = 30 * 86400
MASTER_REPLICA: Final = b"This file marks the repository as replicatable to stratum 1 servers\n"


@dataclass(frozen=True, slots=True)
class CreatedRepository:
    """A new repository: its name, the public key for its readers, its first root catalog."""

    fqrn: str
    public_key: Path
    root_hash: ContentHash
    revision: int


def create_repository(
    locations: Locations,
    fqrn: str,
    *,
    algorithm: HashAlgorithm = HashAlgorithm.SHA1,
    compression: str = "default",
    garbage_collectable: bool = False,
    ttl: int = DEFAULT_TTL_SECONDS,
    now: int,
    auto_tag: bool = False,
    keys: RepositoryKeys | None = None,
    store: WritableStore | None = None,
    options: CreateOptions | None = None,
) -> CreatedRepository:
    """Make a repository. `keys` are generated unless given, or there from a first attempt.

    Raises RepositoryExists, StorageError, FormatError, PublisherSettingsError, PublishInProgress.
    """
    options = options or CreateOptions()
    upstream = choose_upstream(locations, check_fqrn(fqrn), options)
    settings = StratumZeroSettings(
        fqrn=fqrn,
        upstream=upstream,
        spool=locations.spool(fqrn),
        algorithm=algorithm,
        compression=CompressionChoice.from_label(compression),
        ttl_seconds=ttl,
        garbage_collection=garbage_collectable,
        auto_tag=auto_tag,
        auto_tag_timespan=options.auto_tag_timespan,
        external_data=options.external_data,
        include_xattrs=True,
        union_directory=Path("/cvmfs", fqrn),
        stratum0_url=options.stratum0_url or default_url(upstream, fqrn),
        user=options.owner or user_name(),
    )
    owner = find_owner(options.owner)
    if store is None:
        prepare_store(upstream)
        store = open_store(upstream)
    with ExitStack() as stack:
        stack.enter_context(local_errors(fqrn))
        settings.spool.mkdir(parents=True, exist_ok=True)
        stack.enter_context(publishing_lock(settings.spool, fqrn))
        scratch = stack.enter_context(scratch_directory(settings.spool))
        manifest = _create(locations, settings, store, scratch, options, keys=keys, now=now)
        if owner is not None:
            give_away(locations, settings, owner)
    public_key = locations.keys / f"{fqrn}.pub"
    return CreatedRepository(fqrn, public_key, manifest.root_catalog, manifest.revision)


def _create(
    locations: Locations,
    settings: StratumZeroSettings,
    store: WritableStore,
    scratch: Path,
    options: CreateOptions,
    *,
    keys: RepositoryKeys | None,
    now: int,
) -> Manifest:
    fqrn = settings.fqrn
    text = settings.serialize()
    _check_new(locations, fqrn, store, text)
    if isinstance(store, LocalStore):
        store.remove_leftovers()
    keys = _keep_keys(locations, fqrn, keys, now)
    with _FirstRevision(settings, store, keys, scratch, now) as first:
        first.store_files(is_replicable=options.is_replicable)
        if options.is_volatile:
            first.make_volatile()
        write_settings(locations, fqrn, text, stratum0_url=settings.stratum0_url)
        return first.publish()


def _check_new(locations: Locations, fqrn: str, store: WritableStore, text: bytes) -> None:
    if store.exists(MANIFEST):
        raise RepositoryExists(f"there is a repository {fqrn} already, with content")
    file = locations.server_config(fqrn) / "server.conf"
    if file.exists() and file.read_bytes() != text:  # an equal one is from a first attempt
        raise RepositoryExists(f"there is a repository {fqrn} already: see {file}")


def _keep_keys(
    locations: Locations, fqrn: str, given: RepositoryKeys | None, now: int
) -> RepositoryKeys:
    """See to it that the keys are on disk. The master key is written last: it vouches for all."""
    directory = locations.keys
    if (directory / f"{fqrn}.masterkey").exists():
        found = read_keys(directory, fqrn)
        if given is not None and given != found:
            raise PublisherSettingsError(
                f"{directory} has other keys of {fqrn} than those given",
                hint="move them away, or use them",
            )
        return found
    keys = given if given is not None else generate_keys(fqrn, now=now)
    directory.mkdir(parents=True, exist_ok=True)
    for name, data, mode in (
        ("pub", keys.master_public_pem, 0o644),
        ("crt", keys.certificate_pem, 0o644),
        ("key", keys.repository_key_pem, 0o600),
        ("masterkey", keys.master_key_pem, 0o600),
    ):
        write_file(directory / f"{fqrn}.{name}", data, mode)
    return keys


def write_settings(
    locations: Locations, fqrn: str, text: bytes, *, stratum0_url: str | None = None
) -> None:
    """Write `server.conf` with this text, and `client.conf` for a mount from that URL."""
    url = stratum0_url or STRATUM0_URL + fqrn
    directory = locations.server_config(fqrn)
    directory.mkdir(parents=True, exist_ok=True)
    client = serialize_client_settings(locations, fqrn, stratum0_url=url)
    write_file(directory / "client.conf", client, 0o644)
    write_file(directory / "server.conf", text, 0o644)


class _FirstRevision:
    """What a repository consists of before anything was published: revisions 0 and 1."""

    def __init__(
        self,
        settings: StratumZeroSettings,
        store: WritableStore,
        keys: RepositoryKeys,
        scratch: Path,
        now: int,
    ) -> None:
        self._settings = settings
        self._store = store
        self._keys = keys
        self._now = now
        compressor = settings.compression.compressor
        self._writer = ObjectWriter(store, settings.algorithm, compressor)
        self._reflog = Reflog(
            store, settings.spool / "reflog.chksum", settings.fqrn, settings.algorithm
        )
        owner = settings.spool.stat()
        self._root = DirectoryEntry(
            name=b"",
            mode=stat.S_IFDIR | 0o755,
            size=DIRECTORY_BYTES,
            mtime=now,
            uid=owner.st_uid,
            gid=owner.st_gid,
        )
        self._editor = CatalogEditor.create(store, scratch, self._root, now=now)

    def __enter__(self) -> "_FirstRevision":
        return self

    def __exit__(self, *_: object) -> None:
        self._editor.__exit__()

    def make_volatile(self) -> None:
        """Say in the root catalog that the repository's files are not worth keeping in caches."""
        self._editor.root.set_properties(volatile=1)

    def store_files(self, *, is_replicable: bool) -> None:
        """Write what has a fixed name and stays: the whitelist, the marker for stratum 1s."""
        certificate = Certificate.parse(self._keys.certificate_pem)
        whitelist = Whitelist(
            created_at=self._now,
            expires_at=self._now + WHITELIST_SECONDS,
            fqrn=self._settings.fqrn,
            fingerprints=(certificate.fingerprint(self._settings.algorithm),),
        )
        algorithm = self._settings.algorithm
        self._store.write(
            WHITELIST, sign_whitelist(whitelist, key_signer(self._keys.master_key_pem), algorithm)
        )
        if is_replicable:
            self._store.write(".cvmfs_master_replica", MASTER_REPLICA)

    def publish(self) -> Manifest:
        """Store revision 0 (nobody will see it) and publish revision 1 on top."""
        settings = self._settings
        empty = self._store_revision_0()
        meta_info = self._writer.put(serialize_meta_info(SKELETON), Suffix.META_INFO).hash
        self._put_greeting()
        with ThreadPoolExecutor(1) as executor:
            catalogs = store_catalogs(
                self._editor, self._writer, executor, now=self._now, ttl=settings.ttl_seconds
            )
        commit = Commit(
            writer=self._writer,
            reflog=self._reflog,
            keys=SigningKeys(self._keys.certificate_pem, self._keys.repository_key_pem),
            whitelist=self._verify_whitelist(),
            base=None,
            now=self._now,
        )
        template = Manifest(
            root_catalog=empty.hash,
            ttl=settings.ttl_seconds,
            revision=0,
            garbage_collectable=settings.garbage_collection,
            fqrn=settings.fqrn,
            meta_info=meta_info,
        )
        return commit.sign(template, catalogs.root, 1, ()).manifest

    def _store_revision_0(self) -> NestedCatalog:
        root = self._editor.root
        statistics: Statistics = root.finish()
        plain = root.file.read_bytes()
        stored = NestedCatalog(b"", self._writer.put(plain, Suffix.CATALOG).hash, len(plain))
        self._editor.settle(root, stored, statistics)
        self._reflog.add([Ref(stored.hash, RefType.CATALOG, self._now)])
        return stored

    def _put_greeting(self) -> None:
        text = f"New CernVM-FS repository for {self._settings.fqrn}\n".encode()
        compression = self._settings.compression.stored_as
        content = self._writer.put(text, Suffix.FILE, compression).hash
        entry = replace(
            self._root,
            name=b"new_repository",
            mode=stat.S_IFREG | 0o644,
            nlink=1,
            size=len(text),
            content=content,
            algorithm=content.algorithm,
            compression=compression,
        )
        self._editor.put(b"", [(entry, ())])

    def _verify_whitelist(self) -> TrustedWhitelist:
        """Read back what clients will read, and see it with their eyes."""
        return verify_whitelist(
            read_file(self._store, WHITELIST),
            master_keys=load_public_keys(self._keys.master_public_pem),
            fqrn=self._settings.fqrn,
            now=self._now,
        )
