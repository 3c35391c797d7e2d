"""Where a large file is cut into chunks: the xor32 rolling checksum.

Spec: docs/reference/formats/chunking.md. The cuts depend on content, not on position, so a file
with a few bytes inserted shares most of its chunks with the old one. The scan itself is C.
"""

from dataclasses import dataclass
from typing import Final

from outcrop.errors import FormatError
from outcrop.formats import _cuts

_WINDOW_BYTES: Final = 32
_MAX_SIZE: Final = 1 << 40


@dataclass(frozen=True, slots=True)
class ChunkSizes:
    """The smallest, the wished-for and the largest chunk, in bytes.

    The last chunk of a file may be smaller than `minimum`.
    """

    minimum: int
    average: int
    maximum: int

    def __post_init__(self) -> None:
        if not _WINDOW_BYTES <= self.minimum < self.average < self.maximum <= _MAX_SIZE:
            raise FormatError(
                f"chunk sizes {self.minimum}, {self.average}, {self.maximum} are impossible",
                hint=f"{_WINDOW_BYTES} <= minimum < average < maximum <= {_MAX_SIZE}",
            )


DEFAULT_CHUNK_SIZES: Final = ChunkSizes(4 << 20, 8 << 20, 16 << 20)


class Cutter:
    """Finds the cut marks of one file, which may come in blocks of any size.

    Not for use by two threads at a time; it says so with a RuntimeError.
    """

    def __init__(self, sizes: ChunkSizes = DEFAULT_CHUNK_SIZES) -> None:
        self._scanner = _cuts.Scanner(sizes.minimum, sizes.average, sizes.maximum)

    def feed(self, block: bytes | bytearray | memoryview) -> list[int]:
        """Scan the file's next bytes, without the interpreter lock.

        Returns the cut marks found in this block as positions in the file: each is the first byte
        of a chunk. There is none at the file's beginning or end.
        """
        return self._scanner.feed(block)


def cut_marks(
    data: bytes | bytearray | memoryview, sizes: ChunkSizes = DEFAULT_CHUNK_SIZES
) -> list[int]:
    """The cut marks of a file that is in memory; empty if it is to stay in one piece."""
    return Cutter(sizes).feed(data)
