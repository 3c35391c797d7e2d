"""`outcrop list`: the repositories that are published or replicated here."""

from dataclasses import asdict

import click

from outcrop.cli.command import Command, Session
from outcrop.publisher.administration import LocalRepository, list_repositories


@click.command(cls=Command, examples="outcrop list")
@click.pass_obj
def command(session: Session) -> None:
    """List the repositories that are published or replicated here."""
    found = list_repositories(session.locations)
    if session.output.is_json:
        session.output.json_items(asdict(one) for one in found)
    else:
        session.output.lines(_line(one) for one in found)


def _line(one: LocalRepository) -> str:
    if one.problem:
        return f"{one.fqrn} ({one.problem})"
    where = one.upstream.partition(",")[0] or "local"
    doing = " - in transaction" if one.is_in_transaction else ""
    return f"{one.fqrn} ({one.kind} / {where}){doing}"
