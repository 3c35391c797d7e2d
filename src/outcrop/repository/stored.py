"""Which objects a store holds, by their names: listed once instead of asked for one by one."""

import re
from collections.abc import Callable
from typing import NamedTuple

from outcrop.formats.hashes import ContentHash, HashAlgorithm, ObjectRef, Suffix
from outcrop.repository.hash_set import HashSet
from outcrop.storage.store import WritableStore

_NAME = re.compile(r"data/([0-9a-f]{2})/([0-9a-f]{38})((?:-rmd160|-shake128)?[CHMPX]?)")
_BATCH = 10_000
_ALGORITHMS = {
    algorithm.text_suffix: algorithm
    for algorithm in HashAlgorithm
    if algorithm is not HashAlgorithm.MD5
}


class ObjectName(NamedTuple):
    """What the name of a stored object says. `ending` is algorithm and suffix as text."""

    digest: bytes
    ending: str

    @property
    def hash(self) -> ContentHash:
        """The hash its stored bytes must have."""
        text = self.ending.rstrip("CHMPX")
        return ContentHash(_ALGORITHMS[text], self.digest)

    @property
    def suffix(self) -> Suffix:
        """The kind of object."""
        return Suffix(self.ending.removeprefix(self.hash.algorithm.text_suffix))


def parse_object_name(name: str) -> ObjectName | None:
    """Read `data/XX/REST`; `None` for a file that is no object."""
    match = _NAME.fullmatch(name)
    if match is None:
        return None
    return ObjectName(bytes.fromhex(match[1] + match[2]), match[3])


class StoredObjects:
    """The names of all objects of a store, in little memory."""

    def __init__(self) -> None:
        self._sets: dict[str, HashSet] = {}

    @classmethod
    def listed(
        cls, store: WritableStore, progress: Callable[[str, int, int | None], None]
    ) -> "StoredObjects":
        """List what is there. Raises StorageError."""
        found = cls()
        waiting: dict[str, list[bytes]] = {}
        count = 0
        for name in store.iter_names("data/"):
            parsed = parse_object_name(name)
            if parsed is None:
                continue
            digests = waiting.setdefault(parsed.ending, [])
            digests.append(parsed.digest)
            count += 1
            if len(digests) == _BATCH:
                found._add(parsed.ending, digests)
                progress("listing objects", count, None)
        for ending, digests in waiting.items():
            found._add(ending, digests)
        return found

    def _add(self, ending: str, digests: list[bytes]) -> None:
        self._sets.setdefault(ending, HashSet()).add_all(b"".join(digests))
        digests.clear()

    def __len__(self) -> int:
        return sum(map(len, self._sets.values()))

    def has(self, content_hash: ContentHash, suffix: Suffix) -> bool:
        """Whether the object was there."""
        found = self._sets.get(content_hash.algorithm.text_suffix + suffix)
        return found is not None and content_hash.digest in found

    def missing(
        self, algorithm: HashAlgorithm, suffix: Suffix, digests: list[bytes]
    ) -> list[bytes]:
        """Those of 20 bytes each that are not the digest of such an object."""
        found = self._sets.get(algorithm.text_suffix + suffix)
        return digests if found is None else found.missing(digests)


def name_of(content_hash: ContentHash, suffix: Suffix) -> str:
    """Where an object is stored."""
    return ObjectRef(content_hash, suffix).path
