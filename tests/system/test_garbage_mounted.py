"""Garbage is collected while clients read: nothing they can see goes away."""

import hashlib
import os
import threading
from pathlib import Path

import pytest
from tests.support.mounts import mounted, outcrop

pytestmark = pytest.mark.system
FQRN = "garbage.example.org"
CHUNKS = """CVMFS_MIN_CHUNK_SIZE=1000
CVMFS_AVG_CHUNK_SIZE=2000
CVMFS_MAX_CHUNK_SIZE=4000
CVMFS_GARBAGE_COLLECTION=true
"""


def change(source: Path, number: int) -> None:
    """Content of a revision: some of it is the next one's, too, some is its own."""
    for name in ("package/inner", "package", "other"):
        directory = source / name
        directory.mkdir(parents=True, exist_ok=True)
        (directory / ".cvmfscatalog").touch()
        (directory / "same").write_text(name)
        (directory / "own").write_text(f"{name} {number}")
        (directory / f"only-{number}").write_bytes(os.urandom(9000))
    (source / "other" / f"only-{number - 1}").unlink(missing_ok=True)


def contents(root: Path) -> dict[str, str]:
    """Every file below, by the hash of what is read."""
    return {
        str(file.relative_to(root)): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in root.rglob("*")
        if file.is_file()
    }


@pytest.mark.parametrize("is_read_meanwhile", [False, True])
def test_the_trunk_and_an_old_tag_stay_readable(tmp_path: Path, is_read_meanwhile: bool) -> None:
    world = tmp_path / "world"
    outcrop(world, "mkfs", FQRN)
    with (world / "etc/cvmfs/repositories.d" / FQRN / "server.conf").open("a") as out:
        out.write(CHUNKS)
    source = tmp_path / "source"
    published = {}
    for number in range(5):
        change(source, number)
        tag = ["--tag", "old"] if number == 1 else []
        outcrop(world, "publish", FQRN, "--from", str(source), *tag)
        published[number] = contents(source)
    store = world / "srv/cvmfs" / FQRN
    options = ["--key", str(world / "etc/cvmfs/keys" / f"{FQRN}.pub")]
    stored = sum(len(files) for _, _, files in os.walk(store / "data"))
    with (
        mounted(world, str(store), tmp_path / "trunk", *options, "-o",
                f"CVMFS_CACHE_BASE={tmp_path}/cache-trunk") as trunk,
        mounted(world, str(store), tmp_path / "old", *options, "-o", "CVMFS_REPOSITORY_TAG=old",
                "-o", f"CVMFS_CACHE_BASE={tmp_path}/cache-old") as old,
    ):  # fmt: skip
        found: list[dict[str, str]] = []
        reader = threading.Thread(
            target=lambda: [found.append(contents(old.mountpoint)) for _ in range(5)]
        )
        if is_read_meanwhile:
            reader.start()
        else:  # catalogs are opened, contents are not: caches are as cold as can be
            assert "package" in os.listdir(trunk.mountpoint)
            assert "package" in os.listdir(old.mountpoint)
        outcrop(world, "gc", FQRN, "--keep", "0", "--yes")
        assert sum(len(files) for _, _, files in os.walk(store / "data")) < stored
        if is_read_meanwhile:
            reader.join()
            assert found == [published[1]] * 5
        assert contents(old.mountpoint) == published[1]
        assert contents(trunk.mountpoint) == published[4]
        change(source, 5)
        outcrop(world, "publish", FQRN, "--from", str(source))
        outcrop(world, "gc", FQRN, "--keep", "0", "--yes")
        trunk.remount()
        assert contents(trunk.mountpoint) == contents(source)
        assert contents(old.mountpoint) == published[1]


def test_a_client_of_a_revision_that_is_collected_gets_an_error_or_the_right_bytes(
    tmp_path: Path,
) -> None:
    world = tmp_path / "world"
    outcrop(world, "mkfs", FQRN)
    with (world / "etc/cvmfs/repositories.d" / FQRN / "server.conf").open("a") as out:
        out.write(CHUNKS)
    source = tmp_path / "source"
    change(source, 0)
    outcrop(world, "publish", FQRN, "--from", str(source))
    before = contents(source)
    store = str(world / "srv/cvmfs" / FQRN)
    key = str(world / "etc/cvmfs/keys" / f"{FQRN}.pub")
    with mounted(world, store, tmp_path / "mnt", "--key", key) as mount:
        names = os.listdir(mount.mountpoint / "package")
        for number in (1, 2):  # the one before the trunk has a tag
            change(source, number)
            outcrop(world, "publish", FQRN, "--from", str(source))
        outcrop(world, "gc", FQRN, "--keep", "0", "--yes")
        refused = 0
        for name in names:
            file = mount.mountpoint / "package" / name
            if not file.is_file():
                continue
            try:
                data = file.read_bytes()
            except OSError:
                refused += 1
            else:
                assert hashlib.sha256(data).hexdigest() == before[f"package/{name}"]
        assert refused > 0
        mount.remount()
        assert contents(mount.mountpoint) == contents(source)
