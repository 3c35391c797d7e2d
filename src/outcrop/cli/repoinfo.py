"""`outcrop repoinfo`: whom a repository belongs to, shown or changed."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from outcrop.cli.command import Command, Session, checked
from outcrop.errors import FormatError
from outcrop.formats.fqrn import check_fqrn
from outcrop.formats.meta_info import MAX_BYTES, parse_meta_info
from outcrop.publisher.repository_info import read_repository_info, sign_trunk_again

_STDIN = Path("-")


@click.command(
    cls=Command,
    exits=(3, 4, 5, 6, 7, 9),
    examples="""
outcrop repoinfo software.example.org
outcrop repoinfo software.example.org --from about.json
outcrop repoinfo software.example.org --edit
""",
)
@click.argument("fqrn", callback=checked(check_fqrn))
@click.option("-f", "--from", "source", metavar="FILE", help="Take this JSON file (-: stdin).",
              type=click.Path(dir_okay=False, path_type=Path))  # fmt: skip
@click.option("-e", "--edit", is_flag=True, help="Change it in $EDITOR.")
@click.pass_obj
def command(session: Session, fqrn: str, source: Path | None, edit: bool) -> None:
    """Show the meta information of the repository FQRN, or replace it.

    It is a JSON object: administrator, email, organisation, description, url, recommended
    servers, and whatever else there is to say. The revision stays the same, signed again.
    """
    if edit and source is not None:
        raise click.UsageError("--edit and --from are two ways: give one")
    if not edit and source is None:
        found = read_repository_info(session.locations, fqrn, now=session.now)
        session.output.line(json.dumps(found, indent=2))
        return
    if source is not None:
        wanted = parse_meta_info(_read(source))
    else:
        before = read_repository_info(session.locations, fqrn, now=session.now)
        wanted = edited(session, before, parse_meta_info)
    trusted = sign_trunk_again(session.locations, fqrn, meta_info=wanted, now=session.now)
    session.output.result(
        {"fqrn": fqrn, "meta_info": wanted, "object": str(trusted.manifest.meta_info)},
        f"{fqrn}: readers see the new meta information",
    )


def edited(
    session: Session, before: dict[str, Any], parse: Callable[[bytes], dict[str, Any]]
) -> dict[str, Any]:
    """Have a JSON object edited until it is one again. Raises click.Abort if nothing changed."""
    text = json.dumps(before, indent=2) + "\n"
    while True:
        changed = click.edit(text, extension=".json")
        if changed is None:
            raise click.Abort
        try:
            return parse(changed.encode())
        except FormatError as error:
            session.output.note(str(error))
            click.confirm("Edit it again?", default=True, abort=True, err=True)
            text = changed


def _read(file: Path) -> bytes:
    if file == _STDIN:
        return sys.stdin.buffer.read(MAX_BYTES + 1)
    with file.open("rb") as opened:
        return opened.read(MAX_BYTES + 1)
