"""What the exit code of a command means: documented interface, docs/reference/exit-codes.md."""

from collections.abc import Mapping

DONE = 0
FAILED = 1
USAGE = 2
INTERRUPTED = 130
READER_GONE = 141

MEANINGS: Mapping[int, str] = {
    DONE: "done",
    FAILED: "failed",
    USAGE: "wrong usage",
    3: "bytes are not what they claim to be",
    4: "not to be trusted",
    5: "storage or network",
    6: "no such path, tag or repository",
    7: "settings",
    8: "mounting",
    9: "publishing",
    126: "COMMAND cannot be executed",
    127: "COMMAND is not found",
    INTERRUPTED: "interrupted (Ctrl-C)",
    READER_GONE: "the reader of the output went away",
}
"""Exit code → what happened, for every code a command can end with."""

READING = (3, 4, 5, 6, 7)
"""The families every command can end with that opens a repository."""
