"""Changing many rows of a catalog at once: owners, hard links, bulk hashes.

None of it changes what a row counts as, nor its key.
"""

from collections.abc import Iterable, Mapping

from outcrop.repository import catalog_sql as sql
from outcrop.repository.working_catalog import WorkingCatalog


def change_owners(catalog: WorkingCatalog, uids: Mapping[int, int], gids: Mapping[int, int]) -> int:
    """Replace numbers of users and groups; returns how many rows are different now, about."""
    changed = [
        _run(catalog, statement, numbers.items())
        for statement, numbers in ((sql.CHANGE_UIDS, uids), (sql.CHANGE_GIDS, gids))
        if numbers
    ]
    return max(changed, default=0)


def owners(catalog: WorkingCatalog) -> tuple[list[int], list[int]]:
    """All different users, and groups, of a catalog's rows."""
    users, groups = (
        [number for (number,) in catalog.database.execute(statement)]
        for statement in (sql.SELECT_UIDS, sql.SELECT_GIDS)
    )
    return users, groups


def break_hard_links(catalog: WorkingCatalog) -> int:
    """Make every hard link a file of its own; how many there were."""
    return _run(catalog, sql.BREAK_HARD_LINKS)


def drop_bulk_hashes(catalog: WorkingCatalog) -> int:
    """Leave chunked files only their chunks; how many had more."""
    return _run(catalog, sql.DROP_BULK_HASHES)


def _run(catalog: WorkingCatalog, statement: str, numbers: Iterable[tuple[int, int]] = ()) -> int:
    """Execute a statement, with pairs in the temporary table `numbers`."""
    database = catalog.database
    database.execute(sql.CREATE_NUMBERS)
    database.execute(sql.DELETE_NUMBERS)
    database.executemany(sql.INSERT_NUMBERS, numbers)
    changed = database.execute(statement).rowcount
    catalog.is_dirty = catalog.is_dirty or changed > 0
    return changed
