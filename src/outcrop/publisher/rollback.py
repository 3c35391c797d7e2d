"""Rolling back: an old revision's content becomes the newest revision (spec 10)."""

import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

from outcrop.formats.catalog import NestedCatalog
from outcrop.formats.hashes import ObjectRef, Suffix
from outcrop.formats.history import TRUNK_PREVIOUS, Tag
from outcrop.publisher.branches import refuse_checked_out
from outcrop.publisher.errors import PublishError
from outcrop.publisher.session import PublishSession, open_session
from outcrop.repository.catalogs import MAX_CATALOG_BYTES
from outcrop.repository.complete import require_complete
from outcrop.repository.errors import TagNotFound
from outcrop.repository.history import History, read_history
from outcrop.repository.tag_database import TagDatabase
from outcrop.repository.working_catalog import WorkingCatalog
from outcrop.storage.locations import Locations
from outcrop.storage.store import WritableStore, fetch_object
from outcrop.storage.temporary import TransientOpener
from outcrop.trust.chain import TrustedManifest


class RollbackRefused(PublishError):
    """There is nothing to roll back to, or it is not on the trunk."""


@dataclass(frozen=True, slots=True)
class RolledBack:
    """The new trunk, the tag it has the content of, and the tags that went."""

    manifest: TrustedManifest
    target: Tag
    removed: tuple[Tag, ...]


def roll_back(
    locations: Locations,
    fqrn: str,
    *,
    tag: str | None = None,
    now: int,
    store: WritableStore | None = None,
    wait_seconds: float = 0.0,
) -> RolledBack:
    """Publish the content of a tag (`None`: what was before the last publish) as a new revision.

    Tags of the trunk that are newer than it go, and the tag moves to the new revision. Raises
    TagNotFound, RollbackRefused, RepositoryIncomplete, and what opening a session raises.
    """
    opened = open_session(
        locations,
        fqrn,
        now=now,
        workers=1,
        store=store,
        wait_seconds=wait_seconds,
        with_checkout=False,
    )
    with opened as session:
        refuse_checked_out(session.settings.spool, fqrn)
        base = session.base.manifest
        opener = TransientOpener(session.store)
        history = read_history(opener, base.history)
        target = find_target(history, fqrn, tag, trunk_revision=base.revision)
        require_complete(session.store, opener, target.hash, base.root_catalog)
        root, ttl = _renew(session, target)
        revision = base.revision + 1
        new = replace(
            target, hash=root.hash, size=root.size, revision=revision, timestamp=session.commit.now
        )
        removed: list[Tag] = []

        def edit(history: TagDatabase) -> None:
            removed.extend(history.roll_back(target, new))
            history.prune_branches()
            history.move_trunk(new)

        manifest = replace(
            base,
            root_catalog=root.hash,
            catalog_size=root.size,
            revision=revision,
            ttl=ttl,
            micro_catalog=None,
        )
        trusted = session.commit.sign_edited(manifest, edit)
    return RolledBack(trusted, target, tuple(t for t in removed if t.name != target.name))


def find_target(history: History, fqrn: str, tag: str | None, *, trunk_revision: int) -> Tag:
    """The tag to roll back to. Raises TagNotFound, RollbackRefused."""
    try:
        target = history.get(tag or TRUNK_PREVIOUS)
    except TagNotFound as error:
        if tag is not None:
            raise
        raise RollbackRefused(
            f"{fqrn}: there is no revision before the trunk to go back to; a rollback without a "
            "tag cannot be repeated",
            hint="name a tag with --tag",
        ) from error
    if target.branch:
        raise RollbackRefused(
            f"{fqrn}: the tag {target.name} is on the branch {target.branch}, not on the trunk",
            hint="name a tag of the trunk",
        )
    if target.revision >= trunk_revision:
        raise RollbackRefused(
            f"{fqrn}: the tag {target.name} is revision {target.revision}, which the trunk is now"
        )
    return target


def _renew(session: PublishSession, target: Tag) -> tuple[NestedCatalog, int]:
    """Store the target's root catalog as the successor of the trunk's; also returns its TTL."""
    base = session.base.manifest
    ref = ObjectRef(target.hash, Suffix.CATALOG, size=target.size or None)
    # The name's beginning lets the next publish remove what a crash leaves of it.
    scratch = tempfile.TemporaryDirectory(prefix="publish-", dir=session.settings.spool / "tmp")
    with scratch as directory:
        file = Path(directory, "catalog")
        with file.open("w+b") as out:
            fetch_object(session.store, ref, out, limit=MAX_CATALOG_BYTES)
        catalog = WorkingCatalog.open(file, b"", target.hash)
        properties = catalog.properties
        if properties.get("root_prefix"):
            catalog.discard()
            raise RollbackRefused(f"{base.fqrn}: {target.hash} is no root catalog")
        catalog.set_properties(
            revision=base.revision + 1,
            last_modified=session.commit.now,
            previous_revision=str(base.root_catalog),
        )
        catalog.finish()
        plain = file.read_bytes()
    stored = session.commit.writer.put(plain, Suffix.CATALOG)
    ttl = properties.get("TTL", "")
    is_number = ttl.isascii() and ttl.isdecimal() and len(ttl) < 10
    return NestedCatalog(b"", stored.hash, len(plain)), int(ttl) if is_number else base.ttl
