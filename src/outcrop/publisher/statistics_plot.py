"""A picture of the statistics database: what each publish changed and stored, by time."""

import io
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from matplotlib.dates import AutoDateLocator, ConciseDateFormatter, date2num
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, MaxNLocator

from outcrop.errors import FormatError
from outcrop.publisher.statistics import Table, read_table

if TYPE_CHECKING:
    from matplotlib.axes import Axes

PAGE: Final = """\
<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><title>FQRN</title></head>
<body><img src="stats.svg" alt="What each publish of FQRN changed and stored"></body></html>
"""

_FILES: Final = (
    ("files_added", "added", "#2f7d4f"),
    ("files_changed", "changed", "#d9a441"),
    ("files_removed", "removed", "#b5473c"),
)
_BYTES: Final = (
    ("sz_bytes_uploaded", "files, as stored", "#35618e"),
    ("sz_catalog_bytes_uploaded", "catalogs", "#9bb8d3"),
)


def plot(file: Path, fqrn: str, format_name: str) -> bytes:
    """The picture as `svg`, `png` or `pdf`. Raises FormatError, FileNotFoundError."""
    table = read_table(file, "publish")
    rows = _successful(table)
    figure = Figure(figsize=(9, 5.5), layout="constrained")
    figure.suptitle(f"{fqrn}: {len(rows)} publishes", x=0.02, ha="left", fontsize=13)
    upper, lower = figure.subplots(2, 1, sharex=True)
    times = [float(date2num(_time_of(row["start_time"]))) for row in rows]  # type: ignore[no-untyped-call]
    _draw(upper, times, rows, _FILES, "files")
    _draw(lower, times, rows, _BYTES, "stored")
    lower.yaxis.set_major_formatter(EngFormatter(unit="B"))
    upper.yaxis.set_major_locator(MaxNLocator(integer=True, nbins=5))
    locator = AutoDateLocator(tz=UTC)  # type: ignore[no-untyped-call]
    lower.xaxis.set_major_locator(locator)
    formatter = ConciseDateFormatter(locator, tz=UTC)  # type: ignore[no-untyped-call]
    lower.xaxis.set_major_formatter(formatter)
    out = io.BytesIO()
    metadata = {"Date": None} if format_name == "svg" else None
    try:
        figure.savefig(out, format=format_name, metadata=metadata, dpi=120)
    except ValueError as error:
        raise FormatError(f"no such kind of picture: {format_name}", hint="svg, png") from error
    return out.getvalue()


def _draw(
    axes: "Axes",
    times: Sequence[float],
    rows: Sequence[dict[str, Any]],
    series: Sequence[tuple[str, str, str]],
    label: str,
) -> None:
    """Thin stacked bars, one for each publish."""
    base = [0] * len(rows)
    for column, name, color in series:
        values = [int(row.get(column) or 0) for row in rows]
        axes.vlines(
            times,
            base,
            [low + value for low, value in zip(base, values, strict=True)],
            colors=color,
            linewidth=max(1.0, min(6.0, 300 / max(len(rows), 1))),
            label=name,
        )
        base = [low + value for low, value in zip(base, values, strict=True)]
    axes.set_ylabel(label)
    axes.set_ylim(bottom=0, top=None if any(base) else 1)
    axes.margins(x=0.03)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color="#e3e3e3", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), frameon=False, fontsize=9)


def _successful(table: Table) -> list[dict[str, Any]]:
    rows = [dict(zip(table.columns, row, strict=True)) for row in table.rows]
    return [row for row in rows if row.get("success") in (1, None)]


def _time_of(text: object) -> datetime:
    try:
        return datetime.strptime(str(text), "%Y-%m-%d %H:%M:%S").replace(tzinfo=UTC)
    except ValueError as error:
        raise FormatError(f"not a time of a statistics database: {str(text)[:40]!r}") from error
