"""What is printed: names exact for programs, harmless on terminals."""

import io
import os
import pty
import sys

import pytest

from outcrop.cli.output import Output, printable, shown, uses_color, write_message


@pytest.mark.parametrize(
    ("text", "harmless"),
    [
        ("plain é 日本", "plain é 日本"),
        ("\x1b[31mred", "\\x1b[31mred"),
        ("a\nb\tc", "a\\nb\\tc"),
        ("\x9b0m", "\\x9b0m"),
        ("\u202egnp.exe", "\\u202egnp.exe"),
        (os.fsdecode(b"\xff"), "\\udcff"),
    ],
)
def test_what_a_terminal_would_obey_is_escaped(text: str, harmless: str) -> None:
    assert printable(text) == harmless


def test_names_are_exact_where_no_terminal_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", io.StringIO())
    assert shown(b"\x1b\xff") == "\x1b\udcff"


def test_names_are_harmless_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    leader, follower = pty.openpty()
    with os.fdopen(follower, "w") as terminal, os.fdopen(leader):
        monkeypatch.setattr(sys, "stdout", terminal)
        assert shown(b"\x1b\xff") == "\\x1b\\udcff"


def test_colour_is_for_terminals_without_no_color(monkeypatch: pytest.MonkeyPatch) -> None:
    leader, follower = pty.openpty()
    with os.fdopen(follower, "w") as terminal, os.fdopen(leader):
        monkeypatch.setattr(sys, "stderr", terminal)
        monkeypatch.delenv("NO_COLOR", raising=False)
        assert uses_color()
        monkeypatch.setenv("NO_COLOR", "1")
        assert not uses_color()


def test_a_result_is_text_or_json(monkeypatch: pytest.MonkeyPatch) -> None:
    for is_json, expected in ((False, b"one\n"), (True, b'{\n  "n": 1\n}\n')):
        stdout = io.TextIOWrapper(io.BytesIO())
        monkeypatch.setattr(sys, "stdout", stdout)
        Output(is_json).result({"n": 1}, "one")
        stdout.flush()
        assert stdout.buffer.getvalue() == expected  # type: ignore[attr-defined]


def test_a_message_survives_any_text_and_a_closed_stderr(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.TextIOWrapper(io.BytesIO(), encoding="utf-8")
    monkeypatch.setattr(sys, "stderr", stream)
    write_message("lone \udcff surrogate")
    assert stream.buffer.getvalue() == b"lone \\udcff surrogate\n"  # type: ignore[attr-defined]

    class Gone(io.StringIO):
        def write(self, text: str) -> int:
            raise BrokenPipeError

    monkeypatch.setattr(sys, "stderr", Gone())
    write_message("nobody reads this")
