"""The commands in the documentation do what the page says they print.

A ```console block is a session: lines that begin with `$ ` are run in order by one shell for the
whole page, the lines below them are what is printed; `…` stands for anything.
"""

import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest

DOCS = Path(__file__).parent.parent.parent / "docs"
PAGES = [page for page in sorted(DOCS.rglob("*.md")) if "```console" in page.read_text()]
_BLOCK = re.compile(r"^```console\n(.*?)^```", re.MULTILINE | re.DOTALL)
_MARK = "@@ outcrop documentation @@"


def steps(page: Path) -> list[tuple[str, list[str]]]:
    """The commands of a page, each with the lines it is said to print."""
    found: list[tuple[str, list[str]]] = []
    for block in _BLOCK.findall(page.read_text()):
        for line in block.splitlines():
            if line.startswith("$ "):
                found.append((line[2:], []))
            else:
                found[-1][1].append(line)
    return found


def pattern(lines: list[str]) -> "re.Pattern[str]":
    """What matches the lines; a line of `…` alone matches any number of lines."""
    parts = [".*".join(re.escape(part) for part in line.split("…")) for line in lines]
    return re.compile("\n".join(parts), re.DOTALL)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


@pytest.mark.system
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_a_page_does_what_it_says(page: Path, tmp_path: Path) -> None:
    session = steps(page)
    port = str(free_port())
    script = ["set -e -o pipefail"]
    for number, (command, _) in enumerate(session):
        script += [f"echo; echo '{_MARK} {number}'", re.sub(r"\b8000\b", port, command)]
        if command.endswith("&") and " serve " in f"{command} ":
            script.append(f"until (exec 3<>/dev/tcp/127.0.0.1/{port}) 2>/dev/null; do :; done")
    environment = os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    environment.pop("OUTCROP_ROOT", None)
    ended = subprocess.run(
        ["bash", "-c", "\n".join(script)],
        cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stdout + ended.stderr
    said = re.split(rf"\n?{_MARK} \d+\n", ended.stdout)[1:]
    assert len(said) == len(session)
    for (command, lines), text in zip(session, said, strict=True):
        if lines:
            assert pattern(lines).fullmatch(text.strip("\n")), f"$ {command}\n{text}"
