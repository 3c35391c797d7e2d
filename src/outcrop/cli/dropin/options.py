"""The command lines of CernVM-FS's tools: one table entry per command, read as a shell reads it.

A `Verb` says which letters a command takes, what they mean and what they become; `parse` reads a
command line by it, as bash's getopts does; `translate` makes it one of `outcrop`.
"""

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from outcrop.cli.exit_codes import DONE, FAILED, INTERRUPTED, READER_GONE
from outcrop.cli.main import run as run_outcrop
from outcrop.cli.output import write_message

NO_COMMAND = 2
WRONG_USAGE = 3
"""What `cvmfs_server` ends with when it prints how it is used: without and with a reason."""


class Names(Enum):
    """How many repositories a command takes."""

    NONE = ""
    NEW = "FQRN "
    """One that need not be configured yet."""
    ONE = "FQRN"
    GUESSED = "[FQRN]"
    """One; it may be left out where only one is configured."""
    MANY = "[FQRN]..."
    """Several, wildcards among them; the only one if none is given."""


@dataclass(frozen=True, slots=True)
class Letter:
    """One option: what it means, its argument's name (empty: it takes none), what it becomes.

    `to` is an option of the `outcrop` command, `values` rewrites arguments. One with `unused` is
    accepted and has no effect: that says why.
    """

    help: str
    argument: str = ""
    to: str = ""
    values: Mapping[str, str] = field(default_factory=dict)
    unused: str = ""


@dataclass(frozen=True, slots=True)
class Given:
    """A command line that was read: arguments by letter, in order, and the words after them."""

    letters: Mapping[str, Sequence[str]] = field(default_factory=dict)
    words: Sequence[str] = ()

    def has(self, letter: str) -> bool:
        """Whether an option was given."""
        return letter in self.letters

    def last(self, letter: str) -> str | None:
        """The argument of an option; the last one counts."""
        return self.letters[letter][-1] if letter in self.letters else None

    def get(self, letter: str, default: str) -> str:
        """The same, or else `default`."""
        return self.letters[letter][-1] if letter in self.letters else default


@dataclass(frozen=True, slots=True, kw_only=True)
class Verb:
    """One command of a tool.

    It is either the `outcrop` command that it is translated to, or `run`, or `refused`: why there
    is no such command. `words` names what it takes in place of repositories.
    """

    summary: str
    letters: Mapping[str, Letter] = field(default_factory=dict)
    long: Mapping[str, str] = field(default_factory=dict)
    names: Names = Names.GUESSED
    words: str = ""
    outcrop: Sequence[str] = ()
    all_letter: str = ""
    """The letter that stands for all configured repositories."""
    run: "Callable[[Any], int] | None" = None
    """Gets the `Call`."""
    refused: str = ""


class UsageError(Exception):
    """A command line that cannot be understood."""


def parse(verb: Verb, arguments: Sequence[str]) -> Given:
    """Read options up to the first word that is none. Raises UsageError.

    Letters can be joined (`-lx`), an argument follows at once or as the next word. `--` ends the
    options.
    """
    letters: dict[str, list[str]] = {}
    rest = list(arguments)
    while rest and rest[0].startswith("-") and rest[0] != "-":
        word = rest.pop(0)
        if word == "--":
            break
        if word.startswith("--"):
            name, separator, value = word[2:].partition("=")
            if name not in verb.long:
                raise UsageError(f"Unrecognized option: {word}")
            word = "-" + verb.long[name] + value
            if separator and not verb.letters[word[1]].argument:
                raise UsageError(f"--{name} takes no argument")
        _read_letters(verb, word[1:], rest, letters)
    return Given(letters, tuple(rest))


def _read_letters(verb: Verb, joined: str, rest: list[str], letters: dict[str, list[str]]) -> None:
    while joined:
        letter, joined = joined[0], joined[1:]
        found = verb.letters.get(letter)
        if found is None:
            raise UsageError(f"Unrecognized option: -{letter}")
        values = letters.setdefault(letter, [])
        if not found.argument:
            values.append("")
            continue
        if not joined and not rest:
            raise UsageError(f"option -{letter} needs an argument")
        values.append(joined or rest.pop(0))
        return


def translate(verb: Verb, given: Given) -> list[str]:
    """The options of the `outcrop` command that the letters mean."""
    options: list[str] = []
    for letter, values in given.letters.items():
        found = verb.letters[letter]
        if not found.to:
            continue
        for value in values if found.argument else values[:1]:
            options.append(found.to)
            if found.argument:
                options.append(found.values.get(value, value))
    return options


def outcrop(*arguments: str) -> int:
    """Run an `outcrop` command in this process; ends with 0, or 1 for every failure."""
    code = run_outcrop(arguments)
    return code if code in (DONE, INTERRUPTED, READER_GONE) else FAILED


def note_unused(tool: str, verb: Verb, given: Given) -> None:
    """Tell about options that somebody may have expected an effect of."""
    for letter in given.letters:
        unused = verb.letters[letter].unused
        if unused.endswith("!"):
            write_message(f"{tool}: -{letter} has no effect: {unused[:-1]}")


def is_confirmed(question: str) -> bool:
    """Ask as the original does: whoever runs it, terminal or not, has to say `y`."""
    sys.stdout.write(f"{question} (y/N)? ")
    sys.stdout.flush()
    return sys.stdin.readline().strip() in ("y", "Y")


def usage(tool: str, title: str, verbs: Mapping[str, Verb], problem: str = "") -> str:
    """How a tool is used: every command with its options, and what was wrong."""
    lines = [title, "", f"Usage: {tool} COMMAND [OPTIONS] [FQRN]", ""]
    for name, verb in verbs.items():
        if not verb.refused:
            lines += _usage_of(name, verb)
    if problem:
        lines += ["_" * 72, "", f"NOTE: {problem}"]
    return "\n".join(lines)


def _usage_of(name: str, verb: Verb) -> list[str]:
    words = verb.words or verb.names.value
    lines = [f"  {name} [OPTIONS] {words}".rstrip(), f"      {verb.summary}"]
    for letter, found in verb.letters.items():
        option = f"-{letter} {found.argument}".rstrip()
        text = f"(no effect) {found.help}" if found.unused else found.help
        lines.append(f"      {option:<14} {text}")
    return lines
