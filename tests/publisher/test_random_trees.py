"""Random trees through random edits: after every publish the repository equals the source."""

import io
import os
import shutil
import tempfile
from pathlib import Path

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)
from tests.support.materialized import tree_in_repository, tree_on_disk
from tests.support.stratum_zero import StratumZero

from outcrop.publisher import previous_state
from outcrop.publisher.difflist import parse_diff_list

NAMES = st.sampled_from(["a", "b", "c", "d e", "\udcff", "ü"])
PATHS = st.lists(NAMES, min_size=1, max_size=3).map(tuple)
CONTENTS = st.sampled_from([b"", b"x", b"one", b"two", bytes(2500), b"ab" * 3000])
MARKER = ".cvmfscatalog"
SMALL_CHUNKS = {
    "CVMFS_MIN_CHUNK_SIZE": 1000,
    "CVMFS_AVG_CHUNK_SIZE": 1500,
    "CVMFS_MAX_CHUNK_SIZE": 2000,
}


class PublishMachine(RuleBasedStateMachine):
    """Edits a directory and publishes it now and then, to the root or to a subtree."""

    @initialize()
    def create(self) -> None:
        self.place = Path(tempfile.mkdtemp(prefix="outcrop-test-"))
        self.source = self.place / "source"
        self.source.mkdir()
        self.target = b""
        self.stratum_zero = StratumZero(self.place / "world")
        self.stratum_zero.create()
        self.stratum_zero.configure(**SMALL_CHUNKS)
        self.is_published = False
        self.last_tree: dict[bytes, tuple] | None = None
        # All times here are of one clock, so files older than the scan by a tick are certain.
        self.racy_ns = previous_state._RACY_NS
        previous_state._RACY_NS = 0

    def teardown(self) -> None:
        previous_state._RACY_NS = self.racy_ns
        shutil.rmtree(self.place)

    def _let_the_clock_tick(self) -> None:
        probe = self.place / "clock"
        probe.touch()
        begin = probe.stat().st_mtime_ns
        while probe.stat().st_mtime_ns == begin:
            probe.touch()

    def _clear(self, path: tuple[str, ...]) -> Path:
        """Where a path is, with nothing there, and directories above it."""
        place = self.source
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
        self.is_published = False
        return place

    @rule(path=PATHS, content=CONTENTS)
    def write(self, path: tuple[str, ...], content: bytes) -> None:
        self._clear(path).write_bytes(content)

    @rule(path=PATHS)
    def make_directory(self, path: tuple[str, ...]) -> None:
        self._clear(path).mkdir()

    @rule(path=PATHS, text=NAMES)
    def symlink(self, path: tuple[str, ...], text: str) -> None:
        self._clear(path).symlink_to(text)

    @rule(path=PATHS, mode=st.sampled_from([0o600, 0o644, 0o755, 0o700]))
    def chmod(self, path: tuple[str, ...], mode: int) -> None:
        place = self.source.joinpath(*path)
        if place.exists() and not place.is_symlink():
            place.chmod(mode | (0o100 if place.is_dir() else 0))
            self.is_published = False

    @rule(path=PATHS, other=PATHS)
    def hard_link(self, path: tuple[str, ...], other: tuple[str, ...]) -> None:
        place = self.source.joinpath(*other)
        if path[: len(other)] != other and place.is_file() and not place.is_symlink():
            new = self._clear(path)
            if place.is_file():
                new.hardlink_to(place)

    @rule(path=PATHS, other=PATHS)
    def rename(self, path: tuple[str, ...], other: tuple[str, ...]) -> None:
        place = self.source.joinpath(*other)
        shorter = min(len(path), len(other))
        if path[:shorter] != other[:shorter] and os.path.lexists(place):
            new = self._clear(path)
            if os.path.lexists(place):
                place.rename(new)

    @rule(path=PATHS)
    def remove(self, path: tuple[str, ...]) -> None:
        if os.path.lexists(self.source.joinpath(*path)):
            self._clear(path)

    @rule(path=PATHS)
    def toggle_marker(self, path: tuple[str, ...]) -> None:
        place = self.source.joinpath(*path)
        if place.is_dir() and not place.is_symlink():
            marker = place / MARKER
            marker.unlink() if marker.exists() else marker.touch()
            self.is_published = False

    @rule(path=PATHS, value=st.binary(max_size=20))
    def set_xattr(self, path: tuple[str, ...], value: bytes) -> None:
        place = self.source.joinpath(*path)
        if place.exists() and not place.is_symlink():
            os.setxattr(place, b"user.test", value)
            self.is_published = False

    @precondition(lambda self: not self.is_published)
    @rule()
    def publish(self) -> None:
        self._let_the_clock_tick()
        self.stratum_zero.publish(self.source, to=self.target)
        self.is_published, self.last_tree = True, tree_on_disk(self.source)

    @precondition(lambda self: not self.is_published and self.last_tree is not None)
    @rule(is_shallow=st.booleans())
    def publish_list(self, is_shallow: bool) -> None:
        now = tree_on_disk(self.source)
        lines = [b"D " + path[1:] for path in self.last_tree.keys() - now.keys()]
        lines += [
            b"A " + path[1:] for path in now if path and now[path] != self.last_tree.get(path)
        ]
        listed = parse_diff_list(io.BytesIO(b"\0".join(sorted(lines))), is_null_separated=True)
        self._let_the_clock_tick()
        self.stratum_zero.publish(self.source, to=self.target, listed=listed, is_shallow=is_shallow)
        self.is_published, self.last_tree = True, now

    @rule()
    def publish_elsewhere(self) -> None:
        self.stratum_zero.publish(self.source, to=b"/x/y" if self.target == b"/t" else b"/t")
        self.target = b"/t"
        self.is_published, self.last_tree = False, None

    @invariant()
    def published_tree_equals_the_source(self) -> None:
        if not getattr(self, "is_published", False):
            return
        checker = self.stratum_zero.checked()
        end = len(self.target)
        found = {
            path[end:]: value
            for path, value in tree_in_repository(checker).items()
            if path[:end] == self.target and path[end : end + 1] in (b"", b"/")
        }
        assert found == tree_on_disk(self.source)


TestPublishMachine = PublishMachine.TestCase
TestPublishMachine.settings = settings(
    max_examples=8,
    stateful_step_count=30,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
