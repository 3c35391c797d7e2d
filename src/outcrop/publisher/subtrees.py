"""Removing, moving, cloning and merging subtrees: catalogs only, one new revision each."""

from collections.abc import Callable, Sequence

from outcrop.formats.catalog import DirectoryEntry
from outcrop.publisher.counts import ChangeCounts, kind_of
from outcrop.publisher.errors import PathRefused
from outcrop.publisher.markers import AUTO_MARKER, CATALOG_MARKER
from outcrop.publisher.options import PublishOptions, Tell
from outcrop.publisher.publish import PublishResult, check_target, publish_changes
from outcrop.publisher.session import PublishSession
from outcrop.repository.editor import CatalogEditor
from outcrop.storage.locations import Locations
from outcrop.storage.store import WritableStore


def remove_subtrees(
    locations: Locations,
    fqrn: str,
    paths: Sequence[bytes],
    *,
    options: PublishOptions,
    now: int,
    progress: Tell | None = None,
    store: WritableStore | None = None,
) -> PublishResult:
    """Remove paths with all that is below, all of them or none, as one new revision.

    Raises PathNotFound, PathRefused, and what `publish_changes` raises.
    """
    targets = [_checked(path) for path in _outermost(paths)]

    def edit(editor: CatalogEditor, counts: ChangeCounts) -> None:
        for path in targets:
            editor.get(path)
        for path in targets:
            directory, _, name = path.rpartition(b"/")
            if name == CATALOG_MARKER:
                editor.unnest(directory)
            editor.remove(path)
            counts.note_removed(path)

    return _publish(locations, fqrn, edit, options, now, progress, store)


def move_subtree(
    locations: Locations,
    fqrn: str,
    source: bytes,
    target: bytes,
    *,
    options: PublishOptions,
    now: int,
    progress: Tell | None = None,
    store: WritableStore | None = None,
) -> PublishResult:
    """Give a path, with all that is below, another name, as one new revision.

    The target must not exist, its parent must. Raises PathNotFound, PathExists, PathNotMovable,
    NotADirectory, PathRefused, and what `publish_changes` raises.
    """
    source, target = _checked_pair(source, target)

    def edit(editor: CatalogEditor, counts: ChangeCounts) -> None:
        editor.move(source, target)
        counts.changed[kind_of(editor.get(target))] += 1
        counts.note_removed(source)
        if counts.on_change is not None:
            counts.on_change("add", target)

    return _publish(locations, fqrn, edit, options, now, progress, store)


def clone_subtree(
    locations: Locations,
    fqrn: str,
    source: bytes,
    target: bytes,
    *,
    options: PublishOptions,
    now: int,
    progress: Tell | None = None,
    store: WritableStore | None = None,
) -> PublishResult:
    """Copy a path with all that is below, as one new revision; hard links become files.

    Raises as `move_subtree` does.
    """
    source, target = _checked_pair(source, target)

    def edit(editor: CatalogEditor, counts: ChangeCounts) -> None:
        editor.clone(source, target)
        if counts.on_change is not None:
            counts.on_change("add", target)

    return _publish(locations, fqrn, edit, options, now, progress, store)


def merge_subtree(
    locations: Locations,
    fqrn: str,
    source: bytes,
    target: bytes,
    *,
    whiteouts: bool = False,
    options: PublishOptions,
    now: int,
    progress: Tell | None = None,
    store: WritableStore | None = None,
) -> PublishResult:
    """Lay a directory over another one, as one new revision; see `CatalogEditor.merge`.

    What is in both and different is counted as changed; of subtrees that come and go as wholes
    the difference is counted. Raises as `move_subtree` does.
    """
    source, target = _checked_pair(source, target)

    def edit(editor: CatalogEditor, counts: ChangeCounts) -> None:
        def note(path: bytes, now: DirectoryEntry | None, before: DirectoryEntry | None) -> None:
            if now is None:
                counts.note_removed(path)
            else:
                counts.note(path, now, before)

        editor.merge(source, target, whiteouts=whiteouts, on_merged=note)

    return _publish(locations, fqrn, edit, options, now, progress, store)


_Edit = Callable[[CatalogEditor, ChangeCounts], None]


def _publish(
    locations: Locations,
    fqrn: str,
    edit: _Edit,
    options: PublishOptions,
    now: int,
    progress: Tell | None,
    store: WritableStore | None,
) -> PublishResult:
    def apply(session: PublishSession, tell: Tell) -> ChangeCounts:
        tell("catalogs", 0, None)
        counts = ChangeCounts(on_change=options.on_change)
        edit(session.editor, counts)
        return counts

    return publish_changes(
        locations, fqrn, apply, options=options, now=now, progress=progress, store=store
    )


def _checked(path: bytes) -> bytes:
    found = check_target(path.rstrip(b"/"))
    if not found:
        raise PathRefused("the root of a repository stays what and where it is")
    return found


def _checked_pair(source: bytes, target: bytes) -> tuple[bytes, bytes]:
    found = _checked(source), _checked(target)
    for path in found:
        if path.rpartition(b"/")[2] in (CATALOG_MARKER, AUTO_MARKER):
            raise PathRefused(
                f"{path.decode('utf-8', 'backslashreplace')} makes its directory a nested "
                "catalog: it cannot be moved or cloned by itself",
                hint="publish such a file where one is to be, and remove it where not",
            )
    return found


def _outermost(paths: Sequence[bytes]) -> list[bytes]:
    """Paths without duplicates and without what is below another one."""
    found: list[bytes] = []
    for path in sorted({path.rstrip(b"/") for path in paths}, key=lambda path: path + b"/"):
        if not found or not (path + b"/").startswith(found[-1] + b"/"):
            found.append(path)
    return found
