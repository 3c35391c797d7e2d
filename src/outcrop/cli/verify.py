"""`outcrop verify`: check every hash, size, counter and reference."""

from dataclasses import asdict

import click

from outcrop.cli.command import Session
from outcrop.cli.exit_codes import DONE, FAILED, READING
from outcrop.cli.problems import check_text
from outcrop.cli.progress import progress_bar
from outcrop.cli.targets import TargetChoice, TargetCommand, connect_target
from outcrop.repository.check import CheckOptions, check_repository


@click.command(
    cls=TargetCommand,
    exits=READING,
    examples="""
outcrop verify software.example.org
outcrop verify --catalogs http://stratum1.example.org/cvmfs/software.example.org
outcrop verify --tags --json software.example.org
""",
)
@click.option("--tags", is_flag=True, help="Every tagged revision, not the trunk alone.")
@click.option("--catalogs", is_flag=True, help="Catalogs only: fetch no file's content.")
@click.pass_obj
def command(session: Session, choice: TargetChoice, tags: bool, catalogs: bool) -> int:
    """Walk a whole repository and check every signature, hash, size, counter and reference.

    TARGET is a URL, a repository's name, or the directory it is stored in. Everything is fetched
    once. Ends with code 1 if there are problems, each of which is printed.
    """
    connection = connect_target(session, choice)
    try:
        with progress_bar(session.output) as update:
            options = CheckOptions(fetch=not catalogs, all_tags=tags)
            result = check_repository(connection.source, options, now=session.now, progress=update)
    finally:
        connection.close()
    session.output.result(asdict(result), check_text(result))
    return FAILED if result.problems else DONE
