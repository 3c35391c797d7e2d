"""Which repositories of a machine are to be checked again, by what their status files say."""

from dataclasses import dataclass
from typing import Final

from outcrop.errors import FormatError, OutcropError
from outcrop.formats.parameters import parse_parameters
from outcrop.publisher.administration import list_repositories
from outcrop.publisher.status_file import date_text, read_time, update_status
from outcrop.publisher.upkeep import StratumZeroSource
from outcrop.storage.locations import Locations

DEFAULT_DAYS: Final = 30
"""How many days a check is good for where `CVMFS_CHECK_ALL_MIN_DAYS` is not set."""

_PARAMETER: Final = "CVMFS_CHECK_ALL_MIN_DAYS"
_DAY_SECONDS: Final = 86400
_MAX_CONFIG_BYTES: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class DueRepository:
    """A repository to be checked; or `problem`, why that cannot even be told."""

    fqrn: str
    checked_at: int = 0
    problem: OutcropError | None = None


def find_due(locations: Locations, *, now: int) -> list[DueRepository]:
    """What is published here and was not checked for long enough; the oldest check first."""
    found = []
    for one in list_repositories(locations):
        if one.kind != "stratum0":
            continue
        try:
            store = StratumZeroSource.open(locations, one.fqrn).store
            checked_at = read_time(store, "last_check") or 0
            is_due = now - checked_at >= check_days(locations, one.fqrn) * _DAY_SECONDS
        except OutcropError as error:
            found.append(DueRepository(one.fqrn, problem=error))
            continue
        if is_due:
            found.append(DueRepository(one.fqrn, checked_at))
    return sorted(found, key=lambda due: (due.checked_at, due.fqrn))


def note_check(locations: Locations, fqrn: str, *, is_sound: bool, now: int) -> None:
    """Write down when a repository was checked and what came of it. Raises StorageError."""
    store = StratumZeroSource.open(locations, fqrn).store
    status = "succeeded" if is_sound else "failed"
    update_status(store, last_check=date_text(now), check_status=status)


def check_days(locations: Locations, fqrn: str) -> int:
    """For how many days a check is good: what the repository says, or the machine, or 30.

    Raises FormatError.
    """
    days = DEFAULT_DAYS
    for file in (locations.config / "server.local", locations.server_config(fqrn) / "server.conf"):
        try:
            with file.open("rb") as opened:
                found = parse_parameters(opened.read(_MAX_CONFIG_BYTES), environment={})
        except FileNotFoundError:
            continue
        except OSError as error:
            raise FormatError(f"{file} cannot be read: {error.strerror}") from error
        for assignment in found:
            if assignment.name == _PARAMETER:
                days = _days(assignment.value, f"{file}: {_PARAMETER}")
    return days


def _days(text: str, where: str) -> int:
    if not (text.isascii() and text.isdecimal()) or len(text) > 6:
        raise FormatError(f"{where}: {text[:60]!r} is no number of days")
    return int(text)
