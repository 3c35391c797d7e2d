"""What a server tells of its repositories, as upstream's clients and monitors read it."""

import json
from pathlib import Path

from tests.support.stratum_zero import FQRN, StratumZero

from outcrop.publisher.server_info import update_server_info


def test_repositories_and_replicas_are_listed_apart(tmp_path: Path) -> None:
    world = StratumZero(tmp_path)
    world.create()
    replica = world.locations.server_config("replica.example.org")
    replica.mkdir()
    (replica / "server.conf").write_text(
        "CVMFS_REPOSITORY_NAME=replica.example.org\nCVMFS_REPOSITORY_TYPE=stratum1\n"
    )
    file = update_server_info(world.locations)
    assert file == tmp_path / "srv/cvmfs/info/v1/repositories.json"
    assert json.loads(file.read_bytes()) == {
        "schema": 1,
        "repositories": [{"name": FQRN, "url": f"/cvmfs/{FQRN}"}],
        "replicas": [{"name": "replica.example.org", "url": "/cvmfs/replica.example.org"}],
    }


def test_what_the_administrator_wrote_stays(tmp_path: Path) -> None:
    world = StratumZero(tmp_path)
    meta = update_server_info(world.locations).with_name("meta.json")
    assert set(json.loads(meta.read_bytes())) == {
        "administrator",
        "email",
        "organisation",
        "custom",
    }
    meta.write_text('{"administrator": "Ada"}')
    update_server_info(world.locations)
    assert json.loads(meta.read_bytes()) == {"administrator": "Ada"}
