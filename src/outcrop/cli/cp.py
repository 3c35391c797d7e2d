"""`outcrop cp`: copy files and directories out of a repository."""

import os
from dataclasses import asdict
from pathlib import Path

import click

from outcrop.cli.command import Session
from outcrop.cli.entries import human_size
from outcrop.cli.exit_codes import READING
from outcrop.cli.progress import Update, progress_bar
from outcrop.cli.targets import TargetChoice, TargetCommand, open_target
from outcrop.client.copying import CopyResult, Progress, copy_tree


@click.command(
    cls=TargetCommand,
    exits=READING,
    examples="""
outcrop cp software.example.org /etc/profile .
outcrop cp http://stratum1.example.org/cvmfs/software.example.org /lib/python3.11 /tmp/python
outcrop cp software.example.org / backup --tag v1.0
""",
)
@click.argument("path", type=os.fsencode)
@click.argument("destination", type=click.Path(path_type=Path))
@click.pass_obj
def command(session: Session, choice: TargetChoice, path: bytes, destination: Path) -> None:
    """Copy the file or directory PATH of a repository to DESTINATION.

    Into DESTINATION, if it is a directory and PATH names something; a whole repository (PATH /)
    goes to DESTINATION itself. Modes, times, symbolic links, hard links and extended attributes
    are kept; owners and devices only by root. A link given as PATH is followed, links found below
    it are copied.
    """
    with open_target(session, choice) as opened, progress_bar(session.output) as update:
        source = opened.resolve(path)
        place = _place(destination, os.fsdecode(path))
        done = copy_tree(opened.revision, source, place, progress=_shown(update))
    skipped = f", {done.skipped} not allowed to be made" if done.skipped else ""
    session.output.result(
        {"destination": str(place), **asdict(done)},
        f"copied {done.files} files, {done.directories} directories, {done.others} others, "
        f"{human_size(done.bytes)}{skipped}",
    )


def _place(destination: Path, path: str) -> Path:
    """Where the copy goes: inside a directory that is there, unless the path names nothing."""
    name = path.rstrip("/").rpartition("/")[2]
    if not destination.is_dir():
        return destination.absolute()
    return destination.resolve() / ("" if name in (".", "..") else name)


def _shown(update: Update) -> Progress:
    def show(result: CopyResult) -> None:
        update("copying files", result.files, None)

    return show
