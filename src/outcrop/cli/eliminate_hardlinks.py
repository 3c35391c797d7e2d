"""`outcrop eliminate-hardlinks`: make every hard link a file of its own."""

from typing import Any

import click

from outcrop.cli.catalog_edits import EXITS, publish_edit, publishing_options
from outcrop.cli.command import Command, Session, checked
from outcrop.formats.fqrn import check_fqrn
from outcrop.publisher.migrate import maintain
from outcrop.repository.maintenance import break_hard_links


@click.command(
    cls=Command,
    exits=EXITS,
    examples="""
outcrop eliminate-hardlinks software.example.org
""",
)
@click.argument("fqrn", callback=checked(check_fqrn))
@publishing_options
@click.pass_obj
def command(session: Session, /, fqrn: str, **given: Any) -> None:
    """Make every hard link in the repository FQRN a file of its own, as a new revision.

    The content of such files is still there once. Transactions on overlayfs need this.
    """
    publish_edit(
        session,
        fqrn,
        given,
        lambda options, update: maintain(
            session.locations,
            fqrn,
            break_hard_links,
            options=options,
            now=session.now,
            progress=update,
        ),
    )
