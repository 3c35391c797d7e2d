"""`server.conf`: read with every mistake named, written so that it is read the same."""

import re
from pathlib import Path

import pytest

from outcrop.formats.chunking import ChunkSizes
from outcrop.formats.hashes import HashAlgorithm
from outcrop.publisher.compression import CompressionChoice
from outcrop.publisher.errors import PublisherSettingsError
from outcrop.publisher.settings import PARAMETERS, StratumZeroSettings, serialize_client_settings
from outcrop.repository.errors import RepositoryNotFound
from outcrop.storage.locations import Locations
from outcrop.storage.s3_settings import S3_PARAMETERS
from outcrop.storage.upstream import Upstream

FQRN = "conf.example.org"
UPSTREAM = """\
# Created by cvmfs_server.
CVMFS_CREATOR_VERSION=143
CVMFS_REPOSITORY_NAME=conf.example.org
CVMFS_REPOSITORY_TYPE=stratum0
CVMFS_USER=root
CVMFS_UNION_DIR=/cvmfs/conf.example.org
CVMFS_SPOOL_DIR=/var/spool/cvmfs/conf.example.org
CVMFS_STRATUM0=http://127.0.0.1:8100/cvmfs/conf.example.org
CVMFS_UPSTREAM_STORAGE=local,/data/conf.example.org/data/txn,/data/conf.example.org
CVMFS_USE_FILE_CHUNKING=true
CVMFS_MIN_CHUNK_SIZE=4194304
CVMFS_AVG_CHUNK_SIZE=8388608
CVMFS_MAX_CHUNK_SIZE=16777216
CVMFS_HASH_ALGORITHM=shake128
CVMFS_COMPRESSION_ALGORITHM=default
CVMFS_AUTO_TAG=true
CVMFS_AUTO_TAG_TIMESPAN=""
CVMFS_GARBAGE_COLLECTION=true
CVMFS_MIN_CHUNK_SIZE=16384
CVMFS_AVG_CHUNK_SIZE=32768
CVMFS_MAX_CHUNK_SIZE=65536
CVMFS_FILE_MBYTE_LIMIT=2048
CVMFS_NESTED_KCATALOG_LIMIT=600
"""


@pytest.fixture
def locations(tmp_path: Path) -> Locations:
    return Locations(tmp_path)


def write(locations: Locations, text: str) -> None:
    directory = locations.server_config(FQRN)
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "server.conf").write_text(text)


def test_upstreams_file_is_read(locations: Locations) -> None:
    write(locations, UPSTREAM)
    settings = StratumZeroSettings.read(locations, FQRN)
    assert settings == StratumZeroSettings(
        fqrn=FQRN,
        upstream=Upstream.local(Path("/data/conf.example.org")),
        spool=Path("/var/spool/cvmfs/conf.example.org"),
        algorithm=HashAlgorithm.SHAKE128,
        min_chunk_bytes=16384,
        average_chunk_bytes=32768,
        max_chunk_bytes=65536,
        garbage_collection=True,
        auto_tag=True,
        max_file_bytes=2 << 30,
        max_nested_entries=600_000,
        union_directory=Path("/cvmfs", FQRN),
        stratum0_url="http://127.0.0.1:8100/cvmfs/conf.example.org",
        user="root",
    )
    assert settings.chunk_sizes == ChunkSizes(16384, 32768, 65536)


def test_what_is_not_set_is_as_upstream_has_it(locations: Locations) -> None:
    write(locations, "")
    settings = StratumZeroSettings.read(locations, FQRN)
    assert settings.storage == locations.repository(FQRN)
    assert settings.spool == locations.spool(FQRN)
    assert not settings.include_xattrs
    assert settings.ttl_seconds == 240
    assert settings.chunk_sizes == ChunkSizes(4 << 20, 8 << 20, 16 << 20)


@pytest.mark.parametrize("compression", list(CompressionChoice))
def test_what_is_written_is_read(locations: Locations, compression: CompressionChoice) -> None:
    settings = StratumZeroSettings(
        fqrn=FQRN,
        upstream=Upstream.local(Path("/some where")),
        spool=Path("/spool"),
        algorithm=HashAlgorithm.RMD160,
        compression=compression,
        use_chunking=False,
        ttl_seconds=61,
        garbage_collection=True,
        auto_tag=True,
        include_xattrs=True,
        external_data=True,
        autocatalogs=True,
        print_statistics=True,
        ignore_cross_directory_hardlinks=False,
        union_directory=Path("/cvmfs/elsewhere"),
        stratum0_url="http://host/",
        user="librarian",
    )
    write(locations, settings.serialize().decode())
    assert StratumZeroSettings.read(locations, FQRN) == settings
    assert settings.chunk_sizes is None


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("CVMFS_HASH_ALGORITHM=md5", "md5"),
        ("CVMFS_COMPRESSION_ALGORITHM=zstd", "zstd"),
        ("CVMFS_MIN_CHUNK_SIZE=-1", "not a number"),
        ("CVMFS_REPOSITORY_TTL=4m", "not a number"),
        ("CVMFS_MIN_CHUNK_SIZE=99999999999", "chunk sizes"),
        ("CVMFS_UPSTREAM_STORAGE=gw,/tmp,http://localhost:4929/api/v1", "gateway"),
        ("CVMFS_UPSTREAM_STORAGE=local,relative", "local,TEMPORARY"),
        ("CVMFS_SPOOL_DIR=relative", "absolute"),
        ("CVMFS_REPOSITORY_TYPE=stratum1", "stratum1"),
        ("CVMFS_REPOSITORY_NAME=other.example.org", "other"),
        ("if [ -f /x ]; then", "line 1"),
    ],
)
def test_a_mistake_is_named_with_its_file(locations: Locations, line: str, complaint: str) -> None:
    write(locations, line)
    with pytest.raises(PublisherSettingsError, match=complaint) as caught:
        StratumZeroSettings.read(locations, FQRN)
    assert "server.conf" in str(caught.value)


def test_a_secret_in_a_place_is_not_shown(locations: Locations) -> None:
    write(locations, "CVMFS_UPSTREAM_STORAGE=s3://known:hidden@host/bucket")
    with pytest.raises(PublisherSettingsError, match="no credentials") as caught:
        StratumZeroSettings.read(locations, FQRN)
    assert "hidden" not in str(caught.value)


def test_a_repository_that_is_not_here_is_told_with_the_next_step(locations: Locations) -> None:
    with pytest.raises(RepositoryNotFound, match=FQRN) as caught:
        StratumZeroSettings.read(locations, FQRN)
    assert "mkfs" in (caught.value.hint or "")


def test_the_machine_sets_what_the_repository_does_not(locations: Locations) -> None:
    file = locations.server_config(FQRN) / "server.conf"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("CVMFS_AUTO_TAG=true\n")
    machine = locations.config / "server.local"
    machine.write_text("CVMFS_AUTO_TAG=false\nCVMFS_AUTO_GC=true\n")
    read = StratumZeroSettings.read(locations, FQRN)
    assert (read.auto_tag, read.auto_gc) == (True, True)
    machine.write_text("if true; then\n")
    with pytest.raises(PublisherSettingsError, match=r"server\.local"):
        StratumZeroSettings.read(locations, FQRN)


def test_every_parameter_is_described_once() -> None:
    page = Path(__file__).parents[2] / "docs/reference/publishing-parameters.md"
    described = re.findall(r"^\| `(CVMFS_\w+)` \|", page.read_text(), re.MULTILINE)
    assert sorted(described) == sorted([*PARAMETERS, *S3_PARAMETERS])


def test_the_clients_file_names_the_public_key(locations: Locations) -> None:
    text = serialize_client_settings(locations, FQRN, stratum0_url="http://host/").decode()
    assert f"CVMFS_PUBLIC_KEY={locations.keys}/{FQRN}.pub" in text
