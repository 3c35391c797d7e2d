"""`outcrop log`: the tags of a repository, or all its revisions."""

import contextlib
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any

import click

from outcrop.cli.command import Session
from outcrop.cli.entries import iso_time
from outcrop.cli.exit_codes import READING
from outcrop.cli.history_text import tag_fields
from outcrop.cli.output import Output, printable
from outcrop.cli.targets import TargetChoice, TargetCommand, connect_target
from outcrop.client.connection import Connection
from outcrop.formats.hashes import ContentHash
from outcrop.formats.history import Tag
from outcrop.repository.history import History
from outcrop.repository.revisions import RootCatalog, iter_revisions


@click.command(
    cls=TargetCommand,
    exits=READING,
    examples="""
outcrop log software.example.org
outcrop log software.example.org --branch fixes-1.x
outcrop log software.example.org --revisions -n 10
outcrop log --json http://stratum1.example.org/cvmfs/software.example.org
""",
)
@click.option("-n", "--limit", type=click.IntRange(min=1), metavar="N", help="Only the newest N.")
@click.option("-b", "--branch", metavar="NAME", help="Only tags of this branch.")
@click.option("--revisions", is_flag=True,
              help="All revisions of the trunk that are kept, tagged or not.")  # fmt: skip
@click.pass_obj
def command(
    session: Session, choice: TargetChoice, limit: int | None, branch: str | None, revisions: bool
) -> None:
    """List the tags of a repository, newest first: its history.

    TARGET is a URL, a repository's name, or the directory it is stored in. With --revisions the
    root catalog of every revision is fetched, one after the other, back to the oldest that is
    kept.
    """
    with contextlib.closing(connect_target(session, choice)) as connection:
        trusted = connection.source.fetch_manifest(now=session.now)
        history = connection.source.history(trusted)
        if revisions:
            root = trusted.manifest.root_catalog
            _print_revisions(session.output, islice(_chain(connection, root), limit), history)
            return
    known = [tag for tag in history.tags if branch is None or tag.branch == branch][:limit]
    if session.output.is_json:
        session.output.json_items(map(tag_fields, known))
    else:
        _table(session.output, known)


def _table(output: Output, tags: list[Tag]) -> None:
    width = max((len(printable(tag.name)) for tag in tags), default=0)
    for tag in tags:
        branch = f"[{printable(tag.branch)}] " if tag.branch else ""
        output.line(
            f"{tag.revision:>6}  {iso_time(tag.timestamp)}  {printable(tag.name):<{width}}  "
            f"{branch}{printable(tag.description)}".rstrip()
        )


def _chain(connection: Connection, root: ContentHash) -> Iterator[RootCatalog]:
    return iter_revisions(connection.source.opener, root)


def _print_revisions(output: Output, chain: Iterable[RootCatalog], history: History) -> None:
    names: dict[ContentHash, list[str]] = {}
    for tag in sorted(history.tags, key=lambda tag: tag.name):
        names.setdefault(tag.hash, []).append(tag.name)
    if output.is_json:
        output.json_items(_revision_fields(root, names.get(root.hash, [])) for root in chain)
        return
    for root in chain:
        known = printable(", ".join(names.get(root.hash, [])))
        output.line(
            f"{root.revision:>6}  {iso_time(root.published_at)}  {root.hash}  {known}".rstrip()
        )


def _revision_fields(root: RootCatalog, tags: list[str]) -> dict[str, Any]:
    return {
        "revision": root.revision,
        "published_at": iso_time(root.published_at),
        "root_hash": str(root.hash),
        "catalog_size": root.size,
        "tags": tags,
    }
