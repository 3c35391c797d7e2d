"""`outcrop remount`: look for a new revision now."""

from pathlib import Path
from typing import Any

import click

from outcrop.cli.command import Command, Session
from outcrop.cli.exit_codes import DONE, FAILED
from outcrop.cli.mountpoints import find_records, mountpoints_argument
from outcrop.client.mounting import MountRecord
from outcrop.client.mounting import command as send


@click.command(
    cls=Command,
    exits=(8,),
    examples="""
outcrop remount /cvmfs/software.example.org
outcrop remount
""",
)
@mountpoints_argument(required=False)
@click.pass_obj
def command(session: Session, mountpoints: tuple[Path, ...]) -> int:
    """Look for a new revision of what is mounted on MOUNTPOINT (by default of all) and show it.

    Files that are open keep their content. Fails if the trunk could not be reached or believed.
    """
    answers = [_remount(record) for record in find_records(session, mountpoints)]
    if session.output.is_json:
        session.output.json(answers)
    else:
        for answer in answers:
            session.output.line(
                f"{answer['mountpoint']}: {answer['answer']}, revision {answer['revision']}"
            )
    return FAILED if any(answer["answer"].startswith("Failed") for answer in answers) else DONE


def _remount(record: MountRecord) -> dict[str, Any]:
    answer = send(record, "remount")
    revision = int(send(record, "revision"))
    return {"mountpoint": record.mountpoint, "answer": answer, "revision": revision}
