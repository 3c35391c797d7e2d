"""`outcrop masterkey`: keep the master key on a PKCS #11 token."""

from pathlib import Path

import click

from outcrop.cli.command import Command, Session, checked
from outcrop.cli.master_keys import token_options, token_settings
from outcrop.formats.fqrn import check_fqrn
from outcrop.publisher.master_key import open_token
from outcrop.publisher.session import read_key
from outcrop.trust.keys import load_public_keys


@click.command(
    cls=Command,
    exits=(6, 7),
    examples="""
outcrop masterkey store software.example.org --token /usr/lib/softhsm/libsofthsm2.so
outcrop masterkey check software.example.org --token /usr/lib/softhsm/libsofthsm2.so
""",
)
@click.argument("action", type=click.Choice(["store", "check", "delete"]))
@click.argument("fqrn", callback=checked(check_fqrn))
@click.option("--yes", is_flag=True, help="Do not ask before a key is deleted.")
@token_options
@click.pass_obj
def command(
    session: Session,
    action: str,
    fqrn: str,
    yes: bool,
    token: Path | None,
    token_label: str | None,
    key_label: str | None,
) -> None:
    """Store the master key of FQRN on a token, check that it is there, or delete it.

    A token signs and never gives the key away: once the key is on it, keep FQRN.masterkey
    off line and remove it from the key directory. `outcrop resign --token` signs with it.
    """
    if token is None:
        raise click.UsageError("--token LIBRARY says which token")
    card = token_settings(token, token_label, key_label)
    if action == "delete" and not yes:
        click.confirm(
            f"Delete the master key of {fqrn} from the token for good?", abort=True, err=True
        )
    with open_token(card, writable=action != "check") as master:
        if action == "store":
            master.store(read_key(session.locations, f"{fqrn}.masterkey"))
        elif action == "delete":
            master.delete()
        fits = action != "delete" and master.public_key() in load_public_keys(
            read_key(session.locations, f"{fqrn}.pub")
        )
    texts = {
        "store": f"the master key of {fqrn} is on the token",
        "check": f"the token's key {'is' if fits else 'is NOT'} the master key of {fqrn}",
        "delete": "the key is gone from the token",
    }
    session.output.result({"fqrn": fqrn, "action": action, "is_master_key": fits}, texts[action])
    if action == "check" and not fits:
        raise click.exceptions.Exit(7)
