"""`outcrop rollback`: publish an old revision again, as the newest."""

import contextlib

import click

from outcrop.cli.command import Command, Session, checked
from outcrop.cli.history_text import tag_fields
from outcrop.cli.output import printable
from outcrop.client.connection import connect, find_target
from outcrop.formats.fqrn import check_fqrn
from outcrop.publisher.rollback import find_target as find_rollback_target
from outcrop.publisher.rollback import roll_back


@click.command(
    cls=Command,
    exits=(3, 4, 5, 6, 7, 9),
    examples="""
outcrop rollback software.example.org
outcrop rollback software.example.org --tag v1.0
""",
)
@click.argument("fqrn", callback=checked(check_fqrn))
@click.option("-t", "--tag", metavar="NAME", help="What to go back to.  [default: what was before]")
@click.option("-f", "--yes", is_flag=True, help="Do not ask.")
@click.pass_obj
def command(session: Session, fqrn: str, tag: str | None, yes: bool) -> None:
    """Make the content of an older revision of FQRN the newest revision.

    Without a tag the last publish is undone, once. Tags newer than the one gone back to are
    removed, and that tag moves to the new revision; revisions that have no tag any more go with
    the next garbage collection.
    """
    if not yes:
        _ask(session, fqrn, tag)
    done = roll_back(session.locations, fqrn, tag=tag, now=session.now)
    manifest = done.manifest.manifest
    names = [one.name for one in done.removed]
    session.output.result(
        {
            "fqrn": fqrn,
            "revision": manifest.revision,
            "root_hash": str(manifest.root_catalog),
            "target": tag_fields(done.target),
            "removed": [tag_fields(one) for one in done.removed],
        },
        f"{fqrn} revision {manifest.revision} is what revision {done.target.revision} was"
        + (f"; removed: {printable(', '.join(names))}" if names else ""),
    )


def _ask(session: Session, fqrn: str, tag: str | None) -> None:
    """Show what would happen, and let the user decide."""
    target = find_target(fqrn, session.locations)
    with contextlib.closing(connect(target, session.locations, use_cache=False)) as connection:
        trusted = connection.source.fetch_manifest(now=session.now)
        history = connection.source.history(trusted)
    revision = trusted.manifest.revision
    wanted = find_rollback_target(history, fqrn, tag, trunk_revision=revision)
    gone = [one.name for one in history.tags if not one.branch and one.revision > wanted.revision]
    session.output.note(f"{fqrn} is at revision {revision}; these tags will be removed:")
    for name in gone:
        session.output.note(f"  {printable(name)}")
    click.confirm(f"Go back to revision {wanted.revision}?", abort=True, err=True)
