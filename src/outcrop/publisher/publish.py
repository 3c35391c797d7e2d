"""Publishing a directory: a subtree of the repository becomes equal to it, as one new revision."""

import os
import stat
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from outcrop.formats.catalog import Counters
from outcrop.formats.dirtab import MAX_BYTES as MAX_DIRTAB_BYTES
from outcrop.formats.dirtab import Dirtab
from outcrop.formats.hashes import ContentHash, ObjectRef
from outcrop.formats.history import check_tag_name
from outcrop.publisher.changes import (
    VIRTUAL_DIRECTORY,
    ChangeCounts,
    DirectorySync,
    SyncRules,
)
from outcrop.publisher.compression import CompressionChoice
from outcrop.publisher.errors import PathRefused, SourceUnreadable, TagExists
from outcrop.publisher.previous_state import PreviousState, Stamps, state_file
from outcrop.publisher.scan import SourceReader, source_error
from outcrop.publisher.session import (
    Published,
    PublishSession,
    default_workers,
    open_session,
)
from outcrop.repository.commit import NewTag
from outcrop.storage.locations import Locations
from outcrop.storage.store import WritableStore, read_object

DIRTAB = b".cvmfsdirtab"
_MAX_WARNINGS = 100

Progress = Callable[[str, int, int | None], None]
"""Takes what is being done, how much of it is done, and how much there is, if that is known."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishResult:
    """A new revision and what is different in it.

    `added`, `changed` and `removed` count entries by kind: `files`, `directories`, `symlinks` and
    `specials`. `bytes_read` is of source files, `bytes_stored` what the store grew by, `catalogs`
    how many were written. `is_unchanged`: the content is that of the revision before.
    """

    revision: int
    root_hash: ContentHash
    added: Mapping[str, int]
    changed: Mapping[str, int]
    removed: Mapping[str, int]
    bytes_read: int
    bytes_stored: int
    catalogs: int
    seconds: float
    tags: tuple[str, ...] = ()
    warnings: tuple[str, ...] = field(default=())

    @property
    def is_unchanged(self) -> bool:
        """Whether nothing but the revision number is new."""
        return not any((*self.added.values(), *self.changed.values(), *self.removed.values()))


def publish_directory(
    locations: Locations,
    fqrn: str,
    *,
    source: Path,
    to: bytes = b"",
    tag: str | None = None,
    message: str = "",
    now: int,
    compression_choice: str | None = None,
    workers: int | None = None,
    progress: Progress | None = None,
    store: WritableStore | None = None,
) -> PublishResult:
    """Make the subtree `to` (`b""`: all) of a repository equal to a directory, atomically.

    The new revision gets `tag` with `message`, if given. `compression_choice` is `balanced`,
    `fast`, `zlib` or `none`; without it the repository's own applies. Readers see the old revision
    until the very end, and still do if this raises: PublishError (the source, the tag, another
    publisher), TrustError (keys, whitelist), StorageError, RepositoryError, FormatError.
    """
    begun = time.monotonic()
    target = check_target(to)
    choice = CompressionChoice.from_label(compression_choice) if compression_choice else None
    new_tag = NewTag(check_tag_name(tag), message) if tag is not None else None
    tell = progress or _say_nothing
    workers = workers or default_workers()
    opened = open_session(locations, fqrn, now=now, choice=choice, workers=workers, store=store)
    with opened as session:
        tags = _tags(session, new_tag)
        before = session.editor.root.base_total
        with _Syncing(session, source, target, tell) as syncing:
            counts = syncing.run()
            tell("catalogs", 0, None)
            published = session.publish(tags, workers=workers)
            syncing.remember(published)
    return PublishResult(
        revision=published.manifest.manifest.revision,
        root_hash=published.manifest.manifest.root_catalog,
        added=dict(counts.added),
        changed=dict(counts.changed),
        removed=_removed(before, published.catalogs.statistics.total, counts),
        bytes_read=counts.bytes_read,
        bytes_stored=counts.bytes_stored + published.catalogs.new_bytes,
        catalogs=len(published.catalogs.entries),
        seconds=time.monotonic() - begun,
        tags=tuple(new.name for new in tags),
        warnings=tuple(session.warnings[:_MAX_WARNINGS]),
    )


def check_target(path: bytes) -> bytes:
    """Return a path in a repository that can be published to. Raises PathRefused."""
    if path in (b"", b"/"):
        return b""
    shown = path.decode("utf-8", "backslashreplace")
    names = path.split(b"/")[1:]
    if not path.startswith(b"/") or any(name in (b"", b".", b"..") for name in names):
        raise PathRefused(f"{shown} is no path in a repository", hint="/software/x86, for example")
    if b"\0" in path or any(len(name) > 255 for name in names):
        raise PathRefused(f"{shown} has an impossible name in it")
    if b"/" + names[0] == VIRTUAL_DIRECTORY:
        raise PathRefused("/.cvmfs in a repository is reserved")
    return path


def check_source(source: Path, storage: Path) -> bytes:
    """The real path of a directory that can be published. Raises SourceUnreadable, PathRefused."""
    path = os.path.realpath(os.fsencode(source))
    shown = path.decode("utf-8", "backslashreplace")
    if not os.path.isdir(path):  # noqa: PTH112 - bytes
        raise SourceUnreadable(f"{shown} is no directory")
    if (os.path.realpath(os.fsencode(storage)) + b"/").startswith(path.rstrip(b"/") + b"/"):
        raise PathRefused(f"{shown} has the storage of the repository in it: {storage}")
    return path


class _Syncing:
    """The part of a publish that deals with a source directory and what is known of it."""

    def __init__(
        self, session: PublishSession, source: Path, target: bytes, tell: Progress
    ) -> None:
        settings = session.settings
        self._session = session
        self._source = check_source(source, settings.storage)
        self._target = target
        self._tell = tell
        self._dirtab = self._read_dirtab()
        options = (
            f"xattrs={settings.include_xattrs} ns={settings.mtime_nanoseconds} "
            f"dirtab={self._dirtab!r}"
        )
        file = state_file(settings.spool / "sources", self._source, target)
        self._previous = PreviousState(
            file, root=session.base.manifest.root_catalog, options=options
        )

    def __enter__(self) -> "_Syncing":
        return self

    def __exit__(self, *_: object) -> None:
        self._previous.close()

    def run(self) -> ChangeCounts:
        """Bring the session's revision in line with the source."""
        settings = self._session.settings
        reader = SourceReader(
            with_xattrs=settings.include_xattrs, with_nanoseconds=settings.mtime_nanoseconds
        )
        sync = DirectorySync(
            self._session.editor,
            self._session.pipeline,
            reader,
            self._previous,
            stamps=Stamps(self._session.started_at_ns),
            rules=SyncRules(
                dirtab=Dirtab.parse(self._dirtab),
                compression=self._session.pipeline.compression,
                max_file_bytes=settings.max_file_bytes,
                is_strict=settings.enforce_limits,
                now=self._session.commit.now,
            ),
            progress=lambda entries: self._tell("entries", entries, None),
        )
        sync.run(self._source, self._target)
        self._session.warnings += reader.warnings
        return sync.counts

    def remember(self, published: Published) -> None:
        """Keep what the source looked like, for the next time."""
        self._previous.commit(published.manifest.manifest.root_catalog)

    def _read_dirtab(self) -> bytes:
        """The rules in force: those the new revision will have in its root."""
        if not self._target:
            return self._read_source_dirtab()
        entry = self._session.editor.find(b"/" + DIRTAB)
        if entry is None or entry.content is None or entry.size > MAX_DIRTAB_BYTES:
            return b""
        ref = ObjectRef(entry.content, compression=entry.compression, size=entry.size)
        return read_object(self._session.store, ref, limit=MAX_DIRTAB_BYTES)

    def _read_source_dirtab(self) -> bytes:
        path = self._source + b"/" + DIRTAB
        try:
            fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except FileNotFoundError:
            return b""
        except OSError as error:
            raise source_error(path, error) from error
        with os.fdopen(fd, "rb") as file:
            if not stat.S_ISREG(os.fstat(fd).st_mode):
                raise PathRefused(f"{os.fsdecode(path)} must be a regular file")
            return file.read(MAX_DIRTAB_BYTES + 1)


def _tags(session: PublishSession, wanted: NewTag | None) -> list[NewTag]:
    """The tags of the new revision: the one asked for, or an automatic one by the settings."""
    if wanted is not None:
        session.check_tag(wanted.name)
        return [wanted]
    if not session.settings.auto_tag:
        return []
    if session.settings.auto_tag_timespan:
        session.warnings.append(
            "CVMFS_AUTO_TAG_TIMESPAN is not supported yet: old automatic tags stay"
        )
    at = datetime.fromtimestamp(session.commit.now, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    number = 1
    while True:
        name = f"generic-{at}" if number == 1 else f"generic_{number}-{at}"
        try:
            session.check_tag(name)
        except TagExists:
            number += 1
        else:
            return [NewTag(name)]


def _removed(before: Counters, after: Counters, counts: ChangeCounts) -> dict[str, int]:
    """What must have gone, since the numbers of the rest are known."""
    old, new = _by_kind(before), _by_kind(after)
    gone = {kind: old[kind] + counts.added[kind] - new[kind] for kind in old}
    return {kind: number for kind, number in gone.items() if number}


def _by_kind(counters: Counters) -> dict[str, int]:
    return {
        "files": counters.regular,
        "directories": counters.dir - counters.nested,  # those at transitions count twice
        "symlinks": counters.symlink,
        "specials": counters.special,
    }


def _say_nothing(_phase: str, _done: int, _total: int | None) -> None:
    pass
