"""`outcrop diff`: what is different between two revisions."""

import contextlib
import os
from collections.abc import Iterator

import click

from outcrop.cli.command import Session
from outcrop.cli.differences import (
    MACHINE_HEADER,
    difference_fields,
    machine_line,
    statistics_lines,
    statistics_of,
    text_line,
)
from outcrop.cli.exit_codes import READING
from outcrop.cli.history_text import tag_fields, tag_time
from outcrop.cli.output import Output, printable, shown
from outcrop.cli.targets import TargetChoice, TargetCommand, connect_target
from outcrop.client.connection import Connection
from outcrop.formats.hashes import ObjectRef, Suffix
from outcrop.formats.history import TRUNK, TRUNK_PREVIOUS, Tag
from outcrop.repository.catalogs import CatalogTree
from outcrop.repository.diff import Aspect, Difference, diff_revisions
from outcrop.repository.revisions import resolve_revision


@click.command(
    cls=TargetCommand,
    exits=(*READING, 9),
    examples="""
outcrop diff software.example.org
outcrop diff software.example.org --from v1.0 --to v2.0
outcrop diff software.example.org --from '1 week ago' --machine-readable
outcrop diff software.example.org --worktree
""",
)
@click.option("-s", "--from", "source", metavar="REVISION", default=TRUNK_PREVIOUS,
              show_default=True, help="A tag, root hash, revision number or date.")  # fmt: skip
@click.option("-d", "--to", "destination", metavar="REVISION", default=TRUNK, show_default=True,
              help="Likewise.")  # fmt: skip
@click.option("-m", "--machine-readable", "machine", is_flag=True,
              help="One letter for everything, as cvmfs_server diff -m.")  # fmt: skip
@click.option("-h", "--header", is_flag=True, help="Say first what is compared.")
@click.option("-i", "--ignore-timediff", is_flag=True, help="Modification times do not matter.")
@click.option("-w", "--worktree", is_flag=True,
              help="What an open transaction would publish; TARGET is its repository.")  # fmt: skip
@click.option("--statistics", is_flag=True, help="Only how many more there are of each kind.")
@click.pass_obj
def command(
    session: Session,
    choice: TargetChoice,
    source: str,
    destination: str,
    machine: bool,
    header: bool,
    ignore_timediff: bool,
    worktree: bool,
    statistics: bool,
) -> None:
    """List what is different between two revisions of a repository, without a mount.

    TARGET is a URL, a repository's name, or the directory it is stored in. Only catalogs that
    differ are fetched. A date stands for the newest tagged revision at that time.
    """
    if worktree:
        _print_worktree(session, choice.target)
        return
    with contextlib.closing(connect_target(session, choice)) as connection:
        old, new = _resolve(session, connection, (source, destination))
        opener = connection.source.opener
        before, after = (
            CatalogTree(opener, ObjectRef(tag.hash, Suffix.CATALOG, size=tag.size or None))
            for tag in (old, new)
        )
        delta = statistics_of(before.root.statistics.total, after.root.statistics.total)
        found = _relevant(diff_revisions(before, after), ignore_times=ignore_timediff)
        if session.output.is_json:
            _json(session.output, (old, new), delta, found, only_statistics=statistics)
            return
        if header:
            session.output.line(MACHINE_HEADER if machine else _delta(old, new))
        session.output.lines(statistics_lines(delta, is_machine=machine))
        if not statistics:
            lines = machine_line if machine else text_line
            # Upstream compares what is in the root directory, not itself.
            session.output.lines(lines(one) for one in found if one.path or not machine)


def _print_worktree(session: Session, fqrn: str) -> None:
    """Publish an open transaction without effect, and print what is told of it."""
    from outcrop.cli.transactions import PinnedMounts  # publishers have the packages for it
    from outcrop.publisher.options import PublishOptions
    from outcrop.publisher.transaction import publish_transaction

    found: list[dict[str, str]] = []

    def tell(change: str, path: bytes) -> None:
        if session.output.is_json:
            found.append({"path": os.fsdecode(path or b"/"), "change": change})
        else:
            session.output.line(f"[{change}] {shown(path or b'/')}")

    options = PublishOptions(dry_run=True, on_change=tell, tag=f"worktree-{session.now}")
    publish_transaction(
        session.locations,
        fqrn,
        mounter=PinnedMounts(session, fqrn),
        options=options,
        now=session.now,
        force=True,
    )
    if session.output.is_json:
        session.output.json_items(found)


def _resolve(session: Session, connection: Connection, texts: tuple[str, str]) -> tuple[Tag, Tag]:
    trusted = connection.source.fetch_manifest(now=session.now)
    history = connection.source.history(trusted)
    trunk = trusted.manifest.root_catalog
    opener = connection.source.opener
    old, new = (resolve_revision(opener, history, trunk, text, now=session.now) for text in texts)
    return old, new


def _relevant(found: Iterator[Difference], *, ignore_times: bool) -> Iterator[Difference]:
    for difference in found:
        if not ignore_times or difference.aspects != Aspect.MTIME:
            yield difference


def _delta(old: Tag, new: Tag) -> str:
    before, after = (
        f"{printable(tag.name)}/r{tag.revision} ({tag_time(tag.timestamp)})" for tag in (old, new)
    )
    return f"DELTA: {before} --> {after}"


def _json(
    output: Output,
    tags: tuple[Tag, Tag],
    delta: dict[str, int],
    found: Iterator[Difference],
    *,
    only_statistics: bool,
) -> None:
    """Statistics are one document; differences an array, an element a line, as they are found."""
    if only_statistics:
        old, new = map(tag_fields, tags)
        output.json({"from": old, "to": new, "statistics": delta})
    else:
        output.json_items(map(difference_fields, found))
