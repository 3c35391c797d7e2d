"""`outcrop info`: what a repository is."""

import json
from collections.abc import Mapping
from typing import Any

import click

from outcrop.cli.command import Session
from outcrop.cli.entries import human_size, iso_time
from outcrop.cli.exit_codes import READING
from outcrop.cli.output import printable
from outcrop.cli.targets import Opened, TargetChoice, TargetCommand, open_target


@click.command(
    cls=TargetCommand,
    exits=READING,
    examples="""
outcrop info software.example.org
outcrop info --json http://stratum1.example.org/cvmfs/software.example.org
""",
)
@click.pass_obj
def command(session: Session, choice: TargetChoice) -> None:
    """Show what a repository is: revision, size, signature, tags, meta information.

    TARGET is a URL, a repository's name, or the directory it is stored in.
    """
    with open_target(session, choice) as opened:
        fields = {**_revision(opened), **_signed(opened)}
    session.output.result(fields, "\n".join(_lines(fields)))


def _revision(opened: Opened) -> dict[str, Any]:
    revision = opened.revision
    root = revision.catalogs.root
    total = root.statistics.total
    return {
        "fqrn": revision.fqrn,
        "revision": revision.number,
        "tag": revision.tag,
        "root_hash": str(revision.root_hash),
        "last_modified": iso_time(root.last_modified),
        "ttl_seconds": root.ttl_seconds,
        "files": total.regular,
        # A nested catalog's top directory is counted in both catalogs.
        "directories": total.dir - total.nested,
        "symlinks": total.symlink,
        "file_bytes": total.file_size,
        "nested_catalogs": total.nested,
    }


def _signed(opened: Opened) -> dict[str, Any]:
    """What stands in the manifest and the whitelist; nothing of a revision named by its hash."""
    trusted = opened.revision.manifest
    if trusted is None:
        return {}
    source = opened.connection.source
    manifest = trusted.manifest
    meta = source.meta_info(trusted)
    return {
        "published_at": iso_time(manifest.published_at),
        "garbage_collectable": manifest.garbage_collectable,
        "hash_algorithm": manifest.algorithm.name.lower(),
        "certificate": str(manifest.certificate),
        "whitelist_expires": iso_time(trusted.whitelist.whitelist.expires_at),
        "tags": len(source.history(trusted).tags),
        "meta_info": json.loads(meta) if meta else None,
    }


def _lines(fields: Mapping[str, Any]) -> list[str]:
    width = max(len(key) for key in fields)
    return [
        f"{key.replace('_', ' '):<{width}}  {_value(key, value)}"
        for key, value in fields.items()
        if value is not None
    ]


def _value(key: str, value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if key.endswith("_bytes"):
        return f"{value} ({human_size(value)})"
    if isinstance(value, Mapping):
        return printable(json.dumps(value))
    return printable(str(value))
