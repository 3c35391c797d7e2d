"""Changing `server.conf` in place: what somebody wrote by hand there stays as it is."""

import re
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from outcrop.formats.parameters import MAX_FILE_BYTES, parse_parameters, serialize_parameters
from outcrop.publisher.private_files import write_file


@dataclass(frozen=True, slots=True)
class SettingsFile:
    """A file of parameters, with its content and mode as they were when it was read."""

    file: Path
    text: bytes
    mode: int

    @classmethod
    def read(cls, file: Path) -> Self:
        """Read a file, or the one it is a link to. Raises OSError."""
        place = file.resolve()
        with place.open("rb") as opened:
            text = opened.read(MAX_FILE_BYTES)
        return cls(place, text, stat.S_IMODE(place.stat().st_mode))

    def change(self, values: Mapping[str, str]) -> None:
        """Give parameters other values, atomically; all other lines stay. Raises FormatError."""
        text = self.text
        for name, value in values.items():
            text = _changed(text, name, value)
        write_file(self.file, text, self.mode)

    def restore(self) -> None:
        """Write what was read. Raises OSError."""
        write_file(self.file, self.text, self.mode)


def _changed(text: bytes, name: str, value: str) -> bytes:
    """Change a line that is nothing but this assignment; where that does not do, add one."""
    line = serialize_parameters({name: value}).rstrip(b"\n")
    # In a shell a # begins a comment only after a blank.
    own = re.compile(rb"^([ \t]*)" + name.encode() + rb"=[^\s;#'\"\\$`]*([ \t]+#.*|[ \t]*)$", re.M)
    changed = own.sub(lambda match: match[1] + line + match[2], text)
    found = {one.name: one.value for one in parse_parameters(changed, environment={})}
    if found.get(name) == value:
        return changed
    separator = b"" if not changed or changed.endswith(b"\n") else b"\n"
    return changed + separator + line + b"\n"
