"""What a transaction keeps in the spool area: its changes, and a note of what it is.

The changes are in `scratch/current`, the upper directory of the union. `in_transaction.lock` says
that a transaction is open, to everybody (spec 32); `transaction.json` beside it says which one, to
us: a transaction without it was begun with another tool.
"""

import contextlib
import json
import os
import shutil
import stat
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Self

from outcrop.errors import FormatError
from outcrop.formats.catalog import DirectoryEntry
from outcrop.formats.hashes import ContentHash
from outcrop.formats.xattrs import parse_xattrs
from outcrop.fuse.overlay import WritableLayer
from outcrop.publisher.errors import NoTransaction, PublishError, TransactionOpen
from outcrop.publisher.lock import TRANSACTION_LOCK
from outcrop.publisher.upper_attributes import UpperAttributes

_STATE_FILE = "transaction.json"
_MAX_STATE_BYTES = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Transaction:
    """An open transaction.

    `base` is the root catalog of the trunk it is on top of, `lower` what is beneath the changes:
    the base, with `templates` (from, to) cloned. `union` is where it can be changed, in a shell's
    namespace if `is_shell`. `begun_at` is unix time. `is_publishing`: a publish of it was begun.
    """

    fqrn: str
    base: str
    revision: int
    lower: str
    union: str
    begun_at: int
    user: int
    is_shell: bool
    templates: list[tuple[str, str]] = field(default_factory=list)
    is_publishing: bool = False

    @classmethod
    def parse(cls, text: bytes) -> Self:
        """Read the note. Raises FormatError."""
        try:
            found = json.loads(text)
            values: dict[str, Any] = {each.name: found[each.name] for each in fields(cls)}
            values["templates"] = [(str(old), str(new)) for old, new in values["templates"]]
            for name in ("base", "lower"):
                ContentHash.parse(values[name])
            if not all(type(values[name]) is int for name in ("revision", "begun_at", "user")):
                raise FormatError(f"{_STATE_FILE}: a number is none")
        except (ValueError, KeyError, TypeError) as error:
            raise FormatError(f"{_STATE_FILE} cannot be understood: {error}") from error
        return cls(**values)

    def clones(self) -> Iterator[tuple[bytes, bytes]]:
        """The templates as paths."""
        for source, target in self.templates:
            yield os.fsencode(source), os.fsencode(target)


@dataclass(frozen=True, slots=True)
class TransactionArea:
    """The spool area of one repository, as far as transactions go."""

    spool: Path
    fqrn: str

    @property
    def upper(self) -> Path:
        """The changes."""
        return self.spool / "scratch/current"

    @property
    def work(self) -> Path:
        """The kernel's own directory beside them."""
        return self.spool / "ofs_workdir"

    @property
    def lower(self) -> Path:
        """Where the revision beneath is mounted, read-only."""
        return self.spool / "rdonly"

    @property
    def _wastebin(self) -> Path:
        return self.spool / "scratch/wastebin"

    def layer(self, *, is_shell: bool) -> WritableLayer:
        """For the kernel. A shell's mounts are those of an ordinary user, whoever it is."""
        return WritableLayer(upper=self.upper, work=self.work, has_user_attributes=is_shell)

    @staticmethod
    def attributes(transaction: Transaction) -> UpperAttributes:
        """How the notes of the kernel are read."""
        return UpperAttributes.of_user() if transaction.is_shell else UpperAttributes.of_root()

    # --- is there one? ------------------------------------------------------------------------

    def find(self) -> Transaction | None:
        """The open transaction. Raises TransactionOpen if it is not one of ours."""
        if not (self.spool / TRANSACTION_LOCK).exists():
            return None
        try:
            with (self.spool / _STATE_FILE).open("rb") as file:
                return Transaction.parse(file.read(_MAX_STATE_BYTES))
        except (FileNotFoundError, FormatError) as error:
            raise TransactionOpen(
                f"{self.fqrn}: a transaction is open that was not begun with outcrop ({error})",
                hint="publish or abort it with the tool it was begun with",
            ) from error

    def get(self) -> Transaction:
        """The open transaction. Raises NoTransaction, TransactionOpen."""
        found = self.find()
        if found is None:
            raise NoTransaction(
                f"{self.fqrn}: no transaction is open", hint=f"outcrop transaction {self.fqrn}"
            )
        return found

    def note(self, transaction: Transaction) -> None:
        """Write down what the transaction is; whoever reads it finds the old note or this one."""
        temporary = self.spool / f"{_STATE_FILE}.new"
        with temporary.open("w") as file:
            json.dump(asdict(transaction), file)
            file.flush()
            os.fsync(file.fileno())
        temporary.rename(self.spool / _STATE_FILE)

    def begin(self, transaction: Transaction, root: DirectoryEntry) -> None:
        """Open a transaction that has changed nothing yet; `root` is what its root is like."""
        self.discard()
        for directory in (self.upper, self.work, self.lower):
            directory.mkdir(parents=True, exist_ok=True)
        _dress(self.upper, root)
        self.note(transaction)
        fd = os.open(self.spool / TRANSACTION_LOCK, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
        with os.fdopen(fd, "w") as file:
            file.write(f"{os.getpid()}\n")

    def mark(self, transaction: Transaction, *, is_publishing: bool) -> Transaction:
        """Note that a publish has begun, or has failed."""
        marked = replace(transaction, is_publishing=is_publishing)
        self.note(marked)
        return marked

    def end(self) -> None:
        """Close the transaction, whatever became of it, and drop its changes."""
        self._throw_away()
        (self.spool / TRANSACTION_LOCK).unlink(missing_ok=True)
        (self.spool / _STATE_FILE).unlink(missing_ok=True)
        self.discard()

    # --- the changes --------------------------------------------------------------------------

    def discard(self) -> None:
        """Delete all changes, also those of transactions that ended before. Raises PublishError."""
        self._throw_away()
        if self._wastebin.exists():
            _remove_tree(self._wastebin)

    def _throw_away(self) -> None:
        """Take the changes out of the way at once; a mount may still use them."""
        for directory in (self.upper, self.work):
            if directory.exists():
                self._wastebin.mkdir(parents=True, exist_ok=True)
                number = sum(1 for _ in self._wastebin.iterdir())
                directory.rename(self._wastebin / f"{directory.name}-{number}")

    def is_empty(self) -> bool:
        """Whether nothing was changed but, at most, the root directory itself."""
        return not self.upper.exists() or not any(self.upper.iterdir())


def _dress(directory: Path, root: DirectoryEntry) -> None:
    """Make the upper directory look like the root of the revision, since it is shown as that."""
    directory.chmod(stat.S_IMODE(root.mode))
    with contextlib.suppress(PermissionError):  # its owner is kept all the same
        os.chown(directory, root.uid, root.gid)
    for name, value in parse_xattrs(root.xattrs or b"").items() if root.xattrs else ():
        with contextlib.suppress(OSError):
            os.setxattr(directory, name, value)
    at = root.mtime * 1_000_000_000 + (root.mtime_ns or 0)
    os.utime(directory, ns=(at, at))


def _remove_tree(directory: Path) -> None:
    """Delete a tree, directories that forbid it included."""
    if os.geteuid() != 0:
        for place, names, _ in os.walk(directory):
            for name in names:
                path = Path(place, name)
                if not path.is_symlink():
                    path.chmod(0o700)
    try:
        shutil.rmtree(directory)
    except OSError as error:
        raise PublishError(
            f"{error.filename or directory}: the changes of an old transaction cannot be removed: "
            f"{error.strerror}"
        ) from error
