"""`outcrop resign`: sign the whitelist anew before it expires."""

from datetime import UTC, datetime
from pathlib import Path

import click

from outcrop.cli.command import Command, Session, checked
from outcrop.cli.master_keys import open_master_key, token_options, token_settings
from outcrop.formats.fqrn import check_fqrn
from outcrop.publisher.settings import StratumZeroSettings
from outcrop.publisher.whitelisting import DEFAULT_DAYS, resign
from outcrop.storage.upstream import open_store


@click.command(
    cls=Command,
    exits=(4, 5, 6, 7),
    examples="""
outcrop resign software.example.org
outcrop resign software.example.org tools.example.org --days 14
outcrop resign software.example.org --token /usr/lib/softhsm/libsofthsm2.so
""",
)
@click.argument("fqrns", metavar="FQRN...", nargs=-1, required=True, callback=checked(check_fqrn))
@click.option("-d", "--days", type=click.IntRange(1), default=DEFAULT_DAYS, show_default=True,
              metavar="N", help="How long the whitelist is good for.")  # fmt: skip
@token_options
@click.pass_obj
def command(
    session: Session,
    fqrns: tuple[str, ...],
    days: int,
    token: Path | None,
    token_label: str | None,
    key_label: str | None,
) -> None:
    """Sign the whitelists of repositories anew, with their master keys.

    Readers refuse a repository whose whitelist is expired, so run this from cron, well before. A
    whitelist lists the one certificate of the key directory; it is replaced at once, also while a
    transaction is open.
    """
    card = token_settings(token, token_label, key_label) if token is not None else None
    signed = []
    for fqrn in fqrns:
        settings = StratumZeroSettings.read(session.locations, fqrn)
        store = open_store(settings.upstream)
        with open_master_key(session.locations, fqrn, card) as master:
            signed.append(
                resign(session.locations, settings, store, master, now=session.now, days=days)
            )
    if session.output.is_json:
        session.output.json_items(
            {"fqrn": one.fqrn, "expires_at": one.expires_at, "fingerprints": list(one.fingerprints)}
            for one in signed
        )
        return
    for one in signed:
        at = datetime.fromtimestamp(one.expires_at, UTC)
        session.output.line(f"{one.fqrn}: the whitelist is good until {at:%Y-%m-%d %H:%M} UTC")
