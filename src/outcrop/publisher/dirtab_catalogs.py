"""`.cvmfsdirtab` of a revision in the making: directories its rules want become nested catalogs.

Whatever made the revision. A new file of rules is held against the whole tree, along the paths
that can match and no others; rules that are as they were only against catalogs that changed.
"""

from outcrop.errors import FormatError
from outcrop.formats.dirtab import MAX_BYTES, Dirtab
from outcrop.formats.hashes import ObjectRef
from outcrop.publisher.markers import CATALOG_MARKER, DIRTAB, MarkerWriter
from outcrop.repository.editor import VIRTUAL_DIRECTORY, CatalogEditor
from outcrop.repository.working_catalog import WorkingCatalog
from outcrop.storage.store import ObjectStore, read_object

_PERMISSIONS = 0o644
MAX_DEPTH = 4096
"""Deeper than any path the kernel could name."""


def read_rules(editor: CatalogEditor, store: ObjectStore) -> bytes:
    """The `.cvmfsdirtab` that a revision has in its root; none if that is external."""
    entry = editor.find(b"/" + DIRTAB)
    if entry is None or entry.content is None or entry.size > MAX_BYTES or entry.is_external:
        return b""
    ref = ObjectRef(entry.content, compression=entry.compression, size=entry.size)
    return read_object(store, ref, limit=MAX_BYTES)


def apply_dirtab(markers: MarkerWriter, dirtab: Dirtab, *, is_new: bool) -> list[bytes]:
    """Make the nested catalogs that rules ask for and that are not there; returns their paths.

    `is_new`: the rules are not those of the revision before. Raises StorageError, FormatError.
    """
    if not any(not rule.is_exclusion for rule in dirtab.rules):
        return []
    editor = markers.editor
    wanted = []
    if is_new:
        wanted = _find_wanted(editor, dirtab, b"", within=None)
    else:
        for catalog in editor.loaded():
            if catalog.is_dirty and catalog.mountpoint != VIRTUAL_DIRECTORY:
                wanted += _find_wanted(editor, dirtab, catalog.mountpoint, within=catalog)
    for path in wanted:
        markers.nest(path, CATALOG_MARKER, permissions=_PERMISSIONS)
    return wanted


def _find_wanted(
    editor: CatalogEditor, dirtab: Dirtab, start: bytes, *, within: WorkingCatalog | None
) -> list[bytes]:
    """Directories below one that match and are not nested yet; `within` one catalog, or all."""
    found = []
    waiting = [start]
    while waiting:
        directory = waiting.pop()
        if not dirtab.may_match_below(directory):
            continue
        if directory.count(b"/") > MAX_DEPTH:
            raise FormatError(f"directories are nested too deep: {directory[:60]!r}…")
        catalog = within or editor.listing(directory)
        for name, is_mountpoint in catalog.directories(directory):
            path = directory + b"/" + name
            if path == VIRTUAL_DIRECTORY:
                continue
            if not is_mountpoint and dirtab.matches(path):
                found.append(path)
            if not is_mountpoint or within is None:
                waiting.append(path)
    return found
