"""A new repository: complete, private where it must be, and made only once."""

import stat
from pathlib import Path

import pytest
from tests.support.checker import Checker
from tests.support.keys import other_keys, repository_keys
from tests.support.stratum_zero import FQRN, NOW, StratumZero

from outcrop.errors import FormatError
from outcrop.formats.hashes import HashAlgorithm
from outcrop.publisher.create import create_repository
from outcrop.publisher.errors import PublisherSettingsError
from outcrop.repository.errors import RepositoryExists
from outcrop.storage.errors import StorageError
from outcrop.storage.locations import Locations


@pytest.mark.parametrize("algorithm", [a for a in HashAlgorithm if a is not HashAlgorithm.MD5])
def test_a_new_repository_is_right_in_every_respect(
    tmp_path: Path, algorithm: HashAlgorithm
) -> None:
    world = StratumZero(tmp_path, algorithm=algorithm)
    created = world.create()
    checker = world.checked()
    assert created.fqrn == FQRN
    assert str(created.root_hash) == checker.manifest["C"]
    assert set(checker.entries) == {b"", b"/new_repository"}
    assert checker.read(b"/new_repository") == f"New CernVM-FS repository for {FQRN}\n".encode()
    assert checker.manifest["S"] == "1"
    assert checker.manifest["T"] == str(NOW)
    root = checker.catalogs[b""].properties
    first = checker.load(root["previous_revision"])
    assert set(first) == {b""}


def test_private_keys_are_private_and_the_rest_is_public(tmp_path: Path) -> None:
    world = StratumZero(tmp_path)
    created = world.create()
    keys = world.locations.keys
    modes = {f.suffix: stat.S_IMODE(f.stat().st_mode) for f in keys.iterdir()}
    assert modes == {".masterkey": 0o600, ".key": 0o600, ".pub": 0o644, ".crt": 0o644}
    assert created.public_key == keys / f"{FQRN}.pub"
    assert (world.directory / ".cvmfs_master_replica").exists()
    config = world.locations.server_config(FQRN)
    assert (config / "client.conf").exists()
    assert f"CVMFS_REPOSITORY_NAME={FQRN}" in (config / "server.conf").read_text()


def test_keys_are_generated_unless_given(tmp_path: Path) -> None:
    create_repository(Locations(tmp_path), FQRN, now=NOW)
    pem = (tmp_path / f"etc/cvmfs/keys/{FQRN}.pub").read_bytes()
    assert pem != repository_keys().master_public_pem
    world = StratumZero(tmp_path)
    assert Checker(world.directory, FQRN, pem).check() == []


def test_the_settings_say_what_was_asked_for(tmp_path: Path) -> None:
    create_repository(
        Locations(tmp_path),
        FQRN,
        compression="none",
        garbage_collectable=True,
        ttl=61,
        now=NOW,
        keys=repository_keys(),
    )
    checker = StratumZero(tmp_path).checked()
    assert (checker.manifest["G"], checker.manifest["D"]) == ("yes", "61")
    assert checker.entries[b"/new_repository"].flags == 4 | 1 << 11


def test_a_repository_is_not_made_twice(tmp_path: Path) -> None:
    world = StratumZero(tmp_path)
    world.create()
    with pytest.raises(RepositoryExists, match=FQRN):
        world.create()
    world.checked()


def test_settings_of_something_else_are_left_alone(tmp_path: Path) -> None:
    world = StratumZero(tmp_path)
    directory = world.locations.server_config(FQRN)
    directory.mkdir(parents=True)
    (directory / "server.conf").write_text("CVMFS_REPOSITORY_TYPE=stratum1\n")
    with pytest.raises(RepositoryExists, match=r"server\.conf"):
        world.create()
    assert not world.locations.keys.exists()


def test_a_master_key_that_is_there_is_never_overwritten(tmp_path: Path) -> None:
    keys = Locations(tmp_path).keys
    keys.mkdir(parents=True)
    (keys / f"{FQRN}.masterkey").write_bytes(other_keys().master_key_pem)
    with pytest.raises(PublisherSettingsError, match=r"\.pub"):
        create_repository(Locations(tmp_path), FQRN, now=NOW)
    assert (keys / f"{FQRN}.masterkey").read_bytes() == other_keys().master_key_pem


def test_other_keys_than_those_there_are_refused(tmp_path: Path) -> None:
    world = StratumZero(tmp_path)
    world.create()
    (world.directory / ".cvmfspublished").unlink()
    with pytest.raises(PublisherSettingsError, match="other keys"):
        create_repository(world.locations, FQRN, now=NOW, keys=other_keys())
    world.create()  # with the keys that are there: goes on where it stopped
    world.checked()


def test_names_that_are_none_are_refused(tmp_path: Path) -> None:
    with pytest.raises(FormatError):
        create_repository(Locations(tmp_path), "../evil", now=NOW)
    assert not list(tmp_path.iterdir())


def test_a_place_that_cannot_be_written_to_is_told(tmp_path: Path) -> None:
    world = StratumZero(tmp_path)
    world.locations.storage.parent.mkdir(parents=True)
    world.locations.storage.write_text("a file where a directory must be")
    with pytest.raises(StorageError):
        world.create()
