"""The public API and the fsspec file system, on a stored repository."""

import os
from pathlib import Path

import fsspec
import pytest
from tests.support.simulator import File, RepositorySimulator, Symlink

import outcrop
from outcrop.client.errors import SettingsError
from outcrop.repository.errors import PathNotFound
from outcrop.trust.errors import BadSignature

FQRN = "sim.example.org"
BIG = os.urandom(50_000)


@pytest.fixture
def stored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A root of our own, with the repository stored and its key configured."""
    monkeypatch.setenv("OUTCROP_ROOT", str(tmp_path))
    sim = RepositorySimulator(
        {
            b"/data/table.csv": b"a,b\n1,2\n",
            b"/data/big": File(BIG, chunk_bytes=7_000),
            b"/latest": Symlink(b"data"),
            b"/latin-\xe9": b"",
        }
    )
    sim.publish({**sim.files, b"/new": b"new"}, tag="v2")
    directory = tmp_path / "srv/cvmfs" / FQRN
    sim.dump(directory)
    keys = tmp_path / "etc/cvmfs/keys"
    keys.mkdir(parents=True)
    (keys / f"{FQRN}.pub").write_bytes(sim.public_key)
    return directory


def test_a_repository_opens_by_name_directory_and_with_a_key_in_hand(stored: Path) -> None:
    for target, options in (
        (FQRN, {}),
        (stored, {}),
        (str(stored), {"public_keys": [stored.parents[2] / f"etc/cvmfs/keys/{FQRN}.pub"]}),
        (stored, {"cache": False}),
    ):
        with outcrop.open(target, **options) as repository:  # type: ignore[arg-type]
            assert repository.fqrn == FQRN
            assert repository.revision == 2
            assert repository.listdir() == ["data", "latest", "latin-\udce9", "new"]


def test_files_are_read_through_links(stored: Path) -> None:
    with outcrop.open(FQRN) as repository:
        assert repository.read_bytes("/latest/big") == BIG
        with repository.open("latest/table.csv", "r") as text:
            assert text.read() == "a,b\n1,2\n"
        with repository.open("data/big") as binary:
            binary.seek(-5, os.SEEK_END)
            assert binary.read() == BIG[-5:]
        assert repository.stat("latest").is_dir
        assert repository.stat("latest", follow_symlinks=False).is_symlink
        assert repository.readlink("latest") == "data"
        assert repository.exists("data/big")
        assert not repository.exists("data/small")
        with pytest.raises(PathNotFound):
            repository.read_bytes("data/small")
        with pytest.raises(ValueError, match="read-only"):
            repository.open("new", "wb")  # type: ignore[arg-type]


def test_a_walk_is_like_os_walk(stored: Path) -> None:
    with outcrop.open(FQRN) as repository:
        assert list(repository.walk()) == [
            ("/", ["data"], ["latest", "latin-\udce9", "new"]),
            ("/data", [], ["big", "table.csv"]),
        ]


def test_older_revisions_open(stored: Path) -> None:
    with outcrop.open(FQRN) as repository:
        tags = {tag.name: tag for tag in repository.tags()}
    with outcrop.open(FQRN, tag="v2") as repository:
        assert repository.exists("new")
    with outcrop.open(FQRN, root_hash=str(tags["trunk-previous"].hash)) as repository:
        assert repository.revision == 1
        assert repository.tags() == []


def test_who_cannot_verify_reads_nothing(stored: Path) -> None:
    from tests.support.keys import other_keys

    with pytest.raises(BadSignature):
        outcrop.open(FQRN, public_keys=[other_keys().master_public_pem])
    (stored.parents[2] / f"etc/cvmfs/keys/{FQRN}.pub").unlink()
    with pytest.raises(SettingsError, match="no public key"):
        outcrop.open(FQRN)
    with pytest.raises(SettingsError, match="nothing says where"):
        outcrop.open("unknown.example.org", public_keys=[other_keys().master_public_pem])


def test_fsspec_reads_lists_and_seeks(stored: Path) -> None:
    with fsspec.open(f"cvmfs://{FQRN}/latest/table.csv", "rt", skip_instance_cache=True) as file:
        assert file.read() == "a,b\n1,2\n"
    system = fsspec.filesystem("cvmfs", skip_instance_cache=True)
    assert system.ls(f"{FQRN}/data", detail=False) == [f"{FQRN}/data/big", f"{FQRN}/data/table.csv"]
    assert system.info(f"{FQRN}/data/big")["size"] == len(BIG)
    assert system.cat_file(f"{FQRN}/data/big", start=100, end=200) == BIG[100:200]
    assert system.glob(f"{FQRN}/data/*.csv") == [f"{FQRN}/data/table.csv"]
    assert system.find(FQRN) == [
        f"{FQRN}/data/big",
        f"{FQRN}/data/table.csv",
        f"{FQRN}/latest",
        f"{FQRN}/latin-\udce9",
        f"{FQRN}/new",
    ]
    with pytest.raises(FileNotFoundError):
        system.info(f"{FQRN}/nothing")
    assert not system.exists(f"{FQRN}/nothing")
