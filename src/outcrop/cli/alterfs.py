"""`outcrop alterfs`: what a repository is to clients and to other servers."""

from typing import Any

import click

from outcrop.cli.command import Command, Session, checked
from outcrop.formats.fqrn import check_fqrn
from outcrop.publisher.administration import Alterations, alter_repository, set_replicable
from outcrop.publisher.settings import StratumZeroSettings
from outcrop.storage.upstream import open_store

_MAX_TTL_SECONDS = 10 * 365 * 86400


def _on_off(_context: click.Context, _option: click.Parameter, text: str | None) -> bool | None:
    return None if text is None else text == "on"


_SWITCH = click.Choice(["on", "off"])


@click.command(
    cls=Command,
    exits=(3, 4, 5, 6, 7, 9),
    examples="""
outcrop alterfs software.example.org --replicable off
outcrop alterfs software.example.org --garbage-collectable on --ttl 900
""",
)
@click.argument("fqrn", callback=checked(check_fqrn))
@click.option("-m", "--replicable", type=_SWITCH, callback=_on_off,
              help="Whether stratum 1 servers may replicate it.")  # fmt: skip
@click.option("--garbage-collectable", "garbage", type=_SWITCH, callback=_on_off,
              help="Whether garbage collection may delete old revisions.")  # fmt: skip
@click.option("--volatile", type=_SWITCH, callback=_on_off,
              help="Whether clients evict its files first.")  # fmt: skip
@click.option("--ttl", metavar="SECONDS", type=click.IntRange(1, _MAX_TTL_SECONDS),
              help="How often clients look for a new revision.")  # fmt: skip
@click.pass_obj
def command(
    session: Session,
    fqrn: str,
    *,
    replicable: bool | None,
    garbage: bool | None,
    volatile: bool | None,
    ttl: int | None,
) -> None:
    """Change what the repository FQRN is to clients and to other servers.

    All but --replicable are part of what is signed, so they make a new revision, with the content
    of the last one; its settings in server.conf follow.
    """
    alterations = Alterations(is_garbage_collectable=garbage, is_volatile=volatile, ttl_seconds=ttl)
    done: dict[str, Any] = {"fqrn": fqrn}
    lines = []
    if replicable is None and alterations == Alterations():
        raise click.UsageError("nothing to be altered: see the options")
    if alterations != Alterations():
        result = alter_repository(session.locations, fqrn, alterations, now=session.now)
        given = {"garbage_collectable": garbage, "volatile": volatile, "ttl_seconds": ttl}
        done |= {name: value for name, value in given.items() if value is not None}
        done["revision"] = result.revision
        lines.append(f"{fqrn} is altered as of revision {result.revision}")
    if replicable is not None:
        settings = StratumZeroSettings.read(session.locations, fqrn)
        set_replicable(open_store(settings.upstream), is_replicable=replicable)
        done["replicable"] = replicable
        can = "can" if replicable else "cannot"
        lines.append(f"{fqrn} {can} be replicated by stratum 1 servers")
    session.output.result(done, "\n".join(lines))
