"""What upkeep of a stratum 0 starts from: settings, store, verified trunk, reflog."""

from dataclasses import dataclass
from pathlib import Path

from outcrop.publisher.session import read_key
from outcrop.publisher.settings import StratumZeroSettings
from outcrop.repository.history import History
from outcrop.repository.open import RepositorySource
from outcrop.repository.reflog import Reflog
from outcrop.storage.locations import Locations
from outcrop.storage.store import WritableStore
from outcrop.storage.temporary import TransientOpener
from outcrop.storage.upstream import open_store
from outcrop.trust.blacklist import Blacklist
from outcrop.trust.chain import TrustedManifest
from outcrop.trust.keys import load_public_keys


@dataclass(frozen=True, slots=True)
class StratumZeroSource:
    """A repository as the one who publishes it sees it. No signing keys are needed."""

    settings: StratumZeroSettings
    store: WritableStore
    source: RepositorySource

    @classmethod
    def open(
        cls,
        locations: Locations,
        fqrn: str,
        *,
        store: WritableStore | None = None,
        scratch: Path | None = None,
    ) -> "StratumZeroSource":
        """Read the settings and the public key. `store`: where it is instead of where they say.

        Temporary files go to `scratch`, or where the system has such.
        Raises RepositoryNotFound, PublisherSettingsError.
        """
        settings = StratumZeroSettings.read(locations, fqrn)
        store = store if store is not None else open_store(settings.upstream)
        source = RepositorySource(
            fqrn,
            store,
            TransientOpener(store, directory=scratch),
            load_public_keys(read_key(locations, f"{fqrn}.pub")),
            Blacklist(),
        )
        return cls(settings, store, source)

    def fetch_trunk(self, *, now: int) -> tuple[TrustedManifest, History]:
        """The verified manifest and the tags. Raises TrustError, StorageError, FormatError."""
        trusted = self.source.fetch_manifest(now=now)
        return trusted, self.source.history(trusted)

    def reflog(self, trusted: TrustedManifest) -> Reflog:
        """The repository's reflog, with the checksum this machine keeps."""
        return Reflog(
            self.store,
            self.settings.spool / "reflog.chksum",
            self.settings.fqrn,
            trusted.manifest.algorithm,
        )
