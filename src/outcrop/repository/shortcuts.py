"""Alternative catalog paths: what a client needs first, by names beside the data directory.

Where `data/` is protected, root catalog, certificate, history and meta info can be had without
credentials by these names (manifest key A, spec 1).
"""

from collections.abc import Callable
from dataclasses import replace
from typing import TypeVar

from outcrop.formats.hashes import ContentHash, ObjectRef, Suffix
from outcrop.formats.manifest import Manifest
from outcrop.repository.stored import name_of, parse_object_name
from outcrop.storage.errors import ObjectNotFound
from outcrop.storage.local import LocalStore
from outcrop.storage.store import WritableStore, read_file

_T = TypeVar("_T")
_PREFIX = ".cvmfsalt-"


def with_shortcut(ref: ObjectRef, manifest: Manifest, fetch: Callable[[ObjectRef], _T]) -> _T:
    """Fetch an object by its shortcut if the manifest promises one, else, or then, as any other."""
    if manifest.has_alternative_paths:
        try:
            return fetch(replace(ref, is_shortcut=True))
        except ObjectNotFound:
            pass
    return fetch(ref)


def make_shortcuts(store: WritableStore, manifest: Manifest) -> None:
    """Make the shortcuts of a manifest: links where the store has such, else copies."""
    for ref in _refs(manifest):
        shortcut = replace(ref, is_shortcut=True).path
        if isinstance(store, LocalStore):
            store.link(shortcut, ref.path)
        elif not store.exists(shortcut):
            store.write(shortcut, read_file(store, ref.path))


def remove_dangling(store: WritableStore) -> int:
    """Remove shortcuts to objects that are not there any more; returns how many.

    A publisher that died leaves some, and so do times at which shortcuts were made.
    """
    removed = 0
    for name in list(store.iter_names(_PREFIX)):
        parsed = parse_object_name(f"data/{name[len(_PREFIX) :][:2]}/{name[len(_PREFIX) + 2 :]}")
        if parsed is not None and not store.exists(name_of(parsed.hash, parsed.suffix)):
            store.remove(name)
            removed += 1
    return removed


def _refs(manifest: Manifest) -> list[ObjectRef]:
    objects: list[tuple[ContentHash | None, Suffix]] = [
        (manifest.root_catalog, Suffix.CATALOG),
        (manifest.certificate, Suffix.CERTIFICATE),
        (manifest.history, Suffix.HISTORY),
        (manifest.meta_info, Suffix.META_INFO),
    ]
    return [ObjectRef(found, suffix) for found, suffix in objects if found is not None]
