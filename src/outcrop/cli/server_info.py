"""`outcrop server-info`: what this server says of itself and of its repositories."""

import json
import sys
from pathlib import Path

import click

from outcrop.cli.command import Command, Session
from outcrop.cli.repoinfo import edited
from outcrop.formats.meta_info import MAX_BYTES, parse_meta_info, serialize_meta_info
from outcrop.publisher.private_files import write_file
from outcrop.publisher.server_info import update_server_info

_STDIN = Path("-")


@click.command(
    cls=Command,
    examples="""
outcrop server-info
outcrop server-info --from about.json
outcrop server-info --edit
""",
)
@click.option("-f", "--from", "source", metavar="FILE", help="Take this JSON file (-: stdin).",
              type=click.Path(dir_okay=False, path_type=Path))  # fmt: skip
@click.option("-e", "--edit", is_flag=True, help="Change meta.json in $EDITOR.")
@click.pass_obj
def command(session: Session, source: Path | None, edit: bool) -> None:
    """Write the list of this server's repositories; also say who runs it, if you give that.

    Both are served as info/v1/repositories.json and info/v1/meta.json beside the repositories.
    Monitors and clients' administrators read them.
    """
    if edit and source is not None:
        raise click.UsageError("--edit and --from are two ways: give one")
    file = update_server_info(session.locations)
    meta = file.with_name("meta.json")
    if edit:
        changed = edited(session, json.loads(meta.read_bytes()), parse_meta_info)
        write_file(meta, serialize_meta_info(changed), 0o644)
    elif source is not None:
        data = sys.stdin.buffer.read(MAX_BYTES + 1) if source == _STDIN else source.read_bytes()
        write_file(meta, serialize_meta_info(parse_meta_info(data)), 0o644)
    session.output.result({"repositories": str(file), "meta": str(meta)}, f"written: {file}")
