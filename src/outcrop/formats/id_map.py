"""Maps of user or group numbers: `FROM TO` lines, as `CVMFS_UID_MAP` and `catalog-chown` have them.

Spec: docs/reference/formats/id-map.md.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Self

from outcrop.errors import FormatError

_LINE = re.compile(r"(\d{1,10}|\*)[ \t]+(\d{1,10})", re.ASCII)
MAX_NUMBER: Final = 0xFFFFFFFF
MAX_CHARACTERS: Final = 16 << 20


@dataclass(frozen=True, slots=True)
class IdMap:
    """Numbers to other numbers; what is not named keeps its number or gets the default."""

    numbers: Mapping[int, int] = field(default_factory=dict)
    default: int | None = None

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read `FROM TO` lines; `*` as FROM is the default, `#` begins a comment."""
        numbers: dict[int, int] = {}
        default = None
        for number, line in enumerate(text.splitlines(), 1):
            content = line.partition("#")[0].strip()
            if not content:
                continue
            match = _LINE.fullmatch(content)
            if match is None or int(match[2]) > MAX_NUMBER:
                raise FormatError(f"line {number}: expected `FROM TO` or `* TO`, not {content!r}")
            if match[1] == "*":
                default = int(match[2])
            else:
                numbers[int(match[1])] = int(match[2])
        return cls(numbers, default)

    def mapped(self, number: int) -> int:
        """What becomes of a number."""
        return self.numbers.get(number, number if self.default is None else self.default)

    def __bool__(self) -> bool:
        return bool(self.numbers) or self.default is not None
