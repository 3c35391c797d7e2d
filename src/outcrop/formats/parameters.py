"""`CVMFS_*` parameter files: fragments of shell, of which assignments are read and nothing is run.

Spec: docs/reference/formats/parameters.md says what of the shell's language is accepted. All else
(conditions, command substitution, sourcing) is refused with the number of the line: reading a
file half would be worse than not reading it.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, NoReturn

from outcrop.errors import FormatError
from outcrop.formats.fqrn import organisation

MAX_FILE_BYTES: Final = 1 << 20
MAX_VALUE_LENGTH: Final = 1 << 16
"""A value may grow by `A=$A$A`; not beyond this many characters."""

_MAX_DEPTH: Final = 16


@dataclass(frozen=True, slots=True)
class Assignment:
    """A parameter, its value with variables replaced, and the number of its line."""

    name: str
    value: str
    line: int


def parse_parameters(text: bytes, *, environment: Mapping[str, str]) -> list[Assignment]:
    """All assignments of a file in order; variables mean earlier ones or `environment`'s.

    Raises FormatError naming the line for anything that is not an assignment.
    """
    if len(text) > MAX_FILE_BYTES:
        raise FormatError(f"a parameter file of {len(text)} bytes: the limit is {MAX_FILE_BYTES}")
    return _Reader(text.decode("utf-8", "surrogateescape"), environment).read()


def expand_templates(value: str, fqrn: str) -> str:
    """Put the repository's names for `@fqrn@` and `@org@`."""
    return value.replace("@fqrn@", fqrn).replace("@org@", organisation(fqrn))


def is_on(value: str) -> bool:
    """Whether a switch is on: `yes`, `on`, `1` or `true` in any case; all else is off."""
    return value.lower() in ("yes", "on", "1", "true")


def serialize_parameters(parameters: Mapping[str, str]) -> bytes:
    """A file that this module, a shell and upstream's simple parser read alike.

    Raises FormatError for a name no shell has, and a value that needs more than one line.
    """
    lines = []
    for name, value in parameters.items():
        if _NAME.fullmatch(name) is None:
            raise FormatError(f"not the name of a parameter: {name[:60]!r}")
        if any(c in value for c in "\n\r\0"):
            raise FormatError(f"the value of {name} does not fit on one line: {value[:60]!r}")
        lines.append(f"{name}={_quoted(value)}\n")
    return "".join(lines).encode("utf-8", "surrogateescape")


def _quoted(value: str) -> str:
    if _PLAIN.fullmatch(value):
        return value
    if "'" not in value:
        return f"'{value}'"
    return '"' + re.sub(r'([$`"\\])', r"\\\1", value) + '"'


_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_PLAIN = re.compile(r"[A-Za-z0-9_./:,@%+=-]*")
_BLANKS = re.compile(r"(?:[ \t]|\\\n)*")
_KEYWORD = re.compile(r"(?:export|readonly)(?=[ \t])")
_ASSIGNMENT = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)=")
_UNQUOTED = re.compile(r"[^ \t\n'\"\\$`;&|()<>]+")
_DOUBLE_QUOTED = re.compile(r'[^"\\$`]+')
_REFERENCE = re.compile(r"\$(?:([A-Za-z_][A-Za-z0-9_]*)|\{([A-Za-z_][A-Za-z0-9_]*)(\}|:?-))")
_SPECIAL_DOLLAR = re.compile(r"""\$(?:[(\[{'"#?$!@*0-9-]|\\\n)""")


class _Reader:
    """Walks over a file once; `_at` is the position, `_variables` what is known there."""

    def __init__(self, text: str, environment: Mapping[str, str]) -> None:
        self._text = text
        self._at = 0
        self._depth = 0
        self._counted = (0, 1)
        self._variables = dict(environment)
        self._found: list[Assignment] = []

    def read(self) -> list[Assignment]:
        for character, complaint in (("\0", "a NUL character"), ("\r", "a carriage return")):
            position = self._text.find(character)
            if position >= 0:
                self._at = position
                self._refuse(complaint)
        while self._at < len(self._text):
            self._read_command()
        return self._found

    def _read_command(self) -> None:
        """One line, or what is before or after a semicolon."""
        self._skip(_BLANKS)
        is_declared = self._skip(_KEYWORD)
        is_empty = True
        while True:
            self._skip(_BLANKS)
            if self._peek() == "#":
                end = self._text.find("\n", self._at)
                self._at = len(self._text) if end < 0 else end
            if self._peek() in ("", "\n", ";"):
                if is_empty and (is_declared or self._peek() == ";"):
                    self._refuse("a command without a name or value")
                self._at += 1
                return
            self._read_assignment(is_declared)
            is_empty = False

    def _read_assignment(self, is_declared: bool) -> None:
        start = self._at
        match = _ASSIGNMENT.match(self._text, start)
        if match is None:
            if is_declared and self._skip(_NAME) and self._peek() in ("", "\n", ";", " ", "\t"):
                return  # `export NAME` changes nothing
            self._at = start
            self._refuse("something that is not an assignment")
        self._at = match.end()
        value = self._word(_UNQUOTED, "")
        self._variables[match[1]] = value
        self._found.append(Assignment(match[1], value, self._line_of(start)))

    def _word(self, plain: re.Pattern[str], end: str) -> str:
        """What is up to `end`, or to the first character that ends an unquoted word."""
        parts: list[str] = []
        length = 0
        while (character := self._peek()) not in ("", end):
            if (part := self._part(character, plain)) is None:
                break
            length += len(part)
            if length > MAX_VALUE_LENGTH:
                self._refuse(f"a value of more than {MAX_VALUE_LENGTH} characters")
            parts.append(part)
        return "".join(parts)

    def _part(self, character: str, plain: re.Pattern[str]) -> str | None:
        """The next piece of a word; `None` where an unquoted word is over."""
        if character == "$":
            return self._reference()
        if character == "`":
            self._refuse("a command substitution")
        if character == "\\":
            return self._escape(is_quoted=plain is _DOUBLE_QUOTED)
        if plain is not _DOUBLE_QUOTED:
            if character in "'\"":
                return self._quotation(character)
            if character in " \t\n;":
                return None
            if character in "&|()<>~":
                self._refuse(f"the shell's {character}")
        match = plain.match(self._text, self._at)
        if match is None:
            self._refuse("an unfinished value")
        self._at = match.end()
        if plain is _UNQUOTED and ":~" in match[0]:
            self._refuse("the shell's ~")
        return match[0]

    def _quotation(self, mark: str) -> str:
        opened = self._at
        self._at += 1
        if mark == '"':
            text = self._word(_DOUBLE_QUOTED, mark)
        else:
            end = self._text.find(mark, self._at)
            text = self._text[self._at : end if end >= 0 else None]
            self._at = end if end >= 0 else len(self._text)
        if self._peek() != mark:
            self._at = opened
            self._refuse("a quotation that is not closed")
        self._at += 1
        return text

    def _escape(self, *, is_quoted: bool) -> str:
        follower = self._text[self._at + 1 : self._at + 2]
        self._at += 1 + len(follower)
        if follower == "\n":
            return ""
        if not follower:
            self._refuse("a backslash with nothing after it")
        return follower if not is_quoted or follower in '$`"\\' else "\\" + follower

    def _reference(self) -> str:
        match = _REFERENCE.match(self._text, self._at)
        if match is None:
            if _SPECIAL_DOLLAR.match(self._text, self._at):
                self._refuse("a substitution other than $NAME, ${NAME} or ${NAME:-default}")
            self._at += 1
            return "$"
        self._at = match.end()
        if match[1] and self._text.startswith("\\\n", self._at):
            self._refuse("a name that goes on in the next line")
        value = self._variables.get(match[1] or match[2])
        if match[3] in (None, "}"):
            return value or ""
        default = self._default()
        return default if value is None or (not value and match[3] == ":-") else value

    def _default(self) -> str:
        """The word between `:-` and `}`."""
        self._depth += 1
        if self._depth > _MAX_DEPTH:
            self._refuse("too many defaults within defaults")
        default = self._word(_DEFAULT, "}")
        if self._peek() != "}":
            self._refuse("a default value that is not closed, or has blanks outside of quotes")
        self._at += 1
        self._depth -= 1
        return default

    def _peek(self) -> str:
        return self._text[self._at : self._at + 1]

    def _skip(self, pattern: re.Pattern[str]) -> bool:
        match = pattern.match(self._text, self._at)
        if match is None:
            return False
        self._at = match.end()
        return True

    def _line_of(self, position: int) -> int:
        """The number of a line, counted on from the last one asked for."""
        begin, line = self._counted if self._counted[0] <= position else (0, 1)
        self._counted = (position, line + self._text.count("\n", begin, position))
        return self._counted[1]

    def _refuse(self, what: str) -> NoReturn:
        number = self._line_of(self._at)
        begin = self._text.rfind("\n", 0, self._at) + 1
        line = self._text[begin : begin + 200].partition("\n")[0].strip()
        raise FormatError(
            f"line {number}: {what}: {line[:60]!r}",
            hint="only assignments such as NAME=value are read, no shell is run",
        )


_DEFAULT = re.compile(r"[^ \t\n'\"\\$`;&|()<>}]+")
