"""`outcrop publish`: make a subtree equal to a directory, as a new revision."""

import os
from pathlib import Path
from typing import Any

import click

from outcrop.cli.command import Command, Session, checked
from outcrop.cli.entries import human_size
from outcrop.cli.output import printable
from outcrop.cli.progress import progress_bar
from outcrop.formats.fqrn import check_fqrn
from outcrop.publisher.publish import PublishOptions, PublishResult, publish_directory


@click.command(
    cls=Command,
    exits=(3, 4, 5, 6, 7, 9),
    examples="""
outcrop publish software.example.org --from build/
outcrop publish software.example.org --from dist/ --to /v1.0 -a v1.0 -m "First release"
""",
)
@click.argument("fqrn", callback=checked(check_fqrn))
@click.option(
    "--from",
    "source",
    metavar="DIR",
    required=True,
    help="The directory to publish.",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
)
@click.option(
    "--to",
    type=os.fsencode,
    metavar="/PATH",
    default="/",
    show_default=True,
    help="Where in the repository it goes; the rest stays as it is.",
)
@click.option("-a", "--tag", metavar="TAG", help="Name the new revision.")
@click.option("-m", "--message", metavar="TEXT", default="", help="Describe the tag.")
@click.option(
    "-Z",
    "--compression",
    type=click.Choice(["balanced", "fast", "zlib", "none"]),
    help="zlib: byte for byte what CernVM-FS makes.  [default: as the repository was made]",
)
@click.option("-j", "--workers", type=click.IntRange(min=1), metavar="N",
              help="Threads that read and compress.  [default: one for each CPU]")  # fmt: skip
@click.pass_obj
def command(
    session: Session,
    fqrn: str,
    source: Path,
    to: bytes,
    tag: str | None,
    message: str,
    compression: str | None,
    workers: int | None,
) -> None:
    """Make /PATH of the repository FQRN equal to the directory DIR, as a new revision.

    What is not in DIR any more is removed below /PATH. Readers see the old revision until the new
    one is complete; a publish that is interrupted leaves nothing behind that anybody sees. Files
    that did not change since the last publish from DIR are not read again.
    """
    with progress_bar(session.output) as update:
        result = publish_directory(
            session.locations,
            fqrn,
            source=source,
            to=to.rstrip(b"/"),
            options=PublishOptions(
                tag=tag,
                message=message,
                compression_choice=compression,
                workers=workers,
            ),
            now=session.now,
            progress=update,
        )
    for warning in result.warnings:
        session.output.note(f"outcrop: warning: {printable(warning)}")
    session.output.result({"fqrn": fqrn, **_fields(result)}, f"{fqrn} {_text(result)}")


def _fields(result: PublishResult) -> dict[str, Any]:
    return {
        "revision": result.revision,
        "root_hash": str(result.root_hash),
        "tags": list(result.tags),
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
    return (
        f"revision {result.revision}: {', '.join(counts) or 'nothing changed'}; "
        f"read {human_size(result.bytes_read)}, stored {human_size(result.bytes_stored)}, "
        f"{result.seconds:.1f} s"
    )
