"""The notes that overlayfs makes in extended attributes of its upper directory."""

import errno
import os
import stat
from typing import Self

from outcrop.publisher.errors import SourceUnreadable
from outcrop.publisher.rules import shown_path
from outcrop.publisher.scan import source_error

_ABSENT = (errno.ENODATA, errno.ENOTSUP, errno.EPERM, errno.EACCES)


class UpperAttributes:
    """Reads the notes of one of the kernel's two name spaces, `trusted.overlay` or `user.overlay`.

    A mount made with `userxattr` (in user namespaces) has the second; there anybody's attribute of
    such a name is a note, while in the first kind of mount it means nothing.
    """

    def __init__(self, prefix: bytes) -> None:
        self._opaque = [prefix + b"opaque"]
        if prefix == b"user.overlay.":
            self._opaque.append(b"user.fuseoverlayfs.opaque")
        self._redirect = prefix + b"redirect"
        self._metacopy = prefix + b"metacopy"
        self._whiteout = prefix + b"whiteout"
        self.has_metacopies = prefix == b"trusted.overlay."

    @classmethod
    def of_root(cls) -> Self:
        """Of a mount that root made."""
        return cls(b"trusted.overlay.")

    @classmethod
    def of_user(cls) -> Self:
        """Of a mount in a user namespace."""
        return cls(b"user.overlay.")

    def is_opaque(self, path: bytes) -> bool:
        """Whether a directory hides all that is beneath it."""
        return any(_read(path, name) == b"y" for name in self._opaque)

    def has_whiteouts(self, path: bytes) -> bool:
        """Whether empty files in a directory may be whiteouts, by an attribute of theirs."""
        return _read(path, self._opaque[0]) == b"x"

    def is_whiteout(self, path: bytes) -> bool:
        """Whether an empty file in such a directory is one."""
        return _read(path, self._whiteout) is not None

    def is_metacopy(self, path: bytes, seen: os.stat_result) -> bool:
        """Whether a file has metadata only: its content is that of the file beneath.

        An empty one counts as a file like any other, since nothing of it is elsewhere.
        """
        if not self.has_metacopies or not stat.S_ISREG(seen.st_mode) or not seen.st_size:
            return False
        return _read(path, self._metacopy) is not None

    def redirect(self, path: bytes, parent: bytes | None) -> bytes | None:
        """Where beneath the content is, if that is noted; `parent` is where the parent's is.

        Raises SourceUnreadable.
        """
        value = _read(path, self._redirect) if self.has_metacopies else None
        if not value:
            return None
        is_absolute = value.startswith(b"/")
        names = value.split(b"/")[1:] if is_absolute else [value]
        if any(name in (b"", b".", b"..") or b"/" in name for name in names):
            raise SourceUnreadable(f"{shown_path(path)} has a redirect to nowhere: {value!r}")
        if is_absolute:
            return value
        return None if parent is None else parent + b"/" + value


def _read(path: bytes, name: bytes) -> bytes | None:
    try:
        return os.getxattr(path, name, follow_symlinks=False)
    except OSError as error:
        if error.errno in _ABSENT:
            return None
        raise source_error(path, error) from error
