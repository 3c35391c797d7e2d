"""Magic extended attributes: `user.*` names that report the state of a mount (spec 21).

They are computed when asked for and never stored; a stored attribute of the same name is hidden.
"""

import os
import re
import time
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from outcrop.client.connection import Connection
from outcrop.client.view import NoSuchAttribute
from outcrop.errors import OutcropError
from outcrop.formats.catalog import DirectoryEntry
from outcrop.formats.hashes import ContentHash, ObjectRef, new_hasher
from outcrop.fuse.view import StatFs
from outcrop.repository.files import pieces_of
from outcrop.repository.tree import Revision
from outcrop.storage.http import HttpStore

VERSION = "2.12.0.0"
"""What `user.version` says: the release of CernVM-FS whose behaviour this follows."""

PAGE_CHARACTERS = 40_000
_PAGED = re.compile(rb"(?P<name>.+?)(?P<mode>[~@])(?P<page>\?|\d{1,9})", re.DOTALL)
_STATFS_BLOCK = 512
_UNLIMITED_BLOCKS = 1 << 40


@dataclass(slots=True)
class MountState:
    """What a mount knows about itself beside its revision; changed by the remounter."""

    connection: Connection
    mountpoint: Path
    started_at: float
    expires_at: float = 0.0
    counters: Callable[[], Mapping[str, int]] = dict
    log: list[str] = field(default_factory=list)
    is_offline: bool = False


Getter = Callable[["MagicXattrs", Revision, bytes], str | bytes]


class MagicXattrs:
    """Answers for all magic names of one mount."""

    def __init__(self, state: MountState, *, clock: Callable[[], float] = time.time) -> None:
        self._state = state
        self._clock = clock
        self._visibility = state.connection.settings.magic_xattrs

    def is_magic(self, name: bytes) -> bool:
        """Whether the name is one of ours."""
        return name in _GETTERS

    def visible(self, path: bytes) -> Sequence[bytes]:
        """The names a listing shows: by default on the root directory only."""
        if self._visibility == "never" or (self._visibility == "rootonly" and path):
            return ()
        return tuple(_GETTERS)

    def find(self, revision: Revision, path: bytes, name: bytes) -> bytes | None:
        """The value, or a page of it; `None` if the name is not magic."""
        getter = _GETTERS.get(name)
        if getter is not None:
            return _page(_value(getter(self, revision, path)), 0)
        paged = _PAGED.fullmatch(name)
        if paged is None or paged["name"] not in _GETTERS:
            return None
        value = _value(_GETTERS[paged["name"]](self, revision, path))
        return _paged(value, paged["mode"], paged["page"])

    def statfs(self, revision: Revision) -> StatFs:
        """Capacity is the cache's quota; files are all entries of the repository."""
        cache = self._state.connection.cache
        blocks = free = _UNLIMITED_BLOCKS
        if cache is not None and cache.quota_bytes is not None:
            blocks = cache.quota_bytes // _STATFS_BLOCK
            free = max(cache.quota_bytes - cache.used_bytes, 0) // _STATFS_BLOCK
        files = revision.catalogs.root.statistics.total.entries
        loaded = sum(c.statistics.self_.entries for c in revision.catalogs.loaded)
        return StatFs(_STATFS_BLOCK, blocks, free, files, max(files - loaded, 0))

    # --- what the getters below use ----------------------------------------------------------

    @property
    def state(self) -> MountState:
        """The mount's state."""
        return self._state

    @property
    def now(self) -> float:
        """Unix time."""
        return self._clock()

    @property
    def http(self) -> HttpStore | None:
        """The store if it is a web server."""
        store = self._state.connection.store
        return store if isinstance(store, HttpStore) else None


def _value(value: str | bytes) -> bytes:
    return value.encode("utf-8", "surrogateescape") if isinstance(value, str) else value


def _page(value: bytes, number: int) -> bytes:
    return value[number * PAGE_CHARACTERS : (number + 1) * PAGE_CHARACTERS]


def _paged(value: bytes, mode: bytes, page: bytes) -> bytes:
    total = max(1, -(-len(value) // PAGE_CHARACTERS))
    if page == b"?":
        if mode == b"~":
            return b"num_pages, %d" % total
        return b"Access the pages 0 to %d as NAME@N, or as NAME~N without a header.\n" % (total - 1)
    number = int(page)
    if number >= total:
        raise NoSuchAttribute(f"no page {number}: there are {total}")
    if mode == b"~":
        return _page(value, number)
    header = (
        b"# Access page at idx: %d. Total num pages: %d (access other pages: xattr~<page_num>, "
        b"starting  with 0; number of pages available: xattr~?)\n" % (number, total)
    )
    return header + _page(value, number)


def _none(path: bytes) -> NoSuchAttribute:
    return NoSuchAttribute(f"not an attribute of {path!r}")


def _regular(revision: Revision, path: bytes) -> DirectoryEntry:
    entry = revision.get(path)
    if not entry.is_regular:
        raise _none(path)
    return entry


def _hash(_: MagicXattrs, revision: Revision, path: bytes) -> str:
    entry = revision.get(path)
    if entry.content is None:
        raise _none(path)
    return str(entry.content)


def _lhash(magic: MagicXattrs, revision: Revision, path: bytes) -> str:
    """The hash over the cached bytes, compressed again: equal to `hash` if they are intact."""
    entry = revision.get(path)
    cache = magic.state.connection.cache
    if entry.content is None:
        raise _none(path)
    ref = ObjectRef(entry.content, compression=entry.compression, size=entry.size)
    if cache is None or not cache.has(ref):
        return "Not in cache"
    try:
        fd = revision.opener.open_object(ref)
    except OutcropError as error:
        return f"I/O error ({error.errno})"
    hasher = new_hasher(entry.algorithm)
    deflate = zlib.compressobj(6)
    with os.fdopen(fd, "rb") as file:
        while block := file.read(1 << 20):
            hasher.update(deflate.compress(block))
    hasher.update(deflate.flush())
    return str(hasher.hash())


def _chunk_rows(revision: Revision, path: bytes) -> list[tuple[ContentHash, int, int]]:
    entry = _regular(revision, path)
    pieces = pieces_of(path, entry, revision.chunks(path, entry))
    if not pieces and entry.content is not None:
        return [(entry.content, 0, 0)]
    return [(piece.ref.hash, piece.offset, piece.size) for piece in pieces]


def _chunks(_: MagicXattrs, revision: Revision, path: bytes) -> str:
    return str(len(_chunk_rows(revision, path)))


def _chunk_list(_: MagicXattrs, revision: Revision, path: bytes) -> str:
    rows = _chunk_rows(revision, path)
    return "hash,offset,size\n" + "".join(f"{h},{offset},{size}\n" for h, offset, size in rows)


def _compression(_: MagicXattrs, revision: Revision, path: bytes) -> str:
    return _regular(revision, path).compression.label


def _external_file(_: MagicXattrs, revision: Revision, path: bytes) -> str:
    return str(int(_regular(revision, path).is_external))


def _external_url(magic: MagicXattrs, revision: Revision, path: bytes) -> bytes:
    if not _regular(revision, path).is_external:
        raise _none(path)
    hosts = magic.state.connection.settings.external_urls
    return (hosts[0].encode() if hosts else b"") + path


def _direct_io(_: MagicXattrs, revision: Revision, path: bytes) -> str:
    return str(int(_regular(revision, path).is_direct_io))


def _rawlink(_: MagicXattrs, revision: Revision, path: bytes) -> bytes:
    entry = revision.get(path)
    if not entry.is_symlink:
        raise _none(path)
    return entry.symlink


def _catalog_counters(_: MagicXattrs, revision: Revision, path: bytes) -> bytes:
    catalog = revision.catalog_of(path, revision.get(path))
    head = b"catalog_hash: %s\ncatalog_mountpoint: %s\n"
    counters = catalog.statistics.total.csv().encode()
    return head % (str(catalog.hash).encode(), catalog.mountpoint) + counters


def _repo_counters(_: MagicXattrs, revision: Revision, __: bytes) -> str:
    return revision.catalogs.root.statistics.total.csv()


def _metainfo(magic: MagicXattrs, revision: Revision, _: bytes) -> bytes:
    if revision.manifest is None:
        return b"manifest not available"
    try:
        data = magic.state.connection.source.meta_info(revision.manifest)
    except OutcropError as error:
        return f"metainfo not available: {error}".encode()
    return b"metainfo not available" if data is None else data


def _expires(magic: MagicXattrs, _: Revision, __: bytes) -> str:
    if magic.state.connection.is_fixed:
        return "never (fixed root catalog)"
    return str(max(0, int(magic.state.expires_at - magic.now)) // 60)


def _host(magic: MagicXattrs, _: Revision, __: bytes) -> str:
    http = magic.http
    if http is None:
        target = magic.state.connection.target
        return str(target.directory or target.upstream)
    return http.active_host or ""


def _host_list(magic: MagicXattrs, revision: Revision, path: bytes) -> str:
    http = magic.http
    return ";".join(http.host_list) if http is not None else _host(magic, revision, path)


def _proxy(magic: MagicXattrs, _: Revision, __: bytes) -> str:
    return (magic.http.active_proxy if magic.http is not None else None) or "DIRECT"


def _proxy_list(magic: MagicXattrs, _: Revision, __: bytes) -> str:
    groups = magic.http.proxy_groups if magic.http is not None else [["DIRECT"]]
    return "".join(f"{proxy}\n" for group in groups for proxy in group)


def _speed(magic: MagicXattrs, _: Revision, __: bytes) -> str:
    http = magic.http
    if http is None or not http.transfer_seconds:
        return "n/a"
    return str(int(http.received_bytes / 1024 / http.transfer_seconds))


def _counter(name: str) -> Getter:
    return lambda magic, _, __: str(magic.state.counters().get(name, 0))


def _open_descriptors(_: MagicXattrs, __: Revision, ___: bytes) -> str:
    return str(len(os.listdir("/proc/self/fd")))  # noqa: PTH208 - names only, no Path objects


def _pubkeys(magic: MagicXattrs, _: Revision, __: bytes) -> bytes:
    return magic.state.connection.public_keys_pem


_GETTERS: dict[bytes, Getter] = {
    b"user.catalog_counters": _catalog_counters,
    b"user.chunk_list": _chunk_list,
    b"user.chunks": _chunks,
    b"user.compression": _compression,
    b"user.direct_io": _direct_io,
    b"user.expires": _expires,
    b"user.external_file": _external_file,
    b"user.external_url": _external_url,
    b"user.fqrn": lambda _, revision, __: revision.fqrn,
    b"user.hash": _hash,
    b"user.host": _host,
    b"user.host_list": _host_list,
    b"user.lhash": _lhash,
    b"user.logbuffer": lambda magic, _, __: "".join(reversed(magic.state.log)),
    b"user.nclg": lambda _, revision, __: str(len(revision.catalogs.loaded)),
    b"user.ndownload": lambda magic, _, __: str(magic.http.downloads if magic.http else 0),
    b"user.nioerr": _counter("io_errors"),
    b"user.pid": lambda _, __, ___: str(os.getpid()),
    b"user.proxy": _proxy,
    b"user.proxy_list": _proxy_list,
    b"user.pubkeys": _pubkeys,
    b"user.rawlink": _rawlink,
    b"xfsroot.rawlink": _rawlink,
    b"user.repo_counters": _repo_counters,
    b"user.repo_metainfo": _metainfo,
    b"user.revision": lambda _, revision, __: str(revision.number),
    b"user.root_hash": lambda _, revision, __: str(revision.root_hash),
    b"user.rx": lambda magic, _, __: str((magic.http.received_bytes if magic.http else 0) >> 10),
    b"user.speed": _speed,
    b"user.tag": lambda _, revision, __: revision.tag or "",
    b"user.timeout": lambda magic, _, __: str(int(magic.state.connection.settings.timeout_seconds)),
    b"user.timeout_direct": lambda magic, _, __: str(
        int(magic.state.connection.settings.timeout_direct_seconds)
    ),
    b"user.uptime": lambda magic, _, __: str(int(magic.now - magic.state.started_at) // 60),
    b"user.usedfd": _open_descriptors,
    b"user.version": lambda _, __, ___: VERSION,
}
