"""`outcrop tree`: show everything below a directory."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import click

from outcrop.cli.command import Session
from outcrop.cli.entries import entry_fields, name_and_target
from outcrop.cli.exit_codes import READING
from outcrop.cli.targets import TargetChoice, TargetCommand, open_target
from outcrop.formats.catalog import DirectoryEntry
from outcrop.repository.tree import Revision


@click.command(
    cls=TargetCommand,
    exits=READING,
    examples="""
outcrop tree software.example.org
outcrop tree --depth 2 http://stratum1.example.org/cvmfs/software.example.org /lib
""",
)
@click.argument("path", type=os.fsencode, default="/")
@click.option("--depth", type=click.IntRange(min=1), metavar="N", help="Go down N levels only.")
@click.pass_obj
def command(session: Session, choice: TargetChoice, path: bytes, depth: int | None) -> None:
    """Show everything below the directory PATH of a repository.

    TARGET is a URL, a repository's name, or the directory it is stored in. Symbolic links are
    shown, not followed.
    """
    with open_target(session, choice) as opened:
        here = opened.resolve(path)
        below = _below(opened.revision, here, depth)
        if session.output.is_json:
            session.output.json_items(_fields(node) for node in below)
            return
        session.output.line((here or b"/").decode("utf-8", "surrogateescape"))
        directories = files = 0
        for node in below:
            directories += node.entry.is_directory
            files += not node.entry.is_directory
            branch = "└── " if node.is_last else "├── "
            session.output.line(f"{node.indent}{branch}{name_and_target(node.entry)}")
    session.output.line(f"\n{directories} directories, {files} files")


@dataclass(frozen=True, slots=True)
class _Node:
    """An entry, and the drawing to the left of it."""

    path: bytes
    entry: DirectoryEntry
    indent: str
    is_last: bool


def _below(revision: Revision, top: bytes, depth: int | None) -> Iterator[_Node]:
    """Depth first, in name order; an explicit stack, for trees deeper than Python's."""
    stack = [_children(revision, top, "")]
    while stack:
        node = next(stack[-1], None)
        if node is None:
            stack.pop()
            continue
        yield node
        if node.entry.is_directory and (depth is None or len(stack) < depth):
            indent = node.indent + ("    " if node.is_last else "│   ")
            stack.append(_children(revision, node.path, indent))


def _children(revision: Revision, directory: bytes, indent: str) -> Iterator[_Node]:
    entries = revision.entries(directory)
    for number, entry in enumerate(entries, 1):
        yield _Node(directory + b"/" + entry.name, entry, indent, number == len(entries))


def _fields(node: _Node) -> dict[str, Any]:
    return entry_fields(node.path, node.entry)
