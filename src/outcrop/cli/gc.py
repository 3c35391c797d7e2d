"""`outcrop gc`: delete what no kept revision needs."""

import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from outcrop.cli.command import Command, Session, checked
from outcrop.cli.entries import human_size
from outcrop.cli.exit_codes import DONE, FAILED
from outcrop.cli.output import printable
from outcrop.cli.progress import progress_bar
from outcrop.errors import OutcropError
from outcrop.formats.dates import parse_date
from outcrop.formats.fqrn import check_fqrn
from outcrop.publisher.administration import list_repositories
from outcrop.publisher.garbage import GarbageOptions, GarbageResult, collect_garbage, maybe_collect
from outcrop.publisher.settings import StratumZeroSettings
from outcrop.storage.locations import Locations

_ANY_TIME = 2_000_000_000
_check_date = checked(lambda text: parse_date(text, now=_ANY_TIME))


@click.command(
    cls=Command,
    exits=(3, 4, 5, 6, 7, 9),
    examples="""
outcrop gc software.example.org
outcrop gc software.example.org --keep 10 --dry-run
outcrop gc --all --since '2 weeks ago' --yes
""",
)
@click.argument("fqrn", required=False, callback=checked(check_fqrn))
@click.option("-r", "--keep", "revisions", type=click.IntRange(min=0), metavar="N",
              help="Keep N revisions before the trunk.")  # fmt: skip
@click.option("-t", "--since", metavar="DATE", callback=_check_date,
              help="Keep revisions since DATE, and one more.  [default: 3 days ago]")  # fmt: skip
@click.option("-d", "--dry-run", is_flag=True, help="Delete nothing, tell what would be deleted.")
@click.option("-l", "--list", "is_listed", is_flag=True, help="Print each object that is deleted.")
@click.option("-L", "--log", metavar="FILE", type=click.Path(dir_okay=False, path_type=Path),
              help="Append the deleted objects to FILE.")  # fmt: skip
@click.option("--orphans", metavar="DATE", callback=_check_date,
              help="Also delete objects older than DATE that no revision knows of.")  # fmt: skip
@click.option("-a", "--all", "is_all", is_flag=True,
              help="All repositories of this machine that are garbage collectable.")  # fmt: skip
@click.option("--wait", metavar="SECONDS", type=click.FloatRange(min=0), default=0.0,
              help="Wait for a publisher to finish.")  # fmt: skip
@click.option("-f", "--yes", is_flag=True, help="Do not ask.")
@click.pass_obj
def command(session: Session, /, fqrn: str | None, is_all: bool, yes: bool, **chosen: Any) -> int:
    """Delete the objects of the repository FQRN that no kept revision needs.

    Kept are the newest revision, as many before it as you say, and every tagged one. Readers are
    not disturbed, publishers are kept out. A run that is interrupted is finished by the next.
    Orphans are what publishers that died left behind.
    """
    if (fqrn is None) != is_all:
        raise click.UsageError("either FQRN or --all")
    if chosen["revisions"] is not None and chosen["since"] is not None:
        raise click.UsageError("--keep and --since exclude each other")
    if sys.stdin.isatty() and not (yes or chosen["dry_run"]):
        whose = "all repositories" if is_all else fqrn
        click.confirm(f"Delete unneeded objects of {whose}?", abort=True, err=True)
    options = _options(session, chosen)
    if fqrn is not None:
        result = _collect(session, fqrn, options)
        session.output.result(_fields(result), _text(result))
        return DONE
    return _collect_all(session, options)


def _collect(session: Session, fqrn: str, options: GarbageOptions) -> GarbageResult:
    with progress_bar(session.output) as update:
        return collect_garbage(session.locations, fqrn, options, now=session.now, progress=update)


def _collect_all(session: Session, options: GarbageOptions) -> int:
    """One repository after the other; what goes wrong with one is told and does not stop that."""
    code = DONE
    results = []
    for fqrn in _collectable(session.locations):
        try:
            result = _collect(session, fqrn, options)
        except OutcropError as error:
            session.output.error(str(error), kind=type(error).__name__, hint=error.hint)
            code = FAILED
            continue
        results.append(_fields(result))
        if not session.output.is_json:
            session.output.line(_text(result))
    if session.output.is_json:
        session.output.json(results)
    return code


def collect_if_due(session: Session, fqrn: str) -> None:
    """After a publish: collect garbage if the repository's settings want that now.

    The publish has succeeded, so what goes wrong here is a warning.
    """
    try:
        with progress_bar(session.output) as update:
            result = maybe_collect(session.locations, fqrn, now=session.now, progress=update)
    except OutcropError as error:
        session.output.note(f"outcrop: warning: garbage was not collected: {printable(str(error))}")
        return
    if result is not None:
        session.output.note(_text(result))


def _options(session: Session, chosen: dict[str, Any]) -> GarbageOptions:
    now = session.now
    since, orphans = chosen["since"], chosen["orphans"]
    prints = chosen["is_listed"] and not session.output.is_json
    return GarbageOptions(
        keep_revisions=chosen["revisions"],
        keep_since=None if since is None else parse_date(since, now=now),
        dry_run=chosen["dry_run"],
        deletion_log=chosen["log"],
        log=session.output.line if prints else None,
        orphans_before=None if orphans is None else parse_date(orphans, now=now),
        wait_seconds=chosen["wait"],
    )


def _collectable(locations: Locations) -> list[str]:
    """The repositories that are published here and may be collected."""
    return [
        one.fqrn
        for one in list_repositories(locations)
        if one.kind == "stratum0"
        and not one.problem
        and StratumZeroSettings.read(locations, one.fqrn).garbage_collection
    ]


def _fields(result: GarbageResult) -> dict[str, Any]:
    collected = asdict(result.collected)
    for name in ("incomplete", "damaged"):
        collected[name] = [str(found) for found in getattr(result.collected, name)]
    return {
        "fqrn": result.fqrn,
        "dry_run": result.dry_run,
        **collected,
        "leftovers": result.leftovers,
        "warnings": list(result.warnings),
        "seconds": round(result.seconds, 3),
    }


def _text(result: GarbageResult) -> str:
    found = result.collected
    size = "" if found.condemned_bytes is None else f" ({human_size(found.condemned_bytes)})"
    verb = "would delete" if result.dry_run else "deleted"
    lines = [
        f"{result.fqrn}: kept {found.preserved_revisions} revisions, {verb} "
        f"{found.condemned_revisions} revisions and {found.objects} objects{size}, "
        f"{result.seconds:.1f} s"
    ]
    if found.orphans:
        lines.append(f"  {found.orphans} of them were orphans")
    lines += [
        f"  warning: kept revision {root} lacks catalogs; outcrop check --tags tells which"
        for root in found.incomplete
    ]
    lines += [
        f"  warning: catalog {catalog} was damaged; --orphans finds what only it referred to"
        for catalog in found.damaged
    ]
    lines += [f"  warning: {printable(warning)}" for warning in result.warnings]
    return "\n".join(lines)
