"""Walking a source directory: every directory of it that is not proven unchanged, as a change."""

import os
import stat
from collections.abc import Iterator

from outcrop.publisher.changes import DirectoryChange
from outcrop.publisher.options import Tell, say_nothing
from outcrop.publisher.previous_state import SourceMemory
from outcrop.publisher.scan import SourceEntry, scan_directory


def walk_directory(
    source: bytes, path: bytes, *, memory: SourceMemory | None = None, tell: Tell = say_nothing
) -> Iterator[DirectoryChange]:
    """The directory `source`, to be at `path`, and all below it, parents before children.

    What `memory` proves to be in the trunk already is listed and left out. Raises
    SourceUnreadable, SourceChanged.
    """
    waiting = [(source, path)]
    seen = 0
    while waiting:
        directory, place = waiting.pop()
        own, entries = scan_directory(directory)
        seen += len(entries)
        if memory is not None and _is_proven(memory, place, own, entries):
            tell("entries", seen, None)
        else:
            yield DirectoryChange(path=place, source=directory, own=own, entries=entries)
        waiting += [
            (directory + b"/" + entry.name, place + b"/" + entry.name)
            for entry in reversed(entries)
            if stat.S_ISDIR(entry.stat.st_mode)
        ]


def _is_proven(
    memory: SourceMemory, path: bytes, own: os.stat_result, entries: list[SourceEntry]
) -> bool:
    state = memory.state
    return state.is_current and state.proves(path, memory.stamps.stamp(own, entries))
