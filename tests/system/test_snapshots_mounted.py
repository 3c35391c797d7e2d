"""`/.cvmfs/snapshots` through a real mount: hidden, and every tag to be read there."""

import os
from pathlib import Path

import pytest
from tests.support.mounts import mounted, outcrop

pytestmark = pytest.mark.system
FQRN = "snapshots.example.org"


def test_every_tag_is_a_directory_of_the_mount(tmp_path: Path) -> None:
    world = tmp_path / "world"
    outcrop(world, "mkfs", FQRN)
    settings = world / "etc/cvmfs/repositories.d" / FQRN / "server.conf"
    with settings.open("a") as out:
        out.write("CVMFS_VIRTUAL_DIR=true\n")
    source = tmp_path / "source"
    (source / "sub").mkdir(parents=True)
    (source / "sub/.cvmfscatalog").touch()
    for tag in ("one", "two"):
        (source / "sub/file").write_text(tag)
        outcrop(world, "publish", FQRN, "--from", str(source), "--tag", tag)
    key = world / "etc/cvmfs/keys" / f"{FQRN}.pub"
    place = str(world / "srv/cvmfs" / FQRN)
    with mounted(world, place, tmp_path / "mnt", "--key", str(key)) as mount:
        root = mount.mountpoint
        assert os.listdir(root) == ["sub"]
        snapshots = root / ".cvmfs/snapshots"
        assert sorted(os.listdir(snapshots)) == ["one", "two"]
        for tag in ("one", "two"):
            assert (snapshots / tag / "sub/file").read_text() == tag
            assert sorted(os.listdir(snapshots / tag / "sub")) == [".cvmfscatalog", "file"]
        inodes = {(snapshots / tag / "sub/file").stat().st_ino for tag in ("one", "two")}
        assert len(inodes | {(root / "sub/file").stat().st_ino}) == 3
        outcrop(world, "tag", FQRN, "--remove", "one", "--yes")
        mount.remount()
        assert os.listdir(snapshots) == ["two"]
        assert (root / "sub/file").read_text() == "two"
