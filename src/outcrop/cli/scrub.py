"""`outcrop scrub`: hash every stored file."""

from dataclasses import asdict
from pathlib import Path

import click

from outcrop.cli.command import Command, Session, checked
from outcrop.cli.entries import human_size
from outcrop.cli.exit_codes import DONE, FAILED
from outcrop.cli.problems import problem_lines, verdict
from outcrop.cli.progress import progress_bar
from outcrop.formats.fqrn import check_fqrn
from outcrop.publisher.inspection import scrub_directory, scrub_stratum_zero


@click.command(
    cls=Command,
    exits=(5, 6, 7),
    examples="""
outcrop scrub software.example.org
outcrop scrub -r /srv/cvmfs/software.example.org/data
""",
)
@click.argument("fqrn", required=False, callback=checked(check_fqrn))
@click.option("-r", "--directory", metavar="DIR", help="The data directory of any repository.",
              type=click.Path(exists=True, file_okay=False, path_type=Path))  # fmt: skip
@click.pass_obj
def command(session: Session, fqrn: str | None, directory: Path | None) -> int:
    """Read every stored file of the repository FQRN and see whether its name is its hash.

    Finds damage, also in what only old revisions use, and files that do not belong there. Prints
    each problem, and ends with code 1 if there is one.
    """
    if (fqrn is None) == (directory is None):
        raise click.UsageError("either FQRN or --directory")
    with progress_bar(session.output) as update:
        if fqrn is not None:
            result = scrub_stratum_zero(session.locations, fqrn, progress=update)
        elif directory is not None:
            result = scrub_directory(directory, progress=update)
    found = result.problems, result.more_problems
    size = human_size(result.stored_bytes)
    summary = f"{fqrn or directory}: {result.objects} files, {size}, {verdict(*found)}"
    lines = [*problem_lines(*found), summary]
    session.output.result(asdict(result), "\n".join(lines))
    return FAILED if result.problems else DONE
