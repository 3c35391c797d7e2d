"""Fully qualified repository names: `atlas.cern.ch`."""

import re

from outcrop.errors import FormatError

MAX_LENGTH = 60
_FQRN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*", re.ASCII)


def check_fqrn(text: str) -> str:
    """Return the name as it is. Raises FormatError where no repository can be called that.

    What passes is safe as one component of a path or a URL: it is neither `.` nor `..` and has
    no slash, blank or control character.
    """
    if len(text) > MAX_LENGTH:
        raise FormatError(f"repository name {text[:MAX_LENGTH]}… is over {MAX_LENGTH} characters")
    if _FQRN.fullmatch(text) is None:
        raise FormatError(
            f"not a repository name: {text!r}",
            hint="letters, digits and . _ - are allowed, the first must be a letter or digit",
        )
    return text


def domain(fqrn: str) -> str:
    """What follows the first dot: `cern.ch` of `atlas.cern.ch`; empty if there is no dot."""
    return fqrn.partition(".")[2]


def organisation(fqrn: str) -> str:
    """What precedes the first dot: `atlas` of `atlas.cern.ch`; `@org@` in parameters."""
    return fqrn.partition(".")[0]
