"""A world of its own for each test, and a small repository."""

from pathlib import Path

import pytest
from tests.support.command_line import Stored, store
from tests.support.simulator import File, RepositorySimulator, Special, Symlink

FIFO = 0o010000
BIG = b"".join(number.to_bytes(4) for number in range(4096))


@pytest.fixture(autouse=True)
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """$OUTCROP_ROOT."""
    root = tmp_path / "world"
    monkeypatch.setenv("OUTCROP_ROOT", str(root))
    return root


@pytest.fixture
def repository(tmp_path: Path) -> Stored:
    simulator = RepositorySimulator(
        {
            b"/README": b"hello\n",
            b"/bin/tool": File(b"#!/bin/sh\n", mode=0o755),
            b"/bin/alias": Symlink(b"tool"),
            b"/current": Symlink(b"lib"),
            b"/lib/a": File(b"one", link_group=1),
            b"/lib/b": File(b"one", link_group=1),
            b"/lib/big": File(BIG, chunk_bytes=4096),
            b"/lib/deep/x": File(b"x", xattrs={b"user.note": b"said"}),
            b"/pipe": Special(FIFO),
            b"/odd\xff\n\x1b[31m": b"bytes",
            b"/empty": b"",
        },
        nested=[b"/lib"],
    )
    return store(simulator, tmp_path)
