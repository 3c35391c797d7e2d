"""Automatic catalogs: those that grew too large are divided, those that became small are merged.

For who does not say with markers where catalogs are to be: CVMFS_AUTOCATALOGS. Catalogs made here
have a second marker, by which they are known as ours later. Only catalogs in use are looked at.
"""

from dataclasses import dataclass, field

from outcrop.publisher.markers import AUTO_MARKER, CATALOG_MARKER, MarkerWriter
from outcrop.repository.editor import VIRTUAL_DIRECTORY, CatalogEditor
from outcrop.repository.working_catalog import WorkingCatalog

_PERMISSIONS = 0o600


@dataclass(frozen=True, slots=True)
class Weights:
    """How many entries a catalog may have, and how many are worth one of their own."""

    maximum: int
    minimum: int

    @property
    def target(self) -> int:
        """How far a catalog that is too large is reduced."""
        return self.maximum // 2


@dataclass(slots=True)
class _Directory:
    """A directory and what would go with it: `weight` counts itself and all below."""

    path: bytes
    is_catalog: bool
    weight: int
    below: list["_Directory"] = field(default_factory=list)


def balance_catalogs(markers: MarkerWriter, weights: Weights) -> list[str]:
    """Divide and merge the catalogs in use; returns what could not be done, in words."""
    editor = markers.editor
    complaints: list[str] = []
    for catalog in reversed(editor.loaded()):
        path = catalog.mountpoint
        if path == VIRTUAL_DIRECTORY:
            continue
        if catalog.own_entries < weights.minimum and _is_automatic(editor, path):
            markers.unnest(path, CATALOG_MARKER, AUTO_MARKER)
        elif catalog.own_entries > weights.maximum:
            complaints += _divide(markers, catalog, weights)
    return complaints


def _is_automatic(editor: CatalogEditor, path: bytes) -> bool:
    return bool(path) and editor.find(path + b"/" + AUTO_MARKER) is not None


def _divide(markers: MarkerWriter, catalog: WorkingCatalog, weights: Weights) -> list[str]:
    """Take subtrees off a catalog, deepest first, until every part is light enough."""
    order = _directories(catalog)
    complaints = []
    for directory in reversed(order):
        directory.weight += sum(child.weight for child in directory.below)
        directory.below.sort(key=lambda child: child.weight)
        while directory.weight > weights.target:
            heaviest = _pop_heaviest(directory)
            if heaviest is None or heaviest.weight < weights.minimum:
                shown = directory.path.decode("utf-8", "backslashreplace") or "/"
                complaints.append(
                    f"{shown} holds {directory.weight} entries and no subdirectory of "
                    f"{weights.minimum} or more: its catalog stays large"
                )
                break
            markers.nest(heaviest.path, CATALOG_MARKER, AUTO_MARKER, permissions=_PERMISSIONS)
            directory.weight -= heaviest.weight - 1
    return complaints


def _pop_heaviest(directory: _Directory) -> _Directory | None:
    while directory.below:
        child = directory.below.pop()
        if not child.is_catalog:
            return child
    return None


def _directories(catalog: WorkingCatalog) -> list[_Directory]:
    """All directories of a catalog, parents before children; weights without subdirectories."""
    root = _Directory(catalog.mountpoint, is_catalog=False, weight=1)
    children, files = catalog.outline()
    found = []
    waiting = [(catalog.root_key, root)]
    while waiting:
        key, directory = waiting.pop()
        found.append(directory)
        if not directory.is_catalog:
            directory.weight += files.get(key, 0)
        for child_key, name, is_mountpoint in children.pop(key, ()):
            child = _Directory(directory.path + b"/" + name, is_mountpoint, weight=1)
            directory.below.append(child)
            waiting.append((child_key, child))
    return found
