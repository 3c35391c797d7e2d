"""Naming revisions: tags set and removed by hand, by a publish, and those that go by themselves."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace
from itertools import count

from outcrop.errors import FormatError
from outcrop.formats.dates import parse_date
from outcrop.formats.hashes import ContentHash
from outcrop.formats.history import Tag, auto_tag_name, check_tag_name, is_auto_tag_name
from outcrop.formats.reflog import RefType
from outcrop.publisher.branches import TagRequired, refuse_checked_out
from outcrop.publisher.errors import PublisherSettingsError, TagExists
from outcrop.publisher.session import PublishSession, open_session
from outcrop.repository.commit import Commit, NewTag, open_history
from outcrop.repository.complete import require_complete
from outcrop.repository.errors import RevisionNotFound, TagNotFound
from outcrop.repository.history import History, read_history
from outcrop.repository.revisions import RootCatalog, find_revision, read_root
from outcrop.repository.tag_database import TagDatabase
from outcrop.storage.locations import Locations
from outcrop.storage.store import WritableStore
from outcrop.storage.temporary import TransientOpener
from outcrop.trust.chain import TrustedManifest


@dataclass(frozen=True, slots=True, kw_only=True)
class WantedTag:
    """A name for a revision: that of `root`, that with the number `revision`, or the trunk.

    An existing tag is only moved where `root` or `revision` says where to; it keeps its
    description, if there is no new one.
    """

    name: str
    description: str = ""
    root: ContentHash | None = None
    revision: int | None = None

    @property
    def has_target(self) -> bool:
        """Whether it is for another revision than the trunk's."""
        return self.root is not None or self.revision is not None


@dataclass(frozen=True, slots=True)
class EditedTags:
    """What became of the tags; `moved` are the former places of tags in `added`."""

    manifest: TrustedManifest
    added: tuple[Tag, ...] = ()
    moved: tuple[Tag, ...] = ()
    removed: tuple[Tag, ...] = ()


@dataclass(slots=True)
class _Edit:
    """All that is to change, worked out before anything is written."""

    added: list[Tag] = field(default_factory=list)
    moved: list[Tag] = field(default_factory=list)
    removed: list[Tag] = field(default_factory=list)

    def apply(self, history: TagDatabase) -> None:
        for tag in (*self.removed, *self.moved):
            history.remove(tag.name)
        for tag in self.added:
            history.put(tag)
        history.prune_branches()


def edit_tags(
    locations: Locations,
    fqrn: str,
    *,
    add: Sequence[WantedTag] = (),
    remove: Sequence[str] = (),
    now: int,
    store: WritableStore | None = None,
    wait_seconds: float = 0.0,
) -> EditedTags:
    """Set and remove tags of a repository, all of them or none; the trunk stays what it is.

    Raises FormatError (a name that cannot be), TagNotFound, TagExists, RevisionNotFound,
    RepositoryIncomplete, and what opening a session raises. Readers who look later see the new
    tags: the same revision, signed again.
    """
    for name in (*(wanted.name for wanted in add), *remove):
        check_tag_name(name)
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
        edit = _plan(session, read_history(opener, base.history), add, remove)
        trusted = session.commit.sign_edited(
            base, edit.apply, other_roots=[tag.hash for tag in edit.added]
        )
    return EditedTags(trusted, tuple(edit.added), tuple(edit.moved), tuple(edit.removed))


def _plan(
    session: PublishSession, history: History, add: Sequence[WantedTag], remove: Sequence[str]
) -> _Edit:
    edit = _Edit()
    present = {tag.name: tag for tag in history.tags}
    for name in dict.fromkeys(remove):
        if name not in present:
            raise TagNotFound(
                f"{session.settings.fqrn}: no tag {name!r} to remove; nothing was changed",
                hint=f"outcrop tag {session.settings.fqrn} lists the tags",
            )
        edit.removed.append(present.pop(name))
    for wanted in add:
        before = present.get(wanted.name)
        tag = _find_root(session, history, wanted).tag(wanted.name, wanted.description)
        if before is not None:
            tag = _moved(session.settings.fqrn, wanted, before, tag)
            edit.moved.append(before)
        present[tag.name] = tag
        edit.added.append(tag)
    return edit


def _moved(fqrn: str, wanted: WantedTag, before: Tag, after: Tag) -> Tag:
    if not wanted.has_target or before.hash == after.hash:
        raise TagExists(
            f"{fqrn}: the tag {before.name} is revision {before.revision} already",
            hint="choose another name, or say with --hash or --revision where it is to be moved",
        )
    description = after.description or before.description
    return replace(after, description=description, branch=before.branch)


def _find_root(session: PublishSession, history: History, wanted: WantedTag) -> RootCatalog:
    """The root catalog a tag is for, looked at.

    A collection that was killed may have begun to delete what no tag was keeping. Raises
    RevisionNotFound, RepositoryIncomplete, FormatError.
    """
    trunk = session.base.manifest.root_catalog
    opener = TransientOpener(session.store)
    root = wanted.root
    if root is None:
        number = wanted.revision
        root = trunk if number is None else find_revision(opener, history, trunk, number)
    elif root != trunk and not _is_recorded(session.commit, root):
        raise RevisionNotFound(
            f"{session.settings.fqrn}: {root} is no revision of this repository, or not any more",
            hint=f"outcrop log {session.settings.fqrn} --revisions lists what there is",
        )
    if root != trunk and all(tag.hash != root for tag in history.tags):
        require_complete(session.store, opener, root, trunk)
    return read_root(opener, root)


def _is_recorded(commit: Commit, root: ContentHash) -> bool:
    """Whether the reflog knows a root catalog; one it does not know may be collected any time."""
    refs = commit.reflog.read()
    return any(ref.hash == root and ref.type is RefType.CATALOG for ref in refs)


def tags_for_publish(
    session: PublishSession, wanted: NewTag | None
) -> tuple[list[NewTag], list[str]]:
    """The tags a new revision gets, and those that go with it.

    It gets the tag asked for, or an automatic one if the settings say so; a revision of a branch
    needs one. Automatic tags that are older than the settings' time span go. Raises TagExists,
    TagRequired, PublisherSettingsError.
    """
    settings = session.settings
    history = session.base.manifest.history
    present = {}
    if history is not None:
        with open_history(session.commit.writer, history) as tags:
            present = {tag.name: tag for tag in tags.tags()}
    if wanted is not None and wanted.name in present:
        raise TagExists(
            f"{settings.fqrn}: the tag {wanted.name} is revision {present[wanted.name].revision} "
            "already",
            hint="choose another name",
        )
    if session.checkout is not None:
        if wanted is None:
            raise TagRequired(
                f"{settings.fqrn}: the branch {session.checkout.branch} is checked out, and a "
                "revision of a branch needs a tag",
                hint="publish with --tag NAME",
            )
        return [wanted], []
    removed = _expired(session, present.values())
    if wanted is not None:
        return [wanted], removed
    if not settings.auto_tag:
        return [], removed
    names = (auto_tag_name(session.commit.now, number) for number in count())
    return [NewTag(next(name for name in names if name not in present))], removed


def _expired(session: PublishSession, tags: Collection[Tag]) -> list[str]:
    """The names of automatic tags that are older than `CVMFS_AUTO_TAG_TIMESPAN`."""
    timespan = session.settings.auto_tag_timespan
    if not timespan.strip():
        return []
    try:
        threshold = parse_date(timespan, now=session.commit.now)
    except FormatError as error:
        raise PublisherSettingsError(
            f"{session.settings.fqrn}: CVMFS_AUTO_TAG_TIMESPAN: {error}", hint=error.hint
        ) from error
    return sorted(
        tag.name for tag in tags if is_auto_tag_name(tag.name) and tag.timestamp < threshold
    )
