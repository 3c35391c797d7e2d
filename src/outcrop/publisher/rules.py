"""What a repository asks of its content, whatever it comes from: names, kinds, sizes."""

import stat
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Self

from outcrop.errors import FormatError
from outcrop.formats.bundles import BUNDLE_PREFIX, BUNDLES, check_bundle_file, is_bundle_name
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
    "check_bundle",
    "check_bundle_place",
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
        if is_bundle_name(path.rpartition(b"/")[2]):
            check_bundle_place(path, shown_path(source), is_regular=False, is_linked=False)
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
            if is_bundle_name(name):
                is_plain = stat.S_ISREG(seen.st_mode)
                is_linked = is_plain and seen.st_nlink > 1
                check_bundle_place(
                    path + b"/" + name, shown, is_regular=is_plain, is_linked=is_linked
                )

    def size_warning(self, path: bytes, size: int) -> str | None:
        """What is to be said of a file so large. Raises LimitExceeded."""
        if size <= self.max_file_bytes:
            return None
        message = f"{shown_path(path)} has {size} bytes, the limit is {self.max_file_bytes}"
        if self.is_strict:
            raise LimitExceeded(message, hint="CVMFS_FILE_MBYTE_LIMIT sets it")
        return message


def check_bundle_place(path: bytes, shown: str, *, is_regular: bool, is_linked: bool) -> None:
    """A file about bundles must be a regular file, where it may be. Raises PathRefused.

    `path` is in the repository, `shown` is how the source names it, and `is_linked` whether it has
    other names.
    """
    if not is_regular:
        raise PathRefused(f"{shown} must be a regular file", hint="nothing was published")
    directory, _, name = path.rpartition(b"/")
    if name == BUNDLES and directory:
        raise PathRefused(f"{shown}: such a file is for the root of a repository only")
    if name == BUNDLES and is_linked:
        raise PathRefused(f"{shown} must not be a hard link", hint="make a copy of it")
    if name == BUNDLE_PREFIX:
        raise PathRefused(f"{shown}: the name of a file must follow")


def check_bundle(name: bytes, shown: str, data: bytes) -> None:
    """What a file about bundles holds must be right. Raises FormatError naming the file."""
    try:
        check_bundle_file(name, data)
    except FormatError as error:
        raise FormatError(f"{shown}: {error}", hint="nothing was published") from error


def read_dirtab(session: PublishSession) -> bytes:
    """The `.cvmfsdirtab` that the revision so far has in its root; none if that is external."""
    return read_rules(session.editor, session.store)


def shown_path(path: bytes) -> str:
    """A path for people."""
    return path.decode("utf-8", "backslashreplace") or "/"
