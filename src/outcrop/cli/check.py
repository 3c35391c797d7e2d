"""`outcrop check`: check a repository that is published here, or all that are due."""

import os
from dataclasses import asdict
from typing import Any

import click

from outcrop.cli.command import Command, Session, checked
from outcrop.cli.exit_codes import DONE, FAILED
from outcrop.cli.output import printable
from outcrop.cli.problems import check_text
from outcrop.cli.progress import progress_bar
from outcrop.errors import OutcropError
from outcrop.formats.fqrn import check_fqrn
from outcrop.publisher.check_due import find_due, note_check
from outcrop.publisher.inspection import check_stratum_zero, mend_reflog
from outcrop.repository.check import CheckOptions, CheckResult


@click.command(
    cls=Command,
    exits=(3, 4, 5, 6, 7, 9),
    examples="""
outcrop check software.example.org
outcrop check --content --all-tags software.example.org
outcrop check --subtree /v1.0 --json software.example.org
outcrop check --all
""",
)
@click.argument("fqrn", required=False, callback=checked(check_fqrn))
@click.option("-c", "--catalogs", is_flag=True, help="Do not look whether objects are there.")
@click.option("-i", "--content", is_flag=True, help="Read every object: hash, size, compression.")
@click.option("-t", "--tag", metavar="TAG", help="The revision with this tag, not the trunk.")
@click.option("-T", "--all-tags", is_flag=True, help="Every tagged revision, and the trunk.")
@click.option("-s", "--subtree", type=os.fsencode, metavar="/PATH", default="",
              help="Only the catalogs /PATH is in, and those below.")  # fmt: skip
@click.option("-r", "--mend-reflog", is_flag=True,
              help="Write the reflog anew first if it is missing or damaged.")  # fmt: skip
@click.option("-a", "--all", "is_all", is_flag=True,
              help="All that are published here and were not checked by --all for "
              "CVMFS_CHECK_ALL_MIN_DAYS days (30).")  # fmt: skip
@click.pass_obj
def command(session: Session, /, fqrn: str | None, is_all: bool, **chosen: Any) -> int:
    """Check the repository FQRN: signatures, catalogs, counters, references, tags, reflog.

    By default every object must be there; --content reads them all, too. Publishers can go on
    meanwhile, garbage collection cannot. Prints each problem, and ends with code 1 if there is
    one. A repository that is published elsewhere is checked with `outcrop verify`.
    """
    if (fqrn is None) != is_all:
        raise click.UsageError("either FQRN or --all")
    if chosen["content"] and chosen["catalogs"]:
        raise click.UsageError("--content and --catalogs exclude each other")
    if chosen["tag"] is not None and chosen["all_tags"]:
        raise click.UsageError("--tag and --all-tags exclude each other")
    if is_all and (chosen["tag"] is not None or chosen["subtree"]):
        raise click.UsageError("--tag and --subtree are for one repository")
    if fqrn is None:
        return _check_all(session, chosen)
    result = _check(session, fqrn, chosen)
    session.output.result(asdict(result), check_text(result))
    return FAILED if result.problems else DONE


def _check(session: Session, fqrn: str, chosen: dict[str, Any]) -> CheckResult:
    options = CheckOptions(
        tag=chosen["tag"],
        all_tags=chosen["all_tags"],
        subtree=chosen["subtree"].rstrip(b"/"),
        fetch=chosen["content"],
    )
    with progress_bar(session.output) as update:
        mended = None
        if chosen["mend_reflog"]:
            mended = mend_reflog(session.locations, fqrn, now=session.now, progress=update)
        result = check_stratum_zero(
            session.locations,
            fqrn,
            options,
            looks_up_objects=not chosen["catalogs"],
            now=session.now,
            progress=update,
        )
    if mended is not None:
        session.output.note(f"outcrop: the reflog was written anew: {printable(mended)}")
    return result


def _check_all(session: Session, chosen: dict[str, Any]) -> int:
    """One repository after the other; what goes wrong with one is told and does not stop that."""
    code = DONE
    results = []
    for due in find_due(session.locations, now=session.now):
        try:
            if due.problem is not None:
                raise due.problem
            result = _check(session, due.fqrn, chosen)
            note_check(session.locations, due.fqrn, is_sound=not result.problems, now=session.now)
        except OutcropError as error:
            session.output.error(str(error), kind=type(error).__name__, hint=error.hint)
            code = FAILED
            continue
        code = FAILED if result.problems else code
        results.append(asdict(result))
        if not session.output.is_json:
            session.output.line(check_text(result))
    if session.output.is_json:
        session.output.json(results)
    return code
