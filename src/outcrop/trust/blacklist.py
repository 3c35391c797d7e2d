"""The blacklist: certificates and revisions that were revoked by hand.

Spec: docs/reference/formats/blacklist.md. A site's file and the configuration repository's count
together: parse them joined with a newline.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Self

from outcrop.errors import FormatError
from outcrop.formats.fqrn import check_fqrn
from outcrop.formats.hashes import ContentHash
from outcrop.formats.manifest import parse_decimal
from outcrop.formats.whitelist import fingerprint_text, parse_fingerprint
from outcrop.trust.errors import Blacklisted
from outcrop.trust.keys import Certificate

MAX_BYTES: Final = 16 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Blacklist:
    """Revoked fingerprints, and for a repository the lowest revision still good.

    `unreadable` are lines that are neither (upstream passes over them, too); whoever reads the
    file should tell its owner.
    """

    fingerprints: frozenset[ContentHash] = frozenset()
    lowest_revisions: Mapping[str, int] = field(default_factory=dict)
    unreadable: tuple[bytes, ...] = ()

    @classmethod
    def parse(cls, text: bytes) -> Self:
        """Read the lines. Raises FormatError only for a file too large to be one."""
        if len(text) > MAX_BYTES:
            raise FormatError(f"a blacklist of {len(text)} bytes: the limit is {MAX_BYTES}")
        fingerprints: set[ContentHash] = set()
        revisions: dict[str, int] = {}
        unreadable: list[bytes] = []
        for line in text.splitlines():
            try:
                if line.startswith(b"<"):
                    fqrn, revision = _parse_floor(line)
                    revisions[fqrn] = max(revision, revisions.get(fqrn, 0))
                elif line.split(b"#")[0].strip():
                    fingerprints.add(parse_fingerprint(line))
            except FormatError:
                unreadable.append(line)
        return cls(frozenset(fingerprints), revisions, tuple(unreadable))

    def check_certificate(self, certificate: Certificate) -> None:
        """Raises Blacklisted if the certificate is revoked under any algorithm."""
        for algorithm in {fingerprint.algorithm for fingerprint in self.fingerprints}:
            fingerprint = certificate.fingerprint(algorithm)
            if fingerprint in self.fingerprints:
                raise Blacklisted(
                    f"certificate {fingerprint_text(fingerprint)} is blacklisted",
                    hint="ask the repository's administrator for the reason",
                )

    def check_revision(self, fqrn: str, revision: int) -> None:
        """Raises Blacklisted if the revision is below the repository's floor."""
        lowest = self.lowest_revisions.get(fqrn, 0)
        if revision < lowest:
            raise Blacklisted(
                f"{fqrn}: revision {revision} is blacklisted, as all below {lowest} are"
            )


def _parse_floor(line: bytes) -> tuple[str, int]:
    match = _FLOOR.fullmatch(line)
    if match is None:
        raise FormatError(f"not a blacklisted revision: {line[:60]!r}")
    return check_fqrn(match["fqrn"].decode()), parse_decimal(match["revision"])


_FLOOR = re.compile(rb"<(?P<fqrn>[A-Za-z0-9._-]+)[ \t]+(?P<revision>[0-9]+)")
