"""`outcrop fix-stats`: count all catalogs anew."""

from typing import Any

import click

from outcrop.cli.catalog_edits import EXITS, publish_edit, publishing_options
from outcrop.cli.command import Command, Session, checked
from outcrop.formats.fqrn import check_fqrn
from outcrop.publisher.migrate import fix_statistics


@click.command(
    cls=Command,
    exits=EXITS,
    examples="""
outcrop fix-stats software.example.org
""",
)
@click.argument("fqrn", callback=checked(check_fqrn))
@publishing_options
@click.pass_obj
def command(session: Session, /, fqrn: str, **given: Any) -> None:
    """Make the counters of all catalogs of the repository FQRN right, as a new revision.

    `outcrop check` tells whether any are wrong.
    """
    publish_edit(
        session,
        fqrn,
        given,
        lambda options, update: fix_statistics(
            session.locations, fqrn, options=options, now=session.now, progress=update
        ),
    )
