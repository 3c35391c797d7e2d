"""Which program makes the zlib streams: a trade of time for size that readers never notice.

Measured on one core with the files of a Python installation: zlib 6 makes 45 MB/s at a ratio of
0.343, libdeflate 6 makes 105 MB/s at 0.341 (5: a fifth faster and 0.3 % larger), isal 3 makes 290
MB/s at 0.372 (2: a third faster and 0.8 % larger). All three let other threads run meanwhile. The
names of objects are hashes of the stream, so they differ between the three; only zlib's are those
that CernVM-FS gives.
"""

import zlib
from enum import StrEnum

import deflate
from isal import isal_zlib

from outcrop.formats.hashes import Compression
from outcrop.publisher.errors import PublisherSettingsError
from outcrop.repository.object_writer import Compressor

_BALANCED_LEVEL = 5
"""A fifth faster than 6; mixed trees still come out smaller than by zlib 6 (decision 0004)."""

_FAST_LEVEL = 2
"""A third faster than 3, and less than 1 % larger."""


class CompressionChoice(StrEnum):
    """How file content is stored. All but `NONE` are the same format."""

    BALANCED = "balanced"
    FAST = "fast"
    ZLIB = "zlib"
    NONE = "none"

    @classmethod
    def from_label(cls, label: str) -> "CompressionChoice":
        """Read a user's word; `default` and `deflate` are other names for balanced.

        Raises PublisherSettingsError.
        """
        if label in ("default", "deflate"):
            return cls.BALANCED
        try:
            return cls(label)
        except ValueError as error:
            raise PublisherSettingsError(
                f"unknown compression {label!r}",
                hint=f"known are default, {', '.join(choice.value for choice in cls)}",
            ) from error

    @property
    def stored_as(self) -> Compression:
        """What the catalog calls it."""
        return Compression.NONE if self is CompressionChoice.NONE else Compression.ZLIB

    @property
    def compressor(self) -> Compressor:
        """What makes the zlib streams: of files, and in any case of catalogs and the like."""
        return _COMPRESSORS[self]


def _balanced(data: bytes) -> bytes:
    return bytes(deflate.zlib_compress(data, _BALANCED_LEVEL))


def _fast(data: bytes) -> bytes:
    return isal_zlib.compress(data, _FAST_LEVEL)


def _exact(data: bytes) -> bytes:
    return zlib.compress(data, 6)


_COMPRESSORS = {
    CompressionChoice.BALANCED: _balanced,
    CompressionChoice.FAST: _fast,
    CompressionChoice.ZLIB: _exact,
    CompressionChoice.NONE: _exact,
}
