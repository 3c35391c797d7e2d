"""Maintenance of all catalogs of a repository at once: owners, hard links, bulk hashes, counters.

Each is one new revision in which only the catalogs are new; content is neither read nor written.
"""

from collections.abc import Callable, Iterable

from outcrop.formats.catalog import Counters
from outcrop.formats.id_map import IdMap
from outcrop.publisher.counts import ChangeCounts
from outcrop.publisher.options import PublishOptions, Tell
from outcrop.publisher.publish import PublishResult, publish_changes
from outcrop.publisher.session import PublishSession
from outcrop.repository import maintenance
from outcrop.repository.editor import CatalogEditor
from outcrop.repository.working_catalog import WorkingCatalog
from outcrop.storage.locations import Locations
from outcrop.storage.store import WritableStore

ROWS = "rows"
"""The kind under which a `PublishResult` counts rows that were changed by maintenance."""

EditCatalog = Callable[[WorkingCatalog], int]
"""Changes one catalog; how many rows."""


def change_owners(uids: IdMap, gids: IdMap) -> EditCatalog:
    """Give entries other owners and groups."""

    def edit(catalog: WorkingCatalog) -> int:
        users, groups = maintenance.owners(catalog)
        return maintenance.change_owners(catalog, _changes(uids, users), _changes(gids, groups))

    return edit


def _changes(ids: IdMap, present: Iterable[int]) -> dict[int, int]:
    return {number: ids.mapped(number) for number in present if ids.mapped(number) != number}


def maintain(
    locations: Locations,
    fqrn: str,
    edit: EditCatalog,
    *,
    options: PublishOptions,
    now: int,
    progress: Tell | None = None,
    store: WritableStore | None = None,
) -> PublishResult:
    """Have every catalog of the trunk edited, as one new revision.

    The result's `changed` has the number of `rows`. Raises what `publish_changes` raises.
    """

    def edit_all(editor: CatalogEditor, tell: Tell) -> int:
        changed = 0
        for number, catalog in enumerate(editor.every_catalog(), 1):
            changed += edit(catalog)
            tell("catalogs", number, None)
        return changed

    return _publish(locations, fqrn, edit_all, options, now, progress, store)


def fix_statistics(
    locations: Locations,
    fqrn: str,
    *,
    options: PublishOptions,
    now: int,
    progress: Tell | None = None,
    store: WritableStore | None = None,
) -> PublishResult:
    """Count all catalogs anew and publish those whose counters were wrong.

    The result's `changed` has the number of catalogs as `rows`. Raises what `publish_changes`
    raises.
    """
    return _publish(locations, fqrn, recount, options, now, progress, store)


def recount(editor: CatalogEditor, tell: Tell) -> int:
    """Make the counters of all catalogs right; how many had wrong ones."""
    catalogs = list(editor.every_catalog())
    wrong = 0
    for number, catalog in enumerate(reversed(catalogs), 1):  # children before parents
        children = (editor.listing(path).base_total for path in catalog.nested)
        catalog.subtree = sum(children, start=Counters())
        before, counted = catalog.statistics, catalog.recount()
        catalog.base_total = counted.total
        if counted != before:
            wrong += 1
            catalog.is_dirty = True
        tell("catalogs", number, len(catalogs))
    return wrong


def _publish(
    locations: Locations,
    fqrn: str,
    edit: Callable[[CatalogEditor, Tell], int],
    options: PublishOptions,
    now: int,
    progress: Tell | None,
    store: WritableStore | None,
) -> PublishResult:
    def apply(session: PublishSession, tell: Tell) -> ChangeCounts:
        counts = ChangeCounts(on_change=options.on_change)
        changed = edit(session.editor, tell)
        if changed:
            counts.changed[ROWS] = changed
        return counts

    return publish_changes(
        locations, fqrn, apply, options=options, now=now, progress=progress, store=store
    )
