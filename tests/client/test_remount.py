"""Following the trunk, with a clock of the test's."""

from pathlib import Path

import pytest
from tests.support.connections import connection_to
from tests.support.keys import other_keys
from tests.support.simulator import RepositorySimulator

from outcrop.client.magic_xattrs import MagicXattrs, MountState
from outcrop.client.ownership import Ownership
from outcrop.client.remount import RETRY_SECONDS, Outcome, Remounter
from outcrop.client.view import NoSuchAttribute, RepositoryView


class Mounted:
    """A view with a remounter, no kernel."""

    def __init__(self, sim: RepositorySimulator, cache: Path, **parameters: str) -> None:
        self.now = float(sim.now)
        self.changes = 0
        self.connection = connection_to(sim, cache, **parameters)
        self.state = MountState(self.connection, Path("/nowhere"), started_at=self.now)
        self.magic = MagicXattrs(self.state, clock=lambda: self.now)
        self.view = RepositoryView(
            self.connection.open(now=int(self.now)),
            ownership=Ownership(),
            environment={},
            attributes=self.magic,
        )
        self.remounter = Remounter(
            self.connection, self.view, self.state, self._changed, clock=lambda: self.now
        )

    def _changed(self) -> None:
        self.changes += 1

    def xattr(self, path: bytes, name: str) -> str:
        return self.view.get_xattr(path, f"user.{name}".encode()).decode()


def test_a_new_revision_is_applied_and_the_engine_told(tmp_path: Path) -> None:
    sim = RepositorySimulator({b"/f": b"1"})
    mounted = Mounted(sim, tmp_path)
    assert mounted.remounter.remount() is Outcome.UP_TO_DATE
    sim.publish({b"/f": b"2"})
    assert mounted.remounter.remount() is Outcome.APPLIED
    assert mounted.changes == 1
    assert mounted.view.revision.number == 2
    assert mounted.xattr(b"", "revision") == "2"


def test_the_next_look_is_due_after_the_ttl_or_the_limit(tmp_path: Path) -> None:
    sim = RepositorySimulator({b"/f": b"1"})
    mounted = Mounted(sim, tmp_path)
    assert mounted.state.expires_at == mounted.now + 240
    assert mounted.xattr(b"", "expires") == "4"
    limited = Mounted(sim, tmp_path, max_ttl="1")
    assert limited.state.expires_at == limited.now + 60


@pytest.mark.parametrize(
    "attack",
    [
        lambda sim: sim.expire_whitelist(),
        lambda sim: sim.resign_with(other_keys()),
        lambda sim: sim.corrupt(".cvmfspublished"),
        lambda sim: sim.remove(".cvmfspublished"),
        lambda sim: sim.roll_back(1),
        lambda sim: sim.corrupt(sim.catalog_name()),
    ],
)
def test_a_trunk_that_cannot_be_believed_leaves_the_mount_as_it_is(
    attack: object, tmp_path: Path
) -> None:
    sim = RepositorySimulator({b"/f": b"0"})
    sim.publish({b"/f": b"1"})
    mounted = Mounted(sim, tmp_path)
    sim.publish({b"/f": b"2"})
    if attack.__code__.co_names == ("roll_back",):  # type: ignore[attr-defined]
        sim.manifests.pop()
    attack(sim)  # type: ignore[operator]
    assert mounted.remounter.remount() is Outcome.FAILED
    assert mounted.view.revision.number == 2
    assert mounted.changes == 0
    assert mounted.state.is_offline
    assert mounted.state.expires_at == mounted.now + RETRY_SECONDS


def test_it_recovers_when_the_trunk_does(tmp_path: Path) -> None:
    sim = RepositorySimulator({b"/f": b"1"})
    mounted = Mounted(sim, tmp_path)
    sim.expire_whitelist()
    sim.publish({b"/f": b"2"})
    assert mounted.remounter.remount() is Outcome.FAILED
    sim.sign_whitelist()
    assert mounted.remounter.remount() is Outcome.APPLIED
    assert not mounted.state.is_offline


def test_a_chosen_revision_never_changes(tmp_path: Path) -> None:
    sim = RepositorySimulator({b"/f": b"1"})
    sim.publish({b"/f": b"2"}, tag="two")
    mounted = Mounted(sim, tmp_path, repository_tag="two")
    sim.publish({b"/f": b"3"})
    assert mounted.remounter.remount() is Outcome.FIXED
    assert mounted.view.revision.number == 2
    assert mounted.xattr(b"", "tag") == "two"
    assert mounted.xattr(b"", "expires") == "never (fixed root catalog)"


def test_an_offline_start_goes_online_later(tmp_path: Path) -> None:
    sim = RepositorySimulator({b"/f": b"1"})
    Mounted(sim, tmp_path)
    manifest = sim.objects.pop(".cvmfspublished")
    mounted = Mounted(sim, tmp_path)
    assert mounted.state.is_offline
    sim.objects[".cvmfspublished"] = manifest
    assert mounted.remounter.remount() is Outcome.UP_TO_DATE
    assert not mounted.state.is_offline


def test_magic_attributes_come_in_pages(tmp_path: Path) -> None:
    mounted = Mounted(RepositorySimulator({b"/f": b"1"}), tmp_path)
    whole = mounted.xattr(b"", "repo_counters")
    assert whole.startswith("chunked,0\nchunked_size,0\n")
    assert mounted.xattr(b"", "repo_counters~0") == whole
    assert mounted.xattr(b"", "repo_counters~?") == "num_pages, 1"
    assert mounted.xattr(b"", "repo_counters@0").startswith("# Access page at idx: 0.")
    for name in ("repo_counters~1", "repo_counters~x", "no_such_name"):
        with pytest.raises(NoSuchAttribute):
            mounted.xattr(b"", name)


def test_magic_attributes_tell_of_the_path_they_are_asked_at(tmp_path: Path) -> None:
    sim = RepositorySimulator({b"/f": b"1", b"/n/g": b"2"}, nested=[b"/n"])
    mounted = Mounted(sim, tmp_path)
    assert mounted.xattr(b"/f", "lhash") == "Not in cache"
    with mounted.view.revision.open(b"/f") as file:
        file.read()
    assert mounted.xattr(b"/f", "lhash") == mounted.xattr(b"/f", "hash")
    assert mounted.xattr(b"/f", "chunks") == "1"
    assert "catalog_mountpoint: /n\n" in mounted.xattr(b"/n", "catalog_counters")
    assert "catalog_mountpoint: \n" in mounted.xattr(b"/f", "catalog_counters")
    with pytest.raises(NoSuchAttribute):
        mounted.xattr(b"/n", "hash")
    assert b"user.hash" in mounted.view.list_xattrs(b"")
    assert mounted.view.list_xattrs(b"/f") == []
