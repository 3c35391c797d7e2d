"""Options that say where the master key is, for the commands that sign whitelists."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from outcrop.publisher.master_key import (
    FileMasterKey,
    MasterKey,
    TokenMasterKey,
    TokenSettings,
    open_token,
)
from outcrop.storage.locations import Locations

PIN_VARIABLE = "CVMFS_MASTERKEYCARD_PIN"


def token_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """`--token`, `--token-label` and `--key-label`."""
    for option in (
        click.option(
            "--key-label", metavar="LABEL", help="The key on the token, if it is not our label."
        ),
        click.option(
            "--token-label", metavar="LABEL", help="The token, if the library knows several."
        ),
        click.option(
            "--token",
            metavar="LIBRARY",
            type=click.Path(exists=True, dir_okay=False, path_type=Path),
            help="The PKCS #11 library of the token that has the master key; the PIN is in "
            f"${PIN_VARIABLE}, or asked for.",
        ),
    ):
        command = option(command)
    return command


def token_settings(
    token: Path, token_label: str | None, key_label: str | None
) -> TokenSettings:  # fmt: skip
    """What the options say, with the PIN from the environment or the terminal."""
    pin = os.environ.get(PIN_VARIABLE) or click.prompt(
        "PIN of the token", hide_input=True, err=True
    )
    return TokenSettings(token, pin, token_label, key_label)


@contextmanager
def open_master_key(
    locations: Locations, fqrn: str, settings: TokenSettings | None
) -> Iterator[MasterKey]:
    """The repository's master key: of the token if there is one, else of the key directory."""
    if settings is None:
        yield FileMasterKey.read(locations, fqrn)
        return
    token: TokenMasterKey
    with open_token(settings) as token:
        yield token
