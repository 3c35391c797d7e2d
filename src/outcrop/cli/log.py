"""`outcrop log`: the tags of a repository."""

import click

from outcrop.cli.command import Session
from outcrop.cli.entries import iso_time
from outcrop.cli.exit_codes import READING
from outcrop.cli.output import Output, printable
from outcrop.cli.targets import TargetChoice, TargetCommand, connect_target
from outcrop.formats.history import Tag


@click.command(
    cls=TargetCommand,
    exits=READING,
    examples="""
outcrop log software.example.org
outcrop log --json http://stratum1.example.org/cvmfs/software.example.org
""",
)
@click.option("-n", "--limit", type=click.IntRange(min=1), metavar="N", help="Only the newest N.")
@click.pass_obj
def command(session: Session, choice: TargetChoice, limit: int | None) -> None:
    """List the tags of a repository, newest first: its history.

    TARGET is a URL, a repository's name, or the directory it is stored in.
    """
    connection = connect_target(session, choice)
    try:
        trusted = connection.source.fetch_manifest(now=session.now)
        tags = connection.source.history(trusted).tags[:limit]
    finally:
        connection.close()
    if session.output.is_json:
        session.output.json_items(
            {
                "name": tag.name,
                "revision": tag.revision,
                "published_at": iso_time(tag.timestamp),
                "root_hash": str(tag.hash),
                "branch": tag.branch,
                "description": tag.description,
            }
            for tag in tags
        )
    else:
        _table(session.output, tags)


def _table(output: Output, tags: tuple[Tag, ...]) -> None:
    width = max((len(printable(tag.name)) for tag in tags), default=0)
    for tag in tags:
        output.line(
            f"{tag.revision:>6}  {iso_time(tag.timestamp)}  {printable(tag.name):<{width}}  "
            f"{printable(tag.description)}".rstrip()
        )
