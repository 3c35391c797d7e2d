"""cvmfs_swissknife, cvmfs_publish and cvmfs_rsync: what scripts call them for."""

import os
import sqlite3
import zlib
from pathlib import Path

import pytest
from tests.support import golden
from tests.support.checker import Checker
from tests.support.command_line import Ended, outcrop
from tests.support.keys import repository_keys
from tests.support.original_installation import Installation, lay_out, run_tool, whitelist_now

from outcrop.cli.dropin import publish, rsync, swissknife
from outcrop.formats.catalog import path_hash

FQRN = "basic.golden.test"
GOLDEN = golden.directory("basic")
ROOT = "d3bc38a031364daf1870612ca0caf74637e3b7a6"


@pytest.fixture
def made(world: Path) -> Installation:
    return lay_out(world)


def knife(*arguments: str | Path, stdin: str | bytes = "", code: int = 0) -> Ended:
    ended = run_tool(swissknife.run, *arguments, stdin=stdin)
    assert ended.code == code, ended.text + ended.stderr
    return ended


# --- swissknife: repositories ------------------------------------------------------------------


def test_info_shows_what_is_asked_for_in_upstreams_order(made: Installation) -> None:
    place = ("info", "-r", made.storage)
    assert knife(*place, "-vcgnmo").lines == [ROOT, FQRN, "true", "7", "no", "true"]
    assert knife(*place, "-vh").text == "Revision:                        7\n"
    assert knife(*place, "-cen").lines[0] == "no"
    raw = knife(*place, "-R").lines
    wanted = (GOLDEN / "published.txt").read_text().splitlines()
    assert [x for x in raw if x[0] not in "XY"] == [
        x for x in wanted if x[0] not in "XY" and x != "--"
    ]
    assert "Your Organisation" in knife(*place, "-M").text
    assert knife("info", "-r", made.spool, "-e").text == "yes\n"
    knife("info", "-r", made.spool, "-v", code=1)
    knife(*place, "-C", code=1)


def test_catalogs_and_tags_are_listed(made: Installation) -> None:
    where = ("-r", made.storage, "-n", FQRN, "-k", made.keys)
    listed = knife("lsrepo", *where, "-t", "-d", "-s", "-e").lines
    assert sorted(listed) == sorted((GOLDEN / "catalogs.txt").read_text().splitlines())
    old = "c3975be8a3ba66abdc5fd21d3c2a4c0c55ea0faf"
    assert f"{old} /" in knife("lsrepo", *where, "-d", "-h", old).lines
    tags = ("-w", made.storage, "-f", FQRN, "-p", made.keys / f"{FQRN}.pub")
    assert knife("tag_list", *tags, "-x").text == (GOLDEN / "tags.machine.txt").read_text()
    assert knife("tag_list", *tags).text == (GOLDEN / "tags.txt").read_text()
    assert knife("tag_list", *tags, "-Bx").text == "[0] (default) @0\n"
    assert knife("tag_info", *tags, "-x", "-n", "v1.0").text.startswith(f"v1.0 {old} ")
    knife("tag_info", *tags, "-n", "v7", code=1)
    knife("tag_info", *tags, code=1)


def test_check_looks_for_objects_and_the_reflog_if_asked(made: Installation) -> None:
    where = ("check", "-r", made.storage, "-N", FQRN, "-k", made.keys / f"{FQRN}.pub")
    chksum = made.spool / "reflog.chksum"
    knife(*where, "-c", "-R", chksum, "-t", "/tmp", "-l", "4")
    knife(*where, "-n", "v1.0", "-s", "/nested1")
    chksum.write_text("0" * 40)
    knife(*where, "-c")
    knife(*where, "-R", chksum, code=1)
    checker = Checker(made.storage, FQRN, repository_keys(FQRN).master_public_pem)
    assert checker.check() == []
    readme = checker.entries[b"/README.txt"].row["hash"].hex()
    (made.storage / f"data/{readme[:2]}/{readme[2:]}").unlink()
    knife(*where)
    assert readme[2:] in knife(*where, "-c", code=1).text


def test_everything_the_reflog_leads_to_is_listed(made: Installation, tmp_path: Path) -> None:
    where = ("list_reflog", "-r", made.storage, "-n", FQRN)
    ended = knife(*where)
    stored = {f.parent.name + f.name[:38] for f in made.storage.glob("data/??/*")}
    assert set(ended.lines) == stored
    assert ended.stderr == f"Number of objects: {len(stored)}\n"
    knife(*where, "-R", made.spool / "reflog.chksum", "-o", tmp_path / "list")
    assert (tmp_path / "list").read_text() == ended.text


def test_file_statistics_are_a_database(made: Installation, tmp_path: Path) -> None:
    knife("filestats", "-r", made.storage, "-o", tmp_path / "fs.db")
    with sqlite3.connect(tmp_path / "fs.db") as database:
        assert database.execute("SELECT count(*) FROM catalogs").fetchone() == (15,)
    assert [f.name for f in tmp_path.iterdir() if f.is_file()] == ["fs.db"]
    knife("filestats", "-r", made.storage, code=1)


def test_letters_are_signed_and_believed_as_long_as_they_should(made: Installation) -> None:
    key = made.keys / FQRN
    sign = ("letter", "-s", "-f", FQRN, "-c", f"{key}.crt", "-k", f"{key}.key")
    check = ("letter", "-v", "-f", FQRN, "-k", f"{key}.pub", "-r", made.storage, "-m", "100")
    text = knife(*sign, stdin="publish /x\nnot this\n").text
    assert knife(*check, "-t", text.strip()).text == "publish /x"
    assert knife(*check, stdin=text).text == "publish /x"
    knife(*check, "-t", text.strip()[:-8] + "AAAAAAA=", code=3)
    knife(*check, "-t", "nonsense", code=3)
    whitelist_now(made, days=-1)
    knife(*check, "-t", text.strip(), code=4)
    (made.storage / ".cvmfswhitelist").unlink()
    knife(*check, "-t", text.strip(), code=2)
    knife("letter", "-s", "-v", "-f", FQRN, "-k", "x", code=1)


# --- swissknife: files -------------------------------------------------------------------------


def test_zpipe_is_the_format_of_objects() -> None:
    data = os.urandom(3000) + bytes(3_000_000)
    packed = knife("zpipe", stdin=data).stdout
    assert zlib.decompress(packed) == data
    assert knife("zpipe", "-d", stdin=packed).stdout == data
    knife("zpipe", "-d", stdin=packed[:-5], code=1)
    knife("zpipe", "-d", stdin=b"no zlib", code=1)


def test_hashes_are_written_as_repositories_write_them() -> None:
    sha1 = "a9993e364706816aba3e25717850c26c9cd0d89d"
    assert knife("hash", "-a", "sha1", stdin="abc").text == f"{sha1}\n"
    assert knife("hash", "-a", "rmd160", "-i", "").text.endswith("-rmd160\n")
    found = knife("hash", "-a", "shake128", "-f", "-i", "").text
    assert found.startswith("7F:9C:2B:A4:")
    assert found.endswith("-SHAKE128\n")
    high, low = path_hash(b"/a")
    text = knife("hash", "-a", "md5", "-s", "-i", "/a").text
    assert text == f"0639767f3e9eaad729b54037a7e2abf5 [{high} {low}]\n"
    knife("hash", "-a", "sha1", "-s", "-i", "x", code=1)
    knife("hash", "-a", "crc", "-i", "x", code=1)
    ended = run_tool(publish.run, "hash", "--algorithm", "sha1", "--input=abc")
    assert ended.text == f"{sha1}\n"


def test_grafts_are_printed_or_put_where_they_belong(tmp_path: Path) -> None:
    (tmp_path / "big").write_bytes(b"abc" * 500_000)
    printed = knife("graft", "-i", tmp_path / "big", "-c", "1").lines
    assert printed[:3] == ["size=1500000", "checksum=" + "0" * 40, "compression=none"]
    assert printed[3] == "chunk_offsets=0,1048576"
    (tmp_path / "big").chmod(0o751)
    knife("graft", "-i", tmp_path / "big", "-o", tmp_path / "out", "-Z", "zlib", "-v")
    assert (tmp_path / "out").stat().st_size == 0
    assert (tmp_path / "out").stat().st_mode & 0o7777 == 0o751
    assert "compression=zlib" in (tmp_path / ".cvmfsgraft-out").read_text()
    assert knife("graft", "-i", "-", stdin="abc").lines[0] == "size=3"
    knife("graft", "-i", "-", "-o", tmp_path, code=1)
    knife("graft", "-i", tmp_path / "big", "-c", "0", code=1)
    knife("graft", "-i", tmp_path / "none", code=1)


def test_files_of_the_storage_are_put_and_taken_by_name(made: Installation) -> None:
    upstream = f"local,{made.storage}/data/txn,{made.storage}"
    (made.spool / "x").write_text("text")
    knife("upload", "-i", made.spool / "x", "-o", ".cvmfs_thing", "-r", upstream)
    assert (made.storage / ".cvmfs_thing").read_text() == "text"
    assert knife("peek", "-d", ".cvmfs_thing", "-r", upstream).text == "available\n"
    knife("remove", "-o", ".cvmfs_thing", "-r", upstream)
    knife("peek", "-d", ".cvmfs_thing", "-r", upstream, code=1)
    knife("upload", "-i", made.spool / "x", "-o", "../outside", "-r", upstream, code=1)
    knife("scrub", "-r", made.storage / "data")


def test_what_is_not_there_names_what_is() -> None:
    assert knife("version").text == "2.12.0\n"
    assert "cvmfs_server publish" in knife("sync", "-u", "x", code=1).stderr
    assert "not there yet" in knife("pull", code=1).stderr
    knife(code=1)
    knife("check", code=1)
    knife("check", "-q", code=1)


# --- cvmfs_publish -----------------------------------------------------------------------------


def test_publish_has_the_commands_of_the_server(made: Installation, tmp_path: Path) -> None:
    run = publish.run
    lines = run_tool(run, "diff", "--machine-readable", "--from", "v1.0", "--to", "v1.1").lines
    assert lines[0] == "S F -16"
    assert "Repository name" in run_tool(run, "info", FQRN).text
    assert "no transaction" in run_tool(run, "commit", "--tag", "x", FQRN).stderr
    assert run_tool(run, "frob").code == 1
    with (tmp_path / "read").open("w"), (tmp_path / "read").open():
        found = run_tool(run, "lsof", str(tmp_path)).lines
    assert found == [f"rw {tmp_path}/read"]


# --- cvmfs_rsync -------------------------------------------------------------------------------


@pytest.fixture
def recorded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An rsync that writes down how it is called, and ends with 23."""
    programs = tmp_path / "programs"
    programs.mkdir()
    record = tmp_path / "called"
    (programs / "rsync").write_text(f'#!/bin/sh\nprintf "%s\\n" "$@" > {record}\nexit 23\n')
    (programs / "rsync").chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    return record


def test_rsync_leaves_markers_of_catalogs_alone(made: Installation, recorded: Path) -> None:
    union = made.root / "cvmfs" / FQRN
    ended = run_tool(rsync.run, "-a", "--delete", "src dir/", f"{union}//sub/../x")
    assert ended.code == 23
    assert recorded.read_text().splitlines() == [
        "--filter=-p .cvmfscatalog", "--filter=-p .cvmfsautocatalog", "-a", "--delete", "src dir/",
        f"{union}/x",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("-a", "needed"),
        ("-a host:/x /cvmfs/a.b", "locally mounted"),
        ("-a src /tmp/elsewhere", "does not begin with /cvmfs/"),
        ("-a src /cvmfs", "no reponame"),
    ],
)
def test_rsync_refuses_what_is_no_repository(
    line: str, reason: str, recorded: Path, world: Path
) -> None:
    ended = run_tool(rsync.run, *line.split())
    assert ended.code == 1
    assert reason in ended.stderr
    assert not recorded.exists()


def test_new_commands_of_outcrop_say_whom_things_belong_to(
    made: Installation, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert outcrop("repoinfo", FQRN).json["organisation"] == "Your Organisation"
    editor = tmp_path / "editor"
    editor.write_text("#!/bin/sh\nsed -i s/Your/Our/ $1\n")
    editor.chmod(0o755)
    monkeypatch.setenv("EDITOR", str(editor))
    assert outcrop("repoinfo", FQRN, "--edit").code == 0
    assert outcrop("repoinfo", FQRN).json["organisation"] == "Our Organisation"
    assert outcrop("server-info", "--edit").code == 0
    meta = made.root / "srv/cvmfs/info/v1/meta.json"
    assert "Our Name" in meta.read_text()
    about = tmp_path / "about.json"
    about.write_text('{"administrator": "Me"}')
    assert outcrop("server-info", "--from", about).code == 0
    assert '"Me"' in meta.read_text()
    assert outcrop("repoinfo", FQRN, "--from", about, "--edit").code == 2
    assert outcrop("check", FQRN).code == 0
