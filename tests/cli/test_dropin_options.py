"""Command lines of the original: read as bash reads them; which repositories are meant."""

import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from outcrop.cli.dropin.options import (
    Given,
    Letter,
    Names,
    UsageError,
    Verb,
    parse,
    translate,
    usage,
)
from outcrop.cli.dropin.publish import VERBS as PUBLISH
from outcrop.cli.dropin.reference import MARK, PAGE, tables
from outcrop.cli.dropin.repositories import choose, complete, use_existing_installation
from outcrop.cli.dropin.server_table import ALIASES
from outcrop.cli.dropin.server_table import VERBS as SERVER
from outcrop.cli.dropin.swissknife import TOOL as SWISSKNIFE
from outcrop.cli.main import cli
from outcrop.repository.errors import RepositoryNotFound
from outcrop.storage.locations import Locations

TAG = Verb(
    summary="",
    letters={
        "a": Letter("", "NAME", to="--add"),
        "m": Letter("", "TEXT", to="--message"),
        "l": Letter("", to="--list"),
        "x": Letter("", to="--machine"),
        "r": Letter("", "NAME", to="--remove"),
        "Z": Letter("", "HOW", to="--compression", values={"default": "balanced"}),
        "p": Letter("", unused="no web server"),
    },
    long={"add": "a", "list": "l"},
)
ALL = {**SERVER, **SWISSKNIFE.verbs, **PUBLISH}


@pytest.mark.parametrize(
    ("line", "letters", "words"),
    [
        ("-lx repo", {"l": [""], "x": [""]}, ["repo"]),
        ("-a v1 -m text repo", {"a": ["v1"], "m": ["text"]}, ["repo"]),
        ("-av1 repo", {"a": ["v1"]}, ["repo"]),
        ("-la v1", {"l": [""], "a": ["v1"]}, []),
        ("-r one -r two repo", {"r": ["one", "two"]}, ["repo"]),
        ("-a -x repo", {"a": ["-x"]}, ["repo"]),
        ("repo -l", {}, ["repo", "-l"]),
        ("-l -- -x", {"l": [""]}, ["-x"]),
        ("-l - x", {"l": [""]}, ["-", "x"]),
        ("--add v1 --list repo", {"a": ["v1"], "l": [""]}, ["repo"]),
        ("--add=v1", {"a": ["v1"]}, []),
        ("", {}, []),
    ],
)
def test_letters_are_read_as_a_shell_reads_them(
    line: str, letters: dict[str, list[str]], words: list[str]
) -> None:
    found = parse(TAG, line.split())
    assert {letter: list(values) for letter, values in found.letters.items()} == letters
    assert list(found.words) == words


@pytest.mark.parametrize("line", ["-q", "-lq", "-a", "-la", "--nothing", "--list=x", "-é"])
def test_what_is_no_option_is_wrong_usage(line: str) -> None:
    with pytest.raises(UsageError):
        parse(TAG, line.split())


def test_letters_become_options_with_their_arguments_rewritten() -> None:
    found = parse(TAG, ["-a", "x y", "-p", "-l", "-l", "-Z", "default", "-r", "1", "-r", "2"])
    assert translate(TAG, found) == [
        "--add", "x y", "--list", "--compression", "balanced", "--remove", "1", "--remove", "2"
    ]  # fmt: skip
    assert translate(TAG, Given({"Z": ["none"]})) == ["--compression", "none"]


@settings(max_examples=100, deadline=None)
@given(
    st.lists(
        st.one_of(
            st.sampled_from(["l", "x", "p"]).map(lambda letter: (letter, None)),
            st.tuples(st.sampled_from(["a", "m", "r"]), st.text(min_size=1, max_size=8)),
        ),
        max_size=8,
    ),
    st.lists(st.from_regex(r"[a-z.]{1,9}", fullmatch=True), max_size=3),
)
def test_every_way_to_write_options_means_the_same(
    options: list[tuple[str, str | None]], words: list[str]
) -> None:
    apart: list[str] = []
    joined: list[str] = []
    for letter, value in options:
        apart += [f"-{letter}"] if value is None else [f"-{letter}", value]
        joined.append(f"-{letter}{value or ''}")
    wanted = parse(TAG, [*apart, "--", *words])
    assert parse(TAG, [*joined, "--", *words]) == wanted
    flags = "".join(letter for letter, value in options if value is None)
    assert all(wanted.has(flag) for flag in flags)


# --- the tables --------------------------------------------------------------------------------


def test_every_translation_is_to_a_command_and_options_that_exist() -> None:
    targets = {"publish": "publish", "ingest": "ingest", "rollback": "rollback", "tag": "tag",
               "diff": "diff", "mkfs": "mkfs", "import": "import", "rmfs": "rmfs", "gc": "gc",
               "check": "check", "print-stats": "statistics", "update-repoinfo": "repoinfo",
               "scrub": "scrub"}  # fmt: skip
    seen = 0
    for name, verb in {**SERVER, "scrub": SWISSKNIFE.verbs["scrub"]}.items():
        wanted = {letter.to for letter in verb.letters.values() if letter.to}
        target = verb.outcrop[0] if verb.outcrop else targets.get(name)
        if target is None:
            assert not wanted, name
            continue
        command = cli.get_command(cli.make_context("outcrop", ["list"]), target)
        assert command is not None, target
        known = {o for p in command.params for o in (*p.opts, *p.secondary_opts)}
        assert wanted <= known, name
        seen += len(wanted)
    assert seen > 50


@pytest.mark.parametrize("name", ALL)
def test_every_entry_of_the_tables_is_whole(name: str) -> None:
    verb = ALL[name]
    if verb.refused:
        assert not verb.letters
        return
    assert verb.summary
    assert bool(verb.outcrop) != (verb.run is not None)
    for letter, found in verb.letters.items():
        assert len(letter) == 1
        assert found.help
        assert not (found.to and found.unused)
    assert set(verb.long.values()) <= set(verb.letters)


def test_every_command_of_the_original_is_there() -> None:
    theirs = (
        "mkfs add-replica import publish rollback rmfs alterfs resign list info tag list-tags "
        "lstags check transaction enter abort snapshot skeleton migrate list-catalogs diff "
        "checkout update-geodb gc catalog-chown eliminate-hardlinks eliminate-bulk-hashes "
        "fix-stats update-info update-repoinfo mount fix-permissions masterkeycard ingest "
        "merge-stats print-stats health-check lsrepo"
    )
    assert set(theirs.split()) <= set(SERVER) | set(ALIASES)


def test_the_usage_shows_commands_letters_and_what_was_wrong() -> None:
    text = usage("cvmfs_server", "Title", SERVER, "Command tag: no such thing")
    assert "Title" in text
    assert "-T /FROM=/TO" in text
    assert "(no effect) no Apache configuration" in text
    assert text.endswith("NOTE: Command tag: no such thing")


# --- which repositories ------------------------------------------------------------------------


@pytest.fixture
def locations(tmp_path: Path) -> Locations:
    found = Locations(tmp_path)
    for name in ("one.example.org", "two.example.org", "other.test"):
        found.server_config(name).mkdir(parents=True)
    return found


def test_a_name_may_be_left_out_where_there_is_one_only(locations: Locations) -> None:
    for name in ("two.example.org", "other.test"):
        with pytest.raises(UsageError, match="provide a repository name"):
            choose(locations, Names.GUESSED, [])
        locations.server_config(name).rmdir()
    assert choose(locations, Names.GUESSED, []) == ["one.example.org"]
    assert choose(locations, Names.MANY, []) == ["one.example.org"]
    with pytest.raises(UsageError, match="Too few"):
        choose(locations, Names.ONE, [])


def test_wildcards_name_several_where_several_can_be_named(locations: Locations) -> None:
    both = ["one.example.org", "two.example.org"]
    assert choose(locations, Names.MANY, ["*.example.org"]) == both
    assert choose(locations, Names.MANY, ["two.*", "*.example.org"]) == both[::-1]
    assert len(choose(locations, Names.MANY, ["*"])) == 3
    with pytest.raises(RepositoryNotFound, match="no repository matches"):
        choose(locations, Names.MANY, ["x*"])
    with pytest.raises(RepositoryNotFound):
        choose(locations, Names.GUESSED, ["*.example.org"])
    with pytest.raises(UsageError, match="Too many"):
        choose(locations, Names.GUESSED, both)


def test_what_does_not_exist_is_said_so_unless_it_is_to_be_made(locations: Locations) -> None:
    with pytest.raises(RepositoryNotFound, match="does not exist"):
        choose(locations, Names.GUESSED, ["new.example.org"])
    assert choose(locations, Names.NEW, ["new.example.org"]) == ["new.example.org"]
    with pytest.raises(UsageError):
        choose(locations, Names.NEW, ["../x"])


def test_a_path_behind_the_name_is_ignored(locations: Locations) -> None:
    assert choose(locations, Names.GUESSED, ["one.example.org/software/x86"]) == ["one.example.org"]


def test_a_name_without_a_dot_gets_the_default_domain(locations: Locations) -> None:
    assert complete(locations, "one") == "one"
    (locations.config / "default.d").mkdir()
    (locations.config / "default.d/50.conf").write_text("CVMFS_DEFAULT_DOMAIN=first.org\n")
    assert complete(locations, "one") == "one.first.org"
    (locations.config / "default.local").write_text("CVMFS_DEFAULT_DOMAIN=example.org\n")
    assert complete(locations, "one") == "one.example.org"
    assert choose(locations, Names.GUESSED, ["one"]) == ["one.example.org"]
    assert complete(locations, "a.b") == "a.b"
    (locations.config / "default.conf").write_text("if true; then\n")
    assert complete(locations, "one") == "one.example.org"


def test_an_ordinary_user_finds_the_repositories_of_the_machine(
    locations: Locations, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("OUTCROP_ROOT")
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    use_existing_installation(tmp_path / "empty")
    assert "OUTCROP_ROOT" not in os.environ
    use_existing_installation(locations.root)
    assert os.environ["OUTCROP_ROOT"] == str(locations.root)
    monkeypatch.setenv("OUTCROP_ROOT", "/elsewhere")
    use_existing_installation(locations.root)
    assert os.environ["OUTCROP_ROOT"] == "/elsewhere"


def test_the_page_of_the_originals_commands_is_made_from_the_tables() -> None:
    page = Path(__file__).parent.parent.parent / PAGE
    _, mark, rest = page.read_text().partition(MARK)
    assert mark
    assert rest == tables(), "run: make docs-commands"
