"""`outcrop statistics`: what was published and collected so far."""

import csv
import importlib
import io
import sqlite3
from collections.abc import Sequence
from pathlib import Path

import click

from outcrop.cli.command import Command, Session, checked
from outcrop.errors import FormatError, OutcropError
from outcrop.formats.fqrn import check_fqrn
from outcrop.publisher.settings import StratumZeroSettings
from outcrop.publisher.statistics import Table, merge, read_table


class NoStatistics(OutcropError):
    """Nothing was recorded yet."""

    exit_code = 6


@click.command(
    cls=Command,
    exits=(3, 6, 7),
    examples="""
outcrop statistics software.example.org
outcrop statistics software.example.org -t gc -o collections.csv
outcrop statistics software.example.org --plot publishes.svg
outcrop statistics software.example.org --merge old.db --merge new.db -o all.db
""",
)
@click.argument("fqrn", callback=checked(check_fqrn))
@click.option("-t", "--table", "kind", type=click.Choice(["publish", "gc"]), default="publish",
              show_default=True, help="Publishes, or garbage collections.")  # fmt: skip
@click.option("-o", "--output", metavar="FILE", type=click.Path(dir_okay=False, path_type=Path),
              help="Write to a file.")  # fmt: skip
@click.option("-s", "--separator", metavar="CHARACTER", default=",", show_default=True,
              help="What is between values.")  # fmt: skip
@click.option("--plot", "picture", metavar="FILE",
              type=click.Path(dir_okay=False, path_type=Path),
              help="Draw the publishes: FILE.svg or FILE.png.")  # fmt: skip
@click.option("--merge", "databases", multiple=True, metavar="DATABASE",
              type=click.Path(exists=True, dir_okay=False, path_type=Path),
              help="Put databases together into the file of -o; may be repeated.")  # fmt: skip
@click.pass_obj
def command(
    session: Session,
    fqrn: str,
    kind: str,
    output: Path | None,
    separator: str,
    picture: Path | None,
    databases: tuple[Path, ...],
) -> None:
    """Print what is in the statistics database of the repository FQRN, one row for each publish.

    Times are UTC, names that begin with sz_ are in bytes. The first line names the columns.
    """
    if len(separator) != 1 or separator in '"\r\n':
        raise click.BadParameter("one character, and no quotation mark", param_hint="--separator")
    if databases:
        _merge(session, databases, output)
        return
    file = StratumZeroSettings.read(session.locations, fqrn).statistics_file
    try:
        if picture is not None:
            _draw(session, file, fqrn, picture)
            return
        table = read_table(file, kind)
    except FileNotFoundError as error:
        raise NoStatistics(
            f"{fqrn}: nothing is recorded yet: there is no {file}",
            hint="the next publish makes it",
        ) from error
    if session.output.is_json and output is None:
        columns = table.columns
        session.output.json([dict(zip(columns, row, strict=True)) for row in table.rows])
        return
    text = _text_of(table, separator)
    if output is not None:
        output.write_text(text)
    elif text:
        session.output.lines(text.splitlines())


def _text_of(table: Table, separator: str) -> str:
    out = io.StringIO()
    writer = csv.writer(out, delimiter=separator, lineterminator="\n")
    writer.writerow(table.columns)
    writer.writerows(table.rows)
    return out.getvalue()


def _draw(session: Session, file: Path, fqrn: str, picture: Path) -> None:
    kind = picture.suffix.removeprefix(".").lower()
    if kind not in ("svg", "png", "pdf"):
        raise click.BadParameter("ends with .svg, .png or .pdf", param_hint="--plot")
    try:
        module = importlib.import_module("outcrop.publisher.statistics_plot")
    except ModuleNotFoundError as error:
        raise OutcropError(
            f"plots need the Python package {error.name}", hint="pip install 'outcrop[plot]'"
        ) from error
    picture.write_bytes(module.plot(file, fqrn, kind))
    session.output.result({"picture": str(picture)}, f"drawn: {picture}")


def _merge(session: Session, databases: Sequence[Path], output: Path | None) -> None:
    if output is None:
        raise click.BadParameter("--merge needs it", param_hint="-o")
    try:
        rows = merge(databases, output)
    except sqlite3.Error as error:
        raise FormatError(f"{output}: {error}") from error
    session.output.result({"merged": str(output), "rows": rows}, f"{output}: {rows} rows")
