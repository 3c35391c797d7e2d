"""Archives through real pipes into a repository that is mounted afterwards."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from tests.support.materialized import tree_on_disk
from tests.support.mounts import mounted, outcrop
from tests.support.tars import header

FQRN = "made.example.org"
COMMAND = Path(sys.executable).with_name("outcrop")

pytestmark = pytest.mark.system


@pytest.fixture
def world(tmp_path: Path) -> Path:
    place = tmp_path / "world"
    outcrop(place, "mkfs", FQRN)
    return place


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    root = tmp_path / "tree"
    (root / "nested/deep").mkdir(parents=True)
    (root / "nested/.cvmfscatalog").touch()
    (root / "nested/deep/large").write_bytes(os.urandom(9_000_000))
    (root / "nested/deep/same").hardlink_to(root / "nested/deep/large")
    with (root / "sparse").open("wb") as file:
        file.seek(5_000_000)
        file.write(b"end")
    (root / "link").symlink_to("nested/deep")
    for n in range(200):
        (root / f"file {n}").write_bytes(b"%d\n" % n * n)
    os.utime(root / "nested", (1_000_000_000, 1_000_000_000))
    return root


@pytest.mark.parametrize(
    "options", [["-z"], ["-J", "--format=posix", "-S"], ["--zstd", "--format=gnu", "-S"], ["-j"]]
)
def test_what_tar_packs_is_what_a_mount_shows(
    tmp_path: Path, world: Path, tree: Path, options: list[str]
) -> None:
    pack = ["tar", "-c", *options, "-C", str(tree), "."]
    done = ingest(world, pack, "-k")
    assert (done.returncode, done.stderr) == (0, "")
    with mounted(world, FQRN, tmp_path / "mount") as mount:
        assert plain(tree_on_disk(mount.mountpoint / "sw")) == plain(tree_on_disk(tree))
    outcrop(world, "verify", FQRN)


def ingest(world: Path, sender: list[str], *options: str) -> "subprocess.CompletedProcess[str]":
    """Run `sender | outcrop ingest -t -`."""
    with subprocess.Popen(sender, stdout=subprocess.PIPE) as pipe:
        return subprocess.run(
            [COMMAND, "ingest", FQRN, "-t", "-", "-b", "/sw", *options],
            stdin=pipe.stdout, env=os.environ | {"OUTCROP_ROOT": str(world)}, capture_output=True,
            text=True, check=False,
        )  # fmt: skip


def plain(tree: dict[bytes, tuple]) -> dict[bytes, tuple]:
    """Without the attributes that a mount adds."""
    return {path: (*value[:5], value[6]) for path, value in tree.items()}


def test_an_archive_whose_sender_dies_changes_nothing(world: Path, tree: Path) -> None:
    done = ingest(world, ["sh", "-c", f"tar -c -C {tree} . | head -c 6000000"])
    assert done.returncode == 9
    assert "is cut short" in done.stderr
    assert outcrop(world, "ls", FQRN, "/").stdout.split() == ["new_repository"]


def test_an_interrupt_while_the_sender_is_slow(world: Path) -> None:
    read_end, write_end = os.pipe()
    with os.fdopen(write_end, "wb") as slow:
        process = subprocess.Popen(
            [COMMAND, "ingest", FQRN, "-t", "-", "-b", "/sw"],
            stdin=read_end, env=os.environ | {"OUTCROP_ROOT": str(world)},
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip
        os.close(read_end)
        with pytest.raises(BrokenPipeError):  # as soon as nobody reads any more
            slow.write(header(b"huge", size=7 << 30))
            for n in range(100_000):
                slow.write(bytes(1 << 16))
                if n == 100:  # more than a pipe holds, so it is being read
                    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate()
    assert process.returncode == 130, stderr
    assert outcrop(world, "ls", FQRN, "/").stdout.split() == ["new_repository"]
