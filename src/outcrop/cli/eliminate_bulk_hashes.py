"""`outcrop eliminate-bulk-hashes`: leave chunked files their chunks only."""

from typing import Any

import click

from outcrop.cli.catalog_edits import EXITS, publish_edit, publishing_options
from outcrop.cli.command import Command, Session, checked
from outcrop.formats.fqrn import check_fqrn
from outcrop.publisher.migrate import maintain
from outcrop.repository.maintenance import drop_bulk_hashes


@click.command(
    cls=Command,
    exits=EXITS,
    examples="""
outcrop eliminate-bulk-hashes software.example.org
""",
)
@click.argument("fqrn", callback=checked(check_fqrn))
@publishing_options
@click.pass_obj
def command(session: Session, /, fqrn: str, **given: Any) -> None:
    """Drop the hash of the whole from every chunked file of the repository FQRN.

    Old publishers stored such files twice, in chunks and as a whole. When no kept revision names
    the wholes any more, `outcrop gc` deletes them.
    """
    publish_edit(
        session,
        fqrn,
        given,
        lambda options, update: maintain(
            session.locations,
            fqrn,
            drop_bulk_hashes,
            options=options,
            now=session.now,
            progress=update,
        ),
    )
