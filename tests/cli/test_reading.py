"""ls, tree, stat, cat, info, log: what a repository says, without a mount."""

import gc
import os
from pathlib import Path

import pytest
from tests.cli.conftest import BIG
from tests.support.command_line import Stored, changed, outcrop


def test_ls_lists_the_root_by_name(repository: Stored) -> None:
    ended = repository.run("ls")
    assert (ended.code, ended.stderr) == (0, "")
    assert b"\n".join(sorted(ended.stdout.split(b"\n")[:3])) == b"README\nbin\ncurrent"


def test_ls_gives_names_as_they_are(repository: Stored) -> None:
    assert b"odd\xff\n\x1b[31m\n" in repository.run("ls").stdout


def test_ls_of_a_link_shows_the_directory_it_leads_to(repository: Stored) -> None:
    assert repository.run("ls", "/current/deep").lines == ["x"]


def test_ls_of_a_file_shows_the_file(repository: Stored) -> None:
    assert repository.run("ls", "README").lines == ["README"]


def test_ls_long_has_mode_owner_size_and_time(repository: Stored) -> None:
    lines = repository.run("ls", "-l", "/bin").lines
    assert lines == [
        "lrwxrwxrwx   1     0     0          4 2020-09-13T12:26:40Z alias -> tool",
        "-rwxr-xr-x   1     0     0         10 2020-09-13T12:26:40Z tool",
    ]


def test_ls_human_shortens_sizes(repository: Stored) -> None:
    assert " 16.4 kB " in repository.run("ls", "-lh", "/lib/big").text


def test_ls_json_has_the_same_and_more(repository: Stored) -> None:
    (alias, tool) = repository.run("ls", "/bin", "--json").json
    assert alias["target"] == "tool"
    assert tool == {
        "path": "/bin/tool",
        "name": "tool",
        "type": "file",
        "mode": "0755",
        "nlink": 1,
        "uid": 0,
        "gid": 0,
        "size": 10,
        "mtime": "2020-09-13T12:26:40Z",
        "hash": tool["hash"],
    }
    assert len(tool["hash"]) == 40


def test_json_of_nothing_is_an_empty_array(tmp_path: Path, repository: Stored) -> None:
    with changed(repository) as simulator:
        simulator.publish({}, nested=[])
    assert repository.run("ls", "--json").json == []


def test_a_missing_path_is_its_own_error(repository: Stored) -> None:
    ended = repository.run("ls", "/nowhere")
    assert (ended.code, ended.stdout) == (6, b"")
    assert ended.stderr == "outcrop: sim.example.org:/nowhere: no such file or directory\n"


def test_the_error_is_json_too(repository: Stored) -> None:
    ended = repository.run("ls", "/nowhere", "--json")
    assert ended.error == {
        "error": "sim.example.org:/nowhere: no such file or directory",
        "kind": "PathNotFound",
        "hint": None,
    }


def test_control_characters_of_an_error_do_not_reach_the_terminal(repository: Stored) -> None:
    ended = repository.run("ls", os.fsdecode(b"/odd\x1b[31m\xff"))
    assert "\x1b" not in ended.stderr


@pytest.mark.parametrize("choice", [["--tag", "v1"], ["--date", "2020-01-01"]])
def test_an_older_revision_can_be_chosen(repository: Stored, choice: list[str]) -> None:
    with changed(repository) as simulator:
        simulator.publish({b"/old": b""}, nested=[], tag="v1", at=1_500_000_000)
        simulator.publish({b"/new": b""}, nested=[])
    assert repository.run("ls").lines == ["new"]
    assert repository.run("ls", *choice).lines == ["old"]


def test_a_root_hash_can_be_chosen(repository: Stored) -> None:
    root = str(repository.simulator.manifest.root_catalog)
    with changed(repository) as simulator:
        simulator.publish({b"/new": b""}, nested=[])
    assert "README" in repository.run("ls", "--hash", root).lines


def test_two_choices_of_revision_exclude_each_other(repository: Stored) -> None:
    ended = repository.run("ls", "--tag", "v1", "--date", "2020-01-01")
    assert ended.code == 7


def test_a_wrong_key_is_a_trust_error(repository: Stored) -> None:
    with changed(repository) as simulator:
        simulator.expire_whitelist()
    ended = repository.run("ls", "--json")
    assert (ended.code, ended.error["kind"]) == (4, "WhitelistExpired")


def test_tree_draws_everything_below(repository: Stored) -> None:
    assert repository.run("tree", "/lib").lines == [
        "/lib",
        "├── .cvmfscatalog",
        "├── a",
        "├── b",
        "├── big",
        "└── deep",
        "    └── x",
        "",
        "1 directories, 5 files",
    ]


def test_tree_stops_at_the_depth(repository: Stored) -> None:
    assert "    └── x" not in repository.run("tree", "/lib", "--depth", "1").lines


def test_tree_of_a_tree_deeper_than_the_stack(tmp_path: Path, repository: Stored) -> None:
    with changed(repository) as simulator:
        simulator.publish({b"/d" * 1200: b""}, nested=[])
    assert repository.run("tree").lines[-1] == "1199 directories, 1 files"


def test_tree_json_names_every_path(repository: Stored) -> None:
    found = [one["path"] for one in repository.run("tree", "/lib/deep", "--json").json]
    assert found == ["/lib/deep/x"]


def test_stat_says_all_that_is_known(repository: Stored) -> None:
    fields = repository.run("stat", "/lib/big", "--json").json
    assert (fields["size"], len(fields["chunks"])) == (16384, 4)
    assert [chunk["offset"] for chunk in fields["chunks"]] == [0, 4096, 8192, 12288]
    assert fields["catalog"] != str(repository.simulator.manifest.root_catalog)
    assert repository.run("stat", "/lib/deep/x", "--json").json["xattrs"] == {"user.note": "said"}


def test_stat_as_text_has_a_line_for_each_chunk(repository: Stored) -> None:
    lines = repository.run("stat", "/lib/big").lines
    assert sum(line.startswith("chunk ") for line in lines) == 4
    assert "size         16384" in lines


def test_stat_follows_a_link_only_if_told(repository: Stored) -> None:
    assert repository.run("stat", "/current", "--json").json["type"] == "symlink"
    assert repository.run("stat", "-L", "/current", "--json").json["type"] == "directory"


def test_cat_prints_files_one_after_the_other(repository: Stored) -> None:
    ended = repository.run("cat", "/README", "/bin/alias", "/lib/big")
    assert ended.stdout == b"hello\n#!/bin/sh\n" + BIG


def test_cat_of_a_directory_is_an_error(repository: Stored) -> None:
    assert repository.run("cat", "/lib").code == 6


def test_cat_prints_nothing_of_a_corrupt_chunk(repository: Stored) -> None:
    with changed(repository) as simulator:
        simulator.corrupt(b"/lib/big")
    ended = repository.run("cat", "/lib/big")
    assert (ended.code, ended.stdout) == (5, b"")


def test_info_tells_revision_counts_and_signature(repository: Stored) -> None:
    repository.publish(tag="v1")
    fields = repository.run("info", "--json").json
    assert (fields["fqrn"], fields["revision"], fields["tags"]) == ("sim.example.org", 2, 3)
    assert (fields["files"], fields["directories"], fields["symlinks"]) == (9, 4, 2)
    assert fields["root_hash"] == str(repository.simulator.manifest.root_catalog)
    assert fields["meta_info"] == {"organisation": "simulator"}
    assert "fqrn" in repository.run("info").lines[0]


def test_log_lists_tags_newest_first(repository: Stored) -> None:
    with changed(repository) as simulator:
        simulator.publish(tag="v1", at=1_500_000_000)
        simulator.publish(tag="v2", at=1_600_000_000)
    rows = repository.run("log", "--json").json
    assert {"v2", "trunk"} == {row["name"] for row in rows[:2]}
    assert (rows[-1]["name"], rows[-1]["published_at"]) == ("v1", "2017-07-14T02:40:00Z")
    assert "  v1              about v1" in repository.run("log").text
    assert len(repository.run("log", "-n", "1").lines) == 1


def test_a_target_may_be_a_name_stored_here(world: Path, repository: Stored) -> None:
    repository.simulator.dump(world / "srv/cvmfs/sim.example.org")
    (world / "etc/cvmfs/keys").mkdir(parents=True)
    (world / "etc/cvmfs/keys/sim.example.org.pub").write_bytes(repository.simulator.public_key)
    assert outcrop("cat", "sim.example.org", "/README").stdout == b"hello\n"


def test_without_a_key_it_says_where_one_is_expected(repository: Stored) -> None:
    ended = outcrop("ls", repository.directory, "--json")
    assert (ended.code, ended.error["kind"]) == (7, "SettingsError")
    assert "--key" in ended.error["hint"]


def test_a_parameter_can_be_set(repository: Stored) -> None:
    assert repository.run("ls", "-o", "CVMFS_REPOSITORY_TAG=trunk").code == 0
    assert repository.run("ls", "-o", "CVMFS_NO_SUCH=1").code == 7


@pytest.mark.parametrize("option", [["--hash", "xyz"], ["--date", "yesterday"], ["--key", "none"]])
def test_what_does_not_parse_is_wrong_usage(repository: Stored, option: list[str]) -> None:
    ended = repository.run("ls", *option)
    assert ended.code == 2
    assert "hint: outcrop ls --help" in ended.stderr


def test_a_command_leaves_no_descriptor_open(repository: Stored) -> None:
    for arguments in (("ls",), ("cat", "/README"), ("info",), ("ls", "/nowhere")):
        repository.run(*arguments)  # what is made once for a process
        gc.collect()
        before = len(os.listdir("/proc/self/fd"))
        for _ in range(3):
            repository.run(*arguments)
        gc.collect()  # catalogs that an error's traceback still holds
        assert len(os.listdir("/proc/self/fd")) <= before, arguments
