"""`outcrop chown`: give everything in a repository other owners, by maps."""

from pathlib import Path
from typing import Any

import click

from outcrop.cli.catalog_edits import EXITS, publish_edit, publishing_options
from outcrop.cli.command import Command, Session, checked
from outcrop.errors import FormatError
from outcrop.formats.fqrn import check_fqrn
from outcrop.formats.id_map import MAX_CHARACTERS, IdMap
from outcrop.publisher.migrate import change_owners, maintain

_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


@click.command(
    cls=Command,
    exits=EXITS,
    examples="""
outcrop chown software.example.org -u users.map -g groups.map
""",
)
@click.argument("fqrn", callback=checked(check_fqrn))
@click.option("-u", "--uid-map", metavar="FILE", type=_FILE, help="`OLD NEW` or `* NEW` lines.")
@click.option("-g", "--gid-map", metavar="FILE", type=_FILE, help="The same for groups.")
@publishing_options
@click.pass_obj
def command(
    session: Session, /, fqrn: str, uid_map: Path | None, gid_map: Path | None, **given: Any
) -> None:
    """Change the owners of all entries of the repository FQRN by maps, as a new revision.

    Numbers that no line names stay as they are, unless there is a line with `*`.
    """
    if uid_map is None and gid_map is None:
        raise click.UsageError("nothing to change: give --uid-map or --gid-map")
    edit = change_owners(_read_map(uid_map), _read_map(gid_map))
    publish_edit(
        session,
        fqrn,
        given,
        lambda options, update: maintain(
            session.locations, fqrn, edit, options=options, now=session.now, progress=update
        ),
    )


def _read_map(file: Path | None) -> IdMap:
    if file is None:
        return IdMap()
    with file.open(encoding="utf-8", errors="replace") as opened:
        try:
            return IdMap.parse(opened.read(MAX_CHARACTERS))
        except FormatError as error:
            raise FormatError(f"{file}: {error}") from error
