"""`outcrop enter`: try out changes to any repository, for oneself alone."""

import contextlib
import dataclasses
import os
import tempfile
from pathlib import Path

import click

from outcrop.cli.command import Session
from outcrop.cli.exit_codes import READING
from outcrop.cli.targets import TargetChoice, TargetCommand, connect_target
from outcrop.cli.transactions import shell_command
from outcrop.client.connection import Connection
from outcrop.client.mounting import MountedRepository
from outcrop.fuse.errors import MountpointBusy
from outcrop.fuse.namespace import run_in_namespace
from outcrop.fuse.overlay import WritableLayer


@click.command(
    cls=TargetCommand,
    exits=(*READING, 8, 126, 127),
    examples="""
outcrop enter software.example.org
outcrop enter software.example.org --session ~/try -- make install
""",
)
@click.argument("command_line", nargs=-1, type=click.UNPROCESSED, metavar="[-- COMMAND...]")
@click.option("--session", "kept", metavar="DIR", type=click.Path(file_okay=False, path_type=Path),
              help="Keep the changes there, and go on with those that are there.")  # fmt: skip
@click.pass_obj
def command(
    session: Session, choice: TargetChoice, command_line: tuple[str, ...], kept: Path | None
) -> int:
    """Run COMMAND (or a shell) where the repository TARGET can be written to, below /cvmfs.

    Nobody else sees the changes, and nothing is published: they are gone at the end, unless they
    are kept in a directory. Needs neither privileges nor keys; /cvmfs need not exist. To publish
    what is changed: outcrop transaction --shell.
    """
    words = shell_command(command_line)
    with contextlib.ExitStack() as stack:
        if kept is None:
            kept = Path(stack.enter_context(_directory(session)))
        layer = WritableLayer(upper=kept / "upper", work=kept / "work", has_user_attributes=True)
        for directory in (layer.upper, layer.work):
            directory.mkdir(parents=True, exist_ok=True)
        connection = stack.enter_context(contextlib.closing(_connect_as_owner(session, choice)))
        place = Path("/cvmfs") / connection.target.fqrn
        mounted = MountedRepository(connection, connection.open(now=session.now), place)
        try:
            return run_in_namespace(
                [(str(place), connection.target.fqrn)],
                words,
                serve=lambda _, fd: mounted.serve(fd, ready=lambda: None),
                layers={str(place): layer},
            )
        except MountpointBusy as error:
            session.output.note(f"outcrop: warning: {error}")
            return 1


def _directory(session: Session) -> "tempfile.TemporaryDirectory[str]":
    """A place for the changes of this time only, beside our other files."""
    session.locations.run.mkdir(parents=True, exist_ok=True)
    return tempfile.TemporaryDirectory(prefix="enter-", dir=session.locations.run)


def _connect_as_owner(session: Session, choice: TargetChoice) -> Connection:
    """Connect so that everything may be changed, and nothing changes beneath."""
    parameters = ["CVMFS_AUTO_UPDATE=no", "CVMFS_MAGIC_XATTRS_VISIBILITY=never"]
    if os.geteuid() != 0:
        parameters.append("CVMFS_CLAIM_OWNERSHIP=yes")
    return connect_target(
        session, dataclasses.replace(choice, parameters=(*choice.parameters, *parameters))
    )
