"""Progress is for somebody who watches."""

import contextlib
import io
import sys
from collections.abc import Iterator

import pytest

from outcrop.cli import progress
from outcrop.cli.output import Output


@contextlib.contextmanager
def watched(monkeypatch: pytest.MonkeyPatch, *, is_terminal: bool) -> Iterator[io.StringIO]:
    monkeypatch.setattr(progress, "is_terminal", lambda: is_terminal)
    with contextlib.redirect_stderr(io.StringIO()) as stderr:
        yield stderr


def test_a_terminal_sees_what_is_done(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("FORCE_COLOR", "1")
    with (
        watched(monkeypatch, is_terminal=True) as stderr,
        progress.progress_bar(Output()) as update,
    ):
        update("entries", 3, None)
        update("objects", 1, 2)
    assert "entries" in stderr.getvalue()
    assert "1/2" in stderr.getvalue()


@pytest.mark.parametrize(("output", "is_terminal"), [(Output(), False), (Output(True), True)])
def test_nobody_else_does(
    monkeypatch: pytest.MonkeyPatch, output: Output, is_terminal: bool
) -> None:
    monkeypatch.setitem(sys.modules, "rich.progress", None)
    with (
        watched(monkeypatch, is_terminal=is_terminal) as stderr,
        progress.progress_bar(output) as update,
    ):
        update("entries", 3, None)
    assert stderr.getvalue() == ""
