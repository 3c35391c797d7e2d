"""The tags of a published repository, and a repository with a few revisions to tag."""

import shutil
from collections.abc import Generator
from itertools import count
from pathlib import Path

from tests.support.stratum_zero import StratumZero

from outcrop.formats.hashes import ContentHash
from outcrop.formats.history import Tag
from outcrop.repository.history import History, read_history
from outcrop.storage.temporary import TransientOpener


def history_of(world: StratumZero) -> History:
    checker = world.checker()
    checker.check()
    text = checker.manifest.get("H")
    return read_history(TransientOpener(world.store), ContentHash.parse(text) if text else None)


def tags_of(world: StratumZero) -> dict[str, Tag]:
    return {tag.name: tag for tag in history_of(world).tags}


def revisions_of(world: StratumZero) -> dict[str, int]:
    return {name: tag.revision for name, tag in tags_of(world).items()}


class Tagged:
    """Revisions 2, 3 and 4 with the tags v2, v3 and v4; revision N has a file called fN only.

    1 is what mkfs makes.
    """

    def __init__(self, root: Path, **parameters: object) -> None:
        self.root = root
        self.world = StratumZero(root / "template")
        self.world.create()
        self.world.configure(**parameters)
        self.source = root / "source"
        self.source.mkdir()
        for number in (2, 3, 4):
            self.change(number)
            self.world.publish(self.source, tag=f"v{number}")

    def change(self, number: int) -> None:
        for old in self.source.glob("f*"):
            old.unlink()
        (self.source / f"f{number}").write_text(str(number))

    def copy(self, root: Path) -> "Tagged":
        """The same for one test alone: it is quicker to copy than to publish."""
        other = Tagged.__new__(Tagged)
        other.root = root
        other.world = self._copy(root / "template")
        other.source = Path(shutil.copytree(self.source, root / "source", symlinks=True))
        return other

    def copies(self) -> Generator[StratumZero]:
        """Worlds like this one, each gone when the next is asked for."""
        for number in count():
            place = self.root / f"world-{number}"
            world = self._copy(place)
            try:
                yield world
            finally:
                shutil.rmtree(place)

    def _copy(self, place: Path) -> StratumZero:
        shutil.copytree(self.root / "template", place, symlinks=True)
        world = StratumZero(place)
        world.now = self.world.now
        conf = world.locations.server_config(world.fqrn) / "server.conf"
        conf.write_text(conf.read_text().replace(str(self.root / "template"), str(place)))
        return world


def files_of(world: StratumZero, root: ContentHash | None = None) -> set[bytes]:
    """The paths at the trunk or at a root, the root directory itself left out."""
    checker = world.checker()
    checker.check()
    checker.load(str(root) if root is not None else None)
    return {path for path in checker.entries if path}
