"""The repository manifest, `.cvmfspublished`: the only mutable object of a repository.

One `<letter><value>` line per field. Spec: docs/reference/formats/manifest.md. The signature below
the `--` line belongs to `formats.signed`; whether to believe a manifest is decided in `trust`.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Self

from outcrop.errors import FormatError
from outcrop.formats.fqrn import check_fqrn
from outcrop.formats.hashes import ContentHash, HashAlgorithm
from outcrop.formats.signed import parse_content_hash

MAX_BYTES: Final = 64 * 1024
"""No manifest is larger. (Upstream's own tools stop at 4096 bytes.)"""

ROOT_PATH_HASH: Final = "d41d8cd98f00b204e9800998ecf8427e"
"""MD5 of the empty path: the only value field R may have."""

_MAX_INT64: Final = (1 << 63) - 1
_MAX_UINT32: Final = (1 << 32) - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """Points at one revision: its root catalog, certificate, history, meta info and reflog.

    `catalog_size` is the plain size of the root catalog in bytes (0: not told), `ttl` is in
    seconds, `published_at` unix time (0: not told). `reflog` is the hash of the reflog's plain
    bytes. `unknown` are lines of newer versions: kept for writing back, never interpreted.
    """

    root_catalog: ContentHash
    ttl: int
    revision: int
    catalog_size: int = 0
    garbage_collectable: bool = False
    has_alternative_paths: bool = False
    micro_catalog: ContentHash | None = None
    fqrn: str | None = None
    certificate: ContentHash | None = None
    history: ContentHash | None = None
    published_at: int = 0
    meta_info: ContentHash | None = None
    reflog: ContentHash | None = None
    unknown: tuple[bytes, ...] = ()

    @property
    def algorithm(self) -> HashAlgorithm:
        """The repository's hash algorithm: the one of its root catalog."""
        return self.root_catalog.algorithm

    @classmethod
    def parse(cls, body: bytes) -> Self:
        """Read the lines above `--`. Raises FormatError; never anything else.

        Of a field given twice the last counts, as upstream has it.
        """
        values: dict[str, Any] = {}
        unknown: list[bytes] = []
        for line in body.split(b"\n"):
            letter, value = line[:1], line[1:]
            if letter in _READERS:
                name, read = _READERS[letter]
                values[name] = _read_field(letter, value, read)
            elif line:
                unknown.append(line)
        for field in _REQUIRED:
            if field not in values:
                raise FormatError(f"the manifest does not tell the {field.replace('_', ' ')}")
        del values["root_path"]
        return cls(**values, unknown=tuple(unknown))

    def serialize(self) -> bytes:
        """Write the lines in upstream's order, byte for byte."""
        fields: list[tuple[str, object]] = [
            ("C", self.root_catalog),
            ("B", self.catalog_size),
            ("R", ROOT_PATH_HASH),
            ("D", self.ttl),
            ("S", self.revision),
            ("G", "yes" if self.garbage_collectable else "no"),
            ("A", "yes" if self.has_alternative_paths else "no"),
            ("L", self.micro_catalog),
            ("N", self.fqrn),
            ("X", self.certificate),
            ("H", self.history),
            ("T", self.published_at or None),
            ("M", self.meta_info),
            ("Y", self.reflog),
        ]
        lines = [f"{letter}{value}".encode() for letter, value in fields if value is not None]
        return b"\n".join([*lines, *self.unknown]) + b"\n"


def _read_field(letter: bytes, value: bytes, read: Callable[[bytes], object]) -> object:
    try:
        return read(value)
    except FormatError as error:
        raise FormatError(f"manifest field {letter.decode()}: {error}", hint=error.hint) from error


def parse_decimal(text: bytes, *, maximum: int = _MAX_INT64) -> int:
    """Read digits and nothing else: `int` would take signs, blanks and underscores, too."""
    if _DECIMAL.fullmatch(text) is None or int(text) > maximum:
        raise FormatError(f"not a number from 0 to {maximum}: {text[:40]!r}")
    return int(text)


_DECIMAL = re.compile(rb"[0-9]{1,20}")


def _read_yes_no(text: bytes) -> bool:
    if text not in (b"yes", b"no"):
        raise FormatError(f"neither yes nor no: {text[:40]!r}")
    return text == b"yes"


def _read_fqrn(text: bytes) -> str:
    return check_fqrn(text.decode("ascii", "backslashreplace"))


def _read_root_path(text: bytes) -> bool:
    if text != ROOT_PATH_HASH.encode():
        raise FormatError(f"the root path's hash is {text[:40]!r}, not {ROOT_PATH_HASH}")
    return True


def _read_ttl(text: bytes) -> int:
    return parse_decimal(text, maximum=_MAX_UINT32)


_READERS: Final[Mapping[bytes, tuple[str, Callable[[bytes], object]]]] = {
    b"C": ("root_catalog", parse_content_hash),
    b"B": ("catalog_size", parse_decimal),
    b"R": ("root_path", _read_root_path),
    b"D": ("ttl", _read_ttl),
    b"S": ("revision", parse_decimal),
    b"G": ("garbage_collectable", _read_yes_no),
    b"A": ("has_alternative_paths", _read_yes_no),
    b"L": ("micro_catalog", parse_content_hash),
    b"N": ("fqrn", _read_fqrn),
    b"X": ("certificate", parse_content_hash),
    b"H": ("history", parse_content_hash),
    b"T": ("published_at", parse_decimal),
    b"M": ("meta_info", parse_content_hash),
    b"Y": ("reflog", parse_content_hash),
}
_REQUIRED: Final = ("root_catalog", "ttl", "revision", "root_path")


@dataclass(frozen=True, slots=True)
class Breadcrumb:
    """What a client cache remembers of the last manifest it believed: `cvmfschecksum.FQRN`.

    It lets a client start without network, and recognise an older manifest being replayed.
    Spec: docs/reference/formats/breadcrumb.md.
    """

    root_catalog: ContentHash
    published_at: int = 0
    revision: int = 0

    MAX_BYTES = 164

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """Read it; files of old clients lack the revision or the time. Raises FormatError."""
        match = _BREADCRUMB.fullmatch(data)
        if match is None:
            raise FormatError(f"not a cache breadcrumb: {data[:60]!r}")
        return cls(
            parse_content_hash(match["hash"]),
            parse_decimal(match["published_at"] or b"0"),
            parse_decimal(match["revision"] or b"0"),
        )

    @classmethod
    def of(cls, manifest: Manifest) -> Self:
        """What to remember of a manifest."""
        return cls(manifest.root_catalog, manifest.published_at, manifest.revision)

    def serialize(self) -> bytes:
        """The file's bytes, without newline."""
        return f"{self.root_catalog}T{self.published_at}R{self.revision}".encode()


_BREADCRUMB = re.compile(
    rb"(?P<hash>[0-9a-f]{40}(?:-[a-z0-9]{1,10})?)"
    rb"(?:T(?P<published_at>[0-9]{1,20}))?(?:R(?P<revision>[0-9]{1,20}))?"
)
