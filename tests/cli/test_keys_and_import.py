"""keys and import: a repository changes its key, its machine, or its whole chain of trust."""

import shutil
import time
from pathlib import Path

import pytest
from tests.support import golden
from tests.support.command_line import outcrop

FQRN = "moved.example.org"
DAY = 86400


@pytest.fixture
def made(world: Path) -> Path:
    assert outcrop("mkfs", FQRN).code == 0
    return world / "srv/cvmfs" / FQRN


@pytest.fixture
def keys(world: Path) -> Path:
    return world / "etc/cvmfs/keys"


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree/file").write_text("content\n")
    return tmp_path / "tree"


def forget(world: Path, *, also_keys: bool = True) -> Path:
    """Leave nothing but what is stored; returns where the keys went."""
    shutil.rmtree(world / "etc/cvmfs/repositories.d")
    shutil.rmtree(world / "var/spool")
    if also_keys:
        (world / "etc/cvmfs/keys").rename(world / "keys")
    return world / "keys"


def test_keys_shows_what_is_here(made: Path, keys: Path) -> None:
    fields = outcrop("keys", FQRN, "--json").json["keys"]
    assert [name for name, key in fields.items() if key["is_here"]] == [
        "pub", "masterkey", "crt", "key"
    ]  # fmt: skip
    assert "2048 bits" in fields["key"]["detail"]
    (keys / f"{FQRN}.masterkey").unlink()
    assert not outcrop("keys", FQRN, "--json").json["keys"]["masterkey"]["is_here"]
    assert "PRIVATE" not in outcrop("keys", FQRN).text


def test_a_roll_over_replaces_the_key_and_readers_notice_nothing(
    made: Path, keys: Path, tree: Path
) -> None:
    before = {file.name: file.read_bytes() for file in keys.iterdir()}
    manifest = (made / ".cvmfspublished").read_bytes()
    assert outcrop("keys", FQRN, "--roll-over").code == 0
    after = {file.name: file.read_bytes() for file in keys.iterdir()}
    assert after.keys() == before.keys()
    assert {name for name in before if before[name] != after[name]} == {
        f"{FQRN}.key", f"{FQRN}.crt"
    }  # fmt: skip
    assert (keys / f"{FQRN}.key").stat().st_mode & 0o777 == 0o600
    assert outcrop("ls", FQRN).code == 0
    assert outcrop("publish", FQRN, "--from", tree).code == 0
    assert outcrop("verify", FQRN).code == 0
    # A reader with the manifest of before is still right, until the next resign.
    current = (made / ".cvmfspublished").read_bytes()
    (made / ".cvmfspublished").write_bytes(manifest)
    assert outcrop("ls", FQRN, "-o", f"CVMFS_CACHE_BASE={keys}/cache").code == 0
    (made / ".cvmfspublished").write_bytes(current)
    assert outcrop("resign", FQRN).code == 0
    assert outcrop("ls", FQRN).code == 0


@pytest.mark.parametrize("stage", ["made", "signed", "half renamed"])
def test_an_interrupted_roll_over_goes_on(
    made: Path, keys: Path, monkeypatch: pytest.MonkeyPatch, stage: str
) -> None:
    from outcrop.publisher import keyring

    def stop(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        if stage == "made":
            patched.setattr(keyring, "resign", stop)
        elif stage == "signed":
            patched.setattr(keyring, "_replace_files", stop)
        else:
            real = Path.replace

            def replace(self: Path, target: Path) -> Path:
                if self.name.endswith(".crt.next"):
                    raise KeyboardInterrupt
                return real(self, target)

            patched.setattr(Path, "replace", replace)
        assert outcrop("keys", FQRN, "--roll-over").code == 130
    assert outcrop("ls", FQRN).code == 0  # readers are served whatever happened
    assert outcrop("keys", FQRN, "--roll-over").code == 0
    assert not list(keys.glob("*.next"))
    assert outcrop("ls", FQRN).code == 0
    assert outcrop("resign", FQRN).code == 0
    assert outcrop("ls", FQRN).code == 0


def test_a_repository_moves_with_its_keys(made: Path, world: Path, tree: Path) -> None:
    outcrop("publish", FQRN, "--from", tree, "-a", "v1")
    before = outcrop("info", FQRN, "--json").json
    kept = forget(world)
    assert outcrop("publish", FQRN, "--from", tree).code == 6
    ended = outcrop("import", FQRN, "--keys", kept, "--json")
    assert (ended.code, ended.stderr) == (0, "")
    assert ended.json["root_hash"] == before["root_hash"]
    (tree / "more").write_text("more\n")
    assert outcrop("publish", FQRN, "--from", tree).code == 0
    assert outcrop("verify", FQRN).code == 0
    assert outcrop("cat", FQRN, "/more").stdout == b"more\n"
    assert outcrop("import", FQRN, "--json").error["kind"] == "RepositoryExists"


def test_a_repository_without_a_reflog_gets_one(made: Path, world: Path, tree: Path) -> None:
    outcrop("publish", FQRN, "--from", tree, "-a", "v1")
    roots = {ref["hash"] for ref in outcrop("reflog", FQRN, "--json").json}
    kept = forget(world)
    (made / ".cvmfsreflog").unlink()
    assert outcrop("import", FQRN, "--keys", kept).code == 0
    assert {ref["hash"] for ref in outcrop("reflog", FQRN, "--json").json} == roots
    assert outcrop("publish", FQRN, "--from", tree).code == 0
    assert outcrop("verify", FQRN).code == 0


def test_what_cannot_be_verified_is_not_imported(made: Path, world: Path, tmp_path: Path) -> None:
    kept = forget(world)
    outcrop("mkfs", "other.example.org")
    for suffix in ("pub", "crt", "key", "masterkey"):
        file = world / f"etc/cvmfs/keys/other.example.org.{suffix}"
        (tmp_path / f"{FQRN}.{suffix}").write_bytes(file.read_bytes())
    ended = outcrop("import", FQRN, "--keys", tmp_path, "--json")
    assert ended.code == 4
    assert outcrop("list", "--json").json[0]["fqrn"] == "other.example.org"
    assert len(outcrop("list", "--json").json) == 1
    assert "differs" in outcrop("import", FQRN, "--keys", kept, "--json").error["error"]


def test_import_without_any_key_says_what_is_missing(made: Path, world: Path) -> None:
    forget(world)
    ended = outcrop("import", FQRN, "--json")
    assert ended.code == 7
    assert f"{FQRN}.pub" in ended.error["error"]
    assert outcrop("import", "nothing.example.org", "--json").error["kind"] == "RepositoryNotFound"


def test_an_expired_whitelist_is_renewed_with_the_master_key(
    made: Path, world: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = forget(world)
    later = time.time() + 90 * DAY
    monkeypatch.setattr(time, "time", lambda: later)
    assert outcrop("import", FQRN, "--keys", kept, "--json").error["kind"] == "WhitelistExpired"
    assert outcrop("import", FQRN, "--renew", "whitelist").code == 0
    assert outcrop("ls", FQRN).code == 0


def test_a_lost_repository_key_is_replaced(made: Path, world: Path, tree: Path) -> None:
    kept = forget(world)
    (kept / f"{FQRN}.key").unlink()
    (kept / f"{FQRN}.crt").unlink()
    assert outcrop("import", FQRN, "--keys", kept, "--renew", "repository-key").code == 0
    assert outcrop("publish", FQRN, "--from", tree).code == 0
    assert outcrop("verify", FQRN).code == 0


@pytest.mark.parametrize("renew", ["repository-key", "master-key"])
def test_an_import_interrupted_before_the_new_signature_goes_on(
    made: Path, world: Path, tree: Path, monkeypatch: pytest.MonkeyPatch, renew: str
) -> None:
    from outcrop.publisher import takeover

    def stop(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    kept = forget(world)
    (kept / f"{FQRN}.key").unlink()
    (kept / f"{FQRN}.crt").unlink()
    keys = ("--keys", kept) if renew == "repository-key" else ()
    with monkeypatch.context() as patched:
        patched.setattr(takeover, "sign_again", stop)
        assert outcrop("import", FQRN, *keys, "--renew", renew).code == 130
    assert outcrop("import", FQRN).code == 0
    assert outcrop("publish", FQRN, "--from", tree).code == 0
    assert outcrop("verify", FQRN).code == 0


@pytest.mark.parametrize("name", ["basic", "gc", "shake128", "uncompressed"])
def test_a_repository_of_the_real_tools_is_taken_over_without_its_keys(
    world: Path, tree: Path, name: str
) -> None:
    fqrn = golden.fqrn(name)
    shutil.copytree(golden.directory(name) / "repo", world / "srv/cvmfs" / fqrn)
    ended = outcrop("import", fqrn, "--renew", "master-key", "--json")
    assert (ended.code, ended.stderr) == (0, "")
    tags = outcrop("log", fqrn, "--json").json
    assert outcrop("publish", fqrn, "--from", tree, "--to", "/added").code == 0
    assert outcrop("verify", fqrn).code == 0
    assert outcrop("cat", fqrn, "/added/file").stdout == b"content\n"
    assert len(outcrop("log", fqrn, "--json").json) >= len(tags)
