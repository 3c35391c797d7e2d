"""What commands that publish a change of the catalogs alone have in common."""

import os
from collections.abc import Callable
from typing import Any

import click

from outcrop.cli.command import Session
from outcrop.cli.progress import Update, progress_bar
from outcrop.cli.publish import print_result
from outcrop.formats.history import check_tag_name
from outcrop.publisher.options import PublishOptions
from outcrop.publisher.publish import PublishResult

EXITS = (3, 4, 5, 6, 7, 9)


def repository_path(text: str) -> bytes:
    """An argument that is a path in a repository; the slash in front may be missing."""
    path = os.fsencode(text)
    return path if path.startswith(b"/") else b"/" + path


def publishing_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options that `publish_edit` understands."""
    for option in reversed(
        (
            click.option("-a", "--tag", metavar="TAG", help="Name the new revision."),
            click.option("-m", "--message", metavar="TEXT", default="", help="Describe the tag."),
            click.option("--base", metavar="REV", help="Refuse unless the trunk is that revision."),
            click.option("--dry-run", is_flag=True, help="Say what would change, change nothing."),
        )
    ):
        command = option(command)
    return command


def publish_edit(
    session: Session,
    fqrn: str,
    given: dict[str, Any],
    publish: Callable[[PublishOptions, Update], PublishResult],
) -> None:
    """Publish, and say what came of it."""
    tag = given["tag"]
    options = PublishOptions(
        tag=check_tag_name(tag) if tag is not None else None,
        message=given["message"],
        base=given["base"],
        dry_run=given["dry_run"],
    )
    with progress_bar(session.output) as update:
        result = publish(options, update)
    print_result(session, fqrn, result)
