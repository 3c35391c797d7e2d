"""`outcrop mv`: give a path of a repository another name, as a new revision."""

from typing import Any

import click

from outcrop.cli.catalog_edits import EXITS, publish_edit, publishing_options, repository_path
from outcrop.cli.command import Command, Session, checked
from outcrop.formats.fqrn import check_fqrn
from outcrop.publisher.subtrees import move_subtree


@click.command(
    cls=Command,
    exits=EXITS,
    examples="""
outcrop mv software.example.org /gcc/14-rc /gcc/14 -a gcc-14
""",
)
@click.argument("fqrn", callback=checked(check_fqrn))
@click.argument("source", metavar="/FROM", type=repository_path)
@click.argument("target", metavar="/TO", type=repository_path)
@publishing_options
@click.pass_obj
def command(session: Session, /, fqrn: str, source: bytes, target: bytes, **given: Any) -> None:
    """Give /FROM of the repository FQRN, with all below it, the path /TO, as a new revision.

    /TO must not exist, the directory above it must. Only catalogs are written, however much is
    moved; the content stays where it is.
    """
    publish_edit(
        session,
        fqrn,
        given,
        lambda options, update: move_subtree(
            session.locations,
            fqrn,
            source,
            target,
            options=options,
            now=session.now,
            progress=update,
        ),
    )
