"""Parameters in layers: who wins, where it came from, what is refused."""

from pathlib import Path

import pytest

pytest.importorskip("outcrop.formats.parameters")

from outcrop.client.errors import SettingsError
from outcrop.client.settings import PARAMETERS, ClientSettings, read_parameters
from outcrop.storage.locations import Locations

FQRN = "sw.example.org"


def write(root: Path, name: str, text: str) -> None:
    path = root / "etc/cvmfs" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def test_later_layers_win_and_each_value_knows_its_origin(tmp_path: Path) -> None:
    write(tmp_path, "default.conf", "CVMFS_TIMEOUT=1\nCVMFS_MAX_RETRIES=1\nCVMFS_MAX_SERVERS=1\n")
    write(tmp_path, "default.d/10-a.conf", "CVMFS_MAX_RETRIES=2\n")
    write(tmp_path, "default.local", "CVMFS_QUOTA_LIMIT=10\n")
    write(tmp_path, "domain.d/example.org.conf", "CVMFS_SERVER_URL=http://h/cvmfs/@fqrn@\n")
    write(tmp_path, f"config.d/{FQRN}.conf", "CVMFS_TIMEOUT=3\n")
    write(tmp_path, f"config.d/{FQRN}.local", "# mine\nCVMFS_MAX_RETRIES=4\n")
    parameters = read_parameters(Locations(tmp_path), FQRN, ["CVMFS_MAX_SERVERS=9"])
    settings = parameters.settings()
    assert settings.timeout_seconds == 3
    assert settings.max_retries == 4
    assert settings.max_servers == 9
    assert settings.quota_bytes == 10 << 20
    assert settings.server_urls == ("http://h/cvmfs/sw.example.org",)
    assert parameters.values["CVMFS_MAX_RETRIES"].origin.endswith(f"{FQRN}.local:2")
    assert parameters.values["CVMFS_MAX_SERVERS"].origin == "command line"


def test_without_files_the_defaults_of_upstream_hold(tmp_path: Path) -> None:
    assert read_parameters(Locations(tmp_path), FQRN).settings() == ClientSettings()


@pytest.mark.parametrize(
    "override",
    [
        "CVMFS_TIMEOUT=soon",
        "CVMFS_TIMEOUT=-1",
        "CVMFS_QUOTA_LIMIT=-2",
        "CVMFS_ROOT_HASH=xyz",
        "CVMFS_REPOSITORY_DATE=yesterday",
        "CVMFS_MAGIC_XATTRS_VISIBILITY=sometimes",
    ],
)
def test_a_wrong_value_is_named(tmp_path: Path, override: str) -> None:
    name, _, value = override.partition("=")
    with pytest.raises(SettingsError) as caught:
        read_parameters(Locations(tmp_path), FQRN, [override]).settings()
    assert name in str(caught.value)
    assert value in str(caught.value)


@pytest.mark.parametrize("override", ["CVMFS_NO_SUCH=1", "CVMFS_TIMEOUT", "nonsense"])
def test_an_unknown_override_is_refused(tmp_path: Path, override: str) -> None:
    with pytest.raises(SettingsError):
        read_parameters(Locations(tmp_path), FQRN, [override])


def test_contradictions_are_refused(tmp_path: Path) -> None:
    for pair in (
        ["CVMFS_CACHE_DIR=/a", "CVMFS_CACHE_BASE=/b"],
        ["CVMFS_REPOSITORY_TAG=t", "CVMFS_ROOT_HASH=" + "0" * 40],
    ):
        with pytest.raises(SettingsError):
            read_parameters(Locations(tmp_path), FQRN, pair).settings()


def test_a_file_that_cannot_be_understood_is_named_with_its_line(tmp_path: Path) -> None:
    write(tmp_path, "default.conf", "CVMFS_TIMEOUT=1\nCVMFS_X=$(reboot)\n")
    with pytest.raises(SettingsError, match=r"default\.conf.*2"):
        read_parameters(Locations(tmp_path), FQRN)


def test_every_parameter_sets_an_existing_field() -> None:
    fields = set(ClientSettings.__dataclass_fields__)
    assert {attribute for attribute, _ in PARAMETERS.values()} == fields
