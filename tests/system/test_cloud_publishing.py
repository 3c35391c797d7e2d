"""A stratum 0 whose storage is a bucket of a real S3 server: publishing, reading, and failing."""

import json
import os
import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support.checker import Checker
from tests.support.keys import repository_keys
from tests.support.mounts import mounted, outcrop, wait_until
from tests.support.s3_server import Gate, S3Server
from tests.support.servers import HttpServer
from tests.support.stratum_zero import FQRN, NOW, StratumZero

from outcrop.publisher.create import create_repository
from outcrop.publisher.create_options import CreateOptions
from outcrop.storage.errors import AccessDenied, BucketMissing, StorageError, StorageUnavailable

BIG = random.Random(1).randbytes(1_000_000)

pytestmark = pytest.mark.system


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    with S3Server(tmp_path_factory.mktemp("s3") / "buckets") as started:
        yield started


class CloudZero(StratumZero):
    """A repository in a bucket; the server's directory shows what is in it."""

    def __init__(self, root: Path, server: S3Server, bucket: str) -> None:
        super().__init__(root)
        self.bucket = server.root / bucket
        self.settings_file = server.write_settings(root / "s3.conf", BUCKET=bucket)

    def make(self) -> None:
        create_repository(
            self.locations,
            FQRN,
            now=NOW,
            keys=repository_keys(),
            garbage_collectable=True,
            options=CreateOptions(settings_file=self.settings_file),
        )

    @property
    def directory(self) -> Path:
        return self.bucket / FQRN


@pytest.fixture
def world(tmp_path: Path, server: S3Server) -> CloudZero:
    made = CloudZero(tmp_path, server, f"bucket-{abs(hash(tmp_path.name)) % 10**9}")
    made.make()
    return made


@pytest.fixture
def source(tmp_path: Path) -> Path:
    directory = tmp_path / "source"
    for number in range(30):
        file = directory / f"d{number % 3}" / f"file{number}"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(b"content %d\n" % number * 50)
    (directory / "d0/.cvmfscatalog").touch()
    (directory / "big").write_bytes(BIG)
    return directory


def revision(world: StratumZero) -> str:
    return world.checked().manifest["S"]


def test_a_new_repository_makes_its_bucket_and_is_right(world: CloudZero) -> None:
    assert world.checked().manifest["S"] == "1"
    assert (world.directory / ".cvmfs_master_replica").exists()
    settings = (world.locations.server_config(FQRN) / "server.conf").read_text()
    assert f"{FQRN}@{world.settings_file}" in settings
    assert "SECRET" not in settings
    assert "a-secret-key-of-tests" not in settings


def test_publishing_again_stores_what_is_new(world: CloudZero, source: Path) -> None:
    first = world.publish(source)
    assert first.added["files"] == 32
    checker = world.checked()
    assert checker.read(b"/d1/file1") == b"content 1\n" * 50
    assert checker.read(b"/big") == BIG
    stored = {file.name for file in world.directory.rglob("data/*/*")}
    (source / "d1/file1").write_bytes(b"changed")
    (source / "d2/copy").write_bytes((source / "d0/file0").read_bytes())
    second = world.publish(source)
    assert (second.changed["files"], second.added["files"]) == (1, 1)
    assert world.checked().read(b"/d1/file1") == b"changed"
    new = {file.name for file in world.directory.rglob("data/*/*")} - stored
    assert len(new) <= 5  # the file, two catalogs and the root's, the history


def test_readers_need_no_key_of_the_bucket(
    world: CloudZero, source: Path, server: S3Server, tmp_path: Path
) -> None:
    world.publish(source)
    key = tmp_path / "etc/cvmfs/keys" / f"{FQRN}.pub"
    with HttpServer(server.root) as anonymous:
        url = f"{anonymous.url}/{world.bucket.name}/{FQRN}"
        reader = tmp_path / "reader"
        options = ("--fqrn", FQRN, "--key", str(key))
        listed = outcrop(reader, "ls", url, "/d1", *options).stdout.split()
        assert listed == sorted(f"file{number}" for number in range(1, 30, 3))
        with mounted(reader, url, tmp_path / "mnt", *options) as mount:
            assert (mount.mountpoint / "big").read_bytes() == BIG
            (source / "d1/file1").write_bytes(b"new")
            world.publish(source)
            mount.remount()
            assert (mount.mountpoint / "d1/file1").read_bytes() == b"new"


def test_the_commands_do_it_all(server: S3Server, tmp_path: Path, source: Path) -> None:
    conf = server.write_settings(tmp_path / "s3.conf", BUCKET="commands")
    outcrop(tmp_path, "mkfs", "cmd.example.org", "-s", str(conf), "-z")
    done = outcrop(tmp_path, "publish", "cmd.example.org", "--from", str(source), "--json")
    assert json.loads(done.stdout)["revision"] == 2
    key = (tmp_path / "etc/cvmfs/keys/cmd.example.org.pub").read_bytes()
    place = server.root / "commands/cmd.example.org"
    assert Checker(place, "cmd.example.org", key).check() == []
    listed = outcrop(tmp_path, "ls", "cmd.example.org", "/d1").stdout.split()
    assert listed == sorted(f"file{number}" for number in range(1, 30, 3))
    assert "trunk" in outcrop(tmp_path, "log", "cmd.example.org", "--no-cache").stdout
    with mounted(tmp_path, "cmd.example.org", tmp_path / "by-name") as mount:
        assert (mount.mountpoint / "big").read_bytes() == BIG
    outcrop(tmp_path, "gc", "cmd.example.org", "--yes", "--keep", "0")
    problems = Checker(place, "cmd.example.org", key).check()
    assert [problem for problem in problems if problem != "reflog: hash"] == []  # it is shorter now
    outcrop(tmp_path, "rmfs", "cmd.example.org", "--yes")
    assert not list(place.rglob("data/*/*"))


def test_a_url_gets_everything_from_the_environment(
    server: S3Server, tmp_path: Path, source: Path
) -> None:
    server.make_bucket("by-url", tmp_path / "s3.conf")
    environment = {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{server.port}",
        "AWS_ACCESS_KEY_ID": "an-access-key-of-tests",
        "AWS_SECRET_ACCESS_KEY": "a-secret-key-of-tests",
    }
    outcrop(tmp_path, "mkfs", FQRN, "--storage", "s3://by-url", **environment)
    outcrop(tmp_path, "publish", FQRN, "--from", str(source), **environment)
    key = (tmp_path / f"etc/cvmfs/keys/{FQRN}.pub").read_bytes()
    assert Checker(server.root / "by-url" / FQRN, FQRN, key).check() == []


@pytest.mark.parametrize("passed_kib", [0, 3, 20, 150, 1000, 1030, 1040])
def test_a_service_that_goes_away_leaves_the_old_revision(
    world: CloudZero, source: Path, server: S3Server, passed_kib: int
) -> None:
    with Gate(server.port) as gate:
        server.write_settings(
            world.settings_file,
            BUCKET=world.bucket.name,
            PORT=gate.port,
            MAX_RETRIES=0,
            TIMEOUT=1,
        )
        gate.cut_after(passed_kib * 1024)
        with pytest.raises(StorageUnavailable) as caught:
            world.publish(source)
        assert caught.value.hint
        assert revision(world) == "1"
        gate.cut_after(None)
        world.publish(source)
    assert revision(world) == "2"


@pytest.mark.parametrize("passed_kib", [5, 200, 1035])
def test_a_killed_publisher_leaves_a_whole_revision(
    tmp_path: Path, source: Path, server: S3Server, passed_kib: int
) -> None:
    bucket = f"killed-{passed_kib}"
    conf = server.write_settings(tmp_path / "s3.conf", BUCKET=bucket)
    outcrop(tmp_path, "mkfs", FQRN, "-s", str(conf))
    key = (tmp_path / f"etc/cvmfs/keys/{FQRN}.pub").read_bytes()
    with Gate(server.port) as gate:
        server.write_settings(conf, BUCKET=bucket, PORT=gate.port, TIMEOUT=60)
        gate.stall_after(passed_kib * 1024)
        publisher = subprocess.Popen(
            [Path(sys.executable).with_name("outcrop"), "publish", FQRN, "--from", str(source)],
            env={**os.environ, "OUTCROP_ROOT": str(tmp_path)},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            wait_until(lambda: gate.is_stalled or publisher.poll() is not None)
            assert publisher.poll() is None
        finally:
            publisher.kill()
            publisher.wait(timeout=10)
    checker = Checker(server.root / bucket / FQRN, FQRN, key)
    assert checker.check() == []
    assert checker.manifest["S"] == "1"
    server.write_settings(conf, BUCKET=bucket)
    outcrop(tmp_path, "publish", FQRN, "--from", str(source))
    checker = Checker(server.root / bucket / FQRN, FQRN, key)
    assert checker.check() == []
    assert checker.manifest["S"] == "2"


def test_a_killed_server_is_an_error_and_a_new_one_goes_on(tmp_path: Path, source: Path) -> None:
    with S3Server(tmp_path / "buckets") as server:
        world = CloudZero(tmp_path, server, "software")
        world.make()
        server.kill()
        with pytest.raises(StorageUnavailable):
            world.publish(source)
        server.start()
        world.publish(source)
    assert revision(world) == "2"


def test_hiccups_are_sat_out(world: CloudZero, source: Path, server: S3Server) -> None:
    with Gate(server.port) as gate:
        server.write_settings(
            world.settings_file, BUCKET=world.bucket.name, PORT=gate.port, MAX_RETRIES=5
        )
        gate.answer("503 Slow Down", 3, b"<Error><Code>SlowDown</Code></Error>")
        gate.answer("500 Internal Server Error", 1)
        world.publish(source)
    assert revision(world) == "2"


def test_wrong_keys_and_missing_buckets_are_named(
    world: CloudZero, source: Path, server: S3Server
) -> None:
    server.write_settings(world.settings_file, BUCKET=world.bucket.name, SECRET_KEY="wrong")
    with pytest.raises(AccessDenied, match="403"):
        world.publish(source)
    server.write_settings(world.settings_file, BUCKET="another-one")
    with pytest.raises(StorageError) as caught:
        world.publish(source)
    assert isinstance(caught.value, BucketMissing)
    assert "another-one" in str(caught.value)
    server.write_settings(world.settings_file, BUCKET=world.bucket.name)
    world.publish(source)
    assert revision(world) == "2"


def test_a_server_that_refuses_new_buckets_is_named(tmp_path: Path, server: S3Server) -> None:
    world = CloudZero(tmp_path, server, "refused")
    server.write_settings(world.settings_file, BUCKET="refused", SECRET_KEY="wrong")
    with pytest.raises(AccessDenied):
        world.make()
    assert not world.bucket.exists()
