"""`outcrop stat`: all that is known of a path."""

import os
from typing import Any

import click

from outcrop.cli.command import Session
from outcrop.cli.entries import entry_fields
from outcrop.cli.exit_codes import READING
from outcrop.cli.output import printable
from outcrop.cli.targets import Opened, TargetChoice, TargetCommand, open_target
from outcrop.formats.xattrs import parse_xattrs
from outcrop.repository.tree import normalize


@click.command(
    cls=TargetCommand,
    exits=READING,
    examples="""
outcrop stat software.example.org /bin/tool
outcrop stat --json software.example.org /data/big.root --tag v1.0
""",
)
@click.argument("path", type=os.fsencode, default="/")
@click.option("-L", "--follow", is_flag=True, help="Follow PATH where it is a symbolic link.")
@click.pass_obj
def command(session: Session, choice: TargetChoice, path: bytes, follow: bool) -> None:
    """Show all that a repository says about PATH: mode, times, content hash, chunks, attributes.

    TARGET is a URL, a repository's name, or the directory it is stored in.
    """
    with open_target(session, choice) as opened:
        head, _, name = normalize(path).rpartition(b"/")
        here = opened.resolve(path) if follow or not name else opened.resolve(head) + b"/" + name
        fields = _fields(opened, here)
    width = max(len(key) for key in fields)
    text = "\n".join(f"{key:<{width}}  {line}" for key, line in _text_lines(fields))
    session.output.result(fields, text)


def _fields(opened: Opened, path: bytes) -> dict[str, Any]:
    revision = opened.revision
    entry = revision.get(path)
    fields = entry_fields(path, entry)
    catalog = revision.catalog_of(path, entry)
    if entry.is_regular:
        fields["compression"] = entry.compression.name.lower()
        fields["external"] = entry.is_external
        fields["chunks"] = [
            {"offset": chunk.offset, "size": chunk.size, "hash": str(chunk.hash)}
            for chunk in revision.chunks(path, entry)
        ]
    if entry.is_directory:
        fields["nested_catalog"] = entry.is_nested_mountpoint
    attributes = parse_xattrs(entry.xattrs) if entry.xattrs else {}
    fields["xattrs"] = {os.fsdecode(key): os.fsdecode(value) for key, value in attributes.items()}
    fields["catalog"] = str(catalog.hash)
    fields["revision"] = revision.number
    return fields


def _text_lines(fields: dict[str, Any]) -> list[tuple[str, str]]:
    """Key and value, one line each; a list or mapping has a line for each of its members."""
    lines: list[tuple[str, str]] = []
    for key, value in fields.items():
        if key == "chunks":
            lines += [
                ("chunk", f"{chunk['offset']:>12} {chunk['size']:>10} {chunk['hash']}")
                for chunk in value
            ]
        elif key == "xattrs":
            lines += [("xattr", printable(f"{name}={text}")) for name, text in value.items()]
        elif isinstance(value, bool):
            lines.append((key.replace("_", " "), "yes" if value else "no"))
        elif isinstance(value, list):
            lines.append((key, ", ".join(str(member) for member in value)))
        elif value != "":
            lines.append((key.replace("_", " "), printable(str(value))))
    return lines
