"""How any command starts and ends: help, wrong usage, errors, exit codes, lazy loading."""

import errno
import importlib
import logging
import os
import subprocess
import sys
from collections.abc import Iterator

import click
import pytest
from tests.support.command_line import outcrop

import outcrop as package
from outcrop.cli import main
from outcrop.cli.command import Command
from outcrop.cli.exit_codes import MEANINGS
from outcrop.errors import OutcropError

COMMANDS = [name for section in main.SECTIONS.values() for name in section]


@pytest.fixture(autouse=True)
def _loggers_as_they_were() -> Iterator[None]:
    logger = logging.getLogger("outcrop")
    before = (logger.level, logger.handlers[:], logger.propagate)
    yield
    logger.level, logger.handlers, logger.propagate = before


def families() -> set[type[OutcropError]]:
    """All error classes of the package, with every module imported."""
    for command in COMMANDS:
        importlib.import_module(f"outcrop.cli.{main.module_of(command)}")
    found: set[type[OutcropError]] = set()
    todo = [OutcropError]
    while todo:
        one = todo.pop()
        if one.__module__.startswith("outcrop."):
            found.add(one)
        todo += one.__subclasses__()
    return found


def test_without_a_command_the_help_is_shown_as_wrong_usage() -> None:
    ended = outcrop()
    assert (ended.code, ended.stdout) == (2, b"")
    assert "Mount a repository." in ended.stderr


def test_the_version_is_the_package_version() -> None:
    assert outcrop("--version").text == f"outcrop {package.__version__}\n"
    assert outcrop("-v").text == outcrop("--version").text


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help_with_examples_and_exit_codes(name: str) -> None:
    ended = outcrop(name, "--help")
    assert (ended.code, ended.stderr) == (0, "")
    assert f"  outcrop {name}" in ended.text.partition("Examples:")[2]
    assert "130  interrupted" in ended.text.partition("Exit codes:")[2]


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_is_of_our_kind(name: str) -> None:
    command = main.cli.get_command(click.Context(main.cli), name)
    assert isinstance(command, Command)
    assert set(command.exits) <= set(MEANINGS)
    assert {"--json", "--log-level", "--json-log"} <= {
        option for parameter in command.params for option in parameter.opts
    }


def test_every_error_family_has_a_documented_exit_code() -> None:
    assert {family.exit_code for family in families()} <= set(MEANINGS)


def test_an_unknown_command_is_wrong_usage() -> None:
    ended = outcrop("mout")
    assert ended.code == 2
    assert ended.stderr == "outcrop: No such command 'mout'.\n  hint: outcrop --help\n"


def test_wrong_usage_with_json_is_json() -> None:
    ended = outcrop("ls", "--json")
    assert (ended.code, ended.error["kind"]) == (2, "UsageError")
    assert ended.error["hint"] == "outcrop ls --help"


def failing(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    @click.command(cls=Command)
    def command() -> None:
        raise error

    monkeypatch.setattr(main.Commands, "get_command", lambda self, context, name: command)


class _Odd(OutcropError):
    exit_code = 5


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (_Odd("it is odd", hint="even it"), 5, "outcrop: it is odd\n  hint: even it\n"),
        (KeyboardInterrupt(), 130, "outcrop: interrupted\n"),
        (OSError(errno.EACCES, "Permission denied", "/f"), 1, "outcrop: /f: Permission denied\n"),
        (OSError("odd"), 1, "outcrop: odd\n"),
    ],
)
def test_every_way_to_end_has_its_code(
    monkeypatch: pytest.MonkeyPatch, error: BaseException, code: int, said: str
) -> None:
    failing(monkeypatch, error)
    ended = outcrop("ls")
    assert (ended.code, ended.stderr.lstrip("\n")) == (code, said)


def test_an_error_nobody_expected_is_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    failing(monkeypatch, ZeroDivisionError())
    with pytest.raises(ZeroDivisionError):
        outcrop("ls")


def test_a_closed_pipe_ends_it_quietly() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    ended = subprocess.run(
        [sys.executable, "-c", "from outcrop.cli.main import main; main()", "completion", "bash"],
        stdout=writer,
        stderr=subprocess.PIPE,
        check=False,
    )
    os.close(writer)
    assert (ended.returncode, ended.stderr) == (141, b"")


@pytest.mark.parametrize(
    ("arguments", "unwanted"),
    [
        (["--help"], {"rich", "cryptography", "pycurl", "sqlite3", "outcrop.client"}),
        (["serve", "--help"], {"rich", "cryptography", "pycurl", "outcrop.client"}),
        (["ls", "--help"], {"rich", "outcrop.publisher", "outcrop.fuse.engine", "deflate"}),
        (["mkfs", "--help"], {"rich", "pycurl", "outcrop.client"}),
    ],
)
def test_a_command_imports_only_what_it_needs(arguments: list[str], unwanted: set[str]) -> None:
    script = (
        "import sys; from outcrop.cli.main import run; run(sys.argv[1:]); "
        "print(*sys.modules, file=sys.stderr)"
    )
    ended = subprocess.run(
        [sys.executable, "-c", script, *arguments], capture_output=True, text=True, check=True
    )
    assert unwanted.isdisjoint(ended.stderr.split())
    assert "outcrop.cli.main" in ended.stderr.split()


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_prints_a_script(shell: str) -> None:
    script = outcrop("completion", shell).text
    assert "_OUTCROP_COMPLETE" in script
    assert outcrop("completion", shell, "--json").json == {"shell": shell, "script": script[:-1]}


def test_completion_knows_commands_and_options(monkeypatch: pytest.MonkeyPatch) -> None:
    environment = {**os.environ, "_OUTCROP_COMPLETE": "fish_complete", "COMP_WORDS": "outcrop um",
                   "COMP_CWORD": "um"}  # fmt: skip
    ended = subprocess.run(
        [sys.executable, "-c", "from outcrop.cli.main import main; main()"],
        env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert "umount" in ended.stdout


def test_a_command_without_its_optional_packages_says_what_to_install() -> None:
    script = (
        "import sys; sys.modules['deflate'] = None\n"
        "from outcrop.cli.main import run\n"
        "sys.exit(run(['mkfs', 'x.example.org']))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert "outcrop mkfs needs the Python package deflate" in done.stderr
    assert "outcrop[publisher]" in done.stderr
