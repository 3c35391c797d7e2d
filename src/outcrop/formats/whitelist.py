"""The whitelist, `.cvmfswhitelist`: which certificates may sign a repository's manifests.

Spec: docs/reference/formats/whitelist.md. The signature below the `--` line belongs to
`formats.signed`; whether to believe a whitelist is decided in `trust`.
"""

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final, Self

from outcrop.errors import FormatError
from outcrop.formats.fqrn import check_fqrn
from outcrop.formats.hashes import ContentHash
from outcrop.formats.signed import parse_content_hash

MAX_BYTES: Final = 1024 * 1024
"""No whitelist is larger: it would hold fifteen thousand certificates."""

_HOUR_SECONDS: Final = 3600
_MAX_TIME: Final = 253402300799  # the last second of the year 9999, which has four digits


@dataclass(frozen=True, slots=True, kw_only=True)
class Whitelist:
    """Certificates by fingerprint. Times are unix seconds.

    `expires_at` is a full hour: minutes and seconds of the file's expiry count for nothing, so a
    reader must stop believing it when that hour begins. `wants_pkcs7`: not the master key signs
    it, but a certificate of a trusted authority. `wants_ca_chain`: the repository's certificate
    must be one of a trusted authority as well.
    """

    created_at: int
    expires_at: int
    fqrn: str
    fingerprints: tuple[ContentHash, ...] = ()
    wants_pkcs7: bool = False
    wants_ca_chain: bool = False

    @classmethod
    def parse(cls, body: bytes) -> Self:
        """Read the lines above `--`. Raises FormatError.

        A line after the name that is neither an option nor a fingerprint is ignored.
        """
        lines = body.split(b"\n")
        if len(lines) < 3:
            raise FormatError("a whitelist has a creation time, an expiry time and a name")
        created, expiry, name = lines[:3]
        if not expiry.startswith(b"E") or not name.startswith(b"N"):
            raise FormatError("the second line of a whitelist begins with E, the third with N")
        expires_at = _parse_time(expiry[1:])
        return cls(
            created_at=_parse_time(created),
            expires_at=expires_at - expires_at % _HOUR_SECONDS,
            fqrn=check_fqrn(name[1:].decode("ascii", "backslashreplace")),
            fingerprints=tuple(_fingerprints(lines[3:])),
            wants_pkcs7=b"Vpkcs7" in lines[3:],
            wants_ca_chain=b"Wcachain" in lines[3:],
        )

    def serialize(self) -> bytes:
        """Write the lines; comments a parsed file had are gone."""
        lines = [_time_text(self.created_at), "E" + _time_text(self.expires_at), "N" + self.fqrn]
        lines += ["Vpkcs7"] if self.wants_pkcs7 else []
        lines += ["Wcachain"] if self.wants_ca_chain else []
        lines += [fingerprint_text(fingerprint) for fingerprint in self.fingerprints]
        return "".join(line + "\n" for line in lines).encode()


def fingerprint_text(fingerprint: ContentHash) -> str:
    """Upper-case bytes with colons and the upper-case algorithm: `00:01:…:13-SHAKE128`."""
    return fingerprint.digest.hex(":").upper() + fingerprint.algorithm.text_suffix.upper()


def parse_fingerprint(line: bytes) -> ContentHash:
    """Read a fingerprint, of which a comment may follow. Raises FormatError."""
    text = _FINGERPRINT_END.split(line, maxsplit=1)[0]
    if len(text) > _MAX_FINGERPRINT_BYTES:
        raise FormatError(f"not a certificate's fingerprint: {line[:60]!r}")
    return parse_content_hash(text.replace(b":", b"").lower())


_FINGERPRINT_END = re.compile(rb"[ \t#]")
_MAX_FINGERPRINT_BYTES: Final = 80


def _fingerprints(lines: list[bytes]) -> list[ContentHash]:
    found = []
    for line in lines:
        try:
            found.append(parse_fingerprint(line))
        except FormatError:
            continue
    return found


def _parse_time(text: bytes) -> int:
    match = _TIME.fullmatch(text)
    if match is None:
        raise FormatError(f"not a time of the form YYYYMMDDhhmmss: {text[:40]!r}")
    try:
        parts = [int(part) for part in match.groups()]
        return int(datetime(*parts, tzinfo=UTC).timestamp())  # type: ignore[arg-type,misc]
    except ValueError as error:
        raise FormatError(f"no such time: {text!r}") from error


_TIME = re.compile(rb"([0-9]{4})([0-9]{2})([0-9]{2})([0-9]{2})([0-9]{2})([0-9]{2})")


def _time_text(unix_time: int) -> str:
    if not 0 <= unix_time <= _MAX_TIME:
        raise FormatError(f"time {unix_time} cannot be written with a four-digit year")
    return datetime.fromtimestamp(unix_time, UTC).strftime("%Y%m%d%H%M%S")
