"""`outcrop exec`: run a command that sees repositories under /cvmfs."""

import contextlib
import dataclasses
from pathlib import Path

import click

from outcrop.cli.command import Session
from outcrop.cli.exit_codes import READING
from outcrop.cli.targets import TargetChoice, TargetCommand, connect_target
from outcrop.client.mounting import MountedRepository
from outcrop.fuse.namespace import run_in_namespace


@click.command(
    cls=TargetCommand,
    exits=(*READING, 8, 126, 127),
    examples="""
outcrop exec software.example.org -- /cvmfs/software.example.org/bin/tool --option
outcrop exec software.example.org,data.example.org -- bash
outcrop exec http://stratum1.example.org/cvmfs/software.example.org --key software.pub -- bash
""",
)
@click.argument("command_line", nargs=-1, required=True, type=click.UNPROCESSED,
                metavar="-- COMMAND...")  # fmt: skip
@click.pass_obj
def command(session: Session, choice: TargetChoice, command_line: tuple[str, ...]) -> int:
    """Run COMMAND where the repositories TARGET[,TARGET...] are mounted under /cvmfs.

    Needs no privilege and no /cvmfs on the machine: the mounts are in a namespace of their own,
    seen by COMMAND and what it starts, and end with it. The exit code is that of COMMAND.
    """
    with contextlib.ExitStack() as stack:
        mounted: list[MountedRepository] = []
        for target in choice.target.split(","):
            one = dataclasses.replace(choice, target=target)
            connection = stack.enter_context(contextlib.closing(connect_target(session, one)))
            place = Path("/cvmfs") / connection.target.fqrn
            mounted.append(MountedRepository(connection, connection.open(now=session.now), place))
        return run_in_namespace(
            [(str(one.state.mountpoint), one.view.revision.fqrn) for one in mounted],
            list(command_line),
            serve=lambda index, fd: mounted[index].serve(fd, ready=lambda: None),
        )
