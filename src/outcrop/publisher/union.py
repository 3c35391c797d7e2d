"""The writable place of a transaction: an overlay on top of the revision, mounted by root."""

import os
from pathlib import Path
from typing import Protocol

from outcrop.errors import OutcropError
from outcrop.formats.hashes import ContentHash
from outcrop.fuse.errors import MountError, MountpointBusy, MountpointUnusable
from outcrop.fuse.mount import MountState, find_mount, mount_state
from outcrop.fuse.overlay import (
    Mounted,
    bind,
    detach,
    make_read_only,
    make_writable,
    mount_overlay,
    mounts_at,
)
from outcrop.publisher.errors import TransactionBusy
from outcrop.publisher.open_files import find_open_files
from outcrop.publisher.transaction_area import TransactionArea

_MAX_NAMED = 5
_PINNED_FILE = "client.local"


class RevisionMounter(Protocol):
    """Mounts revisions for reading; how is not the publisher's business."""

    def mount(self, mountpoint: Path, root_hash: ContentHash) -> None:
        """Show the revision with this root catalog, served by another process from then on."""


class Union:
    """What is mounted for one repository: its revision at `rdonly`, changes on top of that.

    Where nothing else is mounted at `place`, the revision is to be seen there between transactions.
    """

    def __init__(self, area: TransactionArea, place: Path, mounter: RevisionMounter) -> None:
        self._area = area
        self._place = place
        self._mounter = mounter
        self._name = f"overlay_{area.fqrn}"

    @property
    def is_open(self) -> bool:
        """Whether the overlay is mounted."""
        return any(self._is_ours(each) for each in mounts_at(self._place))

    @property
    def is_shown(self) -> bool:
        """Whether a revision is mounted for it."""
        return find_mount(self._area.lower) is not None

    @property
    def is_served(self) -> bool:
        """Whether what is beneath the changes still has a server; others must not be touched."""
        return mount_state(self._area.lower) is MountState.ALIVE

    def open(self, lower: ContentHash) -> None:
        """Make the place writable, on top of a revision. Raises MountError."""
        if os.geteuid() != 0:
            raise MountError(
                f"{self._place}: only root can make it writable for everybody",
                hint=f"outcrop transaction {self._area.fqrn} --shell makes it so for a shell",
            )
        try:
            self._place.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise MountpointUnusable(f"{self._place}: {error.strerror}") from error
        self._show_lower(lower)
        layer = self._area.layer(is_shell=False)
        mount_overlay(self._place, self._area.lower, layer, fsname=self._name)

    def close(self, *, force: bool) -> None:
        """Take the overlay away. Raises TransactionBusy where it is in use, unless by `force`."""
        if not self.is_open:
            return
        if not force:
            self._check_users("is in use", written_only=False)
        while self.is_open:
            detach(self._place)

    def show(self, root_hash: ContentHash) -> None:
        """Show a revision at the place, for reading. Raises OutcropError."""
        self._hide_lower()
        self._show_lower(root_hash)
        if not mounts_at(self._place):
            self._place.mkdir(parents=True, exist_ok=True)
            bind(self._area.lower, self._place)

    def freeze(self, *, force: bool) -> None:
        """See that nobody changes anything any more. Raises TransactionBusy, unless by `force`."""
        if not self.is_open:
            return
        if not force:
            self._check_users("is being written", written_only=True)
        try:
            make_read_only(self._place)
        except MountpointBusy as error:
            if not force:
                raise TransactionBusy(str(error), hint=error.hint) from error

    def thaw(self) -> None:
        """Allow changes again. Raises MountError."""
        if self.is_open:
            make_writable(self._place)

    def _check_users(self, what: str, *, written_only: bool) -> None:
        users = []
        own = os.getpid()
        for user in find_open_files(self._place, written_only=written_only):
            if user.pid != own:
                users.append(str(user))
        if users:
            more = f" and {len(users) - _MAX_NAMED} more" if len(users) > _MAX_NAMED else ""
            raise TransactionBusy(
                f"{self._place} {what}: {'; '.join(users[:_MAX_NAMED])}{more}",
                hint="end these processes or close the files; -f goes ahead all the same",
            )

    def _is_ours(self, mounted: Mounted) -> bool:
        return mounted.type == "overlay" and mounted.source == self._name

    def _show_lower(self, root_hash: ContentHash) -> None:
        """Have the revision at `rdonly`; a mount that is there and alive is of the right one."""
        pinned = self._area.spool / _PINNED_FILE
        line = f"CVMFS_ROOT_HASH={root_hash}\n"
        is_right = pinned.exists() and pinned.read_text() == line
        if is_right and mount_state(self._area.lower) is MountState.ALIVE:
            return
        self._hide_lower()
        self._mounter.mount(self._area.lower, root_hash)
        pinned.write_text(line)

    def _hide_lower(self) -> None:
        hide_revision(self._area, self._place)


def hide_revision(area: TransactionArea, place: Path) -> None:
    """Take away what is mounted between transactions. Raises MountError."""
    lower = find_mount(area.lower)
    if lower is None:
        return
    device = f"{lower.device >> 20}:{lower.device & 0xFFFFF}"
    while (shown := mounts_at(place)) and shown[-1].device == device:
        detach(place)
    while find_mount(area.lower) is not None:
        detach(area.lower)


def give_back(union: Union, root_hash: ContentHash) -> list[str]:
    """Close a union whose transaction is over and show what there is now; warnings, not errors."""
    warnings = []
    try:
        union.close(force=True)
        union.show(root_hash)
    except (OutcropError, OSError) as error:
        warnings.append(f"the new revision is not mounted: {error}")
    return warnings
