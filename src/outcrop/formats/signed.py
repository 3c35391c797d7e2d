r"""The signed text that manifests and whitelists are: a body, its hash, a signature over that hash.

`BODY --\n HASH \n SIGNATURE`. Spec: docs/reference/formats/manifest.md. This module takes the
three apart and puts them together; it judges none of them. That is `outcrop.trust`'s office.
"""

from dataclasses import dataclass
from typing import Self

from outcrop.errors import FormatError
from outcrop.formats.hashes import ContentHash, HashAlgorithm

_SEPARATOR = b"\n--\n"
_MAX_HASH_LINE_BYTES = 64


@dataclass(frozen=True, slots=True)
class SignedText:
    r"""`body` ends with a newline and is what was hashed; `signature` is binary.

    What was signed is the hash in its text form, not the body.
    """

    body: bytes
    hash: ContentHash
    signature: bytes

    @classmethod
    def parse(cls, data: bytes) -> Self:
        r"""Split at the first line that is exactly `--`. Raises FormatError."""
        before, separator, rest = data.partition(_SEPARATOR)
        if not separator:
            raise FormatError("no `--` line between the text and its signature")
        end = rest.find(b"\n", 0, _MAX_HASH_LINE_BYTES)
        if end < 0:
            raise FormatError("no hash line below the `--` line")
        return cls(before + b"\n", parse_content_hash(rest[:end]), rest[end + 1 :])

    def serialize(self) -> bytes:
        """The file's bytes."""
        if not self.body.endswith(b"\n") or self.body.find(_SEPARATOR) >= 0:
            raise FormatError("a signed text ends with a newline and has no `--` line of its own")
        return self.body + b"--\n" + str(self.hash).encode() + b"\n" + self.signature

    @property
    def body_hash_matches(self) -> bool:
        """Whether the hash line is the hash of the body. Alone it proves nothing."""
        return ContentHash.of(self.body, self.hash.algorithm) == self.hash


def parse_content_hash(text: bytes) -> ContentHash:
    """Read a hash that identifies content, so not an md5. Raises FormatError."""
    try:
        parsed = ContentHash.parse(text.decode("ascii"))
    except UnicodeDecodeError as error:
        raise FormatError(f"not a content hash: {text[:60]!r}") from error
    if parsed.algorithm is HashAlgorithm.MD5:
        raise FormatError(f"md5 identifies no content: {parsed}")
    return parsed
