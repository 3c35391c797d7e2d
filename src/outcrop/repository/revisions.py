"""Root catalogs without a name: each says which one it succeeds, back to the first that is kept."""

import os
from collections.abc import Iterator
from dataclasses import dataclass

from outcrop.errors import FormatError
from outcrop.formats.dates import parse_date
from outcrop.formats.hashes import ContentHash, ObjectRef, Suffix
from outcrop.formats.history import Tag
from outcrop.repository.catalogs import MAX_CATALOG_BYTES, Catalog
from outcrop.repository.errors import RevisionNotFound, TagNotFound
from outcrop.repository.history import History
from outcrop.storage.errors import ObjectNotFound
from outcrop.storage.store import ObjectOpener

MAX_STEPS = 100_000
"""How far back a chain of revisions is followed."""


@dataclass(frozen=True, slots=True)
class RootCatalog:
    """What a root catalog says about itself.

    `size` is in plain bytes, `published_at` unix seconds; `previous` is the root before it, `None`
    for the first.
    """

    hash: ContentHash
    size: int
    revision: int
    published_at: int
    previous: ContentHash | None

    def tag(self, name: str, description: str = "", branch: str = "") -> Tag:
        """A tag on this revision."""
        return Tag(
            name,
            self.hash,
            self.size,
            self.revision,
            self.published_at,
            description=description,
            branch=branch,
        )


def read_root(opener: ObjectOpener, root_hash: ContentHash) -> RootCatalog:
    """Look at a root catalog. Raises FormatError if the catalog is a nested one, StorageError."""
    fd = opener.open_object(ObjectRef(root_hash, Suffix.CATALOG), limit=MAX_CATALOG_BYTES)
    size = os.fstat(fd).st_size
    catalog = Catalog(fd, root_hash)
    if catalog.root_prefix:
        raise FormatError(
            f"{root_hash} is no root catalog: it was made for {os.fsdecode(catalog.root_prefix)!r}"
        )
    return RootCatalog(root_hash, size, catalog.revision, catalog.last_modified, catalog.previous)


def iter_revisions(opener: ObjectOpener, root_hash: ContentHash) -> Iterator[RootCatalog]:
    """A root catalog and those before it, newest first, as far back as they are kept."""
    wanted: ContentHash | None = root_hash
    for _ in range(MAX_STEPS):
        if wanted is None:
            return
        try:
            found = read_root(opener, wanted)
        except ObjectNotFound:
            if wanted == root_hash:
                raise
            return
        yield found
        wanted = found.previous


def find_revision(
    opener: ObjectOpener, history: History, trunk: ContentHash, number: int
) -> ContentHash:
    """The root catalog of a revision of the trunk by its number. Raises RevisionNotFound.

    The chain is entered at the oldest tag that is not older, as each step fetches a catalog.
    """
    later = [tag for tag in history.tags if not tag.branch and tag.revision >= number]
    nearest = min(later, key=lambda tag: tag.revision, default=None)
    for root in iter_revisions(opener, nearest.hash if nearest is not None else trunk):
        if root.revision == number:
            return root.hash
        if root.revision < number:
            break
    raise RevisionNotFound(
        f"there is no revision {number} (any more)",
        hint="outcrop log lists the tags, outcrop log --revisions all that is kept",
    )


def resolve_revision(
    opener: ObjectOpener, history: History, trunk: ContentHash, text: str, *, now: int
) -> Tag:
    """The revision somebody means: a tag, a root hash (`#` may be before it), a number or a date.

    A date means the newest tagged revision of the trunk at that time. What is found by hash or
    number has that for a name. Raises TagNotFound, RevisionNotFound, StorageError, FormatError.
    """
    for tag in history.tags:
        if tag.name == text:
            return tag
    digits = text.removeprefix("#")
    try:
        root_hash = ContentHash.parse(digits)
    except FormatError:
        pass
    else:
        return read_root(opener, root_hash).tag(digits)
    if text.isascii() and text.isdecimal() and len(text) < 8:
        found = find_revision(opener, history, trunk, int(text))
        return read_root(opener, found).tag(text)
    try:
        at = parse_date(text, now=now)
    except FormatError as error:
        raise TagNotFound(
            f"{text[:60]!r} is no tag, and no root hash, revision or date either",
            hint="outcrop log lists the tags",
        ) from error
    return history.get_at(at)
