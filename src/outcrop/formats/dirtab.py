r"""`.cvmfsdirtab`: rules that say which directories become nested catalogs.

Spec: docs/reference/formats/dirtab.md. In a positive rule `*`, `?` and `[a-z]` stand for anything
but a slash, as in a shell; in an exclusion (`!`) `*` matches slashes, too, and brackets are just
brackets. `\` takes the next character literally.
"""

import re
from dataclasses import dataclass
from typing import Final, Self

from outcrop.errors import FormatError

MAX_BYTES: Final = 1024 * 1024
_MAX_PATTERN_BYTES: Final = 4096


@dataclass(frozen=True, slots=True)
class Rule:
    """One line: `pattern` as written, without the `!` of an exclusion."""

    pattern: bytes
    is_exclusion: bool


class Dirtab:
    """The rules of one repository.

    Paths are bytes as everywhere: from the repository's root, with a leading slash and without a
    trailing one.
    """

    def __init__(self, rules: tuple[Rule, ...] = ()) -> None:
        self.rules = rules
        self._wanted = [_compile_wanted(rule.pattern) for rule in rules if not rule.is_exclusion]
        self._excluded = [_compile_excluded(rule.pattern) for rule in rules if rule.is_exclusion]

    @classmethod
    def parse(cls, text: bytes) -> Self:
        """Read the file. Raises FormatError naming the line."""
        if len(text) > MAX_BYTES:
            raise FormatError(f".cvmfsdirtab has {len(text)} bytes: the limit is {MAX_BYTES}")
        rules: dict[bytes, Rule] = {}
        for number, line in enumerate(text.split(b"\n"), start=1):
            rule = _parse_line(line, f".cvmfsdirtab line {number}")
            if rule is not None and rules.setdefault(rule.pattern, rule) != rule:
                raise FormatError(
                    f".cvmfsdirtab line {number}: {rule.pattern!r} is both wanted and excluded"
                )
        return cls(tuple(rules.values()))

    def matches(self, path: bytes) -> bool:
        """Whether the directory is to be a nested catalog: wanted by a rule, excluded by none."""
        names = path.split(b"/")
        return any(
            len(rule) == len(names) and _fits(rule, names) for rule in self._wanted
        ) and not any(rule.fullmatch(path) for rule in self._excluded)

    def may_match_below(self, path: bytes) -> bool:
        """Whether some directory below this one could match; `False` lets a walk skip it."""
        names = path.split(b"/")
        return any(len(rule) > len(names) and _fits(rule, names) for rule in self._wanted)


def _parse_line(line: bytes, subject: str) -> Rule | None:
    text = line.lstrip(b" \t")
    if not text or text.startswith(b"#"):
        return None
    is_exclusion = text.startswith(b"!")
    pattern = text[1:].lstrip(b" \t") if is_exclusion else text
    if len(pattern) > 1:
        pattern = pattern.removesuffix(b"/")
    if not pattern or len(pattern) > _MAX_PATTERN_BYTES or b"\0" in pattern:
        raise FormatError(f"{subject}: there is no pattern, or an impossible one")
    if not is_exclusion and not pattern.startswith(b"/"):
        raise FormatError(
            f"{subject}: {pattern!r} does not begin with a slash",
            hint="only exclusions (!) may be relative",
        )
    if not is_exclusion and b"[[:" in pattern:
        raise FormatError(f"{subject}: named classes such as [[:alpha:]] are not understood")
    return Rule(pattern, is_exclusion)


def _fits(rule: list[re.Pattern[bytes]], names: list[bytes]) -> bool:
    return all(element.fullmatch(name) for element, name in zip(rule, names, strict=False))


def _compile_wanted(pattern: bytes) -> list[re.Pattern[bytes]]:
    """One expression for each name of the path."""
    return [_compile(_tokens(element, with_sets=True)) for element in pattern.split(b"/")]


def _compile_excluded(pattern: bytes) -> re.Pattern[bytes]:
    """One expression for the whole path: a star goes through slashes."""
    return _compile(_tokens(pattern, with_sets=False))


def _tokens(pattern: bytes, *, with_sets: bool) -> list[bytes | None]:
    """A regular expression for each character to match, `None` for a star."""
    tokens: list[bytes | None] = []
    for match in (_TOKEN_WITH_SETS if with_sets else _TOKEN).finditer(pattern):
        text = match[0]
        if text == b"*":
            tokens.append(None)
        elif text == b"?":
            tokens.append(b"[^/]")
        elif match.lastgroup == "set":
            tokens.append(_set_expression(match["set"]))
        else:
            tokens.append(re.escape(text[-1:]))
    return tokens


_TOKEN_WITH_SETS = re.compile(rb"\\.|\[(?P<set>!?\]?[^\]]*)\]|.", re.DOTALL)
_TOKEN = re.compile(rb"\\.|.", re.DOTALL)


def _set_expression(inside: bytes) -> bytes:
    """A bracket's content as an expression; a range that runs backwards matches nothing."""
    is_negated = inside.startswith(b"!")
    members: set[int] = set()
    for match in _SET_MEMBER.finditer(inside[1:] if is_negated else inside):
        first, last = match["first"], match["last"] or match["first"]
        members.update(range(first[0], last[0] + 1))
    chosen = set(range(256)) - members if is_negated else members
    escaped = b"".join(re.escape(bytes((byte,))) for byte in sorted(chosen - {0x2F}))
    return b"[" + escaped + b"]" if escaped else b"(?!)"


_SET_MEMBER = re.compile(rb"(?P<first>.)(?:-(?P<last>.))?", re.DOTALL)


def _compile(tokens: list[bytes | None]) -> re.Pattern[bytes]:
    """An expression that cannot run away, however many stars there are.

    Each star but the last takes the first place where the text after it fits and never
    reconsiders (an atomic group): a later place would only leave less for what follows.
    """
    pieces = [b""]
    for token in tokens:
        if token is None:
            pieces.append(b"")
        else:
            pieces[-1] += token
    expression = pieces[0]
    for piece in pieces[1:-1]:
        expression += b"(?>.*?" + piece + b")"
    if len(pieces) > 1:
        expression += b".*" + pieces[-1]
    return re.compile(expression, re.DOTALL)
