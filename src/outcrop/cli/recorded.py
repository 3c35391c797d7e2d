"""What was just recorded in the statistics database, for those whose settings want to see it."""

from outcrop.cli.command import Session
from outcrop.errors import FormatError
from outcrop.publisher.settings import StratumZeroSettings
from outcrop.publisher.statistics import read_table


def note_statistics(session: Session, fqrn: str) -> None:
    """Print the counters of the last publish if `CVMFS_PRINT_STATISTICS` is on."""
    settings = StratumZeroSettings.read(session.locations, fqrn)
    if not settings.print_statistics:
        return
    try:
        table = read_table(settings.statistics_file, "publish")
    except (FormatError, FileNotFoundError) as error:
        session.output.note(f"outcrop: warning: no statistics: {error}")
        return
    for name, value in zip(table.columns, table.rows[-1] if table.rows else (), strict=False):
        session.output.note(f"  {name}: {value}")
