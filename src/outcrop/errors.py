"""The root of every exception Outcrop raises on purpose, and what bytes can do wrong.

Families say who can act (`FormatError` here, `TrustError` in `outcrop.trust`, `StorageError` in
`outcrop.storage`, …), leaves say what happened. Each class carries the exit code of a command that
ends with it and the errno a mount answers with, so neither edge keeps a table of its own.
"""

import errno
from typing import ClassVar


class OutcropError(Exception):
    """Something went wrong that the user can understand: a sentence, and perhaps the next step.

    `exit_code` and `errno` are part of the documented interface (docs/reference/exit-codes.md).
    """

    exit_code: ClassVar[int] = 1
    errno: ClassVar[int] = errno.EIO

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.hint = hint


class FormatError(OutcropError):
    """Bytes are not what they claim to be."""

    exit_code = 3
