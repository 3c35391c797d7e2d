"""`outcrop keys`: the keys of a repository, and new ones for it."""

from pathlib import Path
from typing import Any

import click

from outcrop.cli.command import Command, Session, checked
from outcrop.cli.master_keys import open_master_key, token_options, token_settings
from outcrop.formats.fqrn import check_fqrn
from outcrop.publisher.keyring import describe_keys, roll_over
from outcrop.publisher.settings import StratumZeroSettings
from outcrop.publisher.whitelisting import DEFAULT_DAYS
from outcrop.storage.upstream import open_store


@click.command(
    cls=Command,
    exits=(4, 5, 6, 7, 9),
    examples="""
outcrop keys software.example.org
outcrop keys software.example.org --roll-over
""",
)
@click.argument("fqrn", callback=checked(check_fqrn))
@click.option("--roll-over", "wants_new", is_flag=True,
              help="Replace the repository key and its certificate.")  # fmt: skip
@click.option("-d", "--days", type=click.IntRange(1), default=DEFAULT_DAYS, show_default=True,
              metavar="N", help="How long the whitelist is good for that lists both.")  # fmt: skip
@token_options
@click.pass_obj
def command(
    session: Session,
    fqrn: str,
    wants_new: bool,
    days: int,
    token: Path | None,
    token_label: str | None,
    key_label: str | None,
) -> None:
    """Show which keys of the repository FQRN are here; with --roll-over make new ones.

    A roll-over replaces the key that signs revisions, after a machine or a person was let go, for
    example. Readers notice nothing: the whitelist lists both certificates until the next
    `outcrop resign`. The master key stays, for readers have its public half.
    """
    settings = StratumZeroSettings.read(session.locations, fqrn)
    if wants_new:
        card = token_settings(token, token_label, key_label) if token is not None else None
        store = open_store(settings.upstream)
        with open_master_key(session.locations, fqrn, card) as master:
            roll_over(session.locations, settings, store, master, now=session.now, days=days)
        session.output.note(f"{fqrn}: new revisions are signed with the new key")
    states = describe_keys(session.locations, fqrn, settings)
    fields: dict[str, Any] = {
        state.file.suffix[1:]: {
            "file": str(state.file), "is_here": state.is_here, "detail": state.detail
        }
        for state in states
    }  # fmt: skip
    lines = [
        f"{state.file}: {state.role}; {state.detail if state.is_here else 'not here'}"
        for state in states
    ]
    session.output.result({"fqrn": fqrn, "keys": fields}, "\n".join(lines))
