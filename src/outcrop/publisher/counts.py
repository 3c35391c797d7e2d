"""What is different in a new revision: how many entries of which kind, and which."""

from collections import Counter
from dataclasses import dataclass, field

from outcrop.formats.catalog import Counters, DirectoryEntry
from outcrop.publisher.options import OnChange


@dataclass(slots=True)
class ChangeCounts:
    """How many entries are new, different or gone, by kind.

    Kinds are `files`, `directories`, `symlinks` and `specials`. `removed` is known at the end
    only, from the counters of the catalogs. `bytes_added` and `bytes_removed` are sizes of files;
    a file that changed counts by its difference. `on_change` is told of each path.
    """

    added: Counter[str] = field(default_factory=Counter)
    changed: Counter[str] = field(default_factory=Counter)
    removed: Counter[str] = field(default_factory=Counter)
    bytes_read: int = 0
    bytes_stored: int = 0
    bytes_added: int = 0
    bytes_removed: int = 0
    on_change: OnChange | None = None

    def note(self, path: bytes, entry: DirectoryEntry, before: DirectoryEntry | None) -> None:
        """Count an entry that was written; one of another kind than before is a new one."""
        kind = kind_of(entry)
        is_new = before is None or kind_of(before) != kind
        (self.added if is_new else self.changed)[kind] += 1
        if entry.is_regular:
            self._note_size(entry.size - (before.size if before and not is_new else 0))
        if self.on_change is not None:
            self.on_change("add" if is_new else "mod", path)

    def _note_size(self, difference: int) -> None:
        self.bytes_added += max(difference, 0)
        self.bytes_removed += max(-difference, 0)

    def note_removed(self, path: bytes) -> None:
        """Tell of an entry that goes, with everything below it; counting is `settle`'s."""
        if self.on_change is not None:
            self.on_change("rem", path)

    def settle(self, before: Counters, after: Counters) -> None:
        """Work out what must have gone, since the numbers of the rest are known."""
        old, new = _by_kind(before), _by_kind(after)
        for kind, number in old.items():
            gone = number + self.added[kind] - new[kind]
            if gone > 0:
                self.removed[kind] = gone
            elif gone < 0:  # what the publisher itself put there: markers, for example
                self.added[kind] -= gone
        grown = after.file_size - before.file_size
        self._note_size(grown - self.bytes_added + self.bytes_removed)


def kind_of(entry: DirectoryEntry) -> str:
    """The word for an entry in counts."""
    if entry.is_regular:
        return "files"
    if entry.is_directory:
        return "directories"
    return "symlinks" if entry.is_symlink else "specials"


def _by_kind(counters: Counters) -> dict[str, int]:
    return {
        "files": counters.regular,
        "directories": counters.dir - counters.nested,  # those at transitions count twice
        "symlinks": counters.symlink,
        "specials": counters.special,
    }
