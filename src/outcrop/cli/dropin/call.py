"""Running a command of the original: what an action gets, how it ends, where cron jobs log."""

import contextlib
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import click

from outcrop.cli.command import Session
from outcrop.cli.dropin.options import (
    NO_COMMAND,
    WRONG_USAGE,
    Given,
    UsageError,
    Verb,
    note_unused,
    outcrop,
    parse,
    translate,
    usage,
)
from outcrop.cli.dropin.repositories import choose, configured
from outcrop.cli.exit_codes import DONE, FAILED, INTERRUPTED, READER_GONE
from outcrop.cli.output import Output, write_message
from outcrop.errors import OutcropError
from outcrop.storage.locations import Locations, default_locations


@dataclass(frozen=True, slots=True)
class Call:
    """One command line, understood: the repositories it is about and its options."""

    session: Session
    tool: str
    name: str
    verb: Verb
    given: Given
    fqrns: Sequence[str] = ()

    @property
    def locations(self) -> Locations:
        """Where things are."""
        return self.session.locations

    @property
    def output(self) -> Output:
        """How to print."""
        return self.session.output

    def options(self) -> list[str]:
        """The letters as options of the `outcrop` command."""
        return translate(self.verb, self.given)

    def for_each(self, action: Callable[[str], int]) -> int:
        """Do it with one repository after the other; what fails with one is told, and goes on."""
        code = DONE
        for fqrn in self.fqrns:
            ended = guarded(self.output, lambda fqrn=fqrn: action(fqrn))  # type: ignore[misc]
            if ended in (INTERRUPTED, READER_GONE):
                return ended
            code = code or ended
        return code


@dataclass(frozen=True, slots=True, kw_only=True)
class Tool:
    """A program of the original: its name, its commands, what it ends with when misused."""

    name: str
    title: str
    verbs: Mapping[str, Verb]
    no_command: int = NO_COMMAND
    wrong_usage: int = WRONG_USAGE
    version: str = ""
    aliases: Mapping[str, str] = field(default_factory=dict)

    def run(self, arguments: Sequence[str]) -> int:
        """Run a command line to its end and return the exit code; errors are printed."""
        if not arguments or arguments[0] in ("-h", "--help", "help"):
            self._print_usage("")
            return DONE if arguments and arguments[0] != "-h" else self.no_command
        output = Output()
        if arguments[0] == "--version":
            output.line(self.version)
            return DONE
        name = self.aliases.get(arguments[0], arguments[0])
        verb = self.verbs.get(name)
        if verb is None:
            self._print_usage(f"Unrecognized command: {name}")
            return self.wrong_usage
        if verb.refused:
            write_message(f"{self.name} {name}: {verb.refused}")
            return FAILED
        return guarded(output, lambda: self._call(name, verb, arguments[1:], output))

    def _call(self, name: str, verb: Verb, arguments: Sequence[str], output: Output) -> int:
        session = Session(default_locations(), output)
        try:
            given = parse(verb, arguments)
            if verb.all_letter and given.has(verb.all_letter) and not given.words:
                fqrns = configured(session.locations)
            elif verb.words:
                fqrns = []
            else:
                fqrns = choose(session.locations, verb.names, given.words)
            note_unused(self.name, verb, given)
            call = Call(session, self.name, name, verb, given, tuple(fqrns))
            if verb.run is not None:
                return verb.run(call)
            return call.for_each(lambda fqrn: outcrop(*verb.outcrop, fqrn, *call.options()))
        except UsageError as error:
            self._print_usage(f"Command {name}: {error}")
            return self.wrong_usage

    def _print_usage(self, problem: str) -> None:
        Output().line(usage(self.name, self.title, self.verbs, problem))
        sys.stdout.flush()


def guarded(output: Output, action: Callable[[], int]) -> int:
    """Run an action; what goes wrong is printed and ends with 1."""
    try:
        code = action()
        sys.stdout.flush()
    except OutcropError as error:
        output.error(str(error), kind=type(error).__name__, hint=error.hint)
        return FAILED
    except (click.UsageError, click.Abort) as error:
        output.error(getattr(error, "message", "aborted"), kind=type(error).__name__)
        return FAILED
    except KeyboardInterrupt:
        output.error("interrupted", kind="Interrupted")
        return INTERRUPTED
    except BrokenPipeError:
        return READER_GONE
    except OSError as error:
        subject = f"{error.filename}: " if error.filename else ""
        output.error(f"{subject}{error.strerror or error}", kind=type(error).__name__)
        return FAILED
    return code


def log_file(locations: Locations, name: str) -> Path:
    """A log of the cron jobs, `var/log/cvmfs/NAME`, with its directory made."""
    directory = locations.root / "var/log/cvmfs"
    directory.mkdir(parents=True, exist_ok=True)
    return directory / name


@contextlib.contextmanager
def logged(file: Path, fqrn: str, now: int) -> Iterator[None]:
    """Have everything printed appended to a log, between a line of the start and one of the end."""
    at = datetime.fromtimestamp(now, UTC)
    stamp = f"{at:%a %b %e %H:%M:%S UTC %Y}"
    with (
        file.open("a", encoding="utf-8", errors="surrogateescape", buffering=1) as out,
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(out),
    ):
        out.write(f"\nStarting {fqrn} at {stamp}\n")
        yield
        out.write(f"Finished {fqrn} at {stamp}\n")
