"""The `outcrop` command line: which commands there are, and how any of them ends."""

import contextlib
import importlib
import keyword
import os
import sys
from collections.abc import Mapping, Sequence

import click
from click.shell_completion import CompletionItem

import outcrop
from outcrop.cli.command import Session, wants_json
from outcrop.cli.exit_codes import DONE, FAILED, INTERRUPTED, READER_GONE, USAGE
from outcrop.cli.output import Output
from outcrop.errors import OutcropError
from outcrop.storage.locations import default_locations

COMPLETION_VARIABLE = "_OUTCROP_COMPLETE"
"""Set by a shell that asks what could come next."""

SECTIONS: Mapping[str, Mapping[str, str]] = {
    "Mount": {
        "mount": "Mount a repository.",
        "umount": "Unmount a repository.",
        "remount": "Look for a new revision now.",
        "status": "Show what is mounted and how it is doing.",
        "exec": "Run a command that sees repositories under /cvmfs.",
    },
    "Read without a mount": {
        "ls": "List a directory.",
        "tree": "Show everything below a directory.",
        "stat": "Show all that is known of a path.",
        "cat": "Print files.",
        "cp": "Copy files and directories out of a repository.",
        "info": "Show what a repository is.",
        "list-catalogs": "Show the catalogs.",
        "log": "List the tags, newest first.",
        "diff": "Show what is different between two revisions.",
        "verify": "Check every hash, size, counter and reference.",
    },
    "Publish": {
        "mkfs": "Make a new, empty repository.",
        "transaction": "Make a repository writable in place.",
        "publish": "Make a new revision: of a directory, an archive or a transaction.",
        "abort": "Drop an open transaction.",
        "enter": "Try out changes to a repository, for oneself alone.",
        "ingest": "Publish a tar archive below a path, as a new revision.",
        "rm": "Remove paths, as a new revision.",
        "mv": "Give a path another name, as a new revision.",
        "clone": "Copy a subtree within the repository, as a new revision.",
        "merge": "Lay a directory over another one, as a new revision.",
        "tag": "List, set, move and remove tags.",
        "rollback": "Publish an old revision again, as the newest.",
        "checkout": "Choose the branch that is published to.",
        "serve": "Serve repositories over HTTP.",
    },
    "Administer": {
        "list": "List the repositories of this machine.",
        "gc": "Delete what no kept revision needs.",
        "check": "Check a repository that is published here, its store included.",
        "scrub": "Hash every stored file.",
        "reflog": "List all stored revisions, or find them again.",
        "chown": "Change owners by maps, as a new revision.",
        "eliminate-hardlinks": "Make every hard link a file of its own.",
        "eliminate-bulk-hashes": "Leave chunked files their chunks only.",
        "fix-stats": "Count all catalogs anew.",
        "import": "Become the stratum 0 of a repository that is stored already.",
        "keys": "Show the keys of a repository, or make new ones.",
        "resign": "Sign the whitelist anew before it expires.",
        "masterkey": "Keep the master key on a PKCS #11 token.",
        "alterfs": "Change what a repository is to clients and other servers.",
        "rmfs": "Remove a repository.",
        "repoinfo": "Show or change whom a repository belongs to.",
        "server-info": "Write what this server says of itself and its repositories.",
        "statistics": "Show what was published and collected so far.",
    },
    "Other": {
        "completion": "Print the completion script of a shell.",
    },
}
"""Every command and what it does; its module is imported only when it runs."""


def module_of(command_name: str) -> str:
    """The module a command is in: its name, as Python can have it."""
    name = command_name.replace("-", "_")
    return f"{name}_" if keyword.iskeyword(name) else name


class MissingPackage(OutcropError):
    """A command of a role whose optional packages are not installed."""


class Commands(click.Group):
    """The commands of `SECTIONS`, one module each."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """All names, in the order of the help."""
        return [name for section in SECTIONS.values() for name in section]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import the module of a command."""
        if cmd_name not in self.list_commands(ctx):
            return None
        try:
            module = importlib.import_module(f"outcrop.cli.{module_of(cmd_name)}")
        except ModuleNotFoundError as error:
            if (error.name or "outcrop").partition(".")[0] == "outcrop":
                raise
            raise MissingPackage(
                f"outcrop {cmd_name} needs the Python package {error.name}",
                hint="pip install 'outcrop[publisher]'",
            ) from error
        command: click.Command = module.command
        return command

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """Names of commands and our own options, importing no command."""
        names = [
            CompletionItem(name, help=summary)
            for section in SECTIONS.values()
            for name, summary in section.items()
            if name.startswith(incomplete)
        ]
        return names + click.Command.shell_complete(self, ctx, incomplete)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands without importing any."""
        for title, section in SECTIONS.items():
            with formatter.section(title):
                formatter.write_dl(list(section.items()))


@click.group(cls=Commands, invoke_without_command=True)
@click.version_option(outcrop.__version__, "-v", "--version", message="outcrop %(version)s")
@click.pass_context
def cli(context: click.Context) -> None:
    """CernVM-FS in Python: publish software once, mount it everywhere.

    Keys, settings, caches and published repositories are kept below $OUTCROP_ROOT: by default
    / for root and ~/.local/share/outcrop for anybody else.
    """
    if context.invoked_subcommand is None:
        click.echo(context.get_help(), err=True)
        context.exit(USAGE)


def main() -> None:
    """Entry point of the `outcrop` script, and of the completion scripts."""
    if COMPLETION_VARIABLE in os.environ:
        cli.main(prog_name="outcrop", complete_var=COMPLETION_VARIABLE)
    sys.exit(run(sys.argv[1:]))


def run(arguments: Sequence[str]) -> int:
    """Run a command line to its end and return the exit code; errors are printed."""
    session = Session(default_locations(), Output())
    try:
        # Not `cli.main`, which has its own mind about a closed pipe and Ctrl-C.
        with cli.make_context("outcrop", list(arguments), obj=session) as context:
            result = cli.invoke(context)
        sys.stdout.flush()
    except click.exceptions.Exit as end:
        return end.exit_code
    except click.UsageError as error:
        session.output.is_json |= wants_json(list(arguments))
        _report_usage(session.output, error)
        return USAGE
    except OutcropError as error:
        session.output.error(str(error), kind=type(error).__name__, hint=error.hint)
        return error.exit_code
    except KeyboardInterrupt:
        session.output.error("interrupted", kind="Interrupted")
        return INTERRUPTED
    except BrokenPipeError:
        _forget_stdout()
        return READER_GONE
    except OSError as error:
        session.output.error(_describe(error), kind=type(error).__name__)
        return FAILED
    return result if isinstance(result, int) else DONE


def _report_usage(output: Output, error: click.UsageError) -> None:
    path = error.ctx.command_path if error.ctx is not None else "outcrop"
    output.error(error.format_message(), kind="UsageError", hint=f"{path} --help")


def _describe(error: OSError) -> str:
    subject = os.fsdecode(error.filename) + ": " if error.filename is not None else ""
    return f"{subject}{error.strerror or error}"


def _forget_stdout() -> None:
    """Keep the interpreter from flushing into the closed pipe when it ends."""
    with contextlib.suppress(OSError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
