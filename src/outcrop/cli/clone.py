"""`outcrop clone`: copy a subtree of a repository within it, as a new revision."""

from typing import Any

import click

from outcrop.cli.catalog_edits import EXITS, publish_edit, publishing_options, repository_path
from outcrop.cli.command import Command, Session, checked
from outcrop.formats.fqrn import check_fqrn
from outcrop.publisher.subtrees import clone_subtree


@click.command(
    cls=Command,
    exits=EXITS,
    examples="""
outcrop clone software.example.org /releases/1.0 /releases/1.1
""",
)
@click.argument("fqrn", callback=checked(check_fqrn))
@click.argument("source", metavar="/FROM", type=repository_path)
@click.argument("target", metavar="/TO", type=repository_path)
@publishing_options
@click.pass_obj
def command(session: Session, /, fqrn: str, source: bytes, target: bytes, **given: Any) -> None:
    """Make /TO of the repository FQRN a copy of /FROM, as a new revision.

    /TO must not exist, the directory above it must. Nested catalogs are copied, hard links become
    files of their own. Only catalogs are written: the content is there once, as before.
    """
    publish_edit(
        session,
        fqrn,
        given,
        lambda options, update: clone_subtree(
            session.locations,
            fqrn,
            source,
            target,
            options=options,
            now=session.now,
            progress=update,
        ),
    )
