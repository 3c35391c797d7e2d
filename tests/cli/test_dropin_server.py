"""cvmfs_server on a stratum 0 as the original left it: what scripts and cron jobs see of it."""

import io
import json
import sqlite3
import tarfile
from pathlib import Path

import pytest
from tests.support import golden
from tests.support.checker import Checker
from tests.support.command_line import Ended
from tests.support.keys import other_keys, repository_keys
from tests.support.original_installation import Installation, lay_out, run_tool, whitelist_now

from outcrop.cli.dropin.server import run
from outcrop.formats.signed import SignedText
from outcrop.formats.whitelist import Whitelist
from outcrop.publisher.publish import PublishOptions, publish_directory
from outcrop.storage.locations import Locations

FQRN = "basic.golden.test"
GOLDEN = golden.directory("basic")


@pytest.fixture
def made(world: Path) -> Installation:
    return lay_out(world)


def server(*arguments: str | Path, stdin: str = "") -> Ended:
    """Run cvmfs_server; it must not fail."""
    ended = run_tool(run, *arguments, stdin=stdin)
    assert ended.code == 0, ended.text + ended.stderr
    return ended


def refused(*arguments: str | Path, stdin: str = "") -> str:
    """Run cvmfs_server, which must fail; all it said."""
    ended = run_tool(run, *arguments, stdin=stdin)
    assert ended.code == 1, ended
    return ended.text + ended.stderr


def trees(text: str) -> list[str]:
    """The lines of a list of catalogs in an order of its own: upstream has none."""
    return sorted(text.splitlines())


def seen(made: Installation) -> Checker:
    """What an independent reader sees, who finds nothing wrong."""
    checker = Checker(made.storage, made.fqrn, repository_keys(made.fqrn).master_public_pem)
    assert checker.check() == []
    return checker


# --- showing -----------------------------------------------------------------------------------


def test_tags_are_listed_byte_for_byte_as_upstream_did(made: Installation) -> None:
    machine, human = (GOLDEN / "tags.machine.txt").read_text(), (GOLDEN / "tags.txt").read_text()
    assert server("tag", "-lx").text == machine
    assert server("tag", "-l", "-x", FQRN).text == machine
    assert server("tag", "-x").text == machine
    assert server("tag").text == human
    assert server("list-tags", FQRN).text == human
    assert server("tag", "-x", "-i", "v1.0").text in machine
    assert server("tag", "-i", "v1.0").lines[:3] == [
        "Name:         v1.0", "Revision:     3", "Timestamp:    22 Nov 2026 07:59:40"
    ]  # fmt: skip
    assert server("tag", "-bx").text == "[0] (default) @0\n"
    assert server("tag", "-b").text == "(default) @0\n"


def test_catalogs_are_listed_as_upstream_did(made: Installation) -> None:
    wanted = (GOLDEN / "catalogs.txt").read_text()
    assert trees(server("list-catalogs", "-seh").text) == trees(wanted)
    flat = wanted.replace("│  ", "").replace("├─ ", "")
    assert trees(server("list-catalogs", "-s", "-e", "-h", "-x", FQRN).text) == trees(flat)
    paths = [line.rpartition(" ")[2] for line in flat.splitlines()]
    assert sorted(server("list-catalogs", "-x").lines) == sorted(paths)


def test_info_says_how_clients_are_set_up(made: Installation) -> None:
    key = made.keys / f"{FQRN}.pub"
    assert server("info").text == (
        f"Repository name: {FQRN}\nCreated by CernVM-FS 143\nStratum1 replication allowed: yes\n"
        "Whitelist is valid for another 29 days\n\nClient configuration:\n"
        f"Add {FQRN} to CVMFS_REPOSITORIES in /etc/cvmfs/default.local\n"
        f"Create /etc/cvmfs/config.d/{FQRN}.conf and set\n"
        f"  CVMFS_SERVER_URL=http://127.0.0.1:8100/cvmfs/{FQRN}\n  CVMFS_PUBLIC_KEY={key}\n"
        f"Copy {key} to the client\n"
    )
    assert "Your Organisation" in server("info", "--meta-info", FQRN).text
    server("alterfs", "-m", "off")
    whitelist_now(made, days=-1)
    lines = server("info").lines
    assert "Stratum1 replication allowed: no" in lines
    assert "Whitelist is expired" in lines


def test_list_tells_the_state_of_each_repository(made: Installation) -> None:
    assert server("list").text == f"{FQRN} (stratum0 / local)  \n"
    (made.spool / "in_transaction.lock").touch()
    whitelist_now(made, days=-1)
    assert (
        server("list").text == f"{FQRN} (stratum0 / local - in transaction - whitelist expired)  \n"
    )
    replica = made.config.with_name("replica.test")
    replica.mkdir()
    (replica / "server.conf").write_text("CVMFS_REPOSITORY_TYPE=stratum1\n")
    assert server("list").lines[1] == "replica.test (stratum1 / local)  "


def test_diff_is_machine_readable(made: Installation) -> None:
    lines = server("diff", "-mh", "-s", "v1.0", "-d", "v1.1").lines
    assert lines[0].startswith("# line descriptor: A - add, R - remove, M - modify")
    assert lines[1:5] == ["S F -16", "S S 0", "S D 3", "S N 2"]
    assert {"A D /added +4096", "R F /modes/m0777 -6", "M[M] F /bin/hello.sh"} <= set(lines)
    machine = (GOLDEN / "tags.machine.txt").read_text().splitlines()
    hashes = {line.split()[0]: line.split()[1] for line in machine}
    by_hash = ("-s", f"@{hashes['v1.0']}", "--to", f"@{hashes['v1.1']}", FQRN)
    assert server("diff", "-m", *by_hash).lines == lines[1:]
    human = server("diff", "-h").lines
    assert human[0].startswith("DELTA: trunk-previous/r6 (22 Nov 2026 07:59:44) --> trunk/r7 (")
    assert "/huge add directory +4096 bytes" in human


# --- tags, rollback, branches ------------------------------------------------------------------


def test_tags_are_added_moved_and_removed(made: Installation) -> None:
    server("tag", "-a", "production", "-m", "what runs", FQRN)
    line = server("tag", "-xi", "production").text
    assert line.endswith("(default) what runs\n")
    old = server("tag", "-x", "-i", "v2.0").text.split()[1]
    server("tag", "-a", "production", "-h", old, FQRN)
    assert server("tag", "-x", "-i", "production").text.split()[1] == old
    assert "already" in refused("tag", "-a", "production")
    server("tag", "-r", "v1.0", "-r", "v1.1", "-f")
    said = refused("tag", "-r", "production", stdin="n\n")
    assert f"remove these tags from {FQRN}:\n* production\n" in said
    server("tag", "-r", "production", stdin="y\n")
    assert server("tag", "-x").text.count("\n") == 5
    seen(made)


def test_one_action_at_a_time(made: Installation) -> None:
    ended = run_tool(run, "tag", "-a", "x", "-l")
    assert ended.code == 3
    assert "Ambiguous" in ended.text


def test_a_rollback_is_confirmed_and_made(made: Installation) -> None:
    assert "ROLLBACK to v2.0 AS THE LATEST REVISION" in refused("rollback", "-t", "v2.0")
    server("rollback", "-t", "v2.0", stdin="y\n")
    assert server("tag", "-x", "-i", "trunk").text.split()[3] == "8"
    assert "v2.1" not in server("tag", "-x").text
    assert "v9" in refused("rollback", "-f", "-t", "v9")


def test_a_branch_is_checked_out_and_left(made: Installation) -> None:
    server("checkout", "-b", "fixes", "-t", "v1.0")
    words = (made.spool / "checkout").read_text().split()
    assert (words[0], words[2]) == ("v1.0", "fixes")
    refused("rollback", "-f")
    server("checkout")
    assert not (made.spool / "checkout").exists()


# --- publishing --------------------------------------------------------------------------------


def make_tar(file: Path, **members: bytes) -> Path:
    with tarfile.open(file, "w") as archive:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return file


def test_tarballs_are_ingested_in_all_spellings(made: Installation, tmp_path: Path) -> None:
    tar = make_tar(tmp_path / "a.tar", tool=b"one\n")
    server("ingest", "-t", tar, "-b", "software/1", "-c", FQRN)
    server("ingest", "--tar_file", tar, "--base_dir", f"/cvmfs/{FQRN}/software/2")
    server("ingest", "-u", "root", "-g", "root", "-t", tar, "-b", "software/3", FQRN)
    server("ingest", "-d", "software/1", "--delete", "many", FQRN)
    shown = seen(made)
    assert b"/software/2/tool" in shown.entries
    assert b"/software/1" not in shown.entries
    assert b"/many" not in shown.entries
    assert (
        "nobody-there"
        in run_tool(run, "ingest", "-u", "nobody-there", "-t", tar, "-b", "x", FQRN).text
    )
    assert run_tool(run, "ingest", "-t", tar, "-b", "x").code == 3


def test_publish_and_abort_need_a_transaction(made: Installation) -> None:
    assert "no transaction is open" in refused("publish", FQRN)
    assert "no transaction is open" in refused("abort", "-f")
    assert "no transaction is open" in refused("publish", "-v", "-a", "tag", "-m", "text")
    assert "DISCARD ALL CHANGES" in refused("abort", stdin="\n")
    assert run_tool(run, "publish", "-X", "-N").code == 3


def test_what_is_accepted_without_effect_is_told_where_it_could_matter(made: Installation) -> None:
    said = refused("publish", "-d", "-c", "10")
    assert "-d has no effect" in said
    assert "-c has no effect" not in said


# --- cron jobs ---------------------------------------------------------------------------------


def test_check_reads_everything_and_finds_damage(made: Installation) -> None:
    server("check")
    server("check", "-c", "-t", "v1.0", FQRN)
    server("check", "-s", "/nested1")
    server("check", "-i")
    readme = seen(made).entries[b"/README.txt"].row["hash"].hex()
    name = made.storage / f"data/{readme[:2]}/{readme[2:]}"
    name.write_bytes(b"damaged")
    server("check", "-c")
    said = refused("check", "-i")
    assert name.name in said
    name.unlink()
    assert name.name in refused("check", FQRN)


def test_check_finds_the_reflog_again(made: Installation) -> None:
    (made.spool / "reflog.chksum").unlink()
    (made.storage / ".cvmfsreflog").unlink()
    refused("check")
    assert "re-creating the reflog" in server("check", "-r").text
    server("check")
    assert (made.spool / "reflog.chksum").read_text().isalnum()


def test_check_a_goes_into_the_log_and_comes_again_after_30_days(
    made: Installation, world: Path
) -> None:
    assert server("check", "-a").text == ""
    log = world / "var/log/cvmfs/checks.log"
    first = log.read_text()
    assert f"Starting {FQRN} at " in first
    assert "no problems" in first
    status = made.storage / ".cvmfs_status.json"
    told = json.loads(status.read_text())
    assert told["check_status"] == "succeeded"
    server("check", "-a")
    assert log.read_text() == first
    told["last_check"] = "Sun Sep  6 10:00:00 UTC 2026"
    status.write_text(json.dumps(told))
    (made.storage / ".cvmfsreflog").unlink()
    server("check", "-a")
    assert "ERROR from cvmfs_server check!" in log.read_text()
    told = json.loads(status.read_text())
    assert told["check_status"] == "failed"
    (world / "etc/cvmfs/server.local").write_text("CVMFS_CHECK_ALL_MIN_DAYS=0\n")
    size = log.stat().st_size
    server("check", "-a")
    assert log.stat().st_size > size


def test_gc_only_where_it_may_and_after_a_yes(made: Installation, world: Path) -> None:
    assert "not garbage collectable" in refused("gc", "-f")
    assert "no active garbage-collectable" in refused("gc", "-a", "-f")
    other = lay_out(world, "gc")
    said = refused("gc", "-r", "0", other.fqrn, stdin="n\n")
    assert f"Affected Repositories:         {other.fqrn}\nDry Run" in said
    assert server("gc", "-d", "-r", "0", "-l", other.fqrn).code == 0
    server("gc", "-a", "-f")
    log = (world / "var/log/cvmfs/gc.log").read_text()
    assert f"Starting {other.fqrn}" in log
    assert FQRN not in log
    assert "last_gc" in (other.storage / ".cvmfs_status.json").read_text()
    assert run_tool(run, "gc", "-r", "1", "-t", "now", "-f").code == 3
    server("check", other.fqrn)


def test_whitelists_are_signed_anew_by_wildcard(made: Installation, world: Path) -> None:
    lay_out(world, "gc")
    for name in ("basic", "gc"):
        whitelist_now(Installation(world, golden.fqrn(name)), days=-3)
    assert "expired" in server("list").text
    server("resign", "*.golden.test")
    assert "expired" not in server("list").text
    assert "more than 30 days" in refused("resign", "-d", "31", FQRN, stdin="n\n")
    server("resign", "-d", "31", "-f", FQRN)
    assert "30 days" in server("info", FQRN).text
    server("resign", "-p", FQRN)
    assert run_tool(run, "resign", "-p", "-d", "3", FQRN).code == 3


def test_a_whitelist_file_is_signed_where_only_the_master_key_is(
    made: Installation, tmp_path: Path
) -> None:
    whitelist_now(made, days=-3)
    file = tmp_path / "whitelist"
    file.write_bytes((made.storage / ".cvmfswhitelist").read_bytes())
    before = Whitelist.parse(SignedText.parse(file.read_bytes()).body)
    server("resign", "-w", file, "-d", "5", FQRN)
    after = Whitelist.parse(SignedText.parse(file.read_bytes()).body)
    assert after.fingerprints == before.fingerprints
    assert after.expires_at > golden.now() + 4 * 86400
    (made.keys / f"{FQRN}.masterkey").chmod(0o600)
    (made.keys / f"{FQRN}.masterkey").write_bytes(other_keys().master_key_pem)
    assert "no known master key" in refused("resign", "-w", file, FQRN)


# --- administration ----------------------------------------------------------------------------


def test_a_repository_is_made_as_scripts_expect_it(world: Path) -> None:
    server("mkfs", "-o", "root", "-a", "shake128", "-z", "-Z", "default", "-p", "-f", "overlayfs",
           "-w", "http://s0.example.org/cvmfs/new.example.org", "new.example.org")  # fmt: skip
    text = (Locations(world).server_config("new.example.org") / "server.conf").read_text()
    for line in ("CVMFS_AUTO_TAG=true", "CVMFS_GARBAGE_COLLECTION=true", "HASH_ALGORITHM=shake128"):
        assert line in text
    assert (world / "srv/cvmfs/new.example.org/.cvmfs_master_replica").exists()
    assert "the -V" not in refused("mkfs", "-V", "x", "other.example.org")
    assert "already" in refused("mkfs", "new.example.org")
    server("mkfs", "-g", "quiet.example.org")
    text = (Locations(world).server_config("quiet.example.org") / "server.conf").read_text()
    assert "CVMFS_AUTO_TAG=false" in text
    assert "WIPE OUT" in refused("rmfs", "new.example.org", stdin="n\n")
    server("rmfs", "-f", "*.example.org")
    assert server("list").text == ""


def test_a_stored_repository_is_imported(made: Installation, world: Path, tmp_path: Path) -> None:
    keys = made.keys.rename(tmp_path / "keys")
    for directory in (made.config, made.spool):
        directory.rename(tmp_path / f"old-{directory.parent.name}")
    whitelist_now(made, days=-1)
    assert run_tool(run, "import", "-t", "-k", keys, FQRN).code == 3
    refused("import", "-k", keys, FQRN)
    server("import", "-w", f"http://s0/cvmfs/{FQRN}", "-o", "root", "-u",
           f"local,{made.storage}/data/txn,{made.storage}", "-k", keys, "-r", "-m", "-p", "-g",
           FQRN)  # fmt: skip
    server("check")
    assert server("tag", "-x").text == (GOLDEN / "tags.machine.txt").read_text()
    refused("import", "-l", "legacy.example.org")


def test_statistics_are_printed_and_merged(made: Installation, tmp_path: Path) -> None:
    assert server("print-stats", FQRN).text == (
        f"No statistics database file for {FQRN} repository.\n"
    )
    server("ingest", "-t", make_tar(tmp_path / "a.tar", f=b"x"), "-b", "new", FQRN)
    lines = server("print-stats", FQRN).lines
    assert lines[0].startswith("publish_id|start_time|finish_time|revision|files_added|")
    assert lines[1].split("|")[3] == "8"
    out = tmp_path / "out.csv"
    server("print-stats", "-t", "gc_statistics", "-s", ",", "-o", out, FQRN)
    assert out.read_text().startswith("gc_id,start_time")
    database = made.spool / "stats.db"
    (tmp_path / "other.db").write_bytes(database.read_bytes())
    with sqlite3.connect(tmp_path / "other.db") as other:
        other.execute("UPDATE publish_statistics SET start_time = '2020-01-01 00:00:00'")
    merged = tmp_path / "merged.db"
    merged.write_text("something else")
    server("merge-stats", "-o", merged, database, tmp_path / "other.db")
    with sqlite3.connect(merged) as result:
        assert result.execute("SELECT count(*) FROM publish_statistics").fetchone() == (2,)


def test_meta_information_is_replaced(made: Installation, world: Path, tmp_path: Path) -> None:
    about = tmp_path / "about.json"
    about.write_text('{"administrator": "Someone", "email": "s@example.org"}')
    server("update-repoinfo", "-f", about)
    assert "Someone" in server("info", "-m").text
    about.write_text("{")
    assert "not JSON" in refused("update-repoinfo", "-f", about)
    server("update-info", "-e", "-p")
    listed = json.loads((world / "srv/cvmfs/info/v1/repositories.json").read_text())
    assert [one["name"] for one in listed["repositories"]] == [FQRN]
    server("check")


def test_owners_and_hard_links_are_changed_in_the_catalogs(
    made: Installation, tmp_path: Path
) -> None:
    (tmp_path / "map").write_text("* 1234\n")
    server("catalog-chown", "-u", tmp_path / "map", "-g", tmp_path / "map", FQRN)
    assert "cannot be undone" in refused("eliminate-hardlinks", stdin="n\n")
    server("eliminate-hardlinks", "-f")
    server("eliminate-bulk-hashes", "-f")
    server("fix-stats", "-f")
    shown = seen(made)
    entry = shown.entries[b"/hardlinks/a"]
    assert (entry.row["uid"], entry.row["gid"], entry.nlink) == (1234, 1234, 1)


def test_other_commands_say_what_they_are_worth(made: Installation) -> None:
    assert server("migrate").text == f"{FQRN} is up to date\n"
    assert "healthy" in server("health-check").text
    assert server("health-check", "-q").text == ""
    for name in ("snapshot", "add-replica", "update-geodb", "skeleton", "fix-permissions"):
        assert run_tool(run, name, "-a").code == 1
    config = made.config / "server.conf"
    config.write_text(config.read_text().replace("VERSION=143", "VERSION=130"))
    assert "layout 130" in refused("migrate")


# --- usage -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "code"),
    [("", 2), ("-h", 2), ("--help", 0), ("frob", 3), ("tag -q", 3), ("tag a.b c.d", 3),
     ("mkfs", 3), ("print-stats", 3), ("--version", 0)],
)  # fmt: skip
def test_wrong_usage_ends_as_the_original_ends(line: str, code: int, world: Path) -> None:
    assert run_tool(run, *line.split()).code == code


def test_a_repository_that_does_not_exist_is_an_error(made: Installation) -> None:
    assert "does not exist" in refused("tag", "-l", "no.example.org")
    assert "does not exist" in refused("check", "nodomain")


def test_settings_of_upstream_are_used_as_they_are(made: Installation, tmp_path: Path) -> None:
    """The chunk sizes of server.conf, which come twice: the last ones count."""
    source = tmp_path / "source"
    source.mkdir()
    (source / "big").write_bytes(bytes(range(256)) * 2000)
    publish_directory(
        Locations(made.root), FQRN, source=source, to=b"/new", options=PublishOptions(),
        now=golden.now(),
    )  # fmt: skip
    shown = seen(made)
    assert len(shown.entries[b"/new/big"].chunks) > 5
