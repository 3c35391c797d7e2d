"""`outcrop tag`: list, set, move and remove the names of revisions."""

import contextlib

import click

from outcrop.cli.command import Command, Session, checked
from outcrop.cli.history_text import branch_lines, tag_details, tag_fields, tag_table
from outcrop.cli.output import printable
from outcrop.client.connection import connect, find_target
from outcrop.formats.fqrn import check_fqrn
from outcrop.formats.hashes import ContentHash
from outcrop.formats.history import check_tag_name
from outcrop.publisher.tags import EditedTags, WantedTag, edit_tags
from outcrop.repository.history import History


@click.command(
    cls=Command,
    exits=(3, 4, 5, 6, 7, 9),
    examples="""
outcrop tag software.example.org
outcrop tag software.example.org --add v1.0 -m "First release"
outcrop tag software.example.org --add stable --revision 12
outcrop tag software.example.org --remove old older oldest
""",
)
@click.argument("fqrn", callback=checked(check_fqrn))
@click.argument("more", metavar="[NAME]...", nargs=-1)
@click.option("-a", "--add", multiple=True, metavar="NAME", callback=checked(check_tag_name),
              help="Name the trunk, or the revision given; may be repeated.")  # fmt: skip
@click.option("-m", "--message", metavar="TEXT", default="", help="Describe what is added.")
@click.option("-h", "--hash", "root_hash", metavar="HASH", callback=checked(ContentHash.parse),
              help="Name the revision with this root; an existing tag moves.")  # fmt: skip
@click.option("--revision", type=click.IntRange(min=0), metavar="N",
              help="Name the revision with this number; an existing tag moves.")  # fmt: skip
@click.option("-r", "--remove", multiple=True, metavar="NAME",
              help="Remove a tag, and the NAMEs that follow; may be repeated.")  # fmt: skip
@click.option("-f", "--yes", is_flag=True, help="Do not ask before removing.")
@click.option("-i", "--inspect", metavar="NAME", help="Show all about one tag.")
@click.option("-l", "--list", "lists", is_flag=True, help="List the tags; the default.")
@click.option("-b", "--branches", is_flag=True, help="Show the tree of branches.")
@click.option("-x", "--machine", is_flag=True,
              help="Lines for programs: name hash size revision time branch text.")  # fmt: skip
@click.pass_obj
def command(
    session: Session,
    fqrn: str,
    more: tuple[str, ...],
    add: tuple[str, ...],
    message: str,
    root_hash: str | None,
    revision: int | None,
    remove: tuple[str, ...],
    yes: bool,
    inspect: str | None,
    lists: bool,
    branches: bool,
    machine: bool,
) -> None:
    """List, set, move or remove the tags of the repository FQRN.

    Tags are edited without a new revision: the trunk is signed again with the new list. All
    changes of one call are made at once, or none is. A tag that exists is only moved if --hash or
    --revision says where to. trunk and trunk-previous belong to publishing.
    """
    if more and not remove:
        raise click.UsageError("NAMEs are for --remove")
    if root_hash is not None and revision is not None:
        raise click.UsageError("--hash and --revision are one too many")
    if (root_hash is not None or revision is not None or message) and not add:
        raise click.UsageError("--hash, --revision and --message are about what --add names")
    if (add or remove) and (inspect is not None or lists or branches or machine):
        raise click.UsageError("either list, or add and remove")
    if not add and not remove:
        history = _read(session, fqrn)
        _show(session, history, inspect, branches=branches and not lists, is_machine=machine)
        return
    gone = (*remove, *more)
    if gone and not yes:
        names = " ".join(printable(name) for name in gone)
        click.confirm(f"Remove from {fqrn}: {names}?", abort=True, err=True)
    root = ContentHash.parse(root_hash) if root_hash is not None else None
    wanted = [WantedTag(name=n, description=message, root=root, revision=revision) for n in add]
    edited = edit_tags(session.locations, fqrn, add=wanted, remove=gone, now=session.now)
    _tell(session, fqrn, edited)


def _read(session: Session, fqrn: str) -> History:
    target = find_target(fqrn, session.locations)
    with contextlib.closing(connect(target, session.locations, use_cache=False)) as connection:
        return connection.source.history(connection.source.fetch_manifest(now=session.now))


def _show(
    session: Session, history: History, inspect: str | None, *, branches: bool, is_machine: bool
) -> None:
    output = session.output
    if inspect is not None:
        tag = history.get(inspect)
        if output.is_json:
            output.json(tag_fields(tag))
        else:
            output.lines([tag.machine_line()] if is_machine else tag_details(tag))
    elif branches:
        if output.is_json:
            output.json_items(
                {"name": b.name, "parent": b.parent, "initial_revision": b.initial_revision}
                for _, b in history.branch_tree()
            )
        else:
            output.lines(branch_lines(history, is_machine=is_machine))
    elif output.is_json:
        output.json_items(map(tag_fields, history.tags))
    elif is_machine:
        output.lines(tag.machine_line() for tag in history.tags)
    else:
        output.lines(tag_table(history.tags))


def _tell(session: Session, fqrn: str, edited: EditedTags) -> None:
    before = {tag.name: tag for tag in edited.moved}
    lines = [f"removed {tag.name} (revision {tag.revision})" for tag in edited.removed]
    for tag in edited.added:
        if tag.name in before:
            was = before[tag.name].revision
            lines.append(f"moved {tag.name} from revision {was} to {tag.revision}")
        else:
            lines.append(f"{tag.name} is revision {tag.revision}")
    session.output.result(
        {
            "fqrn": fqrn,
            "added": [tag_fields(tag) for tag in edited.added],
            "moved": [tag_fields(tag) for tag in edited.moved],
            "removed": [tag_fields(tag) for tag in edited.removed],
        },
        "\n".join(map(printable, lines)),
    )
