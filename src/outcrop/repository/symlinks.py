"""Variant symlinks: `$(NAME)` and `$(NAME:-default)` in a target (spec 6.9)."""

from collections.abc import Mapping


def is_variant(target: bytes) -> bool:
    """Whether a target has anything to expand."""
    return b"$(" in target


def expand(target: bytes, environment: Mapping[str, str]) -> bytes:
    """Replace each variable by its value, its default, or nothing; not recursively.

    An unterminated `$(` stays as it is. `environment` is the client's, never the caller's: every
    process sees the same target.
    """
    if b"$(" not in target:
        return target
    parts: list[bytes] = []
    rest = target
    while True:
        before, opening, after = rest.partition(b"$(")
        parts.append(before)
        if not opening:
            return b"".join(parts)
        expression, closing, behind = after.partition(b")")
        if not closing:
            parts.append(opening)
            rest = after
            continue
        name, _, default = expression.partition(b":-")
        value = environment.get(name.decode("utf-8", "surrogateescape"))
        parts.append(value.encode("utf-8", "surrogateescape") if value is not None else default)
        rest = behind
