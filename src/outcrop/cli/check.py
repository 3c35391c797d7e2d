"""`outcrop check`: check a repository that is published here."""

import os
from dataclasses import asdict

import click

from outcrop.cli.command import Command, Session, checked
from outcrop.cli.exit_codes import DONE, FAILED
from outcrop.cli.problems import check_text
from outcrop.cli.progress import progress_bar
from outcrop.formats.fqrn import check_fqrn
from outcrop.publisher.inspection import check_stratum_zero
from outcrop.repository.check import CheckOptions


@click.command(
    cls=Command,
    exits=(3, 4, 5, 6, 7, 9),
    examples="""
outcrop check software.example.org
outcrop check --content --all-tags software.example.org
outcrop check --subtree /v1.0 --json software.example.org
""",
)
@click.argument("fqrn", callback=checked(check_fqrn))
@click.option("-c", "--catalogs", is_flag=True, help="Do not look whether objects are there.")
@click.option("-i", "--content", is_flag=True, help="Read every object: hash, size, compression.")
@click.option("-t", "--tag", metavar="TAG", help="The revision with this tag, not the trunk.")
@click.option("-T", "--all-tags", is_flag=True, help="Every tagged revision, and the trunk.")
@click.option("-s", "--subtree", type=os.fsencode, metavar="/PATH", default="",
              help="Only the catalogs /PATH is in, and those below.")  # fmt: skip
@click.pass_obj
def command(
    session: Session,
    fqrn: str,
    catalogs: bool,
    content: bool,
    tag: str | None,
    all_tags: bool,
    subtree: bytes,
) -> int:
    """Check the repository FQRN: signatures, catalogs, counters, references, tags, reflog.

    By default every object must be there; --content reads them all, too. Publishers can go on
    meanwhile, garbage collection cannot. Prints each problem, and ends with code 1 if there is
    one. A repository that is published elsewhere is checked with `outcrop verify`.
    """
    if content and catalogs:
        raise click.UsageError("--content and --catalogs exclude each other")
    if tag is not None and all_tags:
        raise click.UsageError("--tag and --all-tags exclude each other")
    with progress_bar(session.output) as update:
        result = check_stratum_zero(
            session.locations,
            fqrn,
            CheckOptions(tag=tag, all_tags=all_tags, subtree=subtree.rstrip(b"/"), fetch=content),
            looks_up_objects=not catalogs,
            now=session.now,
            progress=update,
        )
    session.output.result(asdict(result), check_text(result))
    return FAILED if result.problems else DONE
