"""`outcrop alterfs`: what a repository allows others."""

import click

from outcrop.cli.command import Command, Session, checked
from outcrop.formats.fqrn import check_fqrn
from outcrop.publisher.administration import set_replicable
from outcrop.publisher.settings import StratumZeroSettings
from outcrop.storage.upstream import open_store


@click.command(
    cls=Command, exits=(5, 6, 7), examples="outcrop alterfs software.example.org --replicable off"
)
@click.argument("fqrn", callback=checked(check_fqrn))
@click.option("-m", "--replicable", type=click.Choice(["on", "off"]), required=True,
              help="Whether stratum 1 servers may replicate it.")  # fmt: skip
@click.pass_obj
def command(session: Session, fqrn: str, replicable: str) -> None:
    """Allow or forbid that stratum 1 servers replicate the repository FQRN."""
    settings = StratumZeroSettings.read(session.locations, fqrn)
    store = open_store(settings.upstream)
    set_replicable(store, is_replicable=replicable == "on")
    can = "can" if replicable == "on" else "cannot"
    session.output.result(
        {"fqrn": fqrn, "replicable": replicable == "on"},
        f"{fqrn} {can} be replicated by stratum 1 servers",
    )
