"""A stratum 0 in memory that is an object store: signs on demand, counts, breaks anything.

    sim = RepositorySimulator({b"/dir/f": b"data", b"/link": Symlink(b"dir/f")}, nested=[b"/dir"])
    sim.publish({**sim.files, b"/dir/g": b"more"}, tag="v2")
    sim.corrupt(b"/dir/f")

It shares no code with `outcrop.publisher`.
"""

import json
import time
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from tests.support.catalog_files import catalog_file, hash_or_null, history_file, reflog_file
from tests.support.entries import Entry, make_entries
from tests.support.keys import repository_keys
from tests.support.tree import (
    Content,
    Directory,
    File,
    Special,
    Symlink,
    complete,
    owner,
    parent_of,
)

from outcrop.formats.catalog import Counters, NestedCatalog, Statistics
from outcrop.formats.hashes import (
    Compression,
    ContentHash,
    HashAlgorithm,
    ObjectRef,
    Suffix,
)
from outcrop.formats.history import Tag
from outcrop.formats.manifest import Manifest
from outcrop.formats.reflog import Ref, RefType
from outcrop.formats.whitelist import Whitelist
from outcrop.storage.errors import ObjectNotFound, StorageUnavailable
from outcrop.storage.store import Sink
from outcrop.trust.keys import Certificate
from outcrop.trust.signing import RepositoryKeys, key_signer, sign_manifest, sign_whitelist

__all__ = ["Directory", "File", "RepositorySimulator", "Special", "Symlink"]

FQRN = "sim.example.org"
MANIFEST = ".cvmfspublished"
WHITELIST = ".cvmfswhitelist"
REFLOG = ".cvmfsreflog"
_BLOCK_BYTES = 64 * 1024
_DAY_SECONDS = 86400


@dataclass(frozen=True)
class _Published:
    """A catalog of the newest revision, and what it was made of."""

    made_of: object
    reference: NestedCatalog
    total: Counters
    revision: int


class RepositorySimulator:
    """A repository; the constructor publishes revision 1.

    `files` are nodes by path (bytes stand for a plain file), `nested` the mountpoints of nested
    catalogs. `requests` are the names fetched so far (`external:PATH` for external data).
    """

    def __init__(
        self,
        files: Mapping[bytes, Content] | None = None,
        *,
        nested: Sequence[bytes] = (),
        fqrn: str = FQRN,
        keys: RepositoryKeys | None = None,
        algorithm: HashAlgorithm = HashAlgorithm.SHA1,
        compression: Compression = Compression.ZLIB,
        now: int | None = None,
    ) -> None:
        self.fqrn = fqrn
        self.keys = keys or repository_keys()
        self.algorithm = algorithm
        self.compression = compression
        self.now = int(time.time()) if now is None else now
        self.ttl = 240
        self.objects: dict[str, bytes] = {}
        self.external: dict[bytes, bytes] = {}
        self.requests: list[str] = []
        self.files: dict[bytes, Content] = {}
        self.nested: tuple[bytes, ...] = ()
        self.tags: dict[str, Tag] = {}
        self.manifests: list[bytes] = []
        self._object_names: dict[bytes, list[str]] = {}
        self._catalogs: dict[bytes, _Published] = {}
        self._refs: list[Ref] = []
        self._manifest: Manifest | None = None
        self.sign_whitelist()
        self.publish(files or {}, nested=nested)

    # What a client gets

    def fetch(self, name: str, sink: Sink, *, byte_range: tuple[int, int] | None = None) -> None:
        """Serve a file."""
        self.requests.append(name)
        if name not in self.objects:
            raise ObjectNotFound(f"simulator has no {name}")
        _pour(self.objects[name], sink, byte_range)

    def fetch_external(
        self, url_path: bytes, sink: Sink, *, byte_range: tuple[int, int] | None = None
    ) -> None:
        """Serve external data."""
        self.requests.append("external:" + url_path.decode("utf-8", "surrogateescape"))
        if not self.external:
            raise StorageUnavailable("simulator has no external data")
        if url_path not in self.external:
            raise ObjectNotFound(f"simulator has no external {url_path!r}")
        _pour(self.external[url_path], sink, byte_range)

    def close(self) -> None:
        """Nothing to let go of."""

    @property
    def public_key(self) -> bytes:
        """The master key's public half, as PEM."""
        return self.keys.master_public_pem

    def dump(self, directory: Path) -> None:
        """Write everything as a web server would serve it."""
        for name, data in self.objects.items():
            target = directory / name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(data)

    # What a publisher does

    def publish(
        self,
        files: Mapping[bytes, Content] | None = None,
        *,
        nested: Sequence[bytes] | None = None,
        tag: str | None = None,
        at: int | None = None,
        sabotage: Mapping[bytes, Sequence[str]] | None = None,
    ) -> ContentHash:
        """Make `files` (default: as they are) the next revision; return its root catalog.

        `sabotage`: SQL for the catalog at a mountpoint, executed before it is hashed and signed.
        `at` is the time of publication, by default a second after the previous one.
        """
        self.files = dict(self.files if files is None else files)
        self.nested = self.nested if nested is None else tuple(nested)
        revision = self._manifest.revision + 1 if self._manifest is not None else 1
        published_at = self.now + revision if at is None else at
        root = self._publish_catalogs(revision, published_at, sabotage or {})
        history = self._publish_history(root, revision, published_at, tag)
        previous = self._manifest
        meta_info = self._put(json.dumps({"organisation": "simulator"}).encode(), Suffix.META_INFO)
        certificate = self._put(self.keys.certificate_pem, Suffix.CERTIFICATE)
        for content_hash, kind in (
            (root.hash, RefType.CATALOG),
            (certificate, RefType.CERTIFICATE),
            (history, RefType.HISTORY),
            (meta_info, RefType.META_INFO),
        ):
            self._refs.append(Ref(content_hash, kind, published_at))
        self.objects[REFLOG] = reflog_file(self.fqrn, self._refs)
        manifest = Manifest(
            root_catalog=root.hash,
            catalog_size=root.size,
            ttl=previous.ttl if previous is not None else self.ttl,
            revision=revision,
            fqrn=self.fqrn,
            certificate=certificate,
            history=history,
            published_at=published_at,
            meta_info=meta_info,
            reflog=ContentHash.of(self.objects[REFLOG], self.algorithm),
        )
        self._sign(manifest, self.keys)
        return root.hash

    @property
    def manifest(self) -> Manifest:
        """The current manifest."""
        assert self._manifest is not None
        return self._manifest

    def sign_whitelist(
        self,
        *,
        keys: RepositoryKeys | None = None,
        fqrn: str | None = None,
        days: int = 30,
        certificates: Sequence[bytes] | None = None,
    ) -> None:
        """Put a new whitelist that runs `days` from now (negative: expired), signed by `keys`."""
        listed = [self.keys.certificate_pem] if certificates is None else certificates
        whitelist = Whitelist(
            created_at=self.now - 60 * _DAY_SECONDS,
            expires_at=self.now + days * _DAY_SECONDS,
            fqrn=fqrn or self.fqrn,
            fingerprints=tuple(Certificate.parse(c).fingerprint(self.algorithm) for c in listed),
        )
        master_key = (keys or self.keys).master_key_pem
        self.objects[WHITELIST] = sign_whitelist(whitelist, key_signer(master_key), self.algorithm)

    # What goes wrong

    def corrupt(self, what: str | bytes) -> None:
        """Flip a bit in the middle of an object, or of all objects of the file at a path."""
        for name in self._names(what):
            data = bytearray(self.objects[name])
            data[len(data) // 2] ^= 1
            self.objects[name] = bytes(data)

    def truncate(self, what: str | bytes, size: int | None = None) -> None:
        """Cut objects to `size` bytes (default: the first half)."""
        for name in self._names(what):
            data = self.objects[name]
            self.objects[name] = data[: len(data) // 2 if size is None else size]

    def replace(self, what: str | bytes, data: bytes) -> None:
        """Serve other bytes."""
        for name in self._names(what):
            self.objects[name] = data

    def remove(self, what: str | bytes) -> None:
        """Lose objects."""
        for name in self._names(what):
            del self.objects[name]

    def expire_whitelist(self) -> None:
        """Let the whitelist be of last month."""
        self.sign_whitelist(days=-2)

    def roll_back(self, revisions: int = 1) -> None:
        """Serve the manifest of that many revisions ago, signature and all."""
        self.objects[MANIFEST] = self.manifests[-1 - revisions]

    def resign_with(self, keys: RepositoryKeys) -> None:
        """Let somebody else sign the manifest, with a certificate of theirs."""
        certificate = self._put(keys.certificate_pem, Suffix.CERTIFICATE)
        self._sign(replace(self.manifest, certificate=certificate), keys)

    def edit_manifest(self, **changes: object) -> None:
        """Change fields of the manifest and sign it properly."""
        self._sign(replace(self.manifest, **changes), self.keys)  # type: ignore[arg-type]

    # Names of things

    def object_names(self, path: bytes) -> list[str]:
        """The objects of a file of the current revision."""
        return self._object_names[path]

    def catalog_name(self, mountpoint: bytes = b"") -> str:
        """The object of a catalog of the current revision."""
        return ObjectRef(self._catalogs[mountpoint].reference.hash, Suffix.CATALOG).path

    @property
    def certificate_name(self) -> str:
        """The certificate's object."""
        assert self.manifest.certificate is not None
        return ObjectRef(self.manifest.certificate, Suffix.CERTIFICATE).path

    @property
    def history_name(self) -> str:
        """The history's object."""
        assert self.manifest.history is not None
        return ObjectRef(self.manifest.history, Suffix.HISTORY).path

    def _names(self, what: str | bytes) -> list[str]:
        return [what] if isinstance(what, str) else self.object_names(what)

    # How it is made

    def _sign(self, manifest: Manifest, keys: RepositoryKeys) -> None:
        self._manifest = manifest
        data = sign_manifest(manifest, keys.repository_key_pem, self.algorithm)
        self.objects[MANIFEST] = data
        self.manifests.append(data)

    def _put(
        self, data: bytes, suffix: Suffix, compression: Compression = Compression.ZLIB
    ) -> ContentHash:
        stored = zlib.compress(data, 6) if compression is Compression.ZLIB else data
        content_hash = ContentHash.of(stored, self.algorithm)
        self.objects[ObjectRef(content_hash, suffix).path] = stored
        return content_hash

    def _publish_history(
        self, root: NestedCatalog, revision: int, at: int, name: str | None
    ) -> ContentHash:
        trunk = Tag("trunk", root.hash, root.size, revision, at, description="current HEAD")
        if "trunk" in self.tags:
            self.tags["trunk-previous"] = replace(
                self.tags["trunk"], name="trunk-previous", description="default undo target"
            )
        self.tags["trunk"] = trunk
        if name is not None:
            self.tags[name] = replace(trunk, name=name, description=f"about {name}")
        previous = self._manifest.history if self._manifest is not None else None
        data = history_file(self.fqrn, self.tags.values(), hash_or_null(previous))
        return self._put(data, Suffix.HISTORY)

    def _publish_catalogs(
        self, revision: int, at: int, sabotage: Mapping[bytes, Sequence[str]]
    ) -> NestedCatalog:
        nested = frozenset(self.nested)
        nodes = complete(self.files, nested)
        entries = make_entries(nodes, self._put, self.algorithm, self.compression)
        self._object_names = {path: list(e.object_names) for path, e in entries.items()}
        for path, node in nodes.items():
            if isinstance(node, File) and node.is_external:
                self.external[path] = node.data
        made: dict[bytes, _Published] = {}
        for mountpoint in sorted({b"", *nested}, key=lambda path: -path.count(b"/")):
            rows = [
                (path, _with(entry, is_nested_root=path == mountpoint != b""))
                for path, entry in entries.items()
                if owner(path, nested) == mountpoint
            ]
            children = [c for c in made if c and owner(parent_of(c), nested) == mountpoint]
            rows += [(c, _with(entries[c], is_nested_mountpoint=True)) for c in children]
            made[mountpoint] = self._publish_catalog(
                mountpoint, rows, [made[c] for c in children], revision, at,
                sabotage.get(mountpoint, ()),
            )  # fmt: skip
        self._catalogs = made
        return made[b""].reference

    def _publish_catalog(
        self,
        mountpoint: bytes,
        rows: list[tuple[bytes, Entry]],
        children: list[_Published],
        revision: int,
        at: int,
        sabotage: Sequence[str],
    ) -> _Published:
        made_of = (rows, [child.reference for child in children], sabotage)
        known = self._catalogs.get(mountpoint)
        if mountpoint and known is not None and known.made_of == made_of:
            return known
        statistics = _statistics(rows, children)
        properties = {
            "schema": "2.5",
            "schema_revision": "7",
            "revision": str(revision if not mountpoint else known.revision + 1 if known else 1),
            "last_modified": str(at),
            "previous_revision": hash_or_null(known.reference.hash if known else None),
        }
        if mountpoint:
            properties["root_prefix"] = mountpoint.decode("utf-8", "surrogateescape")
        else:
            properties["TTL"] = str(self.ttl)
        data = catalog_file(
            [(path, entry.row, entry.chunks) for path, entry in rows],
            nested=[child.reference for child in children],
            statistics=statistics,
            properties=properties,
            sabotage=sabotage,
        )
        reference = NestedCatalog(mountpoint, self._put(data, Suffix.CATALOG), len(data))
        return _Published(made_of, reference, statistics.total, int(properties["revision"]))


def _with(entry: Entry, **changes: bool) -> Entry:
    return replace(entry, row=replace(entry.row, **changes))  # type: ignore[arg-type]


def _statistics(rows: list[tuple[bytes, Entry]], children: list[_Published]) -> Statistics:
    own = Counters(nested=len(children))
    for _, entry in rows:
        own += Counters.of_entry(entry.row, len(entry.chunks))
    below = Counters()
    for child in children:
        below += child.total
    return Statistics(own, below)


def _pour(data: bytes, sink: Sink, byte_range: tuple[int, int] | None) -> None:
    if byte_range is not None:
        data = data[byte_range[0] : byte_range[0] + byte_range[1]]
    sink.begin()
    for start in range(0, len(data), _BLOCK_BYTES):
        sink.write(data[start : start + _BLOCK_BYTES])
    sink.finish()
