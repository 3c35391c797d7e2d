r"""Letters: a text that was signed with a repository's key, to be sent about.

Spec: docs/reference/formats/letter.md. Whether to believe one is decided in `outcrop.trust.letter`.
"""

import base64
import binascii
from dataclasses import dataclass
from typing import Final, Self

from outcrop.errors import FormatError
from outcrop.formats.fqrn import check_fqrn
from outcrop.formats.manifest import parse_decimal

MAX_BYTES: Final = 16 << 20
_SEPARATOR: Final = b"\n##\n"
_VERSION: Final = b"1"


@dataclass(frozen=True, slots=True)
class Letter:
    """What a letter says: a text, from which repository, when, with which certificate (PEM)."""

    text: bytes
    fqrn: str
    sent_at: int
    certificate: bytes

    @classmethod
    def parse(cls, body: bytes) -> Self:
        """Read the lines above `--`. Raises FormatError."""
        text, separator, envelope = body.partition(_SEPARATOR)
        if not separator:
            raise FormatError("a letter has a line `##` below its text")
        values: dict[bytes, bytes] = {}
        for line in envelope.split(b"\n"):
            if line:
                values.setdefault(line[:1], line[1:])
        for key in (b"V", b"N", b"T", b"X"):
            if key not in values:
                raise FormatError(f"the envelope of a letter has no line {key.decode()}")
        if values[b"V"] != _VERSION:
            raise FormatError(f"a letter of version {values[b'V'][:20]!r}: 1 is known")
        return cls(
            text,
            check_fqrn(values[b"N"].decode("ascii", "backslashreplace")),
            parse_decimal(values[b"T"]),
            _decode(values[b"X"], "the certificate of a letter"),
        )

    def serialize(self) -> bytes:
        """The lines above `--`. Raises FormatError for a text that would be cut in the middle."""
        if _SEPARATOR in b"\n" + self.text + b"\n" or b"\n--\n" in b"\n" + self.text + b"\n":
            raise FormatError("a letter cannot have a line `##` or `--` in its text")
        lines = (
            b"V" + _VERSION,
            b"N" + self.fqrn.encode(),
            b"T" + str(self.sent_at).encode(),
            b"X" + base64.b64encode(self.certificate),
        )
        return self.text + _SEPARATOR + b"".join(line + b"\n" for line in lines)


def open_envelope(data: bytes) -> bytes:
    """The signed text inside a letter's base64. Raises FormatError."""
    if len(data) > MAX_BYTES:
        raise FormatError(f"a letter of {len(data)} bytes: the limit is {MAX_BYTES}")
    return _decode(data.strip(), "the letter")


def _decode(data: bytes, subject: str) -> bytes:
    try:
        return base64.b64decode(data, validate=True)
    except (binascii.Error, ValueError) as error:
        raise FormatError(f"{subject} is not base64: {error}") from error
