"""Which repository and revision a command reads: the TARGET argument and its options."""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import click

from outcrop.cli.command import Command, Session, checked
from outcrop.client.connection import Connection, connect, find_target
from outcrop.formats.hashes import ContentHash
from outcrop.formats.timestamps import parse_utc
from outcrop.repository.tree import Revision


@dataclass(frozen=True, slots=True, kw_only=True)
class TargetChoice:
    """What the user said about the repository to read."""

    target: str
    fqrn: str | None
    keys: tuple[Path, ...]
    tag: str | None
    root_hash: str | None
    date: str | None
    proxy: str | None
    cache: Path | None
    no_cache: bool
    parameters: tuple[str, ...]

    @property
    def overrides(self) -> list[str]:
        """All of it that is a `CVMFS_*` parameter, named ones last."""
        named = {
            "CVMFS_REPOSITORY_TAG": self.tag,
            "CVMFS_ROOT_HASH": self.root_hash,
            "CVMFS_REPOSITORY_DATE": self.date,
            "CVMFS_HTTP_PROXY": self.proxy,
        }
        given = [f"{name}={value}" for name, value in named.items() if value is not None]
        return [*self.parameters, *given]


@dataclass(frozen=True, slots=True)
class Opened:
    """A repository at one revision, ready to be read."""

    connection: Connection
    revision: Revision

    def resolve(self, path: bytes) -> bytes:
        """The normalized path, symbolic links followed. Raises PathNotFound, TooManyLinks."""
        return self.revision.resolve(path, self.connection.parameters.environment())


@contextlib.contextmanager
def open_target(session: Session, choice: TargetChoice) -> Iterator[Opened]:
    """Open the repository the user chose, at the revision the user chose."""
    with contextlib.closing(connect_target(session, choice)) as connection:
        yield Opened(connection, connection.open(now=session.now))


def connect_target(session: Session, choice: TargetChoice) -> Connection:
    """Make the connection; nothing is fetched yet. The caller closes it."""
    return connect(
        find_target(choice.target, session.locations, fqrn=choice.fqrn),
        session.locations,
        overrides=choice.overrides,
        public_keys=choice.keys,
        cache_dir=choice.cache,
        use_cache=not choice.no_cache,
    )


class TargetCommand(Command):
    """A command on a repository: TARGET comes first, and the function gets a `choice`."""

    def __init__(self, name: str | None, **rest: Any) -> None:
        super().__init__(name, **rest)
        target = click.Argument(["target"])
        own, shared = self.params[: -len(self.shared)], self.shared
        self.params = [target, *own, *_options(), *shared]

    def invoke(self, ctx: click.Context) -> Any:
        """Run the function with the gathered choice."""
        values = {field.name: ctx.params.pop(field.name) for field in fields(TargetChoice)}
        ctx.params["choice"] = TargetChoice(**values)
        return super().invoke(ctx)


def _options() -> list[click.Option]:
    file = click.Path(exists=True, dir_okay=False, path_type=Path)
    directory = click.Path(file_okay=False, path_type=Path)
    return [
        click.Option(
            ["--key", "keys"], metavar="FILE", type=file, multiple=True,
            help="Public master key to believe instead of the configured ones; may be repeated.",
        ),
        click.Option(["--tag"], metavar="NAME", help="The revision with this tag."),
        click.Option(
            ["--hash", "root_hash"], metavar="HASH", callback=checked(ContentHash.parse),
            help="The revision with this root catalog.",
        ),
        click.Option(
            ["--date"], metavar="TIME", callback=checked(parse_utc),
            help="The newest tagged revision at YYYY-MM-DD[Thh:mm:ssZ], UTC.",
        ),
        click.Option(["--proxy"], metavar="PROXIES", help="As CVMFS_HTTP_PROXY, or DIRECT."),
        click.Option(["--cache"], metavar="DIR", type=directory, help="Cache directory to use."),
        click.Option(["--no-cache"], is_flag=True, help="Keep nothing on disk."),
        click.Option(
            ["-o", "parameters"], metavar="CVMFS_X=Y", multiple=True,
            help="Set a client parameter; may be repeated.",
        ),
        click.Option(["--fqrn"], metavar="NAME", help="Its name, where TARGET does not tell."),
    ]  # fmt: skip
