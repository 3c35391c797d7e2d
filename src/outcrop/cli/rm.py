"""`outcrop rm`: remove paths of a repository, as a new revision."""

from typing import Any

import click

from outcrop.cli.catalog_edits import EXITS, publish_edit, publishing_options, repository_path
from outcrop.cli.command import Command, Session, checked
from outcrop.cli.output import is_terminal, shown
from outcrop.formats.fqrn import check_fqrn
from outcrop.publisher.subtrees import remove_subtrees


@click.command(
    cls=Command,
    exits=EXITS,
    examples="""
outcrop rm software.example.org /nightly/monday
outcrop rm software.example.org /gcc/12 /gcc/13 --yes -a no-old-gcc
""",
)
@click.argument("fqrn", callback=checked(check_fqrn))
@click.argument("paths", metavar="/PATH...", nargs=-1, required=True, type=repository_path)
@publishing_options
@click.option("-f", "--yes", is_flag=True, help="Do not ask.")
@click.pass_obj
def command(
    session: Session, /, fqrn: str, paths: tuple[bytes, ...], yes: bool, **given: Any
) -> None:
    """Remove every /PATH of the repository FQRN with all below it, as one new revision.

    Only catalogs are written, however much goes. Older revisions keep what they have.
    """
    if is_terminal() and not (yes or given["dry_run"]):
        names = " ".join(shown(path) for path in paths)
        click.confirm(f"Remove from {fqrn}: {names}?", abort=True, err=True)
    publish_edit(
        session,
        fqrn,
        given,
        lambda options, update: remove_subtrees(
            session.locations, fqrn, paths, options=options, now=session.now, progress=update
        ),
    )
