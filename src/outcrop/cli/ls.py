"""`outcrop ls`: list a directory."""

import os

import click

from outcrop.cli.command import Session
from outcrop.cli.entries import entry_fields, long_line
from outcrop.cli.exit_codes import READING
from outcrop.cli.output import shown
from outcrop.cli.targets import TargetChoice, TargetCommand, open_target


@click.command(
    cls=TargetCommand,
    exits=READING,
    examples="""
outcrop ls software.example.org
outcrop ls -l http://stratum1.example.org/cvmfs/software.example.org /bin --tag v1.0
outcrop ls --json /srv/cvmfs/software.example.org /lib
""",
)
@click.argument("path", type=os.fsencode, default="/")
@click.option("-l", "long", is_flag=True, help="Mode, links, owner, size and time, too.")
@click.option("-h", "--human", is_flag=True, help="With -l: sizes like 4.2 MB.")
@click.pass_obj
def command(session: Session, choice: TargetChoice, path: bytes, long: bool, human: bool) -> None:
    """List the directory PATH of a repository (by default its root), or one file.

    TARGET is a URL, a repository's name, or the directory it is stored in.
    """
    with open_target(session, choice) as opened:
        here = opened.resolve(path)
        entry = opened.revision.get(here)
        if entry.is_directory:
            found = [(here + b"/" + one.name, one) for one in opened.revision.entries(here)]
        else:
            found = [(here, entry)]
    output = session.output
    if output.is_json:
        output.json_items(entry_fields(where, one) for where, one in found)
    elif long:
        output.lines(long_line(one, human=human) for _, one in found)
    else:
        output.lines(shown(one.name) for _, one in found)
