"""A source directory of a publish: where it is, what is known of it, what changes it makes."""

import os
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path

from outcrop.formats.dirtab import MAX_BYTES as MAX_DIRTAB_BYTES
from outcrop.formats.dirtab import Dirtab
from outcrop.publisher.changes import DirectoryChange
from outcrop.publisher.difflist import ListedPath, ListedWalk
from outcrop.publisher.errors import PathRefused, SourceUnreadable
from outcrop.publisher.options import PublishOptions, Tell
from outcrop.publisher.previous_state import (
    PreviousState,
    SourceMemory,
    Stamps,
    make_room,
    state_file,
)
from outcrop.publisher.rules import DIRTAB, read_dirtab, shown_path
from outcrop.publisher.scan import Owners, SourceReader, read_small_file, source_error
from outcrop.publisher.session import Published, PublishSession
from outcrop.publisher.walk import walk_directory


def check_source(source: Path, storage: Path | None) -> bytes:
    """The real path of a directory that can be published. Raises SourceUnreadable, PathRefused."""
    path = os.path.realpath(os.fsencode(source))
    shown = path.decode("utf-8", "backslashreplace")
    if not os.path.isdir(path):  # noqa: PTH112 - bytes
        raise SourceUnreadable(f"{shown} is no directory")
    if storage is not None and _is_below(os.path.realpath(os.fsencode(storage)), path):
        raise PathRefused(f"{shown} has the storage of the repository in it: {storage}")
    return path


def _is_below(path: bytes, directory: bytes) -> bool:
    return (path + b"/").startswith(directory.rstrip(b"/") + b"/")


class SourceDirectory:
    """The source of one publish. Use as a context manager.

    `dirtab` are the rules in force, `memory` is what the source was like when it was last
    published. With `listed` only what it names is looked at.
    """

    def __init__(
        self,
        session: PublishSession,
        source: Path,
        target: bytes,
        options: PublishOptions,
        owners: Owners,
        listed: Mapping[bytes, ListedPath] | None,
    ) -> None:
        settings = session.settings
        self.source = check_source(source, settings.upstream.directory)
        self._session = session
        self._target = target
        self._listed = listed
        self.reader = SourceReader(
            with_xattrs=settings.include_xattrs,
            with_nanoseconds=settings.mtime_nanoseconds,
            owners=owners,
        )
        is_new = not target and (listed is None or DIRTAB in listed or b"" in listed)
        text = _read_source_dirtab(self.source) if is_new else read_dirtab(session)
        self.dirtab = Dirtab.parse(text)
        file = state_file(settings.spool / "sources", self.source, target)
        if not options.dry_run:
            make_room(file)
        state = PreviousState(
            file,
            root=session.root_hash,
            options=f"xattrs={settings.include_xattrs} ns={settings.mtime_nanoseconds} "
            f"specials={settings.ignore_special_files} external={options.external} "
            f"{settings.external_data} {owners} dirtab={text!r}",
            is_kept=not options.dry_run,
        )
        self.memory = SourceMemory(state, Stamps(session.started_at_ns))

    def __enter__(self) -> "SourceDirectory":
        return self

    def __exit__(self, *_: object) -> None:
        self.memory.state.close()

    def changes(self, tell: Tell, *, is_shallow: bool) -> Iterator[DirectoryChange]:
        """Every directory that is not known to be in the repository as it is."""
        if self._listed is None:
            yield from walk_directory(self.source, self._target, memory=self.memory, tell=tell)
            return
        yield from ListedWalk(
            self.source,
            self._target,
            self._listed,
            is_shallow=is_shallow,
            is_directory=self._is_directory,
        )

    def remember(self, published: Published) -> None:
        """Keep what the source looked like, for the next time.

        What a diff list does not name is as certain as it was before.
        """
        if self._listed is None or self.memory.state.is_current:
            self.memory.state.commit(published.catalogs.root.hash)

    def _is_directory(self, path: bytes) -> bool:
        entry = self._session.editor.find(path)
        return entry is not None and entry.is_directory


def _read_source_dirtab(source: bytes) -> bytes:
    """The rules that the new revision will have in its root."""
    path = source + b"/" + DIRTAB
    try:
        seen = os.lstat(path)
    except FileNotFoundError:
        return b""
    except OSError as error:
        raise source_error(path, error) from error
    if not stat.S_ISREG(seen.st_mode):
        raise PathRefused(f"{shown_path(path)} must be a regular file")
    return read_small_file(path, limit=MAX_DIRTAB_BYTES)
