"""`outcrop serve`: serve repositories over HTTP."""

import logging
import signal
from types import FrameType

import click

from outcrop.cli.command import Command, Session, checked
from outcrop.formats.fqrn import check_fqrn
from outcrop.repository.errors import RepositoryNotFound
from outcrop.storage.locations import Locations
from outcrop.storage.serving import Server


@click.command(
    cls=Command,
    exits=(3, 5, 6),
    examples="""
outcrop serve
outcrop serve software.example.org --bind 0.0.0.0 --port 8080
outcrop serve --log-level info --json-log
""",
)
@click.argument("fqrns", nargs=-1, metavar="[FQRN]...", callback=checked(check_fqrn))
@click.option("--bind", metavar="ADDRESS", default="127.0.0.1", show_default=True)
@click.option("--port", type=click.IntRange(0, 65535), default=8000, show_default=True,
              help="0 takes any free one.")  # fmt: skip
@click.pass_obj
def command(session: Session, fqrns: tuple[str, ...], bind: str, port: int) -> None:
    """Serve the repositories stored here at http://ADDRESS:PORT/cvmfs/FQRN, until Ctrl-C.

    Without FQRN it serves all there are, new ones too. Every request is logged at level info. It
    answers what CernVM-FS clients and proxies ask for, quickly, but it speaks no TLS and knows no
    users: put a real web server in front of the open internet.
    """
    for fqrn in fqrns:
        _check_stored(session.locations, fqrn)
    server = Server(session.locations.storage, fqrns=fqrns or None, host=bind, port=port)
    signal.signal(signal.SIGTERM, _interrupt)
    with server:
        try:
            _announce(session, server, fqrns)
            server.wait()
        except KeyboardInterrupt:
            session.output.note(f"answered {server.requests} requests")


def _announce(session: Session, server: Server, fqrns: tuple[str, ...]) -> None:
    stored = session.locations.storage
    urls = [f"{server.url}/{fqrn}" for fqrn in fqrns or ["FQRN"]]
    fields = {"url": server.url, "port": server.port, "directory": str(stored)}
    session.output.result(fields, f"serving {stored} at {' '.join(urls)}")
    session.output.flush()


def _check_stored(locations: Locations, fqrn: str) -> None:
    if not (locations.repository(fqrn) / ".cvmfspublished").exists():
        raise RepositoryNotFound(
            f"{fqrn}: not stored in {locations.storage}", hint=f"outcrop mkfs {fqrn}"
        )


def _interrupt(signal_number: int, frame: FrameType | None) -> None:
    """A stop by the service manager ends like one by Ctrl-C: running answers finish."""
    logging.getLogger(__name__).info("stopping")
    raise KeyboardInterrupt
