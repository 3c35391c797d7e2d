"""`outcrop mount`: mount a repository."""

from pathlib import Path

import click

from outcrop.cli.command import Session
from outcrop.cli.exit_codes import READING
from outcrop.cli.mountpoints import locate
from outcrop.cli.targets import TargetChoice, TargetCommand, connect_target
from outcrop.client.mounting import serve_mount, start_mount


@click.command(
    cls=TargetCommand,
    exits=(*READING, 8),
    examples="""
outcrop mount software.example.org /cvmfs/software.example.org
outcrop mount http://stratum1.example.org/cvmfs/software.example.org mnt --key software.pub
outcrop mount software.example.org mnt --tag v1.0 -o CVMFS_QUOTA_LIMIT=10000
""",
)
@click.argument("mountpoint", type=locate)
@click.option("-f", "--foreground", is_flag=True, help="Stay, and unmount at Ctrl-C.")
@click.option(
    "--allow-other/--no-allow-other", default=None,
    help="Whether other users may look in.  [default: for root they may]",
)  # fmt: skip
@click.pass_obj
def command(
    session: Session,
    choice: TargetChoice,
    mountpoint: Path,
    foreground: bool,
    allow_other: bool | None,
) -> None:
    """Mount a repository on the directory MOUNTPOINT; returns when it can be used.

    TARGET is a URL, a repository's name, or the directory it is stored in. New revisions appear
    by themselves, unless one was chosen with --tag, --hash or --date. A mount point left dead by
    a crash is repaired. The trunk is looked up anew every few minutes; `outcrop remount` does it
    now.
    """
    if foreground:
        connection = connect_target(session, choice)
        session.output.note(f"mounting {connection.target.fqrn} on {mountpoint}")
        serve_mount(connection, mountpoint, session.locations, allow_other=allow_other)
        return
    record = start_mount(
        lambda: connect_target(session, choice),
        mountpoint,
        session.locations,
        allow_other=allow_other,
    )
    fields = {"fqrn": record.fqrn, "mountpoint": record.mountpoint, "pid": record.pid}
    session.output.result(fields, f"{record.fqrn} is mounted on {record.mountpoint}")
