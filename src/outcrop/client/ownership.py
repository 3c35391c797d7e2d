"""Who seems to own what: claimed, mapped, or as stored (spec 20)."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from outcrop.client.errors import SettingsError
from outcrop.errors import FormatError
from outcrop.formats import id_map as formats


class IdMap(formats.IdMap):
    """Stored numbers to shown ones, from a file of this machine."""

    __slots__ = ()

    @classmethod
    def read(cls, path: Path | None) -> Self:
        """Read a map from a file; no file, no map. Raises SettingsError."""
        if path is None:
            return cls()
        try:
            with path.open(encoding="utf-8", errors="replace") as file:
                return cls.parse(file.read(formats.MAX_CHARACTERS))
        except OSError as error:
            raise SettingsError(f"{path}: {error.strerror}") from error
        except FormatError as error:
            raise SettingsError(f"{path}: {error}") from error

    def shown(self, number: int) -> int:
        """The number to show for a stored one."""
        return self.mapped(number)


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
