"""What all commands share: the session, `--json`, logging, examples and exit codes in the help."""

import json
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import click

from outcrop.cli.exit_codes import DONE, FAILED, INTERRUPTED, MEANINGS, USAGE
from outcrop.cli.output import Output, printable, write_message
from outcrop.errors import FormatError
from outcrop.storage.locations import Locations

_LEVELS = ("debug", "info", "warning", "error")


@dataclass(slots=True)
class Session:
    """One run of the command: where things are kept and how to print. `click.pass_obj` gives it."""

    locations: Locations
    output: Output = field(default_factory=Output)

    @property
    def now(self) -> int:
        """Unix time. The only clock below is what commands pass on."""
        return int(time.time())


class Command(click.Command):
    """A command with the options all have, and examples and exit codes in its help.

    `examples` are lines of a shell; `exits` the exit codes beyond 0, 1, 2 and 130.
    """

    def __init__(
        self, name: str | None, *, examples: str = "", exits: tuple[int, ...] = (), **rest: Any
    ) -> None:
        super().__init__(name, **rest)
        self.examples = examples.strip()
        self.exits = (DONE, FAILED, USAGE, *exits, INTERRUPTED)
        self.shared = _shared_options()
        self.params += self.shared

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Examples and exit codes close the help."""
        if self.examples:
            with formatter.section("Examples"):
                for line in self.examples.splitlines():
                    formatter.write(f"  {line}\n")
        with formatter.section("Exit codes"):
            formatter.write_dl([(str(code), MEANINGS[code]) for code in self.exits])


def checked(parse: Callable[[str], object]) -> Callable[..., Any]:
    """A callback for an option or argument: a text that does not parse is wrong usage."""

    def check(context: click.Context, parameter: click.Parameter, value: Any) -> Any:
        try:
            for text in value if isinstance(value, tuple) else (value,):
                if text is not None:
                    parse(text)
        except FormatError as error:
            raise click.BadParameter(str(error), context, parameter) from error
        return value

    return check


def _shared_options() -> list[click.Parameter]:
    return [
        click.Option(
            ["--json"], is_flag=True, is_eager=True, expose_value=False, callback=_set_json,
            help="Print the result, and an error too, as JSON.",
        ),
        click.Option(
            ["--log-level"], type=click.Choice(_LEVELS), default="warning", show_default=True,
            expose_value=False, callback=_set_log_level, help="What to log on stderr.",
        ),
        click.Option(
            ["--json-log"], is_flag=True, is_eager=True, expose_value=False,
            callback=_set_json_log, help="Log one JSON object per line.",
        ),
    ]  # fmt: skip


def _set_json(context: click.Context, _: click.Parameter, value: bool) -> None:
    session = context.find_object(Session)
    if session is not None and value:
        session.output.is_json = True


def _set_json_log(context: click.Context, _: click.Parameter, value: bool) -> None:
    _handler().setFormatter(_JsonLines() if value else _Lines())


def _set_log_level(context: click.Context, _: click.Parameter, value: str) -> None:
    logging.getLogger("outcrop").setLevel(value.upper())
    _handler()


def _handler() -> logging.Handler:
    """The one handler of our loggers, made at the first call."""
    logger = logging.getLogger("outcrop")
    for handler in logger.handlers:
        if isinstance(handler, _ToStderr):
            return handler
    handler = _ToStderr()
    handler.setFormatter(_Lines())
    logger.addHandler(handler)
    logger.propagate = False
    return handler


class _ToStderr(logging.Handler):
    """Writes to what `sys.stderr` is at the time."""

    def emit(self, record: logging.LogRecord) -> None:
        write_message(self.format(record))


class _Lines(logging.Formatter):
    """`outcrop: warning: …`, as a person reads it."""

    def format(self, record: logging.LogRecord) -> str:
        return f"outcrop: {record.levelname.lower()}: {printable(record.getMessage())}"


_FIELDS = ("fqrn", "revision", "object", "host", "lease", "path")


class _JsonLines(logging.Formatter):
    """One object per line, with the fixed field names where a record has them."""

    def format(self, record: logging.LogRecord) -> str:
        at = datetime.fromtimestamp(record.created, UTC)
        fields = {
            "time": at.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        fields |= {name: str(getattr(record, name)) for name in _FIELDS if hasattr(record, name)}
        return json.dumps(fields)


def wants_json(arguments: list[str]) -> bool:
    """Whether `--json` is among arguments that could not be understood as a whole."""
    own = arguments[: arguments.index("--")] if "--" in arguments else arguments
    return "--json" in own
