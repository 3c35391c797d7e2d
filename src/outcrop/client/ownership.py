"""Who seems to own what: claimed, mapped, or as stored (spec 20)."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from outcrop.client.errors import SettingsError
from outcrop.errors import FormatError

_LINE = re.compile(r"(\d{1,10}|\*)[ \t]+(\d{1,10})", re.ASCII)
_MAX_NUMBER = 0xFFFFFFFF
_MAX_FILE_CHARACTERS = 16 << 20


@dataclass(frozen=True, slots=True)
class IdMap:
    """Stored numbers to shown ones; what is not named keeps its number or gets the default."""

    numbers: Mapping[int, int] = field(default_factory=dict)
    default: int | None = None

    @classmethod
    def parse(cls, text: str) -> "IdMap":
        """Read `FROM TO` lines; `*` as FROM is the default, `#` begins a comment."""
        numbers: dict[int, int] = {}
        default = None
        for number, line in enumerate(text.splitlines(), 1):
            content = line.partition("#")[0].strip()
            if not content:
                continue
            match = _LINE.fullmatch(content)
            if match is None or int(match[2]) > _MAX_NUMBER:
                raise FormatError(f"line {number}: expected `FROM TO` or `* TO`, not {content!r}")
            if match[1] == "*":
                default = int(match[2])
            else:
                numbers[int(match[1])] = int(match[2])
        return cls(numbers, default)

    @classmethod
    def read(cls, path: Path | None) -> "IdMap":
        """Read a map from a file; no file, no map. Raises SettingsError."""
        if path is None:
            return cls()
        try:
            with path.open(encoding="utf-8", errors="replace") as file:
                return cls.parse(file.read(_MAX_FILE_CHARACTERS))
        except OSError as error:
            raise SettingsError(f"{path}: {error.strerror}") from error
        except FormatError as error:
            raise SettingsError(f"{path}: {error}") from error

    def shown(self, number: int) -> int:
        """The number to show for a stored one."""
        return self.numbers.get(number, number if self.default is None else self.default)

    def __bool__(self) -> bool:
        return bool(self.numbers) or self.default is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class Ownership:
    """How owners and modes are shown: `claim` is the one owner of everything, or maps apply."""

    claim: tuple[int, int] | None = None
    uid_map: IdMap = field(default_factory=IdMap)
    gid_map: IdMap = field(default_factory=IdMap)
    world_readable: bool = False

    @property
    def is_mapped(self) -> bool:
        """Whether owners must be looked at one by one."""
        return bool(self.uid_map) or bool(self.gid_map)
