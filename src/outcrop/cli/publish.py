"""`outcrop publish`: make a new revision from a directory, a tar archive or a transaction."""

import contextlib
import os
import stat
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import click

from outcrop.cli.command import Command, Session, checked
from outcrop.cli.entries import human_size
from outcrop.cli.gc import collect_if_due
from outcrop.cli.hooked import hooked
from outcrop.cli.output import printable, shown
from outcrop.cli.progress import Update, progress_bar
from outcrop.cli.recorded import note_statistics
from outcrop.errors import FormatError
from outcrop.formats.fqrn import check_fqrn
from outcrop.formats.id_map import MAX_CHARACTERS, IdMap
from outcrop.publisher.difflist import ListedPath, parse_diff_list
from outcrop.publisher.publish import PublishOptions, PublishResult, publish_directory
from outcrop.publisher.scan import Owners

_STDIN = Path("-")


@click.command(
    cls=Command,
    exits=(3, 4, 5, 6, 7, 9),
    examples="""
outcrop publish software.example.org --from build/
outcrop publish software.example.org --from dist/ --to /v1.0 -a v1.0 -m "First release"
outcrop publish software.example.org --from build/ --diff changed.txt --base 41
outcrop publish software.example.org --from-tar layer.tar.gz --to /layers/1 --dry-run
outcrop publish software.example.org
""",
)
@click.argument("fqrn", callback=checked(check_fqrn))
@click.option(
    "--from",
    "source",
    metavar="DIR",
    help="The directory to publish.",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
)
@click.option(
    "--diff",
    metavar="LIST",
    type=click.Path(dir_okay=False, path_type=Path),
    help="A file (-: stdin) with the paths in DIR to look at, and no others: one a line, after "
    "`A ` or `M ` (it is there), `D ` (it is gone) or nothing.",
)
@click.option("-0", "--null", is_flag=True, help="Null bytes end the paths in LIST, not newlines.")
@click.option(
    "--shallow",
    is_flag=True,
    help="Directories in LIST stand for themselves, not for what is below, too.",
)
@click.option(
    "--from-tar",
    "archive",
    metavar="FILE",
    type=click.Path(dir_okay=False, path_type=Path),
    help="The tar archive to publish (-: stdin); what it does not name stays.",
)
@click.option(
    "--delete",
    metavar="/PATH",
    multiple=True,
    type=os.fsencode,
    help="With --from-tar: remove this first.",
)
@click.option(
    "--to",
    type=os.fsencode,
    metavar="/PATH",
    default="/",
    show_default=True,
    help="Where in the repository it goes; the rest stays as it is.",
)
@click.option("--uid", type=click.IntRange(0, 2**32 - 1), help="The owner of everything.")
@click.option("--gid", type=click.IntRange(0, 2**32 - 1), help="The group of everything.")
@click.option(
    "--uid-map",
    metavar="FILE",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Lines `FROM TO`: owners in DIR and in the repository; `*` for all others.",
)
@click.option(
    "--gid-map",
    metavar="FILE",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="The same for groups.",
)
@click.option("-a", "--tag", metavar="TAG", help="Name the new revision.")
@click.option("-m", "--message", metavar="TEXT", default="", help="Describe the tag.")
@click.option(
    "--base",
    metavar="REV",
    help="Publish only if this is the trunk: a revision number, a root hash or a tag.",
)
@click.option("-n", "--revision", type=click.IntRange(min=1), metavar="N",
              help="The number of the new revision.  [default: the next one]")  # fmt: skip
@click.option("-f", "--force", is_flag=True,
              help="Publish a transaction even while files of it are written.")  # fmt: skip
@click.option("--dry-run", is_flag=True, help="Say what would change, and change nothing.")
@click.option("-d", "--print-changes", is_flag=True, help="Print the paths that change.")
@click.option("-t", "--wait", type=click.FloatRange(min=0), metavar="SECONDS", default=0.0,
              help="How long to wait for another publisher.  [default: not at all]")  # fmt: skip
@click.option(
    "-X/-N",
    "--external/--native",
    default=None,
    help="Whether files are external data, or stored.  [default: as the repository was made]",
)
@click.option(
    "-Z",
    "--compression",
    type=click.Choice(["balanced", "fast", "zlib", "none"]),
    help="zlib: byte for byte what CernVM-FS makes.  [default: as the repository was made]",
)
@click.option("-j", "--workers", type=click.IntRange(min=1), metavar="N",
              help="Threads that read and compress.  [default: one for each CPU]")  # fmt: skip
@click.pass_obj
def command(session: Session, /, fqrn: str, print_changes: bool, **given: Any) -> None:
    """Make a new revision of the repository FQRN: --from a directory or --from-tar an archive.

    --from makes /PATH equal to the directory DIR: what is not in DIR any more is removed below
    /PATH. Files that did not change since the last publish from DIR are not read again; with
    --diff only what is listed is looked at. Readers see the old revision until the new one is
    complete; a publish that is interrupted leaves nothing behind that anybody sees.

    With neither, the open transaction of FQRN is published: see `outcrop transaction`.
    """
    _check_combination(given)
    changes: list[dict[str, str]] = []

    def print_change(kind: str, path: bytes) -> None:
        if session.output.is_json:
            changes.append({"change": kind, "path": os.fsdecode(path) or "/"})
        else:
            session.output.line(f"[{kind}] {shown(path) or '/'}")

    options = PublishOptions(
        tag=given["tag"],
        message=given["message"],
        compression_choice=given["compression"],
        workers=given["workers"],
        base=given["base"],
        dry_run=given["dry_run"],
        revision=given["revision"],
        wait_seconds=given["wait"],
        external=given["external"],
        on_change=print_change if print_changes or given["dry_run"] else None,
    )
    with (
        hooked(session, "publish", fqrn, is_rehearsal=options.dry_run),
        progress_bar(session.output) as update,
    ):
        result = _publish(session, fqrn, options, update, given)
    more = {"changes": changes} if options.on_change is not None else {}
    print_result(session, fqrn, result, more)


def print_result(
    session: Session, fqrn: str, result: PublishResult, more: dict[str, Any] | None = None
) -> None:
    """Say what was published, `more` of it as JSON."""
    for warning in result.warnings:
        session.output.note(f"outcrop: warning: {printable(warning)}")
    fields = {"fqrn": fqrn, **_fields(result), **(more or {})}
    session.output.result(fields, f"{fqrn} {_text(result)}")
    if not result.is_dry_run:
        note_statistics(session, fqrn)
        collect_if_due(session, fqrn)


def _publish(
    session: Session, fqrn: str, options: PublishOptions, update: Update, given: dict[str, Any]
) -> PublishResult:
    """Publish from what was given."""
    to = given["to"].rstrip(b"/")
    if given["archive"] is not None or given["delete"]:
        from outcrop.publisher.tarball import publish_tarball

        with opened_input(given["archive"]) as archive:
            return publish_tarball(
                session.locations, fqrn, archive=archive, to=to, delete=given["delete"],
                uid=given["uid"], gid=given["gid"], options=options, now=session.now,
                progress=update,
            )  # fmt: skip
    if given["source"] is None:
        return publish_open_transaction(session, fqrn, options, update, force=given["force"])
    return publish_directory(
        session.locations, fqrn, source=given["source"], to=to,
        listed=_listed(given["diff"], is_null_separated=given["null"]),
        is_shallow=given["shallow"], owners=_owners(given), options=options, now=session.now,
        progress=update,
    )  # fmt: skip


def publish_open_transaction(
    session: Session, fqrn: str, options: PublishOptions, update: Update, *, force: bool
) -> PublishResult:
    """Publish what was changed in place. Raises UsageError where nothing was begun."""
    from outcrop.cli.transactions import PinnedMounts
    from outcrop.publisher.errors import NoTransaction
    from outcrop.publisher.transaction import publish_transaction

    try:
        return publish_transaction(
            session.locations, fqrn, mounter=PinnedMounts(session, fqrn), options=options,
            now=session.now, progress=update, force=force,
        )  # fmt: skip
    except NoTransaction as error:
        error.hint = f"give --from DIR or --from-tar FILE, or begin: outcrop transaction {fqrn}"
        raise


def _check_combination(given: dict[str, Any]) -> None:
    """Refuse options that mean nothing together. Raises UsageError."""
    is_tar = given["archive"] is not None or bool(given["delete"])
    if given["source"] is not None and is_tar:
        raise click.UsageError("--from and --from-tar or --delete are two ways: give one")
    needs = {"--diff": "diff", "--uid-map": "uid_map", "--gid-map": "gid_map"}
    for option, name in needs.items():
        if given[name] is not None and given["source"] is None:
            raise click.UsageError(f"{option} needs --from")
    for name in ("null", "shallow"):
        if given[name] and given["diff"] is None:
            raise click.UsageError(f"--{name} needs --diff")
    for name in ("uid", "gid"):
        if given[name] is None:
            continue
        if given[f"{name}_map"] is not None:
            raise click.UsageError(f"--{name} and --{name}-map contradict each other")
        if given["source"] is None and not is_tar:
            raise click.UsageError(f"--{name} needs --from or --from-tar")


def _listed(file: Path | None, *, is_null_separated: bool) -> dict[bytes, ListedPath] | None:
    """A diff list, read to its end before anything is locked. Raises FormatError."""
    if file is None:
        return None
    with opened_input(file) as stream:
        if stream is None:
            return None
        return parse_diff_list(stream, is_null_separated=is_null_separated)


@contextlib.contextmanager
def opened_input(file: Path | None) -> Iterator[BinaryIO | None]:
    """A file that was given by name, or stdin. Raises UsageError."""
    if file is None:
        yield None
    elif file == _STDIN:
        yield sys.stdin.buffer
    else:
        try:
            opened = file.open("rb")
        except OSError as error:
            raise click.UsageError(f"{file}: {error.strerror}") from error
        with opened:
            if stat.S_ISDIR(os.fstat(opened.fileno()).st_mode):
                raise click.UsageError(f"{file} is a directory")
            yield opened


def _owners(given: dict[str, Any]) -> Owners:
    return Owners(
        *(
            IdMap({}, given[name]) if given[name] is not None else _id_map(given[f"{name}_map"])
            for name in ("uid", "gid")
        )
    )


def _id_map(file: Path | None) -> IdMap:
    if file is None:
        return IdMap()
    with file.open(encoding="utf-8", errors="replace") as opened:
        try:
            return IdMap.parse(opened.read(MAX_CHARACTERS))
        except FormatError as error:
            raise FormatError(f"{file}: {error}") from error


def _fields(result: PublishResult) -> dict[str, Any]:
    return {
        "revision": result.revision,
        "root_hash": str(result.root_hash),
        "dry_run": result.is_dry_run,
        "tags": list(result.tags),
        "removed_tags": list(result.removed_tags),
        "unchanged": result.is_unchanged,
        "added": dict(result.added),
        "changed": dict(result.changed),
        "removed": dict(result.removed),
        "bytes_read": result.bytes_read,
        "bytes_stored": result.bytes_stored,
        "catalogs": result.catalogs,
        "seconds": round(result.seconds, 3),
        "warnings": list(result.warnings),
    }


def _text(result: PublishResult) -> str:
    counts = [
        f"{sum(kinds.values())} {what}"
        for what, kinds in (
            ("added", result.added),
            ("changed", result.changed),
            ("removed", result.removed),
        )
        if any(kinds.values())
    ]
    said = ", ".join(counts) or "nothing changed"
    read, stored = human_size(result.bytes_read), human_size(result.bytes_stored)
    if result.is_dry_run:
        return (
            f"revision {result.revision} would be: {said}; read {read}, would store {stored}, "
            f"{result.catalogs} catalogs among it (dry run: nothing was published)"
        )
    return (
        f"revision {result.revision}: {said}; read {read}, stored {stored}, {result.seconds:.1f} s"
    )
