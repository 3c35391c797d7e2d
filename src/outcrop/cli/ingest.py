"""`outcrop ingest`: the members of a tar archive become entries, as a new revision."""

import os
from pathlib import Path

import click

from outcrop.cli.command import Command, Session, checked
from outcrop.cli.hooked import hooked
from outcrop.cli.progress import progress_bar
from outcrop.cli.publish import opened_input, print_result
from outcrop.formats.fqrn import check_fqrn
from outcrop.publisher.options import PublishOptions
from outcrop.publisher.tarball import publish_tarball


@click.command(
    cls=Command,
    exits=(3, 4, 5, 6, 7, 9),
    examples="""
outcrop ingest software.example.org -t gcc-14.tar.xz -b /gcc/14 -c
curl -s https://example.org/layer.tar.gz | outcrop ingest software.example.org -t - -b /layers/1
outcrop ingest software.example.org -d /gcc/12 -d /gcc/13
""",
)
@click.argument("fqrn", callback=checked(check_fqrn))
@click.option(
    "-t",
    "--tar-file",
    "--tar_file",
    "--tarball",
    "archive",
    metavar="FILE",
    type=click.Path(dir_okay=False, path_type=Path),
    help="The archive (-: stdin): tar, plain or as gzip, bzip2, xz or zstd.",
)
@click.option(
    "-b",
    "--base-dir",
    "--base_dir",
    "base",
    metavar="PATH",
    type=os.fsencode,
    help="Where in the repository it goes (/: the root).",
)
@click.option(
    "-d",
    "--delete",
    metavar="PATH",
    multiple=True,
    type=os.fsencode,
    help="Remove this first, with everything below; may be given many times.",
)
@click.option("-c", "--catalog", is_flag=True, help="Make the base a nested catalog.")
@click.option(
    "-u",
    "--user",
    type=click.IntRange(0, 2**32 - 2),
    metavar="UID",
    help="The owner of everything.",
)
@click.option(
    "-g", "--group", type=click.IntRange(0, 2**32 - 2), metavar="GID", help="Its group; needs -u."
)
@click.option("-k", "--keep-ownership", is_flag=True, help="Owners are those in the archive.")
@click.option("-a", "--tag", metavar="TAG", help="Name the new revision.")
@click.option("-m", "--message", metavar="TEXT", default="", help="Describe the tag.")
@click.option("--dry-run", is_flag=True, help="Say what would change, and change nothing.")
@click.pass_obj
def command(
    session: Session,
    fqrn: str,
    archive: Path | None,
    base: bytes | None,
    delete: tuple[bytes, ...],
    catalog: bool,
    user: int | None,
    group: int | None,
    keep_ownership: bool,
    tag: str | None,
    message: str,
    dry_run: bool,
) -> None:
    """Publish a tar archive below a path of the repository FQRN, as a new revision.

    Nothing is unpacked and nothing mounted. What the archive does not name stays; what it names is
    replaced. Everything belongs to the repository's owner unless -u or -k is given. PATHs count
    from the root of the repository. An archive that is damaged, cut short or leads out of its
    place changes nothing.
    """
    if archive is None and not delete:
        raise click.UsageError(
            "give an archive (-t FILE -b PATH), paths to delete (-d PATH) or both"
        )
    if (archive is None) != (base is None):
        raise click.UsageError("-t FILE and -b PATH go together")
    if keep_ownership and user is not None:
        raise click.UsageError("-k and -u contradict each other")
    if group is not None and user is None:
        raise click.UsageError("-g needs -u")
    options = PublishOptions(tag=tag, message=message, dry_run=dry_run)
    with (
        hooked(session, "publish", fqrn, is_rehearsal=dry_run),
        progress_bar(session.output) as update,
        opened_input(archive) as stream,
    ):
        result = publish_tarball(
            session.locations,
            fqrn,
            archive=stream,
            to=_absolute(base or b""),
            delete=[_absolute(path) for path in delete],
            nest_target=catalog,
            uid=user,
            gid=group,
            keep_ownership=keep_ownership or archive is None,
            options=options,
            now=session.now,
            progress=update,
        )
    print_result(session, fqrn, result)


def _absolute(path: bytes) -> bytes:
    """A path from the repository's root, however it was given."""
    path = path.strip(b"/").removeprefix(b"./")
    return b"/" + path if path not in (b"", b".") else b""
