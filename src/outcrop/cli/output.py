"""What a command prints: results on stdout, talk on stderr, each as text or as JSON.

File names are bytes and anybody's: on a terminal control characters in them are shown as escapes,
into a pipe or file they go as they are.
"""

import json
import os
import re
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\udc80-\udcff]")


@dataclass(slots=True)
class Output:
    """Where results and messages go. `is_json` is what `--json` set."""

    is_json: bool = False

    def line(self, text: str) -> None:
        """Print a line of the result. Surrogates become the bytes they stand for."""
        sys.stdout.flush()
        sys.stdout.buffer.write(os.fsencode(text) + b"\n")

    def lines(self, lines: Iterable[str]) -> None:
        """Print lines of the result as they come."""
        for line in lines:
            self.line(line)

    def json(self, value: Any) -> None:
        """Print a result as one JSON document."""
        self.line(json.dumps(value, indent=2))

    def json_items(self, items: Iterable[Mapping[str, Any]]) -> None:
        """Print results as one JSON array, each element as soon as it is known."""
        separator = "["
        for item in items:
            self.line(separator + json.dumps(item))
            separator = ","
        self.line("]" if separator == "," else "[]")

    def result(self, fields: Mapping[str, Any], text: str) -> None:
        """Print what a command found or did: the fields as JSON, or the text."""
        if self.is_json:
            self.json(fields)
        elif text:
            self.line(text)

    def flush(self) -> None:
        """Let the reader see what was printed so far."""
        sys.stdout.flush()

    def note(self, text: str) -> None:
        """Tell how it goes; not part of the result, and nothing a program should read."""
        if not self.is_json:
            write_message(text)

    def error(self, message: str, *, kind: str, hint: str | None = None) -> None:
        """Tell why the command failed, in the one form errors have."""
        if self.is_json:
            write_message(json.dumps({"error": message, "kind": kind, "hint": hint}))
            return
        write_message(f"{_red('outcrop:')} {printable(message)}")
        if hint:
            write_message(f"  hint: {printable(hint)}")


def write_message(text: str) -> None:
    """One line on stderr, whatever is in it; a closed stderr is nobody's concern."""
    try:
        sys.stderr.write(text.encode("utf-8", "backslashreplace").decode() + "\n")
        sys.stderr.flush()
    except OSError:
        return


def shown(name: bytes) -> str:
    """A file name for stdout: printable on a terminal, exact elsewhere."""
    text = os.fsdecode(name)
    return printable(text) if sys.stdout.isatty() else text


def printable(text: str) -> str:
    """The text without anything a terminal would obey or could not show."""
    return _CONTROL.sub(lambda match: ascii(match[0])[1:-1], text)


def is_terminal() -> bool:
    """Whether somebody watches stderr: progress is drawn nowhere else."""
    return sys.stderr.isatty()


def uses_color() -> bool:
    """Whether stderr is a terminal whose user did not switch colours off."""
    return is_terminal() and not os.environ.get("NO_COLOR")


def _red(text: str) -> str:
    return f"\x1b[1;31m{text}\x1b[0m" if uses_color() else text
