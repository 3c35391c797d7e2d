"""`outcrop transaction`: make a repository writable in place."""

import os
import sys
from pathlib import Path
from typing import Any

import click

from outcrop.cli.command import Command, Session, checked
from outcrop.cli.hooked import hooked
from outcrop.cli.publish import print_result
from outcrop.cli.transactions import (
    PinnedMounts,
    is_asked,
    shell_command,
    shown_in_namespace,
    transaction_fields,
)
from outcrop.formats.fqrn import check_fqrn
from outcrop.formats.hashes import ContentHash
from outcrop.fuse.namespace import run_in_namespace
from outcrop.publisher.lock import shell_lock
from outcrop.publisher.options import PublishOptions
from outcrop.publisher.transaction import (
    Template,
    abort_transaction,
    find_transaction,
    open_transaction,
    publish_transaction,
    resume_transaction,
    transaction_area,
)
from outcrop.publisher.transaction_area import Transaction


def _parse_template(context: click.Context, parameter: click.Parameter, given: Any) -> Any:
    templates = []
    for text in given:
        source, separator, target = os.fsencode(text).partition(b"=")
        if not separator or not source.strip(b"/") or not target.strip(b"/"):
            raise click.BadParameter(f"{text!r} is not /FROM=/TO", context, parameter)
        templates.append((b"/" + source.strip(b"/"), b"/" + target.strip(b"/")))
    return templates


@click.command(
    cls=Command,
    exits=(3, 4, 5, 6, 7, 8, 9, 126, 127),
    examples="""
outcrop transaction software.example.org
outcrop transaction software.example.org -T /v1.0=/v1.1
outcrop transaction software.example.org --shell -- make install
outcrop transaction software.example.org --resume
""",
)
@click.argument("fqrn", callback=checked(check_fqrn))
@click.argument("command_line", nargs=-1, type=click.UNPROCESSED, metavar="[-- COMMAND...]")
@click.option(
    "-t",
    "--wait",
    type=click.FloatRange(min=0),
    metavar="SECONDS",
    default=0.0,
    help="How long to wait for another transaction to end.  [default: not at all]",
)
@click.option(
    "-T",
    "--template",
    "templates",
    metavar="/FROM=/TO",
    multiple=True,
    callback=_parse_template,
    help="Begin with a copy of the directory /FROM at /TO; no file is read.",
)
@click.option(
    "--shell",
    is_flag=True,
    help="Writable for COMMAND (or a shell) only, and for it alone to be seen.",
)
@click.option(
    "--on-exit",
    type=click.Choice(["publish", "abort", "ask"]),
    help="What then becomes of it.  [default: published if COMMAND succeeds]",
)
@click.option("-a", "--tag", metavar="TAG", help="With --shell: name the new revision.")
@click.option("-m", "--message", metavar="TEXT", default="", help="Describe the tag.")
@click.option("--resume", is_flag=True, help="Go on with one that a crash or a reboot left open.")
@click.option("--status", is_flag=True, help="Say whether one is open, and do nothing.")
@click.pass_obj
def command(
    session: Session, /, fqrn: str, command_line: tuple[str, ...], **given: Any
) -> int | None:
    """Make the repository FQRN writable below /cvmfs, until `publish` or `abort`.

    What is changed there is seen by readers when it is published, all at once. Without root,
    --shell does the same for one command or shell, which need not have /cvmfs on the machine:
    what it changed is published if it succeeds, and dropped if it fails. Whatever was changed is
    kept through crashes and reboots.
    """
    if given["status"]:
        _print_status(session, fqrn)
        return None
    if given["resume"]:
        transaction = resume_transaction(
            session.locations, fqrn, mounter=PinnedMounts(session, fqrn), now=session.now
        )
        if transaction.is_shell:
            return _run_shell(session, transaction, command_line, given)
        _print_open(session, transaction)
        return None
    if given["shell"]:
        transaction = _open(session, fqrn, given["wait"], given["templates"], is_shell=True)
        return _run_shell(session, transaction, command_line, given)
    if command_line or given["on_exit"] or given["tag"]:
        raise click.UsageError("COMMAND, --on-exit and --tag are for --shell")
    _print_open(session, _open(session, fqrn, given["wait"], given["templates"], is_shell=False))
    return None


def _open(
    session: Session, fqrn: str, wait: float, templates: list[Template], *, is_shell: bool
) -> Transaction:
    with hooked(session, "transaction", fqrn):
        return open_transaction(
            session.locations,
            fqrn,
            mounter=None if is_shell else PinnedMounts(session, fqrn),
            now=session.now,
            wait_seconds=wait,
            templates=templates,
        )


def _print_open(session: Session, transaction: Transaction) -> None:
    fqrn = transaction.fqrn
    session.output.result(
        transaction_fields(transaction),
        f"{fqrn}: {transaction.union} is writable, on top of revision {transaction.revision}\n"
        f"next: outcrop publish {fqrn}, or outcrop abort {fqrn}",
    )


def _print_status(session: Session, fqrn: str) -> None:
    transaction = find_transaction(session.locations, fqrn)
    if transaction is None:
        session.output.result({"fqrn": fqrn, "open": False}, f"{fqrn}: no transaction is open")
        return
    kind = "in a shell" if transaction.is_shell else f"at {transaction.union}"
    session.output.result(
        transaction_fields(transaction),
        f"{fqrn}: a transaction is open {kind}, on top of revision {transaction.revision}",
    )


# --- the shell ---------------------------------------------------------------------------------


def _run_shell(
    session: Session, transaction: Transaction, command_line: tuple[str, ...], given: Any
) -> int:
    """Run the command in the transaction, then publish or abort; its exit status."""
    fqrn = transaction.fqrn
    area = transaction_area(session.locations, fqrn)
    union = Path(transaction.union)
    lower = ContentHash.parse(transaction.lower)
    words = shell_command(command_line)
    with shell_lock(area.spool, fqrn):
        if not command_line:
            session.output.note(f"{union} is writable here; leave this shell with exit")
        with shown_in_namespace(session, fqrn, lower, union) as mounted:
            status = run_in_namespace(
                [(str(union), fqrn)],
                words,
                serve=lambda _, fd: mounted.serve(fd, ready=lambda: None),
                layers={str(union): area.layer(is_shell=True)},
            )
        choice = given["on_exit"] or ("publish" if status == 0 else "abort")
        if (given["on_exit"] == "ask" or not command_line) and sys.stdin.isatty():
            choice = "publish" if is_asked(f"Publish the changes to {fqrn}?") else "abort"
        if choice == "ask":
            session.output.note(f"the transaction stays open: outcrop publish or abort {fqrn}")
        elif choice == "publish":
            _publish(session, fqrn, given)
        else:
            _abort(session, fqrn)
    return status


def _publish(session: Session, fqrn: str, given: Any) -> None:
    with hooked(session, "publish", fqrn):
        result = publish_transaction(
            session.locations,
            fqrn,
            mounter=PinnedMounts(session, fqrn),
            options=PublishOptions(tag=given["tag"], message=given["message"]),
            now=session.now,
            within_shell=True,
        )
    print_result(session, fqrn, result)


def _abort(session: Session, fqrn: str) -> None:
    with hooked(session, "abort", fqrn):
        abort_transaction(
            session.locations,
            fqrn,
            mounter=PinnedMounts(session, fqrn),
            now=session.now,
            force=True,
            within_shell=True,
        )
    session.output.note(f"{fqrn}: the changes were dropped")
