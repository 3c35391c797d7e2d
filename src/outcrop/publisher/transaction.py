"""Transactions: a repository made writable in place, and a revision made of what was changed.

A transaction survives crashes and reboots: its changes are in the spool area, and nothing that is
mounted is needed to publish or to abort it. It is on top of the trunk it was begun on; while it is
open nobody else publishes.
"""

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from outcrop.formats.hashes import ContentHash
from outcrop.publisher.changes import ChangeCounts
from outcrop.publisher.errors import NoTransaction, PublishError
from outcrop.publisher.lock import publishing_lock, shell_lock
from outcrop.publisher.options import PublishOptions, Tell
from outcrop.publisher.overlay_changes import apply_upper_directory
from outcrop.publisher.publish import PublishResult, check_target, publish_changes
from outcrop.publisher.session import (
    Published,
    PublishSession,
    default_workers,
    local_errors,
    open_session,
)
from outcrop.publisher.settings import StratumZeroSettings
from outcrop.publisher.transaction_area import Transaction, TransactionArea
from outcrop.publisher.union import RevisionMounter, Union, give_back
from outcrop.repository.commit import store_catalogs
from outcrop.repository.errors import RevisionConflict
from outcrop.storage.locations import Locations

Template = tuple[bytes, bytes]
"""A directory of the repository, and where a copy of it is to be."""


def transaction_area(locations: Locations, fqrn: str) -> TransactionArea:
    """Where transactions of a repository are. Raises RepositoryNotFound, PublisherSettingsError."""
    return TransactionArea(StratumZeroSettings.read(locations, fqrn).spool, fqrn)


def find_transaction(locations: Locations, fqrn: str) -> Transaction | None:
    """The open transaction, if there is one.

    Raises TransactionOpen if it was begun with another tool.
    """
    return transaction_area(locations, fqrn).find()


def open_transaction(
    locations: Locations,
    fqrn: str,
    *,
    mounter: RevisionMounter | None,
    now: int,
    wait_seconds: float = 0.0,
    templates: Sequence[Template] = (),
) -> Transaction:
    """Make the repository writable at its union directory, on top of its trunk.

    `mounter` mounts what is beneath; without one nothing is mounted, and it is up to the caller to
    show the area's layer on top of the revision `lower`. Of each of the `templates` a copy is made
    first, at catalog level. Waits that long for another transaction or publisher to end. Raises
    PublishInProgress, TransactionOpen, PathRefused, PathNotFound, PathExists, MountError, and what
    opening a session raises: expired whitelists are found now, not at the end.
    """
    opened = open_session(locations, fqrn, now=now, wait_seconds=wait_seconds)
    with opened as session:
        base = session.base.manifest
        root = session.editor.get(b"")
        lower = _clone_templates(session, templates) if templates else session.root_hash
        settings = session.settings
        area = TransactionArea(settings.spool, fqrn)
        transaction = Transaction(
            fqrn=fqrn,
            base=str(session.root_hash),
            revision=base.revision,
            lower=str(lower),
            union=str(settings.union_directory),
            begun_at=now,
            user=os.geteuid(),
            is_shell=mounter is None,
            templates=[(os.fsdecode(old), os.fsdecode(new)) for old, new in templates],
        )
        area.begin(transaction, root)
        if mounter is not None:
            union = Union(area, settings.union_directory, mounter)
            try:
                union.open(lower)
            except BaseException:
                area.end()
                raise
    return transaction


def _clone_templates(session: PublishSession, templates: Sequence[Template]) -> ContentHash:
    """Store catalogs with the copies in them; they are nobody's revision, but can be mounted."""
    _apply_templates(session, templates)
    with ThreadPoolExecutor(default_workers()) as executor:
        stored = store_catalogs(
            session.editor,
            session.commit.writer,
            executor,
            now=session.commit.now,
            ttl=session.settings.ttl_seconds,
        )
    session.store.sync()
    return stored.root.hash


def _apply_templates(session: PublishSession, templates: Sequence[Template]) -> None:
    for source, target in templates:
        session.editor.clone(check_target(source), check_target(target))


def resume_transaction(
    locations: Locations, fqrn: str, *, mounter: RevisionMounter, now: int
) -> Transaction:
    """Mount an open transaction again, after a reboot or the death of a server.

    Raises NoTransaction (also if a publish of it had gone through), TransactionBusy, MountError.
    """
    settings = StratumZeroSettings.read(locations, fqrn)
    area = TransactionArea(settings.spool, fqrn)
    transaction = area.get()
    _settle(locations, transaction, area, mounter, now)
    if transaction.is_shell:
        return transaction
    union = Union(area, Path(transaction.union), mounter)
    with _locked(area):
        if union.is_open and not union.is_served:
            union.close(force=True)
        if not union.is_open:
            area.upper.mkdir(parents=True, exist_ok=True)
            area.work.mkdir(parents=True, exist_ok=True)
            union.open(ContentHash.parse(transaction.lower))
        union.thaw()
    return transaction


def publish_transaction(
    locations: Locations,
    fqrn: str,
    *,
    mounter: RevisionMounter,
    options: PublishOptions,
    now: int,
    progress: Tell | None = None,
    force: bool = False,
    within_shell: bool = False,
) -> PublishResult:
    """Make a revision of an open transaction and close it; then the union shows that revision.

    Files that are still written are an error, unless by `force`: then they are published as they
    are. If anything fails before the new revision is out, the transaction stays open. Raises
    NoTransaction, TransactionBusy, RevisionConflict and what `publish_changes` raises.
    """
    area = transaction_area(locations, fqrn)
    transaction = area.get()
    _settle(locations, transaction, area, mounter, now)
    union = Union(area, Path(transaction.union), mounter)
    warnings: list[str] = []

    def apply(session: PublishSession, tell: Tell) -> ChangeCounts:
        _check_still_open(session, area, transaction)
        _apply_templates(session, list(transaction.clones()))
        return apply_upper_directory(
            session,
            tell,
            upper=os.fsencode(area.upper),
            attributes=area.attributes(transaction),
            keeps_owners=transaction.user != 0,
            options=options,
        )

    def finish(published: Published) -> None:
        warnings.extend(_finish(area, transaction, union, published.catalogs.root.hash))

    with (
        _shell_closed(area, within_shell=within_shell),
        _frozen(area, transaction, union, force=force, is_rehearsal=options.dry_run),
    ):
        result = publish_changes(
            locations, fqrn, apply, options=options, now=now, progress=progress,
            on_published=finish, within_transaction=True,
        )  # fmt: skip
    return replace(result, warnings=(*result.warnings, *warnings))


def abort_transaction(
    locations: Locations,
    fqrn: str,
    *,
    mounter: RevisionMounter,
    now: int,
    force: bool = False,
    within_shell: bool = False,
) -> Transaction:
    """Drop all changes of an open transaction and close it.

    Raises NoTransaction (also if a publish of it had gone through), TransactionBusy if its files
    are in use, unless by `force`.
    """
    area = transaction_area(locations, fqrn)
    transaction = area.get()
    _settle(locations, transaction, area, mounter, now)
    union = Union(area, Path(transaction.union), mounter)
    with _shell_closed(area, within_shell=within_shell), _locked(area):
        union.close(force=force)
        if not transaction.is_shell:
            give_back(union, ContentHash.parse(transaction.base))
        area.end()
    return transaction


# --- what has to hold -------------------------------------------------------------------------


@contextmanager
def _locked(area: TransactionArea) -> Iterator[None]:
    with local_errors(area.fqrn), publishing_lock(area.spool, area.fqrn, within_transaction=True):
        yield


@contextmanager
def _shell_closed(area: TransactionArea, *, within_shell: bool) -> Iterator[None]:
    """Nobody is in a shell of the transaction, but for who publishes at its end."""
    if within_shell:
        yield
        return
    with shell_lock(area.spool, area.fqrn):
        yield


@contextmanager
def _frozen(
    area: TransactionArea,
    transaction: Transaction,
    union: Union,
    *,
    force: bool,
    is_rehearsal: bool,
) -> Iterator[None]:
    """Nothing changes while it is published; if that fails, it may change again."""
    if is_rehearsal:
        yield
        return
    with local_errors(area.fqrn):
        union.freeze(force=force)
        area.mark(transaction, is_publishing=True)
    try:
        yield
    except BaseException:
        if area.find() == replace(transaction, is_publishing=True):
            area.mark(transaction, is_publishing=False)
            union.thaw()
        raise


def _check_still_open(
    session: PublishSession, area: TransactionArea, transaction: Transaction
) -> None:
    """Nobody else ended the transaction before we had the lock, nor published past it."""
    found = area.find()
    if found is None or found.begun_at != transaction.begun_at or found.base != transaction.base:
        raise NoTransaction(f"{transaction.fqrn}: the transaction was ended by somebody else")
    trunk = session.base.manifest
    if str(session.root_hash) != transaction.base:
        raise RevisionConflict(
            f"{transaction.fqrn}: the trunk is revision {trunk.revision}, the transaction was "
            f"begun on revision {transaction.revision}",
            hint=f"something was published past the transaction; outcrop abort {transaction.fqrn}",
        )


def _finish(
    area: TransactionArea, transaction: Transaction, union: Union, root: ContentHash
) -> list[str]:
    """Close a transaction whose revision is out. Whatever goes wrong now is no error any more.

    The note of it goes last: until then a command that finds it does all this again.
    """
    warnings = []
    if union.is_shown or not transaction.is_shell:
        warnings += give_back(union, root)
    try:
        area.end()
    except (PublishError, OSError) as error:
        warnings.append(f"the transaction's changes are still there: {error}")
    return warnings


def _settle(
    locations: Locations,
    transaction: Transaction,
    area: TransactionArea,
    mounter: RevisionMounter,
    now: int,
) -> None:
    """Close a transaction whose publish was killed after its revision was out.

    Raises NoTransaction then, PublishInProgress if the publish is alive.
    """
    if not transaction.is_publishing:
        return
    opened = open_session(locations, transaction.fqrn, now=now, within_transaction=True)
    with opened as session:
        trunk = session.base.manifest
        properties = session.editor.root.properties
        is_ours = properties.get("previous_revision") == transaction.base
        if str(session.root_hash) == transaction.base or not is_ours:
            return
        union = Union(area, Path(transaction.union), mounter)
        _finish(area, transaction, union, session.root_hash)
    raise NoTransaction(
        f"{transaction.fqrn}: the transaction was published as revision {trunk.revision}, though "
        "the publish was killed before it could say so",
        hint=f"outcrop transaction {transaction.fqrn} begins a new one",
    )
