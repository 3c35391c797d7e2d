"""`outcrop merge`: lay a directory of a repository over another one, as a new revision."""

from typing import Any

import click

from outcrop.cli.catalog_edits import EXITS, publish_edit, publishing_options, repository_path
from outcrop.cli.command import Command, Session, checked
from outcrop.formats.fqrn import check_fqrn
from outcrop.publisher.subtrees import merge_subtree


@click.command(
    cls=Command,
    exits=EXITS,
    examples="""
outcrop merge software.example.org /patches/2026-11 /releases/1.1
outcrop merge software.example.org /layers/9f2c /images/tool --whiteouts
""",
)
@click.argument("fqrn", callback=checked(check_fqrn))
@click.argument("source", metavar="/UPPER", type=repository_path)
@click.argument("target", metavar="/LOWER", type=repository_path)
@click.option("--whiteouts", is_flag=True,
              help="Let files .wh.NAME and .wh..wh..opq hide what /LOWER has, as container "
                   "images do.")  # fmt: skip
@publishing_options
@click.pass_obj
def command(
    session: Session, /, fqrn: str, source: bytes, target: bytes, whiteouts: bool, **given: Any
) -> None:
    """Lay the directory /UPPER of the repository FQRN over /LOWER, as a new revision.

    What only one has is in /LOWER afterwards; where both have something, it is that of /UPPER, and
    directories become one. /UPPER stays what it is. /LOWER may be missing, the directory above it
    not. Only catalogs are written: the content is there once, as before.
    """
    publish_edit(
        session,
        fqrn,
        given,
        lambda options, update: merge_subtree(
            session.locations,
            fqrn,
            source,
            target,
            whiteouts=whiteouts,
            options=options,
            now=session.now,
            progress=update,
        ),
    )
