"""`outcrop rmfs`: remove a repository from this machine."""

import click

from outcrop.cli.command import Command, Session, checked
from outcrop.formats.fqrn import check_fqrn
from outcrop.publisher.administration import remove_repository


@click.command(
    cls=Command,
    exits=(5, 6, 7, 9),
    examples="""
outcrop rmfs software.example.org
outcrop rmfs software.example.org --keep-data --yes
""",
)
@click.argument("fqrn", callback=checked(check_fqrn))
@click.option("-p", "--keep-data", is_flag=True, help="Only settings and spool area go.")
@click.option("-f", "--yes", is_flag=True, help="Do not ask.")
@click.pass_obj
def command(session: Session, fqrn: str, keep_data: bool, yes: bool) -> None:
    """Delete the repository FQRN: its stored files, settings and spool area.

    Its keys stay in the key directory: without the master key no repository of that name can ever
    be signed again. Nothing else keeps what was published.
    """
    if not yes:
        what = "settings and spool area" if keep_data else "content, history and settings"
        click.confirm(f"Delete {what} of {fqrn}?", abort=True, err=True)
    removed = remove_repository(session.locations, fqrn, keep_data=keep_data)
    keys = [str(file) for file in removed.kept_keys]
    session.output.result(
        {"fqrn": fqrn, "kept_data": keep_data, "kept_keys": keys},
        f"{fqrn} is gone" + (f"; its keys are still there: {', '.join(keys)}" if keys else ""),
    )
