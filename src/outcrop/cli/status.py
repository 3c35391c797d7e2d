"""`outcrop status`: what is mounted and how it is doing."""

import json
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

import click

from outcrop.cli.command import Command, Session
from outcrop.cli.entries import human_size
from outcrop.cli.mountpoints import find_records, mountpoints_argument
from outcrop.client.mounting import MountRecord
from outcrop.client.mounting import command as send
from outcrop.fuse.errors import NotMounted


@click.command(
    cls=Command,
    exits=(8,),
    examples="""
outcrop status
outcrop status --json /cvmfs/software.example.org
""",
)
@mountpoints_argument(required=False)
@click.pass_obj
def command(session: Session, mountpoints: tuple[Path, ...]) -> None:
    """Show the mounts of this user, or those on MOUNTPOINT: revision, freshness, cache, requests.

    Never waits for a mount that hangs or is dead: it is shown as such.
    """
    reports = [_report(record) for record in find_records(session, mountpoints)]
    if session.output.is_json:
        session.output.json(reports)
    elif reports:
        session.output.line("\n\n".join("\n".join(_lines(report)) for report in reports))
    else:
        session.output.note("nothing is mounted")


def _report(record: MountRecord) -> dict[str, Any]:
    try:
        report: dict[str, Any] = json.loads(send(record, "status"))
    except NotMounted as error:
        return {
            "mountpoint": record.mountpoint,
            "fqrn": record.fqrn,
            "alive": False,
            "error": str(error),
        }
    return {"alive": True, **report}


def _lines(report: Mapping[str, Any]) -> list[str]:
    if not report["alive"]:
        return [
            f"{report['mountpoint']}  {report['fqrn']}  dead",
            f"  hint: outcrop umount {report['mountpoint']}",
        ]
    tag = f" (tag {report['tag']})" if report["tag"] else ""
    quota = report["cache_quota_bytes"]
    limit = f" of {human_size(quota)}" if quota is not None else ""
    counters = report["requests"].items()
    requests = sum(count for name, count in counters if name.startswith("requests_"))
    return [
        f"{report['mountpoint']}  {report['fqrn']}  revision {report['revision']}{tag}",
        f"  from      {report['target']}{'  OFFLINE' if report['offline'] else ''}",
        f"  freshness {_freshness(report)}",
        f"  cache     {human_size(report['cache_used_bytes'])}{limit}",
        f"  server    pid {report['pid']}, up {timedelta(seconds=report['uptime_seconds'])}, "
        f"{requests} requests",
    ]


def _freshness(report: Mapping[str, Any]) -> str:
    if report["fixed"]:
        return "fixed revision"
    return f"looks for a new revision in {report['expires_in_seconds']} s"
