"""`outcrop cat`: print files."""

import os
import shutil
import sys

import click

from outcrop.cli.command import Session
from outcrop.cli.exit_codes import READER_GONE, READING
from outcrop.cli.targets import TargetChoice, TargetCommand, open_target

_BLOCK_BYTES = 1 << 20


@click.command(
    cls=TargetCommand,
    exits=(*READING, READER_GONE),
    examples="""
outcrop cat software.example.org /etc/profile
outcrop cat http://stratum1.example.org/cvmfs/software.example.org /data/a.csv | wc -l
""",
)
@click.argument("paths", type=os.fsencode, nargs=-1, required=True, metavar="PATH...")
@click.pass_obj
def command(session: Session, choice: TargetChoice, paths: tuple[bytes, ...]) -> None:
    """Print the files PATH of a repository, one after the other; links are followed.

    Every block is printed only after the hash of its chunk was checked. With --json only an error
    is JSON, the content stays as it is.
    """
    with open_target(session, choice) as opened:
        sys.stdout.flush()
        for path in paths:
            with opened.revision.open(opened.resolve(path)) as file:
                shutil.copyfileobj(file, sys.stdout.buffer, _BLOCK_BYTES)
