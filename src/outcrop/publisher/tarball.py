"""Publishing a tar archive: its members become entries of a subtree, as one new revision.

What is in the subtree already stays unless a member replaces it, so several archives can be
published onto one place. The archive is read once, from its beginning to its end, and nothing is
unpacked: contents go from the stream into the pipeline.
"""

import os
import pwd
import stat
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import BinaryIO, Final, Self

from outcrop.errors import FormatError
from outcrop.formats.bundles import BUNDLES, is_bundle_name
from outcrop.formats.bundles import MAX_BYTES as MAX_BUNDLE_BYTES
from outcrop.formats.catalog import DirectoryEntry
from outcrop.formats.dirtab import Dirtab
from outcrop.formats.graft import Graft
from outcrop.formats.hashes import Compression
from outcrop.formats.xattrs import (
    MAX_ATTRIBUTES,
    MAX_NAME_BYTES,
    MAX_VALUE_BYTES,
    serialize_xattrs,
)
from outcrop.publisher.counts import ChangeCounts
from outcrop.publisher.errors import (
    LimitExceeded,
    MemberRefused,
    PathRefused,
    PublisherSettingsError,
)
from outcrop.publisher.file_changes import refuse_grafted_bundle
from outcrop.publisher.markers import MarkerWriter
from outcrop.publisher.options import PublishOptions, Tell
from outcrop.publisher.pipeline import FileContent, FileJob
from outcrop.publisher.publish import PublishResult, check_target, publish_changes
from outcrop.publisher.rules import (
    CATALOG_MARKER,
    DIRTAB,
    GRAFT_PREFIX,
    VIRTUAL_DIRECTORY,
    SyncRules,
    check_bundle,
    check_bundle_place,
    shown_path,
)
from outcrop.publisher.scan import DIRECTORY_BYTES
from outcrop.publisher.session import PublishSession
from outcrop.publisher.tar_members import TarMember
from outcrop.publisher.tar_stream import TarReader
from outcrop.publisher.tar_tree import MemberTree
from outcrop.storage.locations import Locations
from outcrop.storage.store import WritableStore

_IN_MEMORY_BYTES: Final = 1 << 20
_MAX_GRAFT_BYTES: Final = 256 << 20
_MAX_WARNINGS: Final = 1000
_KERNEL_ATTRIBUTES: Final = (b"trusted.overlay.", b"user.overlay.", b"system.nfs4_acl")


@dataclass(frozen=True, slots=True)
class Ownership:
    """Whose the entries are; `None`: whose the archive says (by number)."""

    uid: int | None = None
    gid: int | None = None

    @classmethod
    def of_user(cls, name: str) -> Self:
        """Everything belongs to this user of the machine. Raises PublisherSettingsError."""
        try:
            user = pwd.getpwnam(name)
        except KeyError as error:
            raise PublisherSettingsError(
                f"CVMFS_USER={name!r} is no user of this machine",
                hint="give the numbers of a user and a group, or keep the archive's",
            ) from error
        return cls(user.pw_uid, user.pw_gid)


def publish_tarball(
    locations: Locations,
    fqrn: str,
    *,
    archive: BinaryIO | None,
    to: bytes = b"",
    delete: Sequence[bytes] = (),
    nest_target: bool = False,
    uid: int | None = None,
    gid: int | None = None,
    keep_ownership: bool = True,
    options: PublishOptions,
    now: int,
    progress: Tell | None = None,
    store: WritableStore | None = None,
) -> PublishResult:
    """Publish a tar stream (plain, gzip, bzip2, xz or zstd) below the path `to` (`b""`: the root).

    First the paths `delete` go (without an `archive`, that is all); then members come in order,
    each replacing what has its name. `nest_target` gives `to` a catalog of its own. `uid` and
    `gid` are for all entries; without `keep_ownership` they belong to `CVMFS_USER` otherwise.
    Raises ArchiveInvalid, MemberRefused and what `publish_changes` raises: nothing is published.
    """
    target = check_target(to)
    paths = [_removable(path) for path in delete]
    if nest_target and not target:
        raise PathRefused("the root of a repository always has a catalog of its own")

    def apply(session: PublishSession, tell: Tell) -> ChangeCounts:
        default = Ownership() if keep_ownership else Ownership.of_user(session.settings.user)
        owner = Ownership(default.uid if uid is None else uid, default.gid if gid is None else gid)
        ingest = TarballIngest(session, options, target, owner)
        ingest.remove(paths)
        if archive is not None:
            size = _archive_bytes(archive)
            ingest.add(TarReader(archive, lambda done: tell("bytes", done, size)))
        return ingest.finish(nest_target=nest_target)

    return publish_changes(
        locations, fqrn, apply, options=options, now=now, progress=progress, store=store
    )


class TarballIngest:
    """Turns members of archives into entries below `target`."""

    def __init__(
        self, session: PublishSession, options: PublishOptions, target: bytes, owner: Ownership
    ) -> None:
        self._session = session
        self._settings = session.settings
        self._pipeline = session.pipeline
        self._target = target
        self._owner = owner
        self._rules = SyncRules.of(session, options, Dirtab())  # every publish heeds it at its end
        self._grafts: dict[bytes, Graft] = {}
        self._graft_bytes = 0
        self.counts = ChangeCounts(on_change=options.on_change)
        self._tree = MemberTree(session, self._rules, self.counts, uid=owner.uid, gid=owner.gid)

    def remove(self, paths: Sequence[bytes]) -> None:
        """Remove subtrees; what is not there is warned of."""
        for path in paths:
            if not self._tree.remove(path):
                self._warn(f"{shown_path(path)} is not there to be deleted")

    def add(self, reader: TarReader) -> None:
        """Take all members of an archive. Raises ArchiveInvalid, MemberRefused, LimitExceeded."""
        self._tree.open_directory(self._target, self._target)
        for member in reader:
            self._add(member, reader)

    def finish(self, *, nest_target: bool) -> ChangeCounts:
        """Have everything in the editor. Returns what is different by now."""
        pipeline = self._pipeline
        markers = MarkerWriter(
            self._session.editor, pipeline.writer, pipeline.compression, self._rules.now
        )
        if nest_target:
            self._tree.nest(self._target, markers)
        self._tree.settle()
        self._apply_grafts()
        return self.counts

    # --- one member ---

    def _add(self, member: TarMember, reader: TarReader) -> None:
        path = self._place(member, member.name)
        kind = stat.S_IFMT(member.mode)
        if kind == stat.S_IFDIR:
            self._check_name(member, path)
            self._tree.put_directory(path, self._entry(member, path, DIRECTORY_BYTES))
            return
        if path == self._target:
            raise MemberRefused(f"{member.shown}: the place of all members must be a directory")
        self._check_name(member, path)
        if member.is_hard_link:
            self._tree.link(path, self._place(member, member.link))
        elif kind == stat.S_IFREG and path.rpartition(b"/")[2].startswith(GRAFT_PREFIX):
            self._add_graft(member, path, reader)
        elif kind == stat.S_IFREG:
            self._add_file(member, path, reader)
        elif kind == stat.S_IFLNK or self._rules.keeps_specials:
            self._tree.put(path, self._entry(member, path, len(member.link)))
        else:
            self._warn(f"{member.shown} is a special file: left out")

    def _place(self, member: TarMember, name: bytes) -> bytes:
        """Where in the repository a name of the archive is."""
        names = [part for part in name.split(b"/") if part not in (b"", b".")]
        if b".." in names:
            raise MemberRefused(f"{member.shown}: a path with .. leads out of the archive")
        if not names:
            return self._target
        if max(map(len, names)) > 255:
            raise MemberRefused(f"{member.shown}: a name in it is longer than 255 bytes")
        path = self._target + b"/" + b"/".join(names)
        if path.startswith(VIRTUAL_DIRECTORY) and path[7:8] in (b"", b"/"):
            raise MemberRefused(f"{member.shown}: /.cvmfs in a repository is reserved")
        return path

    def _check_name(self, member: TarMember, path: bytes) -> None:
        """Names with a meaning must be what they mean."""
        directory, _, name = path.rpartition(b"/")
        self._check_bundle_names(member, path)
        if not name.startswith(b".cvmfs"):
            return
        if name == CATALOG_MARKER and (not stat.S_ISREG(member.mode) or not directory):
            what = "must be a regular file" if directory else "is not for the root, which has one"
            raise MemberRefused(f"{member.shown} {what}")
        if path == b"/" + DIRTAB and (not stat.S_ISREG(member.mode) or member.is_hard_link):
            raise MemberRefused(f"{member.shown} must be a regular file")
        if name.startswith(GRAFT_PREFIX) and (not stat.S_ISREG(member.mode) or member.is_hard_link):
            raise MemberRefused(f"{member.shown} must be a regular file")

    def _check_bundle_names(self, member: TarMember, path: bytes) -> None:
        """Files about bundles must be such, whatever a member makes on its way or is a link to."""
        *above, name = path[1:].split(b"/")
        if any(map(is_bundle_name, above)):
            raise PathRefused(f"{member.shown}: a file about bundles cannot be a directory")
        is_linked = member.is_hard_link
        if is_bundle_name(name):
            is_plain = stat.S_ISREG(member.mode) or is_linked
            check_bundle_place(path, member.shown, is_regular=is_plain, is_linked=is_linked)
        if is_linked and b"/" + BUNDLES in (path, self._place(member, member.link)):
            raise PathRefused(f"{member.shown}: /.cvmfsbundles must not be a hard link")
        if is_linked and is_bundle_name(name):
            raise PathRefused(f"{member.shown} must be a regular file, not a hard link")

    def _add_graft(self, member: TarMember, path: bytes, reader: TarReader) -> None:
        """A graft file is no entry: it says what the file beside it holds."""
        self._graft_bytes += member.size
        if self._graft_bytes > _MAX_GRAFT_BYTES:
            raise LimitExceeded(
                f"{member.shown}: graft files of more than {_MAX_GRAFT_BYTES} bytes"
            )
        try:
            graft = Graft.parse(reader.read(member))
        except FormatError as error:
            raise FormatError(f"{member.shown}: {error}", hint="nothing was published") from error
        directory, _, name = path.rpartition(b"/")
        refuse_grafted_bundle(directory + b"/" + name.removeprefix(GRAFT_PREFIX))
        self._grafts[directory + b"/" + name.removeprefix(GRAFT_PREFIX)] = graft

    def _apply_grafts(self) -> None:
        """Give grafted files their content, now that all of them are there."""
        editor = self._session.editor
        for path, graft in self._grafts.items():
            entry = editor.find(path)
            if entry is None or not entry.is_regular:
                self._warn(f"{shown_path(path)} has a graft file, but is no file")
                continue
            grafted = replace(
                entry, size=graft.size, content=graft.checksum, algorithm=graft.algorithm,
                compression=graft.compression, is_chunked=bool(graft.chunks),
                is_external=self._rules.is_external, nlink=1, hardlink_group=0,
            )  # fmt: skip
            editor.put(path.rpartition(b"/")[0], [(grafted, graft.chunks)])

    def _add_file(self, member: TarMember, path: bytes, reader: TarReader) -> None:
        warning = self._rules.size_warning(path, member.size)
        if warning is not None:
            self._warn(warning)
        number = self._tree.begin_file(path)
        job = FileJob(
            member.name,
            os.stat_result((member.mode, 0, 0, 1, 0, 0, member.size, 0, 0, 0)),
            partial(self._end_file, member, path, number),
            is_external=self._rules.is_external,
        )
        name = path.rpartition(b"/")[2]
        if is_bundle_name(name) and member.size > MAX_BUNDLE_BYTES:
            raise LimitExceeded(f"{member.shown} has more than {MAX_BUNDLE_BYTES} bytes")
        if member.size <= _IN_MEMORY_BYTES or is_bundle_name(name):
            job.data = reader.read(member)
            if is_bundle_name(name):
                check_bundle(name, member.shown, job.data)
            self._pipeline.submit(job)
        else:
            self._pipeline.submit_blocks(job, reader.blocks(member))

    def _end_file(self, member: TarMember, path: bytes, number: int, content: FileContent) -> None:
        self.counts.bytes_read += member.size
        self.counts.bytes_stored += content.new_bytes
        is_external = self._rules.is_external
        if is_external and content.chunks and content.compression is not Compression.NONE:
            raise PathRefused(
                f"{member.shown}: external data in chunks cannot be compressed",
                hint="publish with the compression none, or set CVMFS_USE_FILE_CHUNKING=false",
            )
        entry = DirectoryEntry(
            name=path.rpartition(b"/")[2],
            mode=member.mode,
            size=member.size,
            mtime=member.mtime,
            mtime_ns=member.mtime_ns if self._settings.mtime_nanoseconds else None,
            uid=member.uid if self._owner.uid is None else self._owner.uid,
            gid=member.gid if self._owner.gid is None else self._owner.gid,
            content=content.content,
            algorithm=content.algorithm,
            compression=content.compression,
            xattrs=self._xattrs(member) if member.xattrs else None,
            is_chunked=bool(content.chunks),
            is_external=is_external,
        )
        self._tree.end_file(path, number, entry, content.chunks)

    def _entry(self, member: TarMember, path: bytes, size: int) -> DirectoryEntry:
        """The entry of a directory, symlink or special file."""
        return DirectoryEntry(
            name=path.rpartition(b"/")[2],
            mode=member.mode,
            size=size,
            rdev=os.makedev(*member.rdev) if member.rdev != (0, 0) else 0,
            mtime=member.mtime,
            mtime_ns=member.mtime_ns if self._settings.mtime_nanoseconds else None,
            uid=member.uid if self._owner.uid is None else self._owner.uid,
            gid=member.gid if self._owner.gid is None else self._owner.gid,
            symlink=member.link if stat.S_ISLNK(member.mode) else b"",
            xattrs=self._xattrs(member) if member.xattrs else None,
        )

    def _xattrs(self, member: TarMember) -> bytes | None:
        """The blob of the extended attributes; what has no room in it is warned of."""
        if not self._settings.include_xattrs:
            return None
        fitting: dict[bytes, bytes] = {}
        for name, value in sorted(member.xattrs.items()):
            if name.startswith(_KERNEL_ATTRIBUTES):
                continue
            is_fitting = 0 < len(name) <= MAX_NAME_BYTES and len(value) <= MAX_VALUE_BYTES
            if is_fitting and b"\0" not in name and len(fitting) < MAX_ATTRIBUTES:
                fitting[name] = value
            else:
                self._warn(
                    f"{member.shown}: extended attribute {name[:60]!r} of {len(value)} bytes left "
                    f"out: there is room for {MAX_ATTRIBUTES} attributes of {MAX_VALUE_BYTES} bytes"
                )
        return serialize_xattrs(fitting)

    def _warn(self, message: str) -> None:
        if len(self._session.warnings) < _MAX_WARNINGS:
            self._session.warnings.append(message)


def _removable(path: bytes) -> bytes:
    checked = check_target(path)
    if not checked:
        raise PathRefused("the root of a repository cannot be deleted")
    return checked


def _archive_bytes(archive: BinaryIO) -> int | None:
    """How large the archive is, if it is a file."""
    try:
        seen = os.fstat(archive.fileno())
    except OSError:
        return None
    return seen.st_size if stat.S_ISREG(seen.st_mode) else None
