"""What the commands of a transaction share: how its revision is mounted, how it is asked about."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from outcrop.cli.command import Session
from outcrop.client.connection import Connection, Target, connect
from outcrop.client.mounting import MountedRepository, start_mount
from outcrop.formats.hashes import ContentHash
from outcrop.fuse.errors import CommandNotFound
from outcrop.publisher.settings import StratumZeroSettings
from outcrop.publisher.transaction_area import Transaction


class PinnedMounts:
    """Mounts revisions of repositories published here, each in a background process."""

    def __init__(self, session: Session, fqrn: str) -> None:
        self._session = session
        self._fqrn = fqrn

    def mount(self, mountpoint: Path, root_hash: ContentHash) -> None:
        """Show one revision for reading; returns when it can be used."""
        start_mount(
            lambda: connect_to_published(self._session, self._fqrn, root_hash),
            mountpoint,
            self._session.locations,
        )


def connect_to_published(
    session: Session, fqrn: str, root_hash: ContentHash, *, claims: bool = False
) -> Connection:
    """Connect to a revision of a repository published here; what is shown is what will be copied.

    With `claims` everything is shown as belonging to whoever looks.
    """
    settings = StratumZeroSettings.read(session.locations, fqrn)
    target = Target(fqrn, fqrn, urls=(settings.stratum0_url,))
    if settings.upstream.directory is not None:
        target = Target(fqrn, fqrn, directory=settings.upstream.directory)
    overrides = {
        "CVMFS_ROOT_HASH": str(root_hash),
        "CVMFS_MAGIC_XATTRS_VISIBILITY": "never",
        "CVMFS_CLAIM_OWNERSHIP": "yes" if claims else "no",
    }
    return connect(
        target,
        session.locations,
        overrides=[f"{name}={value}" for name, value in overrides.items()],
        public_keys=[session.locations.keys / f"{fqrn}.pub"],
        cache_dir=settings.spool / "cache",
    )


@contextlib.contextmanager
def shown_in_namespace(
    session: Session, fqrn: str, root_hash: ContentHash, union: Path
) -> Iterator[MountedRepository]:
    """A revision ready to be served to a shell that may change its copy."""
    claims = os.geteuid() != 0
    connection = connect_to_published(session, fqrn, root_hash, claims=claims)
    with contextlib.closing(connection):
        yield MountedRepository(connection, connection.open(now=session.now), union)


def shell_command(command_line: tuple[str, ...]) -> list[str]:
    """The command to run, by default the user's shell. Raises CommandNotFound."""
    if command_line:
        return list(command_line)
    shell = os.environ.get("SHELL") or "/bin/sh"
    if not Path(shell).exists():
        raise CommandNotFound(f"there is no {shell} to run", hint="name a command after --")
    return [shell]


def transaction_fields(transaction: Transaction) -> dict[str, Any]:
    """A transaction as JSON."""
    return {
        "fqrn": transaction.fqrn,
        "open": True,
        "base_revision": transaction.revision,
        "base_root_hash": transaction.base,
        "directory": transaction.union,
        "begun_at": transaction.begun_at,
        "shell": transaction.is_shell,
        "templates": [list(template) for template in transaction.templates],
    }


def is_asked(question: str) -> bool:
    """Whether the user on the terminal says yes."""
    return click.confirm(question, err=True)
