"""A new repository: complete, private where it must be, and made only once."""

import os
import pwd
import stat
from pathlib import Path
from typing import Any

import pytest
from tests.support.checker import Checker
from tests.support.keys import other_keys, repository_keys
from tests.support.stratum_zero import FQRN, NOW, StratumZero

from outcrop.errors import FormatError
from outcrop.formats.hashes import HashAlgorithm
from outcrop.publisher.create import create_repository
from outcrop.publisher.create_options import CreateOptions, read_keys
from outcrop.publisher.errors import PublisherSettingsError
from outcrop.publisher.settings import StratumZeroSettings
from outcrop.repository.errors import RepositoryExists
from outcrop.storage.errors import StorageError
from outcrop.storage.locations import Locations
from outcrop.storage.upstream import Upstream


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


def create_with(tmp_path: Path, **options: Any) -> StratumZero:
    world = StratumZero(tmp_path)
    create_repository(
        world.locations, FQRN, now=NOW, keys=repository_keys(), options=CreateOptions(**options)
    )
    return world


def test_a_volatile_repository_says_so_in_every_root_catalog(tmp_path: Path) -> None:
    world = create_with(tmp_path, is_volatile=True)
    assert world.checked().catalogs[b""].properties["volatile"] == "1"
    (tmp_path / "source").mkdir()
    world.publish(tmp_path / "source")
    assert world.checked().catalogs[b""].properties["volatile"] == "1"


def test_a_repository_may_be_kept_from_replicas(tmp_path: Path) -> None:
    world = create_with(tmp_path, is_replicable=False)
    assert not (world.directory / ".cvmfs_master_replica").exists()


def test_the_settings_know_what_else_was_asked_for(tmp_path: Path) -> None:
    place = tmp_path / "elsewhere"
    world = create_with(
        tmp_path,
        upstream=Upstream.local(place),
        stratum0_url="http://cdn.example.org/x",
        auto_tag_timespan="4 weeks ago",
        external_data=True,
    )
    settings = StratumZeroSettings.read(world.locations, FQRN)
    assert settings.storage == place
    assert settings.stratum0_url == "http://cdn.example.org/x"
    assert settings.auto_tag_timespan == "4 weeks ago"
    assert settings.external_data
    client = world.locations.server_config(FQRN) / "client.conf"
    assert "CVMFS_SERVER_URL=http://cdn.example.org/x\n" in client.read_text()
    assert Checker(place, FQRN, repository_keys().master_public_pem).check() == []


def test_keys_of_another_directory_are_taken_whole_or_not_at_all(tmp_path: Path) -> None:
    first = StratumZero(tmp_path / "first")
    first.create()
    keys = read_keys(first.locations.keys, FQRN)
    assert keys == repository_keys()
    (first.locations.keys / f"{FQRN}.crt").unlink()
    with pytest.raises(PublisherSettingsError, match=r"\.crt: No such file"):
        read_keys(first.locations.keys, FQRN)


def test_an_owner_that_is_nobody_here_is_named_before_anything_is_made(tmp_path: Path) -> None:
    with pytest.raises(PublisherSettingsError, match="nobody-of-that-name"):
        create_with(tmp_path, owner="nobody-of-that-name")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.system
@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_the_owner_gets_all_but_the_master_key(tmp_path: Path) -> None:
    world = create_with(tmp_path, owner="nobody")
    nobody = pwd.getpwnam("nobody").pw_uid
    keys = world.locations.keys
    owners = {file.suffix: file.stat().st_uid for file in keys.iterdir()}
    assert owners == {".masterkey": 0, ".key": nobody, ".crt": nobody, ".pub": nobody}
    for path in (world.spool, world.directory, world.directory / ".cvmfspublished"):
        assert path.stat().st_uid == nobody


def test_two_places_at_once_are_refused(tmp_path: Path) -> None:
    with pytest.raises(PublisherSettingsError, match="one of them"):
        create_with(tmp_path, upstream=Upstream.local(tmp_path), settings_file=tmp_path / "s3.conf")
