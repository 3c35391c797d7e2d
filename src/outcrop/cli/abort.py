"""`outcrop abort`: drop an open transaction."""

import sys

import click

from outcrop.cli.command import Command, Session, checked
from outcrop.cli.hooked import hooked
from outcrop.cli.transactions import PinnedMounts, is_asked, transaction_fields
from outcrop.formats.fqrn import check_fqrn
from outcrop.publisher.transaction import abort_transaction, transaction_area


@click.command(
    cls=Command,
    exits=(3, 4, 5, 6, 7, 8, 9),
    examples="""
outcrop abort software.example.org
outcrop abort software.example.org -f
""",
)
@click.argument("fqrn", callback=checked(check_fqrn))
@click.option("-f", "--force", is_flag=True, help="Do not ask, and mind no files that are open.")
@click.pass_obj
def command(session: Session, fqrn: str, force: bool) -> None:
    """Drop everything that was changed in the open transaction of FQRN, and close it.

    Nothing of it was ever seen by readers. Works as well for what a crash left open.
    """
    area = transaction_area(session.locations, fqrn)
    area.get()
    if not force and sys.stdin.isatty() and not is_asked(f"Drop all changes to {fqrn}?"):
        raise click.Abort
    with hooked(session, "abort", fqrn):
        transaction = abort_transaction(
            session.locations,
            fqrn,
            mounter=PinnedMounts(session, fqrn),
            now=session.now,
            force=force,
        )
    session.output.result(
        transaction_fields(transaction) | {"open": False}, f"{fqrn}: the changes were dropped"
    )
