"""What every revision goes through when its content is complete, whatever it was made from.

Catalogs are divided as `.cvmfsdirtab` and the settings want it, and the virtual directory goes if
the settings do not want it any more.
"""

from outcrop.formats.catalog import DirectoryEntry
from outcrop.formats.dirtab import Dirtab
from outcrop.publisher.balance import Weights, balance_catalogs
from outcrop.publisher.dirtab_catalogs import apply_dirtab, read_rules
from outcrop.publisher.markers import DIRTAB, MarkerWriter
from outcrop.publisher.settings import StratumZeroSettings
from outcrop.repository.editor import VIRTUAL_DIRECTORY, CatalogEditor


def dirtab_entry(editor: CatalogEditor) -> DirectoryEntry | None:
    """The file of rules, to tell later whether it is another one."""
    return editor.find(b"/" + DIRTAB)


def finish_content(
    markers: MarkerWriter, settings: StratumZeroSettings, *, dirtab_before: DirectoryEntry | None
) -> list[str]:
    """Bring the catalogs of a revision in order; returns warnings.

    `dirtab_before` is what `dirtab_entry` gave when the editor was opened. Raises StorageError,
    FormatError.
    """
    editor = markers.editor
    if not settings.virtual_directory and editor.find(VIRTUAL_DIRECTORY) is not None:
        editor.remove(VIRTUAL_DIRECTORY)
    if settings.membership:
        _require_membership(editor, settings.membership)
    _apply_dirtab(markers, dirtab_before)
    if not settings.autocatalogs:
        return []
    weights = Weights(settings.autocatalogs_max_weight, settings.autocatalogs_min_weight)
    return balance_catalogs(markers, weights)


def _require_membership(editor: CatalogEditor, membership: str) -> None:
    """Say in the root catalog who may read, by which clients know that they need credentials."""
    if editor.root.properties.get("voms_authz") != membership:
        editor.root.set_properties(voms_authz=membership)


def _apply_dirtab(markers: MarkerWriter, before: DirectoryEntry | None) -> None:
    now = dirtab_entry(markers.editor)
    if now is None:
        return
    rules = Dirtab.parse(read_rules(markers.editor, markers.writer.store))
    is_new = before is None or before.content != now.content
    apply_dirtab(markers, rules, is_new=is_new)
