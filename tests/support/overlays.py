"""A real overlayfs over a plain directory that a repository is equal to."""

import os
import shutil
import subprocess
from pathlib import Path

from tests.support.stratum_zero import StratumZero

from outcrop.fuse.overlay import WritableLayer, mount_overlay
from outcrop.publisher.changes import ChangeCounts
from outcrop.publisher.options import PublishOptions, Tell
from outcrop.publisher.overlay_changes import apply_upper_directory
from outcrop.publisher.publish import PublishResult, publish_changes
from outcrop.publisher.session import PublishSession
from outcrop.publisher.upper_attributes import UpperAttributes


class OverlayWorld:
    """`lower` is what was published last, `union` what may be changed now."""

    def __init__(self, place: Path, *, for_user: bool = False) -> None:
        self.place = place
        self.for_user = for_user
        self.lower = place / "lower"
        self.upper = place / "upper"
        self.work = place / "work"
        self.union = place / "union"
        for directory in (self.lower, self.upper, self.work, self.union):
            directory.mkdir(parents=True)
        self.stratum_zero = StratumZero(place / "world")
        self.stratum_zero.create()

    def begin(self) -> None:
        """Publish `lower` as it is, and open it for changes."""
        self.stratum_zero.publish(self.lower)
        self.mount()

    def mount(self) -> None:
        shutil.copystat(self.lower, self.upper)
        layer = WritableLayer(upper=self.upper, work=self.work, has_user_attributes=self.for_user)
        mount_overlay(self.union, self.lower, layer, fsname="outcrop-test")

    def publish(self) -> PublishResult:
        """Publish what was changed."""
        return publish_upper(self.stratum_zero, self.upper, for_user=self.for_user)

    def start_over(self) -> None:
        """What is in the union becomes the lower directory of a new one."""
        following = self.place / "following"
        subprocess.run(["cp", "-a", str(self.union), str(following)], check=True)
        self.unmount()
        for directory in (self.lower, self.upper, self.work):
            shutil.rmtree(directory)
        following.rename(self.lower)
        self.upper.mkdir()
        self.work.mkdir()
        self.mount()

    def unmount(self) -> None:
        if os.path.ismount(self.union):
            subprocess.run(["umount", str(self.union)], check=True)


def publish_upper(
    stratum_zero: StratumZero, upper: Path, *, for_user: bool = False, keeps_owners: bool = False
) -> PublishResult:
    """Publish an upper directory, whoever made it."""
    attributes = UpperAttributes.of_user() if for_user else UpperAttributes.of_root()
    options = PublishOptions(workers=2)

    def apply(session: PublishSession, tell: Tell) -> ChangeCounts:
        return apply_upper_directory(
            session,
            tell,
            upper=os.fsencode(upper),
            attributes=attributes,
            keeps_owners=keeps_owners,
            options=options,
        )

    stratum_zero.now += 10
    return publish_changes(
        stratum_zero.locations, stratum_zero.fqrn, apply, options=options, now=stratum_zero.now
    )
