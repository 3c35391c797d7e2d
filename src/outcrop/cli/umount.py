"""`outcrop umount`: unmount a repository."""

from pathlib import Path

import click

from outcrop.cli.command import Command, Session
from outcrop.cli.mountpoints import mountpoints_argument
from outcrop.client.mounting import end_mount


@click.command(
    cls=Command,
    exits=(8,),
    examples="""
outcrop umount /cvmfs/software.example.org
outcrop umount --lazy mnt
""",
)
@mountpoints_argument(required=True)
@click.option("-l", "--lazy", is_flag=True, help="Detach now, even while files are open.")
@click.pass_obj
def command(session: Session, mountpoints: tuple[Path, ...], lazy: bool) -> None:
    """Unmount what is mounted on MOUNTPOINT, and return when its server has ended.

    A mount whose server died is cleared away.
    """
    for mountpoint in mountpoints:
        end_mount(session.locations, mountpoint, lazy=lazy)
    session.output.result({"unmounted": [str(mountpoint) for mountpoint in mountpoints]}, "")
