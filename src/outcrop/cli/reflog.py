"""`outcrop reflog`: the list of all stored revisions."""

from datetime import UTC, datetime

import click

from outcrop.cli.command import Command, Session, checked
from outcrop.cli.progress import progress_bar
from outcrop.formats.fqrn import check_fqrn
from outcrop.formats.reflog import Ref, RefType
from outcrop.publisher.inspection import list_reflog, rebuild_reflog


@click.command(
    cls=Command,
    exits=(3, 4, 5, 6, 7, 9),
    examples="""
outcrop reflog software.example.org
outcrop reflog software.example.org rebuild
""",
)
@click.argument("fqrn", callback=checked(check_fqrn))
@click.argument("action", type=click.Choice(["list", "rebuild"]), default="list")
@click.pass_obj
def command(session: Session, fqrn: str, action: str) -> None:
    """List the root objects of the repository FQRN, newest first, or find them all again.

    The reflog is what garbage collection goes by: each root catalog, tag database, certificate
    and meta information that is stored, and when it got there. One that is missing or damaged is
    rebuilt from the trunk, the tags and all their predecessors.
    """
    if action == "list":
        refs = list_reflog(session.locations, fqrn, now=session.now)
    else:
        with progress_bar(session.output) as update:
            refs = rebuild_reflog(session.locations, fqrn, now=session.now, progress=update)
    if session.output.is_json:
        session.output.json_items(
            {"hash": str(ref.hash), "type": _kind(ref.type), "recorded_at": ref.timestamp}
            for ref in refs
        )
    elif action == "list":
        session.output.lines(map(_line, refs))
    else:
        revisions = sum(ref.type is RefType.CATALOG for ref in refs)
        session.output.line(f"{fqrn}: {revisions} revisions found, {len(refs)} root objects")


def _line(ref: Ref) -> str:
    at = datetime.fromtimestamp(ref.timestamp, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return f"{at}  {ref.hash}{ref.type.suffix}  {_kind(ref.type)}"


def _kind(kind: RefType) -> str:
    return kind.name.lower().replace("_", " ")
