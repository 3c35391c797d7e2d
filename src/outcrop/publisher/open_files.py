"""Who is using a directory tree: the processes that have files of it open, by /proc."""

import contextlib
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_MAX_COMMAND_BYTES = 60


@dataclass(frozen=True, slots=True)
class OpenFile:
    """A file and a process that has it open; `command` is what the process runs."""

    pid: int
    command: str
    path: str

    def __str__(self) -> str:
        return f"process {self.pid} ({self.command}) {self.path}"


def find_open_files(directory: Path, *, written_only: bool) -> Iterator[OpenFile]:
    """The open files below a directory, also mapped ones and working directories.

    `written_only`: those that can be written through. Processes of others are seen by root only.
    """
    prefix = str(directory)
    for process in Path("/proc").iterdir():
        if process.name.isdecimal():
            with contextlib.suppress(OSError):  # it ended meanwhile, or is not ours to look at
                for path in _open_paths(process, prefix, written_only):
                    yield OpenFile(int(process.name), _command(process), path)


def _open_paths(process: Path, prefix: str, written_only: bool) -> Iterator[str]:
    if not written_only:
        path = str((process / "cwd").readlink())
        if _is_below(path, prefix):
            yield path
    for link in (process / "fd").iterdir():
        with contextlib.suppress(OSError):
            path = str(link.readlink())
            if _is_below(path, prefix) and (not written_only or _is_written(process, link.name)):
                yield path
    with (process / "maps").open(errors="surrogateescape") as lines:
        for line in lines:
            fields = line.rstrip("\n").split(maxsplit=5)
            if len(fields) < 6 or not _is_below(fields[5], prefix):
                continue
            if not written_only or (fields[1][1] == "w" and fields[1][3] == "s"):
                yield fields[5]


def _is_below(path: str, prefix: str) -> bool:
    return path == prefix or path.startswith(prefix + "/")


def _is_written(process: Path, number: str) -> bool:
    text = (process / "fdinfo" / number).read_text()
    found = re.search(r"^flags:\s*([0-7]+)$", text, re.MULTILINE)
    return found is not None and int(found[1], 8) & os.O_ACCMODE != os.O_RDONLY


def _command(process: Path) -> str:
    text = (process / "cmdline").read_bytes()[:_MAX_COMMAND_BYTES].replace(b"\0", b" ")
    return text.decode("utf-8", "replace").strip()
