"""Publishing: from changes, whatever they come from, to one new revision.

`publish_changes` is what every way to publish has in common; `publish_directory` is the simplest
of them: a subtree of the repository becomes equal to a directory.
"""

import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from outcrop.errors import FormatError
from outcrop.formats.hashes import ContentHash
from outcrop.formats.history import check_tag_name
from outcrop.publisher.changes import VIRTUAL_DIRECTORY, ChangeApplier, ChangeCounts
from outcrop.publisher.compression import CompressionChoice
from outcrop.publisher.difflist import ListedPath
from outcrop.publisher.errors import PathRefused
from outcrop.publisher.options import PublishOptions, Tell, say_nothing
from outcrop.publisher.recording import recording
from outcrop.publisher.scan import Owners
from outcrop.publisher.session import Published, PublishSession, default_workers, open_session
from outcrop.publisher.source import SourceDirectory
from outcrop.publisher.tags import tags_for_publish
from outcrop.repository.commit import NewTag, open_history
from outcrop.repository.errors import RevisionConflict
from outcrop.storage.locations import Locations
from outcrop.storage.store import WritableStore

__all__ = ["Apply", "PublishOptions", "PublishResult", "Tell", "publish_changes"]

_MAX_WARNINGS = 100

Apply = Callable[[PublishSession, Tell], ChangeCounts]
"""Edits `session.editor`, with contents through `session.pipeline`; called once."""

OnPublished = Callable[[Published], None]
"""Told when the new revision is the trunk, the lock still held; not after a dry run."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishResult:
    """A new revision and what is different in it.

    `added`, `changed` and `removed` count entries by kind: `files`, `directories`, `symlinks` and
    `specials`. `bytes_read` is of source files, `bytes_stored` what the store grew by, `catalogs`
    how many were written. `is_unchanged`: the content is that of the revision before. After a dry
    run there is no such revision: it is what would have been.
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
    removed_tags: tuple[str, ...] = ()
    warnings: tuple[str, ...] = field(default=())
    is_dry_run: bool = False

    @property
    def is_unchanged(self) -> bool:
        """Whether nothing but the revision number is new."""
        return not any((*self.added.values(), *self.changed.values(), *self.removed.values()))


def publish_changes(
    locations: Locations,
    fqrn: str,
    apply: Apply,
    *,
    options: PublishOptions,
    now: int,
    progress: Tell | None = None,
    store: WritableStore | None = None,
    on_published: OnPublished | None = None,
    within_transaction: bool = False,
) -> PublishResult:
    """Have `apply` edit the trunk, and make the result the new one, atomically.

    Readers see the old revision until the very end, and still do if this raises: PublishError (the
    source, the tag, another publisher), RevisionConflict (the base), TrustError (keys, whitelist),
    StorageError, RepositoryError, FormatError.
    """
    begun = time.monotonic()
    label = options.compression_choice
    choice = CompressionChoice.from_label(label) if label else None
    wanted = _wanted_tag(options)
    tell = progress or say_nothing
    workers = options.workers or default_workers()
    opened = open_session(
        locations, fqrn, now=now, choice=choice, workers=options.workers or 0, store=store,
        is_rehearsal=options.dry_run, wait_seconds=options.wait_seconds,
        within_transaction=within_transaction,
    )  # fmt: skip
    with opened as session:
        check_base(session, options)
        tags, removed_tags = tags_for_publish(session, wanted)
        before = session.editor.root.base_total
        with recording(session, is_kept=not options.dry_run) as kept:
            counts = apply(session, tell)
            tell("catalogs", 0, None)
            published = session.publish(
                tags, workers=workers, revision=options.revision, removed_tags=removed_tags
            )
            counts.settle(before, published.catalogs.statistics.total)
            kept.finish(counts, published, session.commit.writer.tally)
        if on_published is not None and not options.dry_run:
            on_published(published)
    return PublishResult(
        revision=published.revision,
        root_hash=published.catalogs.root.hash,
        added=dict(counts.added),
        changed=dict(counts.changed),
        removed=dict(counts.removed),
        bytes_read=counts.bytes_read,
        bytes_stored=counts.bytes_stored + published.catalogs.new_bytes,
        catalogs=len(published.catalogs.entries),
        seconds=time.monotonic() - begun,
        tags=tuple(new.name for new in tags),
        removed_tags=tuple(removed_tags),
        warnings=tuple(session.warnings[:_MAX_WARNINGS]),
        is_dry_run=options.dry_run,
    )


def publish_directory(
    locations: Locations,
    fqrn: str,
    *,
    source: Path,
    to: bytes = b"",
    listed: Mapping[bytes, ListedPath] | None = None,
    is_shallow: bool = False,
    owners: Owners | None = None,
    options: PublishOptions,
    now: int,
    progress: Tell | None = None,
    store: WritableStore | None = None,
) -> PublishResult:
    """Make the subtree `to` (`b""`: all) of a repository equal to a directory, atomically.

    With `listed`, only what a diff list names is looked at (directories with everything below
    unless `is_shallow`), and the rest stays as it is. Raises what `publish_changes` raises.
    """
    target = check_target(to)
    with ExitStack() as stack:
        sources: list[SourceDirectory] = []

        def apply(session: PublishSession, tell: Tell) -> ChangeCounts:
            part = SourceDirectory(session, source, target, options, owners or Owners(), listed)
            sources.append(stack.enter_context(part))
            applier = ChangeApplier(
                session, tell, options=options, dirtab=part.dirtab, reader=part.reader,
                memory=part.memory,
            )  # fmt: skip
            applier.make_parents(target)
            for change in part.changes(tell, is_shallow=is_shallow):
                applier.apply(change)
            return applier.finish()

        return publish_changes(
            locations, fqrn, apply, options=options, now=now, progress=progress, store=store,
            on_published=lambda published: sources[0].remember(published),
        )  # fmt: skip


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


def check_base(session: PublishSession, options: PublishOptions) -> None:
    """See that the trunk is the base asked for, and older than the revision asked for.

    Raises RevisionConflict.
    """
    trunk = session.base.manifest
    if options.base is not None and not _is_trunk(session, options.base):
        raise RevisionConflict(
            f"{trunk.fqrn}: the trunk is revision {trunk.revision} ({trunk.root_catalog}), "
            f"not {options.base}",
            hint="look at what was published meanwhile, and publish on top of that",
        )
    if options.revision is not None and options.revision <= trunk.revision:
        raise RevisionConflict(
            f"{trunk.fqrn}: revision {options.revision} is not larger than the trunk's, "
            f"{trunk.revision}"
        )


def _is_trunk(session: PublishSession, base: str) -> bool:
    trunk = session.base.manifest
    if base in ("trunk", str(trunk.revision), str(trunk.root_catalog)):
        return True
    if base.isdecimal() or _is_hash(base) or trunk.history is None:
        return False
    with open_history(session.commit.writer, trunk.history) as history:
        tag = history.find(base)
    return tag is not None and tag.hash == trunk.root_catalog


def _is_hash(text: str) -> bool:
    try:
        ContentHash.parse(text)
    except FormatError:
        return False
    return True


def _wanted_tag(options: PublishOptions) -> NewTag | None:
    if options.tag is None:
        return None
    return NewTag(check_tag_name(options.tag), options.message)
