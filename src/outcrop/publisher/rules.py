"""What a repository asks of its content, whatever it comes from: names, kinds, sizes."""

import stat
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Self

from outcrop.formats.dirtab import Dirtab
from outcrop.publisher.dirtab_catalogs import read_rules
from outcrop.publisher.errors import LimitExceeded, PathRefused
from outcrop.publisher.markers import AUTO_MARKER, CATALOG_MARKER, DIRTAB
from outcrop.publisher.options import PublishOptions
from outcrop.publisher.scan import SourceEntry
from outcrop.publisher.session import PublishSession
from outcrop.repository.editor import VIRTUAL_DIRECTORY

__all__ = [
    "AUTO_MARKER",
    "CATALOG_MARKER",
    "DIRTAB",
    "GRAFT_PREFIX",
    "VIRTUAL_DIRECTORY",
    "SyncRules",
    "read_dirtab",
    "shown_path",
]

GRAFT_PREFIX = b".cvmfsgraft-"


@dataclass(frozen=True, slots=True, kw_only=True)
class SyncRules:
    """The rules of one revision in the making.

    Files larger than `max_file_bytes` are warned of, or refused if `is_strict`. `now` (unix time)
    is the age of what is in the repository only. `is_external`: files are external data.
    `keeps_specials`: fifos, sockets and devices are published, too. `with_split_links`: a hard
    link to a file of another directory is a file of its own, else an error.
    """

    dirtab: Dirtab
    max_file_bytes: int
    is_strict: bool
    now: int
    is_external: bool
    keeps_specials: bool
    with_split_links: bool

    @classmethod
    def of(cls, session: PublishSession, options: PublishOptions, dirtab: Dirtab) -> Self:
        """The rules by the repository's settings, unless the options say otherwise."""
        settings = session.settings
        external = options.external
        return cls(
            dirtab=dirtab,
            max_file_bytes=settings.max_file_bytes,
            is_strict=settings.enforce_limits,
            now=session.commit.now,
            is_external=settings.external_data if external is None else external,
            keeps_specials=not settings.ignore_special_files,
            with_split_links=settings.ignore_cross_directory_hardlinks,
        )

    def check_names(self, source: bytes, path: bytes, entries: Iterable[SourceEntry]) -> None:
        """Names with a meaning must be what they mean. Raises PathRefused."""
        for name, seen in entries:
            if not name.startswith(b".cvmfs"):
                continue
            shown = shown_path(source + b"/" + name)
            if path + b"/" + name == VIRTUAL_DIRECTORY:
                raise PathRefused(f"{shown}: /.cvmfs in a repository is reserved")
            is_meant = name == CATALOG_MARKER or name.startswith(GRAFT_PREFIX)
            if is_meant and not stat.S_ISREG(seen.st_mode):
                raise PathRefused(f"{shown} must be a regular file")
            if name == CATALOG_MARKER and not path:
                raise PathRefused(
                    f"{shown}: the root of a repository always has a catalog",
                    hint="remove that file",
                )

    def size_warning(self, path: bytes, size: int) -> str | None:
        """What is to be said of a file so large. Raises LimitExceeded."""
        if size <= self.max_file_bytes:
            return None
        message = f"{shown_path(path)} has {size} bytes, the limit is {self.max_file_bytes}"
        if self.is_strict:
            raise LimitExceeded(message, hint="CVMFS_FILE_MBYTE_LIMIT sets it")
        return message


def read_dirtab(session: PublishSession) -> bytes:
    """The `.cvmfsdirtab` that the revision so far has in its root; none if that is external."""
    return read_rules(session.editor, session.store)


def shown_path(path: bytes) -> str:
    """A path for people."""
    return path.decode("utf-8", "backslashreplace") or "/"
