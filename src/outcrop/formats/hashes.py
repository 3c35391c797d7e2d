"""Content hashes and the names of objects. Spec: docs/reference/formats/hashes.md.

A content hash is taken over the bytes *as stored*, so usually over the compressed form. The suffix
letter tells the kind of an object; it belongs to the object's path and never to its hash.
"""

import hashlib
import re
from dataclasses import dataclass
from enum import Enum, StrEnum
from typing import Protocol, Self

from outcrop.errors import FormatError


class HashAlgorithm(Enum):
    """A hash algorithm with its number on the wire (catalog flags hold `number - 1`)."""

    MD5 = (0, "md5", "", 16)
    SHA1 = (1, "sha1", "", 20)
    RMD160 = (2, "rmd160", "-rmd160", 20)
    SHAKE128 = (3, "shake128", "-shake128", 20)

    def __init__(self, number: int, label: str, text_suffix: str, size: int) -> None:
        self.number = number
        self.label = label
        self.text_suffix = text_suffix
        self.size = size

    @classmethod
    def from_label(cls, label: str) -> Self:
        """Find the algorithm a user named: `sha1`, `rmd160` or `shake128`."""
        for algorithm in cls:
            if algorithm.label == label and algorithm is not cls.MD5:
                return algorithm
        raise FormatError(f"unknown hash algorithm {label!r}: expected sha1, rmd160 or shake128")

    @classmethod
    def from_number(cls, number: int) -> Self:
        """Find the algorithm by its number; md5 (0) names no content."""
        if 1 <= number <= 3:
            return _BY_NUMBER[number]
        raise FormatError(f"unknown hash algorithm number {number}: expected 1, 2 or 3")


_BY_NUMBER = {algorithm.number: algorithm for algorithm in HashAlgorithm}


class Hasher(Protocol):
    """A running hash."""

    def update(self, data: bytes, /) -> None:
        """Feed bytes."""

    def hash(self) -> "ContentHash":
        """The content hash of all bytes fed so far."""


class _Digest:
    """Hasher for the algorithms with a fixed digest size."""

    def __init__(self, algorithm: HashAlgorithm) -> None:
        self._algorithm = algorithm
        name = {"rmd160": "ripemd160"}.get(algorithm.label, algorithm.label)
        self._state = hashlib.new(name, usedforsecurity=False)
        self.update = self._state.update

    def hash(self) -> "ContentHash":
        return ContentHash(self._algorithm, self._state.digest())


class _Shake:
    """Hasher for SHAKE128, cut to 160 bits."""

    def __init__(self) -> None:
        self._state = hashlib.shake_128(usedforsecurity=False)
        self.update = self._state.update

    def hash(self) -> "ContentHash":
        return ContentHash(HashAlgorithm.SHAKE128, self._state.digest(20))


_TEXT = re.compile(r"(?P<hex>[0-9a-f]{40}|[0-9a-f]{32})(?P<text_suffix>-rmd160|-shake128)?")


@dataclass(frozen=True, slots=True)
class ContentHash:
    """What identifies an object: an algorithm and a digest of 20 bytes (16 for md5)."""

    algorithm: HashAlgorithm
    digest: bytes

    def __post_init__(self) -> None:
        if len(self.digest) != self.algorithm.size:
            raise FormatError(
                f"a {self.algorithm.label} digest has {self.algorithm.size} bytes, "
                f"not {len(self.digest)}"
            )

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read lower-case hex with the algorithm's textual suffix, as `__str__` writes it."""
        match = _TEXT.fullmatch(text)
        if match is None:
            raise FormatError(f"not a content hash: {text[:60]!r}")
        digest = bytes.fromhex(match["hex"])
        if match["text_suffix"] is None:
            algorithm = HashAlgorithm.MD5 if len(digest) == 16 else HashAlgorithm.SHA1
        else:
            algorithm = HashAlgorithm.from_label(match["text_suffix"][1:])
        return cls(algorithm, digest)

    @classmethod
    def of(cls, data: bytes, algorithm: HashAlgorithm) -> "ContentHash":
        """Hash bytes."""
        hasher = new_hasher(algorithm)
        hasher.update(data)
        return hasher.hash()

    @property
    def is_null(self) -> bool:
        """Whether every bit is zero: upstream's way to write "none"."""
        return not any(self.digest)

    def __str__(self) -> str:
        return self.digest.hex() + self.algorithm.text_suffix


def new_hasher(algorithm: HashAlgorithm) -> Hasher:
    """Start a running hash."""
    return _Shake() if algorithm is HashAlgorithm.SHAKE128 else _Digest(algorithm)


class Suffix(StrEnum):
    """The letter at the end of an object's path: its kind."""

    FILE = ""
    CATALOG = "C"
    HISTORY = "H"
    META_INFO = "M"
    CHUNK = "P"
    CERTIFICATE = "X"


class Compression(Enum):
    """How the stored form of an object is made from the plain one (number in catalog flags)."""

    ZLIB = 0
    NONE = 1

    @property
    def label(self) -> str:
        """The word users read and write."""
        return self.name.lower()

    @classmethod
    def from_label(cls, label: str) -> "Compression":
        """Read a user's word; `default` is upstream's other spelling of zlib."""
        known = {"zlib": cls.ZLIB, "default": cls.ZLIB, "none": cls.NONE}
        if label not in known:
            raise FormatError(f"unknown compression {label!r}: expected zlib, default or none")
        return known[label]


def hash_file_name(content_hash: ContentHash) -> str:
    """`XX/REST` and the textual suffix: the name in a cache directory, where kinds are not told."""
    text = str(content_hash)
    return f"{text[:2]}/{text[2:]}"


@dataclass(frozen=True, slots=True)
class ObjectRef:
    """All a reader must know to fetch one object and to believe it.

    `size` is the number of plain (uncompressed) bytes where the referring catalog or manifest
    tells it: the fetched object must have exactly that many. `None`: unknown, the reader's own
    limit applies. `url_path` is set for external data only: where the bytes are below the
    external host (escaped by the fetcher), and then `offset`, if not `None`, is the position of
    these `size` bytes in that file (spec 24). `is_shortcut`: it is
    asked for by the name that repositories with alternative catalog paths have for it.
    """

    hash: ContentHash
    suffix: Suffix = Suffix.FILE
    compression: Compression = Compression.ZLIB
    size: int | None = None
    url_path: bytes | None = None
    offset: int | None = None
    is_shortcut: bool = False

    @property
    def path(self) -> str:
        """`data/XX/REST` with textual suffix and suffix letter, below the repository's URL."""
        if self.is_shortcut:
            return f".cvmfsalt-{self.hash}{self.suffix.value}"
        return f"data/{hash_file_name(self.hash)}{self.suffix.value}"
