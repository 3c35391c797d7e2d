"""list, resign, alterfs, rmfs, masterkey: what an administrator does to whole repositories."""

import contextlib
import os
import shutil
import sqlite3
import subprocess
import sys
import time
import zlib
from pathlib import Path

import pytest
from tests.support.command_line import outcrop
from tests.support.keys import other_keys

FQRN = "kept.example.org"
HSM = "/usr/lib/softhsm/libsofthsm2.so"
DAY = 86400


@pytest.fixture
def made(world: Path) -> Path:
    assert outcrop("mkfs", FQRN).code == 0
    return world / "srv/cvmfs" / FQRN


@pytest.fixture
def keys(world: Path) -> Path:
    return world / "etc/cvmfs/keys"


def test_list_names_every_repository_and_what_is_wrong_with_one(made: Path, world: Path) -> None:
    outcrop("mkfs", "also.example.org")
    broken = world / "etc/cvmfs/repositories.d/broken.example.org"
    broken.mkdir()
    (broken / "server.conf").write_text("if [ 1 ]; then\n")
    (world / "var/spool/cvmfs" / FQRN / "in_transaction.lock").touch()
    found = {one["fqrn"]: one for one in outcrop("list", "--json").json}
    assert list(found) == ["also.example.org", "broken.example.org", FQRN]
    assert found[FQRN]["is_in_transaction"]
    assert found["also.example.org"]["kind"] == "stratum0"
    assert "server.conf" in found["broken.example.org"]["problem"]
    assert outcrop("list").lines[2] == f"{FQRN} (stratum0 / local) - in transaction"


def test_list_of_a_new_machine_is_empty() -> None:
    assert outcrop("list").stdout == b""
    assert outcrop("list", "--json").json == []


def test_resign_makes_an_expired_repository_readable(
    made: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    later = time.time() + 60 * DAY
    monkeypatch.setattr(time, "time", lambda: later)
    assert outcrop("ls", FQRN, "--json").error["kind"] == "WhitelistExpired"
    ended = outcrop("resign", FQRN, "--days", "10", "--json")
    assert ended.code == 0
    assert later + 9 * DAY < ended.json[0]["expires_at"] <= later + 10 * DAY
    assert outcrop("ls", FQRN).code == 0


def test_resign_works_while_a_transaction_is_open(made: Path, world: Path) -> None:
    (world / "var/spool/cvmfs" / FQRN / "in_transaction.lock").touch()
    assert outcrop("resign", FQRN).code == 0


def test_resign_refuses_a_master_key_that_readers_do_not_know(made: Path, keys: Path) -> None:
    before = (made / ".cvmfswhitelist").read_bytes()
    (keys / f"{FQRN}.masterkey").write_bytes(other_keys().master_key_pem)
    ended = outcrop("resign", FQRN, "--json")
    assert ended.code == 7
    assert f"{FQRN}.pub" in ended.error["error"]
    assert (made / ".cvmfswhitelist").read_bytes() == before


def test_resign_says_which_key_is_missing(made: Path, keys: Path) -> None:
    (keys / f"{FQRN}.masterkey").unlink()
    assert "masterkey" in outcrop("resign", FQRN, "--json").error["error"]


def test_resign_of_what_is_not_here() -> None:
    assert outcrop("resign", FQRN).code == 6


def test_replication_is_switched_off_and_on(made: Path) -> None:
    marker = made / ".cvmfs_master_replica"
    text = marker.read_bytes()
    assert outcrop("alterfs", FQRN, "--replicable", "off").code == 0
    assert not marker.exists()
    assert outcrop("alterfs", FQRN, "-m", "on").code == 0
    assert marker.read_bytes() == text


def test_a_repository_is_altered_with_one_revision_and_its_settings_follow(
    made: Path, world: Path
) -> None:
    conf = world / "etc/cvmfs/repositories.d" / FQRN / "server.conf"
    text = conf.read_text() + "# by hand\nCVMFS_GARBAGE_COLLECTION='no' # why\nCVMFS_OTHER=1"
    conf.write_text(text)
    conf.chmod(0o640)
    ended = outcrop("alterfs", FQRN, "--garbage-collectable", "on", "--ttl", "900", "--volatile",
                    "on", "-m", "off", "--json")  # fmt: skip
    assert ended.json == {
        "fqrn": FQRN, "garbage_collectable": True, "volatile": True, "ttl_seconds": 900,
        "revision": 2, "replicable": False,
    }  # fmt: skip
    manifest = (made / ".cvmfspublished").read_bytes().splitlines()
    assert {b"S2", b"D900", b"Gyes"} < set(manifest)
    changed = conf.read_text()
    assert "CVMFS_REPOSITORY_TTL=900\n" in changed
    assert changed.endswith("CVMFS_OTHER=1\nCVMFS_GARBAGE_COLLECTION=true\n")
    assert "# by hand\n" in changed
    assert conf.stat().st_mode & 0o777 == 0o640
    assert outcrop("gc", FQRN, "--yes").code == 0
    assert outcrop("alterfs", FQRN, "--garbage-collectable", "off").code == 0
    assert conf.read_text() == changed.replace("COLLECTION=true", "COLLECTION=false")
    assert outcrop("verify", FQRN).code == 0


def test_a_volatile_repository_is_told_and_can_be_none_again(made: Path) -> None:
    for switch, told in (("on", True), ("off", False)):
        assert outcrop("alterfs", FQRN, "--volatile", switch).code == 0
        manifest = (made / ".cvmfspublished").read_bytes().splitlines()
        root = next(line[1:].decode() for line in manifest if line[:1] == b"C")
        catalog = zlib.decompress((made / "data" / root[:2] / f"{root[2:]}C").read_bytes())
        with contextlib.closing(sqlite3.connect(":memory:")) as database:
            database.deserialize(catalog)
            query = "SELECT value FROM properties WHERE key = 'volatile'"
            assert bool(int(database.execute(query).fetchone()[0])) == told


def test_an_alteration_that_cannot_be_published_changes_no_settings(
    made: Path, world: Path, keys: Path
) -> None:
    conf = world / "etc/cvmfs/repositories.d" / FQRN / "server.conf"
    text = conf.read_bytes()
    (keys / f"{FQRN}.key").unlink()
    assert outcrop("alterfs", FQRN, "--ttl", "900").code == 7
    assert conf.read_bytes() == text
    assert outcrop("alterfs", FQRN).code == 2
    assert outcrop("alterfs", FQRN, "--ttl", "0").code == 2


def test_rmfs_asks_first(made: Path) -> None:
    assert outcrop("rmfs", FQRN).code != 0  # nobody answers
    assert (made / ".cvmfspublished").exists()


def test_rmfs_leaves_nothing_but_the_keys(made: Path, world: Path, keys: Path) -> None:
    ended = outcrop("rmfs", FQRN, "--yes", "--json")
    assert ended.code == 0
    assert not made.exists()
    assert not (world / "var/spool/cvmfs" / FQRN).exists()
    assert outcrop("list", "--json").json == []
    assert sorted(ended.json["kept_keys"]) == sorted(str(file) for file in keys.iterdir())
    assert len(ended.json["kept_keys"]) == 4
    assert outcrop("mkfs", FQRN).code == 0  # with the keys that were kept


def test_rmfs_can_keep_what_was_published(made: Path) -> None:
    assert outcrop("rmfs", FQRN, "-f", "-p").code == 0
    assert (made / ".cvmfspublished").exists()


def test_rmfs_deletes_no_directory_with_other_things_in_it(made: Path, world: Path) -> None:
    (made / "thesis.tex").write_text("years of work")
    assert outcrop("rmfs", FQRN, "--yes", "--json").error["kind"] == "NotARepository"
    assert (made / ".cvmfspublished").exists()
    assert outcrop("list").stdout


def test_rmfs_waits_for_no_transaction_but_refuses(made: Path, world: Path) -> None:
    (world / "var/spool/cvmfs" / FQRN / "in_transaction.lock").touch()
    assert outcrop("rmfs", FQRN, "--yes").code == 9
    assert (made / ".cvmfspublished").exists()


def test_rmfs_goes_on_after_an_interruption(
    made: Path, world: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(path: Path) -> None:
        raise OSError(5, "Input/output error", str(path))

    with monkeypatch.context() as patched:
        patched.setattr(shutil, "rmtree", stop)
        assert outcrop("rmfs", FQRN, "--yes").code != 0
    assert not (made / ".cvmfspublished").exists()  # gone at once for readers
    assert outcrop("rmfs", FQRN, "--yes").code == 0
    assert not made.exists()


# --- a token, simulated by SoftHSM ---


@pytest.fixture
def token(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    tokens = tmp_path / "tokens"
    tokens.mkdir()
    settings = tmp_path / "softhsm2.conf"
    settings.write_text(f"directories.tokendir = {tokens}\nobjectstore.backend = file\n")
    monkeypatch.setenv("SOFTHSM2_CONF", str(settings))
    label = f"test {tmp_path.name}"[:30]
    subprocess.run(
        ["softhsm2-util", "--init-token", "--free", "--label", label, "--pin", "98765",
         "--so-pin", "123456"],
        check=True, capture_output=True,
    )  # fmt: skip
    return label


def in_process(*arguments: str, pin: str = "98765") -> subprocess.CompletedProcess[str]:
    """A PKCS #11 library is loaded once for a process, with the tokens it had then."""

    return subprocess.run(
        [sys.executable, "-c", "from outcrop.cli.main import main; main()", *arguments],
        env={**os.environ, "CVMFS_MASTERKEYCARD_PIN": pin},
        capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip


@pytest.mark.system
def test_a_whitelist_is_signed_by_a_token_that_has_the_only_master_key(
    made: Path, keys: Path, token: str
) -> None:
    where = ("--token", HSM, "--token-label", token)
    stored = in_process("masterkey", "store", FQRN, *where)
    assert (stored.returncode, stored.stderr) == (0, "")
    assert in_process("masterkey", "store", FQRN, *where).returncode == 7  # it has it already
    (keys / f"{FQRN}.masterkey").rename(keys / "off-line")
    before = (made / ".cvmfswhitelist").read_bytes()
    signed = in_process("resign", FQRN, "--days", "20", *where)
    assert (signed.returncode, signed.stderr) == (0, "")
    assert (made / ".cvmfswhitelist").read_bytes() != before
    assert outcrop("ls", FQRN).code == 0  # readers believe it

    wrong = in_process("resign", FQRN, *where, pin="11111")
    assert wrong.returncode == 7
    assert "PIN" in wrong.stderr
    assert "11111" not in wrong.stderr

    assert in_process("masterkey", "check", FQRN, *where).returncode == 0
    assert in_process("masterkey", "delete", FQRN, "--yes", *where).returncode == 0
    gone = in_process("resign", FQRN, *where)
    assert gone.returncode == 7
    assert "no RSA key" in gone.stderr


@pytest.mark.system
def test_a_token_with_another_repositorys_key_is_refused(
    made: Path, keys: Path, token: str
) -> None:
    where = ("--token", HSM, "--token-label", token)
    own = (keys / f"{FQRN}.masterkey").read_bytes()
    (keys / f"{FQRN}.masterkey").write_bytes(other_keys().master_key_pem)
    assert in_process("masterkey", "store", FQRN, *where).returncode == 0
    (keys / f"{FQRN}.masterkey").write_bytes(own)
    assert in_process("masterkey", "check", FQRN, *where).returncode == 7
    assert in_process("resign", FQRN, *where).returncode == 7
    unknown = in_process("resign", FQRN, "--token", HSM, "--token-label", "nobody's")
    assert "no tokens fit" in unknown.stderr
    assert token in unknown.stderr
