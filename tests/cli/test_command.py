"""Logging as the command line sets it up."""

import contextlib
import io
import json
import logging
from collections.abc import Iterator

import click
import pytest

from outcrop.cli.command import Command, Session, wants_json
from outcrop.storage.locations import default_locations


@pytest.fixture
def logger() -> Iterator[logging.Logger]:
    ours = logging.getLogger("outcrop")
    before = (ours.level, ours.handlers[:], ours.propagate)
    yield logging.getLogger("outcrop.part")
    ours.level, ours.handlers, ours.propagate = before


@contextlib.contextmanager
def configured(*arguments: str) -> Iterator[io.StringIO]:
    """What is logged inside the `with`, as a command with these arguments shows it."""

    @click.command(cls=Command)
    def command() -> None:
        pass

    with contextlib.redirect_stderr(io.StringIO()) as stderr:
        command.main(list(arguments), standalone_mode=False, obj=Session(default_locations()))
        yield stderr


def test_warnings_are_shown_and_information_is_not(logger: logging.Logger) -> None:
    with configured() as stderr:
        logger.info("fine")
        logger.warning("the server is %s", "slow\x1b[0m")
    assert stderr.getvalue() == "outcrop: warning: the server is slow\\x1b[0m\n"


def test_the_level_can_be_chosen(logger: logging.Logger) -> None:
    with configured("--log-level", "info") as stderr:
        logger.info("mounted")
    assert stderr.getvalue() == "outcrop: info: mounted\n"


def test_json_lines_have_the_fixed_fields(logger: logging.Logger) -> None:
    with configured("--json-log") as stderr:
        logger.warning("late", extra={"fqrn": "a.example.org", "revision": 3})
    line = json.loads(stderr.getvalue())
    assert line.pop("time").endswith("Z")
    assert line == {
        "level": "warning",
        "logger": "outcrop.part",
        "message": "late",
        "fqrn": "a.example.org",
        "revision": "3",
    }


def test_configuring_twice_logs_once(logger: logging.Logger) -> None:
    with configured(), configured() as stderr:
        logger.warning("once")
    assert stderr.getvalue().count("once") == 1


def test_json_is_asked_for_only_before_the_double_dash() -> None:
    assert wants_json(["ls", "--json"])
    assert not wants_json(["exec", "a", "--", "tool", "--json"])
