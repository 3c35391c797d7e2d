"""The public Python API: read a repository with no mount at all.

Paths are `str`, with `/` or without at the beginning; names that are not UTF-8 use surrogate
escapes, as `os.fsdecode` makes them. Symlinks inside the repository are followed.
"""

import io
import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Literal, Self, cast

from outcrop.client.connection import Connection, connect, find_target
from outcrop.formats.catalog import DirectoryEntry
from outcrop.formats.history import Tag
from outcrop.repository.errors import NotAFile
from outcrop.repository.tree import Revision, normalize
from outcrop.storage.locations import default_locations


@dataclass(frozen=True, slots=True)
class Stat:
    """What a repository says about one path. Sizes in bytes, times in unix seconds.

    `mode` has the file type bits (use the `stat` module); `hash` is the content hash as text, for
    regular files that are one object.
    """

    path: str
    mode: int
    size: int
    nlink: int
    uid: int
    gid: int
    mtime: int
    mtime_ns: int
    hash: str | None
    is_dir: bool
    is_file: bool
    is_symlink: bool
    target: str | None


class Repository:
    """A repository opened at one revision; use as a context manager, or `close` it."""

    def __init__(self, connection: Connection, revision: Revision) -> None:
        self.connection = connection
        self.tree = revision

    @property
    def fqrn(self) -> str:
        """The fully qualified repository name."""
        return self.tree.fqrn

    @property
    def revision(self) -> int:
        """The revision number."""
        return self.tree.number

    @property
    def root_hash(self) -> str:
        """The hash of the root catalog."""
        return str(self.tree.root_hash)

    @property
    def _environment(self) -> dict[str, str]:
        return self.connection.parameters.environment()

    def resolve(self, path: str) -> bytes:
        """The repository path with no symlink left in it. Raises PathNotFound."""
        return self.tree.resolve(os.fsencode(path), self._environment)

    def _at(self, path: str) -> bytes:
        """The same, but the last component is not followed."""
        head, _, name = normalize(os.fsencode(path)).rpartition(b"/")
        if not name:
            return b""
        return self.tree.resolve(head, self._environment) + b"/" + name

    def listdir(self, path: str = "/") -> list[str]:
        """Names in a directory, sorted. Raises PathNotFound, NotADirectory."""
        return [os.fsdecode(entry.name) for entry in self.tree.entries(self.resolve(path))]

    def scandir(self, path: str = "/") -> list[Stat]:
        """The entries of a directory with all that is known of them, by name."""
        here = self.resolve(path)
        return [_stat(here + b"/" + e.name, e) for e in self.tree.entries(here)]

    def stat(self, path: str, *, follow_symlinks: bool = True) -> Stat:
        """All that is known about a path. Raises PathNotFound."""
        here = self.resolve(path) if follow_symlinks else self._at(path)
        return _stat(here, self.tree.get(here))

    def exists(self, path: str) -> bool:
        """Whether the path is there, symlinks not followed at its end."""
        return self.tree.find(self._at(path)) is not None

    def readlink(self, path: str) -> str:
        """The target of a symlink, variables not expanded. Raises NotASymlink."""
        return os.fsdecode(self.tree.readlink(self._at(path)))

    def xattrs(self, path: str) -> dict[str, bytes]:
        """The stored extended attributes."""
        return {os.fsdecode(k): v for k, v in self.tree.xattrs(self._at(path)).items()}

    def open(
        self, path: str, mode: Literal["r", "rb"] = "rb", *, encoding: str | None = None
    ) -> IO[bytes] | IO[str]:
        """Open a file for reading; only the chunks that are read are fetched.

        `mode` is `rb`, or `r` for text. Raises PathNotFound, NotAFile, StorageError.
        """
        if mode not in ("r", "rb"):
            raise ValueError(f"mode is {mode!r}: a repository is read-only, expected 'rb' or 'r'")
        binary = self.tree.open(self.resolve(path))
        if mode == "rb":
            return cast(IO[bytes], binary)
        return io.TextIOWrapper(binary, encoding=encoding or "utf-8")

    def read_bytes(self, path: str) -> bytes:
        """The whole content of a file."""
        with self.tree.open(self.resolve(path)) as file:
            return file.read()

    def walk(self, path: str = "/") -> Iterator[tuple[str, list[str], list[str]]]:
        """Like `os.walk`, top down: directory, names of directories, names of everything else."""
        for directory, entries in self.tree.walk(self.resolve(path)):
            names = [os.fsdecode(e.name) for e in entries if e.is_directory]
            others = [os.fsdecode(e.name) for e in entries if not e.is_directory]
            yield os.fsdecode(directory or b"/"), names, others

    def tags(self) -> list[Tag]:
        """All named revisions, newest first; none without a manifest (a fixed root hash)."""
        if self.tree.manifest is None:
            return []
        return list(self.connection.source.history(self.tree.manifest).tags)

    def close(self) -> None:
        """Let go of connections."""
        self.connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<outcrop.Repository {self.fqrn} revision {self.revision} root {self.root_hash}>"


def _stat(path: bytes, entry: DirectoryEntry) -> Stat:
    if entry.is_regular and entry.size and not entry.is_chunked and entry.content is None:
        raise NotAFile(f"{path!r} has no content")
    nanoseconds = entry.mtime_ns or 0
    return Stat(
        path=os.fsdecode(path or b"/"),
        mode=entry.mode,
        size=entry.size,
        nlink=entry.nlink,
        uid=entry.uid,
        gid=entry.gid,
        mtime=entry.mtime,
        mtime_ns=entry.mtime * 1_000_000_000 + nanoseconds,
        hash=str(entry.content) if entry.content is not None else None,
        is_dir=entry.is_directory,
        is_file=entry.is_regular,
        is_symlink=entry.is_symlink,
        target=os.fsdecode(entry.symlink) if entry.is_symlink else None,
    )


def open(
    url_or_path: str | os.PathLike[str],
    fqrn: str | None = None,
    public_keys: Sequence[str | os.PathLike[str] | bytes] | None = None,
    *,
    tag: str | None = None,
    root_hash: str | None = None,
    date: str | None = None,
    cache: str | os.PathLike[str] | bool = True,
    proxy: str | None = None,
    parameters: Sequence[str] = (),
) -> Repository:
    """Open a repository by URL, directory or configured FQRN, at the trunk or another revision.

    `public_keys` are files, or PEM text as bytes; by default the configured keys. At most one of
    `tag`, `root_hash`, `date` (`2026-11-22T07:43:54Z`) chooses a revision; a root hash needs no
    signature: it is its own proof. `cache` is a cache directory, `True` for the configured one,
    `False` for none. `parameters` are `CVMFS_X=Y` texts.

    Raises SettingsError, TrustError, StorageError, FormatError, TagNotFound.
    """
    locations = default_locations()
    overrides = list(parameters)
    for name, value in (
        ("CVMFS_REPOSITORY_TAG", tag),
        ("CVMFS_ROOT_HASH", root_hash),
        ("CVMFS_REPOSITORY_DATE", date),
        ("CVMFS_HTTP_PROXY", proxy),
    ):
        if value is not None:
            overrides.append(f"{name}={value}")
    connection = connect(
        find_target(os.fspath(url_or_path), locations, fqrn=fqrn),
        locations,
        overrides=overrides,
        public_keys=[k if isinstance(k, bytes) else Path(k) for k in public_keys or ()],
        cache_dir=None if isinstance(cache, bool) else Path(cache),
        use_cache=cache is not False,
    )
    return Repository(connection, connection.open(now=int(time.time())))
