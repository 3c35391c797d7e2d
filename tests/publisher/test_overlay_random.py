"""Random changes through real overlayfs: what is published equals what the mount showed."""

import errno
import os
import shutil
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule
from tests.support.materialized import tree_in_repository, tree_on_disk
from tests.support.overlays import OverlayWorld

pytestmark = pytest.mark.system

NAMES = st.sampled_from(["a", "b", "c", "d e", "\udcff"])
PATHS = st.lists(NAMES, min_size=1, max_size=3).map(tuple)
CONTENTS = st.sampled_from([b"", b"x", b"one", b"two", bytes(2500), b"ab" * 3000])
MARKER = ".cvmfscatalog"


class OverlayMachine(RuleBasedStateMachine):
    """Changes a mounted union, publishes its upper directory now and then."""

    for_user = False

    @initialize()
    def begin(self) -> None:
        self.place = Path(tempfile.mkdtemp(prefix="outcrop-test-"))
        self.world = OverlayWorld(self.place, for_user=self.for_user)
        self.world.stratum_zero.configure(
            CVMFS_MIN_CHUNK_SIZE=1000, CVMFS_AVG_CHUNK_SIZE=1500, CVMFS_MAX_CHUNK_SIZE=2000
        )
        for path in ("a/a/a", "a/a/b", "a/b", "b/a/c", "c/a"):
            place = self.world.lower / path
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(path.encode() * 900)
        (self.world.lower / "a/c").hardlink_to(self.world.lower / "a/b")
        (self.world.lower / "a/a" / MARKER).touch()
        (self.world.lower / "b/b").symlink_to("a")
        self.world.begin()
        self.root = self.world.union

    def teardown(self) -> None:
        self.world.unmount()
        shutil.rmtree(self.place)

    def _clear(self, path: tuple[str, ...]) -> Path:
        """Where a path is, with nothing there, and directories above it."""
        place = self.root
        for name in path[:-1]:
            place = place / name
            if place.is_symlink() or (place.exists() and not place.is_dir()):
                place.unlink()
            place.mkdir(exist_ok=True)
        place = place / path[-1]
        if place.is_dir() and not place.is_symlink():
            shutil.rmtree(place)
        else:
            place.unlink(missing_ok=True)
        return place

    @rule(path=PATHS, content=CONTENTS)
    def write(self, path: tuple[str, ...], content: bytes) -> None:
        self._clear(path).write_bytes(content)

    @rule(path=PATHS)
    def append(self, path: tuple[str, ...]) -> None:
        place = self.root.joinpath(*path)
        if place.is_file() and not place.is_symlink():
            with place.open("ab") as file:
                file.write(b"more")

    @rule(path=PATHS)
    def make_directory(self, path: tuple[str, ...]) -> None:
        self._clear(path).mkdir()

    @rule(path=PATHS, text=NAMES)
    def symlink(self, path: tuple[str, ...], text: str) -> None:
        self._clear(path).symlink_to(text)

    @rule(path=PATHS)
    def make_fifo(self, path: tuple[str, ...]) -> None:
        os.mkfifo(self._clear(path))

    @rule(path=PATHS, mode=st.sampled_from([0o600, 0o644, 0o755, 0o700]))
    def chmod(self, path: tuple[str, ...], mode: int) -> None:
        place = self.root.joinpath(*path)
        if place.exists() and not place.is_symlink():
            place.chmod(mode)

    @rule(path=PATHS, seconds=st.integers(1_000, 2_000))
    def utime(self, path: tuple[str, ...], seconds: int) -> None:
        place = self.root.joinpath(*path)
        if os.path.lexists(place):
            os.utime(place, (seconds, seconds), follow_symlinks=False)

    @rule(path=PATHS, owner=st.integers(0, 3))
    def chown(self, path: tuple[str, ...], owner: int) -> None:
        place = self.root.joinpath(*path)
        if os.path.lexists(place):
            os.lchown(place, owner, owner)

    @rule(path=PATHS, other=PATHS)
    def hard_link(self, path: tuple[str, ...], other: tuple[str, ...]) -> None:
        place = self.root.joinpath(*other)
        if path[: len(other)] != other and place.is_file() and not place.is_symlink():
            new = self._clear(path)
            if place.is_file():
                new.hardlink_to(place)

    @rule(path=PATHS, other=PATHS)
    def rename(self, path: tuple[str, ...], other: tuple[str, ...]) -> None:
        place = self.root.joinpath(*other)
        shorter = min(len(path), len(other))
        if path[:shorter] == other[:shorter] or not os.path.lexists(place):
            return
        new = self._clear(path)
        if os.path.lexists(place):
            try:
                place.rename(new)
            except OSError as error:
                assert error.errno == errno.EXDEV
                shutil.move(place, new)

    @rule(path=PATHS)
    def remove(self, path: tuple[str, ...]) -> None:
        if os.path.lexists(self.root.joinpath(*path)):
            self._clear(path)

    @rule(path=PATHS)
    def toggle_marker(self, path: tuple[str, ...]) -> None:
        place = self.root.joinpath(*path)
        if place.is_dir() and not place.is_symlink():
            marker = place / MARKER
            marker.unlink() if marker.exists() else marker.touch()

    @rule(path=PATHS, value=st.binary(max_size=20))
    def set_xattr(self, path: tuple[str, ...], value: bytes) -> None:
        place = self.root.joinpath(*path)
        if place.is_file() and not place.is_symlink():
            os.setxattr(place, b"user.test", value)

    @precondition(lambda self: hasattr(self, "world"))
    @rule()
    def publish(self) -> None:
        self.world.publish()
        found = tree_in_repository(self.world.stratum_zero.checked())
        assert found == tree_on_disk(self.root)
        self.world.start_over()


class OverlayOfUserMachine(OverlayMachine):
    """The same in the way of user namespaces."""

    for_user = True


SETTINGS = settings(
    max_examples=15,
    stateful_step_count=40,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
TestOverlay = OverlayMachine.TestCase
TestOverlay.settings = SETTINGS
TestOverlayOfUser = OverlayOfUserMachine.TestCase
TestOverlayOfUser.settings = SETTINGS
