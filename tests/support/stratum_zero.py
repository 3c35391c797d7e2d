"""A world of one's own with one repository to publish to, and an independent eye on it."""

from pathlib import Path

from tests.support.checker import Checker
from tests.support.keys import repository_keys

from outcrop.formats.hashes import HashAlgorithm
from outcrop.publisher.create import CreatedRepository, create_repository
from outcrop.publisher.publish import PublishOptions, PublishResult, publish_directory
from outcrop.storage.local import LocalStore
from outcrop.storage.locations import Locations
from outcrop.storage.store import WritableStore

FQRN = "pub.example.org"
NOW = 1_800_000_000


class StratumZero:
    """A repository below `root`; time passes by 10 seconds with each publish."""

    def __init__(
        self,
        root: Path,
        *,
        fqrn: str = FQRN,
        algorithm: HashAlgorithm = HashAlgorithm.SHA1,
        compression: str = "default",
    ) -> None:
        self.fqrn = fqrn
        self.locations = Locations(root)
        self.now = NOW
        self._algorithm = algorithm
        self._compression = compression

    def create(self, *, store: WritableStore | None = None) -> CreatedRepository:
        return create_repository(
            self.locations,
            self.fqrn,
            algorithm=self._algorithm,
            compression=self._compression,
            now=self.now,
            keys=repository_keys(),
            store=store,
        )

    def configure(self, **parameters: object) -> None:
        """Add lines to server.conf; the last one counts."""
        file = self.locations.server_config(self.fqrn) / "server.conf"
        with file.open("a") as out:
            out.writelines(f"{name}={value}\n" for name, value in parameters.items())

    def publish(self, source: Path, **arguments: object) -> PublishResult:
        """Publish a directory; arguments of `PublishOptions` may be given among the others."""
        self.now += 10
        arguments.setdefault("now", self.now)
        arguments["options"] = options_from(arguments)
        return publish_directory(self.locations, self.fqrn, source=source, **arguments)

    @property
    def directory(self) -> Path:
        return self.locations.repository(self.fqrn)

    @property
    def spool(self) -> Path:
        return self.locations.spool(self.fqrn)

    @property
    def store(self) -> LocalStore:
        return LocalStore(self.directory)

    def checker(self) -> Checker:
        """An independent look at the repository; `check` not called yet."""
        return Checker(self.directory, self.fqrn, repository_keys().master_public_pem)

    def checked(self) -> Checker:
        """The repository, found to be right in every respect."""
        checker = self.checker()
        problems = checker.check()
        assert problems == [], problems
        return checker


def options_from(arguments: dict[str, object]) -> PublishOptions:
    """Take the arguments that are options of publishing out of others."""
    names = [name for name in PublishOptions.__dataclass_fields__ if name in arguments]
    return PublishOptions(**{"workers": 2} | {name: arguments.pop(name) for name in names})
