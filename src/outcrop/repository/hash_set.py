"""A set of content hashes in little memory: some 40 bytes each, for tens of millions of them."""

from collections.abc import Iterable

DIGEST_BYTES = 20
_KEY_BYTES = 3
_MAX_BITS = 8 * _KEY_BYTES
_GROWTH_BITS = 4
_CROWDED = 64


class HashSet:
    """Digests, spread by their first bits over buckets: byte strings that are searched through.

    The algorithm is not told apart, nor the kind of object: of two objects with one digest both
    are in. There are more buckets as there are more digests, so a search stays short. Not for
    several threads at once.
    """

    def __init__(self) -> None:
        self._bits = 8
        self._buckets: list[bytearray | None] = [None] * (1 << self._bits)
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def __contains__(self, digest: bytes) -> bool:
        digest = padded(digest)
        key = int.from_bytes(digest[:_KEY_BYTES], "big") >> (_MAX_BITS - self._bits)
        bucket = self._buckets[key]
        return bucket is not None and _is_in(bucket, digest)

    def add(self, digest: bytes) -> bool:
        """Put one digest in; whether it is new."""
        return bool(self.add_all(padded(digest)))

    def add_all(self, digests: bytes) -> list[bytes]:
        """Put many in, given one after the other as 20 bytes each; the new ones are returned."""
        buckets, shift = self._buckets, _MAX_BITS - self._bits
        new = []
        for digest in divided(digests):
            key = int.from_bytes(digest[:_KEY_BYTES], "big") >> shift
            bucket = buckets[key]
            if bucket is None:
                buckets[key] = bytearray(digest)
            elif _is_in(bucket, digest):
                continue
            else:
                bucket += digest
            new.append(digest)
        self._count += len(new)
        if self._is_crowded():
            self._spread()
        return new

    def missing(self, digests: Iterable[bytes]) -> list[bytes]:
        """Those of 20 bytes each that are not in."""
        buckets, shift = self._buckets, _MAX_BITS - self._bits
        absent = []
        for digest in digests:
            bucket = buckets[int.from_bytes(digest[:_KEY_BYTES], "big") >> shift]
            if bucket is None or not _is_in(bucket, digest):
                absent.append(digest)
        return absent

    def _is_crowded(self) -> bool:
        return self._count > _CROWDED << self._bits and self._bits < _MAX_BITS

    def _spread(self) -> None:
        while self._is_crowded():
            self._bits += _GROWTH_BITS
        old, self._buckets = self._buckets, [None] * (1 << self._bits)
        self._count = 0
        old.reverse()
        while old:  # each is gone before the next is copied
            bucket = old.pop()
            if bucket is not None:
                self.add_all(bytes(bucket))


def divided(digests: bytes) -> list[bytes]:
    """Digests given one after the other, each by itself."""
    return [digests[start : start + DIGEST_BYTES] for start in range(0, len(digests), DIGEST_BYTES)]


def padded(digest: bytes) -> bytes:
    """A digest of 20 bytes; only md5 has fewer, and no object is named by one."""
    return digest.ljust(DIGEST_BYTES, b"\0")


def _is_in(bucket: bytearray, digest: bytes) -> bool:
    position = bucket.find(digest)
    while position > 0 and position % DIGEST_BYTES:
        position = bucket.find(digest, position + 1)
    return position >= 0
