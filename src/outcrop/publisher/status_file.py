"""`.cvmfs_status.json`: what was done last with a stored repository, for monitors (spec 16)."""

import json
from datetime import UTC, datetime
from typing import Final

from outcrop.storage.errors import ObjectNotFound
from outcrop.storage.store import WritableStore, read_file

STATUS: Final = ".cvmfs_status.json"
_MAX_BYTES: Final = 1 << 20
_DATE: Final = "%a %b %e %H:%M:%S UTC %Y"
"""As `date --utc` prints it in the C locale."""


def date_text(at: int) -> str:
    """Unix time as the status file has it: `Sun Nov 22 07:59:45 UTC 2026`."""
    return datetime.fromtimestamp(at, UTC).strftime(_DATE)


def read_status(store: WritableStore) -> dict[str, object]:
    """All of it; empty where there is none that can be read. Raises StorageError."""
    try:
        found = json.loads(read_file(store, STATUS, limit=_MAX_BYTES))
    except (ObjectNotFound, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def read_time(store: WritableStore, key: str) -> int | None:
    """The unix time of `last_gc`, `last_check` and so on; `None` where the file does not say."""
    text = read_status(store).get(key)
    if not isinstance(text, str):
        return None
    try:
        found = datetime.strptime(text, _DATE.replace("%e", "%d"))  # noqa: DTZ007 - UTC, below
    except ValueError:
        return None
    return int(found.replace(tzinfo=UTC).timestamp())


def update_status(store: WritableStore, **values: str) -> None:
    """Set some of it; the rest stays."""
    status = read_status(store) | values
    store.write(STATUS, (json.dumps(status, indent=2) + "\n").encode())
