"""Golden repositories through a real mount: equal to upstream's client, line by line."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support import golden
from tests.support.listing import escaped, expected, lines_of_directory, listing
from tests.support.mounts import mounted

from outcrop.storage.serving import Server

pytestmark = pytest.mark.system

AS_STORED = ("-o", "CVMFS_CLAIM_OWNERSHIP=no")
NAMES = ("basic", "shake128", "uncompressed", "gc", "external")

UNSTABLE = {"user.lhash", "user.repo_metainfo", "user.inode_max"}
"""Attributes whose golden values tell of that one mount, or of a defect of 2.12 (README there)."""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """All goldens and the external data behind one web server."""
    top = tmp_path_factory.mktemp("served")
    for name in NAMES:
        shutil.copytree(golden.directory(name) / "repo", top / golden.fqrn(name))
    with Server(top) as running:
        yield running


def options_for(name: str, external_url: str) -> list[str]:
    options = ["--key", str(golden.public_key(name)), *AS_STORED]
    if name == "external":
        options += ["-o", f"CVMFS_EXTERNAL_URL={external_url}"]
    return options


@pytest.mark.parametrize(("name", "tag"), golden.LISTINGS)
def test_a_mount_shows_what_upstreams_client_shows(
    name: str, tag: str, server: Server, external_url: str, tmp_path: Path
) -> None:
    options = options_for(name, external_url) + (["--tag", tag] if tag else [])
    url = f"{server.url}/{golden.fqrn(name)}"
    with mounted(tmp_path, url, tmp_path / "mnt", *options) as mount:
        magic = frozenset(n for n in os.listxattr(mount.mountpoint) if is_magic(n))
        assert len(magic) > 30
        found = listing(lines_of_directory(mount.mountpoint, magic))
    assert found == expected(golden.listing_file(name, tag))


def is_magic(name: str) -> bool:
    return name.startswith("user.") or name == "xfsroot.rawlink"


def test_a_mount_that_claims_ownership_shows_what_upstreams_shows(
    server: Server, tmp_path: Path
) -> None:
    url = f"{server.url}/{golden.fqrn('basic')}"
    options = ["--key", str(golden.public_key("basic")), "-o", "CVMFS_WORLD_READABLE=yes"]
    with mounted(tmp_path, url, tmp_path / "mnt", *options) as mount:
        magic = frozenset(n for n in os.listxattr(mount.mountpoint) if is_magic(n))
        found = listing(lines_of_directory(mount.mountpoint, magic))
    assert found == expected(golden.directory("basic") / "expected-claim.tsv")


@pytest.mark.parametrize("name", NAMES)
def test_magic_attributes_agree_with_upstreams(
    name: str, server: Server, external_url: str, tmp_path: Path
) -> None:
    url = f"{server.url}/{golden.fqrn(name)}"
    table = (golden.directory(name) / "magic.tsv").read_text().split("\n")
    with mounted(tmp_path, url, tmp_path / "mnt", *options_for(name, external_url)) as mount:
        wrong = []
        compared = 0
        for line in filter(None, table):
            path, attribute, value = line.split("\t")
            if attribute in UNSTABLE:
                continue
            compared += 1
            raw = unescaped(path)
            here = os.fsencode(mount.mountpoint) + (b"" if raw == b"." else b"/" + raw)
            found = os.getxattr(here, attribute, follow_symlinks=False)
            if escaped(found) != value:
                wrong.append((path, attribute, value, found))
    assert wrong == []
    assert compared > 40


def unescaped(text: str) -> bytes:
    head, *parts = text.encode().split(b"%")
    return head + b"".join(bytes([int(part[:2], 16)]) + part[2:] for part in parts)
