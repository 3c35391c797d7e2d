"""`outcrop publish`: make a subtree equal to a directory, as a new revision."""

import os
from dataclasses import asdict
from pathlib import Path

import click

from outcrop.cli.command import Command, Session, checked
from outcrop.cli.progress import progress_bar
from outcrop.formats.fqrn import check_fqrn
from outcrop.publisher.publish import publish_directory


@click.command(
    cls=Command,
    exits=(3, 4, 5, 6, 7),
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
            tag=tag,
            message=message,
            now=session.now,
            workers=workers,
            progress=update,
        )
    session.output.result(asdict(result), f"{fqrn} revision {result.revision}")
